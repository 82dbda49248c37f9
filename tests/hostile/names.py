"""A DNS server on loopback that answers as a test says, and a resolver that asks it."""

import socket
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import dns.exception
import dns.message
import dns.rdatatype
import dns.resolver
import dns.rrset

#: Stands for a name that is never answered.
SILENCE: tuple[str, ...] = ()
#: The packet that ends the server.
END = b"end"


class NameServer:
    """Serves a *zone* by UDP; a context manager.

    The zone has for each name the answers that it gives one after the other, the last for ever. An answer is a list of addresses,
    or of one other name, to which it is then an alias; or it is ``SILENCE``.
    """

    def __init__(self, zone: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._zone = {f"{name}.": list(answers) for name, answers in zone.items()}
        self._unanswered: list[tuple[dns.message.Message, Any]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        #: How often each name was asked for.
        self.asked = Counter[str]()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of those who wait for an answer, and end."""
        for query, peer in self._unanswered:
            self._socket.sendto(dns.message.make_response(query).to_wire(), peer)
        self._socket.sendto(END, self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, peer = self._socket.recvfrom(4096)
            if packet == END:
                return
            query = dns.message.from_wire(packet)
            name = query.question[0].name.to_text()
            self.asked[name.removesuffix(".")] += 1
            response = dns.message.make_response(query)
            if self._answer(name, response):
                self._socket.sendto(response.to_wire(max_size=65535), peer)
            else:
                self._unanswered.append((query, peer))

    def _answer(self, name: str, response: dns.message.Message) -> bool:
        """Add what there is for *name*, along its aliases; False if it is to be met with silence."""
        answers = self._zone[name]
        values = answers.pop(0) if len(answers) > 1 else answers[0]
        if not values:
            return False
        if values[0].replace(".", "").isdigit():
            response.answer.append(dns.rrset.from_text_list(name, 0, "IN", "A", values))
            return True
        response.answer.append(dns.rrset.from_text(name, 0, "IN", "CNAME", f"{values[0]}."))
        return self._answer(f"{values[0]}.", response)

    def getaddrinfo(self, host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
        """Look *host* up with this server alone, as ``socket.getaddrinfo`` does; the highest address first."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = self._socket.getsockname()[1]
        resolver.use_edns(payload=65535)
        try:
            answer = resolver.resolve(f"{host}.", dns.rdatatype.A, lifetime=60)
        except dns.exception.DNSException as exc:
            raise socket.gaierror(socket.EAI_NONAME, str(exc)) from exc
        # On the wire they are shuffled.
        addresses = sorted((record.address for record in answer), reverse=True)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
