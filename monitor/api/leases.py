"""``/v1/leases``: the whole set, its changes as they come, and a question that waits for the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from monitor.api import sellers
from monitor.api.access import CALLER
from monitor.api.basics import refusal
from monitor.api.check import Check
from monitor.api.told import Told, head, pieces
from monitor.caller import Caller
from monitor.gate import Change, Gate, LeaseSet
from monitor.telemetry import GateMetrics

WAIT_LIMIT = 60  # seconds of one long-poll
ALIVE = 10  # seconds after which a stream without news shows that it lives
FRESH = 0.2  # seconds for which the text of a change is told again to others
MANY = 200  # leases of a set whose text is worth keeping
REUSED = timedelta(seconds=1)
AT_ONCE = 64 << 10  # bytes of an answer that is not sent piece by piece


def routes(gate: Gate, metrics: GateMetrics) -> list[BaseRoute]:
    """The routes of the decide path."""
    leases = Leases(gate, metrics)
    return [
        Route("/v1/check", Check(gate, metrics), methods=["GET", "POST"]),
        Route("/v1/leases", leases.whole, methods=["GET"]),
        Route("/v1/leases/stream", leases.stream, methods=["GET"]),
    ]


class _Stream(Response):
    """Server-sent events. Starlette's own stream has two tasks for each listener; this one looks at each event."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """ASGI."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})


class Leases:
    """The handlers around a gate."""

    def __init__(self, gate: Gate, metrics: GateMetrics) -> None:
        self._gate = gate
        self._metrics = metrics
        self._told = Told()
        self._sellers = Told(sellers.lease)
        self._whole = (-1.0, 0, b"")  # until when, generation, text
        self._news: tuple[float, Change | None, bytes] = (-1.0, None, b"")

    async def whole(self, request: Request) -> Response:
        """``GET /v1/leases``: the set. With ``If-None-Match`` and ``wait`` (seconds) it answers when it changes."""
        if "text/event-stream" in request.headers.get("accept", ""):
            return await self.stream(request)
        try:
            wait = float(request.query_params.get("wait", 0))
        except ValueError:
            wait = -1.0
        if not 0 <= wait <= WAIT_LIMIT:
            return refusal("wait is no time", f"wait 0 to {WAIT_LIMIT} seconds")
        if self._gate.read_at is None:
            return _unread()
        known = _generation(request.headers.get("if-none-match", ""))
        if wait and known == self._gate.generation:
            await self._gate.wait(known, wait)
        tenant = _tenant(request)
        number, text = self._own(tenant) if tenant else self._document()
        headers = {"ETag": f'"{number}"', "Cache-Control": "no-cache"}
        if known == number:
            return Response(status_code=304, headers=headers)
        if len(text) <= AT_ONCE:
            return _json(text, headers)
        headers["Content-Length"] = str(len(text))
        return StreamingResponse(_each(pieces(text)), media_type="application/json", headers=headers)

    async def stream(self, request: Request) -> Response:
        """``GET /v1/leases/stream``: the set, then each change, as server-sent events; resumes by Last-Event-ID."""
        if _tenant(request):
            return refusal("a seller's key does not open this", "ask GET /v1/leases without text/event-stream", 403)
        if self._gate.read_at is None:
            return _unread()
        known = _generation(request.headers.get("last-event-id", ""))
        return _Stream(self._events(request, known))

    async def _events(self, request: Request, known: int) -> AsyncIterator[bytes]:
        gate = self._gate
        with self._metrics.subscribers.track_inprogress():
            yield b"retry: 1000\n\n"
            while not gate.closed and not await request.is_disconnected():
                changes = gate.changes(known)
                if changes is None:
                    known, text = self._document()
                    yield head(b"set", known)
                    for piece in pieces(text):  # the text is everybody's: nobody holds a copy while it is sent
                        yield piece
                    yield b"\n\n"
                for change in changes or ():
                    known = change.generation
                    yield self._told_change(change)
                await gate.wait(known, ALIVE)
                if gate.generation == known:
                    yield b": alive\n\n"

    def _document(self) -> tuple[int, bytes]:
        """The generation and the whole set. One of many leases is told again for a second, since many ask at once."""
        until, number, text = self._whole
        if number != self._gate.generation or monotonic() > until:
            found = self._gate.current()
            reused = REUSED if len(found.leases) > MANY else timedelta(0)
            # Its ttl is right at the end of that second: a lease may seem to end early, and never late.
            number, text = found.generation, self._told.whole(found, self._gate.now + reused)
            self._whole = monotonic() + reused.total_seconds(), number, text
        return number, text

    def _own(self, tenant: str) -> tuple[int, bytes]:
        """The generation, and those leases that a seller is told of."""
        found = self._gate.current()
        mine = tuple(lease for lease in found.leases if sellers.sees(tenant, lease.scope))
        return found.generation, self._sellers.whole(LeaseSet(found.generation, mine), self._gate.now)

    def _told_change(self, change: Change) -> bytes:
        at, before, text = self._news
        if before is not change or monotonic() - at > FRESH:
            text = head(b"change", change.generation) + self._told.change(change, self._gate.now) + b"\n\n"
            self._news = monotonic(), change, text
        return text


def _tenant(request: Request) -> str:
    caller: Caller | None = request.scope.get(CALLER)
    return caller.tenant if caller else ""


def _unread() -> Response:
    # An empty set would make those who listen drop what they hold.
    return refusal("the ledger was not read yet", "keep what you know, and ask again", 503)


def _generation(text: str) -> int:
    """The generation that a header names; -1, which never is, where it names none."""
    number = text.strip().removeprefix("W/").strip('" ')
    return int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1


def _json(text: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(text, media_type="application/json", headers=headers)


async def _each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
