"""Levels: what stood at some height at a time, such as a listing, a provider's score, a verdict; by scope and name."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from monitor.facts.rows import NAME
from monitor.facts.store import Facts, Reader
from monitor.model import LABELS, Scope, labels, named

_ANY = Scope()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP = pa.timestamp("ms", tz="UTC")
_ROWS = pa.schema(
    [
        ("at", _STAMP),
        ("seen_at", _STAMP),
        ("kind", NAME),
        *((label, NAME) for label in LABELS),
        ("name", NAME),
        ("value", pa.float64()),
        ("text", pa.string()),
        ("source", NAME),
        ("key", pa.uint64()),
    ]
)
_BLOCK = 50_000  # levels of one insert
_MONTHS = 60  # that one insert may touch; the engine refuses a hundred
_COLUMNS = ("at", "seen_at", "kind", *LABELS, "name", "value", "text", "source")


@dataclass(frozen=True, slots=True)
class Level:
    """One reading: of ``scope``, the thing ``name`` of ``kind`` stood at ``value`` at ``at``, says ``source``.

    ``kind`` is listing, score or verdict, or what a later source brings; ``name`` is the list, the score, the rule.
    ``text`` is what a person is shown of it. What ``seen_at`` later tells of the same reading replaces it.
    """

    kind: str
    name: str
    at: datetime
    value: float
    scope: Scope = _ANY
    text: str = ""
    source: str = ""
    seen_at: datetime | None = None  # None: as ``at``


def append(facts: Facts, levels: Iterable[Level]) -> int:
    """Keep them; how many there were. The same again changes nothing.

    Raises:
        FactsError: the engine refused; a part may be kept, and the same call again completes it.
    """
    told = sorted(levels, key=lambda level: level.at)
    for block in _blocks(told):
        rows = _table(block)
        facts.append("levels", rows, _token(rows))
    return len(told)


def latest(facts: Reader, kind: str, now: datetime, *, name: str = "", where: Scope = _ANY) -> list[Level]:
    """The newest reading up to ``now`` of each name, scope and source, within ``where``; all names where none is given.

    Ordered by name, then scope. One that was read long ago is still the newest: look at its ``at``.
    """
    limits, values = _limits(kind, name, where)
    found = facts.query(
        f"SELECT {_shown()} FROM levels WHERE {limits} AND at <= {{now:DateTime64(3, 'UTC')}}"  # noqa: S608  # ours
        f" ORDER BY at DESC, seen_at DESC LIMIT 1 BY name, source, {', '.join(LABELS)}",
        now=now,
        **values,
    )
    return sorted(_levels(found), key=lambda level: (level.name, labels(level.scope), level.source))


def history(
    facts: Reader, kind: str, since: datetime, until: datetime, *, name: str = "", where: Scope = _ANY
) -> list[Level]:
    """All readings in [since, until), oldest first, each as it was told last."""
    limits, values = _limits(kind, name, where)
    found = facts.query(
        f"SELECT {_shown()} FROM levels WHERE {limits}"  # noqa: S608  # names are ours
        " AND at >= {since:DateTime64(3, 'UTC')} AND at < {until:DateTime64(3, 'UTC')}"
        " ORDER BY at, key, seen_at DESC LIMIT 1 BY at, key",
        since=since,
        until=until,
        **values,
    )
    return list(_levels(found))


def _blocks(levels: Sequence[Level]) -> Iterator[Sequence[Level]]:
    """Runs of levels in order of time, each a block that the engine takes."""
    begin, months = 0, set[tuple[int, int]]()
    for place, level in enumerate(levels):
        months.add((level.at.year, level.at.month))
        if len(months) > _MONTHS or place - begin >= _BLOCK:
            yield levels[begin:place]
            begin, months = place, {(level.at.year, level.at.month)}
    if levels:
        yield levels[begin:]


def _table(levels: Sequence[Level]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "at": [_millis(level.at) for level in levels],
        "seen_at": [_millis(level.seen_at or level.at) for level in levels],
        "key": [_key(level) for level in levels],
        **{label: [getattr(level.scope, label) for level in levels] for label in LABELS},
        **{field: [getattr(level, field) for level in levels] for field in ("kind", "name", "value", "text", "source")},
    }
    return pa.table(
        {
            field.name: pa.array(columns[field.name], pa.string()).dictionary_encode()
            if field.type == NAME
            else pa.array(columns[field.name], field.type)
            for field in _ROWS
        },
        schema=_ROWS,
    )


def _key(level: Level) -> int:
    """What tells a reading from all others: all of it but what was read."""
    said = (level.kind, level.name, level.source, *labels(level.scope))
    hashed = blake2b(struct.pack("<q", _millis(level.at)), digest_size=8)
    for text in said:
        encoded = text.encode()
        hashed.update(struct.pack("<I", len(encoded)) + encoded)
    return int.from_bytes(hashed.digest(), "little")


def _token(rows: pa.Table) -> str:
    hashed = blake2b(digest_size=16)
    for column in rows.columns:
        hashed.update(repr(column.to_pylist()).encode())
    return f"levels:{hashed.hexdigest()}"


def _limits(kind: str, name: str, where: Scope) -> tuple[str, dict[str, Any]]:
    wanted = {"kind": kind, **({"name": name} if name else {}), **named(where)}
    return " AND ".join(f"{column} = {{{column}:String}}" for column in wanted), wanted


def _shown() -> str:
    """Times as numbers: an Arrow stamp would lose its zone on some roads."""
    stamps = (f"toUnixTimestamp64Milli({column}) AS {column}_ms" for column in ("at", "seen_at"))
    return ", ".join((*stamps, *_COLUMNS[2:]))


def _levels(found: pa.Table) -> Iterator[Level]:
    for row in found.to_pylist():
        yield Level(
            kind=row["kind"],
            name=row["name"],
            at=_stamp(row["at_ms"]),
            value=row["value"],
            scope=Scope(**{label: row[label] for label in LABELS}),
            text=row["text"],
            source=row["source"],
            seen_at=_stamp(row["seen_at_ms"]),
        )


def _millis(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


def _stamp(millis: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=millis)
