"""REST Hooks work as https://resthooks.org and Zapier's documentation of REST Hook triggers describe them."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection

from djwebhooks.api.hooks import URL_NAMES
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Subscription, WebhookTarget
from djwebhooks.payload import Message
from djwebhooks.senders import Sender
from djwebhooks.testing import deliver
from tests.api.world import URL, Api, make_owner, make_target

pytestmark = pytest.mark.django_db

#: The unique address of a Zap.
ZAP = "https://hooks.example.com/hooks/standard/1/abc/"


def subscribe(api: Api, event: str = "contact.created", url: str = ZAP) -> str:
    """Do as Zapier does when a Zap is turned on; return what it keeps to turn it off."""
    answer = api.post("hooks/", {"event": event, "hookUrl": url})
    assert answer.status == 201, answer
    return str(answer.data["id"])


@pytest.mark.parametrize("name", URL_NAMES)
def test_subscribing_makes_a_target(name: str) -> None:
    """POST: 201 with an id, and the secret in the body and as X-Hook-Secret; from then on the event is sent there."""
    owner = make_owner()

    answer = Api(owner).post("hooks/", {"event": "contact.created", name: ZAP})
    fire("contact.created", {"name": "Ben"}, owner=owner)
    fire("contact.deleted", {"name": "Ben"}, owner=owner)

    target = WebhookTarget.objects.get()
    assert answer.status == 201
    assert answer.data == {
        "id": f"{target.uid}-contact.created",
        "event": "contact.created",
        "target_url": ZAP,
        "state": "healthy",
        "secret": target.secret,
    }
    assert answer.headers["X-Hook-Secret"] == target.secret
    assert [request.url for request in deliver()] == [ZAP]


@pytest.mark.parametrize(
    "body",
    [
        # Zapier's "REST Hooks", step 1, with the duplicate that it says can be ignored.
        f'{{"target_url": "{ZAP}", "event": "user_created"}}',
        f'{{"target_url": "{ZAP}", "subscription_url": "{ZAP}", "event": "user_created"}}',
        # django-rest-hooks and drf-hooks, "How would you interact with it in the real world?"
        f'{{"target": "{ZAP}", "event": "user_created"}}',
    ],
)
def test_published_requests_are_taken_as_they_are(body: str) -> None:
    """Whoever subscribes as these pages show gets a hook for that event and that address."""
    answer = Api(make_owner()).post("hooks/", json.loads(body))

    assert (answer.status, answer.data["event"], answer.data["target_url"]) == (201, "user_created", ZAP)


def test_subscribing_again_changes_nothing() -> None:
    """The same event for the same address is 200, without the secret."""
    api = Api(make_owner())
    hook_id = subscribe(api)

    answer = api.post("hooks/", {"event": "contact.created", "target_url": ZAP})

    assert (answer.status, answer.data["id"], "secret" in answer.data) == (200, hook_id, False)
    assert Subscription.objects.count() == 1


def test_subscribing_an_address_that_was_fired_at_makes_a_hook() -> None:
    """201 with the secret, as for any other: nobody was told of that target, which now goes with its last hook."""
    owner = make_owner()
    fire("contact.created", {}, owner=owner, urls=[ZAP])
    api = Api(owner)

    answer = api.post("hooks/", {"event": "contact.created", "hookUrl": ZAP})
    secret = WebhookTarget.objects.get().secret
    api.delete(f"hooks/{answer.data['id']}/")

    assert (answer.status, answer.data["secret"], answer.headers["X-Hook-Secret"]) == (201, secret, secret)
    assert not WebhookTarget.objects.exists()


def test_hooks_are_resources() -> None:
    """They are listed, found by their ids and filtered by their events; wildcards are events, too."""
    api = Api(make_owner())
    one, two = subscribe(api), subscribe(api, "contact.*", ZAP + "2/")

    assert api.ids("hooks/") == [two, one]
    assert api.ids("hooks/?event=contact.created") == [one]
    assert api.get(f"hooks/{two}/").data["event"] == "contact.*"
    assert api.get("hooks/nonsense/").status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"event": "contact.created"}, "target_url"),
        ({"event": "contact.created", "target_url": ZAP, "subscription_url": URL}, "target_url"),
        ({"event": "contact.created", "hookUrl": ZAP, "target": URL}, "hookUrl"),
        ({"target_url": ZAP}, "event"),
        ({"event": "no name!", "target_url": ZAP}, "event"),
        ({"event": "contact.created", "target_url": "http://10.0.0.1/"}, "target_url"),
        ({"event": "contact.created", "hookUrl": "nonsense"}, "hookUrl"),
        ({"event": "contact.created", "target": "nonsense"}, "target"),
        ({"event": "contact.created", "target_url": ZAP, "subscription_url": "nonsense"}, "subscription_url"),
        ({"event": "contact.created", "target_url": ZAP, "identifier": "x"}, "identifier"),
    ],
)
def test_what_cannot_be_subscribed_to_is_refused(body: dict[str, str], field: str) -> None:
    """400 under the field's name, whichever name the URL has; nothing is made."""
    answer = Api(make_owner()).post("hooks/", body)

    assert answer.wrong_fields == [field]
    assert not WebhookTarget.objects.exists()


@pytest.mark.parametrize("body", [{}, {"event": "no name!"}, {"target_url": "nonsense"}])
def test_all_that_is_wrong_is_told_at_once(body: dict[str, str]) -> None:
    """A mistake in one field hides none in the other, nor that it is missing."""
    mistakes = Api(make_owner()).post("hooks/", body).mistakes

    assert set(mistakes) == {"event", "target_url"}
    assert mistakes["target_url"] == ["Give it, as target_url or as hookUrl."] or "target_url" in body


def test_unsubscribing_ends_all() -> None:
    """DELETE: 204, and what waits is not sent any more; the address leaves nothing that counts against the owner's limit."""
    owner = make_owner()
    api = Api(owner)
    hook_id = subscribe(api)
    fire("contact.created", {}, owner=owner)
    deliver(503)

    answers = [api.delete(f"hooks/{hook_id}/"), api.delete(f"hooks/{hook_id}/")]

    assert [answer.status for answer in answers] == [204, 404]
    assert Delivery.objects.get().status == "cancelled"
    assert not WebhookTarget.objects.exists()


@pytest.mark.parametrize("gone", ["the target", "the hook"])
def test_of_two_who_unsubscribe_at_once_one_is_late(gone: str) -> None:
    """404, as for whoever asks after the other is done."""
    target = make_target(owner := make_owner(), "a", "b", is_rest_hook=True)
    rows = WebhookTarget.objects.all() if gone == "the target" else target.subscriptions.filter(event="a")
    others: list[int] = []

    def come_second(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        found = run(sql, *rest)
        if "djw_subscription" in sql and not others:
            others.append(1)
            rows.delete()
        return found

    with connection.execute_wrapper(come_second):
        answer = Api(owner).delete(f"hooks/{target.uid}-a/")

    assert (answer.status, others) == (404, [1])


def test_unsubscribing_leaves_the_other_hooks_of_an_address() -> None:
    """An address that has two hooks keeps the other one, with its secret."""
    owner = make_owner()
    api = Api(owner)
    first = subscribe(api)
    second = api.post("hooks/", {"event": "contact.deleted", "hookUrl": ZAP}).data["id"]

    api.delete(f"hooks/{first}/")

    assert api.ids("hooks/") == [second]


def test_unsubscribing_does_not_delete_what_people_made() -> None:
    """A target that was not made by a hook stays, with its log and its secret, when its last event goes."""
    target = make_target(owner := make_owner(), "contact.created", description="ours")
    api = Api(owner)

    api.delete(f"hooks/{target.uid}-contact.created/")

    assert api.ids("hooks/") == []
    target.refresh_from_db()
    assert (target.description, target.events) == ("ours", [])


def test_gone_is_unsubscribing() -> None:
    """Who answers 410 has no hook any more, and is not sent to again."""
    owner = make_owner()
    api = Api(owner)
    hook_id = subscribe(api)
    fire("contact.created", {}, owner=owner)
    deliver(410)
    fire("contact.created", {}, owner=owner)

    assert deliver() == []
    assert api.ids("hooks/") == []
    assert api.get(f"hooks/{hook_id}/").status == 404


def test_what_is_gone_makes_room(settings: LazySettings) -> None:
    """Whoever subscribes anew gets a new hook, also at the same address, and what is gone does not count."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 1
    owner = make_owner()
    api = Api(owner)
    first = subscribe(api)
    fire("contact.created", {}, owner=owner)
    deliver(410)

    assert subscribe(api) != first
    assert WebhookTarget.objects.get().state == "healthy"


def test_a_gone_target_of_people_is_not_replaced() -> None:
    """It stays as it is, for people to see, and the answer says that it is disabled."""
    make_target(owner := make_owner(), "contact.created", url=ZAP)
    fire("contact.created", {}, owner=owner)
    deliver(410)

    answer = Api(owner).post("hooks/", {"event": "contact.created", "hookUrl": ZAP})

    assert (answer.status, answer.data["state"]) == (200, "disabled")


@pytest.mark.parametrize("envelope", ["standard", "flat", "cloudevents"])
def test_samples_are_what_is_sent(settings: LazySettings, envelope: str) -> None:
    """The list for Zapier's editor has the bodies of the owner's latest events, newest first, as a hook gets them."""
    settings.DJWEBHOOKS_ENVELOPE = envelope
    owner = make_owner()
    api = Api(owner)
    subscribe(api, "contact.*")
    for number in range(4):
        fire("contact.created", {"number": number}, owner=owner)
    fire("lead.created", {}, owner=owner)

    sent = [json.loads(request.body) for request in deliver()]

    assert api.get("hooks/samples/?event=contact.created").data == sent[:0:-1]
    assert api.get("hooks/samples/?event=*").data == sent[:0:-1]
    assert api.get("hooks/samples/?event=contact.*").data == sent[:0:-1]
    assert api.get("hooks/samples/?event=lead.created").data == []


def test_samples_are_ones_own() -> None:
    """Nobody sees what another owner's targets got."""
    other = make_owner("other")
    make_target(other, "*")
    fire("contact.created", {}, owner=other)
    deliver()

    assert Api(make_owner()).get("hooks/samples/?event=contact.created").data == []


def test_samples_are_of_events_that_match() -> None:
    """Upper and lower case differ on every database, as they do for what a hook is sent."""
    owner = make_owner()
    make_target(owner, "*")
    for name in ("Contact.created", "contacts.created", "contact"):
        fire(name, {}, owner=owner)
    deliver()

    assert Api(owner).get("hooks/samples/?event=contact.*").data == []


def test_samples_come_from_the_catalogue(settings: LazySettings) -> None:
    """Before anything happened, those of the catalogue are shown, but for what the envelope cannot hold."""
    settings.DJWEBHOOKS_ENVELOPE = "flat"
    settings.DJWEBHOOKS_EVENTS = {
        "contact.created": {"sample": {"name": "Ben"}},
        "contact.deleted": {"sample": 7},
        "contact.merged": {},
        "contact.spied": {"sample": {}, "internal": True},
    }

    answer = Api(make_owner()).get("hooks/samples/?event=contact.*")

    assert answer.data == [{"name": "Ben", "event": "contact.created", "owner": "ann"}]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("djwebhooks.senders.FormSender", [f"name=Ben&hash={'0' * 32}&owner=ann&event=contact.created&attempt=1"]),
        ("tests.api.test_hooks.Broken", []),
        ("tests.api.test_hooks.Missing", []),
    ],
)
def test_samples_are_what_a_sender_writes(settings: LazySettings, path: str, expected: list[str]) -> None:
    """A form is shown as the text that it is; what cannot be written is left out."""
    settings.DJWEBHOOKS_SENDERS, settings.DJWEBHOOKS_SENDER = {"own": path}, "own"
    settings.DJWEBHOOKS_EVENTS = {"contact.created": {"sample": {"name": "Ben"}}}

    answer = Api(make_owner()).get("hooks/samples/?event=contact.created")

    assert [re.sub("hash=[0-9a-f]{32}", f"hash={'0' * 32}", text) for text in answer.data] == expected


class Broken(Sender):
    def body(self, message: Message) -> bytes:
        raise LookupError


@pytest.mark.parametrize("query", ["", "?event=no+name!", "?event=a&wait=1"])
def test_samples_are_of_an_event(query: str) -> None:
    """Without one, or with anything else, it is 400."""
    assert Api(make_owner()).get(f"hooks/samples/{query}").status == 400


def test_hooks_are_the_targets_subscriptions() -> None:
    """What was made as a target is a hook for each of its events, and the other way round."""
    make_target(owner := make_owner(), "a", "b", url=URL)
    api = Api(owner)
    subscribe(api, "c")

    events: list[Any] = [hook["event"] for hook in api.get("hooks/").data["results"]]

    assert events == ["c", "b", "a"]
    assert [row["events"] for row in api.get("targets/").data["results"]] == [["c"], ["a", "b"]]
