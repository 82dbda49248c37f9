"""Tests that show secrets and must fail for it: ``test_secrets.py`` runs them, and pytest finds them by their name only."""

import logging
from collections.abc import Callable

import pytest

from djwebhooks import signing
from djwebhooks.models import WebhookTarget
from tests.builders import make_target
from tests.keys import make_key

SHOWN: dict[str, Callable[[WebhookTarget], object]] = {
    "secret": lambda target: target.secret,
    "secret without its prefix": lambda target: target.secret.removeprefix("whsec_"),
    "bytes that sign": lambda target: bytes(signing.key(target.secret)),
    "secret of no target": lambda target: signing.new_secret(),
    "pair": lambda target: target.keyring.newest.pair,
    "header": lambda target: target.headers["x-password"],
    "private key": lambda target: make_key("Ed25519").splitlines()[1],
}


@pytest.mark.django_db
@pytest.mark.parametrize("show", [print, logging.getLogger("djwebhooks.worker").error], ids=["printed", "logged"])
@pytest.mark.parametrize("name", SHOWN)
def test_a_secret_is_shown(name: str, show: Callable[[str], None]) -> None:
    """Its end is an error."""
    told = {"type": "jwt", "algorithm": "EdDSA", "key": make_key("Ed25519")}
    target = make_target(headers={"x-password": "hunter2 hunter2"}, authentication=told)

    show(f"It is {SHOWN[name](target)}.")


@pytest.mark.django_db
def test_nothing_secret_is_shown() -> None:
    """Its end is well."""
    target = make_target(headers={"x-password": "hunter2 hunter2"})

    print(repr(target), vars(target), target.public_key)  # noqa: T201
