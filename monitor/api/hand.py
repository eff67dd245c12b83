"""``/v1/actions``: the audit log of the brake, and a person's key by API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor import hand
from monitor.api import words
from monitor.api.access import caller_of
from monitor.api.basics import MOST, bounded, refusal
from monitor.caller import Caller, Way
from monitor.ledger import actions
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
    def log(limit: Annotated[int, Query(ge=1, le=1000)] = 50, before: Annotated[int, Query(ge=0, le=MOST)] = 0) -> Any:
        """What was done and refused, the newest first; `before` a seq for the next page."""
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            return {"actions": [words.action(one) for one in actions.newest(conn, limit, before)]}

    @api.post("/v1/actions")
    async def turn(request: Request) -> Response:
        """Turn a person's key: `{"deed": "pause", "scope": {…}, "for": "60m", "why": "…"}`, or another deed."""
        body = await bounded(request, BODY_LIMIT)
        if body is None:
            return refusal(f"the body is over {BODY_LIMIT} bytes", "send one wish a request", 413)
        try:
            wish = Wish.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            return refusal(f"{where}: {first['msg']}", 'send {"deed": …, "scope": …, "for": "60m", "why": …}')
        return await run_in_threadpool(_turned, core, wish, _who(caller_of(request), wish))

    return api


def _who(caller: Caller, wish: Wish) -> str:
    """Whose key turns: a person by its own name alone; whom a machine says it acts for stands beside its own."""
    if caller.way is Way.PERSON:
        return caller.name.removeprefix("person:")
    if caller.way is Way.MACHINE and wish.who != AUTOMATION:
        return wish.who or "api"
    return f"{wish.who} by {caller.name}" if wish.who else caller.name


def _turned(core: Core, wish: Wish, who: str) -> Response:
    try:
        done = _do(core, wish, who)
    except hand.HandError as error:
        return refusal(str(error), "")
    core.gate.refresh()
    for action in done:
        core.telemetry.actions.labels(str(action.deed), "person").inc()
    return JSONResponse({"actions": [words.action(one) for one in done]}, status_code=201)


def _do(core: Core, wish: Wish, who: str) -> tuple[Action, ...]:
    now = core.clock()
    with core.stores.ledger.begin() as conn:
        if wish.deed == "resume":
            return hand.resume(conn, wish.lease, wish.span or hand.ALLOW_FOR, who, wish.why, now)
        span = wish.span or (hand.ALLOW_FOR if wish.deed == "allow" else hand.PAUSE_FOR)
        scope, deed = hand.scope(wish.scope), Deed(wish.deed)
        return (hand.grant(conn, deed, scope, span, who, wish.why, now, share=wish.share, pool=wish.pool),)
