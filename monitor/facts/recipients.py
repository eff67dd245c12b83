"""What is asked of single events about many recipients at once: who took mail, and whom something speaks against."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from monitor.facts.prepare import SELLERS
from monitor.facts.store import Reader
from monitor.model import Kind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_AT_ONCE = 2000  # recipients a question: as hexadecimal they go in a URL
_DAY = timedelta(days=1)
_PAGE = 50_000
_KINDS = (Kind.BOUNCED, Kind.EXPIRED, Kind.RETURNED, Kind.COMPLAINT, Kind.UNSUBSCRIBED)
_NOT_TAKEN = (Kind.BOUNCED, Kind.EXPIRED, Kind.RETURNED)
_BACK = timedelta(days=5)  # after which a server that took a mail returns it no more: RFC 5321 section 4.5.4.1
_TEXTS = ("kind", "provider", "tenant", "stream", "campaign", "source", "reply_class", "dsn")


def delivered(facts: Reader, recipients: Collection[bytes], since: datetime, until: datetime) -> dict[bytes, datetime]:
    """Who of these pseudonyms took a mail in [since, until), and when last; what sellers say of it does not count.

    A mail that a server took, and that came back afterwards, reached nobody.
    """
    found: dict[bytes, datetime] = {}
    asked = sorted(recipients)
    for first in range(0, len(asked), _AT_ONCE):
        table = facts.query(
            "SELECT hex(recipient) AS who, toUnixTimestamp64Milli(max(took)) AS last FROM ("
            "SELECT events.recipient AS recipient, events.message AS message,"
            " maxIf(events.at, events.kind = {kind:String}"
            " AND events.at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')) AS took,"
            " countIf(events.kind != {kind:String}) AS back FROM events"
            " WHERE events.at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
            " AND events.at < fromUnixTimestamp64Milli({back_until:Int64}, 'UTC')"
            " AND events.kind IN {kinds:Array(String)} AND events.source != {sellers:String}"
            " AND events.recipient GLOBAL IN"
            " (SELECT toFixedString(unhex(arrayJoin({people:Array(String)})), 16))"
            " GROUP BY recipient, message)"
            " WHERE toUnixTimestamp64Milli(took) >= {since:Int64} AND (back = 0 OR message = toFixedString('', 16))"
            " GROUP BY recipient",
            since=_millis(since),
            until=_millis(until),
            back_until=_millis(until + _BACK),
            kind=str(Kind.SENT),
            kinds=[kind.value for kind in (Kind.SENT, *_NOT_TAKEN)],
            sellers=SELLERS,
            people=[one.hex() for one in asked[first : first + _AT_ONCE]],
        )
        found |= {bytes.fromhex(row["who"]): _stamp(row["last"]) for row in table.to_pylist()}
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """An event that may speak against its recipient; ``recipient`` and ``message`` are pseudonyms."""

    key: int
    at: datetime
    seen_at: datetime
    recipient: bytes
    message: bytes
    kind: str
    provider: str
    tenant: str
    stream: str
    campaign: str
    source: str
    reply_class: str
    code: int
    dsn: str
    reply: str


def told(facts: Reader, since: datetime, until: datetime) -> Iterator[Sequence[Told]]:
    """All such events in [since, until), each once, in pieces by their key, day after day."""
    start = since
    while start < until:
        end = min(start + _DAY, until)
        last = -1
        while piece := _piece(facts, start, end, last):
            yield piece
            last = piece[-1].key
        start = end


def _piece(facts: Reader, since: datetime, until: datetime, after: int) -> list[Told]:
    texts = ", ".join(f"toString(events.{name}) AS {name}" for name in _TEXTS)
    table = facts.query(
        f"SELECT events.key AS key, toUnixTimestamp64Milli(events.at) AS at_ms, events.code AS code,"  # noqa: S608  # names are ours
        f" toUnixTimestamp64Milli(events.seen_at) AS seen_ms, hex(events.recipient) AS who,"
        f" hex(events.message) AS what, events.reply AS reply, {texts} FROM events"
        " WHERE events.at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
        " AND events.at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')"
        " AND events.kind IN {kinds:Array(String)} AND events.key > {after:UInt64}"
        " AND events.recipient != toFixedString('', 16)"
        f" ORDER BY key LIMIT 1 BY key LIMIT {_PAGE:d}",
        since=_millis(since),
        until=_millis(until),
        kinds=[kind.value for kind in _KINDS],
        after=max(after, 0),
    )
    return [_told(row) for row in table.to_pylist()]


def _told(row: dict[str, Any]) -> Told:
    return Told(
        key=row["key"],
        at=_stamp(row["at_ms"]),
        seen_at=_stamp(row["seen_ms"]),
        recipient=bytes.fromhex(row["who"]),
        message=bytes.fromhex(row["what"]),
        code=row["code"],
        reply=row["reply"],
        **{name: row[name] for name in _TEXTS},
    )


def _millis(at: datetime) -> int:
    return (at - _EPOCH) // _MILLISECOND


def _stamp(millis: int) -> datetime:
    return _EPOCH + millis * _MILLISECOND
