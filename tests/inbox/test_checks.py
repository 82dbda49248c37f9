"""What is set up wrongly is said at the start; ``test_sources`` has what sources may say."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.checks import CheckMessage, run_checks

from djwebhooks.inbox import handlers
from djwebhooks.inbox.handlers import receive

GOOD = {"scheme": "github", "secrets": ["a very private secret"]}


def list_messages(**checks: Any) -> list[CheckMessage]:
    found = run_checks(tags=["djwebhooks"], **checks)
    ours = [message for message in found if str(message.id).startswith("djwebhooks_inbox.")]
    return sorted(ours, key=lambda message: str(message.id))


@pytest.fixture
def stray() -> Iterator[None]:
    """A handler of a source that does not exist."""

    @receive("githb")
    def handler(message: object) -> None:
        pass

    yield
    handlers._receivers.pop()


@pytest.mark.usefixtures("stray")
def test_a_handler_of_no_source_is_found() -> None:
    """A typing mistake would otherwise go unnoticed."""
    [error] = list_messages()

    assert error.id == "djwebhooks_inbox.E002"
    assert "stray.<locals>.handler is to receive from 'githb', which DJWEBHOOKS_INBOX does not have" in error.msg
    assert error.hint == "It has github, shop."


def test_a_handler_without_a_name_is_found() -> None:
    """By that of the function that it calls."""
    receive("githb")(partial(print, "got"))
    try:
        [error] = list_messages()
    finally:
        handlers._receivers.pop()

    assert error.msg.startswith("builtins.print is to receive from 'githb'")


def test_the_tests_own_settings_are_good() -> None:
    """The checks find nothing where nothing is."""
    assert list_messages(include_deployment_checks=True) == []


@pytest.mark.parametrize("queue", ["mail", ["default"]])
def test_other_faults_are_found(settings: LazySettings, queue: object) -> None:
    """A queue that does not exist, and times without zones."""
    settings.DJWEBHOOKS_INBOX_QUEUE = queue
    settings.USE_TZ = False

    assert [message.id for message in list_messages()] == ["djwebhooks_inbox.E003", "djwebhooks_inbox.E004"]


def test_an_inbox_without_sources_is_pointed_out(settings: LazySettings) -> None:
    """Beside the handlers that have lost theirs."""
    settings.DJWEBHOOKS_INBOX = {}

    assert {message.id for message in list_messages()} == {"djwebhooks_inbox.E002", "djwebhooks_inbox.W001"}


def test_what_anybody_can_fill_is_pointed_out(settings: LazySettings) -> None:
    """At a deployment, unless a rate bounds it."""
    none = {"scheme": "none"}
    settings.DJWEBHOOKS_INBOX = {
        "shop": none,
        "github": {**GOOD, "keep_rejected": True},
        "slow": {**none, "rate_limit": "5/day"},
    }

    messages = list_messages(include_deployment_checks=True)

    assert [message.id for message in messages] == ["djwebhooks_inbox.W002"] * 2
    assert list_messages() == []
