"""How far the spool has been applied to the facts, and where each source stands: one transaction for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, String, Table, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from monitor.ledger.columns import metadata

_applied = Table(
    "applied",
    metadata,
    Column("spool", String, primary_key=True),
    Column("committed", BigInteger, nullable=False),
    Column("planned", BigInteger, nullable=False),  # == committed: no batch is under way
)
_sources = Table(
    "sources",
    metadata,
    Column("source", String, primary_key=True),
    Column("node", String, primary_key=True),
    Column("cursor", JSON, nullable=False),
    Column("watermark", BigInteger),  # POSIX microseconds
    Column("seen_at", BigInteger, nullable=False),
)
_memory = Table(
    "memory",
    metadata,
    Column("source", String, primary_key=True),
    Column("node", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", JSON, nullable=False),
)
_SPOOL = "main"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Progress:
    """What one spool frame says of its source: the cursor to go on from, the watermark, what to remember."""

    source: str
    node: str
    seen_at: datetime
    cursor: Mapping[str, Any] = field(default_factory=dict)
    watermark: datetime | None = None
    remember: Mapping[str, Any] = field(default_factory=dict)


def position(conn: Connection) -> tuple[int, int]:
    """(last frame committed, last frame of the batch that was under way); equal when none was."""
    row = conn.execute(select(_applied.c.committed, _applied.c.planned).where(_applied.c.spool == _SPOOL)).first()
    return (row.committed, row.planned) if row else (0, 0)


def plan(conn: Connection, last: int) -> None:
    """The batch now under way ends with frame ``last``: after a crash exactly this range is sent again."""
    committed, _ = position(conn)
    _put(conn, committed, last)


def commit(conn: Connection, last: int, progress: Sequence[Progress]) -> None:
    """All frames up to ``last`` are in the facts; their sources stand where ``progress`` says (later ones win)."""
    for step in progress:
        _advance(conn, step)
    _put(conn, last, last)


def latest(progress: Iterable[Progress]) -> list[Progress]:
    """The steps of each source made one: where it stands now, the furthest promise, all that it is to remember."""
    found: dict[tuple[str, str], Progress] = {}
    for step in progress:
        before = found.get((step.source, step.node))
        if before:
            marks = [mark for mark in (before.watermark, step.watermark) if mark]
            remember = {**before.remember, **step.remember}
            step = replace(step, watermark=max(marks, default=None), remember=remember)  # noqa: PLW2901  # it stands for both
        found[step.source, step.node] = step
    return list(found.values())


def cursor(conn: Connection, source: str, node: str) -> Mapping[str, Any]:
    """Where the source stands as last committed; empty for one never seen."""
    at = (_sources.c.source == source) & (_sources.c.node == node)
    return conn.execute(select(_sources.c.cursor).where(at)).scalar() or {}


def remembered(conn: Connection, source: str, node: str) -> Mapping[str, Any]:
    """What the source was to remember, by name."""
    mine = (_memory.c.source == source) & (_memory.c.node == node)
    return {row.name: row.value for row in conn.execute(select(_memory.c.name, _memory.c.value).where(mine))}


def remembered_by_all(conn: Connection, prefix: str) -> list[Any]:
    """What any source remembers under names that begin with ``prefix``."""
    mine = (_memory.c.source == _sources.c.source) & (_memory.c.node == _sources.c.node)
    named = (_memory.c.name >= prefix) & (_memory.c.name < prefix + "\x7f")
    return list(conn.execute(select(_memory.c.value).select_from(_sources).join(_memory, mine & named)).scalars())


def cursors(conn: Connection, node: str) -> list[Mapping[str, Any]]:
    """Where the sources of a node stand as last committed."""
    return list(conn.execute(select(_sources.c.cursor).where(_sources.c.node == node)).scalars())


def watermarks(conn: Connection) -> Mapping[tuple[str, str], tuple[datetime | None, datetime]]:
    """(source, node) → (watermark, when it was last heard)."""
    return {
        (row.source, row.node): (_time(row.watermark), _stamp(row.seen_at)) for row in conn.execute(select(_sources))
    }


def _advance(conn: Connection, step: Progress) -> None:
    values = {
        "source": step.source,
        "node": step.node,
        "cursor": dict(step.cursor),
        "watermark": _micros(step.watermark) if step.watermark else None,
        "seen_at": _micros(step.seen_at),
    }
    put = insert(_sources).values(values)
    kept: dict[str, Any] = {name: put.excluded[name] for name in ("cursor", "seen_at")}
    if step.watermark:
        # A backfill or a late retry tells of old mail, and takes back no promise.
        kept["watermark"] = func.max(
            func.coalesce(_sources.c.watermark, put.excluded.watermark), put.excluded.watermark
        )
    conn.execute(put.on_conflict_do_update(index_elements=["source", "node"], set_=kept))
    gone = [name for name, value in step.remember.items() if value is None]
    if gone:
        mine = (_memory.c.source == step.source) & (_memory.c.node == step.node)
        for first in range(0, len(gone), 500):  # SQLite binds a bounded number of values
            conn.execute(delete(_memory).where(mine & _memory.c.name.in_(gone[first : first + 500])))
    kept_rows = [
        {"source": step.source, "node": step.node, "name": name, "value": value}
        for name, value in step.remember.items()
        if value is not None
    ]
    if kept_rows:
        memo = insert(_memory)
        conn.execute(
            memo.on_conflict_do_update(index_elements=["source", "node", "name"], set_={"value": memo.excluded.value}),
            kept_rows,
        )


def _put(conn: Connection, committed: int, planned: int) -> None:
    put = insert(_applied).values(spool=_SPOOL, committed=committed, planned=planned)
    conn.execute(
        put.on_conflict_do_update(
            index_elements=["spool"], set_={"committed": put.excluded.committed, "planned": put.excluded.planned}
        )
    )


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _stamp(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else _stamp(micros)
