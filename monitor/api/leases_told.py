"""What OpenAPI says of the decide path, whose routes are bare ASGI and tell nothing of themselves."""

from __future__ import annotations

from typing import Any

from monitor.api.events_told import refused
from monitor.model import LABELS

_TEXT = {"type": "string"}
_LABELS = [{"name": name, "in": "query", "schema": {"type": "string", "maxLength": 200}} for name in LABELS]
_KEY = {"name": "key", "in": "query", "description": "What names the message.", "schema": {"type": "string"}}
_SCOPE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {name: {"type": "string", "maxLength": 200} for name in (*LABELS, "key")},
}
_ANSWER = {"description": "Held or send, and why.", "content": {"application/json": {"schema": {"type": "object"}}}}
_ERRORS = {"400": refused("The question is none."), "422": refused("The question is none.")}
PATHS: dict[str, Any] = {
    "/v1/check": {
        "get": {
            "tags": ["brake"],
            "summary": "May a message with these labels go?",
            "parameters": [*_LABELS, _KEY],
            "responses": {"200": _ANSWER, **_ERRORS},
        },
        "post": {
            "tags": ["brake"],
            "summary": "The same for up to a thousand messages.",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["scopes"],
                            "properties": {"scopes": {"type": "array", "maxItems": 1000, "items": _SCOPE}},
                        }
                    }
                },
            },
            "responses": {
                "200": _ANSWER,
                **_ERRORS,
                "408": refused("The body did not arrive in time."),
                "413": refused("The body is too large."),
                "503": refused("No room for the body now."),
            },
        },
    },
    "/v1/leases": {
        "get": {
            "tags": ["brake"],
            "summary": "The leases in force; with If-None-Match and wait it answers when they change.",
            "parameters": [
                {"name": "wait", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 60}},
                {"name": "If-None-Match", "in": "header", "schema": _TEXT},
            ],
            "responses": {
                "200": {
                    "description": "The set.",
                    "content": {
                        "application/json": {"schema": {"type": "object"}},
                        "text/event-stream": {"schema": _TEXT},
                    },
                },
                "304": {"description": "It has not changed."},
                "422": refused("The question is none."),
                "503": refused("The ledger was not read yet."),
            },
        }
    },
    "/v1/leases/stream": {
        "get": {
            "tags": ["brake"],
            "summary": "The set, then each change of it, as server-sent events.",
            "parameters": [{"name": "Last-Event-ID", "in": "header", "schema": _TEXT}],
            "responses": {
                "200": {"description": "Events.", "content": {"text/event-stream": {"schema": _TEXT}}},
                "503": refused("The ledger was not read yet."),
            },
        }
    },
}
