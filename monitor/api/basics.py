"""What all routes share: how an error is told, and a body that can't make the process grow."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

MOST = (1 << 63) - 1  # of a number that the stores are asked about


def refusal(what: str, remedy: str, status: int = 422) -> JSONResponse:
    """An error as all routes tell it."""
    return JSONResponse({"error": what, "remedy": remedy}, status_code=status)


async def bounded(request: Request, limit: int) -> bytes | None:
    """The body, or None as soon as it is longer than ``limit``: no request makes the process grow."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)
