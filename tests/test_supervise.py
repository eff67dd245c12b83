"""Two processes under a supervisor: each is kept up for itself, and all end in order."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.kept import PACE, SILENCE, Kept, kept
from tests.servers.mailvane import alive
from tests.waiting import until


def ready(run: Kept, times: int = 1) -> None:
    """Until each child was ready so often."""
    for name in ("core", "gate"):
        until(lambda name=name: len(readies(run, name)) >= times, f"{name} to be ready", 20)


def readies(run: Kept, name: str) -> list[dict]:
    return [told for told in run.told("ready") if told["child"] == name]


def orders(run: Kept) -> list[str]:
    return [line for line in run.noted() if line.endswith((" asked", " ended"))]


IN_ORDER = ["core asked", "core ended", "gate asked", "gate ended"]


@pytest.mark.parametrize(("name", "other"), [("core", "gate"), ("gate", "core")])
def test_one_that_is_killed_is_started_again_and_the_other_is_not_touched(tmp_path, name, other):
    with kept(tmp_path) as run:
        ready(run)
        os.kill(run.lives(name)[0], signal.SIGKILL)
        until(lambda: len(readies(run, name)) == 2, "it to be ready again", 20)
        ended = run.told("ended")[0]
        assert (ended["child"], ended["signal"]) == (name, "SIGKILL")
        assert len(run.lives(other)) == 1
        assert alive(run.lives(other)[0])


def test_both_killed_are_both_started_again(tmp_path):
    with kept(tmp_path) as run:
        ready(run)
        for name in ("core", "gate"):
            os.kill(run.lives(name)[0], signal.SIGKILL)
        ready(run, times=2)


def test_one_that_is_stopped_is_killed_and_started_again(tmp_path):
    with kept(tmp_path) as run:
        ready(run)
        gate = run.lives("gate")[0]
        os.kill(gate, signal.SIGSTOP)
        until(lambda: len(readies(run, "gate")) == 2, "another in its place", 20)
        assert not alive(gate)
        assert run.told("silent, killed")[0]["pid"] == gate
        assert len(run.lives("core")) == 1


@pytest.mark.parametrize("what", ["mute", "still"])
def test_one_that_hangs_is_killed_and_started_again(tmp_path, what):
    with kept(tmp_path, gate=what) as run:
        until(lambda: run.lives("gate"), "it to start")
        run.does("gate", "beat")
        until(lambda: len(run.lives("gate")) == 2, "another in its place", 20)
        ready(run)
        assert len(run.lives("core")) == 1


def test_a_sign_of_life_from_a_stranger_is_not_believed(tmp_path):
    with kept(tmp_path, gate="still") as run:
        place = until(lambda: re.search(r"gate hears at @(\S+)", "\n".join(run.noted())), "its address")[1]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"READY=1", f"\0{place}")
        until(lambda: run.told("silent, killed"), "it to be killed all the same", 20)
        assert readies(run, "gate") == []


def test_what_one_that_was_killed_had_started_does_not_outlive_it(tmp_path):
    with kept(tmp_path, core="parent") as run:
        ready(run)
        left = int(next(line for line in run.noted() if line.startswith("core left")).split()[2])
        os.kill(run.lives("core")[0], signal.SIGKILL)
        until(lambda: not alive(left), "what it left to be gone", 20)


def test_one_that_crashes_again_and_again_waits_longer_each_time_and_anew_after_a_good_run(tmp_path):
    with kept(tmp_path, gate="crash 70") as run:
        waits = until(
            lambda: len(run.told("ended")) >= 5 and [told["again_in"] for told in run.told("ended")], "crashes"
        )
        assert waits[:5] == [0.05, 0.1, 0.2, 0.4, 0.4]
        run.does("gate", "beat")
        crashed = len(waits)
        until(lambda: len(readies(run, "gate")) > crashed, "it to be well", 20)
        time.sleep(PACE.good.total_seconds())  # a good run lasts
        before = len(run.told("ended"))
        os.kill(run.lives("gate")[-1], signal.SIGKILL)
        until(lambda: len(run.told("ended")) > before, "its end to be noticed")
        assert run.told("ended")[-1]["again_in"] == 0.05


@pytest.mark.parametrize("code", [1, 2])
def test_a_mistake_that_was_told_at_the_first_start_ends_all_with_its_code(tmp_path, code):
    with kept(tmp_path, core=f"exit {code}") as run:
        assert run.code == code
        assert len(run.lives("core")) == 1
        assert not any(map(alive, run.lives("gate")))


def test_a_fault_at_the_first_start_is_tried_again_beside_the_other(tmp_path):
    with kept(tmp_path, core="exit 70") as run:
        until(lambda: len(run.lives("core")) >= 3, "it to be tried again", 20)
        assert len(run.lives("gate")) == 1
        run.does("core", "beat")
        ready(run)


def test_a_mistake_after_the_first_start_ends_nothing(tmp_path):
    with kept(tmp_path) as run:
        ready(run)
        run.does("core", "exit 2")
        os.kill(run.lives("core")[0], signal.SIGKILL)
        until(lambda: len(run.lives("core")) >= 3, "it to be tried again", 20)
        assert alive(run.lives("gate")[0])
        assert run.process.poll() is None


def test_a_wrong_configuration_starts_nothing(tmp_path):
    with kept(tmp_path, check="2") as run:
        assert run.code == 2
        assert run.noted() == ["checked"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_core_ends_before_the_gate(tmp_path, number):
    with kept(tmp_path, core="slow") as run:
        ready(run)
        run.signal(number)
        assert run.code == 0
        assert orders(run) == IN_ORDER


def test_ctrl_c_at_a_terminal_keeps_the_order(tmp_path):
    with kept(tmp_path, core="slow") as run:
        ready(run)
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.code == 0
        assert orders(run) == IN_ORDER


def test_a_stop_while_all_start_is_in_order_too(tmp_path):
    with kept(tmp_path, core="still", gate="still") as run:
        until(lambda: run.lives("core") and run.lives("gate"), "both to start")
        run.signal(signal.SIGTERM)
        assert run.code == 0
        assert orders(run) == IN_ORDER


def test_one_that_is_deaf_is_killed_at_the_end_of_its_time(tmp_path):
    with kept(tmp_path, core="deaf") as run:
        ready(run)
        run.signal(signal.SIGTERM)
        assert run.code == 0
        assert [told["child"] for told in run.told("did not end in time, killed")] == ["core"]
        assert orders(run)[-2:] == ["gate asked", "gate ended"]


def test_a_second_signal_asks_all_at_once_and_a_third_kills(tmp_path):
    with kept(tmp_path, core="deaf", gate="deaf") as run:
        ready(run)
        run.signal(signal.SIGTERM)
        until(lambda: "core asked" in run.noted(), "core to be asked")
        assert "gate asked" not in run.noted()
        run.signal(signal.SIGTERM)
        until(lambda: "gate asked" in run.noted(), "the gate to be asked", 1.5)  # and not when core's second is over
        run.signal(signal.SIGTERM)
        assert run.code == 0
        assert [told["child"] for told in run.told("did not end in time, killed")] == ["core", "gate"]


def test_a_hang_up_starts_all_anew_one_after_the_other(tmp_path):
    with kept(tmp_path) as run:
        ready(run)
        run.signal(signal.SIGHUP)
        ready(run, times=2)
        notes = [re.sub(r" \d+$", "", line) for line in run.noted() if "hears" not in line]
        assert notes[3:] == [
            "checked",
            "core asked",
            "core ended",
            "core started",
            "gate asked",
            "gate ended",
            "gate started",
        ]
        assert run.process.poll() is None


def test_a_hang_up_with_a_wrong_configuration_changes_nothing(tmp_path):
    with kept(tmp_path) as run:
        ready(run)
        run.does("check", "2")
        run.signal(signal.SIGHUP)
        until(lambda: run.told("configuration wrong, going on as before"), "it to be told", 20)
        assert len(run.lives("core")) == len(run.lives("gate")) == 1


def test_children_end_with_a_supervisor_that_is_killed(tmp_path):
    with kept(tmp_path, gate="deaf") as run:
        ready(run)
        run.signal(signal.SIGKILL)
        until(lambda: "core ended" in run.noted(), "core to end in order", 20)
        until(lambda: not alive(run.lives("gate")[0]), "the deaf gate to end", 20)


def test_a_machine_that_stood_still_makes_nobody_silent(tmp_path):
    with kept(tmp_path) as run:
        ready(run)
        run.does("check", "2")
        children = [*run.lives("core"), *run.lives("gate")]
        for pid in (run.process.pid, *children):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * SILENCE.total_seconds())  # a stop lasts
        run.signal(signal.SIGCONT)
        run.signal(signal.SIGHUP)
        until(lambda: run.told("configuration wrong, going on as before"), "the supervisor to go on")
        for pid in children:
            os.kill(pid, signal.SIGCONT)
        run.signal(signal.SIGTERM)
        assert run.code == 0
        assert run.told("silent, killed") == []


def test_children_do_not_wait_for_a_supervisor_that_hangs(tmp_path):
    with kept(tmp_path) as run:
        ready(run)
        run.signal(signal.SIGSTOP)
        os.kill(run.lives("gate")[0], signal.SIGTERM)
        until(lambda: "gate ended" in run.noted(), "the gate to end", 20)
        run.signal(signal.SIGCONT)
        ready(run)


def test_idle_costs_next_to_nothing(tmp_path):
    with kept(tmp_path) as run:
        ready(run)
        before = _ticks(run.process.pid)
        time.sleep(1)  # what is measured
        assert _ticks(run.process.pid) - before <= 2


def _ticks(pid: int) -> int:
    """Hundredths of a second of the processor that it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "systemd"))
        heard.settimeout(20)
        yield heard


def test_systemd_is_told_how_all_stand(tmp_path, systemd: socket.socket):
    env = {"NOTIFY_SOCKET": str(tmp_path / "systemd"), "WATCHDOG_USEC": "200000"}
    with kept(tmp_path, env) as run:
        said: list[str] = []
        while not (said and said[-1].startswith("READY=1")):
            said.append(systemd.recv(1000).decode())
        assert said[-1] == "READY=1\nSTATUS=core ready, gate ready"
        assert "STATUS=core starting, gate starting" in said
        assert systemd.recv(1000) == b"WATCHDOG=1"
        run.signal(signal.SIGTERM)
        said = []
        while not (said and said[-1] == "STATUS=core down, gate down"):
            said.append(systemd.recv(1000).decode())
        assert [one for one in said if one != "WATCHDOG=1"] == [
            "STOPPING=1",
            "STATUS=core stopping, gate ready",
            "STATUS=core down, gate stopping",
            "STATUS=core down, gate down",
        ]
        assert run.code == 0
