"""Encrypted columns: what the database has, what Python sees, and what is shown of it."""

import copy
import json
import pickle
from io import StringIO

import pytest
from django.conf import LazySettings
from django.core import serializers
from django.core.management import call_command
from django.db import connection
from django.forms import modelform_factory

from djwebhooks.exceptions import InvalidTarget, UndecryptableSecret
from djwebhooks.models import WebhookTarget
from djwebhooks.models.sealed import TOKEN_START
from tests.builders import make_target

HEADERS = {"x-key": "hunter2"}
AUTHENTICATION = {"type": "basic", "username": "ada", "password": "hunter2"}
LOST = "another key, of which nobody has told anybody anything at all"

pytestmark = pytest.mark.django_db


def read_columns(target: WebhookTarget) -> list[str]:
    """What the database has, past Django."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT headers, authentication, client_certificate FROM djw_target WHERE id = %s", [target.pk])
        return list(cursor.fetchone())


def test_the_database_has_only_the_encrypted_text() -> None:
    """What is set comes back in Python, and nobody who reads the table sees it."""
    target = make_target(headers=HEADERS, authentication=AUTHENTICATION, client_certificate="a text")
    again = WebhookTarget.objects.get()

    assert (again.headers, again.authentication, again.client_certificate) == (HEADERS, AUTHENTICATION, "a text")
    assert all(column.startswith(TOKEN_START) for column in read_columns(target))


def test_nothing_is_kept_as_nothing() -> None:
    """A target without any of them costs no encryption, and has empty values of their own kind."""
    target = make_target(headers=None)
    again = WebhookTarget.objects.get()

    assert read_columns(target) == ["", "", ""]
    assert (again.headers, again.authentication, again.client_certificate) == ({}, {}, "")
    assert again.headers is not WebhookTarget.objects.get().headers


def test_a_change_in_place_is_saved() -> None:
    """A dictionary is the same one each time it is asked for, as with any field of JSON."""
    make_target(headers=dict(HEADERS))
    target = WebhookTarget.objects.get()
    target.headers["x-other"] = "1"
    target.save()

    assert WebhookTarget.objects.get().headers == HEADERS | {"x-other": "1"}


def test_what_nobody_opened_is_not_encrypted_anew() -> None:
    """Saving something else writes the same text back."""
    target = make_target(headers=HEADERS)
    before = read_columns(target)
    WebhookTarget.objects.get().save()

    assert read_columns(target) == before


def test_update_and_bulk_create_encrypt() -> None:
    """There is no way past it in the ORM."""
    [target] = WebhookTarget.objects.bulk_create([WebhookTarget(target_url="https://a.example/", headers=HEADERS)])
    WebhookTarget.objects.update(client_certificate="a text", authentication=AUTHENTICATION)
    again = WebhookTarget.objects.get()

    assert (again.headers, again.authentication, again.client_certificate) == (HEADERS, AUTHENTICATION, "a text")
    assert all(column.startswith(TOKEN_START) for column in read_columns(target))


def test_an_encrypted_text_that_people_give_is_a_text() -> None:
    """Who has seen the database cannot have an encrypted text opened by setting it as one's own."""
    theirs = read_columns(make_target(headers=HEADERS))[0]
    ours = make_target(url="https://b.example/", client_certificate=theirs)

    assert WebhookTarget.objects.get(pk=ours.pk).client_certificate == theirs
    with pytest.raises(InvalidTarget):
        ours.clean()


def test_a_row_does_not_show_it() -> None:
    """Neither when it was read, nor when it was just set or opened."""
    fresh = make_target(headers=HEADERS, authentication=AUTHENTICATION)
    read = WebhookTarget.objects.get()
    assert read.headers == HEADERS
    rows = (fresh, read, WebhookTarget.objects.get())
    shown = [f"{row!r} {vars(row)!r} {pickle.dumps(row)!r}" for row in rows]

    assert "hunter2" not in f"{shown} {WebhookTarget.objects.values().get()!r}"


def test_a_copy_has_the_same_values() -> None:
    """Copied or sent through a queue, what is empty stays empty, and the rest opens."""
    fresh = make_target(headers=HEADERS)
    for target in (fresh, WebhookTarget.objects.get()):
        for made in (copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
            assert (made.headers, made.authentication, made.client_certificate) == (HEADERS, {}, "")


def test_a_dump_has_the_encrypted_text_and_can_be_loaded() -> None:
    """dumpdata shows nothing, and loaddata brings everything back."""
    make_target(headers=HEADERS, authentication=AUTHENTICATION, client_certificate="a text")
    output = StringIO()
    call_command("dumpdata", "djwebhooks.webhooktarget", stdout=output)
    [row] = json.loads(output.getvalue())
    WebhookTarget.objects.all().delete()
    for loaded in serializers.deserialize("json", output.getvalue()):
        loaded.save()
    again = WebhookTarget.objects.get()

    assert "hunter2" not in output.getvalue()
    assert row["fields"]["client_certificate"].startswith(TOKEN_START)
    assert (again.headers, again.authentication, again.client_certificate) == (HEADERS, AUTHENTICATION, "a text")


def test_it_cannot_be_searched_for() -> None:
    """A query by a value finds nothing, whoever guesses."""
    make_target(headers=HEADERS)

    assert not WebhookTarget.objects.filter(headers=HEADERS).exists()
    assert not WebhookTarget.objects.filter(headers__contains="hunter2").exists()


def test_a_deferred_column_is_read_when_it_is_asked_for() -> None:
    """As with any other field."""
    make_target(headers=HEADERS)

    assert WebhookTarget.objects.defer("headers").get().headers == HEADERS
    assert WebhookTarget.objects.only("headers").get().headers == HEADERS


def test_a_form_has_json() -> None:
    """An application's own form can edit headers, and does not get at the rest."""
    form = modelform_factory(WebhookTarget, fields=["headers"])(instance=make_target(headers=HEADERS))

    assert json.loads(form["headers"].value()) == HEADERS


# -- a lost key --------------------------------------------------------------------------------------------------------


def test_a_lost_key_harms_only_who_asks_for_the_value(settings: LazySettings) -> None:
    """The row is read, saved, listed and shown in forms all the same."""
    target = make_target(headers=HEADERS, authentication=AUTHENTICATION)
    before = read_columns(target)
    settings.SECRET_KEY = LOST
    again = WebhookTarget.objects.get()
    again.description = "still here"
    again.save()

    assert read_columns(target) == before
    assert modelform_factory(WebhookTarget, fields=["headers"])(instance=again).initial == {"headers": {}}
    assert again.authentication_summary == {"type": "unreadable"}
    assert again.client_certificate_summary == {}
    with pytest.raises(UndecryptableSecret):
        _ = again.headers


def test_setting_it_anew_is_the_way_out_of_a_lost_key(settings: LazySettings) -> None:
    """Until then validation says which value it is."""
    make_target(headers=HEADERS)
    settings.SECRET_KEY = LOST
    target = WebhookTarget.objects.get()
    with pytest.raises(InvalidTarget, match="It is in the target's headers, which has to be set anew"):
        target.clean()
    target.headers = {"x": "1"}
    target.clean()
    target.save()

    assert WebhookTarget.objects.get().headers == {"x": "1"}


# -- what was saved unchecked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        {"type": "basic", "username": "ada"},
        {"username": "ada"},
        "basic",
        {"type": "jwt", "algorithm": "HS256", "key": "k" * 32, "claims": {"sub": json.loads("[" * 460 + "]" * 460)}},
    ],
    ids=["part", "type", "text", "deep"],
)
def test_what_cannot_be_is_summed_up_all_the_same(told: object) -> None:
    """One such row does no harm to a list, or a page, that shows others too."""
    make_target(authentication=told, client_certificate="a text")
    target = WebhookTarget.objects.get()

    assert target.authentication_summary == target.client_certificate_summary == {"type": "unreadable"}
