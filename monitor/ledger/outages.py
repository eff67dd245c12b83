"""When providers refused everybody: nobody is suppressed for what they said then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Index, Integer, Row, String, Table, select, update

from monitor.core.suppressing import MARGIN
from monitor.ledger.columns import Stamp, metadata
from monitor.ledger.suppressions import AUTOMATION

_LONGEST = 300
_outages = Table(
    "provider_outages",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("provider", String, nullable=False),
    Column("since", Stamp, nullable=False),
    Column("until", Stamp, nullable=False),
    Column("why", String, nullable=False),
    Column("who", String, nullable=False),
    Column("found_at", Stamp, nullable=False),
    Column("dismissed_by", String, nullable=False),  # empty: it holds
    Column("dismissed_at", Stamp),
    Index("provider_outages_at", "provider", "until"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class Outage:
    """One of a provider, from ``since`` until before ``until``; dismissed where a person says that it was none."""

    id: int
    provider: str
    since: datetime
    until: datetime
    why: str
    who: str
    found_at: datetime
    dismissed_by: str = ""
    dismissed_at: datetime | None = None

    @property
    def excused(self) -> tuple[datetime, datetime]:
        """From when to when nobody is blamed for what the provider said: somewhat longer than it was seen."""
        return self.since - MARGIN, self.until + MARGIN

    @property
    def holds(self) -> bool:
        """Whether it excuses anything."""
        return not self.dismissed_by


def put(
    conn: Connection, provider: str, since: datetime, until: datetime, why: str, now: datetime, who: str = AUTOMATION
) -> Outage:
    """Write an outage down; one that it touches, and that holds, is made longer instead."""
    for known in during(conn, provider, since, until):
        if known.holds:
            since, until = min(since, known.since), max(until, known.until)
            changed = _outages.update().where(_outages.c.id == known.id)
            conn.execute(changed.values(since=since, until=until, why=why[:_LONGEST]))
            return Outage(known.id, provider, since, until, why, known.who, known.found_at)
    made = conn.execute(
        _outages.insert().values(
            provider=provider,
            since=since,
            until=until,
            why=why[:_LONGEST],
            who=who,
            found_at=now,
            dismissed_by="",
            dismissed_at=None,
        )
    )
    return Outage(int(made.lastrowid), provider, since, until, why, who, now)


def during(
    conn: Connection, provider: str, since: datetime, until: datetime, near: timedelta = timedelta()
) -> list[Outage]:
    """The provider's outages that touch that time, dismissed ones too, the oldest first."""
    asked = select(_outages).where(
        _outages.c.provider == provider, _outages.c.until >= since - near, _outages.c.since <= until + near
    )
    return [_outage(row) for row in conn.execute(asked.order_by(_outages.c.since))]


def newest(conn: Connection, limit: int, before: int = 0) -> list[Outage]:
    """Outages, the newest first; ``before`` an id for the next page."""
    asked = select(_outages).order_by(_outages.c.id.desc()).limit(limit)
    return [_outage(row) for row in conn.execute(asked.where(_outages.c.id < before) if before else asked)]


def one(conn: Connection, number: int) -> Outage | None:
    """The outage of that id."""
    row = conn.execute(select(_outages).where(_outages.c.id == number)).first()
    return _outage(row) if row else None


def dismiss(conn: Connection, number: int, who: str, now: datetime) -> None:
    """A person says that it was none."""
    conn.execute(update(_outages).where(_outages.c.id == number).values(dismissed_by=who, dismissed_at=now))


def _outage(row: Row[Any]) -> Outage:
    return Outage(
        row.id,
        row.provider,
        row.since,
        row.until,
        row.why,
        row.who,
        row.found_at,
        row.dismissed_by,
        row.dismissed_at,
    )
