"""Work in the caller's own thread, without ever nesting."""

import threading
from collections.abc import Callable


class Inline(threading.local):
    """Works on a database in the thread that asks for it; what asks from inside the work is served after it, by the same caller.

    What is fired by a hook's function, or by a receiver of a signal, is committed while the work goes on. Working inside
    the work would recurse, and forgetting it would leave it to the next event.
    """

    def __init__(self, work: Callable[[str], object]) -> None:
        self._work = work
        self._asked: set[str] = set()
        self.is_working = False

    def run(self, using: str) -> None:
        """Work on the database *using*, and on each for which somebody asks meanwhile; only take note when called from inside."""
        self._asked.add(using)
        if self.is_working:
            return
        self.is_working = True
        try:
            while self._asked:
                self._work(self._asked.pop())
        finally:
            self.is_working = False
            self._asked.clear()
