"""A name server on loopback, by UDP and TCP, that tells TXT records: the keys of whoever signs mail in a test.

with KeyDns() as dns:
    dns.texts["sel._domainkey.example.com"] = [b"v=DKIM1; p=..."]
    dns.failing.add("sel._domainkey.broken.example")      # SERVFAIL
    ... dns.address                                       # "127.0.0.1:40123"
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from contextlib import suppress
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tests.waiting import free_port

_UDP = 1_232


class KeyDns:
    """``asked`` counts questions by name. Where ``silent`` is set nothing is answered; ``ttl`` is of all records.

    ``aliases`` are CNAMEs. A name under which others stand is there without records; any other is not there (NXDOMAIN),
    as the SOA of the root says for ``ttl`` seconds.
    """

    def __init__(self) -> None:
        self.texts: dict[str, list[bytes]] = {}
        self.aliases: dict[str, str] = {}
        self.failing: set[str] = set()
        self.silent = False
        self.ttl = 300
        self.asked: Counter[str] = Counter()
        self.by_tcp = 0
        self._udp, self._tcp = _pair()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve_udp, self._serve_tcp)]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._udp.getsockname()[1]}"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._udp, self._tcp):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _serve_udp(self) -> None:
        with suppress(OSError):
            while True:
                question, whence = self._udp.recvfrom(4_096)
                if not question:
                    return
                if answer := self._answer(question):
                    wire = answer.to_wire(max_size=65_535)
                    if len(wire) > _UDP:
                        answer.answer = []
                        answer.flags |= dns.flags.TC
                        wire = answer.to_wire(max_size=65_535)
                    self._udp.sendto(wire, whence)

    def _serve_tcp(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._tcp.accept()
                with line, suppress(OSError):
                    line.settimeout(5)
                    question = line.recv(4_096)
                    self.by_tcp += 1
                    if answer := self._answer(question[2:]):
                        wire = answer.to_wire(max_size=65_535)
                        line.sendall(len(wire).to_bytes(2, "big") + wire)

    def _answer(self, wire: bytes) -> dns.message.Message | None:
        question = dns.message.from_wire(wire)
        name = question.question[0].name.to_text(omit_final_dot=True).lower()
        self.asked[name] += 1
        if self.silent:
            return None
        answer = dns.message.make_response(question, recursion_available=True)
        if name in self.failing:
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer
        if name in self.aliases:
            answer.answer.append(self._records(name, "CNAME", self.aliases[name] + "."))
            name = self.aliases[name]
        if name in self.texts:
            answer.answer.append(self._records(name, "TXT", *map(_quoted, self.texts[name])))
            return answer
        if not any(known.endswith("." + name) for known in self.texts):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        answer.authority.append(self._records(".", "SOA", f"ns. host. 1 1 1 1 {self.ttl}"))
        return answer

    def _records(self, name: str, kind: str, *told: str) -> dns.rrset.RRset:
        return dns.rrset.from_text(name.rstrip(".") + ".", self.ttl, "IN", kind, *told)


def _quoted(text: bytes) -> str:
    """A TXT record as a zone file has it, in strings of 255 bytes."""
    pieces = [text[at : at + 255] for at in range(0, len(text), 255)] or [b""]
    return " ".join('"' + "".join(f"\\{byte:03d}" for byte in piece) + '"' for piece in pieces)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP on one port."""
    port = free_port()
    udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp.bind(("127.0.0.1", port))
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(("127.0.0.1", port))
    tcp.listen(16)
    return udp, tcp
