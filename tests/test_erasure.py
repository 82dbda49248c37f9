"""What was said of somebody can be erased, wherever it is by then; that something was said stays on record."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any
from urllib.parse import quote as escape
from urllib.parse import unquote

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from djwebhooks import dispatch, lanes
from djwebhooks.database import execute
from djwebhooks.database.locks import impatient
from djwebhooks.decorators import hook
from djwebhooks.erasure import Erased, erase, erase_events
from djwebhooks.events import fire
from djwebhooks.exceptions import ErasedEvent, InvalidEvent
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, Subject, Subscription, TargetOwner, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.replays import make_criteria
from djwebhooks.prune import prune
from djwebhooks.senders import Letter, Sender
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from tests.builders import URL, make_target, make_user
from tests.connections import Thread, second_connection, server_only
from tests.library.models import Author, Book, Item, Paperback, Ticket

pytestmark = pytest.mark.django_db

DB = "default"
#: What must not be found anywhere once it is erased.
NAME = "Wilhelmina Crusoe"
AGREED = {"webhook-allowed-origin": "*"}


@hook("book.lent")
def book_lent(book: Book, reader: str = "") -> dict[str, str]:
    return {"title": book.title, "reader": reader}


@hook("books.moved", build="now")
def books_moved(books: dict[str, list[Book]]) -> list[str]:
    return [book.title for book in books["moved"]]


@hook("tickets.printed")
def tickets_printed(rows: list[Ticket | Author]) -> list[str]:
    return [row.note if isinstance(row, Ticket) else row.name for row in rows]


@hook("book.sold", subjects=lambda book: [book.author])
def book_sold(book: Book) -> str:
    return book.title


@hook("book.failed")
def book_failed(book: Book) -> None:
    raise ValueError(book.title)


def make_author() -> Author:
    return Author.objects.create(name=NAME)


def make_book(title: str = NAME, author: Author | None = None) -> Book:
    return Book.objects.create(title=title, author=author)


def say_it_all(author: Author, **options: Any) -> Event:
    """Fire an event that has the name wherever one can have it."""
    keys = dict.fromkeys(("identifier", "ordering_key", "idempotency_key"), NAME)
    return fire("author.update", {"name": NAME}, subjects=[author], **keys, **options)


def quote(request: Request) -> Reply:
    """Answer as a receiver that tells what it was told."""
    return Reply(request.key, status=500, headers={"x-name": NAME} | AGREED, body=request.body, detail=f"About {NAME}.")


def dump() -> str:
    """All rows of all our tables as text, bytes included, and nothing escaped as in a URL."""
    tables = [name for name in connection.introspection.table_names() if name.startswith("djw_")]
    rows = [row for table in tables for row in execute(DB, f"SELECT * FROM {table}")]
    texts = (str([bytes(value) if isinstance(value, memoryview) else value for value in row]) for row in rows)
    return unquote("\n".join(texts))


# -- what an event is about --------------------------------------------------------------------------------------------


def test_an_event_is_one_insert_whatever_it_is_about() -> None:
    """Its subjects are text in its own row."""
    authors = [make_author() for _ in range(20)]

    with CaptureQueriesContext(connection) as captured:
        fire("a.b", 1, subjects=authors)

    assert [query["sql"].split()[0] for query in captured] == ["INSERT"]


def test_the_instances_in_a_hooks_call_are_its_subjects() -> None:
    """Also those inside of other things; what has no row cannot be a subject."""
    first, second, other = make_book(), make_book(), make_book("another")
    book_lent(first)
    books_moved({"moved": [second, Book(title="unsaved", pk=None)]})
    book_lent(book=other)

    assert erase(first) == Erased(events=1)
    assert erase(second) == Erased(events=1)
    assert Event.objects.filter(erased_at=None).count() == 1


def test_what_has_no_key_yet_is_no_subject() -> None:
    """Nothing could name it later; the hook tells what it has."""
    make_target()
    event = tickets_printed([Ticket(note="a"), Author(name="b")])

    assert event.subjects == ""
    assert [json.loads(request.body)["data"] for request in deliver()] == [["a", "b"]]
    with pytest.raises(InvalidEvent, match="This Ticket has no primary key"):
        erase(Ticket())


def test_a_hook_may_say_otherwise() -> None:
    """``subjects=`` takes the place of what is found in the call."""
    book = make_book(author=make_author())
    assert book.author is not None
    book_sold(book)

    assert erase(book) == Erased()
    assert erase(book.author) == Erased(events=1)


def test_a_row_is_the_same_under_each_of_its_classes() -> None:
    """An event about a book is about the item that the book is; so is one about it as a paperback."""
    book = make_book()
    fire("a.b", 1, subjects=[Paperback.objects.get(pk=book.pk)])
    fire("a.b", 2, subjects=[book])
    fire("a.b", 3, subjects=[Item.objects.get(pk=book.pk)])

    assert erase(Book(pk=str(book.pk)), dry_run=True) == Erased(events=2)
    assert erase(Item(pk=book.pk), dry_run=True) == Erased(events=3)


def test_a_list_that_contains_itself_ends() -> None:
    """Whatever a hook is called with can be looked through."""
    book = make_book()
    books: list[Any] = [book]
    books += [books, books]
    books_moved({"moved": [book], "all": books})

    assert erase(book) == Erased(events=1)


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        (Author(name="unsaved"), "must be a list"),
        (5, "must be a list of model instances, not int"),
        (["library.author:5"], "one is str"),
        ([Author(name="unsaved")], "one is Author, unsaved"),
        ([Ticket(note="unsaved")], "one is Ticket, unsaved"),
        ([Author(pk=number) for number in range(1001)], "not 1001"),
    ],
)
def test_what_cannot_be_a_subject_is_said(subjects: Any, message: str) -> None:
    """At the call, before anything is written."""
    with pytest.raises(InvalidEvent, match=message):
        fire("a.b", 1, subjects=subjects)
    assert not Event.objects.exists()


def test_erasing_needs_a_primary_key() -> None:
    """A row that was deleted is named by its key."""
    author = make_author()
    key = author.pk
    fire("a.b", 1, subjects=[author])
    author.delete()

    with pytest.raises(InvalidEvent, match=r"erase\(Author\(pk=…\)\)"):
        erase(author)
    assert erase(Author(pk=key)) == Erased(events=1)


# -- what is erased ----------------------------------------------------------------------------------------------------


def fire_only(author: Author) -> None:
    say_it_all(author)


def plan(author: Author) -> None:
    say_it_all(author, deliver_at=timezone.now() + timedelta(days=1))


def capture(author: Author) -> None:
    book_lent(make_book(author=author), reader=NAME)


def fail_to_build(author: Author) -> None:
    book_failed(make_book(author=author))
    deliver()


def dispatch_only(author: Author) -> None:
    say_it_all(author)
    dispatch.dispatch(DB)


def dispatch_in_part(author: Author) -> None:
    for number in range(3):
        make_target(url=f"http://127.0.0.1:9/{number}")
    say_it_all(author)
    dispatch.dispatch(DB, page=2)


def try_once(author: Author) -> None:
    say_it_all(author)
    deliver(quote)


def send(author: Author) -> None:
    say_it_all(author)
    deliver(lambda request: Reply(request.key, status=200, body=request.body, headers={"x-name": NAME}))


class ByName(Sender):
    """Sends to a URL that it makes of the payload."""

    def url(self, letter: Letter) -> str:
        return f"{letter.target.target_url}?name={escape(letter.message.data['name'])}"


@contextmanager
def sending_by_name() -> Iterator[None]:
    """Send to a URL with the name in it, which is asked for its permission first."""
    WebhookTarget.objects.update(sender="by_name", envelope="cloudevents")
    senders = {"by_name": f"{__name__}.ByName"}
    with override_settings(DJWEBHOOKS_SENDERS=senders, DJWEBHOOKS_CLOUDEVENTS_ORIGIN="app.example.com"):
        yield


def send_by_name(author: Author) -> None:
    with sending_by_name():
        try_once(author)
    assert Lane.objects.get().permission


@pytest.mark.parametrize(
    "stage",
    [fire_only, plan, capture, fail_to_build, dispatch_only, dispatch_in_part, try_once, send, send_by_name],
    ids=lambda f: f.__name__,
)
def test_nothing_of_it_is_left(stage: Callable[[Author], None]) -> None:
    """However far an event has come, afterwards no column of ours has the name, and nobody is sent anything."""
    make_target(is_ordered=True)
    author = make_author()
    stage(author)
    assert NAME in dump()

    erased = erase(author)
    erase_events(Event.objects.all())

    assert erased.events == (0 if stage in (capture, fail_to_build) else 1)
    assert NAME not in dump()
    assert deliver() == []
    assert not Delivery.objects.pending().exists()
    assert not Event.objects.waiting().exists()
    assert not Subject.objects.exists()


def test_the_skeleton_stays() -> None:
    """What happened when, to whom it was sent and how that went is still there, and since when the rest is gone."""
    make_target(retry_schedule=[])
    author = make_author()
    event = say_it_all(author)
    deliver(quote)
    before = [list(rows.values(*names)) for rows, names in SKELETON]

    erase(author)

    assert [list(rows.all().values(*names)) for rows, names in SKELETON] == before
    event.refresh_from_db()
    assert event.erased_at is not None
    assert event.created_at <= event.erased_at


SKELETON = [
    (Event.objects.all(), ["pk", "uid", "name", "owner", "is_broadcast", "created_at", "dispatched_at"]),
    (Delivery.objects.all(), ["pk", "uid", "event", "target", "sequence", "status", "reason", "finished_at", "attempt_count"]),
    (Attempt.objects.all(), ["delivery", "number", "url", "address", "started_at", "duration", "status_code", "error"]),
]


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(("sending", "url"), [(nullcontext, URL), (sending_by_name, "http://127.0.0.1:9")])
def test_where_it_was_sent_stays(sending: Callable[[], AbstractContextManager[None]], url: str, is_late: bool) -> None:
    """The target's own URL as a whole; of one that a sender made the origin, also if it is recorded after the erasure."""
    make_target()
    author = make_author()

    def answer(request: Request) -> Reply:
        if is_late and request.method == "POST":
            erase(author)
        return quote(request)

    with sending():
        say_it_all(author)
        deliver(answer)
    erase(author)

    assert Attempt.objects.get().url == url
    assert NAME not in dump()


def test_others_keep_theirs() -> None:
    """Only what is about the instance goes: not what is about another one, or about another model's row with its key."""
    make_target()
    author, other = make_author(), make_author()
    user = User.objects.create(pk=author.pk, username="same")
    fire("a.b", {"n": 1}, subjects=[other])
    fire("a.b", {"n": 2}, subjects=[user])
    fire("a.b", {"n": 3}, owner=user)
    deliver(lambda request: Reply(request.key, status=200, body=b"thanks"))

    assert erase(author) == Erased()
    assert Event.objects.exclude(payload="").count() == 3
    assert Attempt.objects.filter(response_body="thanks").count() == 3


def test_what_was_not_sent_is_cancelled() -> None:
    """Its delivery says why, and what stood behind it in its line goes on."""
    make_target(is_ordered=True)
    author = make_author()
    say_it_all(author)
    fire("a.b", "next", ordering_key=NAME)
    deliver(500)

    assert erase(author) == Erased(events=1, cancelled=1)
    assert list(Delivery.objects.order_by("sequence").values_list("status", "reason")) == [
        ("cancelled", "erased"),
        ("pending", ""),
    ]
    assert [request.body[-7:] for request in deliver()] == [b'"next"}']


def test_what_was_erased_is_not_sent_again() -> None:
    """A retry says so, a replay leaves it out, and nothing is built again."""
    target = make_target(retry_schedule=[])
    author = make_author()
    say_it_all(author)
    fire("a.b", 1)
    deliver(500)
    erase(author)
    erased, kept = Delivery.objects.order_by("pk")

    with pytest.raises(ErasedEvent, match=f"Delivery {erased.uid} cannot be retried"):
        erased.retry()
    assert target.replay(dry_run=True) == 1
    assert target.replay() == 1
    assert [request.headers["webhook-id"] for request in deliver()] == [str(kept.event.uid)]
    erased.refresh_from_db()
    assert erased.status == Status.FAILED


def test_an_idempotency_key_is_free_again() -> None:
    """It may hold a name, so it goes, and the same call fires another event."""
    author = make_author()
    first = say_it_all(author)
    assert say_it_all(author) == first

    erase(author)

    assert say_it_all(author) != first


def test_a_dry_run_only_counts() -> None:
    """It counts what the run would do, each event once, and writes nothing."""
    owner = make_user()
    make_target(owner)
    make_target(owner, event="other", url="http://127.0.0.1:9/2").pause()
    fire("a.b", {"name": NAME}, owner=owner, subjects=[owner])
    fire("other", {"name": NAME}, owner=owner)
    fire("all", {"n": 1}, broadcast=True)
    deliver(lambda request: Reply(request.key, status=200, body=NAME.encode()))
    before = dump()

    foreseen = erase(owner, dry_run=True)

    assert dump() == before
    assert erase(owner) == foreseen == Erased(events=2, cancelled=1, attempts=3)
    assert erase(owner) == erase(owner, dry_run=True) == Erased()


# -- owners ------------------------------------------------------------------------------------------------------------


def test_an_owners_events_are_about_the_owner() -> None:
    """No row of the index is needed for it, however the owner was given."""
    owner = make_user()
    fire("a.b", 1, owner=owner, subjects=[owner])
    fire("a.b", 2, owner=SimpleLazyObject(lambda: owner), subjects=[SimpleLazyObject(lambda: owner)])
    dispatch.dispatch(DB)

    assert not Subject.objects.exists()
    assert erase(User(pk=owner.pk)) == Erased(events=2)


def test_what_an_owners_receiver_said_goes_too() -> None:
    """An answer of theirs to somebody else's event is erased, and the event stays."""
    ada, bob = make_user("ada"), make_user("bob")
    make_target(ada)
    make_target(bob, url="http://127.0.0.1:9/bob")
    fire("maintenance.planned", {"at": "noon"}, broadcast=True)
    deliver(quote)

    assert erase(ada) == Erased(attempts=1)
    assert Event.objects.get().payload == '{"at":"noon"}'
    answers = Attempt.objects.order_by("delivery__target_id").values_list("detail", flat=True)
    assert list(answers) == ["", f"About {NAME}."]


def test_an_owner_is_erased_after_its_deletion() -> None:
    """What is known of the owner is its key in the events; its targets went with it."""
    owner = make_user()
    make_target(owner)
    fire("a.b", {"name": NAME}, owner=owner)
    deliver(500)
    key = owner.pk
    owner.delete()

    assert erase(User(pk=key)).events == 1
    assert NAME not in dump()


def delete_target(target: WebhookTarget) -> None:
    target.delete()


def delete_targets(target: WebhookTarget) -> None:
    WebhookTarget.objects.filter(pk=target.pk).delete()


def delete_owner(target: WebhookTarget) -> None:
    User.objects.get(pk=target.owner_id).delete()


def delete_by_sql(target: WebhookTarget) -> None:
    """What the database does by itself where people made it cascade: no code of ours runs."""
    for model, column in ((Subscription, "target"), (WebhookTarget, "pk")):
        model._base_manager.filter(**{column: target.pk})._raw_delete(DB)
    User._base_manager.filter(pk=target.owner_id)._raw_delete(DB)


def prepare_deletion() -> tuple[WebhookTarget, int]:
    """Return ada's target and her key; it quoted what everybody was told, and so did bob's, whose is kept."""
    ada = make_user("ada")
    target = make_target(ada)
    make_target(make_user("bob"), url="http://127.0.0.1:9/bob")
    fire("maintenance.planned", {"at": "noon"}, broadcast=True)
    deliver(lambda request: Reply(request.key, status=200, body=b"to " + request.url.encode()))
    return target, ada.pk


@pytest.mark.parametrize("delete", [delete_target, delete_targets, delete_owner, delete_by_sql], ids=lambda f: f.__name__)
def test_what_a_deleted_receiver_said_goes_too(delete: Callable[[WebhookTarget], None]) -> None:
    """Whichever way it was deleted, and its owner with it: its answers are found, and nobody else's."""
    target, key = prepare_deletion()
    delete(target)

    assert erase(User(pk=key), dry_run=True) == erase(User(pk=key)) == Erased(attempts=1)
    assert erase(User(pk=key)) == Erased()
    assert sorted(Attempt.objects.values_list("response_body", flat=True)) == ["", "to http://127.0.0.1:9/bob"]


@pytest.mark.parametrize("is_gone", [False, True])
def test_the_answers_of_one_target_can_be_erased(is_gone: bool) -> None:
    """Also by its key, when it is deleted; its owner's other targets keep theirs, and the events what they say."""
    target, _ = prepare_deletion()
    make_target(target.owner, url="http://127.0.0.1:9/other")
    fire("a.b", 1, owner=target.owner)
    deliver(quote)
    pk = target.pk
    if is_gone:
        delete_target(target)

    assert erase(WebhookTarget(pk=pk)) == Erased(attempts=2)
    assert not Attempt.objects.filter(delivery__target=pk).exclude(response_body="").exists()
    assert Attempt.objects.exclude(response_body="").count() == 2
    assert not Event.objects.exclude(erased_at=None).exists()


def test_nothing_is_recorded_for_a_receiver_that_is_gone() -> None:
    """Not even what was on its way when the target was deleted by SQL and its owner erased; what waited is cancelled."""
    owner = make_user()
    target = make_target(owner)
    key = owner.pk
    for _ in range(2):
        fire("maintenance.planned", {"at": "noon"}, broadcast=True)

    def answer_late(request: Request) -> Reply:
        if WebhookTarget.objects.exists():
            delete_by_sql(target)
            erase(User(pk=key))
        return quote(request)

    assert deliver(answer_late)
    assert not Attempt.objects.exists()
    assert set(Delivery.objects.values_list("status", "reason")) == {("cancelled", "target_deleted")}


def test_a_target_that_was_given_away_is_its_present_owners() -> None:
    """Whose it was when it got its first delivery does not count as long as it is there."""
    target, former = prepare_deletion()
    WebhookTarget.objects.filter(pk=target.pk).update(owner=make_user("eve"))

    assert erase(User(pk=former)) == Erased()
    assert erase(User.objects.get(username="eve")) == Erased(attempts=1)


def test_a_system_target_has_no_owner_to_remember() -> None:
    """Its answers go with its key alone."""
    target = make_target()
    fire("a.b", 1)
    deliver(quote)

    assert not TargetOwner.objects.exists()
    assert erase(target) == Erased(attempts=1)


# -- users -------------------------------------------------------------------------------------------------------------


def replay_by(user: User) -> Replay:
    """Return a replay that *user* has asked for and cancelled."""
    replay = Delivery.objects.replay(make_criteria(everybody=True, status="succeeded"), by=user)
    replay.cancel(by=user)
    return replay


@pytest.mark.parametrize("by_key", [False, True])
def test_who_had_something_sent_again_is_erased(by_key: bool) -> None:
    """The replays stay, and those of others keep their names; the user's row may be deleted already."""
    make_target()
    fire("a.b", 1)
    deliver(200)
    user, other = make_user(NAME), make_user("other")
    replay_by(user)
    theirs = replay_by(other)
    Delivery.objects.get().retry(by=user)
    before = Replay.objects.count()
    if by_key:
        key = str(user.pk)
        user.delete()
        user = User(pk=key)

    erase(user, dry_run=True)
    assert NAME in dump()
    assert erase(user) == Erased()

    assert NAME not in dump()
    assert Replay.objects.count() == before == 3
    named = Replay.objects.exclude(requested_by="", requester_pk="", cancelled_by="")
    assert [(row.pk, row.requested_by, row.cancelled_by) for row in named] == [(theirs.pk, "other", "other")]


def test_what_is_no_user_leaves_requesters_alone() -> None:
    """An author with a user's key has asked for nothing."""
    user = make_user(NAME)
    make_target()
    Delivery.objects.replay(make_criteria(everybody=True), by=user)

    erase(Author(pk=user.pk))

    assert Replay.objects.get().requested_by == NAME


# -- the index ---------------------------------------------------------------------------------------------------------


def test_dispatch_moves_the_subjects_into_the_index() -> None:
    """Also of events that nobody wants; of one with many targets with its last page."""
    for number in range(3):
        make_target(url=f"http://127.0.0.1:9/{number}")
    authors = [make_author(), make_author()]
    event = fire("a.b", 1, subjects=authors)
    dispatch.dispatch(DB, page=2)
    event.refresh_from_db()
    assert (event.dispatched_at, Subject.objects.count(), len(event.subjects.split())) == (None, 0, 2)
    while dispatch.dispatch(DB, page=2):
        pass
    event.refresh_from_db()

    assert event.dispatched_at is not None
    assert (event.subjects, Subject.objects.filter(event=event).count()) == ("", 2)
    assert str(Subject.objects.all()[0]).endswith(f" of {event.pk}")


def test_pruning_takes_the_index_along() -> None:
    """No row of it outlives its event."""
    fire("a.b", 1, subjects=[make_author()])
    dispatch.dispatch(DB)
    kept = fire("a.b", 2, subjects=[make_author()])
    Event.objects.exclude(pk=kept.pk).update(created_at="2020-01-01T00:00Z", dispatched_at="2020-01-01T00:00Z")
    dispatch.dispatch(DB)

    prune()

    assert [subject.event_id for subject in Subject.objects.all()] == [kept.pk]


def test_an_erased_event_is_pruned_like_any_other() -> None:
    """With the empty bodies that keep late ones out."""
    author = make_author()
    say_it_all(author)
    erase(author)
    Event.objects.update(created_at="2020-01-01T00:00Z", dispatched_at="2020-01-01T00:00Z")
    assert Body.objects.exists()

    assert prune().events == 1
    assert not Body.objects.exists()


# -- beside everything else -------------------------------------------------------------------------------------------


@server_only
@pytest.mark.django_db(transaction=True)
def test_an_erasure_that_waits_for_an_event_keeps_nobody_waiting() -> None:
    """While an application keeps the event locked, others get their events, also those of before."""
    ada, bob = make_user("ada"), make_user("bob")
    make_target(bob)
    hers = fire("a.b", 1, owner=ada)
    has_begun = threading.Event()

    def tell(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if "FOR UPDATE" in sql and "djw_event" in sql:
            has_begun.set()
        return execute(sql, *arguments)

    def erase_hers() -> None:
        with connection.execute_wrapper(tell):
            erase(ada)

    with second_connection() as other:
        with transaction.atomic(using=other):
            list(Event.objects.using(other).select_for_update().filter(pk=hers.pk))
            erasure = Thread(erase_hers)
            assert has_begun.wait(30)
            fire("a.b", 1, owner=bob)

            assert dispatch.dispatch(DB) == 1
        erasure.result()
    assert not Event.objects.waiting().exists()


@server_only
@pytest.mark.django_db(transaction=True)
def test_an_erasure_in_a_long_transaction_keeps_nobody_waiting() -> None:
    """Until a request that erases commits, others get their events, and a job may begin to work."""
    ada, bob = make_user("ada"), make_user("bob")
    make_target(ada)
    make_target(bob)
    fire("a.b", 1, owner=ada)
    with second_connection() as other:
        with transaction.atomic(using=other):
            fire("user.deleted", 1, owner=ada, using=other)
            assert erase(ada, using=other).events == 2
            fire("a.b", 1, owner=bob)

            assert dispatch.dispatch(DB) == 1
            with impatient(DB):
                assert isinstance(lanes.enlist(DB, "rq", "here", 1), int)
        assert dispatch.dispatch(DB) == 0
    assert not Event.objects.waiting().exists()
    assert not Delivery.objects.filter(target__owner=ada).exists()


# -- broken off --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it, and the open transaction is rolled back."""


class Killer:
    """Lets so many statements pass."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        if not self.left:
            raise Killed
        self.left -= 1
        return execute(*arguments)


@pytest.mark.django_db(transaction=True)
def test_a_run_that_was_killed_is_completed_by_the_next() -> None:
    """Whichever its last statement was, the second run finds what the first one left."""
    make_target(is_ordered=True)
    make_target(url="http://127.0.0.1:9/2")
    author = make_author()
    statements = 0
    while True:
        say_it_all(author)
        deliver(quote)
        fire("author.update", {"name": NAME}, subjects=[author])
        try:
            with connection.execute_wrapper(Killer(statements)):
                erase(author)
        except Killed:
            statements += 1
        else:
            break
        erase(author)
        assert_erased()
    assert statements > 20
    assert_erased()


def assert_erased() -> None:
    """Of events that are about somebody no trace is left, and no way to them but their ids."""
    events = Event.objects.filter(name="author.update")
    assert NAME not in dump()
    assert not events.filter(erased_at=None).exists()
    assert not Delivery.objects.pending().filter(event__in=events).exists()
    assert not Subject.objects.exists()
