"""``/v1/check`` and ``/v1/leases``: what the sending infrastructure asks, on its hot path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from operator import attrgetter
from time import monotonic, perf_counter
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from monitor.api.basics import bounded, refusal
from monitor.api.told import FREE, Told, event, pieces
from monitor.core.leases import decided
from monitor.gate import Change, Gate
from monitor.model import LABELS, OWNED
from monitor.telemetry import GateMetrics

LABEL_LIMIT = 200  # characters; a longer name is no label
KEY_LIMIT = 1000
BATCH_LIMIT = 1000  # scopes of one question
BODY_LIMIT = 1 << 20
BODIES = 64 << 20  # bytes of bodies that are on their way at a time
PATIENCE = 5  # seconds for a body to arrive
WAIT_LIMIT = 60  # seconds of one long-poll
ALIVE = 10  # seconds after which a stream without news shows that it lives
FRESH = 0.2  # seconds for which a text with ttl in it is told again to others

_Label = Annotated[str, msgspec.Meta(max_length=LABEL_LIMIT)]
_Names = tuple[str, ...]


class Ask(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One question: the labels of a message as far as they are known, and a key that names it."""

    ip: _Label = ""
    domain: _Label = ""
    provider: _Label = ""
    stream: _Label = ""
    tenant: _Label = ""
    segment: _Label = ""
    campaign: _Label = ""
    variant: _Label = ""
    region: _Label = ""
    key: Annotated[str, msgspec.Meta(max_length=KEY_LIMIT)] = ""


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    scopes: list[Ask]


class _Raw(msgspec.Struct, forbid_unknown_fields=True):
    scopes: list[msgspec.Raw]


_names = attrgetter(*LABELS)
_asked = msgspec.json.Decoder(_Asked)
_raw = msgspec.json.Decoder(_Raw)
_ask = msgspec.json.Decoder(Ask)
_TENANT = LABELS.index("tenant")
_THEIRS = [(LABELS.index(name), name) for name in OWNED]


def routes(gate: Gate, metrics: GateMetrics) -> list[BaseRoute]:
    """The routes of the decide path."""
    asking = Asking(gate, metrics)
    return [
        Route("/v1/check", asking.one, methods=["GET"]),
        Route("/v1/check", asking.many, methods=["POST"]),
        Route("/v1/leases", asking.leases, methods=["GET"]),
        Route("/v1/leases/stream", asking.stream, methods=["GET"]),
    ]


class Asking:
    """The handlers around a gate."""

    def __init__(self, gate: Gate, metrics: GateMetrics) -> None:
        self._gate = gate
        self._metrics = metrics
        self._told = Told()
        self._bodies = 0
        self._whole = (-1.0, 0, b"")  # when, generation, text
        self._news: tuple[float, Change | None, bytes] = (-1.0, None, b"")

    async def one(self, request: Request) -> Response:
        """``GET /v1/check?tenant=…&key=…``: whether a message with these labels may be sent."""
        began = perf_counter()
        params = request.query_params
        if wrong := _wrong(params.multi_items()):
            return refusal(*wrong)
        names = tuple([params.get(label, "") for label in LABELS])
        if orphan := _orphan(names):
            return refusal(*orphan)
        held, text = self._answer(names, params.get("key", ""), self._gate.now, {})
        self._metrics.answered(perf_counter() - began, held=int(held), asked=1)
        return _json(b'{"generation":%d,%b' % (self._gate.generation, text))

    async def many(self, request: Request) -> Response:
        """``POST /v1/check`` with ``{"scopes": [{labels, "key"}, …]}``: an answer for each, in order."""
        size = int(request.headers.get("content-length", "0") or 0)
        if size > BODY_LIMIT:
            return refusal(f"the body is over {BODY_LIMIT} bytes", f"ask for {BATCH_LIMIT} scopes at a time", 413)
        reserved = size or BODY_LIMIT  # none is told where the body comes in chunks
        if self._bodies + reserved > BODIES:
            return refusal("too many questions at once", "send the mail, or ask again", 503)
        self._bodies += reserved
        try:
            async with asyncio.timeout(PATIENCE):
                body = await bounded(request, BODY_LIMIT)
        except TimeoutError:
            return refusal(f"the body did not arrive within {PATIENCE} s", "send the mail, or ask again", 408)
        finally:
            self._bodies -= reserved
        if body is None:
            return refusal(f"the body is over {BODY_LIMIT} bytes", f"ask for {BATCH_LIMIT} scopes at a time", 413)
        return self._batch(body)

    def _batch(self, body: bytes) -> Response:
        began = perf_counter()
        try:
            asks: list[Ask | tuple[str, str]] = [*_read(body)]
        except (msgspec.MsgspecError, RecursionError) as error:
            return refusal(f"the body can't be read: {error}"[:300], 'send {"scopes": [{"tenant": "…"}, …]}')
        if len(asks) > BATCH_LIMIT:
            return refusal(f"{len(asks)} scopes in one question", f"ask for {BATCH_LIMIT} at a time", 413)
        now, held = self._gate.now, 0
        same: dict[tuple[str, bool], bytes] = {}
        texts: list[bytes] = []
        for ask in asks:
            if isinstance(ask, tuple):
                texts.append(_error(ask))
                continue
            names = _names(ask)
            if orphan := not names[_TENANT] and _orphan(names):
                texts.append(_error(orphan))
                continue
            is_held, text = self._answer(names, ask.key, now, same)
            held += is_held
            texts.append(text)
        self._metrics.answered(perf_counter() - began, held=held, asked=len(asks))
        answers = b"{" + b",{".join(texts) if texts else b""
        return _json(b'{"generation":%d,"answers":[%b]}' % (self._gate.generation, answers))

    def _answer(
        self, names: _Names, key: str, now: datetime, same: dict[tuple[str, bool], bytes]
    ) -> tuple[bool, bytes]:
        """Whether it is held, and the answer without its opening brace; ``same`` remembers texts of one request."""
        for lease in self._gate.covering(names):
            if lease.until > now:
                held = decided(lease, key).held
                text = same.get((lease.id, held))
                if text is None:
                    text = same[lease.id, held] = self._told.answer(lease, now, held=held)
                return held, text
        return False, FREE

    async def leases(self, request: Request) -> Response:
        """``GET /v1/leases``: the set. With ``If-None-Match`` and ``wait`` (seconds) it answers when it changes."""
        try:
            wait = float(request.query_params.get("wait", 0))
        except ValueError:
            wait = -1.0
        if not 0 <= wait <= WAIT_LIMIT:
            return refusal("wait is no time", f"wait 0 to {WAIT_LIMIT} seconds")
        known = _generation(request.headers.get("if-none-match", ""))
        if wait and known == self._gate.generation:
            await self._gate.wait(known, wait)
        number, text = self._document()
        headers = {"ETag": f'"{number}"', "Cache-Control": "no-cache"}
        if known == number:
            return Response(status_code=304, headers=headers)
        if len(text) <= 64 << 10:
            return _json(text, headers)
        headers["Content-Length"] = str(len(text))
        return StreamingResponse(_each(pieces(text)), media_type="application/json", headers=headers)

    async def stream(self, request: Request) -> Response:
        """``GET /v1/leases/stream``: the set, then each change, as server-sent events; resumes by Last-Event-ID."""
        known = _generation(request.headers.get("last-event-id", ""))
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(known), media_type="text/event-stream", headers=headers)

    async def _events(self, known: int) -> AsyncIterator[bytes]:
        gate = self._gate
        with self._metrics.subscribers.track_inprogress():
            yield b"retry: 1000\n\n"
            while not gate.closed:
                changes = gate.changes(known)
                if changes is None:
                    known, text = self._document()
                    for piece in pieces(event(b"set", known, text)):
                        yield piece
                for change in changes or ():
                    known = change.generation
                    yield self._told_change(change)
                await gate.wait(known, ALIVE)
                if gate.generation == known:
                    yield b": alive\n\n"

    def _document(self) -> tuple[int, bytes]:
        """The generation and the whole set: told again while it is fresh, since many ask at the same moment."""
        at, number, text = self._whole
        if number != self._gate.generation or monotonic() - at > FRESH:
            found = self._gate.current()
            number, text = found.generation, self._told.whole(found, self._gate.now)
            self._whole = monotonic(), number, text
        return number, text

    def _told_change(self, change: Change) -> bytes:
        at, before, text = self._news
        if before is not change or monotonic() - at > FRESH:
            text = event(b"change", change.generation, self._told.change(change, self._gate.now))
            self._news = monotonic(), change, text
        return text


def _read(body: bytes) -> Iterable[Ask | tuple[str, str]]:
    """The questions; in the place of one that can't be read what is wrong with it, and the remedy.

    Raises:
        msgspec.MsgspecError: the body is no list of questions.
    """
    try:
        return _asked.decode(body).scopes
    except (msgspec.ValidationError, RecursionError):
        return [_read_one(item) for item in _raw.decode(body).scopes]


def _read_one(item: msgspec.Raw) -> Ask | tuple[str, str]:
    try:
        return _ask.decode(item)
    except (msgspec.MsgspecError, RecursionError) as error:
        return f"{error}"[
            :300
        ], f"known are {', '.join(LABELS)}, and key; each a text of at most {LABEL_LIMIT} characters"


def _wrong(params: list[tuple[str, str]]) -> tuple[str, str] | None:
    names = [name for name, _ in params]
    if unknown := [name for name in names if name != "key" and name not in LABELS]:
        return f"unknown labels: {', '.join(sorted(unknown))[:300]}", f"known are {', '.join(LABELS)}, and key"
    if len(set(names)) < len(names):
        return "a label is named twice", "ask about one message at a time, or POST a batch"
    if long := [name for name, value in params if len(value) > (KEY_LIMIT if name == "key" else LABEL_LIMIT)]:
        return f"too long: {', '.join(long)}", f"a label has at most {LABEL_LIMIT} characters, a key {KEY_LIMIT}"
    return None


def _orphan(names: _Names) -> tuple[str, str] | None:
    if names[_TENANT]:
        return None
    found = next((name for place, name in _THEIRS if names[place]), "")
    return (f"{found} without tenant: sellers choose these names, so say whose it is", "add tenant") if found else None


def _error(wrong: tuple[str, str]) -> bytes:
    return msgspec.json.encode({"error": wrong[0], "remedy": wrong[1]})[1:]


def _generation(text: str) -> int:
    """The generation that a header names; -1, which never is, where it names none."""
    number = text.strip().removeprefix("W/").strip('" ')
    return int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1


def _json(text: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(text, media_type="application/json", headers=headers)


async def _each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
