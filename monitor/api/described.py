"""The description of the API (OpenAPI), with what each route asks of its caller; the doors are where it is from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from monitor.access.sessions import COOKIE
from monitor.api.doors import Door
from monitor.api.events_told import refused

RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_WAYS = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key: mailvane keys add."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "A person, signed in at /login."},
}
_REFUSALS: Mapping[str, Any] = {
    "401": refused("No key that is in force."),
    "403": refused("The key has not the scope, or is a seller's and the route is not for sellers."),
    "429": refused("More requests than one caller may make.", headers=RETRY),
}


def describe(app: FastAPI, doors: Mapping[tuple[str, str], Door], beside: Mapping[str, Any]) -> None:
    """Let the application's description say the scopes; ``beside``: paths that it does not know by itself."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = plain()
            told["paths"] |= beside
            told.setdefault("components", {})["securitySchemes"] = _WAYS
            for path, operations in told["paths"].items():
                for method, operation in operations.items():
                    _say(operation, doors.get((method.upper(), path)))
            app.openapi_schema = told
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation has it


def _say(operation: dict[str, Any], door: Door | None) -> None:
    if door is None:
        return  # shut, and a test fails
    if door.right is None:
        operation["security"] = []
        return
    operation["security"] = [{way: [str(door.right)]} for way in _WAYS]
    operation["x-scope"] = str(door.right)
    operation["x-sellers"] = door.own
    operation["responses"] = {**_REFUSALS, **operation.get("responses", {})}
