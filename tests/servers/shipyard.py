"""A core that speaks TLS and shippers that send to it: real processes, on 127.0.0.1.

yard = Yard(tmp_path)           # certificates and configurations
core = yard.core()              # running; core.kill(), core.start(), core.facts()
shipper = yard.shipper("mx1")   # running; shipper.log(lines), shipper.kill(), shipper.start()
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from tests.servers.mailvane import program
from tests.waiting import free_port, until


@dataclass
class Process:
    """One ``mailvane`` command that runs until it is told to end."""

    words: list[str]
    config: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> Path:
        return self.config.with_suffix(".log")

    def start(self) -> None:
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(
                [*program(), "--config", str(self.config), *self.words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ,
            )

    def kill(self) -> None:
        """By -9."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def stop(self) -> None:
        """As an operator would; fails if it does not end in order."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(timeout=60) == 0, self.output.read_text()[-2000:]

    def told(self, event: str = "") -> list[dict[str, Any]]:
        """The log so far, one object an event."""
        lines = self.output.read_text("utf-8").splitlines() if self.output.exists() else []
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [one for one in found if event in ("", one["event"])]

    def once(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same command with more words, to its end."""
        whole = [*program(), "--config", str(self.config), *self.words, *words]
        return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)


@dataclass
class Core(Process):
    port: int = 0
    token: str = ""
    trusts: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def ready(self) -> Core:
        until(self._answers, "the core to answer")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output.read_text()[-3000:]
        try:
            return bool(self.get("/healthz"))
        except OSError:
            return False

    def get(self, path: str) -> Any:
        asked = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(asked, timeout=20, context=self.trusts) as answer:
            body = answer.read().decode()
        return json.loads(body) if body.startswith("{") else body

    def errors(self) -> dict[str, str]:
        """What /readyz tells, whatever its status."""
        try:
            return dict(self.get("/readyz")["errors"])
        except urllib.error.HTTPError as error:
            with error:
                return dict(json.load(error)["errors"])

    def post(self, body: bytes, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, answer and headers of POST /v1/batches, whatever they are."""
        sent = {"Authorization": f"Bearer {self.token}", "Content-Encoding": "zstd", **headers}
        asked = urllib.request.Request(f"{self.url}/v1/batches", body, sent)
        try:
            with urllib.request.urlopen(asked, timeout=20, context=self.trusts) as answer:
                return answer.status, json.load(answer), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), dict(error.headers)

    def facts(self) -> dict[str, Any] | None:
        """The totals, once nothing on disk waits to be counted; None while the core is away."""
        try:
            totals = self.get("/v1/facts")
        except OSError:
            return None
        return None if totals["waiting"] else totals

    def metric(self, name: str, **labels: str) -> float:
        """Of that series; NaN where there is none."""
        told = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        start = f"{name}{{{told}}} " if told else f"{name} "
        found = [line for line in self.get("/metrics").splitlines() if line.startswith(start)]
        return float(found[0].rpartition(" ")[2]) if found else float("nan")


@dataclass
class Shipper(Process):
    path: Path = Path()

    def log(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


class Yard:
    """Certificates and configurations in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.certificate = folder / "core.pem"
        self.authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self.certificate)
        self.token = folder / "token"
        self.token.write_text("a-token-of-the-tests\n")
        self._running: list[Process] = []

    def core(self, *, started: bool = True) -> Core:
        """Listens on all addresses, so that it asks for the token."""
        config = self.folder / "core.toml"
        config.write_text(
            f'[service]\ndata = "{self.folder / "core"}"\nlisten = "0.0.0.0:{self.port}"\n'
            f'gate = "127.0.0.1:{free_port()}"\ntoken_file = "{self.token}"\ntls_cert = "{self.certificate}"\n'
        )
        trusts = ssl.create_default_context(cafile=self.ca)
        core = Core(["run", "--core-only"], config, None, self.port, self.token.read_text().strip(), trusts)
        self._running.append(core)
        if started:
            core.start()
            core.ready()
        return core

    def shipper(self, node: str, *, started: bool = True, **more: Any) -> Shipper:
        """Follows a log of its own."""
        path = self.folder / f"{node}.mail.log"
        path.touch()
        settings = {
            "to": f"https://127.0.0.1:{self.port}",
            "node": node,
            "data": str(self.folder / node),
            "token_file": str(self.token),
            "ca_file": str(self.ca),
            **more,
        }
        tables = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        config = self.folder / f"{node}.toml"
        config.write_text(f'[ship]\n{tables}\n[collector.mail]\nkind = "sendlog"\nevery = "0.1s"\npath = "{path}"\n')
        shipper = Shipper(["ship"], config, None, path)
        self._running.append(shipper)
        if started:
            shipper.start()
        return shipper

    def close(self) -> None:
        for process in reversed(self._running):
            process.kill()


def lines(first: int, count: int, salt: str = "", host: str = "mail1") -> str:
    """So many messages sent just now, numbered from ``first``; ``salt`` makes them hard to pack."""
    at = (datetime.now(UTC) - timedelta(seconds=5)).isoformat(timespec="microseconds")
    return "".join(
        f"{at} {host} postfix/smtp[7]: 4Zq{number:07d}z1bD: to=<kim{number}{salt and os.urandom(48).hex()}@there.example>, "
        "relay=mx.there.example[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)\n"
        for number in range(first, first + count)
    )
