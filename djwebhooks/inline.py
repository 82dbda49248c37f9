"""Work in the caller's own thread, without ever nesting."""

import threading
from collections.abc import Callable


class Inline(threading.local):
    """Runs work in the thread that asks for it; what asks from inside the work is served after it, by the same caller.

    What is fired by a hook's function, or by a receiver of a signal, is committed while the work goes on. Working inside
    the work would recurse, and forgetting it would leave it to the next event.
    """

    def __init__(self) -> None:
        self.is_working = False
        self.is_asked = False

    def run(self, work: Callable[[], object]) -> None:
        """Call *work*, again as long as somebody asked meanwhile; only take note when called from inside it."""
        self.is_asked = True
        if self.is_working:
            return
        self.is_working = True
        try:
            while self.is_asked:
                self.is_asked = False
                work()
        finally:
            self.is_working = self.is_asked = False
