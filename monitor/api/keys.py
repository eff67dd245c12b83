"""``/v1/keys``: the keys of machines, for admins. A key's text is in the answer that makes it, and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor.access import keys
from monitor.api import words
from monitor.api.access import caller_of
from monitor.api.basics import bounded, refusal
from monitor.api.events_told import refused
from monitor.api.refusals import first
from monitor.caller import Right
from monitor.errors import UserError
from monitor.ledger import keys as stored
from monitor.ledger.keys import Key
from monitor.ports import Duration
from monitor.service import Core

BODY_LIMIT = 4096


class Wanted(BaseModel):
    """A new key. ``expires``: after how long; 0 for never."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Right], Field(min_length=1)]
    tenant: Annotated[str, Field(max_length=200)] = ""
    expires: Duration = keys.EXPIRES


class Turned(BaseModel):
    """How long the old key goes on beside its successor."""

    model_config = ConfigDict(extra="forbid")

    overlap: Duration = keys.OVERLAP


def _tells(model: type[BaseModel]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": model.model_json_schema()}}}}


_RESPONSES: dict[int | str, dict[str, Any]] = {
    404: refused("There is no such key in force."),
    413: refused("The body is too large."),
    422: refused("The body is not what it should be."),
}


def router(core: Core) -> APIRouter:
    """The routes of keys."""
    api = APIRouter(tags=["keys"], responses=_RESPONSES)

    @api.get("/v1/keys")
    def every() -> Any:
        """All keys, those that ended too, the oldest first."""
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            return {"keys": [told(one, core) for one in stored.every(conn)]}

    @api.post("/v1/keys", status_code=201, openapi_extra=_tells(Wanted))
    async def make(request: Request) -> Response:
        """Make a key; its `text` is told now and never again."""
        body = await bounded(request, BODY_LIMIT)
        try:
            wanted = Wanted.model_validate_json(body or b"")
        except ValidationError as error:
            return refusal(first(error.errors(include_url=False)), 'send {"name": …, "scopes": ["read"]}')
        return await run_in_threadpool(_made, core, wanted, caller_of(request).name)

    @api.post("/v1/keys/{key}/rotate", status_code=201, openapi_extra=_tells(Turned))
    async def rotate(key: str, request: Request) -> Response:
        """Make a successor with the same scopes; the old key ends after `overlap`."""
        body = await bounded(request, BODY_LIMIT)
        try:
            turned = Turned.model_validate_json(body or b"{}")
        except ValidationError as error:
            return refusal(first(error.errors(include_url=False)), 'send {"overlap": "24h"}')
        return await run_in_threadpool(_rotated, core, key, turned.overlap, caller_of(request).name)

    @api.delete("/v1/keys/{key}", status_code=204)
    def revoke(key: str, request: Request) -> Response:
        """End a key; it opens nothing within a second."""
        try:
            with core.stores.ledger.begin() as conn:
                keys.revoke(conn, key, now=core.clock(), by=caller_of(request).name)
        except UserError as error:
            return refusal(str(error), "see GET /v1/keys", 404)
        return Response(status_code=204)

    return api


def told(key: Key, core: Core) -> dict[str, Any]:
    """A key as it may be shown."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.rights),
        "tenant": key.tenant or None,
        "made": words.stamp(key.made_at),
        "made_by": key.made_by,
        "expires": words.stamp(key.expires_at),
        "revoked": words.stamp(key.revoked_at),
        "last_used": words.stamp(key.last_used),
        "successor": key.successor or None,
        "in_force": key.in_force(core.clock()),
    }


def _made(core: Core, wanted: Wanted, by: str) -> Response:
    expires = wanted.expires if wanted.expires > timedelta(0) else None
    try:
        with core.stores.ledger.begin() as conn:
            text, key = keys.make(
                conn, wanted.name, wanted.scopes, tenant=wanted.tenant, now=core.clock(), by=by, expires=expires
            )
    except UserError as error:
        return refusal(str(error), "see /openapi.json")
    return JSONResponse({**told(key, core), "text": text}, status_code=201)


def _rotated(core: Core, name: str, overlap: timedelta, by: str) -> Response:
    try:
        with core.stores.ledger.begin() as conn:
            text, key = keys.rotate(conn, name, now=core.clock(), by=by, overlap=overlap)
    except UserError as error:
        return refusal(str(error), "see GET /v1/keys", 404)
    return JSONResponse({**told(key, core), "text": text}, status_code=201)
