"""A TCP server that strangers can't make grow: bounded in connections, in requests, and in the time that each takes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, cast

from monitor.ports import PluginError

log = logging.getLogger(__name__)

TURN = 50  # requests of one connection that are answered before the others have their turn
BUFFER = 64 << 10  # bytes of answers that wait in us for a reader, and in the kernel
BACKLOG = 4096
QUIET = 60.0  # seconds between two lines about trouble of ours

Address = tuple[str, int]
Refusing = Callable[[str, str], None]  # counts what was turned away: server and reason


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server; times in seconds."""

    connections: int = 10_000  # the next one is closed at once
    request: float = 10.0  # for a request to arrive whole
    idle: float = 3600.0  # between two requests: Postfix keeps its connections
    stuck: float = 30.0  # for which a reader may take nothing
    look: float = 1.0  # between two looks for what is late


class RequestError(Exception):
    """A request gets no answer, and its connection ends; ``reason`` is out of a small fixed set of words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Language(Protocol):
    """What requests and answers of one kind look like.

    ``sorry`` is the answer when we fail ourselves; an empty one ends the connection.
    """

    name: str
    sorry: bytes

    def cut(self, data: bytes, start: int) -> int:
        """Where the request that begins at ``start`` ends; 0 while it is not whole.

        Raises:
            RequestError: it never will be.
        """

    def answer(self, request: bytes) -> bytes | None:
        """The answer, which may be empty; None ends the connection in peace.

        Raises:
            RequestError: it is no request.
        """


async def serve(listening: Sequence[tuple[Language, Address]], refused: Refusing, limits: Limits | None = None) -> None:
    """Serve each language on its address until cancelled.

    Raises:
        PluginError: addresses can't be listened on; all of them are named, and none is served.
    """
    bounds = limits or Limits()
    with ExitStack() as opened:
        servers = [Server(language, refused, bounds) for language, _ in listening]
        for server, place in zip(servers, _bound([place for _, place in listening]), strict=True):
            await server.listen(place)
            opened.callback(server.close)
        while True:
            await asyncio.sleep(bounds.look)
            for server in servers:
                server.sweep()


class Server:
    """One language on one address."""

    def __init__(self, language: Language, refused: Refusing, limits: Limits) -> None:
        self.language = language
        self.limits = limits
        self.talks: set[_Talk] = set()
        self._refused = refused
        self._complained = -QUIET
        self._server: asyncio.Server | None = None

    async def listen(self, place: socket.socket) -> None:
        """Take connections from now on."""
        self.loop = asyncio.get_running_loop()
        self._server = await self.loop.create_server(lambda: _Talk(self), sock=place, backlog=BACKLOG)

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        if self._server:
            self._server.close()
        for talk in tuple(self.talks):
            talk.end(at_once=talk.owed)

    def sweep(self) -> None:
        """End the connections that are late."""
        now = self.loop.time()
        for talk in [talk for talk in self.talks if talk.late(now)]:
            talk.end(talk.late(now))

    def refused(self, reason: str) -> None:
        """Count something that was turned away."""
        self._refused(self.language.name, reason)

    def failed(self, error: Exception) -> None:
        """Say that an answer of ours failed and where, without what was asked; not at each one."""
        self.refused("trouble")
        if (now := self.loop.time()) - self._complained >= QUIET:
            self._complained = now
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119  # no path, a name
            log.error("answer failed", extra={"server": self.language.name, "error": type(error).__name__, "at": where})


class _Talk(asyncio.Protocol):
    """One connection. Reading rests while a reader takes no answers, and while others have their turn."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._rest = b""
        self._since = server.loop.time()  # that it is idle, or that its request has begun, or that it is stuck
        self._stuck = self._queued = self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Come in, if there is room."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._server.talks) >= self._server.limits.connections:
            self.end("connections", at_once=True)
            return
        self._server.talks.add(self)
        self._transport.set_write_buffer_limits(high=BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        """Be forgotten."""
        self._over, self._rest = True, b""
        self._server.talks.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer what is whole by now."""
        if not self._rest:
            self._since = self._server.loop.time()
        self._rest += data
        if not self._queued and not self._stuck:
            self._go_on()

    def pause_writing(self) -> None:
        """The reader takes nothing."""
        self._stuck, self._since = True, self._server.loop.time()

    def resume_writing(self) -> None:
        """The reader has taken what there was."""
        self._stuck, self._since = False, self._server.loop.time()
        if not self._queued:
            self._go_on()

    @property
    def owed(self) -> bool:
        """Whether a part of an answer still waits to be taken."""
        return self._transport.get_write_buffer_size() > 0

    def late(self, now: float) -> str:
        """Why it should end; empty if it should not."""
        limits, waited = self._server.limits, now - self._since
        if self._stuck or self._over:
            return "slow reader" if waited > limits.stuck else ""
        if self._rest:
            return "slow request" if waited > limits.request and not self._queued else ""
        return "idle" if waited > limits.idle else ""

    def end(self, reason: str = "", *, at_once: bool = False) -> None:
        """Close the connection, by and by if the reader takes what is left; idleness is no reason that counts."""
        self._over, self._since = True, self._server.loop.time()
        if reason and reason != "idle":
            self._server.refused(reason)
        if at_once or reason == "slow reader":
            self._transport.abort()
        else:
            self._transport.close()

    def _go_on(self) -> None:
        self._queued = False
        try:
            more = not self._over and self._turn()
        except RequestError as refused:
            self.end(refused.reason)
        else:
            self._pace(more)

    def _pace(self, more: bool) -> None:  # noqa: FBT001  # of one caller
        if self._over:
            return
        if more:
            self._queued = True
            self._server.loop.call_soon(self._go_on)
        if more or self._stuck:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _turn(self) -> bool:
        """Answer a few requests; whether there may be more of them already."""
        data, start = self._rest, 0
        cut, answer = self._server.language.cut, self._answer
        count = 0
        while count < TURN and not self._over and not self._stuck and (end := cut(data, start)):
            answer(data[start:end])
            start, count = end, count + 1
        if start:
            self._rest = data[start:]
            if not self._stuck:
                self._since = self._server.loop.time()
        return count == TURN

    def _answer(self, request: bytes) -> None:
        try:
            said = self._server.language.answer(request)
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever failed, it must neither hold mail nor harm others
            self._server.failed(error)
            said = self._server.language.sorry or None
        if said is None:
            self.end()
        elif said:
            self._transport.write(said)


def _bound(places: Sequence[Address]) -> list[socket.socket]:
    opened, wrong = [], []
    for host, port in places:
        try:
            opened.append(_listener(host, port))
        except OSError as error:
            why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            wrong.append(f"{host}:{port} ({why})")
    if wrong:
        for one in opened:
            one.close()
        raise PluginError(f"can't be listened on: {', '.join(wrong)}", retry=True)
    return opened


def _listener(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Each connection has it from here: what a reader does not take waits in us, not in the kernel's memory.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
