"""``mailvane run``: keeps core and gate up, each in a process of its own, so that neither falls with the other.

Beside them ``mailvane release``, where a tier needs it.

docs/processes.md tells what an operator sees of it.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic

from monitor import logs, notify
from monitor.child import Child, Pace, Process, State

log = logging.getLogger(__name__)

TOLD, MISCONFIGURED, FAULT = 1, 2, 70  # exit codes: said in a line, a wrong configuration, a fault of ours
GRACE: Mapping[str, timedelta] = {  # to end in order
    "core": timedelta(seconds=60),
    "gate": timedelta(seconds=10),
    "release": timedelta(seconds=15),
}
HURRY = timedelta(seconds=5)  # to end when asked twice
OVERSLEPT = 0.25  # seconds that a turn came late: we were stopped, and perhaps all others with us


def run(config: Path | None, *, releases: bool = False) -> int:
    """Keep Mailvane up until a signal comes; the exit code. ``releases``: with ``mailvane release`` beside it."""
    logs.set_up()
    # -P: a folder called monitor where the command is called must not be taken for ours.
    mailvane = (sys.executable, "-P", "-m", "monitor.cli", *(("--config", str(config)) if config else ()))
    core = Child(
        "core",
        (*mailvane, "run", "--core-only"),
        start=timedelta(minutes=10),  # a new version may have a large store to bring to its form
        silence=timedelta(seconds=120),
        stop=GRACE["core"],
    )
    gate = Child(
        "gate",
        (*mailvane, "run", "--gate-only"),
        start=timedelta(seconds=60),
        silence=timedelta(seconds=10),
        stop=GRACE["gate"],
    )
    release = Child(
        "release",
        (*mailvane, "release"),
        start=timedelta(seconds=60),
        silence=timedelta(seconds=300),  # a large queue on a slow disk
        stop=GRACE["release"],
    )
    children = (core, gate, release) if releases else (core, gate)
    return Supervisor(children, check=(*mailvane, "check")).run()


class Supervisor:
    """Children, kept up.

    They are stopped in their order, each when the one before has ended. ``check`` is a command that ends with 2 where
    the configuration is wrong: then nothing is started, and SIGHUP changes nothing.
    """

    def __init__(self, children: Sequence[Child], check: Sequence[str] = (), pace: Pace | None = None) -> None:
        # Of the two ends children hold the first. The other is ours alone, and is gone when we are, however we end.
        self._lifeline = os.pipe()
        self._processes = [Process(child, pace or Pace(), self._lifeline[0]) for child in children]
        self._check = check
        self._checking = 0  # its process
        self._begun = False
        self._old: list[tuple[Process, int]] = []  # to be started anew, with the number of the life that must end
        self._code: int | None = None  # to end with
        self._asked = 0  # how often we were asked to end
        self._told = ""
        self._proven = False  # whether all were ready at once
        self._every = notify.watchdog() or math.inf
        self._beat = -math.inf if notify.watchdog() else math.inf

    def run(self) -> int:
        """Keep them up until a signal comes, or until one can't be started at all; the exit code."""
        with _signals_as_bytes() as signals, selectors.DefaultSelector() as selector:
            for source in (signals, *(process.ear for process in self._processes)):
                selector.register(source, selectors.EVENT_READ)
            self._reload(monotonic())
            while self._code is None or self._checking or any(process.pid for process in self._processes):
                self._sleep(selector)
                self._turn(_read(signals), monotonic())
        log.info("ended", extra={"code": self._code})
        return self._code

    def _sleep(self, selector: selectors.BaseSelector) -> None:
        due = min(self._beat, *(process.due for process in self._processes if process.pid or self._code is None))
        selector.select(None if due == math.inf else max(0.0, due - monotonic()))
        now = monotonic()
        if now > due + OVERSLEPT:
            for process in self._processes:
                process.spare(now)

    def _turn(self, signals: bytes, now: float) -> None:
        for process in self._processes:
            process.hear(now)
        for number in signals:
            self._signalled(number, now)
        self._reap(now)
        if self._code is None:
            self._renew(now)
        else:
            self._stop(now)
        for process in self._processes:
            if process.due <= now and (process.pid or self._code is None):
                process.act(now)
        self._tell(now)

    def _signalled(self, number: int, now: float) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._asked += 1
            self._end(0)
        elif number == signal.SIGHUP and self._code is None:
            self._reload(now)

    def _end(self, code: int) -> None:
        if self._code is not None:
            return
        self._code = code
        log.info("ending")
        notify.notify("STOPPING=1")
        if self._checking:
            os.kill(self._checking, signal.SIGKILL)

    def _reload(self, now: float) -> None:
        """Check the configuration, then go on in ``_checked``."""
        if not self._check:
            self._checked(0, now)
            return
        if self._checking:
            os.kill(self._checking, signal.SIGKILL)  # it may have read what stood there before
        try:
            check = subprocess.Popen(  # noqa: S603  # the command is ours
                self._check, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            self._checking = 0
            log.error("configuration can't be checked", extra={"error": error.strerror})  # noqa: TRY400
            if not self._begun:
                self._checked(0, now)  # each child looks at it for itself
            return
        check.returncode = 0  # as in Process.start
        self._checking = check.pid

    def _checked(self, code: int, now: float) -> None:
        """Where the configuration may be right, start all, or each anew; what is wrong stands on stderr by now."""
        if code == MISCONFIGURED and self._begun:
            log.error("configuration wrong, going on as before")
        elif code == MISCONFIGURED:
            self._end(MISCONFIGURED)
        elif self._code is None:
            self._begun = True
            self._old = [(process, process.pid) for process in self._processes if process.pid]
            for process in self._processes:
                if not process.pid:
                    process.start(now)

    def _renew(self, now: float) -> None:
        """Let old lives end, each when the one before is ready anew, so that one of them always answers."""
        if not self._old:
            return
        process, old = self._old[0]
        if process.pid == old:
            process.stop(now, process.child.stop)
        elif process.state is State.READY:
            self._old.pop(0)

    def _stop(self, now: float) -> None:
        """Ask for the end in order: one after the other; all at once when asked twice; killed when asked thrice."""
        for process in self._processes:
            within = {0: process.child.stop, 1: process.child.stop, 2: HURRY}.get(self._asked, timedelta())
            process.stop(now, within)
            if process.pid and self._asked < 2:
                break

    def _reap(self, now: float) -> None:
        """Wait for all that has ended. As process 1 of a container we are left others' children too."""
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                process = next((one for one in self._processes if one.pid == found.si_pid), None)
                if process and process.state is not State.STOPPING:
                    process.sweep()  # what it left behind; while nobody has waited, its number can't be another's
                code = os.waitstatus_to_exitcode(os.waitpid(found.si_pid, 0)[1])
                if process:
                    self._ended(process, code, now)
                elif found.si_pid == self._checking:
                    self._checking = 0
                    self._checked(code, now)

    def _ended(self, process: Process, code: int, now: float) -> None:
        never = not process.proven and process.state is not State.STOPPING
        process.ended(now, code)
        if never and code in (TOLD, MISCONFIGURED):
            self._end(code)  # a person must mend it, and was told

    def _tell(self, now: float) -> None:
        """Tell systemd how all stand."""
        status = "STATUS=" + ", ".join(f"{process.child.name} {process.state}" for process in self._processes)
        if status != self._told:
            first = not self._proven and all(process.state is State.READY for process in self._processes)
            self._proven |= first
            notify.notify(f"READY=1\n{status}" if first else status)
            self._told = status
        if now >= self._beat:
            notify.notify(notify.BEAT)
            self._beat = now + self._every


@contextmanager
def _signals_as_bytes() -> Iterator[socket.socket]:
    """A socket on which each signal of ours arrives as its number; nothing else happens by it."""
    ours, told = socket.socketpair()
    with ours, told:
        ours.setblocking(False)
        told.setblocking(False)
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and what a shell puts in the background
                signal.signal(number, lambda *_: None)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(-1)


def _read(signals: socket.socket) -> bytes:
    with suppress(BlockingIOError):
        return signals.recv(4096)
    return b""
