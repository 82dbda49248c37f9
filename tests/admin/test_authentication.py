"""What a target authenticates with, in the admin: set by a form that never shows it again."""

import json
import traceback
from typing import Any

import pytest
import trustme
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.views.debug import get_exception_reporter_filter

from djwebhooks.models import WebhookTarget
from tests.admin.builders import add_target, fill_form, make_owner, make_staff, make_target, page_of, text_of
from tests.keys import make_certificate
from tests.test_secrets import Watch

SECRET = "hunter2-is-not-shown"
BASIC = {"type": "basic", "username": "ada", "password": SECRET}
CERTIFICATE = make_certificate(trustme.CA())

pytestmark = pytest.mark.django_db


def change(client: Client, target: WebhookTarget, **fields: object) -> HttpResponse:
    return client.post(page_of(target), fill_form(events=[], **fields))


def list_errors(response: HttpResponse) -> dict[str, Any]:
    return dict(response.context["adminform"].form.errors)


def test_it_is_set_when_a_target_is_added(admin_client: Client) -> None:
    """A type and its parts, and a certificate; none of it is on the page that follows or on the target's own."""
    parts = json.dumps({"username": "ada", "password": SECRET})
    response = add_target(
        admin_client, owner=make_owner().pk, authentication_type="basic", authentication_parts=parts, new_certificate=CERTIFICATE
    )
    target = WebhookTarget.objects.get()
    page = admin_client.get(page_of(target))

    assert target.authentication == BASIC
    assert target.client_certificate.splitlines() == CERTIFICATE.strip().splitlines()
    assert "type: basic, username: ada" in text_of(page)
    assert "subject: " in text_of(page)
    assert not [text for text in (SECRET, "PRIVATE KEY") if text in response.content.decode() + page.content.decode()]


def test_what_is_left_empty_is_kept(admin_client: Client) -> None:
    """Saving the page for another reason changes nothing of it."""
    target = make_target(authentication=BASIC, client_certificate=CERTIFICATE)
    response = change(admin_client, target, description="new")
    again = WebhookTarget.objects.get()

    assert (response.status_code, again.description) == (302, "new")
    assert (again.authentication, again.client_certificate) == (BASIC, CERTIFICATE)


def test_it_can_be_replaced_and_removed(admin_client: Client) -> None:
    """Another type takes the place of the first, and none the place of that."""
    target = make_target(authentication=BASIC, client_certificate=CERTIFICATE)
    change(admin_client, target, authentication_type="bearer", authentication_parts=json.dumps({"token": SECRET}))
    replaced = WebhookTarget.objects.get().authentication
    change(admin_client, target, authentication_type="none", remove_certificate="on")
    again = WebhookTarget.objects.get()

    assert replaced == {"type": "bearer", "token": SECRET}
    assert (again.authentication, again.client_certificate) == ({}, "")


@pytest.mark.parametrize(
    ("fields", "name", "words"),
    [
        ({"authentication_type": "basic"}, "authentication_parts", "needs a part"),
        ({"authentication_parts": f'{{"token": "{SECRET}"}}'}, "authentication_type", "Choose what the parts are of"),
        (
            {"authentication_type": "none", "authentication_parts": f'{{"token": "{SECRET}"}}'},
            "authentication_type",
            "Choose what the parts are of",
        ),
        ({"authentication_type": "magic"}, "authentication_type", "not one of the available choices"),
        ({"authentication_type": "bearer", "authentication_parts": f'["{SECRET}"]'}, "authentication_parts", "Write an object"),
        (
            {"authentication_type": "bearer", "authentication_parts": f'{{"{SECRET}": {"9" * 5000}}}'},
            "authentication_parts",
            "valid JSON",
        ),
        ({"authentication_type": "jwt", "authentication_parts": "[" * 5000 + "]" * 5000}, "authentication_parts", "valid JSON"),
        ({"authentication_type": "bearer", "authentication_parts": f"{{{SECRET}"}, "authentication_parts", "valid JSON"),
        (
            {"authentication_type": "bearer", "authentication_parts": f'{{"token": "{SECRET}", "user": "x"}}'},
            "authentication_parts",
            "no part",
        ),
        ({"new_certificate": SECRET}, "new_certificate", "0 certificates and 0 keys"),
        ({"new_certificate": CERTIFICATE, "remove_certificate": "on"}, "remove_certificate", "Either give a new certificate"),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, str], name: str, words: str, admin_client: Client) -> None:
    """The error stands at the field, and what was typed does not come back with it."""
    target = make_target()
    response = change(admin_client, target, **fields)
    again = WebhookTarget.objects.get()

    assert words in str(list_errors(response)[name])
    assert not [text for text in (SECRET, "PRIVATE KEY-----\n") if text in response.content.decode()]
    assert (again.authentication, again.client_certificate) == ({}, "")


def test_two_authorizations_are_refused(admin_client: Client) -> None:
    """A header of that name beside an authentication is a mistake."""
    target = make_target(authentication=BASIC)
    response = change(admin_client, target, headers='{"Authorization": "x"}')

    assert "remove one of them" in str(list_errors(response))


def test_who_may_only_look_sees_the_summary() -> None:
    """What is not secret can be seen, and nothing can be written."""
    target = make_target(authentication=BASIC, client_certificate=CERTIFICATE)
    page = make_staff("view_webhooktarget").get(page_of(target))

    assert "type: basic, username: ada" in text_of(page)
    assert SECRET not in page.content.decode()
    assert "authentication_parts" not in page.content.decode()


def test_the_history_names_only_the_fields(admin_client: Client) -> None:
    """What was set is not in the log of who changed what."""
    target = make_target()
    change(admin_client, target, authentication_type="bearer", authentication_parts=json.dumps({"token": SECRET}))
    [entry] = LogEntry.objects.all()

    assert "authentication" in entry.get_change_message()
    assert SECRET not in entry.change_message


def test_a_lost_key_is_shown_and_nothing_is_dropped_by_accident(admin_client: Client, settings: LazySettings) -> None:
    """The page says what cannot be read; saving it keeps that, and says that it has to be set anew."""
    target = make_target(headers={"x": SECRET}, authentication=BASIC)
    viewer = make_staff("view_webhooktarget")
    users = {client: User.objects.get(pk=client.session["_auth_user_id"]) for client in (admin_client, viewer)}
    before = WebhookTarget.objects.values("headers", "authentication").get()
    settings.SECRET_KEY = "another key, long enough that no check complains about it"
    for client, user in users.items():
        client.force_login(user)
    page = admin_client.get(page_of(target))
    looked = viewer.get(page_of(target))
    refused = change(admin_client, target, description="x")
    after = WebhookTarget.objects.values("headers", "authentication").get()
    anew = change(admin_client, target, headers='{"y": "1"}', authentication_type="none")

    assert "type: unreadable" in text_of(page)
    assert "unreadable" in text_of(looked)
    assert "has to be set anew" in str(list_errors(refused))
    assert after == before
    assert anew.status_code == 302
    assert WebhookTarget.objects.get().headers == {"y": "1"}


def test_a_report_of_an_error_does_not_show_what_was_posted(admin_client: Client, settings: LazySettings) -> None:
    """What is mailed to the administrators leaves out the fields that hold secrets."""
    target = make_target()
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = "one string, which is an error"
    with pytest.raises(Exception, match="DJWEBHOOKS_ENCRYPTION_KEYS") as error:
        change(
            admin_client,
            target,
            headers=json.dumps({"x": SECRET}),
            authentication_type="bearer",
            authentication_parts=json.dumps({"token": SECRET}),
            new_certificate=CERTIFICATE,
        )
    requests = [frame.f_locals.get("request") for frame, _ in traceback.walk_tb(error.tb)]
    request = next(request for request in requests if hasattr(request, "sensitive_post_parameters"))
    shown = get_exception_reporter_filter(request).get_post_parameters(request)

    assert shown["authentication_type"] == "bearer"
    assert SECRET not in str(shown)
    assert "PRIVATE KEY" not in str(shown)


def test_no_variable_shows_it(admin_client: Client) -> None:
    """No tool that shows the variables of a traceback can show what was typed, kept or refused."""
    target = make_target()
    parts = json.dumps({"token": SECRET})
    with Watch(SECRET, CERTIFICATE.splitlines()[1]) as watch:
        refused = change(admin_client, target, authentication_type="basic", authentication_parts=parts)
        saved = change(
            admin_client, target, authentication_type="bearer", authentication_parts=parts, new_certificate=CERTIFICATE
        )

    assert (refused.status_code, saved.status_code) == (200, 302)
    assert watch.lines > 1000
    assert watch.found == set()
