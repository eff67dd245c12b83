"""Processes beside a benchmark: children of ours, and peers, which have a virtual environment of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"


def python() -> Path:
    """The Python that has the peers' packages.

    Raises:
        SystemExit: they can't be installed; the message is what pip says.
    """
    home, pinned = ROOT / ".venv" / "peers", PEERS / "requirements.txt"
    found, stamp = home / "bin" / "python", home / ".installed"
    if stamp.exists() and stamp.stat().st_mtime >= pinned.stat().st_mtime:
        return found
    print(
        "peers: installing pandas, DuckDB and flufl.bounce into .venv/peers: once, half a minute with the download",
        flush=True,
    )
    _run([sys.executable, "-m", "venv", "--clear", home])
    _run([found, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", pinned])
    stamp.touch()
    return found


def _run(command: list[Any]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peers can't be installed: {done.stderr.strip()[-2000:]}")


class Child:
    """A process that answers each line of JSON with another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **question: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return dict(json.loads(answer))


@contextmanager
def child(*command: object) -> Iterator[Child]:
    """A process of ours or a peer's; it ends when its input does."""
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Child(process)
        except BaseException:
            process.kill()
            raise
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
