"""Notices owed: a row for each incident and channel; told when what was told equals what is so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, Integer, String, Table, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from monitor.ledger.columns import Stamp, metadata

_notices = Table(
    "notices",
    metadata,
    Column("incident", BigInteger, primary_key=True),
    Column("channel", String, primary_key=True),
    Column("owed", String, nullable=False),  # the state to tell, as one short text
    Column("told", String, nullable=False),
    Column("handle", String, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("not_before", Stamp, nullable=False),
    Column("error", String, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Notice:
    """One telling that is owed; ``handle`` is what the channel answered last time."""

    incident: int
    channel: str
    owed: str
    handle: str
    tries: int


def owe(conn: Connection, incident: int, channel: str, state: str, now: datetime) -> None:
    """The channel is to be told that the incident is in ``state``; nothing happens when it was."""
    put = insert(_notices).values(
        incident=incident, channel=channel, owed=state, told="", handle="", tries=0, not_before=now, error=""
    )
    conn.execute(
        put.on_conflict_do_update(
            index_elements=["incident", "channel"],
            set_={"owed": state, "tries": 0, "not_before": now, "error": ""},
            where=_notices.c.owed != state,
        )
    )


def claim(conn: Connection, now: datetime, hold: timedelta) -> Notice | None:
    """The oldest notice that is due, kept from other workers for ``hold``; None when all are told."""
    due = (_notices.c.owed != _notices.c.told) & (_notices.c.not_before <= now)
    first = conn.execute(select(_notices).where(due).order_by(_notices.c.incident).limit(1)).first()
    if not first:
        return None
    mine = (_notices.c.incident == first.incident) & (_notices.c.channel == first.channel)
    claimed = conn.execute(update(_notices).where(mine & due).values(not_before=now + hold))
    if not claimed.rowcount:
        return None
    return Notice(first.incident, first.channel, first.owed, first.handle, first.tries)


def told(conn: Connection, notice: Notice, handle: str) -> None:
    """The channel knows; what became owed meanwhile stays owed."""
    conn.execute(update(_notices).where(_is(notice)).values(told=notice.owed, handle=handle, tries=0, error=""))


def failed(conn: Connection, notice: Notice, error: str, again: datetime | None) -> None:
    """It was not told; tried again at that time, or given up (None) until the incident changes."""
    if again is None:
        conn.execute(update(_notices).where(_is(notice)).values(told=notice.owed, error=error))
        return
    values = {"tries": notice.tries + 1, "not_before": again, "error": error}
    conn.execute(update(_notices).where(_is(notice)).values(values))


def owed(conn: Connection) -> int:
    """How many tellings are owed."""
    return conn.execute(select(func.count()).where(_notices.c.owed != _notices.c.told)).scalar_one()


def errors(conn: Connection) -> Mapping[str, str]:
    """The newest error of each channel that has one."""
    failing = or_(_notices.c.error != "", _notices.c.tries > 0)
    rows = conn.execute(select(_notices.c.channel, _notices.c.error).where(failing).order_by(_notices.c.incident))
    return {row.channel: row.error for row in rows}


def _is(notice: Notice) -> ColumnElement[bool]:
    return (_notices.c.incident == notice.incident) & (_notices.c.channel == notice.channel)
