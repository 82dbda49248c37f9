"""Look names up: at once, or in threads of their own for a caller who has other things to do meanwhile."""

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from djwebhooks.exceptions import ForbiddenAddress
from djwebhooks.network import GetAddrInfo, name_dns_fault, resolve
from djwebhooks.transports import faults
from djwebhooks.transports.faults import ExchangeFailed

logger = logging.getLogger(__name__)

#: Threads to begin with, and at most: each of them may be held by a DNS server that does not answer.
FIRST_THREADS = 4
MOST_THREADS = 256
#: Seconds that a lookup may wait for a thread before there are more threads.
PATIENCE = 0.02
#: Seconds for all threads together to end in.
CLOSE_TIMEOUT = 1.0


def find_addresses(host: str, port: int, getaddrinfo: GetAddrInfo) -> list[str]:
    """Return the addresses of *host*, all of them allowed. Raises ExchangeFailed if one is not, or if there are none."""
    try:
        return resolve(host, port, getaddrinfo=getaddrinfo)
    except ForbiddenAddress as exc:
        # Its message is the operator's.
        logger.info("%s", exc)
        raise faults.forbidden() from exc
    except OSError as exc:
        raise faults.find_lack() or blame(host, exc) from exc
    except UnicodeError as exc:
        raise ExchangeFailed("invalid_url", "The URL's host is no valid name.") from exc


def blame(host: str, exc: OSError) -> ExchangeFailed:
    # Where the resolver fails by an error of the system, its number means nothing; it is for want of something here.
    word = name_dns_fault(exc) if isinstance(exc, socket.gaierror) else "out_of_sockets"
    return ExchangeFailed(word, f"Looking up {host} failed: {exc.strerror}.")


class Lookup:
    """One question and its answer: *addresses*, or a *failure*. *askers* are those who wait for it."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.asked_at = time.monotonic()
        self.has_begun = False
        self.askers: list[Any] = []
        self.addresses: list[str] = []
        self.failure: ExchangeFailed | None = None


class Lookups:
    """No more than *most* threads that look names up. *ring* is called in them, whenever there is an answer."""

    def __init__(self, getaddrinfo: GetAddrInfo, ring: Callable[[], None], *, most: int = MOST_THREADS) -> None:
        self._most = most
        self._getaddrinfo = getaddrinfo
        self._ring = ring
        self._open: dict[tuple[str, int], Lookup] = {}
        self._queue: SimpleQueue[Lookup | None] = SimpleQueue()
        self._done: deque[Lookup] = deque()
        self._threads: list[threading.Thread] = []

    def ask(self, host: str, port: int, asker: Any) -> Lookup:
        """Begin a lookup for *asker*, or join it to the one that is under way: many requests may need a connection at once."""
        lookup = self._open.get((host, port))
        if lookup is None:
            lookup = self._open[host, port] = Lookup(host, port)
            self._queue.put(lookup)
            self._grow(min(FIRST_THREADS, self._most))
        lookup.askers.append(asker)
        return lookup

    def collect(self) -> list[Lookup]:
        """Return the lookups that have ended since."""
        ended = []
        while self._done:
            lookup = self._done.popleft()
            del self._open[lookup.host, lookup.port]
            ended.append(lookup)
        return ended

    def tend(self, now: float) -> None:
        """Add threads if lookups wait for one."""
        if any(not lookup.has_begun and now - lookup.asked_at > PATIENCE for lookup in self._open.values()):
            self._grow(min(self._most, 2 * len(self._threads) + 1))

    def close(self) -> None:
        """End the threads; one that a lookup holds for longer ends when that does."""
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _grow(self, most: int) -> None:
        """Have as many threads as there are lookups, and no more than *most*."""
        while len(self._threads) < min(most, len(self._open)):
            thread = threading.Thread(target=self._work, name="djwebhooks-lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:
                logger.warning("There cannot be more than %d threads: %s", len(self._threads), exc)
                return
            self._threads.append(thread)

    def _work(self) -> None:
        while (lookup := self._queue.get()) is not None:
            lookup.has_begun = True
            self._look_up(lookup)
            self._done.append(lookup)
            self._ring()

    def _look_up(self, lookup: Lookup) -> None:
        try:
            lookup.addresses = find_addresses(lookup.host, lookup.port, self._getaddrinfo)
        except ExchangeFailed as exc:
            lookup.failure = exc
        except Exception:
            logger.exception("Looking up %s failed unexpectedly.", lookup.host)
            lookup.failure = faults.unexpected()
