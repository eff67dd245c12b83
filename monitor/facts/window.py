"""Which events are counted already: their keys, by day; exact, not a filter.

Only what committed batches brought is ever read back. An insert that a crash cut short has rows in ``events`` that
the grains may lack: were they taken for known, sending them again would be filtered to nothing, and the grains would
be wrong for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monitor.facts.prepare import OLDEST_MAIL
from monitor.facts.runs import Flags, Keys, Runs
from monitor.facts.store import Facts
from monitor.keyring import FINAL

Days = npt.NDArray[np.int64]  # since 1970

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RUN = 1 << 20  # keys that are read back as one run
_SQL = """
SELECT key FROM events WHERE batch <= {committed:UInt64} AND at >= toDateTime({since:Int64}, 'UTC') AND (
    at < toDateTime({until:Int64}, 'UTC') OR (
        at < toDateTime({latest:Int64}, 'UTC') AND kind IN {final:Array(String)}
        AND sent_at >= toDateTime({since:Int64}, 'UTC') AND sent_at < toDateTime({until:Int64}, 'UTC')
    )
)
"""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Rows as the window sees them, arrays of one length: the days of ``at`` and of ``sent_at``, since 1970.

    ``final`` outcomes can happen once only, whenever they are told.
    """

    keys: Keys
    days: Days
    sent: Days
    final: Flags

    def of(self, which: Flags) -> Outcomes:
        """Some of them."""
        return Outcomes(self.keys[which], self.days[which], self.sent[which], self.final[which])


class Window:
    """The keys of the days that batches touch, read from ``events`` when first asked for.

    Two roads may stamp a final outcome on both sides of midnight, or one of them when it heard of it, days later. So
    it is kept under the day on which its message was sent too, and looked for around both days.
    At most about ``most`` keys are held, eight bytes each and nearly all of them in files of ``folder``; days that were
    not asked for the longest are let go.
    """

    def __init__(self, facts: Facts, folder: Path | None = None, most: int = 256 << 20) -> None:
        self._facts = facts
        self._folder = folder
        self._most = most
        self._days: OrderedDict[int, Runs] = OrderedDict()

    def fresh(self, rows: Outcomes, committed: int) -> Flags:
        """Which rows count: the first of each key, if no batch up to ``committed`` brought it."""
        fresh = np.zeros(len(rows.keys), np.bool_)
        fresh[np.unique(rows.keys, return_index=True)[1]] = True
        around = [days[rows.final] + step for days in (rows.days, rows.sent) for step in (-1, 0, 1)]
        for day in map(int, np.unique(np.concatenate([rows.days, *around]))):
            near = (np.abs(rows.days - day) <= 1) | (np.abs(rows.sent - day) <= 1)
            mine = np.flatnonzero(fresh & ((rows.days == day) | (rows.final & near)))
            mine = mine[np.argsort(rows.keys[mine])]
            fresh[mine[self._at(day, committed).has(rows.keys[mine])]] = False
        return fresh

    def add(self, rows: Outcomes) -> None:
        """These are committed now."""
        for day in map(int, np.unique(np.concatenate([rows.days, rows.sent[rows.final]]))):
            if day in self._days:  # others are read back with them when they are asked for
                try:
                    self._days[day].add(rows.keys[(rows.days == day) | (rows.final & (rows.sent == day))])
                except OSError:  # no room for a file: read back when there is some, or whoever asks is told
                    self._days.pop(day).close()

    def _at(self, day: int, committed: int) -> Runs:
        if day not in self._days:
            runs = Runs(self._folder)
            try:
                for keys in self._read(day, committed):
                    runs.add(keys)
            except BaseException:
                runs.close()
                raise
            self._days[day] = runs
        self._days.move_to_end(day)
        while len(self._days) > 1 and sum(runs.size for runs in self._days.values()) > self._most:
            self._days.popitem(last=False)[1].close()
        return self._days[day]

    def _read(self, day: int, committed: int) -> Iterable[Keys]:
        begins = _EPOCH + timedelta(days=day)
        pieces: list[Keys] = []
        held = 0
        for piece in self._facts.stream(
            _SQL,
            since=int(begins.timestamp()),
            until=int((begins + timedelta(days=1)).timestamp()),
            latest=int((begins + timedelta(days=1) + OLDEST_MAIL).timestamp()),
            final=sorted(FINAL),
            committed=committed,
        ):
            pieces.append(piece)
            held += len(piece)
            if held >= _RUN:
                yield np.concatenate(pieces)
                pieces, held = [], 0
        if pieces:
            yield np.concatenate(pieces)
