"""What a second person is to agree to before it comes into force (four eyes), and who agreed or declined."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, Float, Row, String, Table, select

from monitor.ledger.columns import Stamp, metadata
from monitor.model import Deed, Scope, named

_approvals = Table(
    "approvals",
    metadata,
    Column("id", String, primary_key=True),
    Column("asked_at", Stamp, nullable=False, index=True),
    Column("asked_by", String, nullable=False),
    Column("until", Stamp, nullable=False),
    Column("deed", String, nullable=False),
    Column("scope", JSON, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("why", String, nullable=False),
    Column("share", Float, nullable=False),
    Column("pool", String, nullable=False),
    Column("incident", BigInteger, nullable=False),
    Column("beyond", JSON, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("decided_at", Stamp),
    Column("decided_by", String, nullable=False),
    Column("action", String, nullable=False),
)


class State(StrEnum):
    """Where a wish stands."""

    WAITING = "waiting"
    AGREED = "agreed"
    DECLINED = "declined"
    EXPIRED = "expired"  # nobody agreed in time; computed, and stored nowhere


@dataclass(frozen=True, slots=True)
class Approval:
    """A wish that waits, or waited, for a second person.

    ``until``: when it is too late to agree. ``span`` is how long the lease will last from then on that somebody
    agrees. ``beyond``: what is held or known to be bad, which the wish is wider than. ``action``: what came of it.
    """

    id: str
    asked_at: datetime
    asked_by: str
    until: datetime
    deed: Deed
    scope: Scope
    span: timedelta
    why: str
    share: float
    pool: str
    incident: int
    beyond: Scope
    decided: State = State.WAITING
    decided_at: datetime | None = None
    decided_by: str = ""
    action: str = ""

    def state(self, now: datetime) -> State:
        """Where it stands at ``now``."""
        return State.EXPIRED if self.decided is State.WAITING and now >= self.until else self.decided

    def alike(self, other: Approval) -> bool:
        """Whether both are the same wish of the same person."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("asked_by", "deed", "scope", "span", "why", "share", "pool", "incident")
        )


def add(conn: Connection, one: Approval) -> None:
    """Put a new wish down."""
    conn.execute(
        _approvals.insert().values(
            id=one.id,
            asked_at=one.asked_at,
            asked_by=one.asked_by,
            until=one.until,
            deed=str(one.deed),
            scope=named(one.scope),
            seconds=one.span.total_seconds(),
            why=one.why,
            share=one.share,
            pool=one.pool,
            incident=one.incident,
            beyond=named(one.beyond),
            state=str(one.decided),
            decided_at=None,
            decided_by="",
            action="",
        )
    )


def decide(conn: Connection, name: str, state: State, *, by: str, at: datetime, action: str = "") -> None:
    """Say what became of the wish of that id."""
    values = {"state": str(state), "decided_by": by, "decided_at": at, "action": action}
    conn.execute(_approvals.update().where(_approvals.c.id == name).values(values))


def one(conn: Connection, name: str) -> Approval | None:
    """The wish of that id."""
    row = conn.execute(select(_approvals).where(_approvals.c.id == name)).first()
    return _approval(row) if row else None


def waiting(conn: Connection, now: datetime) -> list[Approval]:
    """Those to which somebody may still agree, the oldest first."""
    chosen = (_approvals.c.state == State.WAITING) & (_approvals.c.until > now)
    return [_approval(row) for row in conn.execute(select(_approvals).where(chosen).order_by(_approvals.c.asked_at))]


def newest(conn: Connection, limit: int) -> list[Approval]:
    """Wishes whatever became of them, the newest first."""
    asked = select(_approvals).order_by(_approvals.c.asked_at.desc(), _approvals.c.id).limit(limit)
    return [_approval(row) for row in conn.execute(asked)]


def _approval(row: Row[Any]) -> Approval:
    return Approval(
        id=row.id,
        asked_at=row.asked_at,
        asked_by=row.asked_by,
        until=row.until,
        deed=Deed(row.deed),
        scope=Scope(**row.scope),
        span=timedelta(seconds=row.seconds),
        why=row.why,
        share=row.share,
        pool=row.pool,
        incident=row.incident,
        beyond=Scope(**row.beyond),
        decided=State(row.state),
        decided_at=row.decided_at,
        decided_by=row.decided_by,
        action=row.action,
    )
