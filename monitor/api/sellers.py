"""What sellers are told of leases, incidents and actions: no name of another seller's, no person's name or words.

The shapes are those of ``words``. Of a lease that holds the mail of several sellers there is less: what it does, and
until when.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from monitor.api import words
from monitor.model import AUTOMATION, Action, Deed, Incident, Lease, Scope

PERSON = "a person"
DECIDED = "a person of the marketplace decided this"
SHARED = "a part of the mail that several sellers share"
_REFUSED = "it was looked at, and nothing was held"
# The numbers of the seller's own mail. What is not here may tell of others: their names, or how much they send.
_EVIDENCE = ("rule", "numerator", "denominator", "lower", "upper", "expected", "since", "until")


def sees(tenant: str, scope: Scope) -> bool:
    """Whether a seller is told of a lease on that scope: it names the seller, or nobody and so might hold his mail."""
    return scope.tenant in ("", tenant)


def lease(one: Lease, now: datetime) -> dict[str, Any]:
    """A lease that the seller sees; one that names no tenant is ``shared``."""
    told = words.lease(one, now)
    if not one.scope.tenant:
        return {"shared": True, **{name: told[name] for name in ("deed", "until", "ttl")}, "why": SHARED}
    why = DECIDED if one.by_person else one.why
    return {**told, "who": _who(one.who), "why": why, "shared": False}


def action(one: Action) -> dict[str, Any]:
    """An entry of the log on the seller's own scope."""
    why = DECIDED if one.by_person else _REFUSED if one.deed is Deed.REFUSE else one.why
    evidence = {name: one.evidence[name] for name in _EVIDENCE if name in one.evidence}
    return {**words.action(one), "who": _who(one.who), "why": why, "evidence": evidence}


def incident(one: Incident, done: Sequence[Action]) -> dict[str, Any]:
    """An incident on the seller's own scope; ``done`` are actions on it."""
    told = words.incident(one, ())
    told["evidence"]["shares"] = []
    return {**told, "actions": [action(each) for each in done if each.scope.tenant == one.scope.tenant]}


def _who(name: str) -> str:
    return AUTOMATION if name == AUTOMATION else PERSON
