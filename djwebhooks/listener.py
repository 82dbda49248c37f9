"""Hear that there is new work, where the database can tell."""

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from django.db import DatabaseError, InterfaceError

from djwebhooks import database

logger = logging.getLogger(__name__)

#: The first and the longest pause, in seconds, before a connection that broke is replaced; each is twice the one before.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0
#: Seconds that the end waits for the thread, which may be connecting.
END_PATIENCE = 1.0


class Listener:
    """Calls *on_notice*, in a thread and on a connection of its own, when work may have been committed to *using*.

    It may be called in vain, and what it misses is found by polling.
    """

    def __init__(self, using: str, on_notice: Callable[[], None]) -> None:
        self._using = using
        self._on_notice = on_notice
        self._pause = FIRST_PAUSE
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen from now on, if the database and its driver can. A second call changes nothing."""
        if self._thread is None and database.can_listen(self._using):
            self._end, self._bell = socket.socketpair()
            self._thread = threading.Thread(target=self._run, name="djwebhooks-listener", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        if self._thread is not None:
            self._bell.close()
            self._thread.join(END_PATIENCE)

    def _run(self) -> None:
        with self._end:
            while not self._has_listened():
                self._end.settimeout(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                with suppress(TimeoutError):
                    self._end.recv(1)
                    return

    def _has_listened(self) -> bool:
        """Listen until the end, and return whether this is it: the connection may have broken. Through a pooler is no way."""
        try:
            if not database.listen(self._using, self._hear, self._end):
                logger.warning("The worker hears of no commits and only polls: the database %r is behind a pooler.", self._using)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The worker hears of no commits and only polls, for %s seconds: %s", self._pause, error)
            return False
        return True

    def _hear(self) -> None:
        self._pause = FIRST_PAUSE
        self._on_notice()
