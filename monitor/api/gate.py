"""The gate's own application: the decide path, its health and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.api import leases
from monitor.api.access import caller_of
from monitor.api.check import Check
from monitor.gate import Gate
from monitor.telemetry import GateMetrics

STALE = timedelta(seconds=30)  # without a look into the ledger: pauses and resumes since are not known

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def build(gate: Gate, metrics: GateMetrics, errors: Mapping[str, str], lifespan: Lifespan | None = None) -> ASGIApp:
    """The application around a gate; ``errors`` are the tiers that can't be served, by name."""

    async def alive(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        wrong = {f"actuator.{name}": why for name, why in errors.items()}
        if gate.read_at is None:
            wrong["ledger"] = "was not read yet: nothing is held"
        elif gate.now - gate.read_at > STALE:
            wrong["ledger"] = f"was last read at {gate.read_at:%H:%M:%S} UTC: leases go on to their ends"
        said: dict[str, Any] = {"status": "degraded" if wrong else "ready"}
        if caller_of(request).sees_all:
            said["errors"] = wrong
        return JSONResponse(said, status_code=503 if wrong else 200)

    async def measured(_request: Request) -> Response:
        metrics.measure(gate.current().leases, gate.read_at)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    own = [Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", measured)]
    check = Check(gate, metrics)
    rest = Starlette(routes=[*leases.routes(gate, metrics), *own], lifespan=lifespan)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        # What is asked most goes by no router.
        asked = scope["type"] == "http" and scope["path"] == "/v1/check" and scope["method"] in ("GET", "POST")
        await (check if asked else rest)(scope, receive, send)

    return application
