"""What the admin pages share: what a list costs, what is never shown, and what cannot be asked for."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import reverse

from djwebhooks.admin import EventAdmin
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane
from djwebhooks.pages import BoundedPaginator, breakable, link_to
from tests.admin.builders import LISTS, URL, count_queries, list_of, make_owner, make_staff, make_target, page_of, send, text_of

pytestmark = pytest.mark.django_db


# -- lists -------------------------------------------------------------------------------------------------------------


def fill_lists(count: int) -> None:
    """Make *count* targets, events and deliveries; every third delivery has lost its event, its target, or neither."""
    owners = [make_owner(f"owner {number}") for number in range(count)]
    targets = [make_target(f"{URL}/{number}", owner=owner) for number, owner in enumerate(owners)]
    Lane.objects.bulk_create([Lane(target=target) for target in targets[::2]], ignore_conflicts=True)
    events = Event.objects.bulk_create([Event(name="project.update", owner=owner, payload="{}") for owner in owners])
    for number, (event, target) in enumerate(zip(events, targets, strict=True)):
        event_id, target_id = [(event.pk, target.pk), (-event.pk, target.pk), (event.pk, -target.pk)][number % 3]
        Delivery.objects.create(event_id=event_id, target_id=target_id, sequence=1)


@pytest.mark.parametrize("model", LISTS)
def test_a_list_costs_the_same_number_of_queries_however_many_rows_it_has(model: str, admin_client: Client) -> None:
    """No row of a list asks the database anything of its own."""
    fill_lists(10)
    few = count_queries(admin_client, list_of(model))
    User.objects.filter(username__startswith="owner ").delete()
    Event.objects.all().delete()
    Delivery.objects.all().delete()
    fill_lists(100)
    many = count_queries(admin_client, list_of(model))

    assert len(many) == len(few)


@pytest.mark.parametrize("query", ["", "?q=00000000-0000-0000-0000-000000000000", "?_facets=True"])
@pytest.mark.parametrize("model", LISTS)
def test_a_list_never_counts_all_of_its_rows(model: str, query: str, admin_client: Client) -> None:
    """Every COUNT is over a limited number of rows, with searches and asked-for facets too."""
    fill_lists(3)
    counts = [sql for sql in count_queries(admin_client, list_of(model) + query) if "COUNT(" in sql]

    assert counts
    assert all("LIMIT" in sql for sql in counts)


class SmallPaginator(BoundedPaginator):
    limit = 5


class SmallEventAdmin(EventAdmin):
    paginator = SmallPaginator


@pytest.mark.parametrize(("count", "is_cut"), [(4, False), (6, True)])
def test_a_list_says_when_it_does_not_count_further(count: int, is_cut: bool, admin_user: User) -> None:
    """Beyond the limit, the list says that there may be more and how to find it."""
    Event.objects.bulk_create([Event(name="project.update") for _ in range(count)])
    request = RequestFactory().get("/")
    request.user = admin_user
    response = SmallEventAdmin(Event, admin.site).changelist_view(request)

    assert ("There may be more" in text_of(response.render())) == is_cut


def test_a_list_shows_its_pages_by_the_newest_first(admin_client: Client) -> None:
    """The latest event stands first."""
    first, second = fire("a.first", {}), fire("a.second", {})
    page = text_of(admin_client.get(list_of("event")))

    assert first.pk < second.pk
    assert page.index("a.second") < page.index("a.first")


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["event", "delivery"])
def test_the_log_cannot_be_edited(model: str, admin_client: Client) -> None:
    """Events and deliveries are neither made, changed nor deleted by hand: that would lie."""
    delivery = send(make_target())
    row = delivery.event if model == "event" else delivery

    assert admin_client.get(reverse(f"admin:djwebhooks_{model}_add")).status_code == 403
    assert admin_client.post(page_of(row), {"name": "x"}).status_code == 403
    assert admin_client.post(page_of(row, "delete"), {"post": "yes"}).status_code == 403
    assert "Save" not in text_of(admin_client.get(page_of(row)))


def test_a_row_without_a_page_is_named_without_a_link() -> None:
    """An owner model that is not in the admin is no reason to break."""
    assert link_to(Lane(pk=1), "<b>") == "&lt;b&gt;"


def test_names_and_addresses_can_be_broken_between_their_parts() -> None:
    """So that a list fits its page; what is shown is the same, and escaped."""
    assert breakable("project.update") == "project.<wbr>update"
    assert breakable("https://a.b/c?d=e&f") == "https://a.<wbr>b/<wbr>c?<wbr>d=e&amp;<wbr>f"
    assert breakable("<b>") == "&lt;b&gt;"


# -- what nobody should type -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "query"),
    [
        ("webhooktarget", {"headers__authorization__startswith": "Bearer h"}),
        ("webhooktarget", {"headers__icontains": "h"}),
        ("webhooktarget", {"secrets__startswith": "g"}),
        ("event", {"call__contains": "h"}),
        ("delivery", {"event__call__contains": "h"}),
        ("delivery", {"target__headers__icontains": "h"}),
    ],
)
def test_what_is_hidden_cannot_be_guessed(model: str, query: dict[str, str]) -> None:
    """A list is not filtered by what its reader may not see."""
    client = make_staff(*(f"view_{name}" for name in LISTS))

    assert client.get(list_of(model), query).status_code == 400


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("webhooktarget", "target_url"),
        ("webhooktarget", "retry_schedule__\0"),
        ("webhooktarget", "state"),
        ("event", "name"),
        ("event", "progress"),
        ("delivery", "status__exact"),
        ("delivery", "target"),
    ],
)
def test_a_list_is_not_filtered_by_what_no_database_holds(model: str, name: str, admin_client: Client) -> None:
    """NUL, which PostgreSQL refuses, is a bad request."""
    assert admin_client.get(list_of(model), {name: "\0"}).status_code == 400
