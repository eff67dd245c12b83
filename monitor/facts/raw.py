"""What is asked of single events: which replies came, and what became of a message or a recipient's mail.

The only questions that read raw events, so each is cut to a window and to a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from monitor.facts.grouped import ANY
from monitor.facts.store import Reader
from monitor.model import LABELS, Kind, Scope, named

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Reply:
    """A text that receivers answered with, as it was scrubbed; ``count`` outcomes between ``first`` and ``last``.

    ``code`` 0 and empty ``dsn``: it named none. ``providers``: some of those that said it.
    """

    id: int
    kind: Kind
    code: int
    dsn: str
    text: str
    count: int
    first: datetime
    last: datetime
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One stored event; ``message`` and ``recipient`` are pseudonyms (zeros: unknown), ``key`` is what it counts by."""

    key: int
    at: datetime
    sent_at: datetime
    seen_at: datetime
    kind: Kind
    attempt: int
    count: int
    scope: Scope
    message: bytes
    recipient: bytes
    code: int
    dsn: str
    relay: str
    reply: str
    source: str


class Place(NamedTuple):
    """Where a page ended: the time of its last row in POSIX milliseconds, and its number."""

    at: int
    id: int


def replies(
    facts: Reader,
    since: datetime,
    until: datetime,
    where: Scope = ANY,
    *,
    kinds: Sequence[Kind] = (Kind.DEFERRED, Kind.BOUNCED),
    code: int | None = None,
    dsn: str = "",
    most: int = 50,
    after: Place | None = None,
) -> tuple[Reply, ...]:
    """The replies in [since, until), the one that came last first; ``after``: the next page.

    ``dsn``: an enhanced status or how it begins, such as 5, 5.7 or 5.7.1. Outcomes without a text are one more reply.
    """
    limits, values = _limits(since, until, where)
    limits.append("events.kind IN {kinds:Array(String)}")
    values["kinds"] = [kind.value for kind in kinds]
    if code is not None:
        limits.append("events.code = {code:UInt16}")
        values["code"] = code
    if dsn:
        limits.append("(events.dsn = {dsn:String} OR startsWith(events.dsn, concat({dsn:String}, '.')))")
        values["dsn"] = dsn
    having = ""
    if after:
        having, values = " HAVING (last, id) < ({last_at:Int64}, {last_id:UInt64})", values | _last(after)
    columns = ("kind", "code", "dsn", "reply")
    table = facts.query(
        f"SELECT cityHash64({', '.join(f'events.{column}' for column in columns)}) AS id,"  # noqa: S608  # names are ours
        " toString(any(events.kind)) AS kind, any(events.code) AS code, toString(any(events.dsn)) AS dsn,"
        " any(events.reply) AS text, toInt64(sum(events.count)) AS count,"
        " toUnixTimestamp64Milli(min(events.at)) AS first, toUnixTimestamp64Milli(max(events.at)) AS last,"
        " arraySort(groupUniqArray(5)(toString(events.provider))) AS providers"
        f" FROM events WHERE {' AND '.join(limits)} GROUP BY id{having} ORDER BY last DESC, id DESC LIMIT {most:d}",
        **values,
    )
    return tuple(_reply(row) for row in table.to_pylist())


def history(
    facts: Reader,
    since: datetime,
    until: datetime,
    *,
    message: bytes = b"",
    recipient: bytes = b"",
    most: int = 100,
    after: Place | None = None,
) -> tuple[Event, ...]:
    """The events in [since, until) of a message, of a recipient's mail, or of both, the newest first.

    Both are pseudonyms of the keyring. ``after``: the next page.

    Raises:
        ValueError: neither is given.
    """
    limits, values = _limits(since, until, ANY)
    for column, pseudonym in (("message", message), ("recipient", recipient)):
        if pseudonym:
            limits.append(f"events.{column} = toFixedString(unhex({{{column}:String}}), 16)")
            values[column] = pseudonym.hex()
    if not message and not recipient:
        raise ValueError("neither a message nor a recipient to look for")
    if after:
        limits.append("(toUnixTimestamp64Milli(events.at), events.key) < ({last_at:Int64}, {last_id:UInt64})")
        values |= _last(after)
    stamps = ", ".join(f"toUnixTimestamp64Milli(events.{name}) AS {name}_ms" for name in ("at", "sent_at", "seen_at"))
    texts = ", ".join(f"toString(events.{name}) AS {name}" for name in ("kind", *LABELS, "dsn", "relay", "source"))
    table = facts.query(
        # A block that was sent twice may not be merged yet: of one key one row.
        f"SELECT {stamps}, {texts}, events.attempt AS attempt, events.count AS count, hex(events.message) AS message,"  # noqa: S608  # names are ours
        " hex(events.recipient) AS recipient, events.key AS key, events.code AS code, events.reply AS reply FROM events"
        f" WHERE {' AND '.join(limits)} ORDER BY at_ms DESC, key DESC LIMIT 1 BY key LIMIT {most:d}",
        **values,
    )
    return tuple(_event(row) for row in table.to_pylist())


def _limits(since: datetime, until: datetime, where: Scope) -> tuple[list[str], dict[str, Any]]:
    limits = [
        "events.at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')",
        "events.at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')",
        *(f"events.{label} = {{{label}:String}}" for label in named(where)),
    ]
    return limits, {"since": _millis(since), "until": _millis(until), **named(where)}


def _last(after: Place) -> dict[str, int]:
    return {"last_at": after.at, "last_id": after.id}


def _reply(row: dict[str, Any]) -> Reply:
    return Reply(
        id=row["id"],
        kind=Kind(row["kind"]),
        code=row["code"],
        dsn=row["dsn"],
        text=row["text"],
        count=row["count"],
        first=_stamp(row["first"]),
        last=_stamp(row["last"]),
        providers=tuple(filter(None, row["providers"])),
    )


def _event(row: dict[str, Any]) -> Event:
    return Event(
        key=row["key"],
        at=_stamp(row["at_ms"]),
        sent_at=_stamp(row["sent_at_ms"]),
        seen_at=_stamp(row["seen_at_ms"]),
        kind=Kind(row["kind"]),
        attempt=row["attempt"],
        count=row["count"],
        scope=Scope(**{label: row[label] for label in LABELS}),
        message=bytes.fromhex(row["message"]),
        recipient=bytes.fromhex(row["recipient"]),
        code=row["code"],
        dsn=row["dsn"],
        relay=row["relay"],
        reply=row["reply"],
        source=row["source"],
    )


def _millis(at: datetime) -> int:
    return (at - _EPOCH) // _MILLISECOND


def _stamp(millis: int) -> datetime:
    return _EPOCH + millis * _MILLISECOND
