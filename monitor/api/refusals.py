"""How questions are refused: each in words with a remedy, whatever was wrong; nothing that was asked stands in them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from monitor.api.asked import Unclear
from monitor.api.basics import refusal
from monitor.api.events_told import refused
from monitor.facts.errors import FactsBusy, FactsError
from monitor.scrub import scrub

log = logging.getLogger(__name__)

_TIME, _MEMORY = 159, 241
_TOO_MUCH = {158, _TIME, _MEMORY, 307, 396}  # rows, time, memory, bytes, result
_AGAIN = "2"  # seconds
_SEE = "see /openapi.json for what may be asked"
_ABSENT = {
    404: ("nothing is here", _SEE),
    405: ("this can't be done here", "take a method that the header Allow names; see /openapi.json"),
}
REFUSED: dict[int | str, dict[str, Any]] = {
    422: refused("The question makes no sense, or its answer would be too large; the remedy says what to change."),
    503: refused("The facts are busy or not readable now.", headers={"Retry-After": {"schema": {"type": "integer"}}}),
}


def add_to(app: FastAPI) -> None:
    """Let all routes of the application refuse alike."""

    @app.exception_handler(Unclear)
    def unclear(_request: Request, error: Unclear) -> Response:
        return refusal(error.what, error.remedy, error.status)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = error.errors()[0]
        if wrong["type"] == "extra_forbidden" and wrong["loc"][0] == "query":
            what = f"{scrub(str(wrong['loc'][-1]), 60)}: no such parameter"
            return refusal(what, f"there are {', '.join(_parameters(app, request))}")
        return refusal(first(error.errors(), skip=1), _SEE)

    @app.exception_handler(HTTPException)
    def absent(_request: Request, error: HTTPException) -> Response:
        told = refusal(*_ABSENT.get(error.status_code, (str(error.detail), _SEE)), error.status_code)
        told.headers.update(error.headers or {})
        return told

    @app.exception_handler(FactsBusy)
    def busy(_request: Request, _error: FactsBusy) -> Response:
        return _later("the facts are busy with other questions")

    @app.exception_handler(FactsError)
    def failed(_request: Request, error: FactsError) -> Response:
        if error.code in _TOO_MUCH:
            what = "the answer takes too long or is too large"
            return refusal(what, "ask for a shorter window, for fewer labels, or for a narrower part of the mail")
        log.error("facts not readable", extra={"code": error.code, "error": str(error)[:500]})
        return _later("the facts can't be read now")


def first(errors: Sequence[Any], *, skip: int = 0) -> str:
    """The first mistake in words; what was written is left out, since it may be somebody's address."""
    where = scrub(".".join(str(part) for part in errors[0]["loc"][skip:]), 60)
    return f"{where or 'request'}: {errors[0]['msg'].removeprefix('Value error, ')}"


def _parameters(app: FastAPI, request: Request) -> list[str]:
    """The names that the route of this request takes in its query."""
    told = app.openapi()["paths"].get(request.scope["route"].path, {}).get(request.method.lower(), {})
    return [one["name"] for one in told.get("parameters", ()) if one["in"] == "query"]


def _later(what: str) -> Response:
    told = refusal(what, "ask again soon", 503)
    told.headers["Retry-After"] = _AGAIN
    return told
