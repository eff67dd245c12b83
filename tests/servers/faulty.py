"""Between a client and a server on 127.0.0.1, a stretch of network that fails as real ones do.

with Faulty(server_port) as line:
    line.port                      # where the client connects
    line.cut_after = 100_000       # bytes of answers, after which a connection is reset
    line.silent = True             # nothing comes through any more, and nothing says so
    line.reset()                   # all connections that there are
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE = 16 << 10


class Faulty:
    """A relay of TCP; whatever it does is by its attributes, at once."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self.cut_after: int | None = None
        self.silent = False
        self.refuses = False
        self.resets = 0
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = int(self._listener.getsockname()[1])
        self._speaks = threading.Event()
        self._speaks.set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self.reset()

    def reset(self) -> None:
        """Break all connections, as a firewall that has forgotten them would."""
        with self._lock:
            streams, self._open = self._open, set()
        for stream in streams:
            _reset(stream)
        self.resets += bool(streams)

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refuses:
                _reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._upstream), timeout=10)
            except OSError:
                _reset(near)
                continue
            far.settimeout(None)
            for stream in (near, far):
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
            for here, there, answers in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._relay, args=(here, there, answers), daemon=True).start()

    def _relay(self, here: socket.socket, there: socket.socket, answers: bool) -> None:
        passed = 0
        with suppress(OSError):
            while piece := here.recv(_PIECE):
                passed += len(piece)
                limit = self.cut_after if answers else None
                if limit is not None and passed > limit:
                    there.sendall(piece[: max(0, limit - passed)])
                    self.resets += 1
                    break
                if not self.silent:
                    there.sendall(piece)
        self._forget(here, there, broken=passed > (self.cut_after or passed))

    def _forget(self, *streams: socket.socket, broken: bool) -> None:
        with self._lock:
            self._open -= set(streams)
        for stream in streams:
            _reset(stream) if broken else _close(stream)


def _reset(stream: socket.socket) -> None:
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _close(stream)


def _close(stream: socket.socket) -> None:
    with suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it
    stream.close()
