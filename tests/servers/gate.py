"""A gate with its servers in a thread, on a real ledger and with a clock that the test turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from monitor import gate_process, serving
from monitor.access.keys import Keys
from monitor.gate import Gate
from monitor.ledger import actions
from monitor.ledger.db import open_ledger
from monitor.model import Action
from monitor.ports import Actuator
from monitor.settings import Access, GateSettings
from monitor.telemetry import GateMetrics
from tests.builders import NOW
from tests.waiting import until

OPEN = Access(anonymous=frozenset({"read", "metrics", "check"}))


@dataclass
class Clock:
    """Stands until it is turned."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def turn(self, span: timedelta) -> None:
        self.now += span


@dataclass
class GateServer:
    """A gate that answers on ``port``."""

    gate: Gate
    ledger: Engine
    metrics: GateMetrics
    port: int
    clock: Clock = field(default_factory=Clock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write(self, *entries: Action) -> None:
        """Put entries into the log, and let the gate see them."""
        with self.ledger.begin() as conn:
            for entry in entries:
                assert actions.append(conn, entry)
        self.gate.refresh()


@contextmanager
def gate_server(
    folder: Path, actuators: Mapping[str, Actuator] | None = None, *, readable: bool = True
) -> Iterator[GateServer]:
    """A gate on a free port with its ledger in ``folder``, or with none that it could read."""
    ledger = open_ledger(folder / "ledger.sqlite")
    clock = Clock()
    metrics = GateMetrics(CollectorRegistry())
    looks = open_ledger(folder / ("ledger.sqlite" if readable else "none.sqlite"), reads=True)
    gate = Gate(looks, clock)
    gate.refresh()
    listener = serving.bind("127.0.0.1", 0)
    app = gate_process.application(gate, metrics, actuators or {})
    server = serving.server(
        gate_process.guarded(app, GateSettings("test", access=OPEN), Keys(ledger), metrics), gate, metrics
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gate")
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the gate to listen")
        yield GateServer(gate, ledger, metrics, listener.getsockname()[1], clock)
    finally:
        gate.close()
        server.should_exit = True
        thread.join(timeout=30)
        ledger.dispose()
        looks.dispose()
