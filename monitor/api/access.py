"""Who may turn a key: the bearer token of the service."""

from __future__ import annotations

import hmac

from fastapi import Request
from fastapi.responses import JSONResponse

from monitor.service import Core


def unauthorized(core: Core, request: Request) -> JSONResponse | None:
    """The refusal for a request without the right bearer token (RFC 6750); None if it may pass."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), core.token.encode()):
        return None
    said = {"error": "no valid bearer token", "remedy": "send Authorization: Bearer, with the text of the token file"}
    return JSONResponse(said, status_code=401, headers={"WWW-Authenticate": "Bearer"})
