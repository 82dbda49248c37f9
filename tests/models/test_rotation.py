"""How a target's keys are replaced, and what its receiver is known to verify with."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import transaction
from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from djwebhooks import encryption
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidSignature, KeyNotAccepted, TargetLocked, UndecryptableSecret
from djwebhooks.models import Delivery, Event, Lane, WebhookTarget
from djwebhooks.signals import delivery_failed, delivery_succeeded
from djwebhooks.signing import verify
from djwebhooks.testing import deliver
from djwebhooks.testing.receiver import Receiver
from djwebhooks.transports.base import Reply, Request
from djwebhooks.worker import work
from tests.builders import live_secrets, make_target
from tests.connections import Thread, second_connection, server_only


@pytest.mark.django_db
def test_a_rotation_replaces_the_key_pair_too() -> None:
    """The public key is a new one, and receivers with either of them verify meanwhile."""
    target = make_target(signatures="v1a")
    old = target.public_key
    target.rotate_secret(overlap=3600)
    fire("a.b", 1)
    [request] = deliver()

    assert target.public_key.startswith("whpk_")
    assert target.public_key != old
    assert [verify(request.body, request.headers, key) for key in (old, target.public_key)] == [0, 0]


def make_pairless(target: WebhookTarget) -> WebhookTarget:
    """Put back the row of *target* as it was before there were key pairs."""
    entries = [{"secret": target.secret, "until": None}]
    WebhookTarget.objects.filter(pk=target.pk).update(secrets=encryption.encrypt(json.dumps(entries)))
    return WebhookTarget.objects.get(pk=target.pk)


@pytest.mark.django_db
def test_a_target_from_before_there_were_pairs_gets_one_when_it_is_needed() -> None:
    """Once, by whoever needs it first, and its secret stays."""
    secret = make_target(signatures="v1 v1a").secret
    target, other = make_pairless(WebhookTarget.objects.get()), WebhookTarget.objects.get()
    fire("a.b", 1)
    [request] = deliver()

    assert verify(request.body, request.headers, [target.public_key]) == 0
    assert verify(request.body, request.headers, [secret]) == 0
    assert target.public_key == other.public_key == WebhookTarget.objects.get().public_key
    assert WebhookTarget.objects.get().secret == secret


@server_only
@pytest.mark.django_db(transaction=True)
def test_completing_keys_waits_for_no_application() -> None:
    """A row that an application keeps locked is an error that says so, and no worker stands still for it."""
    target = make_pairless(make_target())
    with second_connection() as other, transaction.atomic(using=other):
        list(WebhookTarget.objects.using(other).select_for_update())
        with pytest.raises(TargetLocked):
            Thread(target.complete_keyring).result()

    assert target.public_key == WebhookTarget.objects.get().public_key


# -- key checks --------------------------------------------------------------------------------------------------------


def answer_by(*keys: str) -> Callable[[Request], Reply]:
    """A receiver that verifies with these keys, and answers 401 to everything else."""

    def answer(request: Request) -> Reply:
        try:
            verify(request.body, request.headers, keys)
        except InvalidSignature:
            return Reply(request.key, status=401)
        return Reply(request.key, status=200)

    return answer


def outcomes() -> list[tuple[str, str]]:
    return list(Delivery.objects.order_by("sequence").values_list("status", "reason"))


@pytest.mark.django_db
@pytest.mark.parametrize("signatures", ["v1", "v1a", "v1 v1a"])
def test_a_receiver_with_the_newest_key_passes_the_check(signatures: str) -> None:
    """It accepts what that key signs alone, whatever the version, and refuses what it cannot know: both are successes."""
    target = make_target(signatures=signatures)
    target.rotate_secret()
    newest = target.public_key if signatures == "v1a" else target.secret
    events = target.check_keys()
    deliver(answer_by(newest))

    assert [event.name for event in events] == ["webhook.test", "webhook.test"]
    assert outcomes() == [("succeeded", ""), ("succeeded", "unknown_key_refused")]
    [first, second] = target.keys
    assert first.is_accepted
    assert (first.last_refused_at, second.last_accepted_at, second.last_refused_at) == (None, None, None)
    assert target.accepts_unknown_keys is False


@pytest.mark.django_db
def test_a_receiver_with_the_old_key_refuses_the_newest() -> None:
    """The check shows it, while real events arrive all the time, as both keys sign them."""
    target = make_target()
    old, _ = target.secret, target.rotate_secret()
    target.check_keys()
    fire("a.b", 1)
    deliver(answer_by(old))

    assert outcomes() == [("failed", "http_401"), ("succeeded", "unknown_key_refused"), ("succeeded", "")]
    assert not target.keys[0].is_accepted
    assert target.keys[0].last_refused_at is not None


@pytest.mark.django_db
def test_a_receiver_that_verifies_nothing_is_told_of() -> None:
    """It accepts what it cannot know: the check failed, and says so to whoever looks or listens."""
    target, failed = make_target(), []

    def listen(delivery: Delivery, **_: Any) -> None:
        failed.append(delivery.reason)

    delivery_failed.connect(listen)
    target.check_keys()
    deliver(200)
    delivery_failed.disconnect(listen)

    assert outcomes() == [("succeeded", ""), ("failed", "unknown_key_accepted")]
    assert failed == ["unknown_key_accepted"]
    assert target.accepts_unknown_keys is True


@pytest.mark.django_db
def test_nothing_is_known_before_a_check() -> None:
    """An ordinary success says nothing of a single key: all live ones have signed it."""
    target = make_target()
    fire("a.b", 1)
    deliver()

    assert [(key.last_accepted_at, key.last_refused_at) for key in target.keys] == [(None, None)]
    assert target.accepts_unknown_keys is None


@pytest.mark.django_db
@pytest.mark.parametrize("status", [500, 503, 429, 408, 425, 302, 410, 400])
def test_a_check_ends_with_its_first_answer_and_harms_no_target(status: int) -> None:
    """It is never tried again, counts for nothing, disables nobody and obeys no pause: real events go on as before."""
    target = make_target()
    target.check_keys()
    headers = {"retry-after": "3600", "webhook-delivery": "disable"}
    sent = deliver(lambda request: Reply(request.key, status=status, headers=headers))

    lane = Lane.objects.get()
    assert len(sent) == 2
    assert not Delivery.objects.filter(status="pending").exists()
    assert (lane.failure_count, lane.failing_since, lane.disabled_at, lane.held_until) == (0, None, None, None)
    assert target.state == "healthy"
    is_refusal = status in (400, 410)
    assert (target.keys[0].last_refused_at is not None) is is_refusal
    assert (target.accepts_unknown_keys is False) is is_refusal
    fire("a.b", 1)
    assert len(deliver()) == 1


@pytest.mark.django_db
def test_a_check_does_not_hide_that_a_target_fails() -> None:
    """A receiver that answers to checks alone stays degraded."""
    target = make_target()
    fire("a.b", 1)
    deliver(500)
    target.check_keys()
    deliver(answer_by(target.secret))

    assert Lane.objects.get().failure_count == 1


@pytest.mark.django_db
@pytest.mark.parametrize(("to_check", "to_event", "is_suspended"), [(200, 500, True), (500, 200, False)])
def test_a_check_is_no_probe(to_check: int, to_event: int, is_suspended: bool) -> None:
    """A suspended target is judged by the first real event behind it, whatever the check is answered with."""
    target = make_target()
    fire("a.b", 1)
    deliver(200)
    Lane.objects.update(suspended_at=timezone.now() - timedelta(hours=1), cooldown_count=1, failure_count=9)
    target.check_keys()
    fire("a.b", 2)
    sent = deliver(lambda request: Reply(request.key, status=to_event if b"a.b" in request.body else to_check))

    assert len(sent) == 3
    assert (Lane.objects.get().suspended_at is not None) is is_suspended


@pytest.mark.django_db
def test_a_check_without_an_answer_says_nothing() -> None:
    """A receiver that is not reached has neither accepted nor refused."""
    target = make_target()
    target.check_keys()
    deliver(lambda request: Reply(request.key, error="timeout"))

    assert outcomes() == [("failed", "timeout"), ("failed", "timeout")]
    assert target.keys[0].last_refused_at is target.accepts_unknown_keys is None


@pytest.mark.django_db
def test_a_fault_of_our_own_does_not_end_a_check() -> None:
    """Where we could not send at all, nothing was asked yet."""
    make_target().check_keys()
    deliver(lambda request: Reply(request.key, error="no_dns_server"))

    assert outcomes() == [("pending", "no_dns_server")] * 2


@pytest.mark.django_db
def test_a_check_is_signed_by_one_key_and_an_event_by_all() -> None:
    """The newest alone signs the one, nobody's the other, and neither is what a receiver has."""
    target = make_target(signatures="v1 v1a")
    old, old_public, new = target.secret, target.public_key, target.rotate_secret()
    target.check_keys()
    [newest, unknown] = deliver()

    for request in (newest, unknown):
        assert len(request.headers["webhook-signature"].split(" ")) == 2
    assert verify(newest.body, newest.headers, [old, old_public, new, target.public_key]) == 2
    with pytest.raises(InvalidSignature, match="No signature matches"):
        verify(unknown.body, unknown.headers, [old, old_public, new, target.public_key])
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(newest.body, dict(newest.headers))
    assert Webhook(new).verify(newest.body, dict(newest.headers))["type"] == "webhook.test"


@pytest.mark.django_db
def test_a_check_goes_to_its_target_alone_and_stands_in_nobodys_way() -> None:
    """No other target gets it, and on an ordered target other events do not wait for it."""
    target, _ = make_target(is_ordered=True), make_target(url="http://127.0.0.1:9/other")
    target.check_keys()

    assert {request.url for request in deliver()} == {target.target_url}
    assert set(Event.objects.values_list("ordering_key", flat=True)) == {"webhook.test"}


@pytest.mark.django_db
def test_a_check_that_waited_for_long_expires(settings: LazySettings) -> None:
    """What a paused target would say in a week is not what was asked."""
    target = make_target()
    target.pause()
    [event, _] = target.check_keys()

    assert event.expires_at is not None
    assert timedelta(minutes=59) < event.expires_at - timezone.now() <= timedelta(hours=1)
    Event.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    deliver()
    target.resume()
    assert deliver() == []
    assert outcomes() == [("expired", "expired")] * 2


@pytest.mark.django_db
def test_the_check_of_a_key_that_has_ended_is_cancelled() -> None:
    """It could be signed no more, and nothing goes out unsigned."""
    target = make_target()
    target.check_keys()
    target.rotate_secret(overlap=0)

    assert len(deliver(401)) == 1
    assert outcomes() == [("cancelled", "key_retired"), ("succeeded", "unknown_key_refused")]


@pytest.mark.django_db
def test_a_check_can_be_tried_again_by_hand() -> None:
    """After the receiver was given its key, one does not have to begin anew."""
    target = make_target()
    target.check_keys()
    deliver(500)
    for delivery in Delivery.objects.all():
        delivery.retry()
    deliver(answer_by(target.secret))

    assert outcomes() == [("succeeded", ""), ("succeeded", "unknown_key_refused")]
    assert target.keys[0].is_accepted


@pytest.mark.django_db
def test_so_many_checks_are_remembered() -> None:
    """Keys come and go for years; what is known of those that went is forgotten, of the unknown one never."""
    target = make_target()
    for _ in range(13):
        target.rotate_secret()
        target.check_keys()
        deliver(answer_by(target.secret))

    assert len(Lane.objects.get().key_checks["keys"]) == 11
    assert target.accepts_unknown_keys is False
    assert [key.is_accepted for key in target.keys] == [True] * 10


@pytest.mark.django_db(transaction=True)
def test_a_rotation_from_end_to_end() -> None:
    """Over real connections: real events arrive throughout, while the receiver moves from the old key to the new one."""
    with Receiver(204) as receiver:
        target = make_target(url=receiver.url, signatures="v1 v1a")
        receiver.keys = target.secret
        target.rotate_secret()
        fire("a.b", 1)
        target.check_keys()
        work(burst=True)
        with pytest.raises(KeyNotAccepted, match="refuses the newest key"):
            target.finish_rotation()

        receiver.keys = target.public_key
        fire("a.b", 2)
        target.check_keys()
        work(burst=True)
        target.finish_rotation()
        fire("a.b", 3)
        work(burst=True)

    statuses = Delivery.objects.filter(event__name="a.b").values_list("status", "attempt_count")
    assert list(statuses) == [("succeeded", 1)] * 3
    assert [key.is_accepted for key in target.keys] == [True]
    assert len(receiver.requests[-1].headers["webhook-signature"].split(" ")) == 2


# -- finishing ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "has not answered to the newest key alone"),
        (503, "has not answered to the newest key alone"),
        (401, "refuses the newest key"),
        (200, "accepts what it cannot have verified"),
    ],
)
def test_a_rotation_is_not_finished_on_a_guess(answer: int | None, why: str) -> None:
    """The old key goes on signing unless the receiver is known to verify with the newest one."""
    target = make_target()
    old, new = target.secret, target.rotate_secret()
    target.check_keys()
    if answer is not None:
        deliver(answer)

    with pytest.raises(KeyNotAccepted, match=why):
        target.finish_rotation()
    assert live_secrets(WebhookTarget.objects.get()) == [new, old]
    target.finish_rotation(force=True)
    assert live_secrets(WebhookTarget.objects.get()) == [new]


@pytest.mark.django_db
def test_a_rotation_is_finished_at_once() -> None:
    """From then on the newest key signs alone, and what the others sign is worth nothing."""
    target = make_target()
    target.rotate_secret()
    target.check_keys()
    deliver(answer_by(target.secret))
    target.finish_rotation()
    fire("a.b", 1)
    [request] = deliver()

    assert len(request.headers["webhook-signature"].split(" ")) == 1
    assert live_secrets(WebhookTarget.objects.get()) == [target.secret]


@pytest.mark.django_db
def test_the_last_answer_counts() -> None:
    """A receiver that has lost the newest key again is not one that has it."""
    target = make_target()
    target.rotate_secret()
    for answer in (answer_by(target.secret), 401):
        target.check_keys()
        deliver(answer)

    with pytest.raises(KeyNotAccepted, match="refuses the newest key"):
        target.finish_rotation()


@pytest.mark.django_db
def test_another_receiver_is_asked_anew() -> None:
    """What was said at the old address of a target that has moved says nothing of the new one."""
    target = make_target()
    target.rotate_secret()
    target.check_keys()
    deliver(answer_by(target.secret))
    target.target_url += "/moved"
    target.save()

    assert (target.keys[0].last_accepted_at, target.accepts_unknown_keys) == (None, None)
    with pytest.raises(KeyNotAccepted, match="has not answered to the newest key alone"):
        target.finish_rotation()
    target.check_keys()
    deliver(401)
    assert target.keys[0].last_accepted_at is None


@pytest.mark.django_db
def test_another_rotation_asks_anew() -> None:
    """That an earlier key was accepted says nothing of the newest, whoever made it meanwhile."""
    target, other = make_target(), WebhookTarget.objects.get()
    target.rotate_secret()
    target.check_keys()
    deliver(answer_by(target.secret))
    other.rotate_secret()

    with pytest.raises(KeyNotAccepted, match="has not answered to the newest key alone"):
        target.finish_rotation()


@pytest.mark.django_db
def test_without_an_overlap_there_is_nothing_to_finish() -> None:
    """One key is not ended, and needs no check."""
    target = make_target()
    secret = target.secret
    target.finish_rotation()

    assert live_secrets(WebhookTarget.objects.get()) == [secret]


@pytest.mark.django_db
def test_keys_that_cannot_be_opened_are_not_ended(settings: LazySettings) -> None:
    """They may be opened again by a key of the settings; to replace them is the way out, not this."""
    target = make_target()
    settings.SECRET_KEY = "another key, of which nobody has told anybody anything at all"

    for act in (target.finish_rotation, target.check_keys):
        with pytest.raises(UndecryptableSecret):
            act()


@pytest.mark.django_db
def test_succeeded_checks_are_announced_as_successes() -> None:
    """An application that is told of failures is not told of a receiver that does right."""
    target, told = make_target(), []

    def listen(delivery: Delivery, **_: Any) -> None:
        told.append(delivery.reason)

    delivery_succeeded.connect(listen)
    target.check_keys()
    deliver(answer_by(target.secret))
    delivery_succeeded.disconnect(listen)

    assert sorted(told) == ["", "unknown_key_refused"]
