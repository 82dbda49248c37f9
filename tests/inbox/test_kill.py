"""Kill a worker at every statement: what the handlers did has happened once all the same."""

from itertools import count

import pytest
from django.db.models import F

from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.worker import KILLED, InboxWorker
from tests.faults.processes import Launcher
from tests.faults.traps import COMMIT, Trap
from tests.inbox.senders import send, store
from tests.inbox.shop.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)
BURST = ("webhooks", "inbox", "--burst")
ATTEND = "djwebhooks.inbox.worker.attend"
#: The turning points: after the attempt is counted, inside the first and the second handler, at the commit.
POINTS = {
    "counted": Trap("djwebhooks.inbox.worker.InboxWorker.work_once", COMMIT),
    "in the first handler": Trap("tests.inbox.shop.webhooks.ship", "INSERT"),
    "in the second handler": Trap("tests.inbox.shop.webhooks.bill", "INSERT"),
    "before the commit": Trap(ATTEND, COMMIT, before=True),
    "after the commit": Trap(ATTEND, COMMIT),
}


def effects() -> list[tuple[str, str]]:
    return sorted(Effect.objects.values_list("handler", "message_id"))


def work_again() -> int:
    """Be the next worker, once the dead one's lease is over."""
    Message.objects.filter(due_at__isnull=False).update(due_at=F("received_at"))
    return InboxWorker(burst=True).run()


def check_once(message_id: str = "msg_1") -> None:
    """The message is processed, and each of its handlers has run for it once."""
    message = Message.objects.get(message_id=message_id)
    assert message.status == Status.PROCESSED
    assert effects() == [("bill", message_id), ("ship", message_id)]


@pytest.mark.parametrize("point", POINTS)
def test_effects_happen_once(launcher: Launcher, point: str) -> None:
    """Killed there, the attempt has either left nothing, or is all that is needed."""
    send("order.paid", message_id="msg_1")

    worker = launcher.command(*BURST, trap=POINTS[point])
    assert worker.wait() == -9
    assert worker.was_trapped
    assert len(effects()) == (2 if point == "after the commit" else 0)
    assert Message.objects.get().attempt_count == 1

    work_again()
    check_once()


@pytest.mark.parametrize("before", [True, False])
def test_effects_happen_once_wherever_the_worker_is_killed(launcher: Launcher, before: bool) -> None:
    """At each statement that it sends, one after the other, until it reaches its end."""
    for number in count(1):
        Message.objects.all().delete()
        Effect.objects.all().delete()
        store(message_id="msg_1")
        worker = launcher.command(*BURST, trap=Trap(number=number, before=before))
        worker.wait()
        work_again()
        check_once()
        if not worker.was_trapped:
            break

    assert number > 8


@pytest.mark.parametrize("statement", ["UPDATE", COMMIT])
def test_a_failure_that_could_not_be_recorded_is_tried_again(launcher: Launcher, statement: str) -> None:
    """The next attempt was planned before this one ran."""
    store("order.broken")
    place = "djwebhooks.inbox.worker.fail" if statement == "UPDATE" else ATTEND

    assert launcher.command(*BURST, trap=Trap(place, statement, before=True)).wait() == -9

    message = Message.objects.get()
    assert (message.status, message.error, message.attempt_count) == (Status.NEW, "", 1)
    assert work_again() == 3
    assert Message.objects.get().status == Status.FAILED
    assert effects() == []


def test_a_message_that_kills_its_workers_cannot_do_so_for_ever(launcher: Launcher) -> None:
    """It takes along one for each attempt; then it fails, and what waits behind it goes on."""
    store("order.killer", message_id="killer")

    for _ in range(4):
        Message.objects.update(due_at=F("received_at"))  # As if the last one's lease were over.
        assert launcher.command(*BURST).wait() == -9
    store(message_id="msg_1")
    assert work_again() == 2

    message = Message.objects.get(message_id="killer")
    assert (message.status, message.error, message.attempt_count) == (Status.FAILED, KILLED, 4)
    check_once()
