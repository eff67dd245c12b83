"""How a body is received from a stranger: so many bytes of all requests at a time, for so long, and unpacked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from collectors._unpack import ENCODINGS, TooLarge, unpack
from monitor.api.basics import refusal

T = TypeVar("T")

BODY_LIMIT = 16 << 20  # bytes of one body, packed and unpacked
AT_ONCE = 64  # requests that are being received or taken
MEMORY = 64 << 20  # bytes of all their bodies
LARGE = 1 << 20  # bytes; such bodies are taken two at a time, since what is made of one is many times its size
PATIENCE = 30  # seconds for a body to arrive
DRAINED = 256 << 20  # bytes that a peer may go on sending before it is told that they are not taken
SOON, LATER = 1, 5  # seconds
_LARGE_AT_ONCE = 2
_THREADS = 16  # of their own: slow questions must not keep facts waiting


class Refused(Exception):  # noqa: N818  # an answer, not a fault
    """A request that is not taken; ``reason`` is one of a few words, for the metric."""

    def __init__(
        self, reason: str, what: str, remedy: str, status: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what)
        self.reason, self.what, self.remedy, self.status = reason, what, remedy, status
        self.headers = dict(headers or {})

    def answer(self) -> JSONResponse:
        """As all routes tell an error."""
        told = refusal(self.what, self.remedy, self.status)
        told.headers.update(self.headers)
        return told


def later(reason: str, what: str, *, status: int = 429, seconds: int = LATER) -> Refused:
    """Nothing is wrong with the request: it may come again."""
    remedy = "send the same lines again later: what was taken already counts once"
    return Refused(reason, what, remedy, status, {"Retry-After": str(seconds)})


class Intake:
    """What may be in memory of all requests together, and the threads that work on it."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._requests = 0
        self._bytes = 0
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._threads = ThreadPoolExecutor(_THREADS, "intake")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """What ``work`` returns, on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, unpacked; it counts as held until the block ends.

        Raises:
            Refused: it is too large, too slow, broken or in an unknown encoding, or there is no room for it now.
        """
        hold = _Hold(self)
        try:
            body = await _received(request, hold, self._wrong(request, hold), self._patience)
            if encoding := _encoding(request):
                body = await self.run(_unpacked, body, encoding)
                hold.upto(hold.size + len(body))
            if len(body) > LARGE:
                async with self._large:
                    yield body
            else:
                yield body
        finally:
            hold.end()

    def _wrong(self, request: Request, hold: _Hold) -> Refused | None:
        """Why the request is not taken, as far as its head tells; room for a body of known length is kept at once.

        Else many large ones would each be let in, and none of them to its end.
        """
        if (encoding := _encoding(request)) not in ("", *ENCODINGS):
            what = f"Content-Encoding {encoding[:40]!r} is not known"
            remedy = f"send {' or '.join(ENCODINGS)}, once, or the lines as they are"
            return Refused("encoding", what, remedy, 415, {"Accept-Encoding": ", ".join(ENCODINGS)})
        if request.headers.get("Content-Type", "").lower().startswith("multipart/"):
            remedy = "send the lines as the body itself, such as with curl --data-binary @FILE"
            return Refused("encoding", "the body is a form", remedy, 415)
        if self._requests > AT_ONCE:
            return later("busy", f"{AT_ONCE} requests are being taken", seconds=SOON)
        length = request.headers.get("Content-Length", "")
        try:
            hold.upto(int(length[:20]) if length.isdecimal() else 0)
        except Refused as refused:
            return refused
        return None

    def count(self, requests: int, size: int) -> None:
        """So many requests and bytes more are held; fewer where they are below 0.

        Raises:
            Refused: there is no room for so many bytes more.
        """
        if size > 0 and self._bytes + size > MEMORY:
            raise later("busy", f"{MEMORY:,} bytes of requests are being taken", seconds=SOON)
        self._requests += requests
        self._bytes += size


class _Hold:
    """What one request holds: ``size`` bytes, promised ones too."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.size = 0
        intake.count(1, 0)

    def upto(self, size: int) -> None:
        """Hold so many bytes at least."""
        if size > self.size:
            if size - self.size > BODY_LIMIT:
                raise _too_large()
            self._intake.count(0, size - self.size)
            self.size = size

    def end(self) -> None:
        self._intake.count(-1, -self.size)


async def _received(request: Request, hold: _Hold, wrong: Refused | None, patience: float) -> bytes:
    """The body; whoever sends too much may end, since a peer that is cut off while sending may never read why."""
    if wrong and request.headers.get("Expect", "").lower() == "100-continue":
        raise wrong  # it has not begun
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                size += len(part)
                if wrong is None:
                    wrong = _kept(parts, part, size, hold)
                elif size > DRAINED:
                    break
    except TimeoutError:
        what = f"the body did not arrive within {patience:g} s"
        raise Refused("slow", what, "send fewer lines in a request, or by a faster way", 408) from None
    except ClientDisconnect:
        raise Refused("gone", "the peer went away", "", 400) from None  # nobody hears it
    if wrong:
        raise wrong
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _kept(parts: list[bytes], part: bytes, size: int, hold: _Hold) -> Refused | None:
    """Why the part and all before it are let go; None if it is kept."""
    try:
        if size > BODY_LIMIT:
            raise _too_large()
        hold.upto(size)
    except Refused as refused:
        parts.clear()
        return refused
    parts.append(part)
    return None


def _encoding(request: Request) -> str:
    said = request.headers.get("Content-Encoding", "").strip().lower().removeprefix("x-")
    return "" if said == "identity" else said


def _unpacked(body: bytes, encoding: str) -> bytes:
    try:
        return unpack(body, encoding, BODY_LIMIT)
    except TooLarge:
        raise _too_large() from None
    except ValueError as error:
        raise Refused("broken", f"the body is broken: {error}", f"pack it whole, as {encoding}", 400) from None


def _too_large() -> Refused:
    what = f"the body is over {BODY_LIMIT:,} bytes, packed or unpacked"
    return Refused("large", what, "send fewer lines in a request", 413)
