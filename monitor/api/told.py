"""Leases and answers as JSON bytes. What of a lease never changes is written once; its ``ttl`` each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from monitor.api import words
from monitor.gate import Change, LeaseSet
from monitor.model import Deed, Lease

FREE = b'"answer":"send","lease":null,"until":null,"ttl":null,"share":1.0,"pool":""}'
_HELD, _SEND = b'"answer":"held","lease":', b'"answer":"send","lease":'
KEPT = 100_000  # leases whose text is remembered
PIECE = 16 << 10  # bytes that are sent at once, so that a slow reader makes nobody hold the whole


class Text:
    """The text of one lease, and of the answers that it decides: all but the time that is left."""

    __slots__ = ("_ends", "_head", "_middle", "_tail")

    def __init__(self, lease: Lease, told: dict[str, Any]) -> None:
        del told["ttl"]
        self._ends = lease.until.timestamp()
        self._head = msgspec.json.encode(told)[:-1] + b',"ttl":'
        self._middle = b'},"until":"%b","ttl":' % (words.stamp(lease.until) or "").encode()
        pool = lease.pool if lease.deed is Deed.REROUTE else ""
        self._tail = b',"share":%b,"pool":%b}' % (msgspec.json.encode(share(lease)), msgspec.json.encode(pool))

    def lease(self, now: float) -> bytes:
        """The lease as ``words.lease`` has it."""
        return b"%b%.3f}" % (self._head, max(0.0, self._ends - now))

    def answer(self, now: float, *, held: bool) -> bytes:
        """What follows the opening brace of an answer that this lease decided."""
        left = b"%.3f" % max(0.0, self._ends - now)
        return b"".join((_HELD if held else _SEND, self._head, left, self._middle, left, self._tail))


class Told:
    """The texts of leases by id: what stands in the log never changes. ``tell`` says what is told of one."""

    def __init__(self, tell: Callable[[Lease, datetime], dict[str, Any]] = words.lease) -> None:
        self._tell = tell
        self._texts: dict[str, Text] = {}

    def text(self, lease: Lease) -> Text:
        """Its text, made at the first asking."""
        text = self._texts.get(lease.id)
        if text is None:
            if len(self._texts) >= KEPT:
                self._texts.clear()
            text = self._texts[lease.id] = Text(lease, self._tell(lease, lease.until))
        return text

    def whole(self, found: LeaseSet, now: datetime) -> bytes:
        """The whole set with its generation."""
        return b'{"generation":%d,"leases":[%b]}' % (found.generation, self._all(found.leases, now))

    def change(self, one: Change, now: datetime) -> bytes:
        """What is between two generations."""
        granted = self._all((lease for lease in one.granted if lease.until > now), now)
        ended = msgspec.json.encode(one.ended)
        return b'{"generation":%d,"since":%d,"granted":[%b],"ended":%b}' % (one.generation, one.since, granted, ended)

    def _all(self, leases: Iterable[Lease], now: datetime) -> bytes:
        at = now.timestamp()
        return b",".join([self.text(lease).lease(at) for lease in leases])


def share(lease: Lease) -> float:
    """The part of the mail that may pass under this lease."""
    if lease.deed is Deed.THROTTLE:
        return lease.share
    return 0.0 if lease.deed is Deed.PAUSE else 1.0


def head(name: bytes, generation: int) -> bytes:
    """How a server-sent event begins (HTML Living Standard, 9.2): its data follows, and two line ends."""
    return b"event: %b\nid: %d\ndata: " % (name, generation)


def pieces(text: bytes) -> Iterator[bytes]:
    """The text in parts that a slow reader may take one by one."""
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]
