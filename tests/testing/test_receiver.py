"""The receiver of the test kit answers as it is told, keeps what it was sent, and knows who sent it."""

import time
from collections.abc import Callable

import pytest
import requests
from django.conf import LazySettings

from djwebhooks import signing
from djwebhooks.exceptions import InvalidSignature
from djwebhooks.testing import Conversation, Receiver, answer, hang, raw, reset, slow


def post(receiver: Receiver, body: bytes = b"{}", **headers: str) -> requests.Response:
    return requests.post(
        receiver.url, body, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=10
    )


def sign(secret: str, body: bytes) -> dict[str, str]:
    now = int(time.time())
    return {"webhook_id": "1", "webhook_timestamp": str(now), "webhook_signature": signing.sign(secret, "1", now, body)}


def test_statuses_are_answered_in_turn() -> None:
    """The last one stays; without any it is 200."""
    with Receiver(500, 429, 204) as receiver, Receiver() as friendly:
        assert [post(receiver).status_code for _ in range(4)] == [500, 429, 204, 204]
        receiver.answers = [503, 200]
        assert [post(receiver).status_code for _ in range(3)] == [503, 200, 200]
        assert post(friendly).status_code == 200


def test_what_was_sent_is_kept() -> None:
    """Method, path, headers in lower case, body."""
    with Receiver() as receiver:
        post(receiver, b'{"a": 1}', X_A="b")

    [received] = receiver.requests
    assert (received.method, received.path, received.headers["x-a"]) == ("POST", "/hook", "b")
    assert (received.body, received.content) == (b'{"a": 1}', {"a": 1})


def test_a_whole_answer() -> None:
    """Its status, its body and its headers."""
    with Receiver(answer(418, b"short and stout", retry_after="9")) as receiver:
        reply = post(receiver)

    assert (reply.status_code, reply.content, reply.headers["retry-after"]) == (418, b"short and stout", "9")


@pytest.mark.parametrize("end", [reset, raw(b""), raw(b"HTTP/1.1 2"), Conversation.close])
def test_a_connection_may_break_off(end: Callable[[Conversation], None]) -> None:
    """In one way or the other; the next answer is for the next request."""
    with Receiver(end, 200) as receiver:
        with pytest.raises(requests.ConnectionError):
            post(receiver)
        assert post(receiver).status_code == 200
        assert receiver.connections == 2


def test_a_receiver_may_hang() -> None:
    """Until the sender has had enough."""
    with Receiver(hang) as receiver, pytest.raises(requests.ReadTimeout):
        requests.post(receiver.url, timeout=0.05)


def test_a_receiver_may_be_slow() -> None:
    """It answers after so many seconds, and not once it has been stopped."""
    with Receiver(slow(0.05, 202), slow(60)) as receiver:
        begun = time.monotonic()
        assert post(receiver).status_code == 202
        assert time.monotonic() - begun >= 0.05
        with pytest.raises(requests.ReadTimeout):
            requests.post(receiver.url, timeout=0.05)


def test_an_answer_may_be_any_function() -> None:
    """Of the conversation, which knows the request."""

    def answer_as_wished(conversation: Conversation) -> None:
        assert conversation.request is not None
        conversation.answer(int(conversation.request.body))

    with Receiver(answer_as_wished) as receiver:
        assert [post(receiver, body).status_code for body in (b"201", b"503")] == [201, 503]


@pytest.mark.parametrize("given", [True, 99, 600, "200", None])
def test_what_is_no_answer_is_refused_at_once(given: object) -> None:
    """Also when it is exchanged, and so is none at all."""
    with pytest.raises(TypeError, match="An answer is a status from 100 to 599, or a function of the conversation, not"):
        Receiver(given)  # type: ignore[arg-type]
    with Receiver() as receiver, pytest.raises(TypeError, match="one answer or more"):
        receiver.answers = []


def test_signatures_are_verified() -> None:
    """With keys, what none of them has signed is answered 401, without using up an answer."""
    secret, other = signing.new_secret(), signing.new_secret()
    with Receiver(204, keys=secret) as receiver:
        assert post(receiver, **sign(secret, b"{}")).status_code == 204
        refused = post(receiver, **sign(other, b"{}"))
        assert (refused.status_code, refused.text[:21]) == (401, "No signature matches:")
        assert post(receiver).status_code == 401
        receiver.keys = [secret, other]
        assert post(receiver, **sign(other, b"{}")).status_code == 204

    first, second, *_ = receiver.requests
    assert first.verify([other, secret]) == 1
    with pytest.raises(InvalidSignature):
        second.verify(secret)


def test_a_malformed_key_is_refused_at_once() -> None:
    """It is a mistake of the test's, not of the sender's."""
    with pytest.raises(ValueError, match="base64"):
        Receiver(keys="whsec_!")


def test_waiting_for_requests_says_how_many_came() -> None:
    """In the words of the test's failure."""
    with Receiver() as receiver:
        post(receiver)
        assert len(receiver.wait_for(1)) == 1
        with pytest.raises(AssertionError, match=r"Only 1 of 2 requests have come within 0\.01 s"):
            receiver.wait_for(2, timeout=0.01)


def test_the_fixture_lets_requests_through(webhook_receiver: Receiver, settings: LazySettings) -> None:
    """Whatever the settings of the project forbid."""
    assert settings.DJWEBHOOKS_ALLOW_HTTP is True
    assert settings.DJWEBHOOKS_ALLOWED_NETWORKS == ("127.0.0.0/8",)
    assert post(webhook_receiver).status_code == 200
