"""An HTTP server that strangers can't make grow: around the core's application and around the gate's."""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from monitor import notify, tls
from monitor.gate import Gate
from monitor.telemetry import GateMetrics

CONNECTIONS = 10_000  # at a time; the next one is closed at once
HEAD_SECONDS = 10  # for a request's head to arrive
STUCK_SECONDS = 30  # for which a reader may take nothing of an answer
IDLE_SECONDS = 75  # for which a connection is kept between two requests
HEAD_BYTES = 64 << 10
SEND_BYTES = 256 << 10
WRITE_BYTES = 16 << 10  # of an answer that may wait in us, beside what is being sent


def server(
    app: ASGIApp, gate: Gate, metrics: GateMetrics, certificate: tuple[Path, Path | None] | None = None
) -> uvicorn.Server:
    """A server whose ``run(sockets=[…])`` returns after a signal, once the lifespan has ended in order.

    ``certificate``: with its key (None: in the same file) with which it speaks HTTPS instead.

    Raises:
        UserError: the certificate or the key can't be used.
    """
    _raise_descriptors()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        loop="uvloop",
        http=type("Bounded", (_Bounded,), {"metrics": metrics}),  # by h11: httptools knows no limit on headers
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=IDLE_SECONDS,
        backlog=4096,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    if certificate:
        config.load()
        config.ssl = tls.showing(*certificate)
    return _Server(config, gate)


def bind(host: str, port: int) -> socket.socket:
    """A socket on that address; bound before anything is opened, so that a taken port costs nothing.

    Raises:
        OSError: the port is taken; the message names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Each connection has it from here: what a reader does not take waits in us, bounded, not in the kernel's memory.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"{host}:{port} can't be listened on: {error.strerror}; choose another port") from error
    listener.set_inheritable(True)
    return listener


def _raise_descriptors() -> None:
    # One for each connection; the usual soft limit is 1,024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(uvicorn.Server):
    """Lets long-polls go when a signal comes, since it would wait for them; shows whoever supervises that it lives."""

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config)
        self._gate = gate
        self._alive: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        notify.notify("STOPPING=1")
        self._gate.close()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if not self.started:
            raise RuntimeError("the service could not begin: see the log")
        notify.notify("READY=1")
        self._alive = asyncio.create_task(_show_life())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order."""
        if self._alive:
            self._alive.cancel()
        await super().shutdown(sockets)


async def _show_life() -> None:
    while seconds := notify.watchdog():
        notify.notify("WATCHDOG=1")
        await asyncio.sleep(seconds)


class _Bounded(H11Protocol):
    """The protocol with bounds on connections, on the time for a head, and on readers that do not read."""

    metrics: ClassVar[GateMetrics]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base has it
        if len(self.connections) >= CONNECTIONS:
            self.metrics.refused.labels("http", "connections").inc()
            transport.abort()
            return
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        self._arm(HEAD_SECONDS, "head")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._arm(HEAD_SECONDS, "head")
        else:
            self._disarm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm(STUCK_SECONDS, "slow reader")

    def resume_writing(self) -> None:
        self._disarm()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self in self.connections:
            super().connection_lost(exc)

    def _arm(self, seconds: float, why: str) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._late, why)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self, why: str) -> None:
        self._timer = None
        self.metrics.refused.labels("http", why).inc()
        self.transport.abort()
