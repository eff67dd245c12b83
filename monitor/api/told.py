"""Leases and answers as JSON bytes. What of a lease never changes is written once; its ``ttl`` each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from monitor.api import words
from monitor.gate import Change, LeaseSet
from monitor.model import Deed, Lease

FREE = b'"answer":"send","lease":null,"until":null,"ttl":null,"share":1.0,"pool":""}'
KEPT = 100_000  # leases whose text is remembered
PIECE = 16 << 10  # bytes that are sent at once, so that a slow reader makes nobody hold the whole


class Told:
    """The texts of leases by id: what stands in the log never changes."""

    def __init__(self) -> None:
        self._heads: dict[str, bytes] = {}

    def lease(self, one: Lease, now: datetime) -> bytes:
        """A lease as ``words.lease`` has it."""
        return b'%b,"ttl":%.3f}' % (self._head(one), ttl(one, now))

    def answer(self, lease: Lease, now: datetime, *, held: bool) -> bytes:
        """What follows the opening brace of an answer that this lease decided."""
        return b'"answer":%b,"lease":%b,"until":"%b","ttl":%.3f,"share":%b,"pool":%b}' % (
            b'"held"' if held else b'"send"',
            self.lease(lease, now),
            (words.stamp(lease.until) or "").encode(),
            ttl(lease, now),
            msgspec.json.encode(share(lease)),
            msgspec.json.encode(lease.pool if lease.deed is Deed.REROUTE else ""),
        )

    def whole(self, found: LeaseSet, now: datetime) -> bytes:
        """The whole set with its generation."""
        return b'{"generation":%d,"leases":[%b]}' % (found.generation, self._all(found.leases, now))

    def change(self, one: Change, now: datetime) -> bytes:
        """What is between two generations."""
        granted = self._all((lease for lease in one.granted if lease.until > now), now)
        ended = msgspec.json.encode(one.ended)
        return b'{"generation":%d,"since":%d,"granted":[%b],"ended":%b}' % (one.generation, one.since, granted, ended)

    def _all(self, leases: Iterable[Lease], now: datetime) -> bytes:
        return b",".join([self.lease(lease, now) for lease in leases])

    def _head(self, one: Lease) -> bytes:
        head = self._heads.get(one.id)
        if head is None:
            if len(self._heads) >= KEPT:
                self._heads.clear()
            told = words.lease(one, one.until)
            del told["ttl"]
            head = self._heads[one.id] = msgspec.json.encode(told)[:-1]
        return head


def ttl(lease: Lease, now: datetime) -> float:
    """Seconds until its end: a dispatcher needs no clock that agrees with ours."""
    return max(0.0, (lease.until - now).total_seconds())


def share(lease: Lease) -> float:
    """The part of the mail that may pass under this lease."""
    if lease.deed is Deed.THROTTLE:
        return lease.share
    return 0.0 if lease.deed is Deed.PAUSE else 1.0


def event(name: bytes, generation: int, document: bytes) -> bytes:
    """One server-sent event (HTML Living Standard, 9.2)."""
    return b"event: %b\nid: %d\ndata: %b\n\n" % (name, generation, document)


def pieces(text: bytes) -> Iterator[bytes]:
    """The text in parts that a slow reader may take one by one."""
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]
