"""The HTTP server around a core."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from monitor import logs
from monitor.api.app import build
from monitor.gate import Gate
from monitor.service import Core
from monitor.settings import Settings


def serve(
    settings: Settings,
    *,
    demo: bool = False,
    bound: socket.socket | None = None,
    closing: Callable[[], None] = lambda: None,
) -> None:
    """Run until a signal comes; the core is stopped in order before it returns, and ``closing`` is called before."""
    logs.set_up()
    host, port = settings.service.listen
    listener = bound or bind(host, port)
    core = Core(settings)
    config = uvicorn.Config(
        build(core, demo=demo, closing=closing),
        log_config=None,
        access_log=False,
        loop="uvloop",
        http="h11",  # httptools knows no limit on headers
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=64 << 10,
        limit_concurrency=2000,
    )
    _Server(config, core.gate).run(sockets=[listener])


def bind(host: str, port: int) -> socket.socket:
    """A socket on that address; bound before anything is opened, so that a taken port costs nothing.

    Raises:
        OSError: the port is taken; the message names it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"{host}:{port} can't be listened on: {error.strerror}; choose another port") from error
    listener.set_inheritable(True)
    return listener


class _Server(uvicorn.Server):
    """Lets long-polls go when a signal comes: it would wait for them."""

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config)
        self._gate = gate

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        self._gate.close()
        super().handle_exit(sig, frame)
