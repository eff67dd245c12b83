"""The HTTP service: one resource a file, put together here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from monitor.api import check, events, hand, health, look
from monitor.service import VERSION, Core

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
    app.include_router(check.router(core.gate, core.telemetry))
    app.include_router(events.router(core))
    app.include_router(hand.router(core))
    app.include_router(look.router(core, demo=demo))
    app.include_router(health.router(core))
    page = Path(str(files("dashboards").joinpath("page")))
    app.mount("/static", StaticFiles(directory=page), name="static")

    @app.get("/", include_in_schema=False)
    async def now() -> FileResponse:
        return FileResponse(page / "index.html", headers={"Cache-Control": "no-cache"})

    @app.middleware("http")
    async def guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call(request)
        response.headers.update(HEADERS)
        if request.url.path.startswith("/static/"):
            response.headers["Cache-Control"] = "no-cache"  # modules of two versions must not meet in a browser
        return response

    return app
