"""``@receive``: which functions of the application are run for which messages."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from djwebhooks.inbox.models import Message

#: What ``@receive`` decorates: it takes a message; what it returns is of no interest.
Handler = Callable[[Message], Any]
H = TypeVar("H", bound=Handler)

#: The pattern of every event.
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Receiver:
    """A handler, and what it wants: a source's events whose name is, or begins like, *event*."""

    handler: Handler
    source: str
    event: str

    def wants(self, source: str, event: str, ping: str) -> bool:
        """Whether it is run for an *event* of *source*; *ping* must be asked for by its name."""
        if source != self.source:
            return False
        if self.event == EVERY:
            return event != ping or not ping
        return event == self.event or (self.event.endswith(".*") and event.startswith(self.event[:-1]))


#: All that were decorated, in their order.
_receivers: list[Receiver] = []


def receive(source: str, event: str = EVERY) -> Callable[[H], H]:
    """Have a function run for each message from *source*: ``@receive("github", event="push")``.

    *source* is a key of ``DJWEBHOOKS_INBOX``. *event* is a name, a name followed by ``.*`` (any depth below it), or ``*`` for
    every event but the sender's pings. The function takes the message. It runs in a worker, in one transaction with all others
    that want the message and with its status, so that what they write is kept once, or not at all. When one raises, nothing is
    kept, and all of them run again later.

    It stays an ordinary function. Raises TypeError for one that is asynchronous, or has a ``yield``.
    """

    def register(handler: H) -> H:
        if is_postponed(handler) or is_postponed(type(handler).__call__):
            raise TypeError(
                f"{describe_handler(handler)} is asynchronous, or has a yield, but handlers run in a transaction: write it with "
                "def and without yield."
            )
        _receivers.append(Receiver(handler, source, event))
        return handler

    return register


def is_postponed(function: object) -> bool:
    """Whether to call *function* only makes something that is yet to run."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(is_kind(function) for is_kind in kinds)


def run_handler(handler: Handler, message: Message) -> None:
    """Run a handler. Raises TypeError if it returned something that is yet to run, as a wrapped asynchronous function does."""
    result = handler(message)
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(
            f"{describe_handler(handler)} returned something that has yet to run, of type {type(result).__name__}, and nobody "
            "runs it: write the handler with def and without yield, and have it return nothing."
        )


def describe_handler(handler: Handler) -> str:
    """Return the name of a handler: of its function, or of its class if it is an object."""
    named = handler.func if isinstance(handler, partial) else handler
    return f"{named.__module__}.{getattr(named, '__qualname__', type(named).__qualname__)}"


def find_handlers(source: str, event: str, ping: str = "") -> list[Handler]:
    """Return the functions that want an *event* of *source*, in the order in which they were decorated."""
    return [receiver.handler for receiver in _receivers if receiver.wants(source, event, ping)]


def list_receivers() -> list[Receiver]:
    return list(_receivers)
