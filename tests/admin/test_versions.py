"""The admin page that compares versions of a target's own events, and switches."""

import pytest
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.test import Client

from djwebhooks.admin.versions import MOST_LINES, Line, compare, preview
from djwebhooks.erasure import erase_events
from djwebhooks.events import fire
from djwebhooks.models import Event, WebhookTarget
from djwebhooks.testing import deliver
from tests.admin.builders import act, fill_form, list_of, make_owner, make_staff, make_target, page_of, text_of

pytestmark = pytest.mark.django_db


def make_pinned(**fields: object) -> WebhookTarget:
    return make_target(owner=make_owner(), version="1", **fields)


def fire_in_versions(target: WebhookTarget, name: str = "project.update", title: str = "<x>") -> Event:
    event = fire(name, {"project": {"title": title}}, owner=target.owner, version="2", versions={"1": {"title": title}})
    deliver()
    return event


# -- comparing ---------------------------------------------------------------------------------------------------------


def test_equal_texts_have_nothing_to_show() -> None:
    """However long they are."""
    assert compare("a\nb", "a\nb") == []


def test_what_differs_is_side_by_side_with_a_few_lines_around_it() -> None:
    """Equal lines that are further away are left out, and it is seen where."""
    old, new = [*"abcdefghijk"], [*"abcdeXYghijk"]

    assert compare("\n".join(old), "\n".join(new)) == [
        Line("gap"),
        *(Line("same", letter, letter) for letter in "cde"),
        Line("changed", "f", "X"),
        Line("changed", None, "Y"),
        *(Line("same", letter, letter) for letter in "ghi"),
        Line("gap"),
    ]


def test_a_long_payload_is_compared_as_far_as_it_is_quick() -> None:
    """The page says so."""
    target = make_pinned()
    fire("project.update", list(range(MOST_LINES)), owner=target.owner, versions={"1": list(range(MOST_LINES))})
    deliver()

    [comparison] = preview(target, "").comparisons

    assert (comparison.is_cut, comparison.lines) == (True, [])


# -- choosing events ---------------------------------------------------------------------------------------------------


def test_the_newest_event_of_each_name_is_shown() -> None:
    """Those without the version are named: they are sent in their current one."""
    target = make_pinned()
    for title in ("older", "newer"):
        fire_in_versions(target, title=title)
    fire("project.closed", 1, owner=target.owner)
    deliver()

    found = preview(target, "2")

    [comparison] = found.comparisons
    assert [line.new.strip() for line in comparison.lines if line.kind == "changed" and line.new] == [
        '"project": {',
        '"title": "newer"',
        "}",
    ]
    assert (found.others, found.versions) == (["project.closed"], {"1", "2"})


def test_what_has_no_payload_is_left_out() -> None:
    """An erased event, and one that is not built, tell nothing."""
    target = make_pinned()
    fire_in_versions(target)
    fire_in_versions(target, "project.closed")
    erase_events(Event.objects.filter(name="project.update"))
    Event.objects.filter(name="project.closed").update(payload="", versions='{"1":null}')

    assert preview(target, "2").comparisons == []


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_target_s_page_leads_to_the_preview(admin_client: Client) -> None:
    """Only for those who may change it."""
    target = make_pinned()
    link = page_of(target, "versions")

    assert link in admin_client.get(page_of(target)).content.decode()
    assert link not in make_staff("view_webhooktarget").get(page_of(target)).content.decode()


def test_the_page_shows_what_a_switch_would_change(admin_client: Client) -> None:
    """Both versions, escaped, and a button."""
    target = make_pinned()
    fire_in_versions(target)

    chosen = admin_client.get(page_of(target, "versions"))
    shown = admin_client.get(page_of(target, "versions"), {"version": "2"})

    assert "Compare with the current version version 2" in text_of(chosen)
    assert "&lt;x&gt;" in shown.content.decode()
    assert "<x>" not in shown.content.decode()
    assert 'value="Switch to version 2"' in shown.content.decode()


def test_a_target_without_versions_has_nothing_to_compare(admin_client: Client) -> None:
    """The page says so instead of offering nothing."""
    assert "None of its newest events has another version." in text_of(admin_client.get(page_of(make_target(), "versions")))


def test_to_switch_is_logged(admin_client: Client) -> None:
    """And said, with both versions."""
    target = make_pinned()

    response = admin_client.post(page_of(target, "versions"), {"version": "2"}, follow=True)

    target.refresh_from_db()
    assert target.version == "2"
    assert "Switched from version 1 to version 2" in text_of(response)
    assert "Switched from version 1 to version 2" in LogEntry.objects.get().change_message


def test_a_version_that_none_of_its_events_has_is_refused(admin_client: Client, settings: LazySettings) -> None:
    """By the button, and by the form, which looks at the events that are posted with it."""
    settings.DJWEBHOOKS_EVENTS = {"project.update": {"version": "2", "versions": {"1": {}}}}
    target = make_pinned()

    switched = admin_client.post(page_of(target, "versions"), {"version": "3"}, follow=True)
    form = fill_form(target_url="https://other.example.com", owner=target.owner.pk, version="3")
    added = admin_client.post(list_of("webhooktarget") + "add/", form)

    target.refresh_from_db()
    assert target.version == "1"
    for response in (switched, added):
        assert "None of the events has a version '3': there are 1, 2." in text_of(response)
    assert WebhookTarget.objects.count() == 1


def test_payloads_are_for_those_who_may_view_events() -> None:
    """Who may only change the target may switch all the same."""
    target = make_pinned()
    fire_in_versions(target, title="told to few")
    client = make_staff("change_webhooktarget", "view_webhooktarget")

    shown = client.get(page_of(target, "versions"), {"version": "2"})

    assert "told to few" not in shown.content.decode()
    assert "takes the permission to view events" in text_of(shown)
    assert 'value="Switch to version 2"' in shown.content.decode()


@pytest.mark.parametrize("permissions", [("view_webhooktarget", "view_event"), ("change_webhooktarget",)])
def test_who_may_not_change_the_target_has_no_such_page(permissions: tuple[str, ...]) -> None:
    """Not to look, and not to switch; the system's own takes its permission."""
    target = make_pinned()
    if "change_webhooktarget" in permissions:
        WebhookTarget.objects.update(owner=None)
    client = make_staff(*permissions)

    answers = [client.get(page_of(target, "versions")), client.post(page_of(target, "versions"), {"version": "2"})]

    assert [answer.status_code for answer in answers] == [403, 403]
    target.refresh_from_db()
    assert target.version == "1"


def test_a_target_that_is_gone_has_no_page(admin_client: Client) -> None:
    """That is a 404."""
    target = make_pinned()
    page = page_of(target, "versions")
    target.delete()

    assert admin_client.get(page).status_code == 404


# -- elsewhere ---------------------------------------------------------------------------------------------------------


def test_an_event_s_page_has_all_versions(admin_client: Client) -> None:
    """Also those that are not built."""
    event = fire_in_versions(make_pinned(), title="in both")
    Event.objects.filter(pk=event.pk).update(versions='{"0":null,"1":"5"}')

    page = text_of(admin_client.get(page_of(event)))

    assert "in version 0: not built" in page
    assert "in version 1 5" in page


def test_a_test_event_does_not_count_as_a_version(admin_client: Client) -> None:
    """It is the same for all."""
    target = make_pinned()
    act(admin_client, target, "test")
    deliver()

    assert preview(target, "2").others == ["webhook.test"]
