"""A name server on UDP whose answers may change from one question to the next, as an attacker's would.

with Names("127.0.0.1", 53) as names:
    names.tells["rebind.example"] = [["93.184.216.34"], ["127.0.0.1"]]      # first this, from then on that
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from ipaddress import ip_address
from typing import Self

_A, _AAAA = 1, 28


class Names:
    """``asked`` counts questions by name and type (A, AAAA). Nothing is kept by who asks: each answer's TTL is 0."""

    def __init__(self, host: str, port: int) -> None:
        self.tells: dict[str, list[list[str]]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, though it says that nobody is connected
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                question, whence = self._socket.recvfrom(4096)
                if not question:
                    return
                self._socket.sendto(self._answer(question), whence)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode("ascii").lower())
            at += 1 + length
        (kind,) = struct.unpack("!H", question[at + 1 : at + 3])
        name, end = ".".join(labels), at + 5
        told = self.tells.get(name)
        turn = self.asked[name, "A" if kind == _A else "AAAA"]
        self.asked[name, "A" if kind == _A else "AAAA"] += 1
        addresses = [ip_address(text) for text in told[min(turn, len(told) - 1)]] if told else []
        fit = [one for one in addresses if one.version == (4 if kind == _A else 6 if kind == _AAAA else 0)]
        code = 0x8180 if told is not None else 0x8183  # there is no such name
        head = question[:2] + struct.pack("!HHHHH", code, 1, len(fit), 0, 0)
        records = [struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(one.packed)) + one.packed for one in fit]
        return head + question[12:end] + b"".join(records)
