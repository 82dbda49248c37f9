"""For the tests of applications: what was fired, and delivery without a network or a worker."""

from collections.abc import Callable

from djwebhooks.models import Event
from djwebhooks.models.events import events_database
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import Worker

#: The requests that ``deliver`` has sent, oldest first. Clear it between tests: ``outbox.clear()``.
outbox: list[Request] = []


def fired(name: str | None = None, *, using: str | None = None) -> list[Event]:
    """Return the events that the test has fired, oldest first: those called *name*, or all."""
    events = Event.objects.using(using or events_database()).order_by("id")
    return list(events.filter(name=name) if name is not None else events)


def deliver(answer: Callable[[Request], Reply] | int = 200, *, using: str | None = None) -> list[Request]:
    """Dispatch what was fired and send what is due, inside the test's own transaction; return the requests that were made.

    Nothing leaves the process: *answer*, a status or a function from request to reply, is what every target answers. The
    requests are added to ``outbox`` as well.
    """
    transport = MemoryTransport(answer)
    Worker(using=using, transport=transport, burst=True, threaded=False).run()
    outbox.extend(transport.requests)
    return transport.requests
