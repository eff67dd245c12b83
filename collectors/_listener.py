"""Listens for syslog in a thread of its own: bounded in connections and bytes, whoever sends, and however fast."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from collectors._postfix import TOO_LONG
from collectors._syslog import Stream, logged, one
from monitor.model import Rejected

HELD = 16 << 20  # bytes of lines in memory; beyond it no socket is read, and the senders' own queues fill
UNFRAMED = "framing lost, connection closed"
CUT = "connection ended within a line"
TOO_MANY = "connection refused: too many"
NOT_ALLOWED = "peer not in allow"
NO_TLS = "TLS failed"
NO_ROOM = "datagram dropped: no room"
_READ = 64 << 10
_BUFFER = 32 << 10
_HANDSHAKE = 10.0  # seconds
_START = 10.0
_PAUSE = 0.1
_FAREWELL = 2.0
_LAST = 0.05  # in which the loop closes what it has in hand
_PEERS = 1000  # that are told apart in what is rejected
_MOST = 1_000_000  # rejects of one kind between two looks
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3}  # a peer that is gone is noticed in 2 min

Network = IPv4Network | IPv6Network


@dataclass(slots=True)
class Heard:
    """What has come since the last look: whole lines in their order, with the address of whoever sent them.

    ``broken``: some before or among them are lost.
    """

    texts: list[tuple[str, bytes]] = field(default_factory=list)
    broken: bool = False
    rejected: list[Rejected] = field(default_factory=list)


class Listener:
    """The sockets and what was read from them. ``take`` and ``close`` are for any thread."""

    def __init__(
        self,
        place: tuple[str, int],
        allow: Sequence[Network],
        connections: int,
        tls: ssl.SSLContext | None,
        *,
        udp: bool,
    ) -> None:
        self._place, self._allow, self._most, self._tls, self._udp = place, allow, connections, tls, udp
        self._lock = threading.Lock()
        self._texts: deque[tuple[str, bytes]] = deque()
        self._held = 0
        self._broken = False
        self._wrong: Counter[tuple[str, str]] = Counter()
        self._server: socket.socket | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[tuple[str, int], tuple[asyncio.Transport, asyncio.StreamReader]] = {}
        self._room = asyncio.Event()
        self._ending = False
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="syslog", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether somebody could send; of datagrams nobody knows."""
        return bool(self._open) or self._udp

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address can't be listened on.
        """
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result(_START)
        except BaseException:
            self.close()
            raise

    def take(self) -> Heard:
        """What has come; makes room for more."""
        with self._lock:
            heard = Heard([*self._texts], self._broken, [*self._told()])
            self._texts.clear()
            self._held, self._broken = 0, False
            self._wrong.clear()
            if not self._closed:
                self._loop.call_soon_threadsafe(self._room.set)
        return heard

    def close(self) -> None:
        """Hang up; what was read can still be taken."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_START)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _told(self) -> Sequence[Rejected]:
        return [
            item for (why, peer), count in self._wrong.items() for item in [Rejected(why, peer)] * min(count, _MOST)
        ]

    # in the loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # a peer that is rude is counted where it is served
        self._loop.run_forever()
        self._loop.close()

    async def _begin(self) -> None:
        host, port = self._place
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = server = socket.create_server((host, port), family=family, backlog=128)
        server.setblocking(False)
        if self._udp:
            port = server.getsockname()[1]
            self._datagrams, _ = await self._loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(host, port)
            )
        self._loop.add_reader(server, self._accept, server)

    async def _end(self) -> None:
        self._ending = True
        if self._server:
            self._loop.remove_reader(self._server)
        for listening in (self._server, self._datagrams):
            if listening:
                listening.close()
        self._room.set()
        for transport, reader in self._open.values():
            transport.pause_reading()
            reader.feed_eof()  # what has come is still read
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_FAREWELL)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.sleep(_LAST)

    def _accept(self, server: socket.socket) -> None:
        try:
            raw, address = server.accept()
        except BlockingIOError:
            return
        except OSError:  # a peer that went at once, or no descriptor is left
            self._loop.remove_reader(server)
            self._loop.call_later(_PAUSE, self._again, server)
            return
        peer = str(address[0])
        if not self.admits(peer):
            raw.close()
        elif len(self._tasks) >= self._most:
            self.wrong(TOO_MANY, peer)
            raw.close()
        else:
            raw.setblocking(False)
            task = self._loop.create_task(self._welcome(raw, peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _again(self, server: socket.socket) -> None:
        if not self._ending:
            self._loop.add_reader(server, self._accept, server)

    async def _welcome(self, raw: socket.socket, peer: str) -> None:
        reader = asyncio.StreamReader(_BUFFER)
        more: dict[str, Any] = {"ssl": self._tls, "ssl_handshake_timeout": _HANDSHAKE} if self._tls else {}
        try:
            _keep_alive(raw)
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), raw, **more
            )
        except BaseException as error:
            raw.close()
            if not isinstance(error, OSError):
                raise
            self.wrong(f"{NO_TLS}: {getattr(error, 'reason', None) or type(error).__name__}", peer, loses=False)
            return
        self._open[peer, id(reader)] = transport, reader
        try:
            await self._serve(reader, peer)
        finally:
            del self._open[peer, id(reader)]
            transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, peer: str) -> None:
        stream = Stream(peer)
        try:
            while data := await reader.read(_READ):
                await self._put(stream.push(data), peer)
                self.wrong(TOO_LONG, peer, stream.dropped())
                if stream.unframed:
                    self.wrong(UNFRAMED, peer)
                    return
        except OSError:
            self.lost()
        if stream.pending:
            self.wrong(CUT, peer)

    async def _put(self, text: bytes, peer: str) -> None:
        if not text:
            return
        while self._held >= HELD and not self._ending:
            self._room.clear()
            if self._held >= HELD:  # it may have been taken before that
                await self._room.wait()
        self.keep(text, peer)

    # for the loop's protocols

    def keep(self, text: bytes, peer: str) -> None:
        """Whole lines have come."""
        with self._lock:
            self._texts.append((peer, text))
            self._held += len(text)

    @property
    def crowded(self) -> bool:
        """Whether there is room for nothing more."""
        return self._held >= HELD

    def admits(self, peer: str) -> bool:
        """Whether that address may send; counted where not."""
        if not self._allow:
            return True
        with suppress(ValueError):
            at = ip_address(peer.partition("%")[0])
            at = getattr(at, "ipv4_mapped", None) or at
            if any(at in network for network in self._allow):
                return True
        self.wrong(NOT_ALLOWED, peer, loses=False)
        return False

    def wrong(self, why: str, peer: str, count: int = 1, *, loses: bool = True) -> None:
        """So many times something could not be read; ``loses``: so that lines are missing."""
        if not count:
            return
        with self._lock:
            known = (why, peer) in self._wrong or len(self._wrong) < _PEERS
            self._wrong[why, peer if known else "others"] += count
            self._broken |= loses

    def lost(self) -> None:
        """Lines may be missing from here on."""
        with self._lock:
            self._broken = True


class _Datagrams(asyncio.DatagramProtocol):
    """A message each (RFC 5426)."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        peer = str(addr[0])
        if not self._listener.admits(peer):
            return
        if self._listener.crowded:
            self._listener.wrong(NO_ROOM, peer)
            return
        self._listener.keep(logged(one(data), peer.encode()), peer)


def _keep_alive(raw: socket.socket) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if option := getattr(socket, name, None):
            raw.setsockopt(socket.IPPROTO_TCP, option, value)
