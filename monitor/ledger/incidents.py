"""Incidents: what went bad, until resolved. At most one open for a rule and a scope."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    insert,
    or_,
    select,
    update,
)

from monitor.ledger.columns import Stamp, metadata
from monitor.model import Grade, Incident, Scope, State, Verdict, named

_incidents = Table(
    "incidents",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("rule", String, nullable=False),
    Column("scope", JSON, nullable=False),
    Column("scope_text", String, nullable=False),  # one spelling, so that the index below can compare
    Column("grade", String, nullable=False),
    Column("opened_at", Stamp, nullable=False),
    Column("updated_at", Stamp, nullable=False),
    Column("calm_since", Stamp),
    Column("resolved_at", Stamp, index=True),
    Column("evidence", JSON, nullable=False),
    sqlite_autoincrement=True,
)
Index(
    "one_open",
    _incidents.c.rule,
    _incidents.c.scope_text,
    unique=True,
    sqlite_where=_incidents.c.resolved_at.is_(None),
    postgresql_where=_incidents.c.resolved_at.is_(None),
)


def save(conn: Connection, incident: Incident) -> Incident:
    """Write an incident; a new one (id 0) comes back with its id."""
    values = {
        "rule": incident.rule,
        "scope": named(incident.scope),
        "scope_text": str(incident.scope),
        "grade": str(incident.grade),
        "opened_at": incident.opened_at,
        "updated_at": incident.updated_at,
        "calm_since": incident.calm_since,
        "resolved_at": incident.resolved_at,
        "evidence": _evidence(incident.evidence),
    }
    if incident.id:
        conn.execute(update(_incidents).where(_incidents.c.id == incident.id).values(values))
        return incident
    made = conn.execute(insert(_incidents).values(values).returning(_incidents.c.id)).scalar_one()
    return incident.changed(id=made)


def open_ones(conn: Connection, rule: str = "") -> tuple[Incident, ...]:
    """Those not resolved, oldest first; of one rule where it is named."""
    query = select(_incidents).where(_incidents.c.resolved_at.is_(None)).order_by(_incidents.c.id)
    return _all(conn, query.where(_incidents.c.rule == rule) if rule else query)


def recent(conn: Connection, resolved_after: datetime) -> tuple[Incident, ...]:
    """Those open, and those resolved after that time."""
    chosen = or_(_incidents.c.resolved_at.is_(None), _incidents.c.resolved_at > resolved_after)
    return _all(conn, select(_incidents).where(chosen).order_by(_incidents.c.id))


def newest(
    conn: Connection, limit: int, before: int = 0, *, only_open: bool = False, tenant: str = ""
) -> tuple[Incident, ...]:
    """The newest first; ``before`` an id for the next page; ``tenant``: only those whose scope names it."""
    page = select(_incidents).order_by(_incidents.c.id.desc()).limit(limit)
    if only_open:
        page = page.where(_incidents.c.resolved_at.is_(None))
    if tenant:
        page = page.where(_incidents.c.scope["tenant"].as_string() == tenant)
    return _all(conn, page.where(_incidents.c.id < before) if before else page)


def by_id(conn: Connection, number: int) -> Incident | None:
    """The incident with that id."""
    found = _all(conn, select(_incidents).where(_incidents.c.id == number))
    return found[0] if found else None


def _all(conn: Connection, query: Select[Any]) -> tuple[Incident, ...]:
    return tuple(_incident(row) for row in conn.execute(query))


def _incident(row: Row[Any]) -> Incident:
    scope = Scope(**row.scope)
    return Incident(
        id=row.id,
        rule=row.rule,
        scope=scope,
        grade=Grade(row.grade),
        opened_at=row.opened_at,
        updated_at=row.updated_at,
        evidence=_verdict(row.rule, scope, row.evidence),
        calm_since=row.calm_since,
        resolved_at=row.resolved_at,
    )


def _evidence(verdict: Verdict) -> dict[str, Any]:
    return {
        "state": str(verdict.state),
        "grade": str(verdict.grade),
        "numerator": verdict.numerator,
        "denominator": verdict.denominator,
        "expected": _number(verdict.expected),
        "lower": _number(verdict.lower),
        "upper": _number(verdict.upper),
        "since": verdict.since.isoformat(),
        "until": verdict.until.isoformat(),
        "calm": verdict.calm,
        "reason": verdict.reason,
        "shares": [list(share) for share in verdict.shares],
    }


def _verdict(rule: str, scope: Scope, stored: Mapping[str, Any]) -> Verdict:
    return Verdict(
        rule=rule,
        scope=scope,
        state=State(stored["state"]),
        grade=Grade(stored["grade"]),
        numerator=stored["numerator"],
        denominator=stored["denominator"],
        expected=_nan(stored["expected"]),
        lower=_nan(stored["lower"]),
        upper=_nan(stored["upper"]),
        since=datetime.fromisoformat(stored["since"]),
        until=datetime.fromisoformat(stored["until"]),
        calm=stored["calm"],
        reason=stored["reason"],
        shares=tuple((tenant, share) for tenant, share in stored["shares"]),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no NaN


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
