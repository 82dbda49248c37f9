"""Hand replies from the threads that make requests to the one that waits for them."""

from queue import Empty, SimpleQueue

from djwebhooks.transports.base import Reply


class Mailbox:
    """A queue of replies whose reader can be woken without one."""

    def __init__(self) -> None:
        self._replies: SimpleQueue[Reply | None] = SimpleQueue()

    def put(self, reply: Reply) -> None:
        self._replies.put(reply)

    def wake(self) -> None:
        self._replies.put(None)

    def collect(self, timeout: float) -> list[Reply] | None:
        """Return all replies that are there; None if in *timeout* seconds neither one nor a wake came."""
        found: list[Reply | None] = []
        try:
            found.append(self._replies.get(timeout=max(timeout, 0.0)))
            while True:
                found.append(self._replies.get_nowait())
        except Empty:
            return [reply for reply in found if reply is not None] if found else None
