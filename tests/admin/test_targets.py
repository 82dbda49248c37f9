"""The admin page of targets: the list, the form, who may do what, and what the buttons do."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, Replay, Subscription, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.pages import ACTION_LIMIT
from djwebhooks.testing import deliver
from tests.admin.builders import (
    URL,
    act,
    act_on_list,
    add_target,
    count_queries,
    fill_form,
    list_of,
    make_owner,
    make_staff,
    make_target,
    page_of,
    send,
    text_of,
)
from tests.builders import rotate_before_save
from tests.connections import plain

pytestmark = pytest.mark.django_db


# -- list --------------------------------------------------------------------------------------------------------------


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


def test_the_list_of_targets_names_a_few_events_and_the_zone_of_times(admin_client: Client, settings: LazySettings) -> None:
    """So that a target of many events is no taller than others."""
    settings.TIME_ZONE = "Asia/Tokyo"
    target = make_target(owner=make_owner())
    for name in "abcd":
        target.subscriptions.create(event=name)

    assert "a, b, c and 2 more" in text_of(admin_client.get(list_of("webhooktarget")))
    for page in (list_of("webhooktarget"), page_of(target), list_of("delivery")):
        assert "Times are in Asia/Tokyo." in text_of(admin_client.get(page))


def test_every_field_has_a_name(admin_client: Client) -> None:
    """Also those of events, which stand in a table: a screen reader says what they are for."""
    page = admin_client.get(page_of(make_target())).content.decode()

    fields = re.findall(r'<input type="text" name="subscriptions-[^>]*>', page)
    assert fields
    assert all('aria-label="event"' in field for field in fields)


def test_the_list_of_targets_shows_owner_and_events(admin_client: Client) -> None:
    """A row says whose it is and what it wants; a system target is the system's."""
    make_target(owner=make_owner("beatrice")).subscriptions.create(event="invoice.paid")
    WebhookTarget.objects.register("https://audit.example.com/", ["*"], owner=None)
    page = text_of(admin_client.get(list_of("webhooktarget")))

    assert "healthy beatrice invoice.paid, project.*" in page
    assert "healthy the system *" in page
    assert text_of(admin_client.get(list_of("webhooktarget"), {"kind": "system"})).count("the system *") == 1


# -- form --------------------------------------------------------------------------------------------------------------


def test_a_target_is_made_with_its_events(admin_client: Client) -> None:
    """The form saves the target and the events of the inline."""
    owner = make_owner()
    add_target(
        admin_client,
        owner=owner.pk,
        events=["project.*", "invoice.paid"],
        headers='{"x-key": "1"}',
        retry_schedule="[5, 60]",
        filters='{"invoice.paid": {"total": [{"numeric": [">", 5]}]}}',
    )
    target = WebhookTarget.objects.get()

    assert target.owner == owner
    assert target.events == ["invoice.paid", "project.*"]
    assert target.headers == {"x-key": "1"}
    assert target.retry_schedule == [5, 60]
    assert target.filters == {"invoice.paid": {"total": [{"numeric": [">", 5]}]}}


def test_an_event_that_is_there_is_not_added_twice(admin_client: Client) -> None:
    """A form that is sent twice, or from an old page, is told what is wrong with it."""
    target = make_target()
    form = fill_form(events=target.events, **{"subscriptions-0-target": target.pk})
    response = admin_client.post(page_of(target), form)

    assert response.status_code == 200
    assert f"The target is subscribed to '{target.events[0]}' already." in text_of(response)


def test_the_form_asks_for_events_before_what_may_be_left_as_it_is(admin_client: Client) -> None:
    """They come once, right after where they go."""
    target = make_target()

    for url in (reverse("admin:djwebhooks_webhooktarget_add"), page_of(target)):
        page = text_of(admin_client.get(url))
        assert page.index("Identifier:") < page.index("Events: a name") < page.index("How it is sent")
        assert page.count("Events: a name") == 1


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
        ({"filters": '{"project.*": {"n": 5}}'}, "filter 'n' must be a list of alternatives"),
        ({"filters": "[]"}, "filters must be an object"),
        ({"filters": '{"a.b": {"n": [5]}}'}, "filters['a.b'] is for none of the target's events: project.*"),
        ({"filters": "[" * 5000}, "valid JSON"),
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


@pytest.mark.parametrize("filters", ["[]", '""', "5", '{"project.*": {"n": 5}}'])
def test_what_filters_cannot_be_is_said_beside_them(filters: str, admin_client: Client) -> None:
    """And not at the top of the page; those that were there stay."""
    target = make_target(filters=(before := {"project.*": {"n": [5]}}))
    form = admin_client.post(page_of(target), fill_form(owner=target.owner_id, filters=filters)).context["adminform"].form
    target.refresh_from_db()

    assert list(form.errors) == ["filters"]
    assert target.filters == before


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


# -- the system's own --------------------------------------------------------------------------------------------------


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
    assert "do not have the permission" in text_of(act_on_list(client, [target], "pause"))
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


# -- actions -----------------------------------------------------------------------------------------------------------


def test_a_test_event_is_sent(admin_client: Client) -> None:
    """The button fires a test event for this target and links to it."""
    target = make_target()
    response = act(admin_client, target, "test")
    event = Event.objects.get()

    assert event.direct_targets == [target.pk]
    assert page_of(event) in response.content.decode()


def test_a_target_is_paused_and_resumed(admin_client: Client) -> None:
    """Each button is offered when it has something to do, and history tells who pressed it."""
    target = make_target()
    offered = text_of(admin_client.get(page_of(target)))
    paused = text_of(act(admin_client, target, "pause"))
    was_active = WebhookTarget.objects.get().is_active
    resumed = text_of(act(admin_client, target, "resume"))

    assert "Pause" in offered
    assert "Resume" not in offered
    assert not was_active
    assert "Paused: events are held until it is resumed." in paused
    assert WebhookTarget.objects.get().is_active
    assert "Pause" in resumed
    assert "Paused: events are held until it is resumed." in text_of(admin_client.get(page_of(target, "history")))


def test_a_disabled_target_says_why_and_is_resumed(admin_client: Client) -> None:
    """Resuming forgets that it was disabled."""
    target = make_state("disabled")
    page = text_of(admin_client.get(page_of(target)))
    act(admin_client, target, "resume")

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


def test_to_retry_what_failed_is_to_replay(admin_client: Client) -> None:
    """Who may change targets and start no replays is offered it nowhere, and a forged request is refused."""
    target = make_target()
    changer = make_staff("view_webhooktarget", "change_webhooktarget")
    starter = make_staff("view_webhooktarget", "change_webhooktarget", "add_replay")
    label = "Retry failed deliveries"
    act_on_list(changer, [target], "retry-failed")

    assert act(changer, target, "retry-failed").status_code == 403
    assert not Replay.objects.exists()
    for address in (page_of(target), list_of("webhooktarget")):
        assert label not in text_of(changer.get(address))
        assert label in text_of(starter.get(address))
    assert "sent again: 0" in text_of(act(starter, target, "retry-failed"))


def test_actions_of_the_list_count_what_they_did(admin_client: Client) -> None:
    """Many targets are told of in one sentence, and each has its line in the history."""
    owner = make_owner()
    targets = [make_target(f"{URL}/{number}", owner=owner) for number in range(3)]
    page = text_of(act_on_list(admin_client, targets, "pause"))

    assert "Pause: done for 3 webhook targets." in page
    assert not WebhookTarget.objects.filter(is_active=True).exists()
    assert LogEntry.objects.count() == 3


def test_a_form_writes_what_it_changes(admin_client: Client) -> None:
    """A secret that is made between the reading of the row and its writing was shown to somebody: it stays."""
    target = make_target()
    made = rotate_before_save()
    saved = admin_client.post(page_of(target), fill_form(events=[], target_url=f"{URL}/new", description="Moved."))
    again = WebhookTarget.objects.get()

    assert saved.status_code == 302
    assert (again.target_url, again.description, [again.secret]) == (f"{URL}/new", "Moved.", made)
    assert WebhookTarget.objects.find(f"{URL}/new", again.owner, "") == again


def test_actions_of_the_list_are_bounded(admin_client: Client) -> None:
    """Choosing all of a huge list changes nothing but says what to do."""
    Delivery.objects.bulk_create([Delivery(event_id=-1, target_id=-1 - number, sequence=1) for number in range(ACTION_LIMIT + 1)])
    data = {"action": "cancel", "_selected_action": [Delivery.objects.latest("pk").pk], "select_across": "1"}
    page = text_of(admin_client.post(list_of("delivery"), data, follow=True))

    assert f"at most {ACTION_LIMIT}" in page
    assert not Delivery.objects.exclude(status=Status.PENDING).exists()


@pytest.mark.parametrize("name", ["test", "resume", "pause", "rotate-secret", "check-keys", "finish-rotation", "retry-failed"])
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
    url = reverse("admin:djwebhooks_webhooktarget_act", args=[make_target().pk, "pause"])

    assert admin_client.get(url).status_code == 405
    assert WebhookTarget.objects.get().is_active


def test_buttons_are_protected_against_forged_requests(admin_user: User) -> None:
    """A post without the page's token is refused."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)

    assert act(client, make_target(), "pause").status_code == 403
    assert WebhookTarget.objects.get().is_active


def test_unknown_rows_and_actions_are_not_found(admin_client: Client) -> None:
    """There is nothing else to do with a target, and nothing to do with a missing one."""
    target = make_target()

    assert act(admin_client, target, "explode").status_code == 404
    assert act(admin_client, WebhookTarget(pk=target.pk + 1), "test").status_code == 404


# -- deleting ----------------------------------------------------------------------------------------------------------


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


class Deleter:
    """Deletes the target as soon as somebody has read it."""

    has_deleted = False

    def __call__(self, run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        found = run(sql, *rest)
        if not self.has_deleted and sql.startswith("SELECT") and '"djw_target"."uid"' in plain(sql):
            self.has_deleted = True
            WebhookTarget.objects.all().delete()
        return found


@pytest.mark.parametrize("name", ["resume", "probe", "pause", "rotate-secret", "test", "check-keys"])
def test_a_button_of_a_target_that_is_deleted_meanwhile(name: str, admin_client: Client) -> None:
    """It says so, or does what changes nothing: the page is then that there is none."""
    target = make_target()

    with connection.execute_wrapper(deleter := Deleter()):
        page = act(admin_client, target, name)

    assert (page.status_code, deleter.has_deleted) == (200, True)
    assert "erhaps it was deleted" in text_of(page)
    if name not in ("test", "check-keys"):
        assert "The target is not there any more: it was deleted." in text_of(page)


@pytest.mark.parametrize("page", ["change", "versions"])
def test_a_form_of_a_target_that_is_deleted_meanwhile(page: str, admin_client: Client) -> None:
    """Whoever saves it is told, and nothing is written."""
    target = make_target()
    form = fill_form(description="late") if page == "change" else {"version": "2"}

    with connection.execute_wrapper(deleter := Deleter()):
        answer = admin_client.post(page_of(target, page), form)

    assert (answer.status_code, deleter.has_deleted) == (302, True)
    assert "The target is not there any more: it was deleted." in text_of(admin_client.get(list_of("webhooktarget")))
    assert not WebhookTarget.objects.filter(description="late").exists()


def test_asking_whether_to_delete_loads_no_deliveries(admin_client: Client) -> None:
    """The question costs the same with a million deliveries."""
    target = make_target()
    send(target)
    queries = count_queries(admin_client, page_of(target, "delete"))

    assert not [sql for sql in queries if "djw_delivery" in sql or "djw_attempt" in sql]
