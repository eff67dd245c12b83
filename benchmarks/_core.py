"""A real core in a process of its own, for benchmarks that tell it something over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.waiting import free_port, until

ROOT = Path(__file__).resolve().parent.parent
_START = "import sys; from pathlib import Path; from monitor.config import load; from monitor import core_process"
OPEN = 'anonymous = ["read", "metrics", "check", "ingest"]\nkey_rate = "1000000/second"\n'
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Core:
    """One that runs; ``now`` is when it began."""

    pid: int
    port: int
    now: datetime

    def applied(self) -> bool:
        """Whether all that it took is counted."""
        return self._metric("mailvane_spool_waiting_frames") == 0

    def _metric(self, name: str) -> float:
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


@contextmanager
def started(
    folder: Path, command: str = f"{_START}; core_process.serve(load(Path(sys.argv[1])))", access: str = OPEN
) -> Iterator[Core]:
    """A core with its data in the folder, until the block ends; ``access`` is what stands in that section."""
    port = free_port()
    config = folder / "mailvane.toml"
    config.write_text(
        f'[service]\ndata = {json.dumps(str(folder / "data"))}\nlisten = "127.0.0.1:{port}"\n'
        f'gate = "127.0.0.1:{free_port()}"\n'
        f"[access]\n{access}"
    )
    with (folder / "core.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", command, str(config)], cwd=ROOT, stderr=log, stdout=log)
    try:
        until(lambda: answers(port) or process.poll() is not None, "the core to answer", 60)
        assert process.poll() is None, (folder / "core.log").read_text()
        yield Core(process.pid, port, now())
    finally:
        process.terminate()
        process.wait(60)


def now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def answers(port: int) -> bool:
    """Whether it is alive."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, URLError):
        return False


def resident(pid: int) -> float:
    """Megabytes of a process in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
