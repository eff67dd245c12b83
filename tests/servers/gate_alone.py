"""The gate as a process of its own, on a real ledger that the test writes; killed, stopped and started as one likes.

with gate_alone(tmp_path, policy=free_port()) as gate:
    gate.pause("tenant=s1", seconds=60)
    gate.kill()
    gate.start()
"""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from monitor import hand
from monitor.ledger.db import open_ledger
from monitor.model import Deed
from tests.servers.mailvane import GRANTED, program
from tests.waiting import free_port, until


@dataclass
class GateAlone:
    """It answers HTTP on ``port``, and Postfix on those that it was given."""

    folder: Path
    ledger: Engine
    ports: dict[str, int]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def start(self) -> None:
        """On the same ports as before, once it answers."""
        config = self.folder / "gate.toml"
        tier = "".join(f'{name} = "127.0.0.1:{port}"\n' for name, port in self.ports.items())
        config.write_text(
            f'[service]\ndata = "{self.folder}"\ngate = "127.0.0.1:{self.port}"\n'
            + (f'[actuator.mta]\nkind = "postfix"\n{tier}' if tier else "")
            + GRANTED,
            "utf-8",
        )
        with (self.folder / "gate.log").open("ab") as out:
            self.process = subprocess.Popen(
                [*program(), "--config", str(config), "run", "--gate-only"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        until(self._answers, "the gate to answer", 30)

    def kill(self) -> None:
        """By -9."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)

    def pause(self, scope: str, seconds: float) -> str:
        """By a person's hand, whether the gate lives or not; the lease's id."""
        with self.ledger.begin() as conn:
            span = timedelta(seconds=seconds)
            return hand.grant(conn, Deed.PAUSE, hand.scope_of(scope), span, "jo", "a test", datetime.now(UTC)).id

    def resume(self, lease: str) -> None:
        """End it."""
        with self.ledger.begin() as conn:
            hand.resume(conn, lease, timedelta(hours=1), "jo", "a test", datetime.now(UTC))

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "gate.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5):
                return True
        except OSError:
            return False


@contextmanager
def gate_alone(folder: Path, **ports: int) -> Iterator[GateAlone]:
    """``ports`` are those of the tier's servers: policy, memcache, socketmap."""
    ledger = open_ledger(folder / "ledger.sqlite")
    gate = GateAlone(folder, ledger, ports)
    try:
        gate.start()
        yield gate
    finally:
        gate.kill()
        ledger.dispose()
