"""E-mails about targets that were disabled."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from django.conf import LazySettings
from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from djwebhooks import notices
from djwebhooks.events import fire
from djwebhooks.models import WebhookTarget
from djwebhooks.notices import Mailer
from djwebhooks.testing import deliver
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import work
from tests.builders import make_target, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def is_wanted(settings: LazySettings) -> None:
    settings.DJWEBHOOKS_DISABLED_EMAIL = True


def tell(target: WebhookTarget, *, threaded: bool = False) -> list[EmailMessage]:
    """Tell that *target* was disabled, as a worker does; return the e-mails that were sent."""
    mailer = Mailer("default", threaded=threaded)
    mailer.tell({target.pk: "gone"})
    mailer.close()
    sent: list[EmailMessage] = mail.outbox  # type: ignore[attr-defined]  # the test runner makes it
    return sent


@pytest.mark.parametrize("threaded", [True, False])
def test_the_owner_is_told(threaded: bool) -> None:
    """Where it was sent, why it is not any more, and what to do."""
    target = make_target(make_user(email="ada@example.com"))

    [message] = tell(target, threaded=threaded)

    assert message.to == ["ada@example.com"]
    assert message.subject.endswith("Webhooks to 127.0.0.1 have stopped")
    assert target.target_url in message.body
    assert "410 Gone" in message.body


def test_managers_are_told_of_the_systems(settings: LazySettings) -> None:
    """In whichever way Django has them."""
    settings.MANAGERS = [("Grace", "grace@example.com")]

    [message] = tell(make_target())

    assert message.to == ["grace@example.com"]


def test_who_has_no_address_is_not_told() -> None:
    """There is nobody to write to."""
    assert tell(make_target(make_user(email=""))) == []


def test_nobody_is_told_unless_it_is_wanted(settings: LazySettings) -> None:
    """A text such as "no" counts as off, too."""
    settings.DJWEBHOOKS_DISABLED_EMAIL = "no"

    assert tell(make_target(make_user(email="ada@example.com"))) == []


def test_a_worker_tells_once() -> None:
    """When the target becomes disabled, and not with each answer after that."""
    owner = make_user(email="ada@example.com")
    make_target(owner)
    for number in range(3):
        fire("a.b", number, owner=owner)
    deliver(410)

    assert len(mail.outbox) == 1  # type: ignore[attr-defined]  # the test runner makes it


def use_backend(settings: LazySettings, name: str) -> None:
    """Have e-mails sent by a backend of this module, in the way of this Django."""
    path = f"{__name__}.{name}"
    if hasattr(settings, "MAILERS"):
        settings.MAILERS = {"default": {"BACKEND": path}}
    else:
        settings.EMAIL_BACKEND = path


class HangingBackend(BaseEmailBackend):
    """A mail server that does not answer until a test opens the gate."""

    gate = threading.Event()

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        self.gate.wait(60)
        return 0


def test_a_mail_server_that_hangs_holds_up_no_webhook(settings: LazySettings) -> None:
    """All others get theirs while the e-mail is on its way."""
    use_backend(settings, "HangingBackend")
    target = make_target(make_user(email="ada@example.com"))
    mailer = Mailer("default")
    mailer.tell({target.pk: "gone"})
    fire("a.b", 1, owner=target.owner)
    transport = MemoryTransport()

    work(burst=True, transport=transport, threaded=False)

    assert len(transport.requests) == 1
    HangingBackend.gate.set()
    mailer.close()


class BrokenBackend(BaseEmailBackend):
    def send_messages(self, email_messages: Sequence[Any]) -> int:
        raise ValueError("the library of this backend fell over")


def test_an_email_that_cannot_be_sent_is_logged(settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a mail backend raises."""
    use_backend(settings, "BrokenBackend")

    tell(make_target(make_user(email="ada@example.com")))

    assert caplog.records[0].name == notices.__name__
    assert "could not be sent" in caplog.text
