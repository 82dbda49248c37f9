"""``@receive``: which functions want which messages."""

import pytest

from djwebhooks.inbox import handlers
from djwebhooks.inbox.handlers import Receiver, receive
from djwebhooks.inbox.models import Message


def test_a_handler_stays_a_function() -> None:
    """It can be called, and tested, as it is."""

    def handler(message: Message) -> str:
        return "called"

    assert receive("nowhere")(handler) is handler
    handlers._receivers.pop()


def test_asynchronous_handlers_are_refused() -> None:
    """They could not run in the transaction."""

    async def handler(message: Message) -> None:
        pass

    with pytest.raises(TypeError, match="write it with def"):
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
