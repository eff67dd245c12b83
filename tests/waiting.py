"""Waiting for conditions, never for time alone."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

PORTS = range(10_000, 32_000)  # below those that Linux gives by itself
_turns = itertools.count(os.getpid() * 131)  # processes beside each other begin far apart


def until(found: Callable[[], T], what: str, seconds: float = 60) -> T:
    """The first true answer of ``found``; fails, saying what was awaited, after ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        if answer := found():
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)  # the pause between two looks, not the thing waited for


def free_port() -> int:
    """A port of 127.0.0.1 that is free, and that the kernel gives to nobody who asks for any.

    From the kernel's own range, a neighbour could be given it between our look and our server's start; both bind it
    then, and only the first can listen.
    """
    for turn in _turns:
        port = PORTS[turn % len(PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: turns never end")


def answers(port: int) -> bool:
    """Whether somebody listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
