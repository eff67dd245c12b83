"""The product itself, as an operator starts it: ``mailvane run`` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.waiting import free_port, until


@dataclass
class Mailvane:
    """A running service and its command line."""

    process: subprocess.Popen[bytes]
    port: int
    config: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **query: object) -> Any:
        """The JSON of a GET."""
        full = f"{self.url}{path}?{urlencode(query)}" if query else f"{self.url}{path}"
        with urllib.request.urlopen(full, timeout=10) as answer:
            return json.load(answer)

    def answer(self, **labels: str) -> str:
        """What a sender is told: held or send."""
        return str(self.get("/v1/check", **labels)["answer"])

    def command(self, *words: str) -> str:
        """The output of ``mailvane WORDS`` with the same configuration."""
        done = subprocess.run(
            [*program(), "--config", str(self.config), *words], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As an operator would; fails if it does not end in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(timeout=60)
            assert code in (0, -signal.SIGTERM), f"ended with {code}: {self.log.read_text()[-2000:]}"


def program() -> list[str]:
    """The command, from the environment that runs the tests."""
    return [sys.executable, "-m", "monitor.cli"]


def started(config: Path, port: int) -> Mailvane:
    """The service with that configuration, once it answers."""
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
    until(lambda: _answers(service), "Mailvane to answer")
    return service


@contextmanager
def mailvane(folder: Path, tables: str) -> Iterator[Mailvane]:
    """The service on a free port with its data in ``folder``; ``tables`` is the rest of its configuration."""
    port = free_port()
    config = folder / "mailvane.toml"
    config.write_text(
        f'[service]\ndata = "{folder / "data"}"\nlisten = "127.0.0.1:{port}"\ncycle = "0.2s"\n{tables}', "utf-8"
    )
    service = started(config, port)
    try:
        yield service
    finally:
        service.stop()


def _answers(service: Mailvane) -> bool:
    if service.process.poll() is not None:
        raise AssertionError(f"mailvane ended: {service.log.read_text()[-3000:]}")
    try:
        return bool(service.get("/healthz"))
    except (OSError, urllib.error.URLError):
        return False
