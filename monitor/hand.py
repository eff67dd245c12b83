"""A person's key: pause, throttle, reroute, allow and resume by hand, as the command line and the API do it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from monitor.core.leases import active
from monitor.errors import UserError
from monitor.ledger import actions
from monitor.model import LABELS, Action, Deed, Scope, named

PAUSE_FOR = timedelta(hours=1)
ALLOW_FOR = timedelta(hours=24)
LONGEST = timedelta(days=31)  # a pause always ends; what should be for ever belongs into the dispatcher


class HandError(UserError):
    """What was asked for can't be done; the message says why and what to do."""


def scope_of(text: str) -> Scope:
    """A scope from words such as ``tenant=s07 segment=lapsed`` (blanks or commas between them).

    Raises:
        HandError: an unknown label, no value, or a seller's name without its tenant.
    """
    found: dict[str, str] = {}
    for word in text.replace(",", " ").split():
        name, equals, value = word.partition("=")
        if name not in LABELS:
            raise HandError(f"{name!r} is no label: choose out of {', '.join(LABELS)}")
        if not equals or not value:
            raise HandError(f"{name} has no value: write {name}=…")
        if name in found:
            raise HandError(f"{name} is named twice")
        found[name] = value
    return scope(found)


def scope(names: dict[str, str]) -> Scope:
    """A scope from labels by name.

    Raises:
        HandError: an unknown label, or a seller's name without its tenant.
    """
    if unknown := [name for name in names if name not in LABELS]:
        raise HandError(f"unknown labels: {', '.join(unknown)}; known are {', '.join(LABELS)}")
    try:
        return Scope(**names)
    except ValueError as error:
        raise HandError(str(error)) from error


def grant(
    conn: Connection,
    deed: Deed,
    scope: Scope,
    span: timedelta,
    who: str,
    why: str,
    now: datetime,
    *,
    share: float = 0.0,
    pool: str = "",
    incident: int = 0,
) -> Action:
    """Pause, throttle, reroute or allow a scope for a time, whoever else should agree (see ``four_eyes``).

    The arguments are those of ``wanted``, and so are the errors.
    """
    return write(conn, wanted(deed, scope, span, who, why, now, share=share, pool=pool, incident=incident))


def wanted(
    deed: Deed,
    scope: Scope,
    span: timedelta,
    who: str,
    why: str,
    now: datetime,
    *,
    share: float = 0.0,
    pool: str = "",
    incident: int = 0,
    evidence: Mapping[str, Any] | None = None,
) -> Action:
    """The action by which a person pauses, throttles, reroutes or allows a scope for a time; not yet written.

    ``share`` is the part of the mail that may pass a throttle, ``pool`` where a reroute leads, ``incident`` the one
    that it answers to, if any.

    Raises:
        HandError: an empty scope, a time that is not positive or too long, no reason for a pause or throttle, no share
            between 0 and 1 for a throttle, no pool for a reroute.
    """
    if not named(scope):
        raise HandError("the scope is empty: name at least one label, such as tenant=s07")
    if not timedelta(0) < span <= LONGEST:
        raise HandError(f"a lease lasts more than nothing and at most {LONGEST.days} days")
    if deed is not Deed.ALLOW and not why.strip():
        raise HandError("say why: a colleague will read it at night")
    if deed is Deed.THROTTLE and not 0 < share < 1:
        raise HandError("a throttle lets a share between 0 and 1 pass, such as 25%; to hold all mail, pause it")
    if deed is Deed.REROUTE and not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", pool):
        raise HandError("a reroute names the pool that the mail is to take, such as quarantine")
    return Action(
        id=_new_id(now),
        at=now,
        who=person(who),
        deed=deed,
        scope=scope,
        why=why.strip()[:500],
        until=now + span,
        share=share if deed is Deed.THROTTLE else 0.0,
        pool=pool if deed is Deed.REROUTE else "",
        incident=incident,
        evidence=evidence or {},
    )


def resume(conn: Connection, lease: str, span: timedelta, who: str, why: str, now: datetime) -> tuple[Action, ...]:
    """End a lease now, and keep automation away from its scope for a time by a person's ``allow``.

    Ending an ``allow`` gives the scope back to automation: then there is no second entry.

    Raises:
        HandError: no lease of that id is in force (the message names those that are).
    """
    held = {one.id: one for one in active(actions.in_force(conn, now), now)}
    if lease not in held:
        there = ", ".join(held) or "none"
        raise HandError(f"no lease {lease!r} is in force; in force: {there}")
    ended = Action(
        id=_new_id(now),
        at=now,
        who=person(who),
        deed=Deed.RESUME,
        scope=held[lease].scope,
        why=why.strip()[:500],
        lease=lease,
        incident=held[lease].incident,
    )
    written = write(conn, ended)
    if held[lease].deed is Deed.ALLOW:
        return (written,)
    why = why or f"resumed {lease}"
    return written, grant(conn, Deed.ALLOW, held[lease].scope, span, who, why, now, incident=held[lease].incident)


def write(conn: Connection, action: Action) -> Action:
    """Put an action of a person into the log, which brings it into force."""
    written = actions.append(conn, action)
    if written is None:
        raise RuntimeError(f"action {action.id} stands already")  # 64 random bits
    return written


def _new_id(now: datetime) -> str:
    return f"h{now:%y%m%d%H%M%S}-{secrets.token_hex(4)}"


def person(who: str) -> str:
    """How the log calls a person; never as it calls automation."""
    name = who.strip()[:100] or "somebody"
    return f"{name} (person)" if name.casefold() == "automation" else name
