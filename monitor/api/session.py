"""``/v1/session``: a person signs in and out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor.access.passwords import Crowded
from monitor.access.sessions import COOKIE, COOKIES
from monitor.access.signing_in import Locked, SigningIn, Wrong
from monitor.api import oidc, words
from monitor.api.access import caller_of
from monitor.api.basics import bounded, refusal
from monitor.api.events_told import refused
from monitor.caller import Role, Way
from monitor.ledger import access_log, sessions
from monitor.ledger.access_log import Entry
from monitor.ledger.sessions import Session
from monitor.service import Core

BODY_LIMIT = 4096
SOON = 2  # seconds until there may be a turn


class Name(BaseModel):
    """Who signs in."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=200)
    password: str = Field(min_length=1, max_length=1000, repr=False)


class SignedIn(BaseModel):
    """A person who is signed in now. ``csrf`` goes into X-CSRF-Token of whatever changes something."""

    person: str
    role: Role
    csrf: str = Field(repr=False)
    expires: str


class Label(BaseModel):
    """What the page calls the identity provider."""

    label: str


class Ways(BaseModel):
    """How people sign in. ``local``: by passwords; false: by those of break-glass accounts alone.

    ``person``: who is signed in in this browser.
    """

    local: bool
    oidc: Label | None
    person: str | None


_TELLS = {"requestBody": {"required": True, "content": {"application/json": {"schema": Name.model_json_schema()}}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: refused("No such name, or another password."),
    413: refused("The body is too large."),
    415: refused("The body is no JSON."),
    422: refused("The body is not what it should be."),
    429: refused("Too many tries.", headers={"Retry-After": {"schema": {"type": "integer"}}}),
}


def router(core: Core) -> APIRouter:
    """The routes of people who sign in."""
    api = APIRouter(tags=["people"])
    settings = core.settings.access
    door = SigningIn(core.stores.ledger, settings, core.clock, core.telemetry.sign_ins, core.notes.note)
    api.include_router(oidc.router(core, door, put_cookie))

    @api.post("/v1/session", openapi_extra=_TELLS, response_model=SignedIn, responses=_RESPONSES)
    async def sign_in(request: Request) -> Response:
        """Sign in by `{"name": …, "password": …}`; the answer's `csrf` goes into X-CSRF-Token of whatever changes."""
        wish = await _wished(request)
        if isinstance(wish, Response):
            return wish
        address = request.client.host if request.client else ""
        instead = caller_of(request).session
        try:
            text, session = await run_in_threadpool(door.by_password, wish.name, wish.password, address, instead)
        except Locked as error:
            return later("too many wrong passwords", error.seconds)
        except Crowded:
            return later("others are signing in", SOON)
        except Wrong:
            return refusal("no such name, or another password", "try again, or ask an admin for a new one", 401)
        core.sessions.anew()
        told = SignedIn(
            person=session.person, role=session.role, csrf=session.csrf, expires=words.stamp(session.expires_at) or ""
        )
        answer = JSONResponse(told.model_dump(mode="json"))
        put_cookie(request, answer, text, session)
        return answer

    @api.delete("/v1/session", status_code=204)
    def sign_out(request: Request) -> Response:
        """Sign out."""
        caller, now = caller_of(request), core.clock()
        if caller.session:
            with core.stores.ledger.begin() as conn:
                sessions.revoke(conn, now, session=caller.session)
                access_log.append(conn, Entry(now, caller.name, "signed out", caller.session, "done"))
            core.sessions.anew()
        answer = Response(status_code=204)
        for name in COOKIES:
            secure = name != COOKIE
            answer.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    @api.get("/v1/session/ways", response_model=Ways)
    def ways(request: Request) -> Ways:
        """How one may sign in, and who is."""
        caller = caller_of(request)
        return Ways(
            local=settings.local,
            oidc=Label(label=settings.oidc.label) if settings.oidc else None,
            person=caller.name.removeprefix("person:") if caller.way is Way.PERSON else None,
        )

    return api


def put_cookie(request: Request, answer: Response, text: str, session: Session) -> None:
    """Give a session's cookie to the browser: by HTTPS one that no other host could have set."""
    secure = request.url.scheme == "https"
    name = COOKIES[0] if secure else COOKIE
    expires = session.expires_at
    answer.set_cookie(name, text, expires=expires, path="/", secure=secure, httponly=True, samesite="strict")


def later(what: str, seconds: int) -> Response:
    """Too much: again in so many seconds."""
    answer = refusal(what, f"try again in {seconds} s", 429)
    answer.headers["Retry-After"] = str(seconds)
    return answer


async def _wished(request: Request) -> Name | Response:
    """What the body says, or why it says nothing."""
    # A form of somebody else's page can't send this type, so it can't sign anybody in as whom it likes.
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return refusal("the body is no JSON", "send Content-Type: application/json", 415)
    body = await bounded(request, BODY_LIMIT)
    if body is None:
        return refusal(f"the body is over {BODY_LIMIT} bytes", "send a name and a password", 413)
    try:
        return Name.model_validate_json(body)
    except ValidationError:
        return refusal("the body is no name with a password", 'send {"name": …, "password": …}')
