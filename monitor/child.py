"""One process that is kept up: started, heard, ended. When to do which is decided in ``monitor/supervise.py``.

Moments are seconds of the monotonic clock, and arguments.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import socket
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from monitor.notify import LIFELINE

log = logging.getLogger(__name__)

MOST = 64  # datagrams read in one turn, whoever sends them
_SENDER = struct.Struct("3i")  # of a datagram: pid, uid, gid (unix(7), SCM_CREDENTIALS)


@dataclass(frozen=True, slots=True)
class Child:
    """What is kept up: a command that speaks ``monitor/notify.py``, and the time that it has for each thing."""

    name: str
    command: tuple[str, ...]
    start: timedelta  # from its start, or its last sign of life, until it is ready
    silence: timedelta  # between two signs of life
    stop: timedelta  # from being asked to end until it has ended


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon one that ended is started again: ``first``, doubling up to ``most``; ``first`` again after ``good``."""

    first: timedelta = timedelta(seconds=0.5)
    most: timedelta = timedelta(seconds=30)
    good: timedelta = timedelta(seconds=60)  # of being ready


class State(StrEnum):
    """Where a process stands."""

    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    KILLED = "killed"  # and not yet gone


class Process:
    """A child and its present life. At ``due`` it must be acted upon, unless something happens before."""

    def __init__(self, child: Child, pace: Pace, lifeline: int) -> None:
        self.child = child
        self.state = State.DOWN
        self.pid = 0  # 0: down
        self.proven = False  # whether it was ever ready
        self.due = math.inf
        self._pace = pace
        self._lifeline = lifeline
        self._wait = pace.first.total_seconds()
        self._began = 0.0
        self._ready_at = math.inf
        self._name = f"mailvane/{child.name}/{secrets.token_hex(8)}"
        # In the abstract namespace no file is left behind. Anyone may write there: each datagram's sender is looked at.
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.ear.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.ear.bind(f"\0{self._name}")

    def start(self, now: float) -> None:
        """Start it; where the system can't, that is like an end at once."""
        try:
            # A session of its own: Ctrl-C at a terminal reaches the supervisor alone, which ends all in order.
            process = subprocess.Popen(  # noqa: S603  # the command is ours
                self.child.command,
                stdin=subprocess.DEVNULL,
                env=self._environment(),
                pass_fds=(self._lifeline,),
                start_new_session=True,
            )
        except OSError as error:
            self.due = now + self._back_off(now)
            log.error("can't be started", extra=self._facts(error=error.strerror, again_in=self.due - now))  # noqa: TRY400
            return
        process.returncode = 0  # whatever it will be: the supervisor waits for all processes, by number
        self.pid, self.state = process.pid, State.STARTING
        self._began = now
        self.due = now + self.child.start.total_seconds()
        log.info("started", extra=self._facts(pid=self.pid))

    def hear(self, now: float) -> None:
        """Read what it told."""
        with suppress(BlockingIOError):
            for _ in range(MOST):
                text, beside, *_ = self.ear.recvmsg(4096, socket.CMSG_SPACE(_SENDER.size))
                if any(_SENDER.unpack(sender)[0] == self.pid for *_, sender in beside if len(sender) == _SENDER.size):
                    self._told(text.decode("utf-8", "replace").splitlines(), now)

    def _told(self, said: list[str], now: float) -> None:
        if "READY=1" in said and self.state is State.STARTING:
            self.state, self.proven, self._ready_at = State.READY, True, now
            log.info("ready", extra=self._facts(after=round(now - self._began, 3)))
        if "READY=1" in said or "WATCHDOG=1" in said:
            self.spare(now)

    def spare(self, now: float) -> None:
        """It counts as heard just now."""
        if self.state is State.READY:
            self.due = now + self.child.silence.total_seconds()
        elif self.state is State.STARTING:
            self.due = now + self.child.start.total_seconds()

    def stop(self, now: float, within: timedelta) -> None:
        """Ask it to end; it is killed ``within`` that time, or sooner where that was said before."""
        if self.state in (State.DOWN, State.KILLED):
            return
        if self.state is not State.STOPPING:
            self.state, self.due = State.STOPPING, math.inf
            os.kill(self.pid, signal.SIGTERM)
        self.due = min(self.due, now + within.total_seconds())

    def act(self, now: float) -> None:
        """``due`` is reached: start what is down, kill what should have been heard or should have ended."""
        if self.state is State.DOWN:
            self.start(now)
            return
        what = "did not end in time, killed" if self.state is State.STOPPING else "silent, killed"
        log.warning(what, extra=self._facts(pid=self.pid))
        self.state, self.due = State.KILLED, math.inf
        self.sweep()

    def sweep(self) -> None:
        """Kill it, and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def ended(self, now: float, code: int) -> None:
        """It has ended, with this code or, below zero, by that signal; it is due to be started again."""
        wanted = self.state is State.STOPPING
        # Who was asked for it, or was silent for long, need not wait.
        wait = self._back_off(now) if self.state in (State.STARTING, State.READY) else 0.0
        how: dict[str, object] = {"signal": _name(-code)} if code < 0 else {"code": code}
        again = {} if wanted else {"again_in": wait}
        log.log(logging.INFO if wanted else logging.WARNING, "ended", extra=self._facts(pid=self.pid, **how, **again))
        self.pid, self.state, self.due = 0, State.DOWN, now + wait
        self._ready_at = math.inf

    def _back_off(self, now: float) -> float:
        first, most = self._pace.first.total_seconds(), self._pace.most.total_seconds()
        wait = first if now - self._ready_at >= self._pace.good.total_seconds() else self._wait
        self._wait = min(2 * wait, most)
        return wait

    def _environment(self) -> dict[str, str]:
        """Ours, but for what systemd told us: they are told by us."""
        ours = {key: value for key, value in os.environ.items() if key != "WATCHDOG_PID"}
        silence = round(self.child.silence.total_seconds() * 1e6)
        return {**ours, "NOTIFY_SOCKET": f"@{self._name}", "WATCHDOG_USEC": str(silence), LIFELINE: str(self._lifeline)}

    def _facts(self, **more: object) -> dict[str, object]:
        return {"child": self.child.name, **more}


def _name(number: int) -> str:
    return next((known.name for known in signal.Signals if known == number), str(number))  # real-time ones have none
