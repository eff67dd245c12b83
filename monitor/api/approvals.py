"""``/v1/approvals``: wider pauses that wait for a second person (four eyes), who agrees or declines."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor import four_eyes
from monitor.api import words
from monitor.api.access import caller_of
from monitor.api.basics import bounded, refusal
from monitor.api.events_told import refused
from monitor.api.hand import granted, who
from monitor.api.refusals import first
from monitor.caller import Caller, Way
from monitor.hand import HandError
from monitor.ledger import approvals
from monitor.service import Core

BODY_LIMIT = 4096
_SEE = "see GET /v1/approvals"


class Agreed(BaseModel):
    """Who agrees, where the machine's own token is sent; anybody else is known."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    who: Annotated[str, Field(max_length=100)] = ""


_TELLS = {"requestBody": {"content": {"application/json": {"schema": Agreed.model_json_schema()}}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    404: refused("There is no such wish."),
    409: refused("It is the caller's own wish, too late, decided already, or the caller is a key and no person."),
}
_AGREES: dict[int | str, dict[str, Any]] = {
    **_RESPONSES,
    413: refused("The body is too large."),
    422: refused("The body is not what it should be, or does not say who agrees."),
}


def router(core: Core) -> APIRouter:
    """The routes of wishes that wait."""
    api = APIRouter(tags=["brake"])

    @api.get("/v1/approvals")
    def waiting(*, everything: bool = False, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Any:
        """What waits for a second person, the oldest first; `everything`: what was decided too, the newest first."""
        now = core.clock()
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            found = approvals.newest(conn, limit) if everything else approvals.waiting(conn, now)[:limit]
        return {"approvals": [words.approval(one, now) for one in found]}

    @api.post("/v1/approvals/{approval}", status_code=201, openapi_extra=_TELLS, responses=_AGREES)
    async def agree(approval: str, request: Request) -> Response:
        """Agree as a second person: it comes into force now. The machine's token says for whom: `{"who": …}`."""
        body = await bounded(request, BODY_LIMIT)
        if body is None:
            return refusal(f"the body is over {BODY_LIMIT} bytes", 'send {"who": …} or nothing', 413)
        try:
            said = Agreed.model_validate_json(body or b"{}")
        except ValidationError as error:
            return refusal(first(error.errors(include_url=False)), 'send {"who": …} or nothing')
        return await run_in_threadpool(_agreed, core, approval, caller_of(request), said.who)

    @api.delete("/v1/approvals/{approval}", responses=_RESPONSES)
    def decline(approval: str, request: Request) -> Response:
        """Say no. Whoever asked may take the wish back so."""
        caller, now = caller_of(request), core.clock()
        try:
            with core.stores.ledger.begin() as conn:
                found = four_eyes.decline(conn, approval, who(caller, ""), now, caller.name)
        except HandError as error:
            return _refused(error)
        return JSONResponse({"approval": words.approval(found, now)})

    return api


def _agreed(core: Core, name: str, caller: Caller, told: str) -> Response:
    if caller.way is Way.MACHINE and not told.strip():
        return refusal("this token is nobody's own, so say who agrees", 'send {"who": "a name"}, or sign in')
    if caller.way is Way.KEY:
        # Whoever holds a key beside their own password would be two people.
        return refusal("a key is no second pair of eyes", "let a person who signs in agree, or mailvane approve", 409)
    try:
        with core.stores.ledger.begin() as conn:
            action, _ = four_eyes.agree(conn, name, who(caller, told), core.clock(), caller.name)
    except HandError as error:
        return _refused(error)
    return granted(core, [action])


def _refused(error: HandError) -> Response:
    return refusal(str(error), _SEE, 404 if isinstance(error, four_eyes.UnknownWishError) else 409)
