"""``/v1/keys``: the keys of machines, for admins. A key's text is in the answer that makes it, and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor.access import keys, uses
from monitor.api.access import caller_of
from monitor.api.basics import bounded, refusal
from monitor.api.events_told import refused
from monitor.api.keys_told import told
from monitor.api.refusals import first
from monitor.caller import Right
from monitor.errors import UserError
from monitor.ports import Duration
from monitor.service import Core

BODY_LIMIT = 4096


class Wanted(BaseModel):
    """A new key. ``expires``: after how long, such as "90d"; 0 for never. ``tenant``: a seller's key."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Right], Field(min_length=1)]
    tenant: Annotated[str, Field(max_length=200)] = ""
    expires: Duration = keys.EXPIRES


class Turned(BaseModel):
    """How long the old key goes on beside its successor."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    overlap: Duration = keys.OVERLAP


def _tells(model: type[BaseModel], *, required: bool) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}


_ABSENT: dict[int | str, dict[str, Any]] = {404: refused("There is no such key in force.")}
_BODY: dict[int | str, dict[str, Any]] = {
    413: refused("The body is too large."),
    422: refused("The body is not what it should be, or what it asks for can't be done."),
}
_NEW, _OVERLAP = 'send {"name": …, "scopes": ["read"]}', 'send {"overlap": "24h"}, or nothing'


def router(core: Core) -> APIRouter:
    """The routes of keys."""
    api = APIRouter(tags=["keys"])

    @api.get("/v1/keys")
    def every() -> Any:
        """All keys, those that ended too, the oldest first; `last_used` to the minute."""
        now = core.clock()
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            return {"keys": [told(one, now) for one in uses.every(conn, core.settings.service.data)]}

    @api.post("/v1/keys", status_code=201, openapi_extra=_tells(Wanted, required=True), responses=_BODY)
    async def make(request: Request) -> Response:
        """Make a key; its `text` is told now and never again."""
        wanted = await _wished(request, Wanted, _NEW)
        if isinstance(wanted, Response):
            return wanted
        return await run_in_threadpool(_made, core, wanted, caller_of(request).name)

    @api.post(
        "/v1/keys/{key}/rotate",
        status_code=201,
        openapi_extra=_tells(Turned, required=False),
        responses={**_ABSENT, **_BODY},
    )
    async def rotate(key: str, request: Request) -> Response:
        """Make a successor with the same scopes; the old key ends after `overlap`."""
        turned = await _wished(request, Turned, _OVERLAP)
        if isinstance(turned, Response):
            return turned
        return await run_in_threadpool(_rotated, core, key, turned.overlap, caller_of(request).name)

    @api.delete("/v1/keys/{key}", status_code=204, responses=_ABSENT)
    def revoke(key: str, request: Request) -> Response:
        """End a key; it opens nothing within a second."""
        try:
            with core.stores.ledger.begin() as conn:
                keys.revoke(conn, key, now=core.clock(), by=caller_of(request).name)
        except UserError as error:
            return _refused(error)
        core.keys.anew()
        return Response(status_code=204)

    return api


W = TypeVar("W", bound=BaseModel)


async def _wished(request: Request, model: type[W], remedy: str) -> W | Response:
    body = await bounded(request, BODY_LIMIT)
    if body is None:
        return refusal(f"the body is over {BODY_LIMIT} bytes", remedy, 413)
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        return refusal(first(error.errors(include_url=False)), remedy)


def _made(core: Core, wanted: Wanted, by: str) -> Response:
    expires, now = wanted.expires or None, core.clock()
    try:
        with core.stores.ledger.begin() as conn:
            text, key = keys.make(
                conn, wanted.name, wanted.scopes, tenant=wanted.tenant, now=now, by=by, expires=expires
            )
    except UserError as error:
        return refusal(str(error), _NEW)
    core.keys.anew()
    return JSONResponse({**told(key, now), "text": text}, status_code=201)


def _rotated(core: Core, name: str, overlap: timedelta, by: str) -> Response:
    now = core.clock()
    try:
        with core.stores.ledger.begin() as conn:
            text, key, _ = keys.rotate(conn, name, now=now, by=by, overlap=overlap)
    except UserError as error:
        return _refused(error)
    core.keys.anew()
    return JSONResponse({**told(key, now), "text": text}, status_code=201)


def _refused(error: UserError) -> Response:
    return refusal(str(error), "see GET /v1/keys", 404 if isinstance(error, keys.NoKeyError) else 422)
