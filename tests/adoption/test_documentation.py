"""The page about moving runs as it is written."""

import hmac
import json
import sys
from collections.abc import Callable
from io import StringIO
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.conf import LazySettings
from django.core.management import call_command

from djwebhooks import signing
from djwebhooks.adoption import SYSTEM, adopt
from djwebhooks.events import fire
from djwebhooks.model_events import read_all
from djwebhooks.models import WebhookTarget
from djwebhooks.testing import deliver
from tests.adoption.tables import TOKEN, URL, DjWebhooksTarget, RestHook, make_row, make_webhook
from tests.builders import make_user
from tests.library.models import Author
from tests.test_docs import DOCS, Block, read_blocks

pytestmark = pytest.mark.django_db

BLOCKS = read_blocks(DOCS / "how-to" / "migrating.rst")


def find_block(text: str) -> Block:
    [block] = [block for block in BLOCKS if text in block.text]
    return block


def test_the_dry_run_is_shown_as_it_is(settings: LazySettings) -> None:
    """Its numbers, its lines, and why a row is left out."""
    settings.DJWEBHOOKS_ALLOW_HTTP = False
    ada = make_user("ada")
    rows = [
        ("project.delete", "", "https://shop.example/hook"),
        ("project.update", "", "https://shop.example/hook"),
        ("project.update", "p-42", "https://shop.example/p"),
        ("project.update", "", "http://shop.example/old"),
    ]
    for pk, (event, identifier, url) in enumerate(rows, start=1):
        make_row(DjWebhooksTarget, pk=pk, owner_id=ada.pk, event=event, identifier=identifier, target_url=url)
    output = StringIO()
    call_command("webhooks", "adopt", "dj-webhooks", "--dry-run", stdout=output, no_color=True)
    [shown] = [block for block in BLOCKS if "rows in djwebhooks_webhooktarget" in block.text]

    assert output.getvalue().startswith(shown.text.partition("\n")[2].removesuffix("…\n"))


def test_the_function_that_finds_owners_does() -> None:
    """Of rows of users that are active."""
    names: dict[str, Any] = {}
    exec(find_block("def owner_of").text, names)
    owner_of: Callable[[Any], Any] = names["owner_of"]
    ada = make_user("ada")
    for user in (ada, make_user("bob", is_active=False)):
        make_row(DjWebhooksTarget, owner_id=user.pk, event="a", target_url="https://shop.example/")
    adopt("dj-webhooks", owner_of=owner_of)

    assert list(WebhookTarget.objects.values_list("owner", flat=True)) == [ada.pk]


def test_the_settings_of_rest_hooks_become_those_that_are_shown(settings: LazySettings) -> None:
    """As the command translates them."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for caption, names in (("before", before), ("after", after)):
        [block] = [block for block in BLOCKS if block.caption == caption]
        exec(block.text, {}, names)
    settings.HOOK_EVENTS = before["HOOK_EVENTS"]

    assert adopt("drf-hooks").settings == after


def test_a_receiver_that_knows_its_token_knows_its_secret() -> None:
    """What it computes verifies what the adopted target signs."""
    names: dict[str, Any] = {}
    exec(find_block("def as_secret").text, names)
    make_webhook("shop.Order/create", tokens=(TOKEN,))
    adopt("django-webhook", owner_of=lambda row: SYSTEM)
    fire("shop.Order.create", {"id": 1})
    [request] = deliver()

    assert signing.verify(request.body, request.headers, names["as_secret"](TOKEN)) == 0


def install(caption: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the block with this caption as the module that it is, and return its names."""
    [block] = [block for block in BLOCKS if block.caption == caption]
    package, _, name = caption.removesuffix(".py").partition("/")
    module = ModuleType(f"{package}.{name}")
    exec(block.text, vars(module))
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return vars(module)


def test_receivers_of_dj_webhooks_get_forms_at_first(settings: LazySettings) -> None:
    """The target that the command makes with the sender of the page sends one."""
    names: dict[str, Any] = {}
    exec(find_block("FormSender").text, names)
    settings.DJWEBHOOKS_SENDERS = names["DJWEBHOOKS_SENDERS"]
    ada = make_user("ada")
    make_row(DjWebhooksTarget, owner_id=ada.pk, event="project.update", target_url=URL)
    call_command("webhooks", "adopt", "dj-webhooks", "--sender", "form", stdout=StringIO())
    event = fire("project.update", {"title": "x"}, owner=ada)
    [request] = deliver()

    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(request.body.decode())) == {
        "title": "x",
        "hash": event.uid.hex,
        "owner": "ada",
        "event": "project.update",
        "attempt": "1",
    }

    WebhookTarget.objects.update(sender="")
    fire("project.update", {"title": "y"}, owner=ada)
    [request] = deliver()

    assert json.loads(request.body) == {"title": "y", "event": "project.update", "owner": "ada"}


def test_hooks_can_go_out_as_rest_hooks_sent_them(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the row as Django's serializer writes it."""
    names = install("library/webhooks.py", monkeypatch)
    exec(find_block("library.webhooks.serialize").text, names)
    settings.DJWEBHOOKS_SENDERS = names["DJWEBHOOKS_SENDERS"]
    # The books of these tests are nobody's.
    told = names["DJWEBHOOKS_MODEL_EVENTS"]["book.added"] | {"on": "library.Author.created", "owner": None}
    [model_event] = read_all({"book.added": told})
    ada = make_user("ada")
    make_row(RestHook, user_id=ada.pk, event="book.added", target=URL)
    adopt("django-rest-hooks", sender="rest_hooks")
    author = Author.objects.create(name="Ann")
    fire(model_event.name, model_event.payload(author, {}), owner=ada)
    [request] = deliver()

    assert json.loads(request.body) == {
        "hook": {"event": "book.added"},
        "data": {"model": "library.author", "pk": author.pk, "fields": {"name": "Ann", "born_on": None}},
    }


def test_a_receiver_of_django_webhook_can_check_what_it_checked(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each secret signs the timestamp, a colon and the body, as the package did it; and the standard's signature is there."""
    install("shop/senders.py", monkeypatch)
    settings.DJWEBHOOKS_SENDERS = {"old": "shop.senders.DjangoWebhookSender"}
    old = make_webhook("shop.Order/create", tokens=("o" * 24, TOKEN))
    adopt("django-webhook", owner_of=lambda row: SYSTEM, sender="old")
    fire("shop.Order.create", {"id": 1})
    [request] = deliver()
    timestamp = request.headers["django-webhook-request-timestamp"]
    signed = f"{timestamp}:{request.body.decode()}".encode()

    assert request.headers["django-webhook-uuid"] == str(old.uuid)
    assert request.headers["django-webhook-signature-v1"] == ",".join(
        hmac.new(token.encode(), signed, "sha256").hexdigest() for token in (TOKEN, "o" * 24)
    )
    assert signing.verify(request.body, request.headers, WebhookTarget.objects.get().secret) == 0
    assert json.loads(request.body) == {"object": {"id": 1}, "topic": "shop.Order/create", "object_type": "shop.Order"}
