"""What is asked of single events: what became of a message or of a recipient's mail.

With ``said`` the only questions that read raw events, so each is cut to a window and to a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from monitor.facts.grouped import ANY
from monitor.facts.store import Reader
from monitor.model import LABELS, Kind, Scope, named

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


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
    reply_class: str
    found_by: str
    source: str


class Place(NamedTuple):
    """Where a page ended: the time of its last row in POSIX milliseconds, and its number."""

    at: int
    id: int


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
    cut, values = limits(since, until, ANY)
    for column, pseudonym in (("message", message), ("recipient", recipient)):
        if pseudonym:
            cut.append(f"events.{column} = toFixedString(unhex({{{column}:String}}), 16)")
            values[column] = pseudonym.hex()
    if not message and not recipient:
        raise ValueError("neither a message nor a recipient to look for")
    if after:
        cut.append("(toUnixTimestamp64Milli(events.at), events.key) < ({last_at:Int64}, {last_id:UInt64})")
        values |= last(after)
    stamps = ", ".join(f"toUnixTimestamp64Milli(events.{name}) AS {name}_ms" for name in ("at", "sent_at", "seen_at"))
    texts = ", ".join(
        f"toString(events.{name}) AS {name}"
        for name in ("kind", *LABELS, "dsn", "relay", "reply_class", "found_by", "source")
    )
    table = facts.query(
        # A block that was sent twice may not be merged yet: of one key one row.
        f"SELECT {stamps}, {texts}, events.attempt AS attempt, events.count AS count, hex(events.message) AS message,"  # noqa: S608  # names are ours
        " hex(events.recipient) AS recipient, events.key AS key, events.code AS code, events.reply AS reply FROM events"
        f" WHERE {' AND '.join(cut)} ORDER BY at_ms DESC, key DESC LIMIT 1 BY key LIMIT {most:d}",
        **values,
    )
    return tuple(_event(row) for row in table.to_pylist())


def limits(since: datetime, until: datetime, where: Scope) -> tuple[list[str], dict[str, Any]]:
    """What cuts a question to events of [since, until) within a scope: conditions, and the values that they name."""
    found = [
        "events.at >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')",
        "events.at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')",
        *(f"events.{label} = {{{label}:String}}" for label in named(where)),
    ]
    return found, {"since": millis(since), "until": millis(until), **named(where)}


def last(after: Place) -> dict[str, int]:
    """The values ``last_at`` and ``last_id`` of where a page ended."""
    return {"last_at": after.at, "last_id": after.id}


def _event(row: dict[str, Any]) -> Event:
    return Event(
        key=row["key"],
        at=stamp(row["at_ms"]),
        sent_at=stamp(row["sent_at_ms"]),
        seen_at=stamp(row["seen_at_ms"]),
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
        reply_class=row["reply_class"],
        found_by=row["found_by"],
        source=row["source"],
    )


def millis(at: datetime) -> int:
    """POSIX milliseconds."""
    return (at - _EPOCH) // _MILLISECOND


def stamp(millis: int) -> datetime:
    """The time of so many POSIX milliseconds."""
    return _EPOCH + millis * _MILLISECOND
