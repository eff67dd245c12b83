"""Core's own server with its receiver alone (``take``), or with nothing behind it (``noop``).

``take`` is the whole of ``POST /v1/events`` up to its answer: the lines are checked, sealed and synced to the spool.
Nothing is applied, so that the two differ by the receiver only. On one processor, where there are more.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI, Request, Response

from monitor import serving
from monitor.access.limits import Limits
from monitor.api import events
from monitor.api.doors import CORE, Doors
from monitor.api.guard import Guard
from monitor.config import load
from monitor.service import Core

ANSWER = b'{"accepted":1000,"rejected":[],"rejected_count":0}'


def serve(what: str, config: str) -> None:
    """Serve until a signal comes."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    settings = load(Path(config))
    core = Core(settings)
    app = FastAPI(docs_url=None, redoc_url=None)
    app.add_middleware(
        Guard,
        doors=Doors(CORE),
        keeper=core.keeper,
        limits=Limits(settings.access),
        metrics=core.telemetry.gate,
    )
    if what == "take":
        app.include_router(events.router(core))
    else:

        @app.post("/v1/events")
        async def noop(request: Request) -> Response:
            """Take the body in, and say so."""
            await request.body()
            return Response(ANSWER, 202, media_type="application/json")

    @app.get("/healthz")
    async def healthy() -> Response:
        """It answers."""
        return Response()

    serving.server(app, core.gate, core.telemetry.gate).run(sockets=[serving.bind(*settings.service.listen)])
    core.stores.close()
