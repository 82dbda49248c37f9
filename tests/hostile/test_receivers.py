"""What is said of receivers that misbehave, and that they harm neither the worker nor each other."""

import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from djwebhooks.models import Attempt
from djwebhooks.models.deliveries import Status
from djwebhooks.testing.receiver import Receiver
from tests.hostile.receivers import ENDLESS, QUICK, Case, make_redirects
from tests.hostile.runs import Result, Run

# Without a test that uses the database, pytest-django makes none.
pytestmark = pytest.mark.django_db

#: The deadline, in seconds, that ends the endless ones, and leaves a busy machine the time to start a thread for each of them.
#: The others end long before theirs.
TIMEOUT, CONNECT_TIMEOUT, LONG_TIMEOUT = 4.0, 2.0, 60.0
#: A deadline may be overdrawn by as many times itself before it counts as none.
GENEROSITY = 20

REDIRECTS = make_redirects("")


@pytest.fixture(scope="module")
def trap() -> Iterator[Receiver]:
    """Where redirects lead."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def quick(run_once: Callable[..., Run], trap: Receiver) -> Run:
    """What came of those that end by themselves."""
    cases = [*QUICK, *make_redirects(trap.url)]
    return run_once(cases, DJWEBHOOKS_TIMEOUT=LONG_TIMEOUT, DJWEBHOOKS_CONNECT_TIMEOUT=LONG_TIMEOUT)


@pytest.fixture(scope="module")
def endless(run_once: Callable[..., Run]) -> Run:
    """What came of those that only the deadline ends."""
    return run_once(ENDLESS, DJWEBHOOKS_TIMEOUT=TIMEOUT, DJWEBHOOKS_CONNECT_TIMEOUT=CONNECT_TIMEOUT)


@pytest.fixture
def result(quick: Run, endless: Run, case: Case) -> Result:
    return (quick.results | endless.results)[case.name]


@pytest.fixture
def runs(quick: Run, endless: Run) -> tuple[Run, Run]:
    return quick, endless


@pytest.fixture
def results(runs: tuple[Run, Run]) -> list[Result]:
    return [result for run in runs for result in run.results.values()]


def by_name(*cases: Case) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def find_word(attempt: Attempt) -> str:
    if attempt.error or attempt.status_code is None:
        return attempt.error
    return "succeeded" if 200 <= attempt.status_code < 300 else f"http_{attempt.status_code}"


# -- each of them ------------------------------------------------------------------------------------------------------


@by_name(*QUICK, *REDIRECTS, *ENDLESS)
def test_the_verdict_is_said_in_a_word(case: Case, result: Result) -> None:
    """Each attempt has its word; a delivery has succeeded, or waits for its retry for that reason."""
    words = [find_word(attempt) for attempt in result.attempts]

    assert len(words) == (1 if case.hold else 2)
    assert set(words) <= {case.word, case.or_else or case.word}
    for delivery, word in zip(result.deliveries, words, strict=False):
        expected = (Status.SUCCEEDED, "") if word == "succeeded" else (Status.PENDING, word)
        assert (delivery.status, delivery.reason) == expected


@by_name(*QUICK, *REDIRECTS, *ENDLESS)
def test_an_error_is_explained_in_a_sentence(case: Case, result: Result) -> None:
    """Whoever reads an attempt without an answer sees in one printable line what went wrong."""
    for attempt in result.attempts:
        assert bool(attempt.detail) == bool(attempt.error)
        assert attempt.detail.isprintable()
        assert not attempt.detail or (attempt.detail.endswith(".") and not attempt.detail.endswith(".."))


@by_name(*QUICK, *REDIRECTS, *ENDLESS)
def test_a_connection_is_used_again_only_if_that_is_safe(case: Case, result: Result) -> None:
    """Where the end of an answer is in doubt, or more came than it said, the next request has a connection of its own."""
    is_refused = {find_word(attempt) for attempt in result.attempts} == {case.or_else}

    assert result.connections == (2 if is_refused else case.connections)


@by_name(*ENDLESS)
def test_the_deadline_ends_it(case: Case, result: Result) -> None:
    """An attempt takes as long as it may, and not much longer, however the receiver draws it out."""
    allowed = CONNECT_TIMEOUT if case.word == "connect_timeout" else TIMEOUT
    attempts = [attempt for attempt in result.attempts if find_word(attempt) == case.word]

    assert attempts
    for attempt in attempts:
        assert allowed <= attempt.duration < GENEROSITY * TIMEOUT


@by_name(*[case for case in QUICK if case.body is not None])
def test_what_is_stored_of_a_body(case: Case, result: Result) -> None:
    """The body is kept as text, and what is none is replaced."""
    assert {attempt.response_body for attempt in result.attempts} == {case.body}


@by_name(*[case for case in QUICK if case.hold])
def test_the_silence_that_was_asked_for(case: Case, result: Result) -> None:
    """A target that asked for silence gets it, a day at most: its next event is not even tried."""
    assert case.hold is not None
    least, most = case.hold
    [attempt] = result.attempts
    assert result.lane.held_until is not None
    seconds = (result.lane.held_until - attempt.started_at).total_seconds()

    assert least <= seconds <= most + LONG_TIMEOUT
    assert result.deliveries[0].due_at >= result.lane.held_until
    assert len(result.requests) == 1


# -- all together ------------------------------------------------------------------------------------------------------


def test_a_healthy_target_beside_them_gets_everything(runs: tuple[Run, Run]) -> None:
    """Whatever the others do, every event of a run reaches the healthy target in that run, once."""
    for run in runs:
        ids = [request.headers["webhook-id"] for request in run.healthy.requests]

        assert len(set(ids)) == len(ids) == 2 * len(run.results)
        assert {delivery.status for delivery in run.healthy.deliveries} == {Status.SUCCEEDED}


def test_redirects_lead_nowhere(quick: Run, trap: Receiver) -> None:
    """No server that a redirect names is connected to, and none is asked for another address."""
    assert trap.connections == 0
    for case in REDIRECTS:
        assert {request.path for request in quick.results[case.name].requests} == {"/hook"}


def test_no_receiver_gets_more_than_our_request(results: list[Result]) -> None:
    """Neither challenges nor cookies nor upgrades change what is sent next: a POST without credentials and without cookies."""
    for request in [request for result in results for request in result.requests]:
        assert request.method == "POST"
        assert not {"authorization", "proxy-authorization", "cookie", "upgrade", "expect"} & set(request.headers)


def test_cookies_are_not_kept(results: list[Result]) -> None:
    """No attempt has a Set-Cookie header."""
    attempts = [attempt for result in results for attempt in result.attempts]

    assert not any("cookie" in name for attempt in attempts for name in attempt.response_headers)


def test_headers_are_kept_without_what_controls_terminals(results: list[Result]) -> None:
    """Names and values of the headers that are kept have no control characters but the tab."""
    kept = [pair for result in results for attempt in result.attempts for pair in attempt.response_headers.items()]

    assert not any(unicodedata.category(letter) == "Cc" and letter != "\t" for pair in kept for text in pair for letter in text)


def test_nothing_that_a_receiver_says_is_logged(runs: tuple[Run, Run]) -> None:
    """No logger says a word that a receiver chose, let alone a line break or an escape sequence."""
    logged = [line for run in runs for line in run.logged]

    assert all(line.isprintable() for line in logged)
    assert not any(word in line for line in logged for word in ("alert", "x-a", "stolen", "ESMTP", "Traceback"))


def test_the_worker_leaves_no_thread_behind(runs: tuple[Run, Run]) -> None:
    """Once a run is over, nobody waits for a receiver any more."""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("djwebhooks")]


def test_the_documentation_counts_them() -> None:
    """The page on security says how many receivers there are."""
    text = " ".join((Path(__file__).parents[2] / "docs" / "explanation" / "security.rst").read_text().split())
    total = len(QUICK) + len(REDIRECTS) + len(ENDLESS)

    assert f"{total} receivers, each end to end" in text
    assert f"{len(QUICK)} misbehave in lengths" in text
    assert f"{len(REDIRECTS)} redirect, and {len(ENDLESS)} can be ended by the deadline only" in text
