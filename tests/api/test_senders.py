"""Owners choose only among the senders that are open to them, and turn no other one to a URL of their own."""

from collections.abc import Mapping

import pytest
from django.conf import LazySettings

from djwebhooks.events import fire
from djwebhooks.models import WebhookTarget
from djwebhooks.senders import Letter, Sender
from djwebhooks.testing import deliver
from tests.api.world import URL, Api, make_owner, make_target

pytestmark = pytest.mark.django_db

NEW = {"target_url": URL, "events": ["a.b"]}
ELSEWHERE = "https://example.com/mine"


class Partner(Sender):
    """Shows the platform's own key."""

    def headers(self, letter: Letter) -> Mapping[str, str]:
        return {**super().headers(letter), "authorization": "Bearer platform-key"}


class Open(Sender):
    is_for_owners = True


class Closed(Open):
    is_for_owners = False


@pytest.fixture(autouse=True)
def senders(settings: LazySettings) -> None:
    names = {name.lower(): f"{__name__}.{name}" for name in ("Partner", "Open", "Closed")}
    settings.DJWEBHOOKS_SENDERS = names | {"form": "djwebhooks.senders.FormSender", "nowhere": "tests.nowhere.Sender"}


@pytest.mark.parametrize("name", ["partner", "closed", "nowhere", "none"])
def test_a_sender_that_is_not_for_owners_is_refused(name: str) -> None:
    """As if there was none: its key goes to no URL of theirs, and the error tells of those alone that they may choose."""
    api = Api(make_owner())
    target = api.post("targets/", NEW)

    refused = [api.post("targets/", NEW | {"target_url": ELSEWHERE, "sender": name})]
    refused.append(api.patch(f"targets/{target.data['id']}/", {"sender": name}))

    assert [answer.status for answer in refused] == [400, 400]
    for answer in refused:
        assert answer.data["errors"] == {"sender": [f"There is no sender '{name}' to choose. There are: 'open', 'form'."]}
    assert [target.sender for target in WebhookTarget.objects.all()] == [""]


@pytest.mark.parametrize("name", ["open", "form"])
def test_an_open_sender_can_be_chosen(name: str) -> None:
    """It is shown, and can be left again, and so can its target's address."""
    api = Api(make_owner())
    made = api.post("targets/", NEW | {"sender": name})
    url = f"targets/{made.data['id']}/"

    moved = api.patch(url, {"target_url": ELSEWHERE})
    emptied = api.patch(url, {"sender": ""})

    assert (made.data["sender"], moved.data["sender"], emptied.data["sender"]) == (name, name, "")
    assert moved.data["target_url"] == ELSEWHERE


def test_what_the_staff_chose_stays_where_it_is() -> None:
    """The owner does not see it, and can neither change it nor have it send elsewhere; all else can be changed as ever."""
    owner = make_owner()
    target = make_target(owner, "a.b", sender="partner")
    api, url = Api(owner), f"targets/{target.uid}/"

    shown = api.get(url)
    listed = api.get("targets/")
    same = api.put(url, {"target_url": target.target_url, "events": ["a.b"], "sender": "", "description": "x"})
    moved = api.patch(url, {"target_url": ELSEWHERE})
    changed = api.patch(url, {"sender": "form"})

    assert (shown.data["sender"], listed.data["results"][0]["sender"]) == ("", "")
    assert (same.status, same.data["sender"], same.data["description"]) == (200, "", "x")
    assert list(moved.data["errors"]) == ["target_url"]
    assert list(changed.data["errors"]) == ["sender"]
    assert [answer.status for answer in (moved, changed)] == [400, 400]
    fire("a.b", 1, owner=owner)
    [request] = deliver()
    assert (request.url, request.headers["authorization"]) == (target.target_url, "Bearer platform-key")
