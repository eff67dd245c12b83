"""The HTTP service: one resource a file, put together here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.api import batches, events, hand, handover, health, leases, look, refusals, search, series, worst
from monitor.service import Core
from monitor.telemetry import VERSION

# The page holds no inline script or style, loads from here only, and may stand in nobody's frame.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


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
    for question in (series, worst, search):
        app.include_router(question.router(core))
    app.include_router(health.router(core))
    page = Path(str(files("dashboards").joinpath("page")))
    app.mount("/static", StaticFiles(directory=page), name="static")

    @app.get("/", include_in_schema=False)
    async def now() -> FileResponse:
        return FileResponse(page / "index.html", headers={"Cache-Control": "no-cache"})

    refusals.add_to(app)
    app.add_middleware(Headers)
    return app


class Headers:
    """Adds the headers to each answer. Starlette's own wrapper would cost each question a task and a queue."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Modules of two versions must not meet in a browser.
        more = {**HEADERS, "Cache-Control": "no-cache"} if scope["path"].startswith("/static/") else HEADERS

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(more)
            await send(message)

        await self._app(scope, receive, with_headers)
