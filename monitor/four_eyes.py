"""A person's key, with a second person's where a pause is widened and the house wants four eyes for that."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import Connection

from monitor import hand
from monitor.core.widening import HOLDING, LATELY, held_lately, widens
from monitor.hand import HandError
from monitor.ledger import access_log, actions, approvals, incidents
from monitor.ledger.access_log import Entry
from monitor.ledger.approvals import Approval, State
from monitor.model import Action, Deed, Scope, named

AGREED_WITHIN = timedelta(minutes=15)  # later the wish was made for another hour's mail
_BY = " by key:"  # what the API puts between a name that a key tells and the key


class UnknownWishError(HandError):
    """There is none of that id."""


def turn(
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
    four_eyes: bool,
    by: str = "",
) -> Action | Approval:
    """What ``hand.grant`` does; or, where a pause, throttle or reroute widens what is held, a wish that waits.

    ``by`` is how the access log calls ``who``. The same wish of the same person waits once.

    Raises:
        HandError: as ``hand.wanted``.
    """
    action = hand.wanted(deed, scope, span, who, why, now, share=share, pool=pool)
    beyond = _beyond(conn, action, now) if four_eyes and deed in HOLDING else None
    if beyond is None:
        return hand.write(conn, action)
    wish = Approval(
        id=f"w-{secrets.token_hex(4)}",
        asked_at=now,
        asked_by=action.who,
        until=now + AGREED_WITHIN,
        deed=deed,
        scope=scope,
        span=span,
        why=action.why,
        share=action.share,
        pool=action.pool,
        incident=action.incident,
        beyond=beyond,
    )
    if before := next((one for one in approvals.waiting(conn, now) if one.alike(wish)), None):
        return before
    approvals.add(conn, wish)
    _note(conn, wish, now, by or who, "asked")
    return wish


def agree(conn: Connection, name: str, who: str, now: datetime, by: str = "") -> tuple[Action, Approval]:
    """Bring the wish of that id into force, from now on, as whoever asked would have; its evidence names both.

    Raises:
        UnknownWishError: there is none of that id.
        HandError: it is one's own, it is too late, or somebody has decided.
    """
    wish, who = _waiting(conn, name, now), hand.person(who)
    if _same(wish.asked_by, who):
        raise HandError(f"{wish.id} is your own wish: somebody else must agree, until {wish.until:%H:%M} UTC")
    action = hand.write(
        conn,
        hand.wanted(
            wish.deed,
            wish.scope,
            wish.span,
            wish.asked_by,
            wish.why,
            now,
            share=wish.share,
            pool=wish.pool,
            incident=wish.incident,
            evidence={"asked_by": wish.asked_by, "agreed_by": who},
        ),
    )
    return action, _decided(conn, wish, State.AGREED, who, now, by, action.id)


def decline(conn: Connection, name: str, who: str, now: datetime, by: str = "") -> Approval:
    """Say no to the wish of that id; whoever asked may take it back so.

    Raises:
        UnknownWishError: there is none of that id.
        HandError: it is too late, or somebody has decided.
    """
    return _decided(conn, _waiting(conn, name, now), State.DECLINED, hand.person(who), now, by)


def _beyond(conn: Connection, action: Action, now: datetime) -> Scope | None:
    held = held_lately(actions.in_force(conn, now - LATELY), now)
    return widens(action.scope, (*held, *(incident.scope for incident in incidents.open_ones(conn))))


def _waiting(conn: Connection, name: str, now: datetime) -> Approval:
    wish = approvals.one(conn, name)
    if wish is None:
        raise UnknownWishError(f"nothing waits under {name[:40]!r}: see mailvane approvals")
    state = wish.state(now)
    if state is State.EXPIRED:
        raise HandError(f"{wish.id} waited until {wish.until:%Y-%m-%d %H:%M} UTC: let {wish.asked_by} ask again")
    if state is not State.WAITING:
        raise HandError(f"{wish.decided_by} has {state} {wish.id} already")
    return wish


def _decided(
    conn: Connection, wish: Approval, state: State, who: str, now: datetime, by: str, action: str = ""
) -> Approval:
    approvals.decide(conn, wish.id, state, by=who, at=now, action=action)
    _note(conn, wish, now, by or who, str(state))
    found = approvals.one(conn, wish.id)
    if found is None:
        raise RuntimeError(f"{wish.id} is gone")  # within one transaction
    return found


def _same(asked: str, who: str) -> bool:
    """Whether one person has both names; a name that a key told counts as its holder's."""
    return asked.partition(_BY)[0].strip().casefold() == who.strip().casefold()


def _note(conn: Connection, wish: Approval, now: datetime, by: str, done: str) -> None:
    details = {"deed": str(wish.deed), "scope": named(wish.scope), "asked_by": wish.asked_by, "why": wish.why}
    access_log.append(conn, Entry(now, by, f"wider pause {done}", wish.id, "done", details))
