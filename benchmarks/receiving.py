"""A receiver that is no bottleneck: it answers every POST on kept-alive connections, and knows when each arrived.

The first part of a path says how: ``/0/7`` at once, ``/1500/7`` after 1.5 seconds, ``/hang/7`` never.
"""

import asyncio
import json
import re
import sys
import time
from contextlib import suppress
from typing import Any

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
LENGTH = re.compile(rb"\r\ncontent-length: ?(\d+)", re.IGNORECASE)
FIRED_AT = re.compile(rb'"fired_at": ?([0-9.]+)')


class Receiver(asyncio.Protocol):
    """One connection: counts bytes until a request is whole, and answers."""

    #: Of each request: the first part of its path, when its note was saved and when it arrived, by the machine's own clock.
    arrivals: list[tuple[str, float, float]] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self.buffer, 0, end)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < size:
                return
            request, self.buffer = self.buffer[:size], self.buffer[size:]
            method, path, _ = request.split(b" ", 2)
            if method == b"POST":
                self.receive(path.split(b"/")[1].decode(), request[end:])
            else:
                self.tell(path.decode())

    def receive(self, how: str, body: bytes) -> None:
        """Note an arrival and answer in its time."""
        fired_at = FIRED_AT.search(body)
        self.arrivals.append((how, float(fired_at[1]) if fired_at else 0.0, time.monotonic()))
        if how == "0":
            self.transport.write(ANSWER)
        elif how != "hang":
            asyncio.get_running_loop().call_later(int(how) / 1000, self.transport.write, ANSWER)

    def tell(self, path: str) -> None:
        """Answer what the benchmark asks for."""
        facts = {"/count": len(self.arrivals), "/arrivals": self.arrivals, "/cpu": time.process_time()}
        body = json.dumps(facts.get(path)).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        if path == "/forget":
            self.arrivals.clear()


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=1000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(serve())
