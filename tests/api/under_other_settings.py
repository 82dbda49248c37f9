"""Run by ``test_defaults``, where REST framework's defaults are all wrong for us and targets belong to authors."""

import pytest

from djwebhooks.models import WebhookTarget
from tests.api.world import URL, Api, make_publisher, make_webhooks
from tests.library.models import Author

pytestmark = pytest.mark.django_db
PREFIX = "/orgs/acme/api/"


@pytest.fixture
def acme() -> Author:
    return Author.objects.create(name="acme")


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts", "event-types"])
def test_strangers_see_nothing(acme: Author, kind: str) -> None:
    """The project's default lets everybody in."""
    assert Api(None, PREFIX).get(f"{kind}/").status in (401, 403)


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts"])
def test_lists_are_pages(acme: Author, kind: str) -> None:
    """The project's default has no pages, and another page size."""
    make_webhooks(acme)
    api = Api(make_publisher(), PREFIX)

    answer = api.get(f"{kind}/", accept="text/html; version=7")

    assert answer.status == 200
    assert set(answer.data) == {"next", "previous", "results"}
    assert api.get(f"{kind}/?search=x").status == 400


def test_an_author_owns_targets(acme: Author) -> None:
    """Registering, publishing and errors work as ever, and the author is the owner."""
    api = Api(make_publisher(), PREFIX)

    created = api.post("targets/", {"target_url": URL, "events": ["*"]})
    published = api.post("events/", {"name": "a", "payload": 1.5, "deliver_at": "2096-01-01T00:00:00Z"})

    assert (created.status, published.status) == (201, 201)
    assert created.data["created_at"].endswith("Z")
    assert published.data["deliver_at"] == "2096-01-01T00:00:00Z"
    assert WebhookTarget.objects.get().owner == acme
    assert api.post("targets/", {"nonsense": 1}).status == 400
    assert api.get("targets/x/").status == 404


def test_forms_are_not_read(acme: Author) -> None:
    """The project's default reads nothing else."""
    api = Api(make_publisher(), PREFIX)

    response = api.client.post(f"{PREFIX}targets/", {"target_url": URL})

    assert (response.status_code, response["content-type"]) == (415, "application/json")
