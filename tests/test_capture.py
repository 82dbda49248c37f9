"""A call's arguments come back as they were when the hook was called."""

import json
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from functools import partial
from io import StringIO
from typing import Any, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import AbstractUser, AnonymousUser, User
from django.core.files.base import ContentFile
from django.db.models import F, Model
from django.http import HttpRequest, QueryDict
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks.capture import capture, path_of, rebuild, resolve
from djwebhooks.exceptions import CaptureError, ConfigurationError, RebuildError
from tests.library.fields import Place
from tests.library.models import Author, Book, Genre, Item, Paperback, Shelf


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Access(Flag):
    READ = 1
    WRITE = 2


class Shape(Enum):
    ROUND = object()


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Loan:
    days: int


def mark_as_hook(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make *function* look like one that ``@hook`` has decorated."""
    function.is_hook = True
    return function


@mark_as_hook
def book_lent(book: Book) -> str:
    return book.title


def no_hook() -> None:
    """Cannot be run by a worker."""


async def book_read() -> None:
    """Cannot be run by a worker either."""


class Desk:
    """Has hooks of every kind."""

    @mark_as_hook
    def lend(self) -> str:
        return "lend"

    @staticmethod
    @mark_as_hook
    def renew() -> str:
        return "renew"

    @classmethod
    @mark_as_hook
    def close(cls) -> str:
        return cls.__name__


def captured(value: Any) -> Any:
    """Return *value* as it is after a journey."""
    args, kwargs = rebuild(capture((), {"value": value}))
    assert args == ()
    return kwargs["value"]


def field_values(instance: Model) -> dict[str, Any]:
    return {field.attname: getattr(instance, field.attname) for field in instance._meta.concrete_fields}


def alter(text: str, **fields: Any) -> str:
    """Return *text* with other fields in its one model instance; ``None`` for *fields* removes one."""
    call = json.loads(text)
    content = call["args"][0]["$model"]
    content["fields"] = {name: value for name, value in {**content["fields"], **fields}.items() if value is not ...}
    return json.dumps(call)


def make_book(**fields: Any) -> Book:
    """Return a saved book with a value in every field, as it is in the database."""
    values = {
        "title": "Öl & Zorn",
        "acquired_at": datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC),
        "loan_time": timedelta(days=28, microseconds=1),
        "author": Author.objects.create(name="Ada", born_on=date(1815, 12, 10)),
        "genre": Genre.POETRY,
        "price": Decimal("12.50"),
        "weight": 0.1,
        "cover": "covers/oil.png",
        "scan": b"\x00\xff",
        "details": {"pages": [1, None, {"$date": "no date"}]},
        "scanner": "2001:db8::1",
        "place": Place(2, "B"),
    }
    return Book.objects.get(pk=Book.objects.create(**{**values, **fields}).pk)


# ---- plain values ----

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# Whole seconds: of an offset of mere microseconds, which no zone has, Python's own fromisoformat() makes UTC.
OFFSETS = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**62, max_value=2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.binary(),
    st.datetimes(timezones=st.none() | OFFSETS),
    st.dates(),
    st.times(timezones=st.none() | OFFSETS),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([*Genre, *Size, *Access, *Shape]),
)
KEYS = st.recursive(SCALARS, lambda keys: st.tuples(keys, keys) | st.frozensets(keys, max_size=3), max_leaves=4)
VALUES = st.recursive(
    SCALARS | st.sets(KEYS, max_size=3),
    lambda values: st.one_of(
        st.lists(values, max_size=4),
        st.tuples(values, values),
        st.dictionaries(TEXTS | st.just("$date"), values, max_size=3),
        st.dictionaries(KEYS, values, max_size=3),
    ),
    max_leaves=12,
)


def types_in(value: Any) -> Any:
    """Return the types of *value* and of what is in it, where there is an order."""
    if isinstance(value, dict):
        return dict, [types_in(item) for item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [types_in(item) for item in value]
    return type(value)


@given(args=st.tuples(VALUES, VALUES), kwargs=st.dictionaries(TEXTS, VALUES, max_size=3))
def test_plain_values_come_back_equal(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Whatever is made of plain values comes back equal, of the same types and in the same order."""
    result = rebuild(capture(args, kwargs))

    assert (args, kwargs) == result
    assert types_in((args, kwargs)) == types_in(result)


@pytest.mark.parametrize("exponent", [63, 64, 20_000])
def test_integers_may_have_any_size(exponent: int) -> None:
    """An integer of more digits than Python reads in decimal comes back, and so does its negative."""
    assert captured([2**exponent, -(2**exponent), 2**exponent - 1]) == [2**exponent, -(2**exponent), 2**exponent - 1]


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-Infinity", "1.10", "1E+999", "-0"])
def test_decimals_keep_their_digits(text: str) -> None:
    """A Decimal comes back with its trailing zeros, and even when it is not a number."""
    assert str(captured(Decimal(text))) == text


def test_zone_becomes_offset() -> None:
    """A datetime with a named zone comes back as the same instant with the same offset."""
    value = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Amsterdam"))

    result = captured(value)

    assert result.timestamp() == value.timestamp()
    assert result.utcoffset() == timedelta(hours=1)


def test_flags_may_be_combined() -> None:
    """A combination of flags, or none of them, comes back although it has no name."""
    assert captured([Access.READ | Access.WRITE, Access(0)]) == [Access.READ | Access.WRITE, Access(0)]


def test_lazy_strings_are_evaluated() -> None:
    """A lazy translation is a plain string afterwards, and a key too."""
    assert captured({gettext_lazy("Yes"): gettext_lazy("No")}) == {"Yes": "No"}


def test_subclasses_become_the_builtin_type() -> None:
    """What behaves like a built-in type comes back as that type."""
    result = captured([SafeString("<b>"), OrderedDict(a=1), bytearray(b"a"), memoryview(b"b")])

    assert result == ["<b>", {"a": 1}, b"a", b"b"]
    assert types_in(result) == types_in(["", {"a": 1}, b"", b""])


def test_equal_sets_are_equal_texts() -> None:
    """The text does not depend on the order in which a set was filled."""
    assert capture(({8, 0, 16},), {}) == capture(({16, 0, 8},), {})


def test_a_class_of_models_comes_back() -> None:
    """A model itself is captured by its label."""
    assert captured([Paperback, User]) == [Paperback, User]


# ---- model instances ----


@pytest.mark.django_db
def test_an_instance_is_the_values_of_its_fields() -> None:
    """Every field comes back equal and of the same type, those of the parent's table included."""
    book = make_book()

    result = captured(book)

    assert type(result) is Book
    assert result == book
    assert field_values(result) == {**field_values(book), "scan": b"\x00\xff"}
    assert type(result.scan) is bytes
    assert (result.place, result.cover.name) == (Place(2, "B"), "covers/oil.png")
    assert (result._state.db, result._state.adding) == ("default", False)


@pytest.mark.django_db
def test_capturing_is_cheap(django_assert_num_queries: Callable[[int], AbstractContextManager[Any]]) -> None:
    """Capturing and rebuilding a loaded instance asks the database nothing, and takes tens of bytes a field."""
    user = User.objects.create_user("ada", "ada@example.com")

    with django_assert_num_queries(0):
        text = capture((user,), {})
        rebuild(text)

    assert len(text) < 50 * len(User._meta.concrete_fields)


@pytest.mark.django_db
def test_null_stays_null() -> None:
    """A field without a value is None, and never the text "None"."""
    names = ["acquired_at", "loan_time", "author_id", "price", "weight", "scan", "scanner", "place"]
    book = Book.objects.get(pk=Book.objects.create(title="Void").pk)

    result = captured(book)

    assert [None] * len(names) == [getattr(result, name) for name in names]
    assert result.cover.name == ""


@pytest.mark.django_db
def test_a_deleted_row_is_still_what_it_was() -> None:
    """Neither a later change nor the row's end is seen in what was captured."""
    book = make_book(title="Before")
    text = capture((book,), {})
    Item.objects.update(title="After")
    book.delete()

    (result,), _ = rebuild(text)

    assert result.title == "Before"
    assert result.pk == result.uid


@pytest.mark.django_db
def test_related_objects_are_live() -> None:
    """A related object that was loaded before the call is read again afterwards."""
    book = make_book()
    assert book.author.name == "Ada"
    text = capture((book,), {})
    Author.objects.update(name="Countess")

    (result,), _ = rebuild(text)

    assert result.author.name == "Countess"


@pytest.mark.django_db
def test_deferred_fields_are_loaded_at_the_call() -> None:
    """A deferred field comes back with the value that the row had at the call."""
    make_book(title="Before")
    text = capture((Book.objects.only("genre").get(),), {})
    Item.objects.update(title="After")

    (result,), _ = rebuild(text)

    assert result.get_deferred_fields() == set()
    assert (result.title, result.place) == ("Before", Place(2, "B"))


@pytest.mark.django_db
def test_deferred_fields_of_a_deleted_row_are_refused() -> None:
    """What can no longer be loaded is an error at the call, which names the fields."""
    book = make_book()
    half = Book.objects.defer("title", "price").get()
    book.delete()

    with pytest.raises(CaptureError, match=r"argument 1, of type .*Book, has deferred fields \(price, title\)"):
        capture((half,), {})


def test_an_unsaved_instance_comes_back() -> None:
    """An instance that is in no table yet is still one to be added."""
    book = Book(title="Draft", genre=Genre.POETRY)

    result = captured(book)

    assert (result.uid, result.title, result.genre, result.item_ptr_id) == (book.uid, "Draft", Genre.POETRY, None)
    assert (result._state.db, result._state.adding) == (None, True)


@pytest.mark.django_db
def test_an_unsaved_instance_can_be_saved_afterwards() -> None:
    """Values that the database will choose are left to it."""
    shelf = captured(Shelf(name="North"))
    shelf.save()

    shelf.refresh_from_db()

    assert (shelf.width, shelf.depth, shelf.area) == (90, 30, 2700)


@pytest.mark.django_db
def test_a_deleted_instance_has_no_key() -> None:
    """Django takes the key of an instance that it deletes, and that is what is captured."""
    shelf = Shelf.objects.create(name="North", width=1)
    shelf.delete()

    result = captured(shelf)

    assert (result.pk, result.name) == (None, "North")


@pytest.mark.django_db
def test_from_db_of_the_model_is_used() -> None:
    """A model that does something on loading does it on rebuilding."""
    shelf = Shelf.objects.get(pk=Shelf.objects.create(name="North").pk)

    assert captured(shelf).loaded == shelf.loaded
    assert captured(shelf).area == 2700


@pytest.mark.django_db
def test_a_proxy_keeps_its_class() -> None:
    """A proxy model's instance does not become one of its parent."""
    make_book()

    assert type(captured(Paperback.objects.get())) is Paperback


@pytest.mark.django_db
def test_a_lazy_user_is_unwrapped() -> None:
    """``request.user`` is a user afterwards, wherever it stands."""
    user = User.objects.create_user("ada")

    result = captured({"users": [SimpleLazyObject(lambda: user)]})

    assert result == {"users": [user]}
    assert type(result["users"][0]) is User


@pytest.mark.django_db
def test_instances_may_be_anywhere() -> None:
    """Instances come back inside sets and as keys."""
    author = Author.objects.create(name="Ada")

    assert captured([{author}, {author: 1}, (author, author)]) == [{author}, {author: 1}, (author, author)]


def test_values_a_field_would_refuse_come_back() -> None:
    """Fields can hold some values that their own conversion refuses or cannot write as JSON."""
    result = captured(Book(price=Decimal("NaN"), weight=float("inf"), acquired_at=5))

    assert (str(result.price), result.weight, result.acquired_at) == ("NaN", float("inf"), 5)


def test_texts_become_the_type_of_their_field() -> None:
    """A value that was given as text is what the database would return."""
    result = captured(Book(price="1.50", acquired_at="2026-01-02T03:04:05Z", uid="6f1c0e3a-77a5-4d8e-9c64-0d5b2a7ec7b1"))

    assert result.price == Decimal("1.50")
    assert result.acquired_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert result.uid == UUID("6f1c0e3a-77a5-4d8e-9c64-0d5b2a7ec7b1")


def test_an_expression_is_refused() -> None:
    """What the database has yet to compute has no value."""
    with pytest.raises(CaptureError, match=r"argument 1\.depth, of type .*, is an expression .* refresh_from_db"):
        capture((Shelf(depth=F("width") + 1),), {})


@pytest.mark.parametrize("fields", [{"title": "a\0b"}, {"details": {"a": ["\0"]}}, {"title": "\ud800"}])
def test_text_that_no_database_takes_is_refused_in_fields(fields: dict[str, Any]) -> None:
    """A NUL or a lone surrogate inside an instance is an error that names the field."""
    with pytest.raises(CaptureError, match=rf"argument 'book'\.{next(iter(fields))}.* contains a (NUL|lone surrogate)"):
        capture((), {"book": Book(**fields)})


def test_a_changed_model_still_comes_back() -> None:
    """A field that went is dropped, and one that came takes its default."""
    text = alter(capture((Book(title="Draft", genre=Genre.POETRY),), {}), gone="x", genre=..., details=..., price=...)

    (result,), _ = rebuild(text)

    assert (result.genre, result.details, result.price, result.title) == (Genre.NOVEL, {}, None, "Draft")
    assert not hasattr(result, "gone")


@pytest.mark.django_db
def test_defaults_of_the_database_are_read_from_it() -> None:
    """A new field of a saved row whose default only the database knows is loaded when it is read."""
    shelf = Shelf.objects.get(pk=Shelf.objects.create(name="North", width=7).pk)

    (result,), _ = rebuild(alter(capture((shelf,), {}), width=..., area=...))

    assert result.get_deferred_fields() == {"width", "area"}
    assert (result.width, result.area) == (7, 210)


@pytest.mark.parametrize("name", ["price", "place"])
def test_text_that_its_field_refuses_is_an_error_at_rebuild(name: str) -> None:
    """A value that does not fit the field any more names the field, and not the value."""
    text = alter(capture((Book(),), {}), **{name: "secret"})

    with pytest.raises(RebuildError, match=rf"library\.Book\.{name} cannot take the 6 characters"):
        rebuild(text)


# ---- what cannot be captured ----


def refused_values() -> list[Any]:
    return [
        pytest.param(Book.objects.all(), r"pass list\(queryset\)", id="queryset"),
        pytest.param(Book.objects.raw("SELECT 1"), r"pass list\(queryset\)", id="raw queryset"),
        pytest.param(Book.objects, r"pass list\(manager\.all\(\)\)", id="manager"),
        pytest.param(AnonymousUser(), "is_authenticated", id="anonymous"),
        pytest.param(SimpleLazyObject(AnonymousUser), r"AnonymousUser, .*is_authenticated", id="lazy anonymous"),
        pytest.param(HttpRequest(), r"request\.user", id="request"),
        pytest.param(QueryDict("a=1"), r"pass \.dict\(\)", id="query dict"),
        pytest.param(ContentFile(b""), "its name", id="file"),
        pytest.param(StringIO(), "its name", id="stream"),
        pytest.param(AbstractUser, "abstract", id="abstract model"),
        pytest.param(Model, "abstract", id="base of models"),
        pytest.param(capture, "call it first", id="function"),
        pytest.param(int, "call it first", id="class"),
        pytest.param(Loan(1), r"dataclasses\.asdict\(\)", id="dataclass"),
        pytest.param(iter([]), r"pass list\(\)", id="iterator"),
        pytest.param({}.keys(), r"pass list\(\)", id="keys"),
        pytest.param(object(), 'build="now"', id="object"),
        pytest.param(Point(1, 2), r"named tuple.*_asdict\(\)", id="named tuple"),
        pytest.param(defaultdict(int), r"pass dict\(\)", id="defaultdict"),
        pytest.param(float("nan"), "not a finite number", id="nan"),
        pytest.param(float("-inf"), "not a finite number", id="infinity"),
        pytest.param("a\0", "NUL", id="nul"),
        pytest.param("ab\udc80", "lone surrogate at 2", id="surrogate"),
        pytest.param(time(1, tzinfo=ZoneInfo("Europe/Amsterdam")), "without a fixed offset", id="zoned time"),
        pytest.param(Enum("Local", "A").A, "enum that a worker cannot import", id="unimportable enum"),
    ]


@pytest.mark.parametrize(("value", "advice"), refused_values())
def test_what_has_no_value_is_refused(value: Any, advice: str) -> None:
    """The error is a TypeError, names the argument and says what to pass."""
    with pytest.raises(CaptureError, match=advice) as caught:
        capture((), {"project": value})

    assert isinstance(caught.value, TypeError)
    assert str(caught.value).startswith("argument 'project', of type ")


def test_the_error_says_where_the_value_is() -> None:
    """The way goes through indexes, keys, sets and fields, and shows the keys of a model's instance by type only."""
    for value, where in [
        ([0, {"a": object()}], "[1]['a']"),
        ({3: (object(),)}, "[3][0]"),
        ({object()}, "{…}"),
        ({object(): 1}, " (a key)"),
        ({Size.SMALL: {uuid4(): object()}}, "[<Size.SMALL: 1>][UUID]"),
        (Book(details={"a": object()}), ".details['a']"),
    ]:
        with pytest.raises(CaptureError) as caught:
            capture((None, value), {})
        assert str(caught.value).startswith(f"argument 2{where}, of type builtins.object, ")


def test_an_argument_name_must_be_text() -> None:
    """A keyword that came out of a dictionary may not have a NUL either."""
    with pytest.raises(CaptureError, match="NUL"):
        capture((), {"a\0": 1})


def test_a_list_that_contains_itself_is_refused() -> None:
    """Endless nesting ends with an error and not with a full stack."""
    endless: list[Any] = []
    endless.append({"again": (endless,)})

    with pytest.raises(CaptureError, match=r"argument 1\[0\]\['again'\]\[0\], .* contains itself"):
        capture((endless,), {})


def test_deep_nesting_comes_back() -> None:
    """Values of the kinds that need most nesting in the text come back from the deepest level."""
    value: Any = ()
    for _ in range(31):
        value = {1: (value,)}

    assert captured(value) == value


def test_too_many_bytes_are_refused(settings: LazySettings) -> None:
    """The arguments may have four times the bytes of a payload; the error names the largest."""
    settings.DJWEBHOOKS_PAYLOAD_LIMIT = 1000
    overhead = len(capture(("", ""), {"c": ""}).encode())
    capture(("a", "b"), {"c": "é" * ((4000 - overhead - 2) // 2)})

    with pytest.raises(CaptureError, match=r"take 4001 bytes .* 4000 are allowed .* largest is argument 'c' with"):
        capture(("a", "b"), {"c": "c" * (4001 - overhead - 2)})
    with pytest.raises(CaptureError, match=r"largest is argument 2 with 5002 bytes"):
        capture(("a", "b" * 5000), {"c": "c"})


# ---- what the worker does not know ----


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"$class": "library.Scroll"}, r"model 'library\.Scroll' does not exist"),
        ({"$model": {"label": "gone.Book", "database": None, "adding": True, "fields": {}}}, r"'gone\.Book' does not exist"),
        ({"$enum": ["tests.gone:Size", "SMALL"]}, r"'tests\.gone:Size' does not exist"),
        ({"$enum": ["tests.test_capture:Gone", "SMALL"]}, "does not exist"),
        ({"$enum": ["tests.test_capture:Size", "GONE"]}, "no member 'GONE'"),
        ({"$enum": ["tests.test_capture:Access", 4]}, "no member 4"),
        ({"$enum": ["os:getcwd", "SMALL"]}, "not an enum"),
        ({"$future": 1}, r"'\$future', which this process cannot read"),
    ],
)
def test_unknown_names_are_errors_at_rebuild(argument: Any, message: str) -> None:
    """A worker with other code says what it does not know, so that the build is tried again later."""
    with pytest.raises(RebuildError, match=message):
        rebuild(json.dumps({"args": [argument], "kwargs": []}))


# ---- names of hooks ----


def test_a_hook_is_found_by_its_path() -> None:
    """A path leads back to the function, through classes too, and to one that takes all that was captured."""
    assert path_of(book_lent) == f"{__name__}:book_lent"
    assert resolve(path_of(book_lent)) is book_lent
    assert resolve(path_of(Desk.lend))(Desk()) == "lend"
    assert resolve(path_of(Desk.renew))() == "renew"
    assert resolve(path_of(Desk.close.__func__))(Desk) == "Desk"


def test_functions_that_no_worker_finds_are_refused() -> None:
    """Decorating one is an error that says why."""

    def local() -> None:
        """Exists for one call only."""

    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def scripted(): pass", namespace)

    for function, reason in [
        (local, "function inside a function"),
        (lambda: None, "lambda"),
        (book_read, "async def"),
        (namespace["scripted"], "script or a shell"),
        (partial(book_lent), "not a function"),
        (Desk, "not a function"),
        (vars(Desk)["close"], "below @classmethod"),
        (vars(Desk)["renew"], "below @staticmethod"),
    ]:
        with pytest.raises(ConfigurationError, match=reason):
            path_of(function)


@pytest.mark.parametrize(
    "path", [f"{__name__}:no_hook", f"{__name__}:gone", f"{__name__}:Desk.gone", "tests.gone:a", "os:getcwd", "os", ""]
)
def test_only_hooks_are_resolved(path: str) -> None:
    """A name in the database cannot make a worker run anything but a hook."""
    with pytest.raises(RebuildError, match="in this process"):
        resolve(path)


def test_a_user_is_captured_without_the_password() -> None:
    """The hash of a password is in no row of ours; the rebuilt user has none that could be used."""
    user = User(pk=1, username="ada", password="md5$salt$hash")

    text = capture((user,), {})

    assert "hash" not in text
    (rebuilt,), _ = rebuild(text)
    assert (rebuilt.username, rebuilt.password) == ("ada", "")
