"""Say at the start what is set up wrongly."""

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, register

from djwebhooks.conf import conf
from djwebhooks.inbox.handlers import describe_handler, list_receivers
from djwebhooks.inbox.sources import list_faults


def listing(function: Callable[..., Iterator[CheckMessage]]) -> Callable[..., list[CheckMessage]]:
    """Return the check that Django asks for, a function of lists."""

    @wraps(function)
    def run(**kwargs: Any) -> list[CheckMessage]:
        return list(function(**kwargs))

    return run


@listing
def check_sources(**_: Any) -> Iterator[CheckMessage]:
    """Sources that cannot work."""
    if not isinstance(conf.INBOX, Mapping):
        # The value stays out of it: it may have secrets.
        yield Error(f"DJWEBHOOKS_INBOX must be a dictionary, not a {type(conf.INBOX).__name__}.", id="djwebhooks_inbox.E001")
        return
    for name, options in conf.INBOX.items():
        yield from (Error(fault, id="djwebhooks_inbox.E001") for fault in list_faults(name, options))


@listing
def check_handlers(**_: Any) -> Iterator[CheckMessage]:
    """Handlers of sources that do not exist."""
    for receiver in list_receivers():
        if isinstance(conf.INBOX, Mapping) and receiver.source not in conf.INBOX:
            name = describe_handler(receiver.handler)
            yield Error(
                f"{name} is to receive from {receiver.source!r}, which DJWEBHOOKS_INBOX does not have.",
                hint=f"It has {', '.join(conf.INBOX) or 'no source at all'}.",
                id="djwebhooks_inbox.E002",
            )


@listing
def check_queue(**_: Any) -> Iterator[CheckMessage]:
    """A queue that django-rq does not have."""
    if conf.INBOX_QUEUE is not None and conf.INBOX_QUEUE not in list(getattr(settings, "RQ_QUEUES", {})):
        yield Error(
            f"DJWEBHOOKS_INBOX_QUEUE is {conf.INBOX_QUEUE!r}, which RQ_QUEUES does not have.",
            hint="Add it to RQ_QUEUES, or leave it out and run 'manage.py webhooks inbox'.",
            id="djwebhooks_inbox.E003",
        )


@listing
def check_time_zones(**_: Any) -> Iterator[CheckMessage]:
    """Times without a zone, which cannot be compared with the database's clock."""
    if not settings.USE_TZ:
        yield Error("djwebhooks.inbox needs USE_TZ = True.", id="djwebhooks_inbox.E004")


@listing
def check_presence(**_: Any) -> Iterator[CheckMessage]:
    """An inbox that takes nothing."""
    if not conf.INBOX:
        yield checks.Warning(
            "djwebhooks.inbox is installed, but DJWEBHOOKS_INBOX names no source, so that nothing is taken in.",
            hint="DJWEBHOOKS_INBOX = {'github': {'scheme': 'github', 'secrets': [os.environ['GITHUB_WEBHOOK_SECRET']]}}",
            id="djwebhooks_inbox.W001",
        )


@listing
def check_openness(**_: Any) -> Iterator[CheckMessage]:
    """Sources that anybody can fill the table of."""
    for name, options in conf.INBOX.items() if isinstance(conf.INBOX, Mapping) else ():
        if not isinstance(options, Mapping) or options.get("rate_limit") is not None:
            continue
        if options.get("scheme") == "none" or options.get("keep_rejected") is True:
            yield checks.Warning(
                f"DJWEBHOOKS_INBOX[{name!r}] stores what is not signed and has no 'rate_limit': anybody can fill the inbox.",
                id="djwebhooks_inbox.W002",
            )


CHECKS = (check_sources, check_handlers, check_queue, check_time_zones, check_presence)


def register_all() -> None:
    """Have ``manage.py check`` run the checks."""
    for function in CHECKS:
        register(function, "djwebhooks")
    register(check_openness, "djwebhooks", deploy=True)
