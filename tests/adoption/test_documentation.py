"""The page about moving runs as it is written."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command

from djwebhooks import signing
from djwebhooks.adoption import SYSTEM, adopt
from djwebhooks.events import fire
from djwebhooks.models import WebhookTarget
from djwebhooks.testing import deliver
from tests.adoption.tables import TOKEN, DjWebhooksTarget, make_row, make_webhook
from tests.builders import make_user
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
