"""What is aborted or closed leaves nothing behind."""

import threading
from collections.abc import Callable

from djwebhooks.testing.receiver import Conversation, Receiver, hang
from djwebhooks.transports.base import Transport
from tests.transports.contract.base import Loopback, Make
from tests.transports.exchanges import build_request, collect, drive, full_listener, post


class Ending(Loopback):
    """Breaking off."""

    def test_abort(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """What is in flight comes back as aborted, and the receiver sees the connections go."""
        gone = threading.Semaphore(0)

        def vanish(conversation: Conversation) -> None:
            hang(conversation)
            gone.release()

        receiver = serve(vanish)
        for key in range(3):
            transport.submit(build_request(receiver.url, key=key))
        drive(transport, receiver, 3)
        transport.abort()
        replies = collect(transport, 3)

        assert {reply.key: reply.error for reply in replies} == dict.fromkeys(range(3), "aborted")
        assert all(gone.acquire(timeout=10) for _ in range(3))

    def test_abort_of_what_waits(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """What was submitted and not yet begun is aborted, too, and never sent."""
        receiver = serve(hang)
        transport = make(concurrency=1)
        for key in range(2):
            transport.submit(build_request(receiver.url, key=key))
        drive(transport, receiver, 1)
        transport.abort()
        replies = collect(transport, 2)
        receiver.answers = [200]

        assert {reply.key: reply.error for reply in replies} == {0: "aborted", 1: "aborted"}
        assert post(transport, receiver.url).status == 200
        assert len(receiver.requests) == 2

    def test_abort_while_connecting(self, transport: Transport) -> None:
        """An attempt to connect is broken off, too, and the transport goes on."""
        with full_listener() as port, Receiver() as receiver:
            transport.submit(build_request(f"http://127.0.0.1:{port}/", key="stuck"))
            transport.wait(0.1)
            transport.abort()
            [reply] = collect(transport, 1)

            assert (reply.key, reply.error) == ("stuck", "aborted")
            assert post(transport, receiver.url).status == 200

    def test_close_leaves_nothing_behind(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """After a close there are no threads and no connections of the transport, whatever was in flight."""
        before = set(threading.enumerate())
        ended = threading.Semaphore(0)

        def script(conversation: Conversation) -> None:
            while conversation.read():
                if len(conversation.receiver.requests) > 5:
                    break
                conversation.answer()
            conversation.wait_closed()
            ended.release()

        with Receiver(script=script) as receiver:
            transport = make()
            for _ in range(5):
                post(transport, receiver.url)
            for key in range(4):
                transport.submit(build_request(receiver.url, key=key))
            drive(transport, receiver, 9)
            transport.close()

            assert all(ended.acquire(timeout=10) for _ in range(receiver.connections))
        assert set(threading.enumerate()) <= before
