"""Which events are counted already: their keys, by day, as sorted runs of eight bytes a key; exact, not a filter.

Only what committed batches brought is ever read back. An insert that a crash cut short has rows in ``events`` that
the grains may lack: were they taken for known, sending them again would be filtered to nothing, and the grains would
be wrong for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from monitor.facts.store import Facts

Keys = npt.NDArray[np.uint64]
Days = npt.NDArray[np.int64]  # since 1970
Flags = npt.NDArray[np.bool_]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RUN = 1 << 20  # keys that are read back as one run


class _Runs:
    """The keys of one day; runs shrink by halves at least, so that there are few."""

    def __init__(self) -> None:
        self._runs: list[Keys] = []
        self.size = 0

    def add(self, keys: Keys) -> None:
        """Take keys in, in any order."""
        self.size += len(keys)
        self._runs.append(np.sort(keys))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            young, old = self._runs.pop(), self._runs.pop()
            both = np.concatenate((old, young))
            both.sort(kind="stable")  # merges: each half is sorted
            self._runs.append(both)

    def has(self, keys: Keys) -> Flags:
        """Which of the sorted ``keys`` are known."""
        known = np.zeros(len(keys), np.bool_)
        for run in self._runs:
            at = np.searchsorted(run, keys)
            at[at == len(run)] = 0
            known |= run[at] == keys
        return known


class Window:
    """The keys of the days that batches touch, read from ``events`` when first asked for.

    At most about ``most`` keys are held; days that were not asked for the longest are let go.
    """

    def __init__(self, facts: Facts, most: int = 32 << 20) -> None:
        self._facts = facts
        self._most = most
        self._days: OrderedDict[int, _Runs] = OrderedDict()

    def fresh(self, keys: Keys, days: Days, final: Flags, committed: int) -> Flags:
        """Which rows count: the first of each key, if no batch up to ``committed`` brought it.

        What can happen once only (``final``) is looked for in the neighbouring days too, since two roads may stamp
        it on both sides of midnight.
        """
        fresh = np.zeros(len(keys), np.bool_)
        fresh[np.unique(keys, return_index=True)[1]] = True
        for day in map(int, np.unique(days)):
            mine = np.flatnonzero(fresh & (days == day))
            mine = mine[np.argsort(keys[mine])]
            known = self._at(day, committed).has(keys[mine])
            once = np.flatnonzero(final[mine])
            for neighbour in (day - 1, day + 1):
                known[once] |= self._at(neighbour, committed).has(keys[mine[once]])
            fresh[mine[known]] = False
        return fresh

    def add(self, keys: Keys, days: Days) -> None:
        """These are committed now."""
        for day in map(int, np.unique(days)):
            if day in self._days:  # others are read back with them when they are asked for
                self._days[day].add(keys[days == day])

    def _at(self, day: int, committed: int) -> _Runs:
        if day not in self._days:
            runs = _Runs()
            for keys in self._read(day, committed):
                runs.add(keys)
            self._days[day] = runs
        self._days.move_to_end(day)
        while len(self._days) > 1 and sum(runs.size for runs in self._days.values()) > self._most:
            self._days.popitem(last=False)
        return self._days[day]

    def _read(self, day: int, committed: int) -> Iterable[Keys]:
        begins = _EPOCH + timedelta(days=day)
        pieces: list[Keys] = []
        held = 0
        for piece in self._facts.stream(
            "SELECT key FROM events WHERE at >= toDateTime({since:Int64}, 'UTC')"
            " AND at < toDateTime({until:Int64}, 'UTC') AND batch <= {committed:UInt64}",
            since=int(begins.timestamp()),
            until=int((begins + timedelta(days=1)).timestamp()),
            committed=committed,
        ):
            pieces.append(piece)
            held += len(piece)
            if held >= _RUN:
                yield np.concatenate(pieces)
                pieces, held = [], 0
        if pieces:
            yield np.concatenate(pieces)
