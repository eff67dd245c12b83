"""The product itself, as an operator starts it: ``mailvane run`` with its two processes.

with mailvane(tmp_path, tables) as service:
    service.kill_core()             # -9; the supervisor starts it again
    service.stop_gate()             # SIGSTOP, as a machine without memory would
    service.answer(tenant="s07")    # of the core; of the gate: service.answer(gate=True, tenant="s07")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.waiting import free_port, until

# What tests ask without a key, where they are not about keys.
GRANTED = '\n[access]\nanonymous = ["read", "metrics", "check", "ingest"]\nat_once = 1000\nkey_rate = "100000/second"\n'


@dataclass
class Mailvane:
    """A running service and its command line."""

    process: subprocess.Popen[bytes]  # the supervisor
    port: int
    config: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def gate_port(self) -> int:
        """The one in the configuration."""
        address = tomllib.loads(self.config.read_text("utf-8"))["service"]["gate"]
        return int(address.rpartition(":")[2])

    @property
    def gate_url(self) -> str:
        return f"http://127.0.0.1:{self.gate_port}"

    def get(self, path: str, *, gate: bool = False, **query: object) -> Any:
        """The JSON of a GET, answered by core or by the gate."""
        full = (self.gate_url if gate else self.url) + path + (f"?{urlencode(query)}" if query else "")
        with urllib.request.urlopen(full, timeout=10) as answer:
            return json.load(answer)

    def answer(self, *, gate: bool = False, **labels: str) -> str:
        """What a sender is told: held or send."""
        return str(self.get("/v1/check", gate=gate, **labels)["answer"])

    def command(self, *words: str) -> str:
        """The output of ``mailvane WORDS`` with the same configuration."""
        done = subprocess.run(
            [*program(), "--config", str(self.config), *words], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def pids(self) -> dict[str, int]:
        """The processes that live, by name: supervisor, core, gate."""
        supervisor = self.process.pid
        found = {"supervisor": supervisor} if alive(supervisor) else {}
        for pid in _children(supervisor):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found |= {name: pid for name in ("core", "gate") if f"--{name}-only".encode() in words}
        return found

    def told(self) -> list[dict[str, Any]]:
        """The log so far, one object an event."""
        lines = self.log.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def kill_core(self) -> int:
        """By -9; the number that it had."""
        return self._signal("core", signal.SIGKILL)

    def kill_gate(self) -> int:
        """By -9; the number that it had."""
        return self._signal("gate", signal.SIGKILL)

    def stop_gate(self) -> int:
        """SIGSTOP: it is there and answers nothing; its number."""
        return self._signal("gate", signal.SIGSTOP)

    def kill(self) -> None:
        """As a power cut would: all at once."""
        pids = self.pids()
        self.process.kill()  # first, so that nothing is started again
        for pid in pids.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        until(lambda: not any(map(alive, pids.values())), "the killed to be gone", 10)

    def stop(self) -> None:
        """As an operator would; fails if it does not end in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(timeout=80)
            assert code == 0, f"ended with {code}: {self.log.read_text()[-2000:]}"

    def wait(self) -> None:
        """Until core and gate answer; fails if it ends instead."""
        until(self._answers, "Mailvane to answer")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"mailvane ended: {self.log.read_text()[-3000:]}")
        try:
            return bool(self.get("/healthz")) and bool(self.get("/healthz", gate=True))
        except (OSError, urllib.error.URLError):
            return False

    def _signal(self, name: str, number: signal.Signals) -> int:
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid


def program() -> list[str]:
    """The command, from the environment that runs the tests."""
    return [sys.executable, "-m", "monitor.cli"]


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def started(config: Path, port: int) -> Mailvane:
    """The service with that configuration, once both of its processes answer."""
    log = config.with_suffix(".log")
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*program(), "--config", str(config), "run"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=os.environ,
        )
    service = Mailvane(process, port, config, log)
    service.wait()
    return service


@contextmanager
def mailvane(folder: Path, tables: str, port: int = 0) -> Iterator[Mailvane]:
    """The service on free ports with its data in ``folder``; ``tables`` is the rest of its configuration."""
    port, gate = port or free_port(), free_port()
    config = folder / "mailvane.toml"
    config.write_text(
        f'[service]\ndata = "{folder / "data"}"\nlisten = "127.0.0.1:{port}"\ngate = "127.0.0.1:{gate}"\n'
        f'cycle = "0.2s"\n{tables}{"" if "[access]" in tables else GRANTED}',
        "utf-8",
    )
    service = started(config, port)
    try:
        yield service
    finally:
        service.stop()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
