"""``/v1/session``: a person signs in and out."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor.access import people, sessions
from monitor.access.lockout import Lockout
from monitor.access.sessions import COOKIE, COOKIES
from monitor.api.access import caller_of
from monitor.api.basics import bounded, refusal
from monitor.api.events_told import refused
from monitor.api.people import told
from monitor.ledger import access_log
from monitor.ledger import people as accounts
from monitor.ledger import sessions as stored
from monitor.ledger.access_log import Entry
from monitor.service import Core

log = logging.getLogger(__name__)

BODY_LIMIT = 4096


class Name(BaseModel):
    """Who signs in."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, max_length=100)
    password: str = Field(min_length=1, max_length=1000, repr=False)


_TELLS = {"requestBody": {"required": True, "content": {"application/json": {"schema": Name.model_json_schema()}}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: refused("No such name, or another password."),
    413: refused("The body is too large."),
    415: refused("The body is no JSON."),
    422: refused("The body is not what it should be."),
    429: refused("Too many tries.", headers={"Retry-After": {"schema": {"type": "integer"}}}),
}


def router(core: Core) -> APIRouter:
    """The routes of people."""
    api = APIRouter(tags=["people"])
    lockout = Lockout(core.clock)
    secure = core.settings.service.tls_cert is not None
    cookie = COOKIES[0] if secure else COOKIE

    @api.post("/v1/session", openapi_extra=_TELLS, responses=_RESPONSES)
    async def sign_in(request: Request) -> Response:
        """Sign in by `{"name": …, "password": …}`; the answer's `csrf` goes into X-CSRF-Token of whatever changes."""
        wish = await _wished(request)
        if isinstance(wish, Response):
            return wish
        address = request.client.host if request.client else ""
        if seconds := lockout.wait(wish.name, address):
            return _later("too many wrong passwords", seconds)
        try:
            done = await run_in_threadpool(_sign_in, core, wish, address)
        except people.Crowded:
            return _later("others are signing in", 2)
        if done is None:
            lockout.failed(wish.name, address)
            return refusal("no such name, or another password", "try again, or ask an admin for a new one", 401)
        lockout.right(wish.name, address)
        text, session = done
        core.sessions.anew()
        answer = JSONResponse({**told(session), "csrf": session.csrf})
        expires = session.expires_at
        answer.set_cookie(cookie, text, expires=expires, path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    @api.delete("/v1/session", status_code=204)
    def sign_out(request: Request) -> Response:
        """Sign out."""
        caller = caller_of(request)
        if caller.session:
            with core.stores.ledger.begin() as conn:
                stored.revoke(conn, core.clock(), session=caller.session)
                access_log.append(conn, Entry(core.clock(), caller.name, "signed out", caller.session, "done"))
            core.sessions.anew()
        answer = Response(status_code=204)
        answer.delete_cookie(cookie, path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    @api.get("/v1/session/ways")
    def ways() -> Any:
        """How one may sign in."""
        return {"local": True, "oidc": None}

    return api


async def _wished(request: Request) -> Name | Response:
    """What the body says, or why it says nothing."""
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return refusal("the body is no JSON", "send Content-Type: application/json", 415)
    body = await bounded(request, BODY_LIMIT)
    if body is None:
        return refusal(f"the body is over {BODY_LIMIT} bytes", "send a name and a password", 413)
    try:
        return Name.model_validate_json(body)
    except ValidationError:
        return refusal("the body is no name with a password", 'send {"name": …, "password": …}')


def _later(what: str, seconds: int) -> Response:
    answer = refusal(what, f"try again in {seconds} s", 429)
    answer.headers["Retry-After"] = str(seconds)
    return answer


def _sign_in(core: Core, wish: Name, address: str) -> tuple[str, stored.Session] | None:
    now = core.clock()
    with core.stores.ledger.connect().execution_options(reads=True) as conn:
        person = people.known(conn, wish.name.strip(), wish.password)
    with core.stores.ledger.begin() as conn:
        if person is None:
            # Somebody may have typed a password where the name goes.
            name = wish.name.strip() if accounts.one(conn, wish.name.strip()) else "nobody's name"
            access_log.append(conn, Entry(now, "anonymous", "sign-in", name, "refused", {"address": address}))
            return None
        way = "break-glass" if person.break_glass else "local"
        lasts = people.BREAK_GLASS_LASTS if person.break_glass else sessions.LASTS
        done = sessions.begin(conn, person.name, person.role, way=way, now=now, lasts=lasts)
        accounts.change(conn, person.name, last_seen=now)
        access_log.append(conn, Entry(now, f"person:{person.name}", "sign-in", way, "done", {"address": address}))
    if person.break_glass:
        log.warning("break-glass account used", extra={"person": person.name})
        core.telemetry.break_glass.inc()
    return done
