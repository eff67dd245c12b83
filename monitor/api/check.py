"""``/v1/check``: may this message go? What the sending infrastructure asks, on its hot path, so it is bare ASGI."""

from __future__ import annotations

import asyncio
from datetime import datetime
from operator import itemgetter
from time import perf_counter
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import astuple
from starlette.types import Receive, Scope, Send

from monitor.api import sellers
from monitor.api.access import CALLER
from monitor.api.told import FREE, Told
from monitor.caller import Caller
from monitor.core.leases import decided
from monitor.gate import Gate
from monitor.model import LABELS, OWNED, Deed
from monitor.once import Once
from monitor.scrub import scrub
from monitor.telemetry import GateMetrics

LABEL_LIMIT = 200  # characters; a longer name is no label
KEY_LIMIT = 1000
BATCH_LIMIT = 1000  # scopes of one question
BODY_LIMIT = 1 << 20
BODIES = 64 << 20  # bytes of bodies that are on their way at a time
PATIENCE = 5  # seconds for a body to arrive

_Label = Annotated[str, msgspec.Meta(max_length=LABEL_LIMIT)]
_Names = tuple[str, ...]
# Whether it is held, the answer without its opening brace, and whether another key may get another.
_Answer = tuple[bool, bytes, bool]
_TOO_LONG = f"the body is over {BODY_LIMIT} bytes", f"ask for {BATCH_LIMIT} scopes at a time"


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


_labels = itemgetter(slice(len(LABELS)))  # of all fields: the key comes last
_asked = msgspec.json.Decoder(_Asked)
_raw = msgspec.json.Decoder(_Raw)
_ask = msgspec.json.Decoder(Ask)
_is_held, _text, _by_key = map(itemgetter, range(3))
_NOT_YOURS = "this key asks about its own mail alone", "leave out tenant"
_FREE = (False, FREE, False)
_TENANT = LABELS.index("tenant")
_THEIRS = [(LABELS.index(name), name) for name in OWNED]


class Check:
    """The route: ``GET /v1/check?tenant=…&key=…``, or POST with ``{"scopes": [{labels, "key"}, …]}``."""

    def __init__(self, gate: Gate, metrics: GateMetrics) -> None:
        self._gate = gate
        self._metrics = metrics
        self._told = Told()
        self._sellers = Told(sellers.lease)
        self._bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        caller: Caller | None = scope.get(CALLER)
        tenant = caller.tenant if caller else ""
        if scope["method"] == "GET":
            status, body = self.one(scope["query_string"], tenant)
        else:
            status, body = await self._posted(scope, receive, tenant)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def one(self, query: bytes, tenant: str = "") -> tuple[int, bytes]:
        """Status and body: whether a message with these labels may be sent; for a ``tenant``'s key, of its own mail."""
        began = perf_counter()
        params = _params(query)
        if wrong := _wrong(params):
            return 422, b"{" + _error(*wrong)
        asked = dict(params)
        if tenant:
            if asked.get("tenant") not in (None, "", tenant):
                return _refused(403, *_NOT_YOURS)
            asked["tenant"] = tenant
        names = tuple([asked.get(label, "") for label in LABELS])
        if not names[_TENANT] and (orphan := _orphan(names)):
            return 422, b"{" + _error(*orphan)
        told = self._sellers if tenant else self._told
        held, text, _ = self._answer(names, asked.get("key", ""), self._gate.now, told)
        self._metrics.answered(perf_counter() - began, held=int(held), asked=1)
        return 200, b'{"generation":%d,%b' % (self._gate.generation, text)

    def many(self, body: bytes, tenant: str = "") -> tuple[int, bytes]:
        """Status and body: an answer for each scope, in order; one that can't be read gets an error in its place.

        So does one of another's mail, where a ``tenant``'s key asks.
        """
        began = perf_counter()
        wrong: dict[int, bytes] = {}
        try:
            asks = _read(body, wrong)
        except (msgspec.MsgspecError, RecursionError) as error:
            return _refused(422, f"the body can't be read: {error}"[:300], 'send {"scopes": [{"tenant": "…"}, …]}')
        if len(asks) > BATCH_LIMIT:
            return _refused(413, f"{len(asks)} scopes in one question", f"ask for {BATCH_LIMIT} at a time")
        if not asks:
            return 200, b'{"generation":%d,"answers":[]}' % self._gate.generation
        if tenant:
            asks = [_own(ask, tenant, place, wrong) for place, ask in enumerate(asks)]
        answers = self._answers(asks, self._sellers if tenant else self._told)
        held, texts = sum(map(_is_held, answers)), [*map(_text, answers)]
        for place, text in wrong.items():
            texts[place] = text
        self._metrics.answered(perf_counter() - began, held=held, asked=len(asks))
        return 200, b'{"generation":%d,"answers":[{%b]}' % (self._gate.generation, b",{".join(texts))

    def _answers(self, asks: list[Ask], told: Told) -> list[_Answer]:
        # The messages of a campaign differ in little more than their keys, so each set of labels is looked at once.
        now = self._gate.now
        known: Once[_Names, _Answer] = Once(lambda names: self._answer(names, "", now, told))
        answers = [*map(known.__getitem__, map(_labels, map(astuple, asks)))]
        if any(map(_by_key, known.values())):
            return [
                self._answer(_labels(astuple(ask)), ask.key, now, told) if answer[2] else answer
                for ask, answer in zip(asks, answers, strict=True)
            ]
        return answers

    def _answer(self, names: _Names, key: str, now: datetime, told: Told) -> _Answer:
        if not names[_TENANT] and (orphan := _orphan(names)):
            return False, _error(*orphan), False
        for lease in self._gate.covering(names):
            if lease.until > now:
                held = decided(lease, key).held
                text = told.text(lease).answer(now.timestamp(), held=held)
                return held, text, lease.deed is Deed.THROTTLE
        return _FREE

    async def _posted(self, scope: Scope, receive: Receive, tenant: str) -> tuple[int, bytes]:
        size = next((int(value) for name, value in scope["headers"] if name == b"content-length"), BODY_LIMIT)
        if size > BODY_LIMIT:
            return _refused(413, *_TOO_LONG)
        if self._bodies + size > BODIES:
            return _refused(503, "too many questions at once", "send the mail, or ask again")
        self._bodies += size
        try:
            async with asyncio.timeout(PATIENCE):
                body = await _body(receive)
        except TimeoutError:
            return _refused(408, f"the body did not arrive within {PATIENCE} s", "send the mail, or ask again")
        finally:
            self._bodies -= size
        return self.many(body, tenant) if body is not None else _refused(413, *_TOO_LONG)


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None as soon as it is too long."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > BODY_LIMIT:
            return None
    return b"".join(parts)


def _read(body: bytes, wrong: dict[int, bytes]) -> list[Ask]:
    """The questions. One that can't be read is an empty one, and ``wrong`` says by its place what to answer.

    Raises:
        msgspec.MsgspecError: the body is no list of questions.
    """
    try:
        return _asked.decode(body).scopes
    except (msgspec.ValidationError, RecursionError):
        return [_read_one(item, place, wrong) for place, item in enumerate(_raw.decode(body).scopes)]


def _read_one(item: msgspec.Raw, place: int, wrong: dict[int, bytes]) -> Ask:
    try:
        return _ask.decode(item)
    except (msgspec.MsgspecError, RecursionError) as error:
        known = f"known are {', '.join(LABELS)}, and key; each a text of at most {LABEL_LIMIT} characters"
        wrong[place] = _error(f"{error}"[:300], known)
        return Ask()


def _own(ask: Ask, tenant: str, place: int, wrong: dict[int, bytes]) -> Ask:
    """The question about the asking seller's own mail; an empty one, and an error in its place, of another's."""
    if place in wrong:
        return ask
    if ask.tenant not in ("", tenant):
        wrong[place] = _error(*_NOT_YOURS)
        return Ask()
    ask.tenant = tenant
    return ask


def _params(query: bytes) -> list[tuple[str, str]]:
    text = query.decode("utf-8", "replace")
    if "%" in text or "+" in text:
        return parse_qsl(text, keep_blank_values=True)
    pairs = [part.partition("=") for part in text.split("&") if part]
    return [(name, value) for name, _, value in pairs]


def _wrong(params: list[tuple[str, str]]) -> tuple[str, str] | None:
    names = [name for name, _ in params]
    if unknown := [name for name in names if name != "key" and name not in LABELS]:
        return f"unknown labels: {scrub(', '.join(sorted(unknown)), 300)}", f"known are {', '.join(LABELS)}, and key"
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


def _error(what: str, remedy: str) -> bytes:
    """What follows the opening brace of an error."""
    return msgspec.json.encode({"error": what, "remedy": remedy})[1:]


def _refused(status: int, what: str, remedy: str) -> tuple[int, bytes]:
    return status, b"{" + _error(what, remedy)
