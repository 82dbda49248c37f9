"""The receiver as the benchmark sees it: in a process of its own, that says what it has got."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Arrival(NamedTuple):
    """A request that arrived: how it was answered, when its note was saved, when it came."""

    how: str
    fired_at: float
    arrived_at: float

    @property
    def latency(self) -> float:
        """Seconds from the save to the arrival."""
        return self.arrived_at - self.fired_at


class ReceiverClient:
    """The receiver as the benchmark sees it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(address)

    def urls(self, count: int, how: str = "0") -> list[str]:
        """Return *count* addresses that answer in this way."""
        return [f"http://{self.address}/{how}/{number}" for number in range(count)]

    def count(self) -> int:
        """How many requests have arrived since they were forgotten."""
        return int(self._ask("/count"))

    def arrivals(self) -> list[Arrival]:
        """The requests that have arrived since they were forgotten."""
        return [Arrival(*arrival) for arrival in self._ask("/arrivals")]

    def forget(self) -> None:
        """Forget what has arrived."""
        self._ask("/forget")

    def cpu(self) -> float:
        """The processor time that the receiver has used, in seconds."""
        return float(self._ask("/cpu"))

    def _ask(self, path: str) -> Any:
        self._connection.request("GET", path)
        return json.loads(self._connection.getresponse().read())


@contextmanager
def run_receiver() -> Iterator[str]:
    """Start the receiver in a process of its own; yield its address."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.receiving"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()
