"""Tell people by e-mail that a target was disabled, without holding up what is sent meanwhile."""

import logging
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage

from djwebhooks.conf import conf
from djwebhooks.models import WebhookTarget

logger = logging.getLogger(__name__)

#: Seconds that the end of a worker waits for e-mails on their way.
PATIENCE = 5.0

#: Why a target is disabled, by its word.
DISABLED_BECAUSE = {
    "gone": "its receiver answered 410 Gone",
    "receiver": "its receiver asked for it with the header webhook-delivery: disable",
    "failing": "there was nothing but failures for as long as DJWEBHOOKS_DISABLE_AFTER allows",
}


class Mailer:
    """Sends the e-mails of ``DJWEBHOOKS_DISABLED_EMAIL``: in a thread of its own, or at once if not *threaded*.

    A mail server that hangs delays nobody's webhooks. What a dying process had not sent yet is lost; the target's state, the
    signal and the event ``webhook.target.disabled`` tell the same.
    """

    def __init__(self, using: str, *, threaded: bool = True) -> None:
        self._using = using
        self._is_threaded = threaded
        self._outbox: SimpleQueue[EmailMessage | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def tell(self, disabled: Mapping[int, str]) -> None:
        """Write to the owners of the targets *disabled* (id to reason), or to ``MANAGERS`` for the system's."""
        if not disabled or conf.DISABLED_EMAIL is not True:
            return
        for target in WebhookTarget.objects.using(self._using).select_related("owner").filter(pk__in=disabled):
            addresses = find_addresses(target)
            if addresses:
                self._send(write_message(target, disabled[target.pk], addresses))

    def close(self) -> None:
        """Wait a little for what has not been sent yet."""
        if self._thread is not None:
            self._outbox.put(None)
            self._thread.join(PATIENCE)

    def _send(self, message: EmailMessage) -> None:
        if not self._is_threaded:
            send(message)
            return
        self._outbox.put(message)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="djwebhooks-mail", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (message := self._outbox.get()) is not None:
            send(message)


def find_addresses(target: WebhookTarget) -> list[str]:
    """Return where the people behind *target* read e-mails, as far as that is known."""
    owner: Any = target.owner
    if target.owner_id is None:
        return [manager if isinstance(manager, str) else manager[1] for manager in settings.MANAGERS]
    name = owner.get_email_field_name() if hasattr(owner, "get_email_field_name") else "email"
    address = getattr(owner, name, "")
    return [address] if isinstance(address, str) and address else []


def write_message(target: WebhookTarget, reason: str, addresses: list[str]) -> EmailMessage:
    """Return the e-mail that says what happened, why, and what to do."""
    body = (
        f"Webhooks are no longer sent to\n\n    {target.target_url}\n\n"
        f"because {DISABLED_BECAUSE.get(reason, reason)}.\n\n"
        "Its events are held from now on. Have the receiver fixed, then resume the target: what was held is sent in its order. "
        f"What has been held for {conf.seconds('RETENTION') / 86400:g} days expires.\n"
    )
    return EmailMessage(f"{settings.EMAIL_SUBJECT_PREFIX}Webhooks to {target.host} have stopped", body, to=addresses)


def send(message: EmailMessage) -> None:
    """Send *message*, or say in the log why not."""
    try:
        message.send()
    except Exception:  # Mail backends raise whatever their libraries do, and no webhook may suffer from it.
        logger.exception("The e-mail %r could not be sent.", message.subject)
