"""What receivers say is stored as text and shown as text: on pages, in JSON, in terminals."""

from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from djwebhooks.models import Attempt
from tests.api.world import Api
from tests.hostile.receivers import QUICK
from tests.hostile.runs import MakeTransport, run

pytestmark = pytest.mark.django_db

SIGNS = ("markup", "NUL in", "invalid UTF-8", "in words")
SPEAKERS = [case for case in QUICK if any(sign in case.name for sign in SIGNS)]
#: Nothing of this may be on a page, whatever stands around it.
LIVE = ("<script>alert", "<img src=x", "<i>x</i>", "<b>", "onerror=alert(2)>")


@pytest.fixture
def attempts(make_transport: MakeTransport, tmp_path: Path) -> list[Attempt]:
    """An attempt at each of the receivers that say something."""
    run(SPEAKERS, make_transport, tmp_path, DJWEBHOOKS_TIMEOUT=60.0)
    return list(Attempt.objects.exclude(error="", status_code=200).select_related("delivery"))


def find_said(attempts: list[Attempt]) -> str:
    """All that was stored of what receivers said."""
    return "\n".join(f"{attempt.detail} {attempt.response_body} {attempt.response_headers}" for attempt in attempts)


def test_what_was_said_is_stored(attempts: list[Attempt]) -> None:
    """Every receiver's answer is kept, markup in its headers and body included, with what no database can hold replaced."""
    said = find_said(attempts)

    assert len(attempts) == 2 * len(SPEAKERS)
    assert said.count("<script>alert(1)</script>") >= 2 * 2
    assert "\0" not in said
    assert said.encode().decode() == said


def test_admin_pages_escape_it(attempts: list[Attempt], admin_client: Client) -> None:
    """No page of the admin has markup that a receiver wrote: it is shown as the text that it is."""
    deliveries = {attempt.delivery.target_id: attempt.delivery for attempt in attempts}.values()
    rows = [*deliveries, *(delivery.event for delivery in deliveries), *(delivery.target for delivery in deliveries)]
    urls = [reverse(f"admin:djwebhooks_{row._meta.model_name}_change", args=[row.pk]) for row in rows]
    urls += [reverse(f"admin:djwebhooks_{model}_changelist") for model in ("delivery", "event", "webhooktarget")]
    pages = [admin_client.get(url).content.decode() for url in urls]

    assert not [mark for mark in LIVE for page in pages if mark in page]
    assert sum("&lt;script&gt;alert(1)&lt;/script&gt;" in page for page in pages) >= 2


def test_portal_pages_escape_it(attempts: list[Attempt]) -> None:
    """Nor has any page of the portal."""
    client = Client()
    client.force_login(User.objects.get(username="owner"))
    deliveries = {attempt.delivery.target_id: attempt.delivery for attempt in attempts}.values()
    pages = [client.get(f"/portal/deliveries/{delivery.uid}/").content.decode() for delivery in deliveries]
    pages += [client.get(f"/portal/targets/{delivery.target.uid}/").content.decode() for delivery in deliveries]

    assert not [mark for mark in LIVE for page in pages if mark in page]
    assert sum("&lt;script&gt;alert(1)&lt;/script&gt;" in page for page in pages) >= 2


def test_the_api_gives_it_as_json(attempts: list[Attempt]) -> None:
    """The API answers in ASCII JSON with exactly what is stored, and no browser can talk it into anything else."""
    api = Api(User.objects.get(username="owner"))
    rows = []
    url = "attempts/"
    while url:
        answer = api.get(url, accept="text/html,*/*")
        rows += answer.data["results"]
        url = answer.data["next"]
    shown = {(row["delivery"], row["number"]): (row["detail"], row["response_body"], row["response_headers"]) for row in rows}
    raw = api.client.get("/api/attempts/", headers={"accept": "text/html"})

    assert raw["content-type"] == "application/json"
    assert raw.content.isascii()
    assert not any(byte < 0x20 or byte == 0x7F for byte in raw.content)
    for attempt in attempts:
        stored = (attempt.detail, attempt.response_body, attempt.response_headers)
        assert shown[str(attempt.delivery.uid), attempt.number] == stored


def test_explain_prints_lines_that_do_nothing_to_a_terminal(attempts: list[Attempt]) -> None:
    """What the command says of a delivery has what was answered, and no character that a terminal obeys."""
    for attempt in attempts:
        said = explain(attempt)

        assert all(line.isprintable() for line in said.split("\n"))
        assert ("alert(1)" in said) == ("alert(1)" in attempt.detail + attempt.response_body)


def explain(attempt: Attempt) -> str:
    out = StringIO()
    call_command("webhooks", "explain", str(attempt.delivery.uid), stdout=out)
    return out.getvalue()
