"""Long lists come in pages, newest first."""

import base64

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.api.world import URL, Api, make_owner, make_target

pytestmark = pytest.mark.django_db


def make_many(count: int) -> tuple[Api, list[str]]:
    """An owner's client, and the ids of *count* targets, newest first."""
    owner = make_owner()
    targets = [make_target(owner, url=f"{URL}/{number}") for number in range(count)]
    return Api(owner), [str(target.uid) for target in reversed(targets)]


def test_pages_follow_each_other() -> None:
    """``next`` leads through all rows once, newest first, and ``previous`` back again."""
    api, ids = make_many(5)

    forward, page = [], api.get("targets/?page_size=2")
    while True:
        forward.append([row["id"] for row in page.data["results"]])
        if page.data["next"] is None:
            break
        page = api.get(page.data["next"])
    back = api.get(page.data["previous"])

    assert forward == [ids[:2], ids[2:4], ids[4:]]
    assert [row["id"] for row in back.data["results"]] == ids[2:4]


def test_a_new_row_does_not_shift_pages() -> None:
    """What comes meanwhile neither repeats nor hides a row."""
    api, ids = make_many(4)
    first = api.get("targets/?page_size=2")

    api.post("targets/", {"target_url": URL + "/new", "events": ["*"]})

    assert [row["id"] for row in api.get(first.data["next"]).data["results"]] == ids[2:]


def test_filters_stay() -> None:
    """The next page is one of the same list."""
    api, ids = make_many(4)
    api.patch(f"targets/{ids[2]}/", {"is_active": False})

    first = api.get("targets/?is_active=true&page_size=2")

    assert [row["id"] for row in api.get(first.data["next"]).data["results"]] == [ids[3]]


def test_cursors_tell_nothing() -> None:
    """No primary key is in a cursor, which would count everybody's rows."""
    api, _ = make_many(3)

    cursor = api.get("targets/?page_size=1").data["next"].partition("cursor=")[2].partition("&")[0].replace("%3D", "=")

    assert len(cursor) > 50
    assert b"p=" not in base64.urlsafe_b64decode(cursor)


def test_nothing_is_counted() -> None:
    """A page does not cost more the more rows there are."""
    api, _ = make_many(3)

    with CaptureQueriesContext(connection) as queries:
        api.get("targets/?page_size=1")

    assert not [query["sql"] for query in queries if "COUNT(" in query["sql"]]


def test_a_page_has_fifty_rows_unless_it_is_said(settings: object) -> None:
    """At most 200 can be asked for."""
    api, ids = make_many(52)

    assert api.ids("targets/") == ids[:50]
    assert api.ids("targets/?page_size=200") == ids


@pytest.mark.parametrize("size", ["0", "-1", "201", "1000", "x", "", "1.5", "%C2%B2", "9" * 5000])
def test_a_size_that_cannot_be_is_refused(size: str) -> None:
    """400, under its name."""
    answer = Api(make_owner()).get(f"targets/?page_size={size}")

    assert (answer.status, answer.wrong_fields) == (400, ["page_size"])


@pytest.mark.parametrize("cursor", ["", "x", "cD0x", "%00", "%ff", "gAAAAAB" + "x" * 93])
def test_a_cursor_that_was_not_given_out_is_refused(cursor: str) -> None:
    """400, under its name."""
    answer = Api(make_owner()).get(f"targets/?cursor={cursor}")

    assert (answer.status, answer.wrong_fields) == (400, ["cursor"])
