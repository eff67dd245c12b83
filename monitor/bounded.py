"""Connections bounded as a whole: each wait ends at one moment, and so many bytes come in and no more.

A time-out of a socket begins anew with each byte, so that whoever sends one now and then holds us for ever.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")


# Bytes taken at once, whatever buffer is to be filled: a library may have made those of all sockets larger, as
# clickhouse-connect does (seen in November 2026), and a body would be counted with the head before it.
PIECE = 8192


class TooLarge(Exception):  # noqa: N818  # a state, not a fault
    """More came than may."""


def left(until: float) -> float:
    """Seconds until that monotonic moment.

    Raises:
        TimeoutError: it has passed.
    """
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("time is over")
    return seconds


def ended(work: Callable[[], T], until: float) -> T:
    """What ``work`` answers; it goes on in a thread of its own that nobody waits for where it is not done by then.

    Raises:
        TimeoutError: it is not done.
    """
    told: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            told.put((work(), None))
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            told.put((None, error))

    Thread(target=run, daemon=True, name="resolver").start()
    try:
        found, error = told.get(timeout=left(until))
    except Empty:
        raise TimeoutError("not done in time") from None
    if error:
        raise error
    return found  # type: ignore[return-value]  # None only beside an error


if TYPE_CHECKING:
    _Socket = socket.socket
else:
    _Socket = object


class _Bounded(_Socket):
    """``until``: the monotonic moment at which all ends; ``bytes_left``: what may still be received."""

    until: float
    bytes_left: int

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(left(self.until))
        count = super().recv_into(buffer, min(nbytes or len(buffer), PIECE), flags)
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise TooLarge
        return count

    def send(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(left(self.until))
        return super().send(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.settimeout(left(self.until))
        super().sendall(*args, **kwargs)


class Bounded(_Bounded, socket.socket):
    """A plain connection."""


class BoundedTls(_Bounded, ssl.SSLSocket):
    """One with TLS."""


@contextmanager
def hung_up(stream: socket.socket) -> Iterator[None]:
    """Closed in the end, whoever still holds a file of it."""
    try:
        yield
    finally:
        if (number := stream.detach()) != -1:
            os.close(number)


def connect(family: int, address: tuple[Any, ...], until: float, received: int) -> Bounded:
    """A TCP connection to exactly this address; at most ``received`` bytes come in.

    Raises:
        OSError: there is none.
    """
    made = Bounded(family, socket.SOCK_STREAM)
    made.until, made.bytes_left = until, received
    try:
        made.settimeout(left(until))
        made.connect(address)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        made.close()
        raise
    return made


def secured(plain: Bounded, context: ssl.SSLContext, name: str) -> BoundedTls:
    """TLS on it with whoever shows a certificate for ``name``; ``context`` must be of ``tls``.

    Raises:
        OSError: they don't, or don't in time.
    """
    made = context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
    assert isinstance(made, BoundedTls)  # noqa: S101  # as the context says
    made.until, made.bytes_left = plain.until, plain.bytes_left
    try:
        made.settimeout(left(made.until))
        made.do_handshake()  # ends at the time-out as a whole
    except BaseException:
        made.close()
        raise
    return made


def tls(ca_file: Path | None = None) -> ssl.SSLContext:
    """TLS that checks names and certificates, against the system's authorities or those in a file.

    Raises:
        OSError: the file can't be used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.sslsocket_class = BoundedTls
    return context
