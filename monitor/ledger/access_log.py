"""The access log: who read or changed what, and with which result. Append only, and linked (see ``chain``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, Integer, String, Table, func, select

from monitor.ledger import chain
from monitor.ledger.columns import Stamp, metadata

DROPPED = "old entries dropped"  # what the log says of itself where its beginning is gone
AT_ONCE = 50_000  # entries dropped in one transaction, so that nobody waits long for the ledger
_LONGEST = 200  # characters of each text

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
                who=entry.who[:_LONGEST],
                did=entry.did[:_LONGEST],
                on=entry.on[:_LONGEST],
                result=entry.result[:_LONGEST],
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
    result: str = "",
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
    if result:
        asked = asked.where(access.c.result == result)
    if since:
        asked = asked.where(access.c.at >= since)
    if until:
        asked = asked.where(access.c.at < until)
    return [Entry(row.at, row.who, row.did, row.on, row.result, row.details, row.seq) for row in conn.execute(asked)]


def drop(conn: Connection, before: datetime, now: datetime) -> bool:
    """Drop entries of before that time from the beginning of the log, and say so at its end.

    Whether there are more: no more than ``AT_ONCE`` go in one transaction. The newest one always stays.
    """
    oldest, newest = conn.execute(select(func.min(access.c.seq), func.max(access.c.seq))).one()
    if oldest is None:
        return False
    # The first that is young enough ends it: a clock that was wrong for a while leaves no gap.
    kept = conn.execute(select(func.min(access.c.seq)).where(access.c.at >= before)).scalar()
    upto = (newest if kept is None else kept) - 1
    last = min(upto, oldest + AT_ONCE - 1)
    if last < oldest:
        return False
    chain.drop(conn, access, last)
    append(conn, Entry(now, "mailvane", DROPPED, "", "done", {"last": last}))
    return bool(last < upto)


def dropped(conn: Connection) -> int:
    """Up to which number the log says that it dropped entries; 0 where it never did."""
    asked = select(access.c.details).where(access.c.did == DROPPED).where(access.c.who == "mailvane")
    details = conn.execute(asked.order_by(access.c.seq.desc()).limit(1)).scalar()
    last = details.get("last") if isinstance(details, Mapping) else None
    return last if isinstance(last, int) else 0
