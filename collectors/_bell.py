"""A bell that ends a wait for a socket from another thread."""

from __future__ import annotations

import os
import select
import socket
import weakref


class Bell:
    """Rung once, and heard by everybody who waits, then and later."""

    def __init__(self) -> None:
        self._bell, rope = os.pipe()
        self._ring = weakref.finalize(self, os.close, rope)  # a closed end can be read for ever at the other
        weakref.finalize(self, os.close, self._bell)

    def ring(self) -> None:
        """Let all waits end."""
        self._ring()

    def has_rung(self) -> bool:
        """Whether it was rung."""
        return not self._ring.alive

    def wait(self, stream: socket.socket, seconds: float) -> bool:
        """Whether ``stream`` can be read, as soon as it can; False when time is over or the bell rings."""
        poller = select.poll()
        for number in (stream.fileno(), self._bell):
            poller.register(number, select.POLLIN)
        return any(number == stream.fileno() for number, _ in poller.poll(max(0.0, seconds) * 1000))
