"""The guestbook and its webhooks, as whoever uses djwebhooks may test them: nothing here needs Redis or a network."""

import json

from django.contrib.auth.models import User
from django.test import TestCase, override_settings
from django.urls import reverse

from djwebhooks.models import Delivery, WebhookTarget
from djwebhooks.testing import assert_fired, assert_not_fired, deliver
from example_project.guestbook.models import Comment, find_keeper

EVENT = "guestbook.comment.created"
URL = "http://127.0.0.1:8000/hook"


class GuestbookTests(TestCase):
    """Reading and signing."""

    def setUp(self) -> None:
        self.keeper = User.objects.create_superuser("keeper")

    def test_a_comment_is_kept_and_its_event_fired(self) -> None:
        """Signing saves the comment, thanks the visitor and fires one event for the keeper."""
        page = self.client.post("/", {"name": "Daisy", "message": "Hello!"}, follow=True)

        self.assertContains(page, "Thank you for signing, Daisy!")
        self.assertContains(page, "Hello!")
        assert_fired(EVENT, owner=self.keeper)

    def test_a_webhook_tells_the_comment(self) -> None:
        """The keeper's webhook carries all that there is to know, though the comment is deleted before it is sent."""
        WebhookTarget.objects.register(URL, [EVENT], owner=self.keeper)
        self.client.post("/", {"name": "Daisy", "message": "Hello!"})
        comment = Comment.objects.get()
        comment_id = comment.pk
        comment.delete()

        (request,) = deliver()

        sent = json.loads(request.body)
        assert sent["type"] == EVENT
        assert {key: sent["data"][key] for key in ("id", "name", "message")} == {
            "id": comment_id,
            "name": "Daisy",
            "message": "Hello!",
        }

    def test_an_empty_comment_is_refused(self) -> None:
        """What is not saved is not told either."""
        page = self.client.post("/", {"name": "", "message": "Hello!"})

        self.assertContains(page, "This field is required.")
        assert_not_fired()

    def test_a_comment_is_text(self) -> None:
        """Markup of visitors is shown, not obeyed."""
        self.client.post("/", {"name": "<b>Daisy</b>", "message": "<script>alert(1)</script>"})

        self.assertContains(self.client.get("/"), "&lt;script&gt;alert(1)&lt;/script&gt;")

    def test_the_newest_comments_come_first(self) -> None:
        """A page has ten, and the older ones are a page further."""
        Comment.objects.bulk_create([Comment(name=f"visitor {number}", message="Hi") for number in range(11)])

        first, second = self.client.get("/"), self.client.get("/?page=2")

        assert [comment.name for comment in first.context["page"]][:2] == ["visitor 10", "visitor 9"]
        assert [comment.name for comment in second.context["page"]] == ["visitor 0"]

    def test_a_guestbook_without_a_keeper_says_so(self) -> None:
        """It can be signed all the same."""
        self.keeper.delete()

        page = self.client.post("/", {"name": "Daisy", "message": "Hello!"}, follow=True)

        assert find_keeper() is None
        self.assertContains(page, "createsuperuser")


class WebhookTests(TestCase):
    """Managing webhooks."""

    def setUp(self) -> None:
        self.keeper = User.objects.create_superuser("keeper")
        self.client.force_login(self.keeper)

    def add(self) -> WebhookTarget:
        return WebhookTarget.objects.register(URL, [EVENT], owner=self.keeper)

    def test_the_secret_is_shown_once(self) -> None:
        """It is on the page that answers the form, uncached, and on no other."""
        added = self.client.post(reverse("webhook-add"), {"url": URL})
        target = WebhookTarget.objects.get()

        self.assertContains(added, target.secret, status_code=201)
        assert "no-store" in added["Cache-Control"]
        again = self.client.post(reverse("webhook-add"), {"url": URL}, follow=True)
        for page in (again, self.client.get(reverse("webhooks")), self.client.get(reverse("webhook", args=[target.uid]))):
            self.assertNotContains(page, target.secret)
            self.assertContains(page, URL)

    def test_an_address_that_cannot_be_is_refused(self) -> None:
        """The form says what is wrong with it."""
        for url, words in (("ftp://example.com", "ftp"), ("https://10.0.0.1/", "10.0.0.1"), ("", "required")):
            with self.subTest(url=url):
                self.assertContains(self.client.post(reverse("webhook-add"), {"url": url}), words)
        assert not WebhookTarget.objects.exists()

    def test_a_receiver_is_suggested_if_there_is_one(self) -> None:
        """At the address that the settings name, and nothing is said of one that they do not."""
        for address, count in (("http://127.0.0.1:8123/webhooks/guestbook/", 1), ("", 0)):
            with self.subTest(address=address), override_settings(GUESTBOOK_RECEIVER=address):
                page = self.client.get(reverse("webhooks"))
                self.assertContains(page, f"<code>{address}</code>", count)
                self.assertContains(page, "No server at hand?", count)

    def test_deliveries_are_shown_with_their_attempts(self) -> None:
        """A failure says what was answered, and can be tried again."""
        target = self.add()
        self.client.post("/", {"name": "Daisy", "message": "Hello!"})
        deliver(503)
        page = self.client.get(reverse("webhook", args=[target.uid]))
        self.assertContains(page, "1 attempt,")
        self.assertContains(page, "<b>503</b>")

        self.client.post(reverse("webhook-retry", args=[target.uid, Delivery.objects.get().uid]))
        deliver()

        page = self.client.get(reverse("webhook", args=[target.uid]))
        self.assertContains(page, "succeeded")
        self.assertContains(page, "2 attempts")

    def test_a_paused_webhook_waits(self) -> None:
        """What it missed is sent when it is resumed."""
        target = self.add()
        page = self.client.post(reverse("webhook-pause", args=[target.uid]), follow=True)
        self.assertContains(page, "Paused")
        self.client.post("/", {"name": "Daisy", "message": "Hello!"})
        assert deliver() == []

        self.client.post(reverse("webhook-resume", args=[target.uid]))

        assert len(deliver()) == 1

    def test_a_test_can_be_sent(self) -> None:
        """It goes to this webhook alone."""
        self.client.post(reverse("webhook-test", args=[self.add().uid]))

        assert [json.loads(request.body)["type"] for request in deliver()] == ["webhook.test"]

    def test_a_webhook_can_be_deleted(self) -> None:
        """It is gone from the list."""
        page = self.client.post(reverse("webhook-delete", args=[self.add().uid]), follow=True)

        self.assertContains(page, "None yet.")

    def test_only_the_keeper_may(self) -> None:
        """Strangers log in first; others are told whose business it is, and see nothing."""
        target = self.add()
        self.client.logout()
        self.assertRedirects(self.client.get(reverse("webhooks")), "/login/?next=/webhooks/")
        self.assertContains(self.client.get("/login/?next=/webhooks/"), "Members only!")

        self.client.force_login(User.objects.create_user("visitor"))

        self.assertContains(self.client.get(reverse("webhooks")), "Only the keeper", status_code=403)
        assert self.client.post(reverse("webhook-delete", args=[target.uid])).status_code == 403

    def test_the_admin_opens(self) -> None:
        """The keeper sees there what the guestbook's own pages leave out."""
        self.assertContains(self.client.get("/admin/"), "Comments")
