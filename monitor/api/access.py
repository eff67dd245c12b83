"""What a route knows of the one who asks: the guard has put it there before the route runs."""

from __future__ import annotations

import hmac
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from monitor.caller import Caller

CALLER = "mailvane.caller"  # in the scope of a request
NOTED = "mailvane.on"


def caller_of(request: Request) -> Caller:
    """Who asks; it may do what the route's door says."""
    caller: Caller = request.scope[CALLER]
    return caller


def note_on(request: Request, what: str) -> None:
    """Say to the access log which thing of many the request is about, where its path does not; no address."""
    request.scope[NOTED] = what[:200]


def unauthorized(core: Any, request: Request) -> JSONResponse | None:
    """The refusal for a request without the right bearer token (RFC 6750); None if it may pass."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    token = core.token if isinstance(core.token, str) else core.token.get_secret_value()
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return None
    said = {"error": "no valid bearer token", "remedy": "send Authorization: Bearer, with the text of the token file"}
    return JSONResponse(said, status_code=401, headers={"WWW-Authenticate": "Bearer"})
