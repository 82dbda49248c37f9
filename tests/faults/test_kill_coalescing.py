"""A worker is killed while newer events take the place of older ones: nothing is lost, and the newest is delivered."""

from collections import Counter

import pytest
from django.contrib.auth.models import User

from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event
from djwebhooks.models.deliveries import COALESCED, Status
from tests.faults.books import check_books, unrecorded
from tests.faults.ledger import Ledger
from tests.faults.recovery import Work, run_fresh_worker
from tests.faults.traps import COMMIT, Trap
from tests.faults.world import KEYS, PATHS

pytestmark = pytest.mark.django_db(transaction=True)

#: Where a worker is killed, in the order of its way.
POINTS = {
    "older ones ended": Trap("djwebhooks.models.deliveries.DeliveryQuerySet.replace", "UPDATE djw_delivery"),
    "claimed": Trap("djwebhooks.lanes.claim", COMMIT),
    "answered, not recorded": Trap("djwebhooks.lanes.record", COMMIT, before=True),
}


def change(owner: User) -> list[Event]:
    """Let each thing change twice."""
    return [fire("thing.changed", number, owner=owner, ordering_key=key, coalesce=True) for number in range(2) for key in KEYS]


@pytest.mark.parametrize("trap", POINTS.values(), ids=POINTS)
def test_a_worker_killed_while_it_coalesces_loses_nothing(ledger: Ledger, owner: User, work: Work, trap: Trap) -> None:
    """What was in flight is sent again, though something newer came; what was replaced is not, and the newest is."""
    change(owner)
    dispatch("default")
    change(owner)
    killed = work(trap)
    killed.wait()
    assert killed.was_trapped, killed.output
    in_flight = unrecorded(ledger)
    newest = change(owner)[-len(KEYS) :]
    run_fresh_worker(work)

    assert check_books(ledger).repeated == Counter(in_flight), killed.statements
    assert Delivery.objects.filter(event__in=newest, status=Status.SUCCEEDED).count() == len(newest) * len(PATHS)
    ended = Delivery.objects.filter(reason=COALESCED)
    assert set(ended.values_list("attempt_count", flat=True)) == {0}
    stood_for = Delivery.objects.filter(status=Status.SUCCEEDED).values_list("coalesced_count", flat=True)
    assert ended.count() == sum(stood_for) > 0
