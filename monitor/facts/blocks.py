"""Blocks of rows on their way into the tables: the events, and what they add to each grain."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from monitor.facts.grains import Sums, sums
from monitor.facts.runs import Runs
from monitor.facts.store import Facts

_MOST = 4 << 20  # series held, eight bytes each; beyond, all are forgotten and written again


class Blocks:
    """Writes blocks; one thread at a time may.

    Each insert has its own token for its table, so that after a crash the same block brings just what is missing.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._named = Named()

    def put(self, rows: pa.Table, token: str) -> None:
        """The events and their sums; the same block again with the same token changes nothing.

        Raises:
            FactsError: the engine refused; the same block must be put again.
        """
        self.put_events(rows, token)
        self.put_sums(rows, token)

    def put_events(self, rows: pa.Table, token: str) -> None:
        """The events alone: columns of ``rows.ROWS`` and ``batch``, none of them counted before."""
        self._facts.append("events", whole(rows), token)

    def put_sums(self, rows: pa.Table, token: str) -> None:
        """What the events add to each grain; a series is named before it is counted."""
        for added in sums(whole(rows)):
            new = self._named.new(added)
            if len(new):
                self._facts.append(added.grain.series, whole(added.named(rows, new)), _told(token, added, new))
                self._named.add(added, new)
            self._facts.append(added.grain.name, added.counts, token)


class Named:
    """The series that this process has named. To name one twice costs room until the next merge, and harms nothing."""

    def __init__(self) -> None:
        self._days: dict[tuple[str, int], Runs] = {}

    def new(self, sums: Sums) -> npt.NDArray[np.int64]:
        """Places in ``sums`` of one row for each series that is not named for its day yet."""
        found = [np.zeros(0, np.int64)]
        for day in map(int, np.unique(sums.day)):
            mine = np.flatnonzero(sums.day == day)
            series, first = np.unique(sums.series[mine], return_index=True)
            known = self._days.get((sums.grain.name, day))
            found.append(mine[first if known is None else first[~known.has(series)]])
        return np.concatenate(found)

    def add(self, sums: Sums, places: npt.NDArray[np.int64]) -> None:
        """These are named now."""
        if sum(runs.size for runs in self._days.values()) > _MOST:
            self._days.clear()
        for day in map(int, np.unique(sums.day[places])):
            runs = self._days.setdefault((sums.grain.name, day), Runs())
            runs.add(sums.series[places[sums.day[places] == day]])


def _told(token: str, sums: Sums, places: npt.NDArray[np.int64]) -> str:
    """A token that tells what is named too: after a crash the same block may name more, and that must go in."""
    named = np.stack([sums.day[places].astype(np.uint64), sums.series[places]])
    return f"{token}:{blake2b(named.tobytes(), digest_size=16).hexdigest()}"


def whole(table: pa.Table) -> pa.Table:
    """One chunk a column: one block for the engine, and one dictionary a text."""
    return table.unify_dictionaries().combine_chunks()
