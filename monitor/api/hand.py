"""``/v1/actions``: the audit log of the brake, and a person's key by API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor import hand
from monitor.api import words
from monitor.api.access import caller_of
from monitor.api.basics import MOST, bounded, refusal
from monitor.api.seen import seen
from monitor.caller import Caller, Way
from monitor.four_eyes import turn
from monitor.ledger.approvals import Approval
from monitor.model import AUTOMATION, Action, Deed
from monitor.ports import Duration
from monitor.service import Core

BODY_LIMIT = 64 << 10


class Wish(BaseModel):
    """What a person wants: pause, throttle, reroute or allow a scope for a time, or resume a lease."""

    model_config = ConfigDict(extra="forbid")

    deed: Literal["pause", "throttle", "reroute", "allow", "resume"]
    scope: dict[str, str] = Field(default_factory=dict)
    span: Duration | None = Field(default=None, alias="for")
    why: str = ""
    share: float = 0.0
    pool: str = ""
    lease: str = ""
    who: str = Field(default="", max_length=200)


def router(core: Core) -> APIRouter:
    """The routes of the log."""
    api = APIRouter(tags=["brake"])

    @api.get("/v1/actions")
    def log(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        before: Annotated[int, Query(ge=0, le=MOST)] = 0,
    ) -> Any:
        """What was done and refused, the newest first; `before` a seq for the next page."""
        return {"actions": seen(core, request).actions(limit, before)}

    @api.post("/v1/actions")
    async def turned(request: Request) -> Response:
        """Turn a person's key: `{"deed": "pause", "scope": {…}, "for": "60m", "why": "…"}`, or another deed.

        With `four_eyes` in `[access]`, what is wider than what is held or known to be bad waits for a second person.
        """
        body = await bounded(request, BODY_LIMIT)
        if body is None:
            return refusal(f"the body is over {BODY_LIMIT} bytes", "send one wish a request", 413)
        try:
            wish = Wish.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            return refusal(f"{where}: {first['msg']}", 'send {"deed": …, "scope": …, "for": "60m", "why": …}')
        return await run_in_threadpool(_turned, core, wish, caller_of(request))

    return api


def who(caller: Caller, named: str) -> str:
    """Whose key turns: a person by its own name alone; whom a machine says it acts for stands beside its own."""
    if caller.way is Way.PERSON:
        return caller.name.removeprefix("person:")
    if caller.way is Way.MACHINE and named != AUTOMATION:
        return named or "api"
    return f"{named[:80]} by {caller.name}" if named else caller.name


def _turned(core: Core, wish: Wish, caller: Caller) -> Response:
    try:
        done = _do(core, wish, caller)
    except hand.HandError as error:
        return refusal(str(error), "")
    if isinstance(done, Approval):
        remedy = f"let a second person agree: POST /v1/approvals/{done.id}, or mailvane approve {done.id}"
        return JSONResponse({"approval": words.approval(done, core.clock()), "remedy": remedy}, status_code=202)
    return granted(core, done)


def granted(core: Core, done: Sequence[Action]) -> Response:
    """The answer when a person's key turned; the gate is told first."""
    core.gate.refresh()
    for action in done:
        core.telemetry.actions.labels(str(action.deed), "person").inc()
    return JSONResponse({"actions": [words.action(one) for one in done]}, status_code=201)


def _do(core: Core, wish: Wish, caller: Caller) -> tuple[Action, ...] | Approval:
    now, name = core.clock(), who(caller, wish.who)
    with core.stores.ledger.begin() as conn:
        if wish.deed == "resume":
            return hand.resume(conn, wish.lease, wish.span or hand.ALLOW_FOR, name, wish.why, now)
        done = turn(
            conn,
            Deed(wish.deed),
            hand.scope(wish.scope),
            wish.span or (hand.ALLOW_FOR if wish.deed == "allow" else hand.PAUSE_FOR),
            name,
            wish.why,
            now,
            share=wish.share,
            pool=wish.pool,
            four_eyes=core.settings.access.four_eyes,
            by=caller.name,
        )
    return done if isinstance(done, Approval) else (done,)
