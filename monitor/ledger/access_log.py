"""The access log: who read or changed what, and with which result. Append only, and linked (see ``chain``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, Integer, String, Table, select

from monitor.ledger import chain
from monitor.ledger.columns import Stamp, metadata

access = Table(
    "access",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Stamp, nullable=False, index=True),
    Column("who", String, nullable=False, index=True),
    Column("did", String, nullable=False),
    Column("on", String, nullable=False),
    Column("result", String, nullable=False),
    Column("details", JSON, nullable=False),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. ``did`` is what, ``on`` which thing of many, ``result`` a status or a word; ``details`` JSON-able."""

    at: datetime
    who: str
    did: str
    on: str
    result: str
    details: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0


def append(conn: Connection, entry: Entry) -> int:
    """Write one entry, and give its number back."""
    return append_all(conn, [entry])


def append_all(conn: Connection, entries: list[Entry]) -> int:
    """Write some entries at once; the number of the last one."""
    if not entries:
        return 0
    first = seq = 0
    for entry in entries:
        done = conn.execute(
            access.insert().values(
                at=entry.at,
                who=entry.who[:200],
                did=entry.did[:200],
                on=entry.on[:200],
                result=entry.result[:200],
                details=dict(entry.details),
            )
        )
        seq = int(done.lastrowid)
        first = first or seq
    chain.extend(conn, access, first)
    return seq


def newest(
    conn: Connection,
    limit: int,
    before: int = 0,
    *,
    who: str = "",
    did: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Entry]:
    """Entries, the newest first; ``before`` a number for the next page. ``did``: how what was done begins."""
    asked = select(access).order_by(access.c.seq.desc()).limit(limit)
    if before:
        asked = asked.where(access.c.seq < before)
    if who:
        asked = asked.where(access.c.who == who)
    if did:
        asked = asked.where(access.c.did.startswith(did, autoescape=True))
    if since:
        asked = asked.where(access.c.at >= since)
    if until:
        asked = asked.where(access.c.at < until)
    return [Entry(row.at, row.who, row.did, row.on, row.result, row.details, row.seq) for row in conn.execute(asked)]
