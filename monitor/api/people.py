"""``/v1/people`` and ``/v1/sessions``: who may sign in, and who is signed in; for admins."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from monitor.api import words
from monitor.api.access import caller_of
from monitor.api.basics import refusal
from monitor.api.events_told import refused
from monitor.ledger import access_log
from monitor.ledger import people as accounts
from monitor.ledger import sessions as stored
from monitor.ledger.access_log import Entry
from monitor.ledger.sessions import Session
from monitor.service import Core


def router(core: Core) -> APIRouter:
    """The routes of an admin."""
    api = APIRouter(tags=["people"])

    @api.get("/v1/sessions")
    def signed_in() -> Any:
        """Who is signed in."""
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            return {"sessions": [told(one) for one in stored.known(conn, core.clock()).values()]}

    @api.delete("/v1/sessions/{session}", responses={404: refused("There is no such session.")})
    def end(session: str, request: Request) -> Response:
        """Sign a person out."""
        now, who = core.clock(), caller_of(request).name
        with core.stores.ledger.begin() as conn:
            count = stored.revoke(conn, now, session=session)
            if count:
                access_log.append(conn, Entry(now, who, "session ended", session, "done"))
        core.sessions.anew()
        return Response(status_code=204) if count else refusal("there is no such session", "see GET /v1/sessions", 404)

    @api.get("/v1/people")
    def everybody() -> Any:
        """Who may sign in here."""
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            return {"people": [_person(one) for one in accounts.every(conn)]}

    return api


def told(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "person": session.person,
        "role": session.role,
        "way": session.way,
        "since": words.stamp(session.made_at),
        "expires": words.stamp(session.expires_at),
    }


def _person(one: accounts.Person) -> dict[str, Any]:
    seen: datetime | None = one.last_seen
    return {
        "name": one.name,
        "role": one.role,
        "break_glass": one.break_glass,
        "disabled": one.disabled_at is not None,
        "last_seen": words.stamp(seen) if seen else None,
    }
