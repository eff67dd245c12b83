"""What a process tells whoever keeps it up, and that it ends with them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from monitor import notify
from tests.waiting import until

# Follows its lifeline, says so, and then what happens to it.
FOLLOWER = """
import os, signal, sys, threading
from datetime import timedelta
from monitor import notify
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
notify.follow(timedelta(seconds=float(sys.argv[1])))
print("follows", notify.LIFELINE in os.environ, flush=True)
asked.wait()
print("asked", flush=True)
if sys.argv[2] == "deaf":
    threading.Event().wait()
"""


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield heard


def test_what_is_told_arrives(ear: socket.socket):
    notify.notify("READY=1\nSTATUS=all is well")
    assert ear.recv(100) == b"READY=1\nSTATUS=all is well"


def test_a_name_in_the_abstract_namespace_is_reached(monkeypatch: pytest.MonkeyPatch):
    name = f"mailvane-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        heard.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify.notify("READY=1")
        assert heard.recv(100) == b"READY=1"


@pytest.mark.parametrize("place", [None, "", "vsock:2:1234", "/nowhere/at/all", "@nobody-listens-here"])
def test_where_nobody_listens_nothing_happens(place: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if place is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", place)
    notify.notify("READY=1")


def test_a_sign_of_life_does_not_wait_for_a_listener_that_hangs_but_being_ready_does(ear: socket.socket):
    _fill(ear)
    notify.notify(notify.BEAT)  # returns: the queue is full
    told = threading.Thread(target=notify.notify, args=("READY=1",))
    told.start()
    until(lambda: ear.recv(100) == b"READY=1", "it to be told once there is room")
    told.join()


def _fill(ear: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        while True:
            try:
                out.sendto(b"full", ear.getsockname())
            except BlockingIOError:
                return


@pytest.mark.parametrize(
    ("asked", "by", "seconds"),
    [
        ("10000000", None, 5.0),
        ("10000000", str(os.getpid()), 5.0),
        ("10000000", "1", None),
        ("0", None, None),
        ("ten", None, None),
        ("", None, None),
    ],
    ids=["us all", "us", "another", "none", "a word", "nothing"],
)
def test_signs_of_life_are_twice_as_many_as_asked_for(asked, by, seconds, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WATCHDOG_USEC", asked)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if by:
        monkeypatch.setenv("WATCHDOG_PID", by)
    assert notify.watchdog() == seconds


def test_nobody_asks_for_signs_of_life_by_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert notify.watchdog() is None


@pytest.mark.parametrize(("how", "code"), [("ends", 0), ("deaf", -signal.SIGKILL)])
def test_a_process_ends_with_its_supervisor_in_order_or_at_the_end_of_its_grace(how, code):
    held, ours = os.pipe()
    grace = "30" if how == "ends" else "0.2"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", FOLLOWER, grace, how],
        stdout=subprocess.PIPE,
        pass_fds=(held,),
        env={**os.environ, notify.LIFELINE: str(held)},
    ) as process:
        os.close(held)
        assert process.stdout
        with closing(process.stdout) as said:
            assert said.readline() == b"follows False\n"  # its own processes shall not look for it
            os.close(ours)
            assert said.readline() == b"asked\n"
            assert process.wait(timeout=10) == code
