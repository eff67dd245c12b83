"""``POST /v1/events``: facts told by other systems; answered when they are on disk. What users know: docs/ingest.md."""

from __future__ import annotations

import json
import logging
import re
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from collectors._decode import Checked
from monitor.api.access import caller_of
from monitor.api.answers import LONGEST_KEY, Another, Answer, Answers, Busy
from monitor.api.events_told import RESPONSES, TELLS, event
from monitor.api.intake import LARGE, SOON, Intake, Refused, later
from monitor.caller import Caller
from monitor.facts.prepare import SELLERS
from monitor.model import Rejected
from monitor.service import HTTP, Core
from monitor.spool import SpoolFull

log = logging.getLogger(__name__)

LINE_COUNT = 200_000  # of one request: each one that is bad costs an object
ARRAY_LIMIT = 4 << 20  # bytes; it is taken apart as a whole, and an element may be two bytes
SOME_LINES = 2_000  # that are checked where they arrive
SHOWN = 100  # rejected lines named in an answer; the count is always whole
SCHEMA_TYPE = "application/schema+json"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # how such a body begins, and no JSON does


def router(core: Core) -> APIRouter:
    """The routes of the receiver."""
    api = APIRouter(tags=["tell"])
    intake, answers = Intake(), Answers(core.clock)

    @api.post("/v1/events", status_code=202, responses=RESPONSES, openapi_extra=TELLS)
    async def take(request: Request) -> Response:
        """Take events, one a line or as an array; 202 when they are on disk, with those that could not be read."""
        caller = caller_of(request)
        try:
            async with intake.body(request) as body:
                _bounded(body)
                # To check a thousand lines takes less time than to hand them to a thread, and the thread's lock back.
                checked = core.checked(body, caller.tenant) if _quick(body) else None
                key = request.headers.get("Idempotency-Key")
                return await intake.run(_answered, core, answers, caller, key, body, checked)
        except Refused as refused:
            core.telemetry.refused.labels(refused.reason).inc()
            return refused.answer()

    @api.get("/v1/events/schema", responses={200: {"content": {SCHEMA_TYPE: {"schema": {"type": "object"}}}}})
    async def shape(request: Request) -> JSONResponse:
        """The JSON Schema of one event; as application/schema+json too, for who accepts that."""
        wanted = SCHEMA_TYPE if SCHEMA_TYPE in request.headers.get("Accept", "") else "application/json"
        told = {"$schema": "https://json-schema.org/draft/2020-12/schema", **event()}
        return JSONResponse(told, media_type=wanted)

    return api


def _quick(body: bytes) -> bool:
    """Whether it takes a few milliseconds to check, at worst: each bad line costs ten times a good one."""
    return len(body) <= LARGE and body.count(b"\n") <= SOME_LINES and body[:1] != b"["


def _bounded(body: bytes) -> None:
    """Refuse what would take much more memory than it has bytes, and what each of its bytes would be a bad line of."""
    if packing := next((name for start, name in _PACKED.items() if body.startswith(start)), ""):
        what = f"the body is packed by {packing}, and Content-Encoding does not say so"
        raise Refused("encoding", what, f"send Content-Encoding: {packing}", 415)
    if body.count(b"\n") > LINE_COUNT:
        raise Refused("large", f"the body is over {LINE_COUNT:,} lines", "send fewer lines in a request", 413)
    if len(body) > ARRAY_LIMIT and body[:64].lstrip()[:1] == b"[":
        raise Refused(
            "large", f"the array is over {ARRAY_LIMIT:,} bytes", "send a shorter one, or one event a line", 413
        )


def _answered(
    core: Core, answers: Answers, caller: Caller, key: str | None, body: bytes, checked: Checked | None
) -> Response:
    take = partial(_taken, core, tenant=caller.tenant, checked=checked)
    if key is None:
        return _response(take(body))
    if not 0 < len(key) <= LONGEST_KEY:
        what = f"Idempotency-Key has {len(key)} characters, and may have 1 to {LONGEST_KEY}"
        raise Refused("key", what, "send a UUID, a new one for each batch", 422)
    try:
        answer, again = answers.once((caller.name, caller.tenant, key), body, take)
    except Busy:
        what, remedy = "a request with this Idempotency-Key is being taken", "wait for its answer, or ask again"
        raise Refused("key", what, remedy, 409, {"Retry-After": str(SOON)}) from None
    except Another:
        what, remedy = "this Idempotency-Key came with another body", "send a new key with each batch"
        raise Refused("key", what, remedy, 422) from None
    response = _response(answer)
    if again:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _taken(core: Core, body: bytes, *, tenant: str, checked: Checked | None) -> Answer:
    checked = checked or core.checked(body, tenant)
    try:
        core.take_lines(SELLERS if tenant else HTTP, checked)
    except SpoolFull:
        raise later("spool", "the spool is full") from None
    except OSError as error:
        log.error("events not on disk", extra={"errno": error.errno})  # noqa: TRY400  # the number says it all
        raise later("disk", "the disk refuses", status=503) from error
    said = {
        "accepted": checked.count,
        "rejected": [_told(item) for item in checked.rejected[:SHOWN]],
        "rejected_count": len(checked.rejected),
    }
    return Answer(422 if checked.rejected and not checked.count else 202, json.dumps(said).encode())


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, media_type="application/json")


def _told(item: Rejected) -> dict[str, Any]:
    """``where`` and ``why`` in words, and the number of the line (or of the item) and the field apart."""
    field, _, _ = item.why.partition(":")
    unknown = _UNKNOWN.search(item.why)
    return {
        "where": item.where,
        "line": _number(item) or None,
        "field": unknown[1] if unknown else field if field in _FIELDS else None,
        "why": item.why,
    }


def _number(item: Rejected) -> int:
    number = item.where.rpartition(" ")[2]
    return int(number) if number.isdecimal() else 0


_FIELDS = frozenset(event()["properties"])
_UNKNOWN = re.compile(r"^event: Object contains unknown field `([^`]+)`")
