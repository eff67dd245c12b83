"""``/v1/people`` and ``/v1/sessions``: who may sign in, and who is signed in; for admins."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from monitor.api import words
from monitor.api.access import caller_of
from monitor.api.basics import refusal
from monitor.api.events_told import refused
from monitor.caller import Role
from monitor.ledger import access_log, people, sessions
from monitor.ledger.access_log import Entry
from monitor.ledger.people import Person
from monitor.ledger.sessions import Session
from monitor.service import Core


class PersonTold(BaseModel):
    """An account. ``way``: local, oidc or break-glass; ``sessions``: how many go on."""

    name: str
    role: Role
    way: str
    since: str
    disabled: str | None
    last_seen: str | None
    sessions: int


class PeopleTold(BaseModel):
    """All accounts, by name."""

    people: list[PersonTold]


class SessionTold(BaseModel):
    """A session that goes on. ``this``: it is the one that asks."""

    id: str
    person: str
    role: Role
    way: str
    since: str
    seen: str
    expires: str
    this: bool


class SessionsTold(BaseModel):
    """All sessions that go on, the oldest first."""

    sessions: list[SessionTold]


def router(core: Core) -> APIRouter:
    """The routes of an admin."""
    api = APIRouter(tags=["people"])

    @api.get("/v1/people", response_model=PeopleTold)
    def everybody() -> Any:
        """Who may sign in here; they are changed by `mailvane people` on the machine itself."""
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            found = people.every(conn)
        going = [one.person for one in core.sessions.every(core.clock())]
        return PeopleTold(people=[_person(one, going.count(one.name)) for one in found])

    @api.get("/v1/sessions", response_model=SessionsTold)
    def signed_in(request: Request) -> Any:
        """Who is signed in."""
        mine = caller_of(request).session
        return SessionsTold(sessions=[_session(one, mine) for one in core.sessions.every(core.clock())])

    @api.delete("/v1/sessions/{session}", status_code=204, responses={404: refused("There is no such session.")})
    def end(session: Annotated[str, Path(max_length=100)], request: Request) -> Response:
        """Sign a person out, where that session is."""
        now, who = core.clock(), caller_of(request).name
        with core.stores.ledger.begin() as conn:
            count = sessions.revoke(conn, now, session=session)
            if count:
                access_log.append(conn, Entry(now, who, "session ended", session, "done"))
        core.sessions.anew()
        return Response(status_code=204) if count else refusal("there is no such session", "see GET /v1/sessions", 404)

    return api


def _session(one: Session, mine: str) -> SessionTold:
    return SessionTold(
        id=one.id,
        person=one.person,
        role=one.role,
        way=one.way,
        since=words.stamp(one.made_at) or "",
        seen=words.stamp(one.seen_at) or "",
        expires=words.stamp(one.expires_at) or "",
        this=one.id == mine,
    )


def _person(one: Person, going: int) -> PersonTold:
    return PersonTold(
        name=one.name,
        role=one.role,
        way=one.way,
        since=words.stamp(one.made_at) or "",
        disabled=words.stamp(one.disabled_at),
        last_seen=words.stamp(one.last_seen),
        sessions=going,
    )
