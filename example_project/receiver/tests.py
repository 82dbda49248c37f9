"""The receiver: what it takes in, what it refuses, what its handler makes of it, and what it shows."""

import json
import time
from typing import Any

from django.conf import settings
from django.test import TestCase, override_settings
from django.urls import reverse

from djwebhooks import signing
from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.worker import InboxWorker
from example_project.receiver.models import Printed

EVENT = "guestbook.comment.created"
COMMENT = {"id": 1, "name": "Zoë", "message": "Hello!", "left_at": "2026-09-21T14:13:20Z"}
SECRET = signing.new_secret()


@override_settings(DJWEBHOOKS_INBOX={"guestbook": {"scheme": "standard", "secrets": [SECRET], "keep_rejected": True}})
class ReceiverTests(TestCase):
    """Receiving and showing."""

    def send(self, content: Any = None, message_id: str = "message-1", sequence: int = 17, **headers: str) -> int:
        body = json.dumps({"type": EVENT, "timestamp": "2026-09-21T14:13:20Z", "data": content or COMMENT}).encode()
        now = int(time.time())
        signed = {
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": signing.sign(SECRET, message_id, now, body),
            "webhook-attempt": "1",
            "webhook-sequence": str(sequence),
        }
        headers = {**signed, **headers}
        status: int = self.client.post("/webhooks/guestbook/", body, "application/json", headers=headers).status_code
        return status

    def test_what_is_signed_is_printed(self) -> None:
        """It is stored at once; the handler comes later, and prints it once."""
        assert (self.send(), self.send()) == (200, 200)
        assert not Printed.objects.exists()

        InboxWorker(burst=True).run()

        printed = Printed.objects.get()
        assert (printed.message_id, printed.name, printed.text) == ("message-1", "Zoë", "Hello!")
        page = self.client.get(reverse("receiver"))
        for words in ("processed", "message-1", EVENT, "17", "&quot;name&quot;: &quot;Zoë&quot;"):
            self.assertContains(page, words)
        told = self.client.get(reverse("message", args=["message-1"])).json()
        assert told == {"event": EVENT, "status": "processed", "attempt": "1", "sequence": 17, "printed": "Zoë: Hello!"}

    def test_what_is_forged_is_refused(self) -> None:
        """The page shows it, and why; nothing is printed."""
        assert self.send(**{"webhook-signature": "v1,bm8="}) == 401

        InboxWorker(burst=True).run()

        assert not Printed.objects.exists()
        assert Message.objects.get().status == Status.REJECTED
        self.assertContains(self.client.get(reverse("receiver")), "No signature matches")

    def test_a_handler_that_fails_is_tried_again(self) -> None:
        """What it could not read is kept, and the page says what went wrong."""
        self.send({"name": "Zoë"})

        InboxWorker(burst=True).run()

        message = Message.objects.get()
        assert (message.status, message.attempt_count) == (Status.NEW, 1)
        self.assertContains(self.client.get(reverse("receiver"), {"list": ""}), "KeyError")

    def test_a_gap_is_shown(self) -> None:
        """A number is missing, which the guestbook's feed may have."""
        self.send(sequence=1)
        self.send(message_id="message-2", sequence=3)

        self.assertContains(self.client.get(reverse("receiver")), "Number 2 is missing")

    def test_it_shares_no_cookie_with_the_guestbook(self) -> None:
        """Browsers send them to every port of a host, so each site would log its user out of the other."""
        guestbook = ("sessionid", "csrftoken")  # It has Django's own names.
        assert not {settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME}.intersection(guestbook)

    def test_without_a_secret_nothing_is_trusted(self) -> None:
        """As the settings have it when they are told none."""
        with override_settings(DJWEBHOOKS_INBOX={"guestbook": {"scheme": "standard", "secrets": [signing.new_secret()]}}):
            assert self.send() == 401
        assert not Message.objects.exists()
