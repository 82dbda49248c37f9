"""Events about the application's own rows: when they are fired, what they say, and that they commit with the row."""

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import User
from django.core import serializers
from django.db import IntegrityError, connection, transaction
from django.db.models import F
from django.db.models.signals import ModelSignal, post_save, pre_delete, pre_save
from django.test.utils import CaptureQueriesContext

from djwebhooks import model_events
from djwebhooks.exceptions import ConfigurationError, InvalidPayload
from djwebhooks.models import Event
from djwebhooks.testing import fired
from tests.connections import Thread, postgresql_only
from tests.library.models import Author, Book, Gift, Item, Paperback, Seat, Shelf, Ticket

Connect = Callable[[Mapping[str, Any]], None]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes the setting mean something during the test."""
    ends = []

    def start(told: Mapping[str, Any]) -> None:
        ends.append(model_events.connect(model_events.read_all(told)))

    yield start
    for end in ends:
        end()


def names() -> list[str]:
    return [event.name for event in fired()]


# -- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_what_becomes_of_a_row_fires_an_event(connect: Connect) -> None:
    """A row is created once, updated at each save, and deleted; of other models nothing is said."""
    connect({f"author.{kind}": f"library.Author.{kind}" for kind in ("created", "updated", "deleted")})

    author = Author.objects.create(name="x")
    author.save()
    key = author.pk
    author.delete()
    Shelf.objects.create(name="x")

    assert names() == ["author.created", "author.updated", "author.deleted"]
    assert {(event.payload, event.ordering_key) for event in fired()} == {(f'{{"id":{key}}}', f"library.author.{key}")}


@pytest.mark.django_db
def test_a_cascade_and_a_queryset_delete_row_by_row(connect: Connect) -> None:
    """Rows that go along with another are deleted as well."""
    connect({"book.deleted": "library.Book.deleted"})
    author = Author.objects.create(name="x")
    Book.objects.create(title="1", author=author)
    Book.objects.create(title="2")

    author.delete()
    Book.objects.all().delete()

    assert names() == ["book.deleted", "book.deleted"]


@pytest.mark.django_db
def test_a_proxy_is_the_same_row(connect: Connect) -> None:
    """An event about a model is also about its proxies; one about a proxy is about that alone."""
    connect({"book.added": "library.Book.created", "paperback.added": "library.Paperback.created"})

    Book.objects.create(title="x")
    Paperback.objects.create(title="y")

    assert sorted(names()) == ["book.added", "book.added", "paperback.added"]


@pytest.mark.django_db
def test_a_child_is_a_row_of_its_parent_too(connect: Connect) -> None:
    """Whatever becomes of a row in a table of its own becomes of the parent's row, and that only once."""
    connect({f"item.{kind}": f"library.Item.{kind}" for kind in ("created", "updated", "deleted")})
    connect({"item.renamed": {"on": "library.Item.updated", "changed": ["title"]}})

    book = Book.objects.create(title="x")
    book.title = "y"
    book.save()
    book.delete()
    Item.objects.create(title="z").delete()

    assert names() == ["item.created", "item.updated", "item.renamed", "item.deleted", "item.created", "item.deleted"]


@pytest.mark.django_db
def test_a_child_of_several_parents_has_a_row_and_a_key_of_each(connect: Connect) -> None:
    """What became of the row of one parent is read by its own key, and keeps the line of its own key."""
    connect({f"donation.{kind}": f"library.Donation.{kind}" for kind in ("created", "deleted")})
    connect({"donation.renamed": {"on": "library.Donation.updated", "changed": ["donor"]}})
    connect({"item.renamed": {"on": "library.Item.updated", "changed": ["title"]}})

    gift = Gift.objects.create(title="x", donor="Ann")
    item, donation = f"library.item.{gift.uid}", f"library.donation.{gift.number}"
    gift.donor = "Bob"
    gift.save()
    gift.title = "y"
    gift.save()
    gift.delete()

    assert [(event.name, event.ordering_key) for event in fired()] == [
        ("donation.created", donation),
        ("donation.renamed", donation),
        ("item.renamed", item),
        ("donation.deleted", donation),
    ]


@pytest.fixture
def saving_again() -> Iterator[None]:
    """An application that saves each shelf once more, as soon as it hears of it."""
    busy: set[int] = set()

    def save_again(instance: Shelf, **_: object) -> None:
        if instance.pk not in busy:
            busy.add(instance.pk)
            instance.name += "!"
            instance.save(update_fields=["name"])
            busy.discard(instance.pk)

    post_save.connect(save_again, sender=Shelf)
    yield
    post_save.disconnect(save_again, sender=Shelf)


@pytest.mark.django_db
def test_a_save_within_a_save_comes_after_it(connect: Connect, saving_again: None) -> None:
    """Each says what it changed, in the order in which they began."""
    connect(
        {
            "shelf.added": "library.Shelf.created",
            "shelf.updated": "library.Shelf.updated",
            "shelf.deepened": {"on": "library.Shelf.updated", "changed": ["depth"]},
        }
    )
    shelf = Shelf.objects.create(name="a")
    assert names() == ["shelf.added", "shelf.updated"]

    shelf.depth = 99
    shelf.save()

    assert names()[2:] == ["shelf.updated", "shelf.deepened", "shelf.updated"]


@pytest.mark.django_db
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda instance: pickle.loads(pickle.dumps(instance))])
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_a_copy_that_is_made_during_a_save_fires_its_own(connect: Connect, signal: ModelSignal, copied: Any) -> None:
    """An application may cache the instance of which it is told, and save what it gets back."""
    connect({"item.changed": {"on": "library.Item.updated", "changed": ["title"], "payload": ["title"]}})
    item = Item.objects.create(title="a")
    copies: list[Item] = []
    signal.connect(receiver := lambda instance, **_: copies.append(copied(instance)), sender=Item)
    item.title = "b"
    item.save()
    signal.disconnect(receiver, sender=Item)

    for title in "cd":
        copies[0].title = title
        copies[0].save()

    assert [event.payload for event in fired()] == [f'{{"title":"{title}"}}' for title in "bcd"]


@pytest.mark.django_db
def test_a_copy_that_is_made_during_a_deletion_holds_nothing_of_the_event(connect: Connect) -> None:
    """It can be pickled whatever the event tells, and fires its own."""
    connect({"item.gone": {"on": "library.Item.deleted", "payload": f"{__name__}.tell_what_cannot_be_pickled"}})
    copies: list[bytes] = []
    pre_delete.connect(receiver := lambda instance, **_: copies.append(pickle.dumps(instance)), sender=Item)
    Item.objects.create(title="a").delete()
    pre_delete.disconnect(receiver, sender=Item)
    again = pickle.loads(copies[0])
    again.save(force_insert=True)
    again.delete()

    assert names() == ["item.gone", "item.gone"]


class Title(str):
    """Is told as text, and cannot be pickled."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        raise TypeError


def tell_what_cannot_be_pickled(item: Item) -> Title:
    return Title(item.title)


@pytest.mark.django_db
def test_a_row_whose_key_the_database_makes_is_new(connect: Connect) -> None:
    """What it held before is not looked for: the expression that makes the key may be another one for each row."""
    connect({"ticket.changed": {"on": "library.Ticket.updated", "changed": ["note"]}})
    with CaptureQueriesContext(connection) as queries:
        ticket = Ticket.objects.create(note="a")

    assert [query["sql"] for query in queries if query["sql"].startswith("SELECT")] == []
    ticket.note = "b"
    ticket.save()
    assert names() == ["ticket.changed"]


@pytest.mark.django_db
def test_a_save_that_failed_changed_nothing(connect: Connect) -> None:
    """What it would have written is not told with the next save."""
    connect({"user.mailed": {"on": "auth.User.updated", "changed": ["email"], "payload": ["email"]}})
    User.objects.create_user("taken")
    user = User.objects.create_user("ann", "old@example.com")

    user.username, user.email = "taken", "new@example.com"
    with pytest.raises(IntegrityError), transaction.atomic():
        user.save()
    user.username = "ann2"
    user.save(update_fields=["username"])

    assert names() == []
    assert set(vars(user)) == set(vars(User.objects.get(pk=user.pk)))


@pytest.mark.django_db
def test_an_update_that_is_forced_is_one(connect: Connect) -> None:
    """Also of an instance that was built by hand, with a key that could have been new."""
    connect({"item.renamed": {"on": "library.Item.updated", "changed": ["title"]}})
    item = Item.objects.create(title="a")

    Item(pk=item.pk, title="b").save(force_update=True)

    assert names() == ["item.renamed"]


@pytest.mark.django_db
def test_rows_that_django_does_not_tell_of_fire_nothing(connect: Connect) -> None:
    """These write many rows with one statement, and fixtures are no news."""
    connect({"a.created": "library.Author.created", "a.updated": "library.Author.updated"})

    Author.objects.bulk_create([Author(name="x")])
    Author.objects.update(name="y")
    [raw] = serializers.deserialize("json", '[{"model": "library.author", "pk": 4711, "fields": {"name": "z"}}]')
    raw.save()

    assert names() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "is_fired"),
    [
        ({"price": Decimal("2.00")}, True),
        ({"price": None}, True),
        ({"price": F("price") + 1}, True),
        ({"title": "y"}, True),
        ({"price": "1.0"}, False),
        ({"weight": 2.0}, False),
        ({"details": {"sizes": (1, 2)}}, False),
        ({}, False),
    ],
)
def test_a_field_must_have_changed(connect: Connect, change: dict[str, Any], is_fired: bool) -> None:
    """What the row held before counts, as the database has it: no matter how the instance came to its values."""
    connect({"book.changed": {"on": "library.Book.updated", "changed": ["price", "title", "details"]}})
    book = Book.objects.create(title="x", price="1.00", details={"sizes": [1, 2]})
    book.price = Decimal(1)

    for name, value in change.items():
        setattr(book, name, value)
    book.save()

    assert names() == ["book.changed"] * is_fired


@pytest.mark.django_db
def test_only_what_is_written_changes(connect: Connect) -> None:
    """With ``update_fields``, and with fields that were never loaded, the others stay what they are."""
    connect({"book.changed": {"on": "library.Book.updated", "changed": ["price", "author"]}})
    book = Book.objects.create(title="x", price=1)

    book.price = Decimal(2)
    book.save(update_fields=["title"])
    Book.objects.only("title").get().save()
    assert names() == []

    book.save(update_fields=["price"])
    assert names() == ["book.changed"]


@pytest.mark.django_db
def test_a_row_that_is_written_over_has_changed(connect: Connect) -> None:
    """A new instance with a known key updates the row."""
    connect({"author.renamed": {"on": "library.Author.updated", "changed": ["name"]}})
    author = Author.objects.create(name="x")

    Author(pk=author.pk, name="y").save()

    assert names() == ["author.renamed"]


def has_doubled(book: Book, changes: model_events.Changes) -> bool:
    assert changes.keys() == {"price"}
    old, new = changes["price"]
    assert isinstance(new, Decimal)
    return bool(new == 2 * old)


def is_long(author: Author, changes: model_events.Changes) -> bool:
    return len(author.name) > 3


@pytest.mark.django_db
def test_a_condition_decides_from_the_row_and_from_what_changed(connect: Connect) -> None:
    """It is a function of one's own."""
    connect(
        {
            "book.doubled": {"on": "library.Book.updated", "changed": ["price"], "condition": f"{__name__}.has_doubled"},
            "book.retitled": {"on": "library.Book.updated", "changed": ["title"]},
            "author.long": {"on": "library.Author.created", "condition": f"{__name__}.is_long"},
        }
    )
    book = Book.objects.create(title="x", price=1)
    for price in ("2", "3", "6", "6"):
        book.price = price  # type: ignore[assignment]  # as a form might
        book.save()
    Author.objects.create(name="Ann")
    Author.objects.create(name="Berta")

    assert names() == ["book.doubled", "book.doubled", "author.long"]


# -- what --------------------------------------------------------------------------------------------------------------


def describe(book: Book) -> dict[str, object]:
    return {"shown": book.title.upper()}


@pytest.mark.django_db
def test_a_key_may_have_several_columns(connect: Connect) -> None:
    """Without a payload each of them is told, and a row's events keep their order."""
    connect({f"seat.{kind}": f"library.Seat.{kind}" for kind in ("created", "updated", "deleted")})
    seat = Seat.objects.create(desk="north", number=3)
    seat.save()
    seat.delete()

    assert names() == ["seat.created", "seat.updated", "seat.deleted"]
    assert {event.payload for event in fired()} == {'{"desk":"north","number":3}'}
    assert {event.ordering_key for event in fired()} == {"library.seat.('north', 3)"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (["title", "price", "author", "cover"], '{"title":"x","price":"1.50","author":AUTHOR,"cover":"covers/x.png"}'),
        ([], "{}"),
        (f"{__name__}.describe", '{"shown":"X"}'),
    ],
)
def test_a_payload_is_fields_or_a_function(connect: Connect, payload: object, expected: str) -> None:
    """It holds what it is told to, and never more: a password's hash does not get out by accident."""
    connect({"book.added": {"on": "library.Book.created", "payload": payload}})
    author = Author.objects.create(name="a")

    Book.objects.create(title="x", price=Decimal("1.5"), author=author, cover="covers/x.png")

    assert [event.payload for event in fired()] == [expected.replace("AUTHOR", str(author.pk))]


@pytest.mark.django_db
def test_a_payload_has_what_the_row_has(connect: Connect) -> None:
    """Not what an assignment happened to be written as, or was never saved, nor an expression that the database computes."""
    fields = ["name", "depth", "area"]
    connect({f"shelf.{kind}": {"on": f"library.Shelf.{kind}", "payload": fields} for kind in ("created", "updated")})

    shelf = Shelf.objects.create(name="a", depth="50")
    shelf.depth, shelf.name = F("depth") + 1, "never saved"
    shelf.save(update_fields=["depth"])

    assert [event.payload for event in fired()] == [
        '{"name":"a","depth":50,"area":4500}',
        '{"name":"a","depth":51,"area":4590}',
    ]


@pytest.mark.django_db
def test_a_deletion_tells_what_there_was(connect: Connect) -> None:
    """Everything can be read before it goes: columns that were not loaded, and rows that go along."""
    connect({"book.gone": {"on": "library.Book.deleted", "payload": ["title"], "identifier": "author.name"}})
    author = Author.objects.create(name="Ann")
    Book.objects.create(title="x", author=author)

    Book.objects.only("pk").get().delete()
    Book.objects.create(title="y", author=author)
    author.delete()

    assert [(event.payload, event.identifier) for event in fired()] == [('{"title":"x"}', "Ann"), ('{"title":"y"}', "Ann")]


@pytest.mark.django_db
def test_the_options_of_fire_are_paths_of_attributes(connect: Connect) -> None:
    """Where a path ends at nothing, there is no owner, and no identifier."""
    connect(
        {
            "user.joined": {"on": "auth.User.created", "owner": "self", "identifier": "username"},
            "book.added": {"on": "library.Book.created", "identifier": "author.name", "broadcast": True},
        }
    )
    owner = User.objects.create_user("ann")
    Book.objects.create(title="x", author=Author.objects.create(name="Max"))
    Book.objects.create(title="y")
    connect({"item.added": {"on": "library.Item.created", "identifier": "loan_time.days"}})
    Item.objects.create(title="z", loan_time=timedelta(0))
    connect({"item.kept": {"on": "library.Item.updated", "identifier": "book.author.name"}})
    Item.objects.get(title="z").save()
    connect({"staff.changed": {"on": "admin.LogEntry.created", "owner": "user"}})
    LogEntry.objects.create(user=owner, action_flag=ADDITION, object_repr="x")

    assert [(event.owner, event.identifier, event.is_broadcast) for event in fired()] == [
        (owner, "ann", False),
        (None, "Max", True),
        (None, "", True),
        (None, "0", False),
        (None, "", False),
        (owner, "", False),
    ]
    assert fired()[1].subjects, "an erasure finds the event by its row"


@pytest.mark.django_db
@pytest.mark.parametrize("happening", ["updated", "deleted"])
def test_owner_and_identifier_are_those_that_the_row_has(connect: Connect, happening: str) -> None:
    """Nobody gets the event who was assigned and never saved: what it tells is of the first owner's row."""
    ann, bob = User.objects.create_user("ann"), User.objects.create_user("bob")
    connect(
        {
            f"entry.{name}": {"on": f"admin.LogEntry.{happening}", "owner": "user", "identifier": identifier}
            for name, identifier in [("a", "user.username"), ("b", "change_message"), ("c", "user_id")]
        }
    )
    entry = LogEntry.objects.create(user=ann, action_flag=ADDITION, object_repr="x", change_message="first")
    entry.user, entry.change_message = bob, "never saved"
    if happening == "updated":
        entry.save(update_fields=["object_repr"])
    else:
        entry.delete()

    assert [(event.owner, event.identifier) for event in fired()] == [(ann, "ann"), (ann, "first"), (ann, str(ann.pk))]


@pytest.mark.django_db
def test_a_field_called_owner_is_the_owner(connect: Connect) -> None:
    """If it refers to what owns targets."""
    connect({"target.made": "djwebhooks.WebhookTarget.created"})
    owner = User.objects.create_user("ann")

    owner.webhook_targets.create(event="a", target_url="https://example.com/")

    assert [event.owner for event in fired()] == [owner]


# -- with the row ------------------------------------------------------------------------------------------------------


def refuse(instance: object) -> object:
    return b"not JSON"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("happening", ["created", "updated", "deleted"])
def test_outside_a_transaction_row_and_event_are_written_in_one(connect: Connect, happening: str) -> None:
    """If the event cannot be written, neither is the row: also where nobody opened a transaction."""
    author = Author.objects.create(name="before")
    connect({"author.event": {"on": f"library.Author.{happening}", "payload": f"{__name__}.refuse"}})
    assert not connection.in_atomic_block

    work = {
        "created": Author(name="after").save,
        "updated": Author(pk=author.pk, name="after").save,
        "deleted": author.delete,
    }
    with pytest.raises(InvalidPayload):
        work[happening]()

    assert list(Author.objects.values_list("name")) == [("before",)]
    assert not Event.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_was_never_fired(connect: Connect) -> None:
    """The event is part of the transaction that the row is part of."""
    connect({"author.created": "library.Author.created"})

    with suppress(ZeroDivisionError), transaction.atomic():
        Author.objects.create(name="x")
        assert Event.objects.count() == 1
        raise ZeroDivisionError

    assert not Event.objects.exists()


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_a_save_lets_others_refer_to_the_row(connect: Connect) -> None:
    """It locks no more than Django's own UPDATE does, so that nobody waits, and two cannot wait for each other."""
    connect({"author.renamed": {"on": "library.Author.updated", "changed": ["name"]}})
    author = Author.objects.create(name="x")

    def refer() -> Book:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '5s'")
        return Book.objects.create(title="y", author_id=author.pk)

    with transaction.atomic():
        author.name = "z"
        author.save()
        assert Thread(refer).result().pk

    assert names() == ["author.renamed"]


# -- the setting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"a-b": "library.Book.created"}, "'a-b' is no event name"),
        ({"a": 5}, "write 'app_label.Model.created' or a dictionary with 'on', not 5."),
        ({"a": "library.Book"}, "'library.Book' must be 'app_label.Model.' and one of created, updated, deleted."),
        ({"a": "library.Book.added"}, "'library.Book.added' must be"),
        ({"a": "library.Tome.created"}, "App 'library' doesn't have a 'Tome' model."),
        ({"a": "auth.User_groups.created"}, "Django tells nobody about its rows"),
        ({"a": "libary.Book.created"}, "No installed app with label 'libary'."),
        ({"a": {"changed": ["title"]}}, "'on' is missing: it says what happens to which rows"),
        ({"a": {"on": "library.Book.created", "when": 1}}, "the key 'when' means nothing: there are on, changed,"),
        ({"a": {"on": "library.Book.updated", "changed": "title"}}, "'changed' must be a list of fields, not 'title'."),
        ({"a": {"on": "library.Book.updated", "changed": ["tilte"]}}, "Book has no field named 'tilte'"),
        ({"a": {"on": "library.Author.updated", "changed": ["books"]}}, "library.Author.books is no column"),
        ({"a": {"on": "library.Book.created", "changed": ["title"]}}, "this is about rows that are created."),
        ({"a": {"on": "library.Book.created", "payload": 5}}, "'payload' must be a list of fields or the dotted path"),
        ({"a": {"on": "library.Book.created", "payload": ["tilte"]}}, "Book has no field named 'tilte'"),
        (
            {"a": {"on": "library.Book.created", "payload": "title"}},
            "'payload' must be the dotted path of a function, not 'title'.",
        ),
        ({"a": {"on": "library.Book.created", "condition": "os.sep"}}, "'condition' must be the dotted path of a function"),
        ({"a": {"on": "library.Book.created", "condition": "nowhere.f"}}, "No module named 'nowhere'"),
        (
            {"a": {"on": "library.Book.created", "owner": 1}},
            "'owner' must be a path of attributes, such as 'author.user', or None, not 1.",
        ),
        ({"a": {"on": "library.Book.created", "owner": "autor.user"}}, "library.Book has no attribute 'autor'."),
        ({"a": {"on": "library.Book.created", "owner": "author.nmae"}}, "library.Author has no attribute 'nmae'."),
        (
            {"a": {"on": "library.Book.created", "owner": "author"}},
            "'author' is a library.Author, and targets belong to auth.User.",
        ),
        ({"a": {"on": "library.Book.created", "identifier": 1}}, "'identifier' must be a path of attributes"),
        ({"a": {"on": "library.Book.created", "broadcast": "yes"}}, "'broadcast' must be True or False, not 'yes'."),
    ],
)
def test_an_entry_that_cannot_be_is_said(told: Mapping[str, Any], message: str) -> None:
    """Django does not start with it, and the message names the event."""
    with pytest.raises(ConfigurationError) as caught:
        model_events.read_all(told)

    assert f"DJWEBHOOKS_MODEL_EVENTS[{next(iter(told))!r}]" in str(caught.value)
    assert message in str(caught.value)


def test_a_setting_that_is_no_dictionary_is_said() -> None:
    """A list of events says nothing about their rows."""
    with pytest.raises(ConfigurationError, match="DJWEBHOOKS_MODEL_EVENTS must be a dictionary of events"):
        model_events.read_all(["book.added"])


@pytest.mark.django_db
def test_the_setting_counts_when_django_starts(settings: LazySettings) -> None:
    """To start again forgets what was said before."""
    settings.DJWEBHOOKS_MODEL_EVENTS = {"author.created": "library.Author.created"}
    model_events.start()
    model_events.start()
    Author.objects.create(name="x")

    settings.DJWEBHOOKS_MODEL_EVENTS = {}
    model_events.start()
    Author.objects.create(name="y")

    assert names() == ["author.created"]
    assert not post_save.has_listeners(Author)
    assert "save_base" not in vars(Author)
