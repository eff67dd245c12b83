"""``GET /v1/me``: who asks, and of a seller: why its mail is held, what to do, until when (docs/tenants.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request

from monitor.access.sessions import COOKIES
from monitor.api import advice, words
from monitor.api.access import caller_of
from monitor.api.seen import Seen, seen
from monitor.caller import ALL, Caller, Right
from monitor.core.leases import answer
from monitor.core.rates import Rate
from monitor.facts import queries
from monitor.facts.errors import FactsBusy, FactsError
from monitor.model import LABELS, OWNED, Deed, Incident, Lease, Scope, Verdict, named
from monitor.service import Core

LATELY = timedelta(days=1)  # a seller without mail in a part of the flow for so long is not told that it is held
_SHARED = tuple(name for name in LABELS if name not in ("tenant", *OWNED))
_MOST = 100  # open incidents that are told


def router(core: Core) -> APIRouter:
    """The route."""
    api = APIRouter(tags=["people"])

    @api.get("/v1/me")
    def me(request: Request) -> Any:
        """Who you are here; for a seller's key: what is held of its mail, why, what to do about it, until when."""
        caller = caller_of(request)
        told = {
            "name": caller.name,
            "way": caller.way,
            "scopes": sorted(ALL if caller.may(Right.ADMIN) else caller.rights),
            "tenant": caller.tenant or None,
            "csrf": _csrf(core, request, caller),
        }
        return {**told, **_seller(core, seen(core, request))} if caller.tenant else told

    return api


def _csrf(core: Core, request: Request, caller: Caller) -> str | None:
    """What a page sends along with whatever changes something; of a session only."""
    if not caller.session:
        return None
    now = core.clock()
    found = (core.sessions.find(request.cookies.get(name, ""), now) for name in COOKIES)
    return next((session.csrf for session in found if session and session.id == caller.session), None)


def _seller(core: Core, mine: Seen) -> dict[str, Any]:
    now = core.clock()
    rates = {rule.name: rule.rate for rule in core.settings.rules}
    every = core.gate.current().leases
    held = _longest([one for one in every if _holds(one, every, mine.tenant)])
    shared = [one for one in held if not one.scope.tenant]
    touched = {one.id for one in _touching(mine, shared, now)} if shared else set()
    told = [one for one in held if one.scope.tenant or one.id in touched]
    return {
        "held": [_held(one, mine, rates, now) for one in sorted(told, key=lambda one: one.until, reverse=True)],
        "incidents": [_incident(one, rates) for one in mine.open_incidents(_MOST)],
    }


def _holds(lease: Lease, every: Sequence[Lease], tenant: str) -> bool:
    """Whether it changes what becomes of the tenant's mail in its scope; a person may have allowed that mail."""
    if lease.deed is Deed.ALLOW or lease.scope.tenant not in ("", tenant):
        return False
    decides = answer(every, replace(lease.scope, tenant=tenant)).lease
    return decides is None or decides.deed is not Deed.ALLOW


def _longest(leases: Sequence[Lease]) -> list[Lease]:
    """Of those that do the same to the same mail the one that lasts longest."""
    found: dict[tuple[Deed, Scope], Lease] = {}
    for lease in leases:
        key = (lease.deed, lease.scope)
        if key not in found or lease.until > found[key].until:
            found[key] = lease
    return list(found.values())


def _touching(mine: Seen, shared: Sequence[Lease], now: datetime) -> list[Lease]:
    """Those in whose scope the seller had mail lately; all of them where the facts can't tell."""
    minute = now.replace(second=0, microsecond=0)
    since, until = minute - LATELY, minute + timedelta(minutes=1)
    try:
        mail = queries.counts(mine.facts, _SHARED, since, until, mine.all_mail).scopes
    except (FactsError, FactsBusy):
        return list(shared)
    return [lease for lease in shared if any(lease.scope.covers(replace(part, tenant=mine.tenant)) for part in mail)]


def _held(lease: Lease, mine: Seen, rates: dict[str, Rate], now: datetime) -> dict[str, Any]:
    until = {"until": words.stamp(lease.until), "ttl": max(0.0, round((lease.until - now).total_seconds(), 3))}
    if not lease.scope.tenant:
        why, to_do = advice.shared(lease)
        beside: dict[str, Any] = {"scope": None, "lease": None, "incident": None, "numbers": None, "shared": True}
    else:
        incident = mine.incident(lease.incident) if lease.incident else None
        verdict = incident.evidence if incident else None
        rate = rates.get(incident.rule) if incident else None
        why, to_do = advice.own(lease, rate, verdict)
        beside = {
            "scope": named(lease.scope),
            "lease": lease.id,
            "incident": incident.id if incident else None,
            "numbers": _numbers(verdict) if verdict else None,
            "shared": False,
        }
    return {"deed": lease.deed, **until, "why": why, "what_to_do": to_do, **beside}


def _incident(one: Incident, rates: dict[str, Rate]) -> dict[str, Any]:
    rate = rates.get(one.rule)
    return {
        "id": one.id,
        "rule": one.rule,
        "scope": named(one.scope),
        "grade": one.grade,
        "opened_at": words.stamp(one.opened_at),
        "why": f"{advice.counts(rate, one.evidence)}." if rate else None,
        "what_to_do": advice.to_do(rate),
        "numbers": _numbers(one.evidence),
    }


def _numbers(verdict: Verdict) -> dict[str, Any]:
    """What was counted; ``limit`` is the rate that is still tolerated."""
    return {
        "numerator": verdict.numerator,
        "denominator": verdict.denominator,
        "rate": words.number(verdict.rate),
        "limit": words.number(verdict.expected),
        "since": words.stamp(verdict.since),
        "until": words.stamp(verdict.until),
    }
