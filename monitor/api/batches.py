"""``POST /v1/batches``: what other machines ship; answered when it is on disk. What users know: docs/ship.md."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from monitor.api.events_told import refused
from monitor.api.intake import Intake, Refused, later
from monitor.api.shipped import Misshapen, Shipped
from monitor.service import Core
from monitor.spool import SpoolFull

log = logging.getLogger(__name__)

_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All frames are on disk; `reached` names the last of each source."},
    400: refused("The body is no hello with its frames."),
    408: refused("The body did not arrive in time."),
    409: refused("The shipper's version or name does not fit this core.", headers=_RETRY),
    413: refused("The body is too large."),
    415: refused("The encoding is not known, or the body is a form."),
    422: refused("Frames are not what they should be; `items` names them. Nothing was taken."),
    429: refused("There is no room now, in memory or on disk; nothing was lost.", headers=_RETRY),
    503: refused("The disk refuses.", headers=_RETRY),
}
TELLS: dict[str, Any] = {
    "requestBody": {"content": {"application/vnd.mailvane.batches": {"schema": {"type": "string", "format": "binary"}}}}
}


def router(core: Core) -> APIRouter:
    """The route of the shippers."""
    api = APIRouter(tags=["tell"])
    shipped, intake = Shipped(core), Intake()

    @api.post("/v1/batches", responses=RESPONSES, openapi_extra=TELLS)
    async def take(request: Request) -> Response:
        """Take what a shipper sends; 200 when all of it is on disk."""
        try:
            async with intake.body(request) as body:
                return await intake.run(_taken, core, shipped, body)
        except Refused as error:
            core.telemetry.ship.refused.labels(error.reason).inc()
            return error.answer()

    return api


def _taken(core: Core, shipped: Shipped, body: bytes) -> Response:
    try:
        return JSONResponse(shipped.take(body))
    except Misshapen as error:
        core.telemetry.ship.refused.labels("frames").inc()
        said = {"error": str(error), "remedy": "set these aside and send the rest", "items": error.items}
        return JSONResponse(said, status_code=422)
    except SpoolFull:
        raise later("spool", "the spool is full") from None
    except OSError as error:
        log.error("batches not on disk", extra={"errno": error.errno})  # noqa: TRY400  # the number says it all
        raise later("disk", "the disk refuses", status=503) from error
