"""The one at the door of every route: who asks, whether that one may, and how often; then the route, then a note.

It stands around the whole application, so that no route can be reached past it (ADR 20).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.access.doorkeeper import NOBODY, Doorkeeper, Shown, Wrong
from monitor.access.limits import Limits, network
from monitor.access.noting import Use
from monitor.api.access import CALLER, NOTED
from monitor.api.basics import refusal
from monitor.api.doors import Door, Doors
from monitor.caller import Caller, Right, Way
from monitor.ledger.sessions import Session
from monitor.telemetry import GateMetrics

SAFE = ("GET", "HEAD")
# An answer of ours is data: nothing of it is to run, to be framed, to be kept or to be guessed at.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# What senders read by the thousand, and no browser shows: each header more is paid with every answer.
QUICK_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_CACHE = b"cache-control"
SHED = 0.1  # seconds that a request over its rate waits for its refusal: one connection can't ask for more of them
_HTTPS_ONLY = "max-age=31536000"


class Guard:
    """The middleware. ``note`` takes each use; it must be quick."""

    def __init__(
        self,
        app: ASGIApp,
        doors: Doors,
        keeper: Doorkeeper,
        limits: Limits,
        metrics: GateMetrics,
        note: Callable[[Use], None] | None = None,
        *,
        https: bool = False,
    ) -> None:
        self._app, self._doors, self._keeper, self._limits = app, doors, keeper, limits
        self._metrics, self._note = metrics, note
        more = {"Strict-Transport-Security": _HTTPS_ONLY} if https else {}
        self._plain, self._quick = _raw(HEADERS | more), _raw(QUICK_HEADERS | more)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        found = self._doors.find(method, path)
        headers = self._quick if found and found[1].quick else self._plain
        use = _Used(headers, send, keep=path.startswith("/static/"))
        if found is None:
            await self._absent(method, path)(scope, receive, use.send)
            return
        route, door = found
        address = network(scope["client"][0]) if scope.get("client") else ""
        caller = NOBODY
        try:
            caller, refused = self._known(scope, door, address)
            if refused is None:
                refused = self._may(caller, door)
            if refused is not None:
                if refused.reason == "rate":
                    await asyncio.sleep(SHED)
                await self._turned_away(refused, scope)(scope, receive, use.send)
            elif door.quick:
                scope[CALLER] = caller
                await self._app(scope, receive, use.send)
            else:
                await self._let_in(caller, address, scope, receive, use)
        finally:
            if self._note and (door.right is not None or use.status in (401, 403, 429)):
                on = scope.get(NOTED, path if "{" in route else "")
                who = address if caller.way is Way.ANONYMOUS and use.status >= 400 else ""
                self._note(Use(caller.name, f"{method} {route}", on or who, str(use.status or "cut off"), door.noted))

    def _known(self, scope: Scope, door: Door, address: str) -> tuple[Caller, _Refusal | None]:
        """Who asks; or why it is not asked further."""
        shown = Shown.of(scope["headers"])
        if shown.authorization and (seconds := self._limits.locked(address)):
            return NOBODY, _later("lock", "too many wrong keys came from this address", seconds)
        try:
            caller, session = self._keeper.caller(shown)
        except Wrong:
            self._limits.wrong(address)
            return NOBODY, _UNKNOWN
        known = caller.way is not Way.ANONYMOUS
        pace = caller.name if known else f"anonymous {address}"
        granted = known or (door.right is not None and door.opens(caller))
        if caller.way is not Way.MACHINE and (
            seconds := self._limits.asked(pace, known=granted, check=granted and door.quick)
        ):
            return caller, _later("rate", "these are more requests than one caller may make", seconds)
        if caller.way in (Way.PERSON, Way.ANONYMOUS) and scope["method"] not in SAFE:
            return caller, _from_elsewhere(Headers(scope=scope), session)
        return caller, None

    def _may(self, caller: Caller, door: Door) -> _Refusal | None:
        if door.right is None:
            return None
        nobody = caller.way is Way.ANONYMOUS
        if (door.named and nobody) or not door.opens(caller):
            return _NO_KEY if nobody else _short(door.right)
        if caller.tenant and not door.own:
            return _NOT_YOURS
        return None

    async def _let_in(self, caller: Caller, address: str, scope: Scope, receive: Receive, use: _Used) -> None:
        who = f"anonymous {address}" if caller.way is Way.ANONYMOUS else caller.name
        with self._limits.under_way(who) as may:
            if may:
                scope[CALLER] = caller
                await self._app(scope, receive, use.send)
            else:
                busy = _later("at once", "too many requests of this caller are under way", 1)
                await self._turned_away(busy, scope)(scope, receive, use.send)

    def _turned_away(self, why: _Refusal, scope: Scope) -> Response:
        self._metrics.refused.labels("http", why.reason).inc()
        if why.status == 401 and scope["path"] == "/":
            query = scope["query_string"].decode("latin-1")
            there = quote("/" + (f"?{query}" if query else ""), safe="")
            return RedirectResponse(f"/login?next={there}", 303)
        told = refusal(why.what, why.remedy, why.status)
        told.headers.update(why.headers)
        return told

    def _absent(self, method: str, path: str) -> Response:
        if methods := self._doors.methods(path):
            remedy = "take a method that the header Allow names; see /openapi.json"
            told = refusal(f"{method[:20]} can't be done here", remedy, 405)
            told.headers["Allow"] = ", ".join(methods)
            return told
        return refusal("nothing is here", "see /openapi.json for what may be asked", 404)


class _Used:
    """The way of an answer, which gets our headers and leaves its status."""

    def __init__(self, headers: list[tuple[bytes, bytes]], send: Send, *, keep: bool) -> None:
        self._headers, self._send, self._keep = headers, send, keep
        self.status = 0

    async def send(self, message: Message) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            told = [*message["headers"], *self._headers]
            # Modules of two versions must not meet in a browser.
            if self._keep or not any(name == _CACHE for name, _ in told):
                told.append((_CACHE, b"no-cache" if self._keep else b"no-store"))
            message["headers"] = told
        await self._send(message)


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str  # for the metric
    status: int
    what: str
    remedy: str
    headers: Mapping[str, str]


_BEARER = {"WWW-Authenticate": "Bearer"}
_SIGN_IN = "send Authorization: Bearer with a key (mailvane keys add), or sign in at /login"
_UNKNOWN = _Refusal(
    "key", 401, "no such key is in force", _SIGN_IN, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
)
_NO_KEY = _Refusal("no key", 401, "this is for callers with a key", _SIGN_IN, _BEARER)
_NOT_YOURS = _Refusal(
    "tenant",
    403,
    "a seller's key does not open this",
    "see GET /v1/me for what it tells; ask the operator for more",
    {},
)
_ELSEWHERE = _Refusal(
    "csrf", 403, "the request does not come from our own page", "send X-CSRF-Token as GET /v1/me tells it", {}
)


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _short(right: Right) -> _Refusal:
    remedy = f"ask an admin for the scope {right}"
    more = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{right}"'}
    return _Refusal("scope", 403, f"this needs the scope {right}", remedy, more)


def _later(reason: str, what: str, seconds: int) -> _Refusal:
    return _Refusal(reason, 429, what, f"ask again in {seconds} s", {"Retry-After": str(seconds)})


def _from_elsewhere(headers: Headers, session: Session | None) -> _Refusal | None:
    """Whether a page of somebody else's may have sent what a browser was signed in, or allowed, to send."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return _ELSEWHERE
    origin = headers.get("origin")
    if origin and urlsplit(origin).netloc != headers.get("host", ""):
        return _ELSEWHERE
    if session and not hmac.compare_digest(headers.get("x-csrf-token", "").encode(), session.csrf.encode()):
        return _ELSEWHERE
    return None
