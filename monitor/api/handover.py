"""``POST /v1/handover``: work on the stores for a command of this machine, told as it goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator

import anyio
import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from monitor import handover
from monitor.api.basics import bounded, refusal
from monitor.errors import UserError
from monitor.facts.errors import FactsBusy, FactsError
from monitor.facts.frozen import thaw
from monitor.handover import Backup, Order, Said
from monitor.manifest import Job
from monitor.segments import SpoolCorrupt
from monitor.service import Core

log = logging.getLogger(__name__)

_BODY_LIMIT = 4096


class _Wish(msgspec.Struct):
    ticket: str


def router(core: Core) -> APIRouter:
    """The route; what a service that died had frozen is let go first."""
    api, turn = APIRouter(), threading.Lock()
    thaw(core.stores.facts)

    # Not in the published schema: it is of no use to who can't write to the data directory.
    @api.post(handover.ROUTE, include_in_schema=False)
    async def work(request: Request) -> Response:
        """Do what the ticket asks for; a line for each step, then the result or an error."""
        body = await bounded(request, _BODY_LIMIT)
        try:
            wish = msgspec.json.decode(body or b"", type=_Wish)
        except msgspec.MsgspecError:
            return refusal("no ticket", "let the command mailvane ask")
        order = await run_in_threadpool(handover.taken, core.settings.service.data, wish.ticket)
        if order is None:
            return refusal("no such ticket", "let the command mailvane ask, with this service's configuration", 403)
        return StreamingResponse(_told(core, order, turn), media_type="application/x-ndjson")

    return api


async def _told(core: Core, order: Order, turn: threading.Lock) -> AsyncIterator[bytes]:
    """Who reads no more gives the work up."""
    if not turn.acquire(blocking=False):
        yield handover.line(Said(error="the service is at such work already: wait until it has ended"))
        return
    job = handover.carry_out(order, core.stores, core.settings.service.data, core.clock())
    try:
        said = Said()
        while said.result is None and not said.error:
            said = await run_in_threadpool(_next, job)
            if said.result is not None:
                _count(core, order, said)
            yield handover.line(said)
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(job.close)
        turn.release()


def _next(job: Job) -> Said:
    try:
        step = next(job)
    except StopIteration as done:
        return Said(result=done.value)
    except (UserError, FactsBusy, FactsError, SpoolCorrupt) as error:
        return Said(error=str(error)[:2000])
    except Exception:
        log.exception("work for a command failed")
        return Said(error="it failed by a fault of our own: see the service's log")
    return Said(step=(step.what, step.done, step.total))


def _count(core: Core, order: Order, said: Said) -> None:
    if isinstance(order, Backup):
        core.telemetry.backed_up.set(core.clock().timestamp())
    log.info("work for a command done", extra={"work": type(order).__name__.lower(), **(said.result or {})})
