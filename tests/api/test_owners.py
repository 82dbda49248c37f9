"""Whose rows a request is about."""

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User

from djwebhooks.exceptions import ConfigurationError
from tests.api.world import Api, make_owner, make_target

pytestmark = pytest.mark.django_db


@pytest.fixture
def organisations(settings: LazySettings) -> tuple[User, User]:
    """Two owners that everybody may act for, below ``orgs/ann/`` and ``orgs/bob/``."""
    settings.DJWEBHOOKS_REQUEST_OWNER = "tests.api.world.own_organisation"
    return make_owner("ann"), make_owner("bob")


def test_the_url_says_who_the_owner_is(organisations: tuple[User, User]) -> None:
    """The function gets the arguments of the URL that the API is included at, and not the API's own."""
    ann, bob = organisations
    target = make_target(bob)

    assert Api(ann, "/orgs/bob/api/").ids("targets/") == [str(target.uid)]
    assert Api(ann, "/orgs/bob/api/").get(f"targets/{target.uid}/").status == 200
    assert Api(ann, "/orgs/ann/api/").ids("targets/") == []
    assert Api(bob, "/orgs/ann/api/").get(f"targets/{target.uid}/").status == 404


def test_a_new_target_belongs_to_the_owner_and_not_to_the_user(organisations: tuple[User, User]) -> None:
    """The same address is another target for another owner."""
    ann, bob = organisations
    body = {"target_url": "https://example.com/", "events": ["*"]}

    answers = [Api(ann, f"/orgs/{name}/api/").post("targets/", body) for name in ("ann", "bob")]

    assert [answer.status for answer in answers] == [201, 201]
    assert bob.webhook_targets.count() == 1


@pytest.mark.parametrize("org", ["closed", "nobody"])
@pytest.mark.parametrize("path", ["targets/", "events/", "deliveries/", "attempts/", "event-types/"])
def test_without_an_owner_nothing_is_shown(organisations: tuple[User, User], org: str, path: str) -> None:
    """PermissionDenied and None are 403; above all, None does not stand for the system's targets."""
    make_target(None)

    answer = Api(organisations[0], f"/orgs/{org}/api/").get(path)

    assert (answer.status, list(answer.data)) == (403, ["code", "detail"])


@pytest.mark.parametrize("prefix", ["/api/", "/orgs/ann/api/", "/orgs/closed/api/", "/orgs/nobody/api/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_strangers_are_sent_away_first(organisations: tuple[User, User], prefix: str, method: str) -> None:
    """The function is never asked about somebody who is not logged in."""
    answer = Api(None, prefix).call(method, "targets/")

    assert answer.status in (401, 403)
    assert list(answer.data) == ["code", "detail"]


def test_what_cannot_own_targets_is_a_wrong_setting(settings: LazySettings) -> None:
    """The error names the setting."""
    settings.DJWEBHOOKS_REQUEST_OWNER = "tests.api.world.own_name"

    with pytest.raises(ConfigurationError, match=r"own_name', .*auth\.User.*not str"):
        Api(make_owner()).get("targets/")
