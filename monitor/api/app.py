"""The HTTP service: one resource a file, put together here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from monitor.access.limits import Limits
from monitor.api import (
    accesslog,
    approvals,
    attribution,
    batches,
    doors,
    events,
    hand,
    handover,
    health,
    keys,
    leases,
    leases_told,
    look,
    me,
    meanings,
    people,
    quarantine,
    refusals,
    search,
    series,
    session,
    suppressions,
    worst,
)
from monitor.api.described import describe
from monitor.api.guard import Guard
from monitor.service import Core
from monitor.telemetry import VERSION


def build(core: Core, *, demo: bool = False, closing: Callable[[], None] = lambda: None) -> FastAPI:
    """The application around a core, which it starts and stops with itself."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Here and not after the server's run(): it raises the signal again, and what follows would never happen.
        core.start()
        try:
            yield
        finally:
            closing()
            core.stop()

    app = FastAPI(title="Mailvane", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.routes.extend(leases.routes(core.gate, core.telemetry.gate))
    app.include_router(events.router(core))
    app.include_router(batches.router(core))
    app.include_router(hand.router(core))
    app.include_router(handover.router(core))
    app.include_router(look.router(core, demo=demo))
    for question in (
        series,
        worst,
        search,
        meanings,
        me,
        session,
        people,
        keys,
        approvals,
        quarantine,
        accesslog,
        attribution,
        suppressions,
    ):
        app.include_router(question.router(core))
    app.include_router(health.router(core))
    page = Path(str(files("dashboards").joinpath("page")))
    app.mount("/static", StaticFiles(directory=page), name="static")

    @app.get("/", include_in_schema=False)
    async def now() -> FileResponse:
        return FileResponse(page / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/login", include_in_schema=False)
    async def login() -> FileResponse:
        return FileResponse(page / "login.html", headers={"Cache-Control": "no-cache"})

    refusals.add_to(app)
    describe(app, doors.CORE, leases_told.PATHS)
    app.add_middleware(
        Guard,
        doors=doors.Doors(doors.CORE),
        keeper=core.keeper,
        limits=Limits(core.settings.access),
        metrics=core.telemetry.gate,
        note=core.noted,
        https=core.settings.service.tls_cert is not None,
    )
    return app
