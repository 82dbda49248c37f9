"""A decorated function fires an event, and its payload is what the function says of the arguments as they were."""

import inspect
import json
from datetime import UTC, datetime
from functools import partial
from types import FunctionType
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.db import models
from django.utils.functional import SimpleLazyObject
from django_rq import get_worker, job
from rq import SimpleWorker

from djwebhooks import decorators
from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.exceptions import CaptureError, ConfigurationError, IdempotencyConflict, InvalidEvent, InvalidPayload
from djwebhooks.models import Body, Delivery, Event
from djwebhooks.senders import FormSender
from djwebhooks.testing import deliver, fired
from djwebhooks.transports.base import Request
from tests.builders import URL, make_target, make_user
from tests.library.models import Author, Book, Shelf

#: What the hooks below were run with, newest last.
runs: list[object] = []


@pytest.fixture(autouse=True)
def forget_runs() -> None:
    runs.clear()


def read(request: Request) -> Any:
    """The payload in a request of the standard envelope."""
    return json.loads(request.body)["data"]


# -- hooks of every kind ----------------------------------------------------------------------------------------------


@hook("book.lent")
def book_lent(book: Book, owner: User | None = None, identifier: str = "") -> dict[str, object]:
    """Say that a book was lent."""
    runs.append(book.pk)
    return {"title": book.title, "price": book.price}


@hook(event="book.lent")
def book_lent_too(book: Book) -> dict[str, object]:
    return {"too": book.title}


@hook("book.counted", build="now")
def books_counted(title: str) -> dict[str, object]:
    runs.append(title)
    return {"count": Book.objects.filter(title=title).count()}


@hook("author.read")
def author_read(book: Book) -> str:
    return book.author.name


@hook("author.read", live=True)
def author_read_live(book: Book) -> str:
    return book.author.name


@hook("author.read")
def author_fired(book: Book) -> str:
    fire("author.moved", {"title": book.title})
    return "moved"


@hook("text.written")
def text_written(text: str) -> object:
    return {"text": text}


@hook("nothing.written", build="now")
def nan_written() -> float:
    return float("nan")


@hook("always.broken")
def broken() -> None:
    runs.append("broken")
    raise KeyError("no such shelf")


@hook(
    "shelf.filled",
    owner=lambda shelf, owner_of: owner_of,
    identifier=lambda shelf, owner_of: shelf.name,
    ordering_key=lambda shelf, owner_of: f"{shelf.name}-key",
    broadcast=lambda shelf, owner_of: shelf.width > 100,
    idempotency_key=lambda shelf, owner_of: f"shelf-{shelf.name}",
    expires_at=lambda shelf, owner_of: datetime(2100, 1, 2, tzinfo=UTC),
    deliver_at=lambda shelf, owner_of: datetime(2100, 1, 1, tzinfo=UTC),
)
def shelf_filled(shelf: Shelf, owner_of: User | None = None) -> str:
    return shelf.name


@hook(
    "shelf.emptied",
    identifier="i",
    ordering_key="k",
    broadcast=True,
    idempotency_key="once",
    expires_at=datetime(2100, 1, 2, tzinfo=UTC),
    deliver_at=datetime(2100, 1, 1, tzinfo=UTC),
    using="default",
)
def shelf_emptied(shelf: Shelf) -> str:
    return shelf.name


@hook("shelf.sold", urls=lambda shelf, address: [address, URL])
def shelf_sold(shelf: Shelf, address: str) -> str:
    return shelf.name


@hook("shelf.sold")
def shelf_named(ordering_key: str, broadcast: bool, deliver_at: str, *, urls: str = "none", using: str = "me") -> list[object]:
    """Has parameters that are called like options, and are none."""
    return [ordering_key, broadcast, deliver_at, urls, using]


@hook("desk.used")
def desk_used(*names: str, owner: User | None = None, **details: object) -> dict[str, object]:
    return {"names": names, **details}


class Desk:
    """Has hooks that need no instance."""

    @staticmethod
    @hook("desk.hidden")
    def __hidden(number: int) -> int:
        return number

    @classmethod
    def hide(cls) -> Event:
        return cls.__hidden(1)

    @classmethod
    @hook("desk.opened")
    def opened(cls, number: int) -> list[object]:
        return [cls.__name__, number]

    @staticmethod
    @hook("desk.closed")
    def closed(number: int) -> int:
        return number


class Reader(models.Model):
    """A proxy-like model whose own method is a hook; it has no table of its own."""

    class Meta:
        proxy = False
        managed = False
        app_label = "library"
        db_table = "library_author"

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name

    @hook("reader.joined")
    def joined(self, greeting: str) -> str:
        return f"{greeting} {self.name}"

    @classmethod
    @hook("reader.model")
    def counted(cls, number: int) -> list[object]:
        return [cls._meta.label, number]


@hook("book.returned")
def book_returned(title: str) -> dict[str, str]:
    """Say that a book was returned."""
    return {"title": title}


def title_told(title: str) -> str:
    return title


title_told_too = hook("title.told")(title_told)
broken_too = hook("always.broken")(FunctionType(broken.build.__code__, globals()))


# -- what a call does --------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_call_returns_the_saved_event() -> None:
    """Calling a hook fires: the event is there, with its captured call, and the function has not run."""
    user = make_user()
    event = book_lent(Book.objects.create(title="Emma"), owner=user, identifier="p-42")

    assert fired("book.lent") == [event]
    assert (event.owner_id, event.identifier, event.ordering_key) == (user.pk, "p-42", "p-42")
    assert event.payload == ""
    assert runs == []


@pytest.mark.django_db
def test_the_function_runs_once_for_all_targets_and_formats() -> None:
    """However many targets and envelopes there are, the payload is built once."""
    user = make_user()
    for number, envelope in enumerate(["", "standard", "flat", "cloudevents"] * 3):
        make_target(user if number % 2 else None, url=f"{URL}/{number}", envelope=envelope)
    event = book_lent(Book.objects.create(title="Emma"), owner=user)
    requests = deliver()

    assert len(requests) == 12
    assert len(runs) == 1
    # flat has one format, the others one with and one without the owner, where there are such targets.
    assert len({request.body for request in requests}) == Body.objects.filter(event=event).count()


@pytest.mark.django_db
def test_what_was_deleted_is_sent_as_it_was() -> None:
    """Arguments are captured by value: a deleted row is sent all the same, and with every inherited field."""
    make_target()
    book = Book.objects.create(title="Emma", price="9.50")
    book_lent(book)
    book.delete()

    assert [read(request) for request in deliver()] == [{"title": "Emma", "price": "9.50"}]


@pytest.mark.django_db
def test_what_was_changed_is_sent_as_it_was() -> None:
    """Arguments are captured by value: neither a saved nor an unsaved later change is seen."""
    make_target()
    book = Book.objects.create(title="Emma")
    book_lent(book)
    book.title = "Persuasion"
    book.save()
    book_lent(book)
    book.title = "unsaved"

    assert [read(request)["title"] for request in deliver()] == ["Emma", "Persuasion"]


@pytest.mark.django_db
def test_what_cannot_be_captured_is_a_type_error_at_the_call() -> None:
    """The error names the argument; nothing is saved and the function does not run."""
    with pytest.raises(CaptureError, match="'book'") as caught:
        book_lent(book=Book.objects.all())

    assert isinstance(caught.value, TypeError)
    assert fired() == []
    assert runs == []


@pytest.mark.django_db
def test_wrong_arguments_are_pythons_own_error() -> None:
    """The hook has the function's signature, at the call already."""
    with pytest.raises(TypeError, match=r"^book_lent\(\): missing a required argument: 'book'"):
        book_lent()
    with pytest.raises(TypeError, match=r"^book_lent\(\): got an unexpected keyword argument 'boook'"):
        book_lent(Book(title="x"), boook=1)

    assert fired() == []


def test_a_hook_without_parentheses_is_told_how_to_write_it() -> None:
    """The function lands in the place of the name."""
    with pytest.raises(InvalidEvent, match=r'write @hook\("project.update"\)'):
        hook(book_lent)


@pytest.mark.django_db
def test_build_now_runs_at_the_call() -> None:
    """With build="now" the payload is what the database says at the call, and the worker runs nothing."""
    make_target()
    book = Book.objects.create(title="Emma")
    event = books_counted("Emma")
    book.delete()

    assert (event.payload, event.call, event.hook) == ('{"count":1}', "", "")
    assert [read(request) for request in deliver()] == [{"count": 1}]
    assert runs == ["Emma"]


@pytest.mark.django_db
def test_build_now_refuses_a_bad_payload_at_the_call() -> None:
    """With build="now" a payload that JSON cannot hold is the caller's error."""
    with pytest.raises(InvalidPayload, match="nan"):
        nan_written()

    assert fired() == []


@pytest.mark.django_db
def test_build_only_builds() -> None:
    """``.build`` is the function: it returns the payload and fires nothing."""
    book = Book.objects.create(title="Emma")

    assert book_lent.build(book=book, owner=None) == {"title": "Emma", "price": None}
    assert fired() == []


@pytest.mark.django_db
def test_a_raising_function_ends_its_deliveries_not_the_worker() -> None:
    """What a function raises stays on the event for staff; others are delivered."""
    make_target()
    event = broken()
    text_written("fine")

    assert [read(request) for request in deliver()] == [{"text": "fine"}]
    event.refresh_from_db()
    assert "no such shelf" in event.build_error
    assert Delivery.objects.get(event=event).status == "pending"


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_options_are_callables_over_the_arguments() -> None:
    """Each option of ``fire`` may be computed from the call, given by position or by name, defaults included."""
    user = make_user()
    event = shelf_filled(Shelf.objects.create(name="A", width=120), owner_of=user)

    assert (event.owner_id, event.identifier, event.ordering_key) == (user.pk, "A", "A-key")
    assert (event.is_broadcast, event.idempotency_key) == (True, "shelf-A")
    assert event.expires_at == datetime(2100, 1, 2, tzinfo=UTC)
    assert event.deliver_at == datetime(2100, 1, 1, tzinfo=UTC)
    assert shelf_filled(shelf=Shelf.objects.create(name="B", width=9)).is_broadcast is False


@pytest.mark.django_db
def test_options_are_constants() -> None:
    """Each option of ``fire`` may be the same for every call."""
    shelf = Shelf.objects.create(name="A", width=90)
    event = shelf_emptied(shelf)

    assert (event.owner_id, event.identifier, event.ordering_key) == (None, "i", "k")
    assert (event.is_broadcast, event.idempotency_key) == (True, "once")
    assert event.expires_at == datetime(2100, 1, 2, tzinfo=UTC)
    assert event.deliver_at == datetime(2100, 1, 1, tzinfo=UTC)
    assert shelf_emptied(shelf) == event


@pytest.mark.django_db
def test_urls_are_a_callable_over_the_arguments() -> None:
    """A hook's ``urls=`` sends straight to what it returns for this call."""
    shelf_sold(Shelf.objects.create(name="A"), "http://127.0.0.1:9/other")

    assert sorted(request.url for request in deliver()) == [URL, "http://127.0.0.1:9/other"]


@pytest.mark.django_db
def test_only_owner_and_identifier_are_taken_by_name() -> None:
    """Other parameters may be called like options without being any."""
    make_target()
    event = shelf_named("key", True, "now")

    assert (event.ordering_key, event.is_broadcast, event.deliver_at, event.target_ids) == ("", False, None, "")
    assert [read(request) for request in deliver()] == [["key", True, "now", "none", "me"]]


@pytest.mark.django_db
def test_owner_is_taken_from_a_keyword_only_parameter() -> None:
    """The parameter may be of any kind; variadic ones arrive as they were."""
    make_target()
    user = make_user()

    assert desk_used("a", "b", owner=user, colour="red").owner_id == user.pk
    assert [read(request) for request in deliver()] == [{"names": ["a", "b"], "colour": "red"}]


@pytest.mark.django_db
def test_a_lazy_user_is_an_owner() -> None:
    """``request.user`` is a lazy object around a user."""
    user = make_user()

    assert book_lent(Book(title="x"), owner=SimpleLazyObject(lambda: user)).owner_id == user.pk


@pytest.mark.django_db
@pytest.mark.parametrize("build", ["worker", "now"])
def test_nobody_is_no_owner(build: Any) -> None:
    """An anonymous user is a ``TypeError``, however the hook is built."""
    made = hook("desk.used", build=build)(desk_used.build)

    with pytest.raises(TypeError, match=r"AnonymousUser|nobody is logged in"):
        made(owner=AnonymousUser())
    assert fired() == []


@pytest.mark.django_db
def test_an_identifier_of_none_is_none_given() -> None:
    """A hook's optional ``identifier=None`` fires without identifier."""
    assert book_lent(Book(title="x"), identifier=None).identifier == ""


# -- every kind of function --------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_method_of_a_model_is_a_hook() -> None:
    """The instance is captured as the first argument; ``.build`` is the plain function."""
    make_target()
    author = Author.objects.create(name="Jane")
    reader = Reader.objects.get(pk=author.pk)
    reader.joined("Hello")
    author.delete()

    assert [read(request) for request in deliver()] == ["Hello Jane"]
    assert Reader.joined.build(reader, "Bye") == "Bye Jane"


@pytest.mark.django_db
def test_class_and_static_methods_are_hooks() -> None:
    """Below ``@classmethod`` and ``@staticmethod`` the decorator works, from the class and from an instance."""
    make_target()
    Reader.counted(1)
    Desk.closed(3)
    Desk().closed(4)

    assert [read(request) for request in deliver()] == [["library.Reader", 1], 3, 4]


@pytest.mark.django_db
def test_a_plain_class_cannot_be_captured() -> None:
    """A class method's class must be a model, or there is nothing by which a worker finds it."""
    with pytest.raises(CaptureError, match="argument 1"):
        Desk.opened(1)


@pytest.mark.parametrize("kind", [classmethod, staticmethod])
@pytest.mark.parametrize("build", ["worker", "now"])
def test_the_wrong_order_of_decorators_is_said(kind: Any, build: Any) -> None:
    """Above ``@classmethod`` or ``@staticmethod`` there is no function yet."""
    with pytest.raises(ConfigurationError, match=f"below @{kind.__name__}"):
        hook("a.b", build=build)(kind(lambda number: number))


def test_what_a_worker_cannot_find_is_refused_at_decoration() -> None:
    """A lambda, an inner function and a coroutine function are no hooks."""

    def inner() -> None: ...

    async def later() -> None: ...

    with pytest.raises(ConfigurationError, match="lambda"):
        hook("a.b")(lambda: 1)
    with pytest.raises(ConfigurationError, match="inside a function"):
        hook("a.b")(inner)
    with pytest.raises(ConfigurationError, match="async def"):
        hook("a.b")(later)


@pytest.mark.parametrize("build", ["worker", "now"])
def test_a_hook_is_no_function_of_another_hook(build: Any) -> None:
    """The inner one would fire its event whenever the payload of the outer one is built."""
    with pytest.raises(ConfigurationError, match=r"book_lent.* is a hook already\."):
        hook("a.b", build=build)(book_lent)


@pytest.mark.django_db
@pytest.mark.parametrize("call", [lambda: title_told_too("Emma"), lambda: broken_too(), Desk.hide])
def test_what_a_worker_would_not_find_is_refused_at_the_call(call: Any) -> None:
    """Another name for a function, a name that is another hook's by now, or one that Python mangles, leads elsewhere."""
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="Decorate the function where it is defined, under a name that is its own"):
            call()

    assert fired() == []


def test_a_coroutine_function_is_refused_however_it_is_built() -> None:
    """Nobody would await it."""

    async def later() -> None: ...

    with pytest.raises(ConfigurationError, match="async def"):
        hook("a.b", build="now")(later)


@pytest.mark.django_db
def test_build_now_takes_any_function() -> None:
    """A worker need not find what is run at the call."""
    event = hook("a.b", build="now")(lambda number: [number])(3)

    assert event.payload == "[3]"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("project update", {}, "'project update' is no event name"),
        ("", {}, "'' is no event name"),
        ("project.*", {}, "is no event name"),
        ("a" * 256, {}, "has 256"),
        (7, {}, "7"),
        (None, {}, "None"),
    ],
)
def test_a_bad_name_is_refused_at_decoration(name: Any, options: dict[str, Any], message: str) -> None:
    """The name is checked before the function is ever called."""
    with pytest.raises(InvalidEvent, match=message):
        hook(name, **options)


def test_a_bad_build_is_refused_at_decoration() -> None:
    """There are two places to build at."""
    with pytest.raises(ConfigurationError, match="'later'"):
        hook("a.b", build="later")


@pytest.mark.parametrize("sender", [FormSender, FormSender(), 7, None])
def test_a_sender_that_is_no_name_is_refused_at_decoration(sender: Any) -> None:
    """A class has its name in the settings; called with the arguments of a hook it would be the first call that fails."""
    with pytest.raises(ConfigurationError, match=r"sender=.* is not possible: it is a name of DJWEBHOOKS_SENDERS, or a function"):
        hook("a.b", sender=sender)


def test_a_hook_keeps_its_face() -> None:
    """Name, documentation, module, signature and annotations are those of the function."""
    assert inspect.isfunction(book_lent)
    assert (book_lent.__name__, book_lent.__qualname__, book_lent.__module__) == ("book_lent", "book_lent", __name__)
    assert book_lent.__doc__ == "Say that a book was lent."
    assert list(inspect.signature(book_lent).parameters) == ["book", "owner", "identifier"]
    assert (book_lent.is_hook, book_lent.event) == (True, "book.lent")


@pytest.mark.django_db
def test_two_hooks_of_one_event_are_two_events() -> None:
    """Several functions may tell of one event, each in its own words."""
    make_target(event="book.lent")
    book = Book.objects.create(title="Emma")
    book_lent(book)
    book_lent_too(book)

    assert [read(request) for request in deliver()] == [{"title": "Emma", "price": None}, {"too": "Emma"}]


@pytest.mark.django_db
def test_a_partial_of_hook_is_a_decorator_with_defaults() -> None:
    """``partial(hook, build="now")`` is an application's own decorator."""
    hook_now = partial(hook, build="now")
    event = hook_now("x.y")(text_written.build)("now")

    assert (event.name, event.payload) == ("x.y", '{"text":"now"}')


@pytest.mark.django_db
def test_a_partial_of_a_hook_fires() -> None:
    """Arguments that are given beforehand are captured like the others."""
    make_target()
    user = make_user()
    event = partial(book_lent, owner=user)(Book(title="Emma"))

    assert event.owner_id == user.pk
    assert [read(request)["title"] for request in deliver()] == ["Emma"]


@pytest.mark.django_db(transaction=True)
def test_a_hook_is_a_job_of_django_rq(redis: str) -> None:
    """Under ``@job`` it is called as before, or later by ``.delay``: then the job fires."""
    make_target()
    # django-rq's decorator connects where it decorates.
    job(book_returned)
    book_returned("Emma")
    book_returned.delay(title="Persuasion")

    assert len(fired()) == 1
    get_worker("default", worker_class=SimpleWorker).work(burst=True)
    assert [read(request) for request in deliver()] == [{"title": "Emma"}, {"title": "Persuasion"}]


@pytest.mark.django_db(transaction=True)
def test_a_hook_can_be_fired_from_a_coroutine() -> None:
    """Through ``sync_to_async`` a hook works like any function that queries."""

    async def view() -> Event:
        return await sync_to_async(text_written)("async")

    assert async_to_sync(view)() == fired()[0]


# -- reading while building --------------------------------------------------------------------------------------------


def make_read_book() -> Book:
    return Book.objects.create(title="Emma", author=Author.objects.create(name="Jane"))


def texts_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "djwebhooks.build"]


@pytest.mark.django_db
def test_a_hook_that_reads_while_it_builds_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """What it reads is what is there then: a warning says so, once in a process."""
    make_target()
    book = make_read_book()
    author_read(book)
    Author.objects.update(name="Jane Austen")
    author_read(book)
    sent = [read(request) for request in deliver()]
    author_read(book)
    deliver()

    assert sent == ["Jane Austen", "Jane Austen"]
    [text] = texts_of(caplog)
    assert f"{__name__}:author_read reads the database while it builds" in text
    assert "live=True" in text


@pytest.mark.django_db
def test_a_hook_that_says_live_may_read(caplog: pytest.LogCaptureFixture) -> None:
    """``live=True`` says that what is there then is meant."""
    make_target()
    author_read_live(make_read_book())

    assert [read(request) for request in deliver()] == ["Jane"]
    assert texts_of(caplog) == []


@pytest.mark.django_db
def test_a_hook_that_only_fires_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Another event, fired while building, is written and not read."""
    make_target()
    author_fired(Book(title="Emma"))

    assert [read(request) for request in deliver()] == ["moved", {"title": "Emma"}]
    assert texts_of(caplog) == []


@pytest.mark.django_db
def test_a_hook_that_only_uses_its_arguments_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Captured values need no query."""
    make_target()
    book_lent(Book.objects.create(title="Emma"))

    assert len(deliver()) == 1
    assert texts_of(caplog) == []


@hook("book.shelved", idempotency_key="once")
def book_shelved(number: int, owner: User) -> dict[str, object]:
    return {"number": number}


@pytest.mark.django_db
def test_a_login_between_two_calls_is_no_other_payload() -> None:
    """The second call with an idempotency key returns the first event, though the owner has logged in meanwhile."""
    owner = make_user("ada")
    first = book_shelved(1, owner=owner)
    owner.last_login = datetime.now(UTC)

    assert book_shelved(1, owner=owner).pk == first.pk
    with pytest.raises(IdempotencyConflict):
        book_shelved(2, owner=owner)


@pytest.mark.parametrize("name", ["webhook", "redis_hook", "redisq_webhook", "redislog_hook"])
def test_names_of_dj_webhooks_are_hook(name: str) -> None:
    """They work on, and warn where they are imported, however the package had sent."""
    with pytest.warns(DeprecationWarning, match=f"{name} is called hook now: import that") as warned:
        assert getattr(decorators, name) is hook
    assert warned[0].filename == __file__


def test_other_names_are_none() -> None:
    """The module has what it has."""
    with pytest.raises(AttributeError, match=r"^module 'djwebhooks\.decorators' has no attribute 'hooks'$"):
        _ = decorators.hooks  # type: ignore[attr-defined]
