"""``/v1/check`` and ``/v1/leases``: what the sending infrastructure asks, on its hot path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from monitor.api import words
from monitor.core.leases import Answer
from monitor.gate import Gate
from monitor.model import LABELS, Deed, Scope
from monitor.telemetry import Telemetry

LABEL_LIMIT = 200  # characters; a longer name is no label
WAIT_LIMIT = 60  # seconds of one long-poll


def router(gate: Gate, telemetry: Telemetry) -> APIRouter:
    """The routes of the decide path."""
    api = APIRouter(tags=["ask"])

    @api.get("/v1/check")
    async def check(request: Request) -> Response:
        """Whether a message with these labels may be sent; `key` names the message (same key, same answer)."""
        with telemetry.check_duration.time():
            asked = question(request.query_params)
            if isinstance(asked, Response):
                return asked
            scope, key = asked
            said = answered(gate, scope, key)
        telemetry.checks.labels(said["answer"]).inc()
        return JSONResponse(said)

    @api.get("/v1/leases")
    async def leases(
        if_none_match: Annotated[str, Header()] = "", wait: Annotated[float, Query(ge=0, le=WAIT_LIMIT)] = 0
    ) -> Response:
        """The leases in force. With `If-None-Match` and `wait` (seconds) it answers when they change."""
        known = if_none_match.removeprefix("W/").strip('" ')
        found = gate.current()
        if wait and known == str(found.generation):
            found = await gate.wait(found.generation, wait)
        headers = {"ETag": f'"{found.generation}"', "Cache-Control": "no-cache"}
        if known == str(found.generation):
            return Response(status_code=304, headers=headers)
        return JSONResponse(words.lease_set(found, gate.now), headers=headers)

    return api


def question(params: Mapping[str, str]) -> tuple[Scope, str] | Response:
    """The labels and the key that were asked about, or the refusal that names what is wrong."""
    unknown = [name for name in params if name not in LABELS and name != "key"]
    if unknown:
        return refusal(f"unknown labels: {', '.join(sorted(unknown))[:300]}", f"known are {', '.join(LABELS)}, and key")
    long = [name for name, value in params.items() if len(value) > LABEL_LIMIT]
    if long:
        return refusal(f"too long: {', '.join(long)}", f"a label has at most {LABEL_LIMIT} characters")
    try:
        return Scope(**{name: value for name, value in params.items() if name != "key"}), params.get("key", "")
    except ValueError as error:
        return refusal(str(error), "add tenant=…")


def refusal(what: str, remedy: str, status: int = 422) -> JSONResponse:
    """An error as all routes tell it."""
    return JSONResponse({"error": what, "remedy": remedy}, status_code=status)


def answered(gate: Gate, scope: Scope, key: str) -> dict[str, Any]:
    """The answer to one question."""
    said = gate.check(scope, key)
    found = said.lease
    now = gate.now
    return {
        "answer": "held" if said.held else "send",
        "generation": gate.generation,
        "lease": words.lease(found, now) if found else None,
        "until": words.stamp(found.until) if found else None,
        "ttl": max(0.0, round((found.until - now).total_seconds(), 3)) if found else None,
        "share": _share(said),
        "pool": found.pool if found and found.deed is Deed.REROUTE else "",
    }


def _share(said: Answer) -> float:
    if said.lease is None or said.lease.deed in (Deed.ALLOW, Deed.REROUTE):
        return 1.0
    return said.lease.share if said.lease.deed is Deed.THROTTLE else 0.0
