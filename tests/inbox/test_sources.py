"""What ``DJWEBHOOKS_INBOX`` may say, and that what is wrong in it is found before anything is sent."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings

from djwebhooks.exceptions import ConfigurationError
from djwebhooks.inbox.schemes import Hmac, Standard
from djwebhooks.inbox.sources import Rate, find_source, read_source
from tests.inbox.test_checks import list_messages

GOOD = {"scheme": "github", "secrets": ["a very private secret"]}
STANDARD = {"scheme": "standard", "secrets": ["whsec_" + "a" * 32]}
SHOPIFY = {"scheme": "hmac", "header": "X-Shopify-Hmac-Sha256", "encoding": "base64", "secrets": ["x"]}


def test_a_source_is_what_the_settings_say(settings: LazySettings) -> None:
    """Options go to the source or to its scheme, and the rest has defaults."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = [timedelta(minutes=1)]
    settings.DJWEBHOOKS_INBOX = {"shop": {**SHOPIFY, "body_limit": 10, "rate_limit": "5/hour"}}
    source = find_source("shop")

    assert source is not None
    assert source.scheme == Hmac(header="X-Shopify-Hmac-Sha256", encoding="base64")
    assert (source.name, source.body_limit, source.rate, source.pauses) == ("shop", 10, Rate(5, 3600), [60])
    assert read_source("x", {**GOOD, "retry_schedule": [1, 2.5]}).pauses == [1, 2.5]
    assert read_source("x", GOOD).rate is None
    assert read_source("x", {**STANDARD, "tolerance": 5}).scheme == Standard(tolerance=5)
    assert find_source("elsewhere") is None


def test_secrets_hide(settings: LazySettings) -> None:
    """Neither a source nor its list of secrets shows them to who only looks."""
    source = read_source("github", GOOD)

    assert source.secrets == ["a very private secret"]
    assert "private" not in repr(source) + repr(source.secrets)


#: Options that cannot work, and what is said of them.
FAULTS: list[tuple[Any, str]] = [
    (None, "must be a dictionary whose 'scheme' is one of standard, github, stripe, hmac, none, not None"),
    ("github", "must be a dictionary"),
    ({"secrets": ["x"]}, "not None"),
    ({**GOOD, "scheme": "gitlab"}, "not 'gitlab'"),
    ({**GOOD, "scheme": ["github"]}, "not ['github']"),
    ({**GOOD, "secret": "x"}, "has the option 'secret', which means nothing: there are scheme, secrets, body_limit"),
    ({**GOOD, "tolerance": 5}, "has the option 'tolerance', which means nothing"),
    ({**GOOD, "name": "x"}, "has the option 'name', which means nothing"),
    ({**GOOD, "secrets": []}, "'secrets' is empty"),
    ({"scheme": "github"}, "'secrets' is empty"),
    ({**GOOD, "secrets": "x"}, "'secrets' must be a list"),
    ({**GOOD, "secrets": ["x", ""]}, "is a variable of the environment missing?"),
    ({**GOOD, "secrets": [None]}, "'secrets' must be a list of texts"),
    ({"scheme": "none", "secrets": ["x"]}, "'secrets' must be empty"),
    ({"scheme": "standard", "secrets": ["whsec_AAAA"]}, "A secret is whsec_ and 24 to 64 bytes in base64; this one has 3 bytes"),
    ({"scheme": "standard", "secrets": ["whsk_AAAA"]}, "only the sender has"),
    ({**STANDARD, "tolerance": 0}, "'tolerance' must be seconds above 0, not 0"),
    ({**STANDARD, "prefix": "a b"}, "'prefix' must be the name of a header"),
    ({**STANDARD, "prefix": ""}, "'prefix' must be what the names of its headers begin with"),
    ({**STANDARD, "id_header": "X-Id"}, "'id_header' must be left out: the id is in the header webhook-id"),
    ({**STANDARD, "id_field": "id"}, "'id_field' must be left out"),
    ({"scheme": "stripe", "secrets": ["x"], "tolerance": "5"}, "'tolerance'"),
    ({"scheme": "stripe", "secrets": ["x"], "header": ""}, "'header' must be the name of the header"),
    ({"scheme": "hmac", "secrets": ["x"]}, "it is missing"),
    ({**SHOPIFY, "header": "a b"}, "'header' must be the name of a header, with - for each _, not 'a b'"),
    ({**SHOPIFY, "header": "X_Signature"}, "with - for each _, not 'X_Signature'"),
    ({**SHOPIFY, "id_header": "X_Id"}, "'id_header' must be the name of a header, with - for each _"),
    ({**SHOPIFY, "algorithm": "md5"}, "'algorithm' must be one of sha1, sha256, sha384, sha512, not 'md5'"),
    ({**SHOPIFY, "encoding": "utf-8"}, "'encoding' must be one of hex, base64"),
    ({**SHOPIFY, "encoding": []}, "'encoding'"),
    ({**SHOPIFY, "prefix": 1}, "'prefix' must be a text"),
    ({**SHOPIFY, "id_header": 1}, "'id_header' must be the name of a header, with - for each _, not 1"),
    ({**SHOPIFY, "id_field": None}, "'id_field' must be a text"),
    ({**SHOPIFY, "event_field": 1}, "'event_field' must be a text, not 1"),
    ({**GOOD, "event_field": "action"}, "'event_field' must be left out: the event is in the header X-GitHub-Event"),
    ({**GOOD, "body_limit": 0}, "'body_limit' must be a whole number of bytes above 0, not 0"),
    ({**GOOD, "body_limit": True}, "'body_limit'"),
    ({**GOOD, "rate_limit": "5 a day"}, "'rate_limit' must be None or such as '600/minute'"),
    ({**GOOD, "rate_limit": 5}, "'rate_limit'"),
    ({**GOOD, "keep_rejected": "no"}, "'keep_rejected' must be True or False"),
    ({**GOOD, "headers": "x-id"}, "'headers' must be a list"),
    ({**GOOD, "headers": ["x id"]}, "'headers' must be a list of names of headers"),
    ({**GOOD, "headers": ["x_id"]}, "with - for each _, not ['x_id']"),
    ({**GOOD, "retry_schedule": 5}, "'retry_schedule' must be None or a list"),
    ({**GOOD, "retry_schedule": [-1]}, "'retry_schedule'"),
]


@pytest.mark.parametrize(("options", "words"), FAULTS)
def test_what_cannot_work_is_found_at_the_start(settings: LazySettings, options: Any, words: str) -> None:
    """One error that says which source and option it is, what stands there and what may; never a secret."""
    settings.DJWEBHOOKS_INBOX = {"some": options, "github": GOOD, "shop": GOOD}

    [error] = list_messages()

    assert (error.id, error.msg.startswith("DJWEBHOOKS_INBOX['some']")) == ("djwebhooks_inbox.E001", True)
    assert words in error.msg
    assert "private" not in error.msg
    with pytest.raises(ConfigurationError) as raised:
        find_source("some")
    assert str(raised.value) == error.msg


TARGET = "https://shop.example.com/feed/?target=1"
PUBLIC = "whpk_" + "A" * 43 + "="
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheme": "github", "secrets": ["private"], "feed_url": TARGET}, "is for sources of djwebhooks"),
        ({"prefix": "svix", "feed_url": TARGET}, "is for sources of djwebhooks"),
        ({"feed_url": "https://10.0.0.1/?target=1"}, "'feed_url' cannot be asked: The address 10.0.0.1 is forbidden"),
        ({"feed_url": 5}, "'feed_url' cannot be asked: A URL is a string, not 5"),
        ({"feed_url": "https://shop.example.com/feed/"}, "must name the target"),
        ({"feed_url": f"{TARGET}&after=5"}, "must name the target, and nothing else"),
        ({"feed_url": TARGET, "secrets": [PUBLIC]}, "needs the target's secret (whsec_…)"),
    ],
)
def test_a_feed_that_cannot_be_asked_is_found(options: dict[str, Any], words: str) -> None:
    """Before anything is missing."""
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        read_source("some", {"scheme": "standard", "secrets": [SECRET], **options})


def test_the_feed_is_asked_with_what_can_sign() -> None:
    """A public key beside the secret verifies, and no more."""
    source = read_source("some", {"scheme": "standard", "secrets": [PUBLIC, SECRET], "feed_url": TARGET})

    assert list(source.signing_secrets) == [SECRET]


@pytest.mark.parametrize("name", ["a b", "", "a/b", "a" * 65, 5])
def test_names_are_parts_of_addresses(settings: LazySettings, name: Any) -> None:
    """Others could never be reached."""
    settings.DJWEBHOOKS_INBOX = {name: GOOD, "github": GOOD, "shop": GOOD}

    assert ["a source's name is a part of its address" in message.msg for message in list_messages()] == [True]


def test_the_setting_is_a_dictionary(settings: LazySettings) -> None:
    """What else it is may have secrets, and is not shown."""
    settings.DJWEBHOOKS_INBOX = [GOOD]

    assert [message.msg for message in list_messages()] == ["DJWEBHOOKS_INBOX must be a dictionary, not a list."]
    with pytest.raises(ConfigurationError, match="must be a dictionary, not a list"):
        find_source("shop")


def test_sources_are_read_once(settings: LazySettings) -> None:
    """Every request and every attempt asks for one; another value of the setting counts at once."""
    settings.DJWEBHOOKS_INBOX = {"shop": GOOD}
    source = find_source("shop")
    assert find_source("shop") is source

    settings.DJWEBHOOKS_INBOX = {"shop": {**GOOD, "body_limit": 5}}
    changed = find_source("shop")
    assert changed is not None
    assert changed.body_limit == 5
