"""A target's keys: kept encrypted, signing together while they overlap, replaced one by one."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.views.debug import ExceptionReporter

from djwebhooks import encryption, signing
from djwebhooks.models.keyring import LIVE_KEYS, Key, Keyring, new_secrets

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def make_ring(count: int) -> Keyring:
    """Keys that were made an hour apart, each to overlap for a day."""
    ring = Keyring()
    for number in range(count):
        ring = ring.rotate(NOW + number * HOUR, 24 * HOUR)
    return ring


def test_what_is_sealed_comes_back() -> None:
    """All that a ring says survives, and the token shows neither half of a pair nor a secret."""
    ring = make_ring(3)
    token = ring.seal()

    assert Keyring.open(token) == ring
    assert not [part for key in ring.keys for part in (key.secret[6:], key.pair[5:], key.public_key[5:]) if part in token]


def test_a_ring_is_printed_without_its_secrets() -> None:
    """Neither a log line nor a report of an error has them."""
    ring = make_ring(2)

    assert "created_at" in repr(ring)
    assert not [key for key in ring.keys if key.secret in repr(ring) or key.pair in repr(ring)]


def test_a_report_of_an_error_shows_no_key() -> None:
    """What was mailed to the administrators, with every local variable, has neither half of a pair and no secret."""
    broken = replace(make_ring(1).newest, secret="whsec_☃secret")
    with pytest.raises(ValueError, match="other characters") as error:
        broken.read_signers(["v1a", "v1"])
    report = ExceptionReporter(None, error.type, error.value, error.tb).get_traceback_html()

    assert "********************" in report
    assert not [text for text in (broken.pair, broken.pair[5:], "☃secret") if text in report]


def test_a_new_target_has_one_key_with_both_parts() -> None:
    """From the start there is something to sign with, whichever version is wanted later."""
    [key] = Keyring.open(new_secrets()).keys
    content = (key.secret, key.pair)

    assert key.until is None
    assert [signing.sign(text, "m", 1, b"1").partition(",")[0] for text in content] == ["v1", "v1a"]
    assert key.id == signing.thumbprint(key.public_key)
    assert new_secrets() != new_secrets()


def test_the_others_sign_until_the_overlap_is_over() -> None:
    """The end of a key is counted from the rotation that replaced it; later ones do not prolong it."""
    ring = make_ring(3)

    assert [key.until for key in ring.keys] == [None, NOW + 26 * HOUR, NOW + 25 * HOUR]
    assert ring.live(NOW + 24 * HOUR) == ring.keys
    assert ring.live(NOW + 25 * HOUR) == ring.keys[:2]
    assert ring.live(NOW + 26 * HOUR) == ring.keys[:1] == (ring.newest,)


def test_a_rotation_drops_what_has_ended() -> None:
    """A retired key is nowhere any more, and without an overlap that is at once."""
    ring = make_ring(2)

    assert ring.rotate(NOW + 48 * HOUR, HOUR).keys[1:] == (Key(*parts_of(ring.newest), until=NOW + 49 * HOUR),)
    assert len(ring.rotate(NOW + 48 * HOUR, timedelta()).keys) == 1


def parts_of(key: Key) -> tuple[str, str, datetime | None]:
    return key.secret, key.pair, key.created_at


def test_a_ring_is_bounded() -> None:
    """Every live key costs each webhook a signature."""
    ring = make_ring(LIVE_KEYS + 3)

    assert len(ring.keys) == LIVE_KEYS
    assert ring.keys[:2] == tuple(sorted(ring.keys[:2], key=lambda key: key.created_at or NOW, reverse=True))


def test_keys_from_before_there_were_pairs_are_completed() -> None:
    """They keep their secrets and their ends, and get a pair; the others are left as they are."""
    entries = [{"secret": signing.new_secret(), "until": None}, {"secret": signing.new_secret(), "until": NOW.isoformat()}]
    old = Keyring.open(encryption.encrypt(json.dumps(entries)))
    ring = old.rotate(NOW - HOUR, 24 * HOUR)

    assert not old.is_complete
    assert not ring.is_complete
    assert ring.complete().is_complete
    assert [key.secret for key in ring.complete().keys] == [key.secret for key in ring.keys]
    assert [key.until for key in ring.complete().keys] == [None, NOW + 23 * HOUR, NOW]
    assert ring.complete().newest == ring.newest
    assert ring.complete().complete().keys[2].created_at is None
