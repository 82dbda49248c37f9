"""The admin pages: what they show, what they hide, who may do what, and what a list costs."""

import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import LazySettings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.db import connection
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from djwebhooks.admin import EventAdmin
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, Subscription, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.models.replays import make_criteria
from djwebhooks.pages import ACTION_LIMIT, BoundedPaginator, link_to, pretty
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request, Timing
from tests.builders import live_secrets

pytestmark = pytest.mark.django_db

URL = "https://receiver.example.com/hooks"
LISTS = ("webhooktarget", "event", "delivery")


# -- builders ----------------------------------------------------------------------------------------------------------


def make_owner(name: str = "ann") -> User:
    return User.objects.create_user(name)


def make_target(url: str = URL, *, owner: User | None = None, **fields: object) -> WebhookTarget:
    return WebhookTarget.objects.register(url, ["project.*"], owner=owner or make_owner(), **fields)


def make_staff(*permissions: str) -> Client:
    """A client of a staff member with these permissions and no others."""
    user = User.objects.create_user(f"staff {uuid.uuid4()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="djwebhooks", codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def send(target: WebhookTarget, answer: object = 200, payload: object = None) -> Delivery:
    """Fire an event and try once to deliver it to *target*."""
    event = fire("project.update", payload or {"title": "x"}, owner=target.owner)
    deliver(answer)
    return Delivery.objects.get(event=event, target=target)


def page_of(row: object, page: str = "change") -> str:
    return reverse(f"admin:djwebhooks_{row._meta.model_name}_{page}", args=[row.pk])


def list_of(model: str) -> str:
    return reverse(f"admin:djwebhooks_{model}_changelist")


def act(client: Client, row: object, name: str) -> HttpResponse:
    """Press a button of a row's page."""
    url = reverse(f"admin:djwebhooks_{row._meta.model_name}_act", args=[row.pk, name])
    return client.post(url, follow=True)


def act_on_list(client: Client, rows: Iterable[object], name: str) -> HttpResponse:
    """Run an action of the list."""
    rows = list(rows)
    data = {"action": name, "_selected_action": [row.pk for row in rows]}
    return client.post(list_of(rows[0]._meta.model_name), data, follow=True)


def fill_form(events: Iterable[str] = ("project.*",), **fields: object) -> dict[str, object]:
    """What the form of a target posts; its events are new ones."""
    form = {"target_url": URL, "owner": "", "identifier": "", "description": "", "is_active": "on", "envelope": ""}
    form |= {"headers": "", "retry_schedule": "", "rate_limit": "", "rate_period": "second", "concurrency_limit": ""}
    events = list(events)
    form |= {"subscriptions-TOTAL_FORMS": len(events), "subscriptions-INITIAL_FORMS": 0}
    form |= {f"subscriptions-{number}-event": name for number, name in enumerate(events)}
    return form | fields


def text_of(response: HttpResponse) -> str:
    """The page without its tags, with single spaces, and entities resolved as far as tests need it."""
    text = re.sub(r"<(style|script).*?</\1>", "", response.content.decode(), flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", text).replace("&quot;", '"').replace("&#x27;", "'")
    return re.sub(r"\s+", " ", text)


def add_target(client: Client, **fields: object) -> HttpResponse:
    return client.post(reverse("admin:djwebhooks_webhooktarget_add"), fill_form(**fields))


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


def count_queries(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in queries]


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


# -- secrets -----------------------------------------------------------------------------------------------------------


def list_pages(*rows: object) -> list[str]:
    """Every page of the admin that has to do with *rows*."""
    pages = [reverse("admin:index"), reverse("admin:app_list", args=["djwebhooks"])]
    pages += [list_of(model) for model in LISTS] + [list_of("webhooktarget") + "?kind=hidden&q=receiver"]
    for row in rows:
        pages += [page_of(row), page_of(row, "history")]
    return pages


def test_no_page_shows_a_secret(admin_client: Client) -> None:
    """After all that can be done with a target, neither its secrets nor their ciphertext are on any page."""
    add_target(admin_client, owner=make_owner().pk)
    target = WebhookTarget.objects.get()
    old_secret = target.secret
    delivery = send(target, 500)
    for name in ("test", "deactivate", "activate", "rotate-secret", "check-keys", "finish-rotation", "retry-failed"):
        act(admin_client, target, name)
    target.refresh_from_db()
    hidden = [old_secret, target.secret, target.secrets, *(key.pair for key in target.keyring.keys)]
    pages = [*list_pages(target, delivery, delivery.event), page_of(target, "delete")]
    shown = "".join(admin_client.get(page).content.decode() for page in pages)

    assert all(admin_client.get(page).status_code == 200 for page in pages)
    assert not [secret for secret in hidden if secret in shown]
    assert "whsec_" not in shown
    assert "whsk_" not in shown


def test_a_new_secret_is_shown_once(admin_client: Client) -> None:
    """The answer to the form shows the secret; it is kept in no cookie, no session and no history."""
    response = add_target(admin_client, owner=make_owner().pk)
    target = WebhookTarget.objects.get()
    kept = str(admin_client.cookies) + "".join(str(session.get_decoded()) for session in Session.objects.all())
    kept += "".join(LogEntry.objects.values_list("change_message", flat=True))

    assert target.secret in text_of(response)
    assert "no-store" in response["cache-control"]
    assert "whsec_" not in kept
    assert target.secret not in text_of(admin_client.get(page_of(target)))


def test_a_rotated_secret_is_shown_once_and_overlaps(admin_client: Client) -> None:
    """Rotating shows the new secret, while the old one signs for another day."""
    target = make_target()
    old = target.secret
    response = act(admin_client, target, "rotate-secret")
    target.refresh_from_db()
    now = timezone.now()

    assert target.secret != old
    assert target.secret in text_of(response)
    assert old not in text_of(response)
    assert live_secrets(target, now + timedelta(hours=23)) == [target.secret, old]
    assert live_secrets(target, now + timedelta(hours=25)) == [target.secret]
    assert "Rotated" in LogEntry.objects.get().change_message


def test_keys_are_checked_and_a_rotation_is_finished(admin_client: Client) -> None:
    """The page shows each key with what the receiver makes of it; only a key that was accepted ends the others."""
    target = make_target()
    act(admin_client, target, "rotate-secret")
    target.refresh_from_db()
    newest, oldest = target.keyring.keys
    before = text_of(admin_client.get(page_of(target)))
    assert all(key.id in before and key.public_key in before for key in (newest, oldest))
    assert "It is not known whether the receiver verifies signatures" in before
    assert "has not answered to the newest key alone" in text_of(act(admin_client, target, "finish-rotation"))

    act(admin_client, target, "check-keys")
    deliver(lambda request: Reply(request.key, status=200 if request.headers["webhook-sequence"] == "1" else 401))

    checked = text_of(admin_client.get(page_of(target)))
    assert "accepted alone" in checked
    assert "The receiver refuses what it cannot verify." in checked
    act(admin_client, target, "finish-rotation")
    after = text_of(admin_client.get(page_of(target)))
    assert newest.id in after
    assert oldest.id not in after
    assert "Finish rotation" not in after


@pytest.mark.parametrize(("status", "words"), [(401, "refused 20"), (200, "anybody may send to it in your name")])
def test_what_a_receiver_makes_of_keys_is_said(status: int, words: str, admin_client: Client) -> None:
    """That it lacks the newest key, or that it verifies nothing at all."""
    target = make_target()
    act(admin_client, target, "check-keys")
    deliver(status)

    assert words in text_of(admin_client.get(page_of(target)))


def test_keys_that_cannot_be_opened_say_so(admin_client: Client, settings: LazySettings) -> None:
    """The page of the target comes all the same, as what can be done about it is there."""
    target = make_target()
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["another"]

    assert "No key opens them: rotate the secret." in text_of(admin_client.get(page_of(target)))
    assert "No key of DJWEBHOOKS_ENCRYPTION_KEYS opens this secret." in text_of(act(admin_client, target, "check-keys"))


def test_secrets_of_many_targets_are_rotated_at_once(admin_client: Client) -> None:
    """The list's action shows each target's new secret beside its address."""
    owner = make_owner()
    targets = [make_target(f"{URL}/{number}", owner=owner) for number in range(2)]
    page = text_of(act_on_list(admin_client, targets, "rotate-secret"))

    for target in targets:
        target.refresh_from_db()
        assert f"{target.target_url} Rotated" in page
        assert target.secret in page


def test_a_secret_that_no_key_opens_can_be_replaced(admin_client: Client, settings: LazySettings) -> None:
    """Rotating is the way out of a lost key."""
    target = make_target()
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["another key, which does not open what the first one closed"]
    page = text_of(act(admin_client, target, "rotate-secret"))

    target.refresh_from_db()
    assert target.secret in page


# -- targets: list -----------------------------------------------------------------------------------------------------


def make_state(state: str) -> WebhookTarget:
    """A target in a state, alone among targets of all states."""
    now = timezone.now()
    lanes = {
        "healthy": {},
        "degraded": {"failure_count": 1, "failing_since": now},
        "suspended": {"held_until": now + timedelta(hours=1), "failure_count": 1},
        "disabled": {"disabled_at": now, "disabled_reason": "gone", "held_until": now + timedelta(hours=1)},
        "paused": {"disabled_at": now},
    }
    owner = make_owner()
    made = {}
    for name, fields in lanes.items():
        made[name] = make_target(f"{URL}/{name}", owner=owner, is_active=name != "paused")
        Lane.objects.update_or_create(target=made[name], defaults=fields)
    return made[state]


@pytest.mark.parametrize("state", ["healthy", "degraded", "suspended", "disabled", "paused"])
def test_targets_are_listed_and_filtered_by_their_state(state: str, admin_client: Client) -> None:
    """The filter by a state finds the very targets that are in it, and the list shows the word."""
    target = make_state(state)
    response = admin_client.get(list_of("webhooktarget"), {"state": state})

    assert target.state == state
    assert list(response.context["cl"].queryset) == [target]
    assert f">{state}</span>" in response.content.decode()


def test_a_target_without_a_lane_is_healthy(admin_client: Client) -> None:
    """Before its first event a target has no lane: it is healthy, or paused."""
    owner = make_owner()
    made = [make_target(URL, owner=owner), make_target(f"{URL}/2", owner=owner, is_active=False)]
    Lane.objects.all().delete()
    page = admin_client.get(list_of("webhooktarget")).content.decode()
    healthy = admin_client.get(list_of("webhooktarget"), {"state": "healthy"}).context["cl"].queryset

    assert ">healthy</span>" in page
    assert ">paused</span>" in page
    assert list(healthy) == made[:1]


def test_hidden_targets_are_listed_when_asked_for(admin_client: Client) -> None:
    """What fire(urls=…) made is not in the list, but under its filter."""
    fire("project.update", {}, owner=make_owner(), urls="https://hidden.example.com/")

    assert "hidden.example.com" not in text_of(admin_client.get(list_of("webhooktarget")))
    assert "hidden.example.com" in text_of(admin_client.get(list_of("webhooktarget"), {"kind": "hidden"}))


def test_a_target_is_found_by_address_identifier_and_owner(admin_client: Client) -> None:
    """The search looks at all that people know of a target."""
    target = make_target(owner=make_owner("beatrice"), identifier="p-42")
    make_target("https://other.example.org/", owner=make_owner("carl"))
    for words in ("receiver", "p-42", "beatr"):
        found = admin_client.get(list_of("webhooktarget"), {"q": words}).context["cl"].queryset

        assert list(found) == [target]


def test_the_list_of_targets_shows_owner_and_events(admin_client: Client) -> None:
    """A row says whose it is and what it wants; a system target is the system's."""
    make_target(owner=make_owner("beatrice")).subscriptions.create(event="invoice.paid")
    WebhookTarget.objects.register("https://audit.example.com/", ["*"], owner=None)
    page = text_of(admin_client.get(list_of("webhooktarget")))

    assert "beatrice invoice.paid, project.* healthy" in page
    assert "the system * healthy" in page
    assert text_of(admin_client.get(list_of("webhooktarget"), {"kind": "system"})).count("the system *") == 1


# -- targets: form -----------------------------------------------------------------------------------------------------


def test_a_target_is_made_with_its_events(admin_client: Client) -> None:
    """The form saves the target and the events of the inline."""
    owner = make_owner()
    add_target(
        admin_client, owner=owner.pk, events=["project.*", "invoice.paid"], headers='{"x-key": "1"}', retry_schedule="[5, 60]"
    )
    target = WebhookTarget.objects.get()

    assert target.owner == owner
    assert target.events == ["invoice.paid", "project.*"]
    assert target.headers == {"x-key": "1"}
    assert target.retry_schedule == [5, 60]


def test_an_event_that_is_there_is_not_added_twice(admin_client: Client) -> None:
    """A form that is sent twice, or from an old page, is told what is wrong with it."""
    target = make_target()
    form = fill_form(events=target.events, **{"subscriptions-0-target": target.pk})
    response = admin_client.post(page_of(target), form)

    assert response.status_code == 200
    assert f"The target is subscribed to '{target.events[0]}' already." in text_of(response)


def test_the_form_keeps_what_it_does_not_change(admin_client: Client) -> None:
    """Saving a page as it was shown changes nothing, and removes an event whose box is ticked."""
    target = make_target(headers={"x-key": "1"}, retry_schedule=[5])
    other = target.subscriptions.create(event="invoice.paid")
    shown = admin_client.get(page_of(target)).context["adminform"].form
    data = {name: value for name, value in shown.initial.items() if value is not None and not isinstance(value, bool)}
    data |= {"headers": json.dumps(target.headers), "retry_schedule": "[5]", "is_active": "on"}
    data |= {"subscriptions-TOTAL_FORMS": 2, "subscriptions-INITIAL_FORMS": 2}
    for number, subscription in enumerate(target.subscriptions.order_by("pk")):
        data |= {f"subscriptions-{number}-{name}": getattr(subscription, name) for name in ("id", "event")}
        data |= {f"subscriptions-{number}-target": target.pk}
        data |= {f"subscriptions-{number}-DELETE": "on"} if subscription == other else {}
    response = admin_client.post(page_of(target), data)
    saved = WebhookTarget.objects.get()

    assert response.status_code == 302
    assert (saved.target_url, saved.headers, saved.retry_schedule, saved.secrets) == (URL, {"x-key": "1"}, [5], target.secrets)
    assert saved.events == ["project.*"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"owner": "4711"}, "valid choice"),
        ({"target_url": "ftp://receiver.example.com/"}, "ftp"),
        ({"headers": '{"host": "x"}'}, "host"),
        ({"headers": "no json"}, "valid JSON"),
        ({"retry_schedule": '"soon"'}, "soon"),
        ({"retry_schedule": "[0, 0, 0, 0, 0, 0]"}, "6 pauses of less than a second"),
        ({"concurrency_limit": "0"}, "at least 1"),
        ({"events": ["project..update"]}, "project..update"),
        ({"events": ["a.b", "a.b"]}, "duplicate"),
    ],
)
def test_the_form_says_what_cannot_be(fields: dict[str, object], message: str, admin_client: Client) -> None:
    """A wrong value is shown with its reason, and nothing is saved."""
    response = add_target(admin_client, **{"owner": make_owner().pk, **fields})

    assert response.status_code == 200
    assert message in text_of(response)
    assert not WebhookTarget.objects.exists()


@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_second_target_of_the_same_kind_is_refused(is_hidden: bool, admin_client: Client) -> None:
    """One owner, URL and identifier is one target: the form links to it, also when it is hidden."""
    target = make_target(is_hidden=is_hidden)
    response = add_target(admin_client, owner=target.owner.pk)

    assert "This owner has a target already" in text_of(response)
    assert ("made by fire(urls=…)" in text_of(response)) == is_hidden
    assert page_of(target) in response.content.decode()


def test_a_hidden_target_that_is_given_events_is_listed(admin_client: Client) -> None:
    """Whoever subscribes a hidden target wants to see it."""
    target = WebhookTarget.objects.direct(URL, make_owner())
    admin_client.post(page_of(target), fill_form(owner=target.owner.pk, events=[]))
    still_hidden = WebhookTarget.objects.get().is_hidden
    admin_client.post(page_of(target), fill_form(owner=target.owner.pk))

    assert still_hidden
    assert not WebhookTarget.objects.get().is_hidden


def test_a_popup_adds_a_target(admin_client: Client) -> None:
    """In a popup the opener gets the new target."""
    response = add_target(admin_client, owner=make_owner().pk, _popup="1")

    assert WebhookTarget.objects.count() == 1
    assert "whsec_" not in text_of(response)


# -- targets: the system's own -----------------------------------------------------------------------------------------


def test_a_system_target_needs_a_tick(admin_client: Client) -> None:
    """Without an owner, the box must be ticked; with one, it must not."""
    refused = add_target(admin_client)
    contradictory = add_target(admin_client, owner=make_owner().pk, is_system="on")
    count = WebhookTarget.objects.count()
    add_target(admin_client, is_system="on")

    assert "sees every owner's events" in text_of(refused)
    assert "A system target has no owner" in text_of(contradictory)
    assert count == 0
    assert WebhookTarget.objects.get().owner is None


def test_a_system_target_needs_a_permission() -> None:
    """Who lacks it sees no box, and ticking it all the same helps nothing."""
    client = make_staff("add_webhooktarget", "view_webhooktarget")
    form = client.get(reverse("admin:djwebhooks_webhooktarget_add"))
    response = add_target(client, is_system="on")

    assert "System target" not in text_of(form)
    assert "Choose the owner" in text_of(response)
    assert not WebhookTarget.objects.exists()


def test_an_owners_target_needs_no_more_than_the_usual_permission() -> None:
    """Whoever may add targets may add one for an owner."""
    client = make_staff("add_webhooktarget")
    response = add_target(client, owner=make_owner().pk)

    assert WebhookTarget.objects.get().secret in text_of(response)


def test_a_system_target_is_changed_only_with_its_permission() -> None:
    """Who may change targets, but not make system targets, only looks at these."""
    target = WebhookTarget.objects.register(URL, ["*"], owner=None)
    client = make_staff("change_webhooktarget", "delete_webhooktarget", "view_webhooktarget")
    page = client.get(page_of(target))

    assert page.status_code == 200
    assert "Rotate secret" not in text_of(page)
    assert client.post(page_of(target), fill_form()).status_code == 403
    assert client.post(page_of(target, "delete"), {"post": "yes"}).status_code == 403
    assert act(client, target, "rotate-secret").status_code == 403
    assert "do not have the permission" in text_of(act_on_list(client, [target], "deactivate"))
    assert WebhookTarget.objects.get().is_active


def test_an_owner_is_not_taken_away_without_the_permission() -> None:
    """A target of an owner's cannot be made into the system's by emptying a field."""
    target = make_target()
    client = make_staff("change_webhooktarget")

    assert client.post(page_of(target), fill_form(events=[], is_system="on")).status_code == 302
    assert WebhookTarget.objects.get().owner == target.owner


def test_an_owner_never_changes(admin_client: Client) -> None:
    """Another one, or the system, would show what was sent before; the page shows the owner, and offers no other."""
    target = make_target()
    response = admin_client.get(page_of(target))
    for fields in ({"owner": make_owner("bob").pk}, {"is_system": "on"}):
        assert admin_client.post(page_of(target), fill_form(events=[], **fields)).status_code == 302

    assert {"owner", "is_system"}.isdisjoint(response.context["adminform"].form.fields)
    assert reverse("admin:auth_user_change", args=[target.owner.pk]) in response.content.decode()
    assert WebhookTarget.objects.get().owner == target.owner


def test_a_system_target_stays_the_systems(admin_client: Client) -> None:
    """Its page says whose it is, and can be saved as it is shown."""
    target = WebhookTarget.objects.register(URL, ["*"], owner=None)

    assert "the system" in text_of(admin_client.get(page_of(target)))
    assert admin_client.post(page_of(target), fill_form(owner=make_owner().pk)).status_code == 302
    assert WebhookTarget.objects.get().owner is None


# -- targets: actions --------------------------------------------------------------------------------------------------


def test_a_test_event_is_sent(admin_client: Client) -> None:
    """The button fires a test event for this target and links to it."""
    target = make_target()
    response = act(admin_client, target, "test")
    event = Event.objects.get()

    assert event.direct_targets == [target.pk]
    assert page_of(event) in response.content.decode()


def test_a_target_is_deactivated_and_activated(admin_client: Client) -> None:
    """Each button is offered when it has something to do, and history tells who pressed it."""
    target = make_target()
    offered = text_of(admin_client.get(page_of(target)))
    deactivated = text_of(act(admin_client, target, "deactivate"))
    was_active = WebhookTarget.objects.get().is_active
    activated = text_of(act(admin_client, target, "activate"))

    assert "Deactivate" in offered
    assert "Activate" not in offered
    assert not was_active
    assert "Deactivated: events are held." in deactivated
    assert WebhookTarget.objects.get().is_active
    assert "Deactivate" in activated
    assert "Deactivated: events are held." in text_of(admin_client.get(page_of(target, "history")))


def test_a_disabled_target_says_why_and_is_activated(admin_client: Client) -> None:
    """Activating forgets that it was disabled."""
    target = make_state("disabled")
    page = text_of(admin_client.get(page_of(target)))
    act(admin_client, target, "activate")

    assert "disabled it was disabled" in page
    assert WebhookTarget.objects.get(pk=target.pk).state == "healthy"


def test_a_degraded_target_says_since_when(admin_client: Client) -> None:
    """The page counts the failures since the last success."""
    assert "since the last success: 1" in text_of(admin_client.get(page_of(make_state("degraded"))))


def test_failed_deliveries_are_retried(admin_client: Client) -> None:
    """All failed deliveries of the target are tried again, and no others."""
    target = make_target(retry_schedule=[])
    failed, succeeded = send(target, 500), send(target, 200)
    page = text_of(act(admin_client, target, "retry-failed"))
    requests = deliver()

    assert "sent again: 1" in page
    assert [request.headers["webhook-id"] for request in requests] == [str(failed.event.uid)]
    assert succeeded.attempts.count() == 1


def test_actions_of_the_list_count_what_they_did(admin_client: Client) -> None:
    """Many targets are told of in one sentence, and each has its line in the history."""
    owner = make_owner()
    targets = [make_target(f"{URL}/{number}", owner=owner) for number in range(3)]
    page = text_of(act_on_list(admin_client, targets, "deactivate"))

    assert "Deactivate: done for 3 webhook targets." in page
    assert not WebhookTarget.objects.filter(is_active=True).exists()
    assert LogEntry.objects.count() == 3


def test_actions_of_the_list_are_bounded(admin_client: Client) -> None:
    """Choosing all of a huge list changes nothing but says what to do."""
    Delivery.objects.bulk_create([Delivery(event_id=-1, target_id=-1 - number, sequence=1) for number in range(ACTION_LIMIT + 1)])
    data = {"action": "cancel", "_selected_action": [Delivery.objects.latest("pk").pk], "select_across": "1"}
    page = text_of(admin_client.post(list_of("delivery"), data, follow=True))

    assert f"at most {ACTION_LIMIT}" in page
    assert not Delivery.objects.exclude(status=Status.PENDING).exists()


@pytest.mark.parametrize(
    "name", ["test", "activate", "deactivate", "rotate-secret", "check-keys", "finish-rotation", "retry-failed"]
)
def test_who_may_only_look_cannot_act_on_targets(name: str) -> None:
    """Neither a page nor the list offers an action, and a forged request is refused."""
    target = make_target()
    client = make_staff("view_webhooktarget")
    act_on_list(client, [target], name)

    assert act(client, target, name).status_code == 403
    assert "Rotate" not in text_of(client.get(page_of(target)))
    assert "Rotate" not in text_of(client.get(list_of("webhooktarget")))
    assert not LogEntry.objects.exists()
    assert not Event.objects.exists()


def test_who_may_only_look_sees_no_values_of_headers() -> None:
    """A header may hold a password of the receiver's."""
    target = make_target(headers={"authorization": "Bearer hunter2"})
    page = text_of(make_staff("view_webhooktarget").get(page_of(target)))

    assert "authorization" in page
    assert "hunter2" not in page
    assert "project.*" in page


def test_buttons_take_posts_only(admin_client: Client) -> None:
    """A link that somebody follows does nothing."""
    url = reverse("admin:djwebhooks_webhooktarget_act", args=[make_target().pk, "deactivate"])

    assert admin_client.get(url).status_code == 405
    assert WebhookTarget.objects.get().is_active


def test_buttons_are_protected_against_forged_requests(admin_user: User) -> None:
    """A post without the page's token is refused."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)

    assert act(client, make_target(), "deactivate").status_code == 403
    assert WebhookTarget.objects.get().is_active


def test_unknown_rows_and_actions_are_not_found(admin_client: Client) -> None:
    """There is nothing else to do with a target, and nothing to do with a missing one."""
    target = make_target()

    assert act(admin_client, target, "explode").status_code == 404
    assert act(admin_client, WebhookTarget(pk=target.pk + 1), "test").status_code == 404


# -- targets: deleting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_list", [False, True])
def test_a_deleted_target_leaves_its_deliveries(by_list: bool, admin_client: Client) -> None:
    """Deliveries stay as a log; what waited is cancelled."""
    target = make_target()
    succeeded, waiting = send(target, 200), send(target, 500)
    if by_list:
        data = {"action": "delete_selected", "_selected_action": [target.pk], "post": "yes"}
        admin_client.post(list_of("webhooktarget"), data)
    else:
        admin_client.post(page_of(target, "delete"), {"post": "yes"})
    succeeded.refresh_from_db()
    waiting.refresh_from_db()

    assert not WebhookTarget.objects.exists()
    assert not Subscription.objects.exists()
    assert (succeeded.status, waiting.status, waiting.reason) == (Status.SUCCEEDED, Status.CANCELLED, "target_deleted")


def test_asking_whether_to_delete_loads_no_deliveries(admin_client: Client) -> None:
    """The question costs the same with a million deliveries."""
    target = make_target()
    send(target)
    queries = count_queries(admin_client, page_of(target, "delete"))

    assert not [sql for sql in queries if "djw_delivery" in sql or "djw_attempt" in sql]


# -- events ------------------------------------------------------------------------------------------------------------


def test_an_event_shows_its_payload_and_what_became_of_it(admin_client: Client) -> None:
    """The payload has a line for each part, and every status links to its deliveries."""
    delivery = send(make_target(), payload={"title": "Café <b>"})
    response = admin_client.get(page_of(delivery.event))

    assert "{\n  &quot;title&quot;: &quot;Café &lt;b&gt;&quot;\n}" in response.content.decode()
    assert "succeeded 1 · all 1" in text_of(response)
    assert f"?event={delivery.event_id}&amp;status__exact=succeeded" in response.content.decode()


def test_the_captured_call_of_an_event_is_neither_shown_nor_read(admin_client: Client) -> None:
    """It may hold whatever an argument has, a user's password hash included."""
    event = Event.objects.create(name="user.update", hook="app.hooks.user_updated", call="pbkdf2_sha256$hash")
    pages = [list_of("event"), page_of(event)]
    queries = [sql for page in pages for sql in count_queries(admin_client, page)]

    assert "pbkdf2" not in "".join(admin_client.get(page).content.decode() for page in pages)
    assert not [sql for sql in queries if re.search(r"djw_event\W+call\b", sql)]


def test_an_event_shows_why_its_payload_cannot_be_built(admin_client: Client) -> None:
    """The traceback stands as it is, for staff to read."""
    error = 'Traceback (most recent call last):\n  File "hooks.py", line 1\nValueError: <no>'
    event = Event.objects.create(name="a.b", hook="app.hooks.a", build_attempts=BUILD_TRIES, build_error=error)
    response = admin_client.get(page_of(event))

    assert "ValueError: &lt;no&gt;</pre>" in response.content.decode()
    assert "build failed" in text_of(response)
    assert "app.hooks.a" in text_of(response)


def test_an_event_of_a_deleted_owner_is_shown(admin_client: Client) -> None:
    """Deleting an owner leaves the events, which say whose they were."""
    owner = make_owner()
    event = fire("user.deleted", {}, owner=owner)
    owner_pk = owner.pk
    owner.delete()

    assert f"deleted owner #{owner_pk}" in text_of(admin_client.get(list_of("event")))
    assert f"deleted owner #{owner_pk}" in text_of(admin_client.get(page_of(event)))


@pytest.mark.parametrize(
    ("progress", "word", "fields"),
    [
        ("waiting", "waiting", {}),
        ("waiting", "planned", {"deliver_at": datetime(2999, 1, 1, tzinfo=UTC)}),
        ("dispatched", "dispatched", {"dispatched_at": datetime(2026, 1, 1, tzinfo=UTC), "payload": "{}"}),
        ("build failing", "build failing", {"build_attempts": 1, "build_error": "ValueError"}),
        ("build failed", "build failed", {"build_attempts": BUILD_TRIES, "build_error": "ValueError"}),
    ],
)
def test_events_are_listed_and_filtered_by_progress(
    progress: str, word: str, fields: dict[str, object], admin_client: Client
) -> None:
    """The list says in a word how far an event has come."""
    Event.objects.create(name="a.b", **fields)

    assert f">{word}</span>" in admin_client.get(list_of("event"), {"progress": progress}).content.decode()


def test_an_event_that_nobody_wants_says_so(admin_client: Client) -> None:
    """Before it is dispatched, nobody knows."""
    event = fire("a.b", {})
    before = text_of(admin_client.get(page_of(event)))
    deliver()

    assert "none yet" in before
    assert "nobody wants it" in text_of(admin_client.get(page_of(event)))


def test_an_event_is_found_by_uid_and_by_the_beginning_of_its_name(admin_client: Client) -> None:
    """The search needs no more than what a receiver knows."""
    event = fire("project.update", {})
    fire("invoice.paid", {})
    for words in (str(event.uid), "project"):
        found = admin_client.get(list_of("event"), {"q": words}).context["cl"].queryset

        assert list(found) == [event]


# -- deliveries --------------------------------------------------------------------------------------------------------


def answer_with_html(request: Request) -> Reply:
    body = b"<script>alert(1)</script>"
    timing = Timing(lookup_ms=31, connect_ms=None, tls_ms=0, first_byte_ms=57)
    return Reply(request.key, 500, {"server": "<nginx>"}, body, duration=0.1234, address="93.184.216.34", timing=timing)


def test_a_delivery_shows_what_was_sent_and_answered(admin_client: Client) -> None:
    """The exact bytes, the headers that identify it, and each attempt with its answer, escaped."""
    delivery = send(make_target(), answer_with_html, payload={"title": "x"})
    body = bytes(Body.objects.get().content).decode()
    response = admin_client.get(page_of(delivery))
    page = text_of(response)

    assert body in page
    assert '"data": { "title": "x" }' in page
    assert f"webhook-id: {delivery.event.uid} webhook-sequence: 1 webhook-attempt: 1" in page
    assert f"{URL} 93.184.216.34 500" in page
    assert "0.123 s lookup 31 ms TLS 0 ms first byte 57 ms" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in response.content.decode()
    assert "server: &lt;nginx&gt;" in response.content.decode()
    assert "<script>alert(1)" not in response.content.decode()


def test_an_attempt_without_an_answer_shows_its_error(admin_client: Client) -> None:
    """The word and the sentence stand where a status would."""
    delivery = send(make_target(), lambda request: Reply(request.key, error="dns_error", detail="No such name."))

    assert "dns_error No such name." in text_of(admin_client.get(page_of(delivery)))


def test_a_delivery_says_why_it_waits(admin_client: Client) -> None:
    """A pending delivery explains itself; a finished one shows its reason."""
    target = make_target(retry_schedule=[3600])
    delivery = send(target, 500)
    waiting = text_of(admin_client.get(page_of(delivery)))
    delivery.cancel()

    assert "Tried again after http_500" in waiting
    assert "Why: cancelled" in text_of(admin_client.get(page_of(delivery)))


def test_a_delivery_that_was_not_tried_has_no_body_yet(admin_client: Client) -> None:
    """The bytes are made before the first attempt."""
    target = make_target(is_active=False)
    page = text_of(admin_client.get(page_of(send(target))))

    assert "not written yet" in page
    assert "webhook-attempt: none yet" in page
    assert "paused" in page


def test_a_targets_sender_is_chosen_among_those_of_the_setting(admin_client: Client, settings: LazySettings) -> None:
    """One that is gone stays what it is until somebody chooses, and its bodies are shown all the same."""
    settings.DJWEBHOOKS_SENDERS = {"form": "djwebhooks.senders.FormSender"}
    target = make_target(owner=make_owner(), sender="form")
    delivery = send(target)
    page = text_of(admin_client.get(page_of(delivery)))
    settings.DJWEBHOOKS_SENDERS = {"other": "djwebhooks.senders.Sender"}

    form = admin_client.get(page_of(target)).content.decode()
    later = text_of(admin_client.get(page_of(delivery)))

    assert "as application/x-www-form-urlencoded in the format sender:form+owner" in page
    assert '<option value="form" selected>form</option>' in form
    assert '<option value="other">other</option>' in form
    assert "as an unknown type in the format sender:form+owner" in later


@pytest.mark.parametrize("envelope", ["standard", "flat"])
def test_a_delivery_shows_the_body_of_its_targets_format(envelope: str, admin_client: Client) -> None:
    """Of an event's bodies, only the one that this target gets is shown; all of them when the target is gone."""
    owner = make_owner()
    target = make_target(owner=owner, envelope=envelope)
    make_target(f"{URL}/2", owner=owner, envelope="cloudevents")
    delivery = send(target)
    mine = text_of(admin_client.get(page_of(delivery)))
    target.delete()
    every = text_of(admin_client.get(page_of(delivery)))

    assert f"in the format {envelope}" in mine
    assert "cloudevents" not in mine
    assert f"in the format {envelope}" in every
    assert "cloudevents" in every


def test_a_delivery_outlives_its_event_and_its_target(admin_client: Client) -> None:
    """Lists, pages and actions say what is gone instead of breaking."""
    delivery = Delivery.objects.create(event_id=4711, target_id=4712, sequence=1)
    Attempt.objects.create(delivery=delivery, number=1, trigger="event", url=URL, started_at=timezone.now(), duration=0)
    shown = [text_of(admin_client.get(url)) for url in (list_of("delivery"), page_of(delivery))]
    filtered = text_of(admin_client.get(list_of("delivery"), {"target": 4712, "event": 4711}))
    retried = text_of(act(admin_client, delivery, "retry"))

    assert all("deleted event #4711" in page and "deleted target #4712" in page for page in [*shown, filtered])
    assert "its target was deleted" in retried


def test_deliveries_are_filtered_by_event_target_and_status(admin_client: Client) -> None:
    """The links of other pages lead to the very deliveries."""
    owner = make_owner()
    first, second = make_target(owner=owner), make_target(f"{URL}/2", owner=owner)
    event = send(first).event
    other = send(first, 500).event
    queries = [
        ({"event": event.pk}, {(event, first), (event, second)}),
        ({"target": second.pk}, {(event, second), (other, second)}),
        ({"target": second.pk, "status__exact": "pending"}, {(other, second)}),
    ]
    for query, expected in queries:
        response = admin_client.get(list_of("delivery"), query)

        assert {(delivery.event, delivery.target) for delivery in response.context["cl"].queryset} == expected
    assert "By target" in text_of(response)
    assert "By event" not in text_of(response)


@pytest.mark.parametrize("value", ["x", "-1", "1e3", "9" * 30, "²"])
def test_a_filter_with_a_wrong_number_is_refused(value: str, admin_client: Client) -> None:
    """The admin's own answer to a wrong link, not a crash."""
    assert admin_client.get(list_of("delivery"), {"event": value})["location"].endswith("?e=1")


def test_a_delivery_is_found_by_its_own_uid_and_its_events(admin_client: Client) -> None:
    """The search takes a delivery's uid or a webhook-id; nothing else is the name of one."""
    target = make_target()
    delivery, _ = send(target), send(target)
    for words, expected in ((str(delivery.uid), [delivery]), (delivery.event.uid.hex, [delivery]), ("project.update", [])):
        found = admin_client.get(list_of("delivery"), {"q": words}).context["cl"].queryset

        assert list(found) == expected


def test_a_targets_deliveries_are_listed_by_its_own_sequence(admin_client: Client) -> None:
    """The latest of its lane stands first, found by the index of sequences."""
    target = make_target()
    first, second = send(target), send(target)
    found = admin_client.get(list_of("delivery"), {"target": target.pk}).context["cl"].queryset

    assert list(found) == [second, first]
    assert found.query.order_by[0] == "-sequence"


def test_a_delivery_is_cancelled_and_retried(admin_client: Client) -> None:
    """Both buttons do what they say; cancelling is offered only while it waits."""
    delivery = send(make_target(), 500)
    cancelled = text_of(act(admin_client, delivery, "cancel"))
    delivery.refresh_from_db()
    status = delivery.status
    act(admin_client, delivery, "retry")
    delivery.refresh_from_db()

    assert status == Status.CANCELLED
    assert "Cancelled." in cancelled
    assert "Cancel " not in cancelled.replace("Cancelled", "")
    assert delivery.status == Status.PENDING
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")] == [
        "Cancelled.",
        "It is tried again as soon as a worker can.",
    ]


def test_deliveries_are_cancelled_and_retried_from_the_list(admin_client: Client) -> None:
    """What cannot be done to one is told, and done to the others."""
    target = make_target()
    waiting, succeeded = send(target, 500), send(target, 200)
    page = text_of(act_on_list(admin_client, [waiting, succeeded], "cancel"))
    statuses = set(Delivery.objects.values_list("status", flat=True))
    act_on_list(admin_client, [waiting, succeeded], "retry")

    assert f"delivery {succeeded.uid}: It cannot be cancelled: it has ended already." in page
    assert "Cancelled." in page
    assert statuses == {Status.CANCELLED, Status.SUCCEEDED}
    assert not Delivery.objects.exclude(status=Status.PENDING).exists()


@pytest.mark.parametrize("name", ["retry", "cancel"])
def test_who_may_only_look_cannot_act_on_deliveries(name: str) -> None:
    """Neither button nor action, whatever is posted."""
    delivery = send(make_target(), 500)
    client = make_staff("view_delivery")
    act_on_list(client, [delivery], name)

    assert act(client, delivery, name).status_code == 403
    assert 'action="' + page_of(delivery).replace("change", "act") not in client.get(page_of(delivery)).content.decode()
    assert "Action:" not in text_of(client.get(list_of("delivery")))
    assert Delivery.objects.get().reason == "http_500"


@pytest.mark.parametrize(("name", "status"), [("retry", Status.PENDING), ("cancel", Status.CANCELLED)])
def test_deliveries_to_the_system_need_its_permission(name: str, status: str) -> None:
    """Who may change deliveries, but not touch the system's targets, only looks at those to them."""
    system = WebhookTarget.objects.register(URL, ["project.*"], owner=None, retry_schedule=[] if name == "retry" else None)
    delivery = send(system, 500)
    before = delivery.status
    staff = make_staff("view_delivery", "change_delivery")
    page = staff.get(page_of(delivery)).content.decode()

    assert 'action="' + page_of(delivery).replace("change", "act") not in page
    assert act(staff, delivery, name).status_code == 403
    assert "do not have the permission" in text_of(act_on_list(staff, [delivery], name))
    assert Delivery.objects.get().status == before != status
    act(make_staff("view_delivery", "change_delivery", "add_system_target"), delivery, name)
    assert Delivery.objects.get().status == status


def test_deliveries_to_an_owner_need_no_more_than_the_usual_permission() -> None:
    """Whoever may change deliveries cancels them."""
    delivery = send(make_target(), 500)
    act(make_staff("view_delivery", "change_delivery"), delivery, "cancel")

    assert Delivery.objects.get().status == Status.CANCELLED


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


def test_what_is_not_json_is_shown_as_it_is() -> None:
    """A text that cannot be laid out is still worth seeing."""
    assert pretty('{"a":1}') == '{\n  "a": 1\n}'
    assert pretty("{broken") == "{broken"


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


@pytest.mark.parametrize("field", ["headers", "retry_schedule"])
@pytest.mark.parametrize(
    "text",
    [
        "1" * 5000,
        "[" * 100_000,
        "[" * 500 + "]" * 500,
        '{"x": ' * 500 + "1" + "}" * 500,
        '["\\ud800"]',
        '{"x": "\\ud800"}',
        '{"\\ud800": "x"}',
        '{"x": "\\u0000"}',
        "[NaN]",
        "[1e400]",
    ],
    ids=lambda text: text[:12],
)
def test_json_that_cannot_be_kept_is_refused(field: str, text: str, admin_client: Client) -> None:
    """The form comes back with what was typed, when a target is added and when it is changed."""
    target = make_target()
    added = add_target(admin_client, owner=target.owner.pk, identifier="new", **{field: text})
    changed = admin_client.post(page_of(target), fill_form(events=[], **{field: text}))

    for response in (added, changed):
        form = response.context["adminform"].form
        assert form.errors
        assert form[field].value() == text
    assert WebhookTarget.objects.count() == 1


def test_a_report_of_an_error_does_not_show_new_secrets(admin_client: Client) -> None:
    """What a page with secrets is made of does not show them."""
    target = make_target()
    added = add_target(admin_client, owner=target.owner.pk, identifier="new")
    rotated = act(admin_client, target, "rotate-secret")

    for response in (added, rotated):
        assert "whsec_" in text_of(response)
        assert "whsec_" not in repr(response.context["done"])


# -- replays -----------------------------------------------------------------------------------------------------------

REPLAY_FORM = {"targets": "", "owner": "", "status": ["failed"], "since": "", "until": "", "event": "", "rate": ""}
ADD_REPLAY = "/admin/djwebhooks/replay/add/"


def make_failures(count: int = 1) -> WebhookTarget:
    """Return a target to which so many deliveries failed."""
    target = make_target(retry_schedule=[])
    for _ in range(count):
        send(target, 500)
    return target


def test_a_replay_is_counted_and_then_started(admin_client: Client, admin_user: User) -> None:
    """The form says how many deliveries there are and keeps what was typed; then it leads to the replay's page."""
    target = make_failures(2)
    form = REPLAY_FORM | {"targets": str(target.uid), "event": "project.*", "rate": "5", "since": "2026-01-01T00:00"}
    counted = admin_client.post(ADD_REPLAY, form | {"_count": "1"}, follow=True)

    assert "Deliveries that would be sent again: 2." in text_of(counted)
    assert 'value="project.*"' in counted.content.decode()
    assert 'value="2026-01-01T00:00"' in counted.content.decode()
    assert not Replay.objects.exists()
    started = admin_client.post(ADD_REPLAY, form, follow=True)
    replay = Replay.objects.get()
    assert "Deliveries that are sent again: 2." in text_of(started)
    assert "failed deliveries to target" in text_of(started)
    assert (replay.requested_by, replay.requester_pk, replay.requested_through) == ("admin", str(admin_user.pk), "admin")
    assert (replay.rate, replay.criteria.event, replay.criteria.targets) == (5, "project.*", (str(target.uid),))
    assert len(deliver(200)) == 2
    page = text_of(admin_client.get(page_of(replay)))
    assert "2 of 2" in page
    assert "succeeded 2" in page


def test_a_count_says_what_is_left_out(admin_client: Client) -> None:
    """With the reason."""
    target = make_failures(2)
    Event.objects.filter(pk=Event.objects.earliest("pk").pk).update(expires_at=timezone.now())
    form = REPLAY_FORM | {"owner": str(target.owner.pk), "_count": "1"}

    counted = text_of(admin_client.post(ADD_REPLAY, form, follow=True))

    assert "Deliveries that would be sent again: 1; 1 left out: their events have expired." in counted


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of targets, owner and everybody"),
        ({"targets": "x"}, "There is no target with the uid &#x27;x&#x27;."),
        ({"everybody": "on", "status": []}, "This field is required."),
        ({"everybody": "on", "event": "no name"}, "is neither the name of an event"),
        ({"everybody": "on", "rate": "0"}, "The rate is a number of deliveries per second"),
    ],
)
@pytest.mark.parametrize("button", ["_save", "_count"])
def test_a_replay_that_cannot_be_is_refused(admin_client: Client, button: str, fields: dict[str, object], message: str) -> None:
    """The form says what is wrong, and nothing is replayed."""
    response = admin_client.post(ADD_REPLAY, REPLAY_FORM | fields | {button: "1"})

    assert message in response.content.decode()
    assert not Replay.objects.exists()


def test_only_who_may_replays_for_everybody(admin_client: Client) -> None:
    """It takes a permission of its own, whatever is posted."""
    make_failures()
    form = REPLAY_FORM | {"everybody": "on"}
    staff = make_staff("add_replay", "view_replay")
    assert "everybody" not in staff.get(ADD_REPLAY).content.decode().lower().replace("everybody=true", "")
    assert "give one of targets" in staff.post(ADD_REPLAY, form).content.decode()
    assert not Replay.objects.exists()

    admin_client.post(ADD_REPLAY, form)
    assert Replay.objects.get().count == 1


@pytest.mark.parametrize("button", ["_save", "_count"])
def test_a_replay_to_the_system_needs_its_permission(button: str) -> None:
    """Neither form nor link leads there without it, not even beside an owner's target."""
    system = WebhookTarget.objects.register(f"{URL}/system", ["project.*"], owner=None, retry_schedule=[])
    target = make_failures()
    form = REPLAY_FORM | {"targets": f"{target.uid} {system.uid}", button: "1"}
    permissions = ("add_replay", "view_replay", "view_webhooktarget")
    staff, allowed = make_staff(*permissions), make_staff(*permissions, "add_system_target")
    response = staff.post(ADD_REPLAY, form)

    assert f"Target {system.uid} is the system&#x27;s" in response.content.decode()
    assert not Replay.objects.exists()
    assert "Replay deliveries…" not in text_of(staff.get(page_of(system)))
    assert "Replay deliveries…" in text_of(staff.get(page_of(target)))
    assert "Replay deliveries…" in text_of(allowed.get(page_of(system)))
    assert ": 2." in text_of(allowed.post(ADD_REPLAY, form, follow=True))


def test_a_replay_for_everybody_leaves_out_the_system() -> None:
    """Unless the one who asks may touch it; the count says the same, and the replay's page tells of it."""
    WebhookTarget.objects.register(f"{URL}/system", ["project.*"], owner=None, retry_schedule=[])
    make_failures()
    form = REPLAY_FORM | {"everybody": "on"}
    permissions = ("add_replay", "view_replay", "replay_everybody")
    staff, allowed = make_staff(*permissions), make_staff(*permissions, "add_system_target")

    assert "would be sent again: 1." in text_of(staff.post(ADD_REPLAY, form | {"_count": "1"}, follow=True))
    assert "would be sent again: 2." in text_of(allowed.post(ADD_REPLAY, form | {"_count": "1"}, follow=True))
    page = text_of(staff.post(ADD_REPLAY, form, follow=True)).replace("&#x27;", "'")
    assert "failed deliveries to everybody's targets but the system's" in page
    assert [request.url for request in deliver(500)] == [URL]
    allowed.post(ADD_REPLAY, form)
    assert {request.url for request in deliver(500)} == {URL, f"{URL}/system"}


def test_replays_need_permissions(admin_client: Client) -> None:
    """To start one, to cancel one, and to see them."""
    target = make_failures()
    target.replay()
    replay = Replay.objects.get()
    viewer, starter = make_staff("view_replay", "view_webhooktarget"), make_staff("add_replay")

    assert viewer.get(list_of("replay")).status_code == 200
    assert viewer.get(ADD_REPLAY).status_code == 403
    assert viewer.post(ADD_REPLAY, REPLAY_FORM | {"_count": "1", "targets": str(target.uid)}).status_code == 403
    assert act(viewer, replay, "cancel").status_code == 403
    assert "Replay deliveries" not in viewer.get(page_of(target)).content.decode()
    assert starter.get(list_of("replay")).status_code == 403
    assert starter.get(ADD_REPLAY).status_code == 200
    assert Replay.objects.get().state == "running"


def test_a_replay_can_be_cancelled(admin_client: Client) -> None:
    """Once; the page says by whom."""
    target = make_failures()
    target.replay()
    replay = Replay.objects.get()

    assert "Cancelled: what was not sent yet is as it was before." in text_of(act(admin_client, replay, "cancel"))
    assert "There is nothing left to cancel." in text_of(act(admin_client, replay, "cancel"))
    page = admin_client.get(page_of(replay))
    assert "ago) by admin" in text_of(page)
    assert ">Cancel<" not in page.content.decode()


def test_targets_lead_to_the_form_of_a_replay(admin_client: Client) -> None:
    """From a target's page, and from the list for several."""
    first, second = make_target(), make_target(f"{URL}/second", owner=make_owner("bob"))
    link = re.search(r'href="(/admin/djwebhooks/replay/add/[^"]+)"', admin_client.get(page_of(first)).content.decode())
    assert link is not None
    assert str(first.uid) in admin_client.get(link[1]).content.decode()
    form = act_on_list(admin_client, [first, second], "replay").content.decode()

    assert str(first.uid) in form
    assert str(second.uid) in form


def test_who_sent_again_is_shown(admin_client: Client) -> None:
    """A delivery's page names who wanted it, and the list of replays has retries of single ones, too."""
    target = make_failures()
    delivery = Delivery.objects.get()
    assert "Retried" not in text_of(admin_client.get(page_of(delivery)))
    act(admin_client, delivery, "retry")
    act(admin_client, target, "retry-failed")

    assert "Retried by admin through the admin" in text_of(admin_client.get(page_of(delivery)))
    rows = text_of(admin_client.get(list_of("replay")))
    assert f"delivery {delivery.uid}" in rows
    assert "retried" in rows
    assert text_of(admin_client.get(list_of("replay") + "?q=adm")).count("through the admin") == 2
    retry = Replay.objects.get(is_retry=True)
    assert "at once" in text_of(admin_client.get(page_of(retry)))
    assert text_of(admin_client.get(f"{list_of('replay')}?q={retry.uid}")).count("through the admin") == 1
    assert text_of(admin_client.get(f"{list_of('replay')}?state=cancelled")).count("through the admin") == 0
    assert delivery.event.name in text_of(admin_client.get(f"{list_of('delivery')}?replay={retry.pk}"))
    Replay.objects.all().delete()
    assert "Replayed: longer ago than anything is known of it" in text_of(admin_client.get(page_of(delivery)))


def test_a_replay_shows_where_its_target_was(admin_client: Client) -> None:
    """Also when that is gone, or when it is about many."""
    target = make_failures()
    target.replay()
    Delivery.objects.replay(make_criteria(everybody=True))
    Delivery.objects.get().retry()
    uid = str(target.uid)
    target.delete()
    Delivery.objects.all()._raw_delete("default")
    rows = text_of(admin_client.get(list_of("replay")))

    assert f"failed deliveries to target {uid}" in rows
    assert "failed deliveries to everybody's targets" in rows.replace("&#x27;", "'")
    assert "– through Python" in rows


# -- erasing -----------------------------------------------------------------------------------------------------------


def make_told() -> tuple[Event, Delivery]:
    """An event that was told to a receiver, which has answered."""
    target = make_target(f"{URL}/told")
    event = fire("project.told", {"name": "Crusoe"}, owner=target.owner)
    deliver(lambda request: Reply(request.key, status=500, body=b"Crusoe is unknown."))
    return event, Delivery.objects.get(event=event)


def test_erasing_asks_first() -> None:
    """A button, and the action of the list, show what would be erased, and do it once that is confirmed."""
    event, delivery = make_told()
    client = make_staff("view_event", "view_delivery", "erase_event")
    act = reverse("admin:djwebhooks_event_act", args=[event.pk, "erase"])
    listed = {"action": "erase", "_selected_action": [event.pk]}
    assert act in client.get(page_of(event)).content.decode()

    for asked in (client.post(act), client.post(reverse("admin:djwebhooks_event_changelist"), listed)):
        assert "are you sure?" in text_of(asked)
        assert str(event) in text_of(asked)
        assert Event.objects.get(pk=event.pk).payload
    told = text_of(client.post(reverse("admin:djwebhooks_event_changelist"), listed | {"confirmed": "yes"}, follow=True))

    assert "Erased, with the answers to 1 attempt." in told
    for page in (client.get(page_of(event)), client.get(page_of(delivery))):
        assert "Crusoe" not in text_of(page)
        assert "erased" in text_of(page)
    assert act not in client.get(page_of(event)).content.decode()
    assert str(event) not in text_of(client.get(reverse("admin:djwebhooks_event_changelist"), {"progress": "waiting"}))


def test_erasing_needs_a_permission_of_its_own() -> None:
    """Whoever may only see events is offered nothing, and refused."""
    event, _ = make_told()
    client = make_staff("view_event", "change_event", "delete_event")

    assert "act/erase/" not in client.get(page_of(event)).content.decode()
    assert client.post(reverse("admin:djwebhooks_event_act", args=[event.pk, "erase"]), {"confirmed": "yes"}).status_code == 403
    assert Event.objects.get().erased_at is None
