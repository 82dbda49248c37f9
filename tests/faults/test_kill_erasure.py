"""An erasure is killed after any of its statements: no row has lost a part of what it loses, and the next run does the rest."""

import signal
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import models
from django.utils import timezone

from djwebhooks.erasure import Erased, erase
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, Subject, Subscription, WebhookTarget
from djwebhooks.models.replays import make_criteria
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from tests.builders import make_target, make_user
from tests.faults.processes import Child, Launcher
from tests.faults.recovery import wait_for_connections
from tests.faults.traps import NO_TRAP, Trap, choose

pytestmark = pytest.mark.django_db(transaction=True)

#: What must not be found anywhere once it is erased.
NAME = "Wilhelmina Crusoe"
#: What an erasure changes, and by what a row of it is known; the rest says only how to find it, or when somebody looks at it.
ERASED = {Event: ["pk"], Body: ["event_id", "format"], Delivery: ["pk"], Attempt: ["pk"], Replay: ["pk"]}
#: All that has to be put back before the next one.
CHANGED = (*ERASED, Lane, Subject)

Rows = dict[type[models.Model], list[models.Model]]
#: What the rows say, by their models and keys.
State = dict[tuple[Any, ...], dict[str, Any]]


def quote(request: Request) -> Reply:
    return Reply(request.key, status=500, headers={"x-name": NAME}, body=NAME.encode(), detail=NAME)


def make_owner_with_everything() -> int:
    """Return the key of somebody who is in each place that an erasure goes to; another one's delivery waits behind theirs."""
    ada, bob = make_user(NAME), make_user("bob")
    make_target(ada, event="all", is_ordered=True)
    make_target(bob, event="a.b", url="http://127.0.0.1:9/bob", is_ordered=True)
    deleted = [make_target(ada, event="all", url=f"http://127.0.0.1:9/{number}") for number in range(2)]
    keys = {"identifier": NAME, "idempotency_key": NAME, "ordering_key": "line"}
    fire("a.b", "for a replay", owner=bob)
    deliver(200)
    Delivery.objects.replay(make_criteria(everybody=True, status="succeeded"), by=ada).cancel(by=ada)
    fire("all", {"at": "noon"}, broadcast=True)
    fire("all", {"name": NAME}, owner=ada, **keys)
    fire("a.b", {"name": NAME}, owner=bob, subjects=[ada], **keys)
    fire("a.b", "next", owner=bob, ordering_key="line")
    deliver(quote)
    deleted[0].delete()
    for model, column in ((Subscription, "target"), (WebhookTarget, "pk")):
        model._base_manager.filter(**{column: deleted[1].pk})._raw_delete("default")
    fire("all", {"name": NAME}, owner=ada)
    fire("a.b", {"name": NAME}, owner=bob, subjects=[ada])
    fire("a.b", {"name": NAME}, owner=bob, subjects=[ada], deliver_at=timezone.now() + timedelta(days=1))
    return ada.pk


def read_rows() -> Rows:
    return {model: list(model._base_manager.all()) for model in CHANGED}


def put_back(rows: Rows) -> None:
    for model, instances in rows.items():
        model._base_manager.all()._raw_delete("default")
        model._base_manager.bulk_create(instances)


def read_state() -> State:
    state = {}
    for model, key in ERASED.items():
        for row in model._base_manager.values():
            known = (model, *(row.get(name, row.get("id")) for name in key))
            state[known] = {name: simplify(value) for name, value in row.items() if model is not Body or name != "id"}
    return state


def simplify(value: Any) -> Any:
    """Of two runs the times differ; and bytes come in different wrappings."""
    if isinstance(value, datetime):
        return "some time"
    return bytes(value) if isinstance(value, memoryview) else value


def test_an_erasure_that_is_killed_leaves_no_half(launcher: Launcher) -> None:
    """After SIGKILL each row is as before or as in the end; the second run ends as one that nobody killed, and strands nobody."""
    key = make_owner_with_everything()
    rows, before = read_rows(), read_state()
    assert erase_and_check(key) != Erased()
    end = read_state()
    put_back(rows)
    whole = erase_in_process(launcher, key, NO_TRAP)
    assert (whole.code, read_state()) == (0, end), whole.output
    for number in choose(len(whole.statements)):
        put_back(rows)
        killed = erase_in_process(launcher, key, Trap(number=number))
        assert killed.code == -signal.SIGKILL
        half = {known: row for known, row in read_state().items() if row not in (before.get(known), end.get(known))}
        assert half == {}, killed.statements
        erase_and_check(key)
        assert read_state() == end, killed.statements


def erase_in_process(launcher: Launcher, key: int, trap: Trap) -> Child:
    child = launcher.command("webhooks", "erase", "auth.User", str(key), trap=trap)
    child.wait()
    wait_for_connections()
    return child


def erase_and_check(key: int) -> Erased:
    """Erase all, and look whether something is left, or waits in a lane that is not due."""
    erased = erase(User(pk=key))
    assert NAME not in str(read_state())
    assert not Subject.objects.exists()
    waiting = Delivery.objects.pending().values_list("target", flat=True)
    assert set(waiting) <= set(Lane.objects.filter(due_at__isnull=False).values_list("pk", flat=True))
    return erased
