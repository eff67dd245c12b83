"""Who guesses passwords waits: longer each time, and by the address it comes from.

Counted for a name together with an address, so that nobody can keep the on-call engineer out from elsewhere; beside it
for the address alone, which stops one that tries many names. A name by itself is never locked.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from monitor.access.limits import network

FREE = 5  # wrong passwords for a name from an address
FREE_ADDRESS = 30  # for all names from an address: an office may share one
FIRST, LONGEST = timedelta(minutes=1), timedelta(minutes=60)
FORGOTTEN = timedelta(hours=2)
MOST = 10_000  # pairs that are remembered; the oldest go


@dataclass(slots=True)
class _Tries:
    count: int
    until: datetime
    last: datetime


class Lockout:
    """The counters, in memory. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._tries: dict[tuple[str, str], _Tries] = {}
        self._lock = threading.Lock()

    def wait(self, name: str, address: str) -> int:
        """The seconds until a password may be tried, 0: now."""
        now = self._clock()
        with self._lock:
            return max(self._left(pair, now) for pair in _pairs(name, address))

    def failed(self, name: str, address: str) -> int:
        """A wrong password: the seconds until the next one may be tried."""
        now = self._clock()
        with self._lock:
            for pair, free in zip(_pairs(name, address), (FREE, FREE_ADDRESS), strict=True):
                before = self._tries.pop(pair, None)
                count = before.count + 1 if before and now - before.last < FORGOTTEN else 1
                beyond = count - free
                wait = min(FIRST * 2 ** min(beyond, 10), LONGEST) if beyond >= 0 else timedelta()
                self._tries[pair] = _Tries(count, now + wait, now)
            while len(self._tries) > MOST:
                del self._tries[next(iter(self._tries))]
        return self.wait(name, address)

    def right(self, name: str, address: str) -> None:
        """The right password: what was counted for the name is forgotten, not what was for the address."""
        with self._lock:
            self._tries.pop(_pairs(name, address)[0], None)

    def _left(self, pair: tuple[str, str], now: datetime) -> int:
        tries = self._tries.get(pair)
        if tries is None or tries.last > now:  # a clock that was set back must not lock for longer than was meant
            return 0
        return max(0, math.ceil((tries.until - now).total_seconds()))


def _pairs(name: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
    place = network(address)
    return (name[:100], place), ("", place)
