"""A supervisor and two small children that do as they are told: real processes, without the product's weight.

    with kept(tmp_path, core="beat", gate="exit 1") as run:
        run.wait("gate started")        # what children note, in the order in which it happened
        run.does("gate", "beat")        # from its next start
        run.lives("gate")               # its process numbers so far
        run.told("ended")               # what the supervisor wrote to its log

beat: all is well. mute: ready, then no sign of life. still: never ready. deaf: deaf to SIGTERM. slow: takes its time to
end. exit N: ends before it is ready. crash N: ends once it is ready. parent: leaves a process of its own behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from monitor import logs, notify
from monitor.child import Child, Pace
from monitor.supervise import Supervisor

NAMES = ("core", "gate")
PACE = Pace(first=timedelta(seconds=0.05), most=timedelta(seconds=0.4), good=timedelta(seconds=1))
SILENCE = timedelta(seconds=1)


class Kept:
    """The supervisor as a process."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    @property
    def code(self) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(timeout=20)

    def does(self, name: str, what: str) -> None:
        (self.folder / f"{name}.does").write_text(what)

    def lives(self, name: str) -> list[int]:
        return [int(line.split()[2]) for line in self.noted() if line.startswith(f"{name} started")]

    def noted(self) -> list[str]:
        return _read(self.folder / "notes").splitlines()

    def told(self, event: str = "") -> list[dict[str, Any]]:
        lines = (line for line in _read(self.folder / "log").splitlines() if line.startswith("{"))
        return [told for line in lines if (told := json.loads(line)) and event in ("", told["event"])]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextmanager
def kept(folder: Path, env: Mapping[str, str] | None = None, **does: str) -> Iterator[Kept]:
    """The supervisor over ``core`` and ``gate``, which beat unless told otherwise; ``check`` is the code of its check."""
    for name, what in does.items():
        (folder / f"{name}.does").write_text(what)
    with (folder / "log").open("ab") as out:
        process = subprocess.Popen(
            _command(folder, "supervise"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield Kept(folder, process)
    finally:
        process.kill()  # children that still live notice it by their lifelines
        process.wait()


def _command(folder: Path, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-P", __file__, str(folder), *words)


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def _note(folder: Path, text: str) -> None:
    with (folder / "notes").open("a") as notes:
        notes.write(f"{text}\n")


def _supervise(folder: Path) -> int:
    logs.set_up()
    children = [
        Child(
            name,
            _command(folder, "child", name),
            start=timedelta(seconds=1 if _read(folder / f"{name}.does") == "still" else 10),
            silence=SILENCE,
            stop=timedelta(seconds=2),
        )
        for name in NAMES
    ]
    return Supervisor(children, _command(folder, "check"), PACE).run()


def _check(folder: Path) -> int:
    _note(folder, "checked")
    return int(_read(folder / "check.does") or "0")


def _child(folder: Path, name: str) -> int:
    what, *how = (_read(folder / f"{name}.does") or "beat").split()
    asked = threading.Event()

    def end(*_: object) -> None:
        _note(folder, f"{name} asked")
        asked.set()

    signal.signal(signal.SIGTERM, end)
    _note(folder, f"{name} started {os.getpid()}")
    notify.follow(timedelta(seconds=2))
    if what == "exit":
        return int(how[0])
    if what == "parent":
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        _note(folder, f"{name} left {left.pid}")
    _note(folder, f"{name} hears at {os.environ['NOTIFY_SOCKET']}")
    if what != "still":
        notify.notify("READY=1")
    if what == "crash":
        return int(how[0])
    while not asked.wait(notify.watchdog()) or what == "deaf":
        if what not in ("mute", "still"):
            notify.notify(notify.BEAT)
        if what == "deaf":
            asked.clear()
    if what == "slow":
        threading.Event().wait(0.3)
    _note(folder, f"{name} ended")
    return 0


def main(folder: str, what: str, *names: str) -> int:
    """One of the processes."""
    place = Path(folder)
    match what:
        case "supervise":
            return _supervise(place)
        case "check":
            return _check(place)
        case _:
            return _child(place, *names)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
