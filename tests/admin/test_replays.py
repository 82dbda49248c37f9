"""The admin page of replays: counted, started, cancelled, and by whom."""

import re
from dataclasses import replace

import pytest
from django.contrib.auth.models import User
from django.test import Client

from djwebhooks.database import DatabaseNow
from djwebhooks.models import Delivery, Event, Replay, WebhookTarget
from djwebhooks.models.replays import MOST_TARGETS, make_criteria
from djwebhooks.testing import deliver
from tests.admin.builders import URL, act, act_on_list, list_of, make_owner, make_staff, make_target, page_of, send, text_of

pytestmark = pytest.mark.django_db


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
    Event.objects.filter(pk=Event.objects.earliest("pk").pk).update(expires_at=DatabaseNow())
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
        ({"everybody": "on", "since": "0001-01-01T00:00"}, "which is too far away: leave it out"),
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


def test_cancelling_what_goes_to_the_system_needs_its_permission() -> None:
    """As cancelling one such delivery does; what goes to owners alone does not."""
    system = WebhookTarget.objects.register(f"{URL}/system", ["project.*"], owner=None, retry_schedule=[])
    target, other = make_failures(), make_target(f"{URL}/other", owner=make_owner("bob"))
    everybody = make_criteria(everybody=True)
    of_owners = [make_criteria(targets=[target]), make_criteria(targets=[target, other]), replace(everybody, is_owned=True)]
    of_owners = [Delivery.objects.replay(criteria) for criteria in of_owners]
    of_system = [make_criteria(targets=[system]), make_criteria(targets=[target, system]), everybody]
    of_system = [Delivery.objects.replay(criteria) for criteria in of_system]
    Delivery.objects.get(target=system).retry()
    of_system.append(Replay.objects.get(is_retry=True))
    permissions = ("view_replay", "change_replay")
    staff, allowed = make_staff(*permissions), make_staff(*permissions, "add_system_target")

    assert {act(staff, replay, "cancel").status_code for replay in of_system} == {403}
    assert "you do not have the permission" in text_of(act_on_list(staff, of_system, "cancel"))
    assert not Replay.objects.filter(cancelled_at__isnull=False).exists()
    for client, replays in ((staff, of_owners), (allowed, of_system)):
        assert {act(client, replay, "cancel").status_code for replay in replays} == {200}
    assert {replay.state for replay in Replay.objects.all()} == {"cancelled"}


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


def test_as_many_targets_as_a_replay_may_name_lead_to_its_form(admin_client: Client) -> None:
    """They are more than an address can hold; more than that are refused instead of left out, and the count keeps them."""
    owner = make_owner()
    WebhookTarget.objects.bulk_create([WebhookTarget(target_url=f"{URL}/{n}", owner=owner) for n in range(MOST_TARGETS)])
    chosen = {"action": "replay", "_selected_action": [WebhookTarget.objects.first().pk], "select_across": "1"}

    shown = admin_client.post(list_of("webhooktarget"), chosen)
    form = re.search(r'<form action="(.+?)".*?<textarea name="targets".*?>(.*?)</textarea>', shown.content.decode(), re.DOTALL)
    counted = admin_client.post(ADD_REPLAY, REPLAY_FORM | {"targets": form[2].strip(), "_count": "1"})
    WebhookTarget.objects.create(target_url=URL, owner=owner, event="a")
    refused = admin_client.post(list_of("webhooktarget"), chosen, follow=True)

    assert form[1] == ADD_REPLAY
    assert len(form[2].split()) == MOST_TARGETS
    assert (counted.status_code, counted.content.decode().count(form[2].split()[-1])) == (200, 1)
    assert f"Choose at most {MOST_TARGETS} at once; nothing was done." in text_of(refused)


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
