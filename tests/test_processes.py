"""Core and gate as an operator has them: whatever falls, the other answers, and all is well again soon."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.mailvane import Mailvane, alive, mailvane, program, started
from tests.waiting import until

UNITS = Path(os.environ.get("MAILVANE_CHECKOUT", Path(__file__).parent.parent)) / "deploy" / "systemd"
HEAVY = ("chdb", "numpy", "pyarrow", "pandas")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailvane]:
    with mailvane(tmp_path_factory.mktemp("processes"), "") as running:
        running.command("pause", "tenant=s1", "stream=marketing", "--why", "a test")
        until(lambda: held(running, gate=True) and held(running, gate=False), "the pause to be in force", 10)
        yield running


def held(service: Mailvane, *, gate: bool) -> bool:
    return service.answer(gate=gate, tenant="s1", stream="marketing") == "held"


@contextmanager
def answered(service: Mailvane, *, gate: bool) -> Iterator[None]:
    """One of the two answers right, all the while."""
    wrong: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            try:
                if not held(service, gate=gate):
                    wrong.append("send")
            except (OSError, urllib.error.URLError) as error:
                wrong.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()
    assert wrong == []


def test_core_killed_leaves_the_gate_answering(service: Mailvane):
    before = service.pids()
    with answered(service, gate=True):
        service.kill_core()
        until(lambda: service.pids().get("core") not in (None, before["core"]), "core to be started again", 10)
        service.wait()
    assert service.pids()["gate"] == before["gate"]
    assert held(service, gate=False)


def test_the_gate_killed_leaves_core_answering(service: Mailvane):
    before = service.pids()
    with answered(service, gate=False):
        service.kill_gate()
        until(lambda: service.pids().get("gate") not in (None, before["gate"]), "the gate to be started again", 10)
        service.wait()
    assert service.pids()["core"] == before["core"]
    assert held(service, gate=True)


def test_both_killed_are_back_and_hold_what_they_held(service: Mailvane):
    service.kill_core()
    service.kill_gate()
    service.wait()
    assert held(service, gate=True)
    assert held(service, gate=False)


def test_a_gate_that_is_stopped_is_replaced_within_twelve_seconds(service: Mailvane):
    began = time.monotonic()
    with answered(service, gate=False):
        stopped = service.stop_gate()
        until(lambda: service.pids().get("gate") not in (None, stopped), "another gate", 15)
        service.wait()
    assert time.monotonic() - began < 12
    assert not alive(stopped)
    assert held(service, gate=True)


def test_gate_and_supervisor_load_nothing_heavy(service: Mailvane):
    pids = service.pids()
    for name in ("supervisor", "gate"):
        loaded = Path(f"/proc/{pids[name]}/maps").read_text()
        assert [heavy for heavy in HEAVY if f"/{heavy}" in loaded] == []
    assert "/chdb" in Path(f"/proc/{pids['core']}/maps").read_text()  # it would be seen


def test_a_hang_up_reads_the_configuration_anew_and_a_wrong_one_changes_nothing(service: Mailvane):
    before = service.pids()
    right = service.config.read_text("utf-8")
    service.config.write_text(f'{right}\n[automation]\nmode = "enforced"\n', "utf-8")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: any("wrong" in told["event"] for told in service.told()), "the mistake to be told", 10)
    assert service.pids() == before
    service.config.write_text(f'{right}\n[automation]\nmode = "enforce"\n', "utf-8")
    service.process.send_signal(signal.SIGHUP)
    until(
        lambda: not set(service.pids().items()) & {("core", before["core"]), ("gate", before["gate"])}, "new ones", 30
    )
    service.wait()
    assert service.process.poll() is None
    assert [told["mode"] for told in service.told() if "mode" in told][-1] == "enforce"
    assert held(service, gate=True)


def test_a_hang_up_with_a_certificate_that_cannot_be_used_changes_nothing(service: Mailvane):
    before = service.pids()
    right = service.config.read_text("utf-8")
    told = sum("wrong" in told["event"] for told in service.told())
    service.config.write_text(right.replace("[service]\n", '[service]\ntls_cert = "none.pem"\n'), "utf-8")
    try:
        service.process.send_signal(signal.SIGHUP)
        until(lambda: sum("wrong" in one["event"] for one in service.told()) > told, "the mistake to be told", 10)
    finally:
        service.config.write_text(right, "utf-8")
    assert "service.tls_cert: none.pem can't be used: No such file" in service.log.read_text("utf-8")
    assert service.pids() == before
    assert held(service, gate=False)


def test_a_supervisor_that_is_killed_leaves_nobody_and_can_be_started_anew(service: Mailvane):
    pids = service.pids()
    os.kill(pids["supervisor"], signal.SIGKILL)
    service.process.wait()
    until(lambda: not any(map(alive, pids.values())), "core and gate to end", 20)
    service.process = started(service.config, service.port).process
    assert held(service, gate=True)


@pytest.mark.parametrize("part", ["listen", "gate"])
def test_a_port_that_is_taken_is_told_and_ends_it(service: Mailvane, tmp_path: Path, part: str):
    taken = service.port if part == "listen" else service.gate_port
    config = tmp_path / "second.toml"
    other = {"listen": "127.0.0.1:0", "gate": "127.0.0.1:0", part: f"127.0.0.1:{taken}"}
    lines = [f'data = "{tmp_path / "data"}"', *(f'{key} = "{value}"' for key, value in other.items())]
    config.write_text("\n".join(["[service]", *lines]), "utf-8")
    done = _run(config)
    assert done.returncode == 1
    assert f"127.0.0.1:{taken} can't be listened on" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stop_ends_core_before_the_gate(service: Mailvane):
    pids = service.pids()
    told = len(service.told())
    service.stop()
    assert not any(map(alive, pids.values()))
    ends = [event for event in service.told()[told:] if event["event"] == "ended" and "child" in event]
    assert [(end["child"], end.get("code")) for end in ends] == [("core", 0), ("gate", 0)]


@pytest.mark.parametrize("only", [(), ("--core-only",), ("--gate-only",)])
def test_a_wrong_configuration_ends_it_at_once_and_is_told_once(tmp_path: Path, only: tuple[str, ...]):
    config = tmp_path / "mailvane.toml"
    config.write_text('[service]\nlisten = "everywhere"\n', "utf-8")
    done = _run(config, *only)
    assert done.returncode == 2
    assert done.stderr.count("service.listen") == 1
    assert not (tmp_path / "data").exists()


def _run(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program(), "--config", str(config), "run", *options], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("unit", ["mailvane", "mailvane-core", "mailvane-gate", "mailvane-release"])
def test_systemd_understands_the_unit(unit: str, tmp_path: Path):
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd-analyze is not here")
    here = tmp_path / f"{unit}.service"
    text = (UNITS / f"{unit}.service").read_text("utf-8")
    here.write_text(text.replace("/opt/mailvane/bin", str(Path(sys.executable).parent)), "utf-8")
    done = subprocess.run(
        [analyze, "verify", "--man=no", here], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
