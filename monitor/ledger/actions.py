"""The audit log of the brake: append only. Leases in force are computed from it and stored nowhere (ADR 2)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    Row,
    Select,
    String,
    Table,
    func,
    insert,
    or_,
    select,
)

from monitor.ledger import chain
from monitor.ledger.columns import Stamp, metadata
from monitor.model import Action, Deed, Scope, named

_GRANTING = tuple(str(deed) for deed in (Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE, Deed.ALLOW))

log = Table(
    "actions",
    metadata,
    # SQLite: AUTOINCREMENT never gives a number twice, so what a reader has seen stays seen.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("at", Stamp, nullable=False),
    Column("who", String, nullable=False),
    Column("deed", String, nullable=False),
    Column("scope", JSON, nullable=False),
    Column("why", String, nullable=False),
    Column("until", Stamp, index=True),
    Column("share", Float, nullable=False),
    Column("pool", String, nullable=False),
    Column("incident", BigInteger, nullable=False, index=True),
    Column("lease", String, nullable=False, index=True),
    Column("evidence", JSON, nullable=False),
    sqlite_autoincrement=True,
)


def append(conn: Connection, action: Action) -> Action | None:
    """Write one entry and give it back with its ``seq``; None if an entry of that id stands already."""
    values = {
        "id": action.id,
        "at": action.at,
        "who": action.who,
        "deed": str(action.deed),
        "scope": named(action.scope),
        "why": action.why,
        "until": action.until,
        "share": action.share,
        "pool": action.pool,
        "incident": action.incident,
        "lease": action.lease,
        "evidence": dict(action.evidence),
    }
    # Asked first: an insert that comes to nothing would use a number up, and a number left out tells of a theft.
    if conn.execute(select(log.c.seq).where(log.c.id == action.id)).first():
        return None
    seq = conn.execute(insert(log).values(values)).lastrowid
    chain.extend(conn, log, seq)
    return _one(conn, select(log).where(log.c.seq == seq))


def in_force(conn: Connection, now: datetime) -> tuple[Action, ...]:
    """The entries from which the leases at ``now`` follow: granted until later, and what resumed those."""
    live = select(log).where(log.c.until > now)
    ids = select(log.c.id).where(log.c.until > now)
    ends = select(log).where((log.c.deed == Deed.RESUME) & log.c.lease.in_(ids))
    found = {action.seq: action for action in (*_all(conn, live), *_all(conn, ends))}
    return tuple(found[seq] for seq in sorted(found))


def last(conn: Connection) -> int:
    """The newest ``seq``; 0 in an empty log."""
    return int(conn.execute(select(func.coalesce(func.max(log.c.seq), 0))).scalar_one())


def after(conn: Connection, seq: int) -> tuple[Action, ...]:
    """The entries after ``seq``, oldest first."""
    return _all(conn, select(log).where(log.c.seq > seq).order_by(log.c.seq))


def generation_parts(conn: Connection, now: datetime) -> tuple[int, int]:
    """(entries so far, leases granted so far whose time is over or that were resumed): see ``leases.generation``."""
    begun = log.c.at <= now
    entries = conn.execute(select(func.count()).select_from(log).where(begun)).scalar_one()
    resumed = select(log.c.lease).where(begun & (log.c.deed == Deed.RESUME))
    over = conn.execute(
        select(func.count())
        .select_from(log)
        .where(begun & log.c.deed.in_(_GRANTING) & or_(log.c.until <= now, log.c.id.in_(resumed)))
    ).scalar_one()
    return int(entries), int(over)


def since(conn: Connection, at: datetime) -> tuple[Action, ...]:
    """All entries after ``at``, oldest first."""
    return _all(conn, select(log).where(log.c.at > at).order_by(log.c.seq))


def newest(conn: Connection, limit: int, before: int = 0, *, tenant: str = "") -> tuple[Action, ...]:
    """The newest entries first; ``before`` a ``seq`` for the next page; ``tenant``: only those whose scope names it."""
    page = select(log).order_by(log.c.seq.desc()).limit(limit)
    if tenant:
        page = page.where(log.c.scope["tenant"].as_string() == tenant)
    return _all(conn, page.where(log.c.seq < before) if before else page)


def of_incidents(conn: Connection, ids: Sequence[int]) -> dict[int, tuple[Action, ...]]:
    """The entries of each of these incidents, oldest first, with those that resumed its leases."""
    own = _all(conn, select(log).where(log.c.incident.in_(ids)).order_by(log.c.seq))
    found: dict[int, list[Action]] = {number: [] for number in ids}
    for action in own:
        found[action.incident].append(action)
    return {number: tuple(actions) for number, actions in found.items()}


def pauses_since(conn: Connection, at: datetime) -> tuple[Action, ...]:
    """The pauses that were in force at some moment after ``at``."""
    chosen = (log.c.deed == Deed.PAUSE) & (log.c.until > at)
    return _all(conn, select(log).where(chosen).order_by(log.c.seq))


def _all(conn: Connection, query: Select[Any]) -> tuple[Action, ...]:
    return tuple(_action(row) for row in conn.execute(query))


def _one(conn: Connection, query: Select[Any]) -> Action | None:
    row = conn.execute(query).first()
    return _action(row) if row else None


def _action(row: Row[Any]) -> Action:
    return Action(
        id=row.id,
        at=row.at,
        who=row.who,
        deed=Deed(row.deed),
        scope=Scope(**row.scope),
        why=row.why,
        until=row.until,
        share=row.share,
        pool=row.pool,
        incident=row.incident,
        lease=row.lease,
        evidence=row.evidence,
        seq=row.seq,
    )
