"""The JSON shapes of nouns, the same in every answer; times are ISO 8601 in UTC with Z."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from monitor.gate import LeaseSet
from monitor.ledger.approvals import Approval
from monitor.model import Action, Incident, Lease, Verdict, named


def stamp(at: datetime | None) -> str | None:
    """``2026-11-24T10:00:00.123Z``."""
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lease(one: Lease, now: datetime) -> dict[str, Any]:
    """A lease; ``ttl`` in seconds, so that a dispatcher needs no clock that agrees with ours."""
    return {
        "id": one.id,
        "seq": one.seq,
        "deed": str(one.deed),
        "scope": named(one.scope),
        "since": stamp(one.since),
        "until": stamp(one.until),
        "ttl": max(0.0, round((one.until - now).total_seconds(), 3)),
        "who": one.who,
        "why": one.why,
        "share": one.share,
        "pool": one.pool,
        "incident": one.incident,
    }


def lease_set(found: LeaseSet, now: datetime) -> dict[str, Any]:
    """The whole set with its generation."""
    return {"generation": found.generation, "leases": [lease(one, now) for one in found.leases]}


def action(one: Action) -> dict[str, Any]:
    """An entry of the audit log."""
    return {
        "seq": one.seq,
        "id": one.id,
        "at": stamp(one.at),
        "who": one.who,
        "deed": str(one.deed),
        "scope": named(one.scope),
        "why": one.why,
        "until": stamp(one.until),
        "share": one.share,
        "pool": one.pool,
        "incident": one.incident,
        "lease": one.lease,
        "evidence": dict(one.evidence),
    }


def approval(one: Approval, now: datetime) -> dict[str, Any]:
    """A wish that waits, or waited, for a second person; ``for`` in seconds."""
    return {
        "id": one.id,
        "state": str(one.state(now)),
        "asked_at": stamp(one.asked_at),
        "asked_by": one.asked_by,
        "until": stamp(one.until),
        "deed": str(one.deed),
        "scope": named(one.scope),
        "for": one.span.total_seconds(),
        "why": one.why,
        "share": one.share,
        "pool": one.pool,
        "beyond": named(one.beyond),
        "decided_at": stamp(one.decided_at),
        "decided_by": one.decided_by,
        "action": one.action,
    }


def verdict(one: Verdict) -> dict[str, Any]:
    """The numbers of a verdict; what is not a number is null."""
    return {
        "state": str(one.state),
        "grade": str(one.grade),
        "numerator": one.numerator,
        "denominator": one.denominator,
        "rate": number(one.rate),
        "expected": number(one.expected),
        "lower": number(one.lower),
        "upper": number(one.upper),
        "since": stamp(one.since),
        "until": stamp(one.until),
        "reason": one.reason,
        "shares": [list(share) for share in one.shares],
    }


def incident(one: Incident, done: Sequence[Action]) -> dict[str, Any]:
    """An incident with what was done about it, oldest first."""
    return {
        "id": one.id,
        "rule": one.rule,
        "scope": named(one.scope),
        "grade": str(one.grade),
        "state": "resolved" if one.resolved_at else "open",
        "opened_at": stamp(one.opened_at),
        "updated_at": stamp(one.updated_at),
        "calm_since": stamp(one.calm_since),
        "resolved_at": stamp(one.resolved_at),
        "evidence": verdict(one.evidence),
        "actions": [action(each) for each in done],
    }


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 6)
