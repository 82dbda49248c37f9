"""What holds for all of the API's addresses."""

import pytest
from django.urls import reverse

from tests.api.world import NEW, Api, make_owner, make_webhooks

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts"])
def test_a_list_shows_what_a_single_row_does(kind: str) -> None:
    """The same fields, whichever way a row is asked for; only an event's payload is not in the list."""
    make_webhooks(owner := make_owner())
    api = Api(owner)

    rows = api.get(f"{kind}/").data["results"]
    singles = [api.get(f"{kind}/{row['id']}/").data for row in rows]

    assert rows
    assert [{name: single[name] for name in single if name != "payload"} for single in singles] == rows


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts"])
@pytest.mark.parametrize(
    "row", ["1", "x", "%00", "%ff", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000-1"]
)
def test_an_id_that_names_nothing_is_404(kind: str, row: str) -> None:
    """In JSON, whatever it looks like."""
    answer = Api(make_owner()).get(f"{kind}/{row}/")

    assert (answer.status, list(answer.data)) == (404, ["code", "detail"])


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts", "event-types"])
def test_the_api_may_be_included_twice(kind: str) -> None:
    """Each mount has its own addresses under the same names."""
    make_webhooks(owner := make_owner())
    name = f"djwebhooks-{ {'deliveries': 'delivery'}.get(kind, kind.removesuffix('s')) }-list"

    assert reverse(name) == f"/api/{kind}/"
    assert reverse(name, kwargs={"org": "acme"}) == f"/orgs/acme/api/{kind}/"
    assert Api(owner, "/orgs/acme/api/").get(f"{kind}/") == Api(owner).get(f"{kind}/")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "deliveries/"), ("DELETE", "events/"), ("PUT", "attempts/"), ("OPTIONS", "")]
)
def test_other_methods_are_405(method: str, path: str) -> None:
    """What is sent and answered is nobody's to write."""
    assert Api(make_owner()).call(method, path or "targets/").status == 405


def test_no_cache_keeps_an_answer() -> None:
    """An answer may have a secret, and always is one owner's alone."""
    assert Api(make_owner()).post("targets/", NEW).headers["Cache-Control"] == "no-store"
