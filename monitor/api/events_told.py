"""What OpenAPI says of ``POST /v1/events``. Told by hand: models would cost each event more than all the rest of it."""

from __future__ import annotations

from typing import Any

from collectors._unpack import ENCODINGS
from collectors.events import schema
from monitor.api.answers import LONGEST_KEY
from monitor.model import OWNED

_TEXT = {"type": "string"}
_NUMBER = {"type": ["integer", "null"]}
_EXAMPLE = (
    '{"kind": "sent", "at": "2026-11-24T10:00:00Z", "message_id": "<m1@shop.example>", "tenant": "s07"}\n'
    '{"kind": "bounced", "at": "2026-11-24T10:00:02Z", "message_id": "<m2@shop.example>", "dsn": "5.1.1"}\n'
)
TAKEN: dict[str, Any] = {
    "type": "object",
    "required": ["accepted", "rejected", "rejected_count"],
    "properties": {
        "accepted": {"type": "integer", "description": "Events that are on disk; one told before counts once."},
        "rejected_count": {"type": "integer"},
        "rejected": {
            "type": "array",
            "description": "The first hundred that could not be read.",
            "items": {
                "type": "object",
                "properties": {"where": _TEXT, "line": _NUMBER, "field": {"type": ["string", "null"]}, "why": _TEXT},
            },
        },
    },
}
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error", "remedy"],
    "properties": {"error": _TEXT, "remedy": _TEXT},
}
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def refused(why: str, **more: Any) -> dict[str, Any]:
    """A response of OpenAPI that tells an error."""
    return {"description": why, "content": {"application/json": {"schema": ERROR}}, **more}


def event() -> dict[str, Any]:
    """The JSON Schema of one event, with what its types alone don't say."""
    shape = schema()
    return {
        **shape["$defs"]["Event"],
        "anyOf": [{"required": ["message_id"]}, {"required": ["id"]}],
        "dependentRequired": {label: ["tenant"] for label in OWNED},
    }


RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "What could be read is on disk.",
        "content": {"application/json": {"schema": TAKEN}},
        "headers": {"Idempotent-Replayed": {"description": "true: the answer to an earlier request.", "schema": _TEXT}},
    },
    400: refused("The body is not whole in its encoding."),
    408: refused("The body did not arrive in time."),
    409: refused("A request with this Idempotency-Key is being taken.", headers=_RETRY),
    413: refused("The body is too large."),
    415: refused("The encoding is not known, or the body is a form."),
    422: {
        "description": "No event could be read, or the Idempotency-Key came with another body.",
        "content": {"application/json": {"schema": {"anyOf": [TAKEN, ERROR]}}},
    },
    429: refused("There is no room now, in memory or on disk; nothing was lost.", headers=_RETRY),
    503: refused("The disk refuses.", headers=_RETRY),
}
TELLS: dict[str, Any] = {
    "parameters": [
        {
            "name": "Content-Encoding",
            "in": "header",
            "schema": {"type": "string", "enum": ["identity", *ENCODINGS]},
        },
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key with the same body is answered as it was the first time, for 24 hours.",
            "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
        },
    ],
    "requestBody": {
        "content": {
            "application/x-ndjson": {"schema": _TEXT, "example": _EXAMPLE},
            "application/json": {"schema": {"type": "array", "items": event()}},
        }
    },
}
