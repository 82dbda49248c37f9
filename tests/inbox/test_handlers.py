"""``@receive``: which functions want which messages."""

from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest

from djwebhooks.inbox import handlers
from djwebhooks.inbox.handlers import Handler, Receiver, receive
from djwebhooks.inbox.models import Message


def test_a_handler_stays_a_function() -> None:
    """It can be called, and tested, as it is."""

    def handler(message: Message) -> str:
        return "called"

    assert receive("nowhere")(handler) is handler
    handlers._receivers.pop()


async def work_later(message: Message) -> None:
    """Be asynchronous."""


def work_in_steps(message: Message) -> Iterator[None]:
    yield


async def work_later_in_steps(message: Message) -> AsyncIterator[None]:
    yield


class Later:
    """An object that is called like a function, and is asynchronous."""

    async def __call__(self, message: Message) -> None:
        pass


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (work_later, "work_later"),
        (work_in_steps, "work_in_steps"),
        (work_later_in_steps, "work_later_in_steps"),
        (partial(work_later), "work_later"),
        (Later(), "Later"),
    ],
)
def test_handlers_of_which_a_call_runs_nothing_are_refused(handler: Handler, name: str) -> None:
    """They could not run in the transaction."""
    with pytest.raises(TypeError, match=rf"^tests\.inbox\.test_handlers\.{name} is asynchronous, or has a yield"):
        receive("shop")(handler)


@pytest.mark.parametrize(
    ("pattern", "event", "wants"),
    [
        ("*", "order.paid", True),
        ("*", "", True),
        ("*", "ping", False),
        ("ping", "ping", True),
        ("order.*", "order.paid", True),
        ("order.*", "order.paid.twice", True),
        ("order.*", "order", False),
        ("order.*", "orders.paid", False),
        ("order.paid", "order.paid", True),
        ("order.paid", "order.paid.twice", False),
        ("orders/create", "orders/create", True),
    ],
)
def test_which_events_a_pattern_wants(pattern: str, event: str, wants: bool) -> None:
    """A name, all names below one, or all but pings."""
    assert Receiver(print, "shop", pattern).wants("shop", event, "ping") is wants
    assert not Receiver(print, "shop", pattern).wants("elsewhere", event, "ping")
