"""What has requests made to others is limited for each user, whatever the project's own throttles are."""

from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.core.cache import cache

from tests.api.test_feed import ask
from tests.api.world import Api, make_owner, make_target, make_webhooks

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def counting(settings: LazySettings) -> Iterator[None]:
    """A cache that counts, empty before and after."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.clear()
    yield
    cache.clear()


def test_tests_and_replays_are_limited(settings: LazySettings) -> None:
    """One too many is 429 and says when to come again; the scopes count apart, and so do users."""
    settings.DJWEBHOOKS_API_THROTTLES = {"test": "2/hour", "replay": "3/day"}
    target, other = make_target(make_owner("ann")), make_target(make_owner("bob"))
    api = Api(target.owner)
    test, replay = f"targets/{target.uid}/test/", f"targets/{target.uid}/replay/"

    assert [api.post(test).status for _ in range(3)] == [202, 202, 429]
    assert [api.post(path).status for path in (replay, "replays/", replay, replay)] == [202, 202, 202, 429]
    refused = api.post(test)
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert "throttled" in refused.data["detail"]
    assert Api(other.owner).post(f"targets/{other.uid}/test/").status == 202


def test_all_that_makes_requests_is_limited(settings: LazySettings) -> None:
    """A check of the keys and a probe are tests, and so is to resume, which ends what the receiver asked for; so does a retry."""
    settings.DJWEBHOOKS_API_THROTTLES = {"test": "4/hour", "retry": "1/hour", "replay": "1/hour"}
    webhooks = make_webhooks(make_owner())
    api = Api(webhooks.target.owner)
    paths = [f"targets/{webhooks.target.uid}/{name}/" for name in ("test", "check-keys", "probe", "resume", "resume")]

    assert [api.post(path).status for path in paths] == [202, 202, 202, 200, 429]
    assert [api.post(f"deliveries/{webhooks.delivery.uid}/retry/").status for _ in range(2)] == [202, 429]


def test_what_only_reads_is_not_limited(settings: LazySettings) -> None:
    """Nor is what changes one's own rows."""
    settings.DJWEBHOOKS_API_THROTTLES = {"test": "1/day", "replay": "1/day"}
    target = make_target(make_owner())
    api = Api(target.owner)

    assert {api.get(path).status for path in ("replays/", "targets/") for _ in range(3)} == {200}
    assert {api.post(f"targets/{target.uid}/pause/").status for _ in range(3)} == {200}


def test_a_scope_without_a_rate_has_no_limit(settings: LazySettings) -> None:
    """The project may leave it to its own throttles."""
    settings.DJWEBHOOKS_API_THROTTLES = {}
    target = make_target(make_owner())

    assert {Api(target.owner).post(f"targets/{target.uid}/test/").status for _ in range(40)} == {202}


def test_the_default_lets_a_person_work() -> None:
    """Thirty tests in a minute, and not one more."""
    target = make_target(make_owner())
    api = Api(target.owner)
    statuses = [api.post(f"targets/{target.uid}/test/").status for _ in range(31)]

    assert statuses == [202] * 30 + [429]


def test_each_receiver_of_a_feed_is_limited_by_itself(settings: LazySettings) -> None:
    """Another target's receiver, and the owner, are not held up by it."""
    settings.DJWEBHOOKS_API_THROTTLES = {"feed": "2/hour"}
    target, other = make_target(make_owner()), make_target(None)

    assert [ask(f"target={target.uid}", target.secret).status for _ in range(3)] == [200, 200, 429]
    assert ask(f"target={other.uid}", other.secret).status == 200
    assert Api(target.owner).get(f"feed/?target={target.uid}").status == 200
