"""The application of these tests: its targets, what it fires, and its hook."""

import random
import time
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.models import Event, WebhookTarget
from tests.faults.ledger import Ledger
from tests.library.models import Author

#: Targets that keep an order, and others.
ORDERED, LOOSE = ("/ordered/a", "/ordered/b"), "/loose"
PATHS = (*ORDERED, LOOSE)
KEYS = ("k", "l")
#: The settings of processes that wake jobs, or are them.
ON_RQ = {"DJWEBHOOKS_ENGINE": "djwebhooks.engines.rq.RQEngine"}


def make_world(ledger: Ledger) -> User:
    """Make an owner whose targets want every event, and try again at once, often."""
    owner = User.objects.create(username="owner")
    for path in PATHS:
        WebhookTarget.objects.create(
            owner=owner,
            events=["*"],
            target_url=ledger.url_for(path),
            is_ordered=path in ORDERED,
            retry_schedule=[0] * 50,
        )
    return owner


@hook("author.added", ordering_key=lambda author, owner: author.name)
def author_added(author: Author, owner: User) -> dict[str, Any]:
    """A payload that is built in the worker."""
    return {"number": author.pk}


def add_author(key: str, owner: User) -> Event:
    """What an application does: a change, and the event that tells of it, in one transaction."""
    with transaction.atomic():
        author = Author.objects.create(name=key)
        return author_added(author=author, owner=owner)


def fire_some(owner: User, count: int = 2) -> list[Event]:
    """Fire *count* times each: an event with a payload, and one whose payload is built later."""
    events = []
    for number in range(count):
        key = KEYS[number % len(KEYS)]
        events += [fire("thing.happened", {"number": number}, owner=owner, ordering_key=key), add_author(key, owner)]
    return events


def add_authors(count: int) -> None:
    """Be a process of the application that makes so many transactions."""
    owner = User.objects.get()
    for number in range(count):
        add_author(KEYS[number % len(KEYS)], owner)


def be_an_application(number: int, seed: int, count: int) -> None:
    """Make *count* transactions, of which some are rolled back, in lines of its own; each makes an author and tells of it."""
    lots = random.Random(seed)
    owner = User.objects.get()
    for _ in range(count):
        name = f"{number}.{lots.randrange(5)}"
        with transaction.atomic():
            author = Author.objects.create(name=name)
            if lots.random() < 0.5:
                author_added(author=author, owner=owner)
            else:
                fire("author.added", {"number": author.pk}, owner=owner, ordering_key=name)
            transaction.set_rollback(lots.random() < 0.2)
        time.sleep(0.05 * lots.random())


def rotate_secrets(overlap: float) -> None:
    """Be a process of the application that gives every target new keys."""
    for target in WebhookTarget.objects.all():
        target.rotate_secret(overlap)
        target.check_keys()
