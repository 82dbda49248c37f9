"""A worker is killed in the middle of a replay, or of its cancellation: the next one goes on where it was."""

from collections import Counter
from collections.abc import Iterator

import pytest

from djwebhooks.database import DatabaseNow
from djwebhooks.models import Delivery, Replay, WebhookTarget
from djwebhooks.models.replays import make_criteria
from djwebhooks.replays import carry_on
from tests.faults.books import check_books, unrecorded
from tests.faults.ledger import Answer, Arrival, Ledger
from tests.faults.recovery import Work, run_fresh_worker
from tests.faults.traps import COMMIT, Trap
from tests.faults.world import fire_some, make_world

pytestmark = pytest.mark.django_db(transaction=True)

#: Where a worker is killed that carries a replay on.
REPLAYING = {
    "replay locked": Trap("djwebhooks.replays._carry_on", "SELECT"),
    "lanes locked": Trap("djwebhooks.replays._lock_lanes", "SELECT"),
    "payloads freed": Trap("djwebhooks.models.deliveries.DeliveryQuerySet.reopen", "UPDATE djw_event"),
    "reopened": Trap("djwebhooks.models.deliveries.DeliveryQuerySet.reopen", "UPDATE djw_delivery"),
    "lanes due": Trap("djwebhooks.replays._reopen_page", "UPDATE djw_lane"),
    "place written": Trap("djwebhooks.replays._carry_on", "UPDATE djw_replay"),
    "not committed": Trap("djwebhooks.replays.carry_on", COMMIT, before=True),
    "committed": Trap("djwebhooks.replays.carry_on", COMMIT),
    "second page committed": Trap("djwebhooks.replays.carry_on", COMMIT, number=2),
    "sent, not recorded": Trap("djwebhooks.lanes.record", COMMIT, before=True),
}
#: Where a worker is killed that puts back what a cancelled replay has reopened.
PUTTING_BACK = {
    "put back": Trap("djwebhooks.models.deliveries.DeliveryQuerySet.put_back", "UPDATE djw_delivery"),
    "not committed": Trap("djwebhooks.replays.carry_on", COMMIT, before=True),
    "committed": Trap("djwebhooks.replays.carry_on", COMMIT),
}


def fail_first(arrival: Arrival) -> Answer:
    return Answer(500 if arrival.attempt == 1 else 200)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(fail_first) as running:
        yield running


@pytest.fixture
def replay(ledger: Ledger, work: Work) -> Replay:
    """A replay of two pages: all that was fired has failed for good."""
    owner = make_world(ledger)
    WebhookTarget.objects.update(retry_schedule=[])
    fire_some(owner, 1)
    run_fresh_worker(work)
    assert set(Delivery.objects.values_list("status", "attempt_count")) == {("failed", 1)}
    return Delivery.objects.replay(make_criteria(everybody=True), rate=3)


@pytest.mark.parametrize("trap", REPLAYING.values(), ids=REPLAYING)
def test_a_worker_killed_in_a_replay_strands_and_doubles_nothing(ledger: Ledger, work: Work, replay: Replay, trap: Trap) -> None:
    """All is sent again, in order; what was in flight at the kill is sent once more, and nothing else is."""
    killed = work(trap)
    killed.wait()
    assert killed.was_trapped, killed.output
    in_flight = unrecorded(ledger)
    run_fresh_worker(work)
    replay.refresh_from_db()

    assert check_books(ledger).repeated == Counter(in_flight), killed.statements
    assert (replay.state, replay.reopened_count) == ("finished", replay.count)
    assert set(Delivery.objects.values_list("status", "attempt_count")) == {("succeeded", 2)}


@pytest.mark.parametrize("trap", PUTTING_BACK.values(), ids=PUTTING_BACK)
def test_a_worker_killed_in_a_cancellation_leaves_all_as_it_was(ledger: Ledger, work: Work, replay: Replay, trap: Trap) -> None:
    """What was reopened and not sent has its status again, and nothing is sent."""
    while carry_on("default"):
        Replay.objects.update(next_at=DatabaseNow())
    assert Delivery.objects.pending().count() == replay.count
    replay.cancel()
    killed = work(trap)
    killed.wait()
    assert killed.was_trapped, killed.output
    run_fresh_worker(work)
    replay.refresh_from_db()

    assert check_books(ledger).repeated == Counter()
    assert (replay.state, replay.finished_at is None) == ("cancelled", False)
    assert set(Delivery.objects.values_list("status", "attempt_count")) == {("failed", 1)}
