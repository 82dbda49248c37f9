"""Connections are kept, shared and bounded, and none is used that may have an answer to something else."""

import os
import threading
from collections.abc import Callable

from djwebhooks.testing.receiver import Conversation, Receiver, answer_all
from djwebhooks.transports.base import Transport
from tests.transports.contract.base import Loopback, Make
from tests.transports.exchanges import build_request, collect, lookup, post


class Connections(Loopback):
    """What is sent over which connection."""

    def test_connection_is_kept(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Requests one after the other to one receiver share a connection, and each tells its address."""
        receiver = serve()
        replies = [post(transport, receiver.url) for _ in range(10)]

        assert receiver.connections == 1
        assert {reply.address for reply in replies} == {"127.0.0.1"}

    def test_connection_that_the_receiver_closed_is_not_used(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A kept connection that has been closed since is found out before anything is sent on it."""
        closed = threading.Semaphore(0)

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.answer()
            conversation.close()
            closed.release()

        receiver = serve(script=script)
        replies = []
        for _ in range(5):
            replies.append(post(transport, receiver.url))
            assert closed.acquire(timeout=10)

        assert [reply.status for reply in replies] == [200] * 5

    def test_answer_that_comes_unasked(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """What a receiver says between two requests is no answer to the second: that one has a connection of its own."""
        rest, said = threading.Event(), threading.Semaphore(0)

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.answer(200)
            assert rest.wait(10)
            conversation.answer(500)
            said.release()
            conversation.wait_closed()

        receiver = serve(script=script)
        first = post(transport, receiver.url)
        rest.set()
        assert said.acquire(timeout=10)
        second = post(transport, receiver.url)

        assert [first.status, second.status] == [200, 200]
        assert receiver.connections == 2

    def test_request_is_sent_once(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A kept connection that dies under a request is told as such: the request may have been read, so nobody repeats it."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.answer()
            conversation.read()

        receiver = serve(script=script)
        replies = [post(transport, receiver.url) for _ in range(2)]

        assert [(reply.status, reply.error) for reply in replies] == [(200, ""), (None, "connection_reset")]
        assert len(receiver.requests) == 2

    def test_connections_are_bounded_over_all_hosts(self, make: Make) -> None:
        """Idle connections to many hosts are together no more than twice the concurrency."""
        open_now: set[int] = set()

        def script(conversation: Conversation) -> None:
            open_now.add(conversation.number)
            try:
                answer_all(conversation)
            finally:
                open_now.discard(conversation.number)

        with Receiver(script=script) as receiver:
            transport = make(concurrency=2, getaddrinfo=lookup(["127.0.0.1"]))
            for number in range(12):
                assert post(transport, receiver.url_for(f"host{number}.example")).status == 200
            while len(open_now) > 4:
                transport.wait(0.01)

            assert receiver.connections == 12

    def test_forked_process_sends_with_its_own(self, transport: Transport, url: str) -> None:
        """A process that was forked from one that sends makes its own connections, and leaves those of the other alone."""
        assert post(transport, url).status == 200
        pid = os.fork()
        if pid == 0:
            try:
                status = post(transport, url).status
                transport.close()
            finally:
                os._exit(0 if status == 200 else 1)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert post(transport, url).status == 200

    def test_many_at_once(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """As many requests as the concurrency allows are in flight together, and a slow receiver delays no other."""
        everybody = threading.Barrier(30)

        def script(conversation: Conversation) -> None:
            while conversation.read():
                everybody.wait(20)
                conversation.answer(202)

        receiver = serve(script=script)
        transport = make(concurrency=30)
        for key in range(30):
            transport.submit(build_request(receiver.url, key=key, timeout=20.0))
        replies = collect(transport, 30)

        assert [reply.status for reply in replies] == [202] * 30
