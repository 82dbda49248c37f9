"""Threads that look names up for those who have other things to do."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import LazySettings

from djwebhooks.transports.lookups import PATIENCE, Lookup, Lookups
from tests.transports.exchanges import lookup


class Desk:
    """Lookups, and who is rung up by them."""

    def __init__(self, getaddrinfo: Callable[..., list[tuple[Any, ...]]], most: int) -> None:
        self.rung = threading.Semaphore(0)
        self.lookups = Lookups(getaddrinfo, self.rung.release, most=most)

    def collect(self, count: int) -> list[Lookup]:
        ended: list[Lookup] = []
        while len(ended) < count:
            assert self.rung.acquire(timeout=10)
            ended += self.lookups.collect()
        return ended


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def open_desk(settings: LazySettings, hold: threading.Event) -> Iterator[Callable[..., Desk]]:
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.1/32",)
    desks: list[Desk] = []

    def open_desk(getaddrinfo: Callable[..., list[tuple[Any, ...]]], most: int = 4) -> Desk:
        desks.append(Desk(getaddrinfo, most))
        return desks[-1]

    yield open_desk
    hold.set()
    for desk in desks:
        desk.lookups.close()


def count_threads() -> int:
    return sum(thread.name == "djwebhooks-lookup" for thread in threading.enumerate())


def test_those_who_ask_at_once_share_an_answer(open_desk: Callable[..., Desk], hold: threading.Event) -> None:
    """While a name is looked up, whoever asks for it joins; whoever asks later has it looked up anew."""
    asked = []

    def getaddrinfo(host: str, port: int, **kwargs: object) -> list[tuple[Any, ...]]:
        asked.append(host)
        assert hold.wait(10)
        return lookup(["127.0.0.1"])(host, port)

    desk = open_desk(getaddrinfo)
    first, second = (desk.lookups.ask("x.example", 443, asker) for asker in ("a", "b"))
    hold.set()
    [ended] = desk.collect(1)

    assert first is second is ended
    assert (ended.askers, ended.addresses, ended.failure) == (["a", "b"], ["127.0.0.1"], None)
    desk.lookups.ask("x.example", 443, "c")
    assert desk.collect(1)[0].askers == ["c"]
    assert asked == ["x.example"] * 2


def test_threads_are_added_when_all_are_held(open_desk: Callable[..., Desk], hold: threading.Event) -> None:
    """Lookups that hang get others a thread, up to a bound; beyond it a lookup has not begun."""
    before = count_threads()

    def getaddrinfo(host: str, port: int, **kwargs: object) -> list[tuple[Any, ...]]:
        assert hold.wait(10)
        return lookup(["127.0.0.1"])(host, port)

    desk = open_desk(getaddrinfo, most=6)
    lookups = [desk.lookups.ask(f"{number}.example", 443, number) for number in range(10)]
    desk.lookups.tend(lookups[-1].asked_at + 2 * PATIENCE)
    desk.lookups.tend(lookups[-1].asked_at + 2 * PATIENCE)

    assert count_threads() - before == 6
    assert not lookups[-1].has_begun
    hold.set()
    assert len(desk.collect(10)) == 10


def test_no_thread_can_be_started(open_desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture) -> None:
    """On a machine that gives no thread a lookup does not begin, and it does as soon as there is one."""
    desk = open_desk(lookup(["127.0.0.1"]))
    size = threading.stack_size(2**46)
    try:
        asked = desk.lookups.ask("x.example", 443, "a")
    finally:
        threading.stack_size(size)

    assert not asked.has_begun
    assert caplog.record_tuples[0][1] == logging.WARNING
    desk.lookups.tend(asked.asked_at + 2 * PATIENCE)
    assert desk.collect(1)[0].addresses == ["127.0.0.1"]


def test_unexpected_fault_is_an_answer(open_desk: Callable[..., Desk], caplog: pytest.LogCaptureFixture) -> None:
    """A fault that nobody thought of is logged and told as our own, and the thread goes on."""

    def getaddrinfo(host: str, port: int, **kwargs: object) -> list[tuple[Any, ...]]:
        raise ZeroDivisionError("unexpected")

    desk = open_desk(getaddrinfo, most=1)
    for host in ("a.example", "b.example"):
        desk.lookups.ask(host, 443, host)
        [ended] = desk.collect(1)
        assert ended.failure is not None
        assert ended.failure.error == "internal_error"

    assert [record.getMessage() for record in caplog.records] == [
        "Looking up a.example failed unexpectedly.",
        "Looking up b.example failed unexpectedly.",
    ]
