"""Targets that somebody deletes while somebody else does something to them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from djwebhooks.events import fire
from djwebhooks.exceptions import DeletedTarget, IdempotencyConflict
from djwebhooks.models import Lane, Subscription, WebhookTarget
from djwebhooks.models.targets import TRIES, try_again
from tests.builders import make_target, make_user

pytestmark = pytest.mark.django_db

URL = "https://example.com/hook"


class Deleter:
    """Deletes the targets as soon as somebody has looked for one, so often, and makes them again."""

    def __init__(self, times: int, make: Callable[[], object]) -> None:
        self.left = times
        self.make = make

    def __call__(self, run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        found = run(sql, *rest)
        if self.left and sql.startswith("SELECT") and "digest" in sql:
            self.left -= 1
            left, self.left = self.left, 0
            WebhookTarget.objects.all().delete()
            self.make()
            self.left = left
        return found


def register(owner: User, *events: str, **fields: Any) -> WebhookTarget:
    return WebhookTarget.objects.register(URL, events or ["a.b"], owner=owner, **fields)


def hide(owner: User) -> WebhookTarget:
    return WebhookTarget.objects.create(target_url=URL, owner=owner, is_hidden=True)


@pytest.mark.parametrize("is_hidden", [False, True])
def test_what_is_deleted_while_it_is_registered_is_made_again(is_hidden: bool) -> None:
    """As if it had been deleted a moment before, however often that happens in a row."""
    owner = make_user()
    make = (lambda: hide(owner)) if is_hidden else (lambda: make_target(owner, url=URL))
    make()

    with connection.execute_wrapper(Deleter(TRIES - 1, make)):
        target = register(owner)

    assert WebhookTarget.objects.get() == target
    assert ("a.b" in target.events, target.is_hidden) == (True, False)


@pytest.mark.parametrize("is_hidden", [False, True])
def test_who_always_loses_is_told_so(is_hidden: bool) -> None:
    """A transaction that never sees what others did would look for ever."""
    owner = make_user()
    make = (lambda: hide(owner)) if is_hidden else (lambda: make_target(owner, url=URL))
    make()

    with connection.execute_wrapper(deleter := Deleter(10 * TRIES, make)), pytest.raises(DeletedTarget, match="was deleted"):
        register(owner)

    assert deleter.left >= 5 * TRIES


@pytest.mark.parametrize(("times", "is_made"), [(1, True), (TRIES - 1, True), (10 * TRIES, False)])
def test_what_is_pruned_while_it_is_fired_to_is_made_again(times: int, is_made: bool) -> None:
    """A hidden target that goes between being found and being kept is another one, unless that never ends."""
    owner = make_user()
    hide(owner)

    with connection.execute_wrapper(Deleter(times, lambda: hide(owner))):
        if is_made:
            event = fire("a.b", 1, owner=owner, urls=[URL])
            assert event.direct_targets == [WebhookTarget.objects.get().pk]
        else:
            with pytest.raises(DeletedTarget):
                fire("a.b", 1, owner=owner, urls=[URL])


def test_what_is_deleted_while_it_is_deregistered_has_ended() -> None:
    """Somebody else was faster, and nothing is left to do."""
    owner = make_user()
    make_target(owner, url=URL)

    with connection.execute_wrapper(Deleter(1, lambda: None)):
        WebhookTarget.objects.deregister(URL, owner=owner)

    assert not WebhookTarget.objects.exists()


def test_another_try_is_for_what_was_deleted_alone() -> None:
    """Any other error is told at once."""
    tries: list[int] = []

    def fail() -> None:
        tries.append(1)
        raise IdempotencyConflict

    with pytest.raises(IdempotencyConflict):
        try_again(fail)

    assert tries == [1]


@pytest.mark.parametrize("is_keyed", [False, True])
def test_what_was_saved_and_deleted_meanwhile_is_made_after_all(is_keyed: bool) -> None:
    """Nobody is told that a key was used for another target, as there is none."""
    owner = make_user()
    others: list[str] = []

    def come_first(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("INSERT") and "djw_target" in sql and not others:
            others.append("is made")
            make_target(owner, url=URL)
        elif sql.startswith("SELECT") and "digest" in sql and others == ["is made"]:
            others.append("is deleted")
            WebhookTarget.objects.all().delete()
        return run(sql, *rest)

    with connection.execute_wrapper(come_first):
        target = register(owner, "a.c", **({"creation_key": "x"} if is_keyed else {}))

    assert others == ["is made", "is deleted"]
    assert (WebhookTarget.objects.get(), target.events) == (target, ["a.c"])


@pytest.mark.parametrize(
    "act",
    [
        WebhookTarget.pause,
        WebhookTarget.resume,
        WebhookTarget.probe,
        WebhookTarget.rotate_secret,
        WebhookTarget.finish_rotation,
        lambda target: target.subscribe(["a.c"], "default"),
    ],
    ids=["pause", "resume", "probe", "rotate", "finish", "subscribe"],
)
def test_nothing_is_done_to_a_target_that_is_gone(act: Callable[[WebhookTarget], object]) -> None:
    """Who holds one that was deleted is told so, and nothing is written."""
    target = make_target(make_user())
    WebhookTarget.objects.all().delete()

    with pytest.raises(DeletedTarget, match="was deleted"):
        act(target)

    assert [model.objects.exists() for model in (WebhookTarget, Subscription, Lane)] == [False, False, False]


def test_deleting_what_is_gone_leaves_nothing() -> None:
    """Of two who delete it at once, the second has nothing to do."""
    target = make_target(make_user())
    again = WebhookTarget.objects.get()
    target.delete()

    again.delete()

    assert not Lane.objects.exists()
