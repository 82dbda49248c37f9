"""What goes on the wire: headers, signatures, bytes; and what an answer means for its delivery."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection
from standardwebhooks import Webhook

from djwebhooks import __version__, build, database, lanes, messages, signing, verdicts
from djwebhooks.build import see_states
from djwebhooks.database import read_clock
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.lanes import Held, Outcome, Work
from djwebhooks.messages import Prepared
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.retry import MOST_OWN_FAULTS
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from djwebhooks.work import Flight
from tests.builders import make_target, make_user

DB = "default"
URLS = [f"http://127.0.0.1/{number}" for number in range(3)]
PAYLOAD = {"title": "é", "text": "</script>\u2028"}

pytestmark = pytest.mark.django_db


class Sender:
    """A worker's part up to the transport."""

    def __init__(self) -> None:
        dispatch(DB)
        worker_id = lanes.enlist(DB, "test", "here:1")
        assert isinstance(worker_id, int)
        self.worker_id = worker_id
        self.held: dict[int, Held] = {held.target_id: held for held in lanes.lease(DB, worker_id, 100)}
        self.works = self.take()

    def take(self) -> list[Work]:
        return lanes.take(DB, dict.fromkeys(self.held, 100), self.held, read_clock(DB))

    def prepare(self, at: datetime | None = None) -> Prepared:
        return messages.prepare(DB, self.works, self.held, at or read_clock(DB))

    def record(self, outcomes: Iterable[Outcome]) -> None:
        lanes.record(DB, self.worker_id, list(outcomes), read_clock(DB))

    def judge(self, reply: Reply) -> Outcome:
        work, target, _ = self.prepare().ready[0]
        now = read_clock(DB)
        return verdicts.judge(Flight(work, target, target.target_url, now, 0.0), reply, now)


def request_for(target: WebhookTarget) -> Request:
    return next(request for _, to, request in Sender().prepare().ready if to == target)


def ends_of(prepared: Prepared) -> list[tuple[str, str]]:
    return [(outcome.status, outcome.reason) for outcome in prepared.outcomes]


# -- requests ----------------------------------------------------------------------------------------------------------


def test_the_headers_are_exactly_these() -> None:
    """The headers of Standard Webhooks, ours, the content type, and nothing else."""
    target = make_target()
    event = fire("a.b", PAYLOAD)
    sender = Sender()
    at = read_clock(DB)

    [(work, _, request)] = sender.prepare(at).ready

    signature = request.headers["webhook-signature"]
    assert request.headers == {
        "webhook-id": str(event.uid),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
        "webhook-sequence": "1",
        "webhook-attempt": "1",
        "user-agent": f"djwebhooks/{__version__}",
        "content-type": "application/json",
    }
    assert signature.startswith("v1,")
    assert (request.key, request.url) == (work.delivery_id, target.target_url)


def test_the_reference_library_verifies_what_is_sent() -> None:
    """standardwebhooks accepts headers and body with the target's secret, and refuses them with another one."""
    target, other = make_target(url="http://127.0.0.1/1"), make_target(url="http://127.0.0.1/2")
    fire("a.b", PAYLOAD)
    request = request_for(target)

    received = Webhook(target.secret).verify(request.body, dict(request.headers))

    assert received["data"] == PAYLOAD
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(other.secret).verify(request.body, dict(request.headers))


def test_old_and_new_secrets_sign_while_they_overlap() -> None:
    """After a rotation both secrets verify; when the overlap is over, the new one alone."""
    target = make_target()
    old = target.secret
    new = target.rotate_secret(overlap=3600)
    fire("a.b", 1)
    sender = Sender()

    [(_, _, request)] = sender.prepare().ready
    [(_, _, later)] = sender.prepare(read_clock(DB) + timedelta(hours=2)).ready

    for secret in (old, new):
        Webhook(secret).verify(request.body, dict(request.headers))
    assert len(later.headers["webhook-signature"].split()) == 1


@pytest.mark.parametrize(
    ("of_target", "of_settings", "expected"),
    [
        ("", ("v1",), ["v1"]),
        ("", ["v1a"], ["v1a"]),
        ("", ("v1a", "v1"), ["v1", "v1a"]),
        ("v1a", ("v1",), ["v1a"]),
        ("v1 v1a", ("v1a",), ["v1", "v1a"]),
    ],
)
def test_a_target_gets_the_signatures_that_it_wants(
    settings: LazySettings, of_target: str, of_settings: object, expected: list[str]
) -> None:
    """Its own word goes before the setting's, and each of them is right."""
    settings.DJWEBHOOKS_SIGNATURES = of_settings
    target = make_target(signatures=of_target)
    fire("a.b", PAYLOAD)

    request = request_for(target)

    header = request.headers["webhook-signature"]
    assert [entry.partition(",")[0] for entry in header.split(" ")] == expected
    keys = {"v1": target.secret, "v1a": target.public_key}
    assert [signing.verify(request.body, request.headers, keys[version]) for version in expected] == [0] * len(expected)


def test_the_reference_library_verifies_v1_beside_v1a() -> None:
    """A receiver that knows nothing of v1a loses nothing when its target gets both, also while keys overlap."""
    target = make_target(signatures="v1 v1a")
    secrets = [target.secret, target.rotate_secret()]
    fire("a.b", PAYLOAD)

    request = request_for(target)

    assert len(request.headers["webhook-signature"].split(" ")) == 4
    for secret in secrets:
        assert Webhook(secret).verify(request.body, dict(request.headers))["data"] == PAYLOAD


def test_nothing_goes_out_unsigned(settings: LazySettings) -> None:
    """A setting that names no version is an error of ours, which waits until it is mended."""
    settings.DJWEBHOOKS_SIGNATURES = ()
    make_target()
    fire("a.b", 1)
    sender = Sender()

    assert sender.prepare().ready == []
    assert ends_of(sender.prepare()) == [("pending", "internal_error")]
    settings.DJWEBHOOKS_SIGNATURES = ("v1",)
    assert len(sender.prepare().ready) == 1


def test_additional_headers_are_sent_and_replace_none_of_ours() -> None:
    """A target's own headers go along; should one have our name after all, ours counts."""
    target = make_target(headers={"x-tenant": "acme", "webhook-id": "forged"})
    event = fire("a.b", 1)

    headers = request_for(target).headers

    assert headers["x-tenant"] == "acme"
    assert headers["webhook-id"] == str(event.uid)


def test_sequence_and_attempt_are_told() -> None:
    """webhook-sequence is the place in the lane; webhook-attempt counts what was sent before."""
    target = make_target()
    fire("a.b", 1)
    fire("a.b", 2)
    dispatch(DB)
    Delivery.objects.filter(sequence=1).update(status="succeeded", due_at=None)
    Delivery.objects.filter(sequence=2).update(attempt_count=4)

    headers = request_for(target).headers

    assert (headers["webhook-sequence"], headers["webhook-attempt"]) == ("2", "5")


def test_limits_come_from_the_settings(settings: LazySettings) -> None:
    """Time and size limits are read when a request is made."""
    settings.DJWEBHOOKS_TIMEOUT = timedelta(seconds=3)
    settings.DJWEBHOOKS_CONNECT_TIMEOUT = 1.5
    settings.DJWEBHOOKS_RESPONSE_LIMIT = 77
    target = make_target()
    fire("a.b", 1)

    request = request_for(target)

    assert (request.timeout, request.connect_timeout, request.response_limit) == (3.0, 1.5, 77)


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_the_standard_body() -> None:
    """Type, timestamp of the event's creation, and the payload's own text; an owner's target is not told the owner."""
    owner = make_user()
    target = make_target(owner)
    event = fire("a.b", PAYLOAD, owner=owner)
    event.refresh_from_db()

    body = json.loads(request_for(target).body)

    assert list(body) == ["type", "timestamp", "data"]
    assert (body["type"], body["data"]) == ("a.b", PAYLOAD)
    assert datetime.fromisoformat(body["timestamp"]) == event.created_at


def test_a_cloudevent_in_binary_mode_says_in_headers_what_it_is() -> None:
    """Its body is the payload alone, with its content type. Others of the same event are as they always are."""
    ada = make_user("ada")
    binary, plain = make_target(ada, url=URLS[0], envelope="cloudevents-binary"), make_target(ada, url=URLS[1])
    system = make_target(url=URLS[2], envelope="cloudevents-binary")
    event = fire("a.b", PAYLOAD, owner=ada)
    event.refresh_from_db()

    sent = {target: request for _, target, request in Sender().prepare().ready}

    told = {name: value for name, value in sent[binary].headers.items() if name.startswith("ce-")}
    assert json.loads(sent[binary].body) == PAYLOAD
    assert sent[binary].headers["content-type"] == "application/json"
    assert (told["ce-id"], told["ce-type"]) == (sent[binary].headers["webhook-id"], "a.b")
    assert datetime.fromisoformat(told["ce-time"]) == event.created_at
    assert {name: value for name, value in sent[system].headers.items() if name.startswith("ce-")} == told | {"ce-owner": "ada"}
    assert not any(name.startswith("ce-") for name in sent[plain].headers)


def test_system_targets_are_told_the_owner() -> None:
    """A target without an owner sees everybody's events, so it learns whose each one is."""
    system = make_target()
    fire("a.b", 1, owner=make_user("ada"))

    assert json.loads(request_for(system).body)["owner"] == "ada"


def test_the_owner_is_shown_as_the_setting_says(settings: LazySettings) -> None:
    """DJWEBHOOKS_OWNER_FIELD names the attribute that payloads show."""
    settings.DJWEBHOOKS_OWNER_FIELD = "email"
    system = make_target()
    fire("a.b", 1, owner=make_user("ada", email="ada@example.com"))

    assert json.loads(request_for(system).body)["owner"] == "ada@example.com"


def test_a_deleted_owner_is_shown_by_its_key() -> None:
    """The event of an owner that is gone is sent all the same."""
    system = make_target()
    owner = make_user("ada")
    key = owner.pk
    fire("user.deleted", 1, owner=owner)
    owner.delete()

    assert json.loads(request_for(system).body)["owner"] == str(key)


def test_each_target_has_its_own_format(settings: LazySettings) -> None:
    """A target's envelope goes before the setting's; one event has one body per format, whatever the number of targets."""
    settings.DJWEBHOOKS_ENVELOPE = "cloudevents"
    owner = make_user()
    envelopes = ["standard", "flat", "", "flat"]
    targets = [
        make_target(owner, url=f"http://127.0.0.1/{number}", envelope=envelope) for number, envelope in enumerate(envelopes)
    ]
    fire("a.b", {"x": 1}, owner=owner)

    sent = {target: request for _, target, request in Sender().prepare().ready}

    bodies = [json.loads(sent[target].body) for target in targets]
    assert [sorted(body) for body in bodies[:2]] == [["data", "timestamp", "type"], ["event", "owner", "x"]]
    assert bodies[2]["specversion"] == "1.0"
    assert [sent[target].headers["content-type"] for target in targets] == [
        "application/json", "application/json", "application/cloudevents+json", "application/json",
    ]  # fmt: skip
    assert sent[targets[1]].body == sent[targets[3]].body
    assert sorted(Body.objects.values_list("format", flat=True)) == ["cloudevents", "flat", "standard"]


def test_the_body_that_was_written_first_is_sent() -> None:
    """Whoever comes second sends the first one's bytes."""
    target = make_target()
    event = fire("a.b", 1)
    database.insert_many(DB, Body, ("event", "format", "content"), [(event.pk, "standard+owner", b"first")])
    database.insert_many(DB, Body, ("event", "format", "content"), [(event.pk, "standard+owner", b"second")])

    assert request_for(target).body == b"first"


def test_a_body_that_is_written_meanwhile_is_sent() -> None:
    """When another worker writes the body a moment before this one does, both send the other's bytes."""
    target = make_target()
    event = fire("a.b", 1)
    overtaken = []

    def overtake(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if "djw_body" in sql and "INSERT" in sql and not overtaken:
            overtaken.append(sql)
            Body.objects.create(event=event, format="standard+owner", content=b"theirs")
        return execute(sql, params, many, context)

    sender = Sender()
    with connection.execute_wrapper(overtake):
        [(_, _, request)] = sender.prepare().ready

    assert overtaken
    assert (request.url, request.body) == (target.target_url, b"theirs")


def test_a_retry_has_the_same_id_and_bytes(settings: LazySettings) -> None:
    """Whatever was renamed or reconfigured since the first attempt, a retry repeats it; only time and signature are new."""
    make_target(envelope="standard")
    owner = make_user("ada")
    fire("a.b", 1, owner=owner)
    sender = Sender()
    [(_, _, first)] = sender.prepare().ready
    owner.username = "countess"
    owner.save()
    settings.DJWEBHOOKS_OWNER_FIELD = "pk"

    [(_, _, second)] = sender.prepare(read_clock(DB) + timedelta(hours=1)).ready

    assert second.body == first.body
    assert second.headers["webhook-id"] == first.headers["webhook-id"]
    assert second.headers["webhook-timestamp"] != first.headers["webhook-timestamp"]
    assert second.headers["webhook-signature"] != first.headers["webhook-signature"]


def test_a_payload_that_fits_no_format_ends_its_delivery() -> None:
    """The flat envelope needs an object; what is none fails, and stops no other."""
    flat = make_target(url="http://127.0.0.1/1", envelope="flat")
    other = make_target(url="http://127.0.0.1/2")
    fire("a.b", [1, 2])

    prepared = Sender().prepare()

    assert ends_of(prepared) == [("failed", "invalid_payload")]
    assert prepared.outcomes[0].work.target_id == flat.pk
    assert [target for _, target, _ in prepared.ready] == [other]


def test_many_requests_take_few_queries(django_assert_max_num_queries: Any) -> None:
    """Preparing 60 requests of 20 events costs no more than a handful of queries."""
    for number in range(3):
        make_target(url=f"http://127.0.0.1/{number}")
    owner = make_user()
    for number in range(20):
        fire("a.b", number, owner=owner)
    sender = Sender()
    at = read_clock(DB)

    with django_assert_max_num_queries(5):
        assert len(sender.prepare(at).ready) == 60


# -- without a request -------------------------------------------------------------------------------------------------


def test_a_payload_that_is_not_built_yet_is_asked_for() -> None:
    """Without a payload there is neither a request nor an outcome."""
    make_target()
    Event.objects.create(name="a.b", hook="nowhere:nothing", call="[]")
    sender = Sender()

    prepared = sender.prepare()

    assert (prepared.unbuilt, prepared.ready, prepared.outcomes) == (sender.works, [], [])


@pytest.mark.parametrize(("is_running", "expected"), [(False, [("failed", "build_error")]), (True, [])])
def test_what_was_given_up_fails_once_nobody_builds_it(is_running: bool, expected: list[tuple[str, str]]) -> None:
    """After the last try the delivery fails, but not while that try is still running."""
    make_target()
    due_at = read_clock(DB) + timedelta(minutes=1) if is_running else None
    Event.objects.create(name="a.b", hook="nowhere:nothing", build_attempts=BUILD_TRIES, build_due_at=due_at)

    assert ends_of(Sender().prepare()) == expected


def test_what_has_expired_is_not_sent() -> None:
    """A delivery past its time ends as expired; one before it is sent."""
    make_target()
    fire("a.b", 1, expires_at=read_clock(DB) + timedelta(hours=1))
    sender = Sender()

    late = sender.prepare(read_clock(DB) + timedelta(hours=2))

    assert ends_of(late) == [("expired", "expired")]
    assert late.ready == []
    assert len(sender.prepare().ready) == 1


def test_a_deleted_event_ends_its_delivery() -> None:
    """There is nothing left to send."""
    make_target()
    fire("a.b", 1)
    sender = Sender()
    Event.objects.all().delete()

    assert ends_of(sender.prepare()) == [("cancelled", "event_deleted")]


@pytest.mark.parametrize(("is_allowed", "url", "is_sent"), [
    (False, "http://127.0.0.1/", False), (False, "https://127.0.0.1/", True), (True, "http://127.0.0.1/", True),
])  # fmt: skip
def test_plain_http_is_sent_only_where_it_is_allowed(settings: LazySettings, is_allowed: bool, url: str, is_sent: bool) -> None:
    """A target from a time when http was allowed fails as invalid_url, and nothing of its event leaves."""
    make_target(url=url)
    fire("a.b", 1)
    settings.DJWEBHOOKS_ALLOW_HTTP = is_allowed

    prepared = Sender().prepare()

    assert bool(prepared.ready) is is_sent
    assert ends_of(prepared) == ([] if is_sent else [("failed", "invalid_url")])


def test_a_secret_that_no_key_opens_holds_the_lane(settings: LazySettings) -> None:
    """It is our own fault: nothing is sent, counted or lost, other targets are served, and later it goes on."""
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["old"]
    broken = make_target(url="http://127.0.0.1/1")
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["new"]
    fine = make_target(url="http://127.0.0.1/2")
    fire("a.b", 1)
    sender = Sender()
    prepared = sender.prepare()
    assert [target for _, target, _ in prepared.ready] == [fine]

    sender.record(prepared.outcomes)

    delivery = Delivery.objects.get(target=broken)
    assert (delivery.status, delivery.reason, delivery.attempt_count) == ("pending", "undecryptable_secret", 0)
    lane = Lane.objects.get(pk=broken.pk)
    assert lane.held_until is not None
    assert lane.held_until > read_clock(DB)
    assert (lane.failure_count, lane.failing_since) == (0, None)
    Lane.objects.update(held_until=None)
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["new", "old"]
    sender.works = sender.take()
    assert {target for _, target, _ in sender.prepare().ready} == {fine, broken}


# -- answers -----------------------------------------------------------------------------------------------------------


def test_what_was_answered_is_kept() -> None:
    """Status, headers, the body as text, duration and address make the attempt's row."""
    make_target()
    fire("a.b", 1)
    reply = Reply(0, 201, {"x-id": "7"}, "gut gemacht: ü".encode(), duration=0.25, address="127.0.0.1")

    deliver(lambda request: reply)

    attempt = Attempt.objects.get()
    assert (attempt.status_code, attempt.response_headers, attempt.response_body) == (201, {"x-id": "7"}, "gut gemacht: ü")
    assert (attempt.duration, attempt.address, attempt.error, attempt.url) == (0.25, "127.0.0.1", "", "http://127.0.0.1:9/hook")
    assert Delivery.objects.get().status == "succeeded"


@pytest.mark.parametrize("content", [b"\0nul", b"\xff\xfe", b"\xed\xa0\x80", "é".encode("latin-1")], ids=repr)
def test_what_no_database_can_hold_is_kept_as_well_as_may_be(content: bytes) -> None:
    """NUL, invalid UTF-8 and surrogates in an answer neither stop the record nor others'."""
    make_target()
    fire("a.b", 1)
    text = content.decode("utf-8", "surrogateescape")

    deliver(lambda request: Reply(0, 200, {"x\0": text}, content, detail=text))

    attempt = Attempt.objects.get()
    assert "\0" not in attempt.response_body
    assert "\0" not in json.dumps(attempt.response_headers, ensure_ascii=False)
    assert attempt.response_body != ""
    assert Delivery.objects.get().status == "succeeded"


def test_a_failure_is_retried_on_the_setting_s_schedule(settings: LazySettings) -> None:
    """The first pause of the schedule, jittered, comes after the first attempt."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = [1000, 5000]
    make_target()
    fire("a.b", 1)
    before = read_clock(DB)

    outcome = Sender().judge(Reply(0, 500))

    assert (outcome.status, outcome.reason) == (Status.PENDING, "http_500")
    assert outcome.due_at is not None
    assert 800 <= (outcome.due_at - before).total_seconds() <= 1300


def test_a_target_s_schedule_goes_before_the_settings(settings: LazySettings) -> None:
    """A target's own schedule is taken instead, and an empty one means no retries."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = [1000] * 9
    patient = make_target(url="http://127.0.0.1/1", retry_schedule=[50000])
    hasty = make_target(url="http://127.0.0.1/2", retry_schedule=[])
    fire("a.b", 1)

    deliver(500)

    delivery = Delivery.objects.get(target=patient)
    assert delivery.due_at is not None
    assert delivery.due_at - read_clock(DB) > timedelta(seconds=30000)
    ended = Delivery.objects.get(target=hasty)
    assert (ended.status, ended.reason) == ("failed", "schedule_exhausted")


def test_the_schedule_begins_anew_after_a_persons_retry() -> None:
    """Attempts from before a manual retry use up nothing of its schedule."""
    make_target(retry_schedule=[1000])
    fire("a.b", 1)
    dispatch(DB)
    Delivery.objects.update(attempt_count=7, schedule_offset=7)
    assert Sender().judge(Reply(0, 500)).status == Status.PENDING

    Delivery.objects.update(attempt_count=8)
    Lane.objects.update(holder=None)

    assert Sender().judge(Reply(0, 500)).reason == "schedule_exhausted"


def test_a_retry_is_not_planned_beyond_the_expiry() -> None:
    """A delivery that expires before its next attempt ends when it expires, not when the attempt would be."""
    make_target(retry_schedule=[86400])
    at = read_clock(DB) + timedelta(hours=1)
    fire("a.b", 1, expires_at=at)

    assert Sender().judge(Reply(0, 500)).due_at == at


def test_a_status_to_give_up_on_ends_the_delivery(settings: LazySettings) -> None:
    """DJWEBHOOKS_GIVE_UP_ON ends a delivery at its first such answer."""
    settings.DJWEBHOOKS_GIVE_UP_ON = [422]
    make_target()
    fire("a.b", 1)

    outcome = Sender().judge(Reply(0, 422))

    assert (outcome.status, outcome.reason, outcome.due_at) == (Status.FAILED, "gave_up", None)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_the_lane(status: int) -> None:
    """The receiver's wish for silence is for the whole lane."""
    target = make_target()
    fire("a.b", 1)
    fire("a.b", 2)
    sender = Sender()
    at = read_clock(DB)

    sender.record([sender.judge(Reply(0, status, {"retry-after": "600"}))])

    held_until = Lane.objects.get(pk=target.pk).held_until
    assert held_until is not None
    assert 600 <= (held_until - at).total_seconds() < 660
    assert sender.take() == []


def test_gone_disables_the_target() -> None:
    """410 ends the delivery and closes the lane."""
    target = make_target()
    fire("a.b", 1)
    fire("a.b", 2)

    assert {request.key for request in deliver(410)} <= set(Delivery.objects.values_list("pk", flat=True))

    assert target.state == "disabled"
    first = Delivery.objects.get(sequence=1)
    assert (first.status, first.reason) == ("failed", "gone")


def test_our_own_fault_does_not_count() -> None:
    """An error of our own is marked so, and tried again soon."""
    make_target(retry_schedule=[])
    fire("a.b", 1)

    outcome = Sender().judge(Reply(0, error="no_dns_server", detail="There is none."))

    assert (outcome.status, outcome.counts) == (Status.PENDING, False)
    assert outcome.sent is not None
    assert (outcome.sent.error, outcome.sent.detail) == ("no_dns_server", "There is none.")


# -- build states ------------------------------------------------------------------------------------------------------


def test_build_states_say_when_to_look_again() -> None:
    """Built at once; after a fault when its pause is over, or now when there is none any more."""
    now = read_clock(DB)
    later = now + timedelta(minutes=5)
    built, failed, given_up = Event.objects.bulk_create([
        Event(name="a.b", payload="1"),
        Event(name="a.b", build_error="traceback", build_due_at=later),
        Event(name="a.b", build_error="traceback"),
    ])  # fmt: skip

    states = see_states(DB, [built.pk, failed.pk, given_up.pk, 0], now)

    assert states[built.pk][0] == {"": True}
    assert states[failed.pk] == ({"": False}, later, True)
    assert states[given_up.pk] == ({"": False}, now, True)
    assert 0 not in states


@pytest.mark.django_db
@pytest.mark.parametrize(("since", "pause"), [(0, 0.5), (1, 0.5), (20, 5), (59, 1), (80, 0.5)])
def test_what_somebody_else_builds_is_looked_at_less_often_the_longer_it_takes(since: float, pause: float) -> None:
    """Each look is recorded for each of its deliveries; but none comes much later than the end of their lease."""
    now = read_clock(DB)
    event = Event.objects.create(name="a.b", build_due_at=now - timedelta(seconds=since) + build.LEASE)

    state = see_states(DB, [event.pk], now)[event.pk]

    assert (state.again_at, state.has_failed) == (now + timedelta(seconds=pause), False)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "broken",
    [{"envelope": "nonsense"}, {"headers": ["no", "object"]}, {"retry_schedule": "often"}, {"rate_limit": -1.0}],
    ids=["envelope", "headers", "schedule", "rate"],
)
def test_a_target_that_somebody_broke_holds_up_no_other(broken: dict[str, object]) -> None:
    """What ``clean`` would have refused came in by SQL: the others get theirs, and nothing is lost."""
    wrong, right = make_target(url="http://127.0.0.1:9/wrong"), make_target(url="http://127.0.0.1:9/right")
    WebhookTarget.objects.filter(pk=wrong.pk).update(**broken)
    fire("a.b", 1)

    deliver(500)

    assert Attempt.objects.filter(delivery__target=right).count() == 1
    assert Delivery.objects.filter(target=wrong).get().status == Status.PENDING


@pytest.mark.django_db
def test_an_owner_who_cannot_be_named_holds_up_no_other(settings: LazySettings) -> None:
    """An error in naming the owner is ours: the event waits, and others are sent."""
    settings.DJWEBHOOKS_OWNER_FIELD = "nickname"
    make_target()
    fire("a.b", 1, owner=make_user())
    fire("a.b", 2)

    assert len(deliver()) == 1
    assert set(Delivery.objects.values_list("status", "reason")) == {("succeeded", ""), ("pending", "internal_error")}


@pytest.mark.django_db
def test_what_nobody_can_prepare_ends(settings: LazySettings) -> None:
    """An error of ours that nobody mends for as long as anything is kept is the end of a delivery, and of nothing else."""
    settings.DJWEBHOOKS_OWNER_FIELD = "nickname"
    target = make_target(is_ordered=True)
    stuck = fire("a.b", 1, owner=make_user(), ordering_key="k")
    fire("a.b", 2, ordering_key="k")
    Event.objects.filter(pk=stuck.pk).update(created_at=read_clock(DB) - timedelta(days=31))

    assert len([*deliver(), *deliver()]) == 1
    ends = Delivery.objects.filter(target=target).order_by("sequence").values_list("status", "reason")
    assert list(ends) == [("failed", "internal_error"), ("succeeded", "")]


@pytest.mark.django_db
def test_what_nobody_can_judge_ends() -> None:
    """A schedule that cannot be read is our own fault like any other: it is tried less and less often, and at last no more."""
    target = make_target(retry_schedule=[60])
    fire("a.b", 1)
    WebhookTarget.objects.filter(pk=target.pk).update(retry_schedule="often")
    sender = Sender()
    pauses = []
    for faults in (0, 10, MOST_OWN_FAULTS):
        sender.works = [work._replace(attempt_count=faults, schedule_offset=faults) for work in sender.works]
        outcome = sender.judge(Reply(sender.works[0].delivery_id, status=500))
        pauses.append(outcome.due_at and outcome.due_at - read_clock(DB))
        assert (outcome.reason, outcome.counts) == ("internal_error", False)

    assert outcome.status == Status.FAILED
    assert pauses[0] is not None
    assert pauses[1] is not None
    assert pauses[0] < timedelta(seconds=60) < pauses[1]
    assert pauses[2] is None
