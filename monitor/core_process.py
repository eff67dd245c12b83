"""The process that sees and decides: core with its page and API."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from monitor import logs, serving
from monitor.api.app import build
from monitor.service import Core
from monitor.settings import Settings

# Between two tries of a thread to get the interpreter. By default it waits, at each of many inserts,
# 5 ms for one that makes pseudonyms, and the applier stores a fifth fewer events a second.
SWITCH = 0.0005  # seconds
NICE = 10  # senders wait for the gate by the millisecond; nobody waits so for a long query


def serve(
    settings: Settings,
    *,
    demo: bool = False,
    bound: socket.socket | None = None,
    closing: Callable[[], None] = lambda: None,
) -> None:
    """Run until a signal comes; the core is stopped in order before it returns, and ``closing`` is called before."""
    logs.set_up()
    sys.setswitchinterval(SWITCH)
    if not demo:
        os.nice(NICE)
    listener = bound or serving.bind(*settings.service.listen)
    core = Core(settings)
    app = build(core, demo=demo, closing=closing)
    serving.server(app, core.gate, core.telemetry.gate, _tls(settings)).run(sockets=[listener])


def _tls(settings: Settings) -> tuple[Path, Path | None] | None:
    at = settings.service
    return (at.tls_cert, at.tls_key) if at.tls_cert else None
