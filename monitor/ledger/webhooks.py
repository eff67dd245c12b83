"""How far each webhook is told of the changes, and what stands in its way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Column, Connection, Integer, String, Table, select, update
from sqlalchemy.dialects.sqlite import insert

from monitor.ledger.columns import Stamp, metadata

_webhooks = Table(
    "webhooks",
    metadata,
    Column("name", String, primary_key=True),
    Column("begun", Stamp, nullable=False),  # when somebody last had it begin somewhere
    Column("told", BigInteger, nullable=False),  # the number of the last change that was delivered
    Column("sending", BigInteger, nullable=False),  # up to which is being sent; == told: nothing
    Column("tries", Integer, nullable=False),
    Column("not_before", Stamp, nullable=False),
    Column("error", String, nullable=False),
    Column("disabled", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a webhook stands. ``sending`` > ``told``: just those changes are told again, under the same id."""

    name: str
    begun: datetime
    told: int
    sending: int
    tries: int
    not_before: datetime
    error: str
    disabled: bool


def stand(conn: Connection, name: str) -> Stand | None:
    """Where it stands; None for one that was never told anything."""
    row = conn.execute(select(_webhooks).where(_webhooks.c.name == name)).first()
    if row is None:
        return None
    return Stand(row.name, row.begun, row.told, row.sending, row.tries, row.not_before, row.error, bool(row.disabled))


def begin(conn: Connection, name: str, told: int, now: datetime) -> None:
    """Go on after that change, whatever was before; tried at once."""
    put = insert(_webhooks).values(
        name=name, begun=now, told=told, sending=told, tries=0, not_before=now, error="", disabled=0
    )
    kept = {column.name: put.excluded[column.name] for column in _webhooks.c if column.name != "name"}
    conn.execute(put.on_conflict_do_update(index_elements=["name"], set_=kept))


def plan(conn: Connection, name: str, sending: int) -> None:
    """What is sent now ends with that change; so it does at each further try."""
    conn.execute(update(_webhooks).where(_webhooks.c.name == name).values(sending=sending))


def delivered(conn: Connection, one: Stand, now: datetime) -> None:
    """What was being sent is told, unless somebody had it begin anew meanwhile."""
    values = {"told": one.sending, "tries": 0, "not_before": now, "error": ""}
    mine = (_webhooks.c.name == one.name) & (_webhooks.c.told == one.told) & (_webhooks.c.sending == one.sending)
    conn.execute(update(_webhooks).where(mine).values(values))


def failed(conn: Connection, one: Stand, error: str, again: datetime, *, disabled: bool = False) -> None:
    """It was not told; tried again at that time, or not before a person says so."""
    values = {"tries": one.tries + 1, "not_before": again, "error": error, "disabled": int(disabled)}
    conn.execute(update(_webhooks).where(_webhooks.c.name == one.name, _webhooks.c.told == one.told).values(values))
