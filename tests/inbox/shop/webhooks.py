"""Handlers, which the inbox finds by the name of this module."""

import os
import signal
from contextlib import suppress

from django.db import DatabaseError, connection, transaction

from djwebhooks.inbox.handlers import receive
from djwebhooks.inbox.models import Message
from djwebhooks.models import Event
from tests.engines.processes import wait_until
from tests.inbox.shop.models import Effect


def note(handler: str, message: Message) -> None:
    Effect.objects.create(handler=handler, message_id=message.message_id, event=message.event)


@receive("shop", "order.paid")
def ship(message: Message) -> None:
    note("ship", message)


@receive("shop", event="order.paid")
def bill(message: Message) -> None:
    note("bill", message)


@receive("shop", "order.broken")
def break_down(message: Message) -> None:
    note("break_down", message)
    raise RuntimeError(message.json()["data"])


@receive("shop", "order.swallowed")
def swallow(message: Message) -> None:
    """Go on after an error that has spoilt the transaction."""
    note("swallow", message)
    with suppress(DatabaseError), transaction.atomic(savepoint=False), connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")


@receive("shop", "order.saved")
def save(message: Message) -> None:
    """Do with the message what it is not for."""
    note("save", message)
    message.save()


@receive("shop", "order.later")
def plan(message: Message) -> None:
    """Fail after the transaction is over."""
    note("plan", message)
    transaction.on_commit(lambda: 1 / 0)


@receive("shop", "order.killer")
def kill(message: Message) -> None:
    """End the process that works on it."""
    note("kill", message)
    os.kill(os.getpid(), signal.SIGKILL)


@receive("shop", "order.patient")
def wait_for_sender(message: Message) -> None:
    """Go on until the sender has done its work meanwhile."""
    wait_until(lambda: not Event.objects.waiting().exists(), "the event is dispatched")
    note("wait_for_sender", message)


@receive("github")
def follow(message: Message) -> None:
    note("follow", message)
