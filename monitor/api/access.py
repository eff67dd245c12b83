"""What a route knows of the one who asks: the guard has put it there before the route runs."""

from __future__ import annotations

from starlette.requests import Request

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
