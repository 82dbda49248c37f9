"""The receiver: what it trusts, what it refuses, and what it shows."""

import json
import time
from typing import Any

from django.http import HttpResponse
from django.test import TestCase
from django.urls import reverse

from djwebhooks import signing
from example_project.receiver.models import Arrival, Secret

BODY = json.dumps({"type": "guestbook.comment.created", "data": {"name": "Zoë"}}).encode()


class ReceiverTests(TestCase):
    """Receiving and showing."""

    def setUp(self) -> None:
        self.secret = signing.new_secret()

    def send(self, body: bytes = BODY, **headers: str) -> HttpResponse:
        now = int(time.time())
        signed = {
            "webhook-id": "message-1",
            "webhook-timestamp": str(now),
            "webhook-signature": signing.sign(self.secret, "message-1", now, BODY),
            "webhook-attempt": "1",
            "webhook-sequence": "17",
        }
        answer: Any = self.client.post(
            reverse("receiver-inbox"), body, content_type="application/json", headers={**signed, **headers}
        )
        return answer

    def test_what_is_signed_is_verified(self) -> None:
        """It is answered at once and shown with all its particulars."""
        Secret.objects.create(text=self.secret)

        assert self.send().status_code == 200

        page = self.client.get(reverse("receiver"))
        for words in ("verified", "message-1", "guestbook.comment.created", "17", "&quot;name&quot;: &quot;Zoë&quot;"):
            self.assertContains(page, words)

    def test_what_is_forged_is_refused(self) -> None:
        """The sender and the page are told why."""
        Secret.objects.create(text=self.secret)

        answer = self.send(b'{"type": "guestbook.comment.created", "data": {"name": "Mallory"}}')

        self.assertContains(answer, "Refused: No signature matches", status_code=401)
        self.assertContains(self.client.get(reverse("receiver")), "No signature matches")

    def test_without_a_secret_nothing_is_trusted(self) -> None:
        """A secret is told on the page; from then on what it signs is trusted."""
        assert self.send().status_code == 401

        self.client.post(reverse("receiver-secret"), {"text": self.secret})

        assert self.send().status_code == 200

    def test_a_malformed_secret_is_not_learnt(self) -> None:
        """The form says what a secret looks like."""
        page = self.client.post(reverse("receiver-secret"), {"text": "hunter2"})

        self.assertContains(page, "errorlist")
        assert not Secret.objects.exists()

    def test_a_repeat_is_noticed(self) -> None:
        """The same id twice is the same event twice."""
        Secret.objects.create(text=self.secret)
        self.send()
        self.send()

        assert list(Arrival.objects.values_list("is_repeat", flat=True)) == [True, False]
        self.assertContains(self.client.get(reverse("receiver")), "seen before")

    def test_anything_may_arrive(self) -> None:
        """What is not JSON, not UTF-8 or has no headers is stored and shown, not an error of the receiver's."""
        for body in (b"", b"\xff\x00<b>", b"[1]", b'"text"'):
            with self.subTest(body=body):
                answer = self.client.post(reverse("receiver-inbox"), body, content_type="text/plain")
                assert answer.status_code == 401
        self.assertContains(self.client.get(reverse("receiver")), "(no event)", count=4)

    def test_the_page_asks_for_what_is_new(self) -> None:
        """The script gets only what came after the arrival that it knows."""
        self.send()
        latest = Arrival.objects.get().pk

        self.assertContains(self.client.get(reverse("receiver"), {"after": "0"}), "message-1")
        assert self.client.get(reverse("receiver"), {"after": str(latest)}).content.strip() == b""
