"""``POST /v1/events``: facts told by other systems; answered when they are on disk."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from collectors.events import Events, schema
from monitor.api.access import unauthorized
from monitor.api.basics import bounded, refusal
from monitor.model import Rejected
from monitor.service import HTTP, Core
from monitor.spool import SpoolFull

BODY_LIMIT = 16 << 20  # bytes of one request
LINE_COUNT = 200_000  # of one request: each one that is bad costs an object
AT_ONCE = 16  # requests whose bodies are in memory at a time
PATIENCE = 30  # seconds for a body to arrive
SHOWN = 100  # rejected lines named in an answer; the count is always whole


def router(core: Core) -> APIRouter:
    """The routes of the receiver."""
    api = APIRouter(tags=["tell"])
    receiver = Events()
    slots = asyncio.Semaphore(AT_ONCE)
    open_to_all = _loopback(core.settings.service.listen[0])

    @api.post("/v1/events")
    async def take(request: Request) -> Response:
        """Take NDJSON, one event a line; 202 when it is on disk, with the lines that could not be read."""
        if not open_to_all and (denied := unauthorized(core, request)):
            return denied
        if slots.locked():
            return _later("too many requests at once")
        async with slots:
            try:
                async with asyncio.timeout(PATIENCE):
                    body = await bounded(request, BODY_LIMIT)
            except TimeoutError:
                return refusal(f"the body did not arrive within {PATIENCE} s", "send fewer lines in a request", 408)
            if body is None or body.count(b"\n") > LINE_COUNT:
                what = f"the body is over {BODY_LIMIT} bytes or {LINE_COUNT:,} lines"
                return refusal(what, "send fewer lines in a request", 413)
            return await run_in_threadpool(_taken, core, receiver, body)

    @api.get("/v1/events/schema")
    async def shape() -> dict[str, Any]:
        """The JSON Schema of one line."""
        return schema()

    return api


def _taken(core: Core, receiver: Events, body: bytes) -> Response:
    batch = receiver.decode(body)
    try:
        rejected = core.take(HTTP, batch)
    except SpoolFull:
        return _later("the spool is full")
    accepted = len(batch) - (len(rejected) - len(batch.rejected))
    said = {
        "accepted": accepted,
        "rejected": [{"where": item.where, "why": item.why} for item in sorted(rejected, key=_number)[:SHOWN]],
        "rejected_count": len(rejected),
    }
    return JSONResponse(said, status_code=422 if rejected and not accepted else 202)


def _number(item: Rejected) -> int:
    return int(item.where.removeprefix("line ") or 0)


def _later(why: str) -> Response:
    answer = refusal(why, "send the same lines again later: what was taken already counts once", 429)
    answer.headers["Retry-After"] = "5"
    return answer


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
