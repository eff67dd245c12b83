"""The road from a batch to exact counts: hide people, put on disk, apply to the facts once, whatever dies meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from monitor.facts.errors import FactsBusy, FactsError
from monitor.facts.names import NameLimit
from monitor.facts.prepare import prepare
from monitor.facts.rows import ROWS, decode, encode, progress_of
from monitor.facts.store import Facts
from monitor.facts.window import Days, Keys, Window
from monitor.files import write
from monitor.keyring import FINAL, Keyring
from monitor.ledger import journal
from monitor.ledger.journal import Progress
from monitor.model import Batch, Rejected
from monitor.ports import Memory
from monitor.spool import Spool

__all__ = ["Applier", "Tally", "append", "decode", "encode", "memory", "prepare", "take"]

log = logging.getLogger(__name__)

_FRAME_ROWS = 50_000
_BLOCK_ROWS = 100_000  # each insert costs a tenth of a second or so, whatever its size
_BLOCK_BYTES = 8 << 20  # of frames that make a block, or nearly
_LINGER = 1.0  # seconds that the first frame waits for others to share its insert
_TRIES = 3  # of rows that the engine refuses for themselves
_LONGEST_PAUSE = 30.0  # seconds between two tries while memory or disk is wanting
_DAY = 86_400_000  # milliseconds


def take(
    batch: Batch,
    spool: Spool,
    keyring: Keyring,
    *,
    source: str,
    node: str,
    now: datetime,
    bounds: tuple[datetime, datetime] | None,
    names: NameLimit | None = None,
    imported: bool = False,
) -> list[Rejected]:
    """Put a batch on disk, and return what was set aside: by its collector, then here.

    ``imported``: the rows were seen when they happened rather than ``now``.

    Raises:
        SpoolFull: not all of it was taken; the same batch may be taken again.
    """
    rows, rejected = prepare(batch, source, keyring, None if imported else now, bounds=bounds, names=names)
    append(spool, rows, Progress(source, node, now, batch.cursor, batch.watermark, batch.remember))
    return [*batch.rejected, *rejected]


def append(spool: Spool, rows: pa.Table, progress: Progress) -> int:
    """Put prepared rows on disk, in frames of a bounded size; the sequence of the last.

    The source stands where ``progress`` says only once the last of them is applied.
    """
    starts = range(0, max(1, rows.num_rows), _FRAME_ROWS)
    sequence = 0
    for start in starts:
        told = progress if start == starts[-1] else None
        sequence = spool.append(encode(rows.slice(start, _FRAME_ROWS), told))
    return sequence


def memory(spool: Spool, ledger: Engine, source: str, node: str) -> Memory:
    """Where a source stands, with all that is on disk and not yet applied.

    What it remembers is read when it is first asked for: it may be much, and a collector that runs on needs none of it.
    """
    # The spool first: what is applied and gone from it meanwhile is in the ledger that is read then.
    with ledger.connect().execution_options(reads=True) as conn:
        before, _ = journal.position(conn)
    waiting = [(sequence, progress_of(payload)) for sequence, payload in spool.read(before)]
    mine = [(sequence, told) for sequence, told in waiting if told and (told.source, told.node) == (source, node)]
    with ledger.connect().execution_options(reads=True) as conn:
        committed, _ = journal.position(conn)
        cursor = journal.cursor(conn, source, node)
    newer = [told for sequence, told in mine if sequence > committed]

    def remembers() -> Mapping[str, Any]:
        with ledger.connect().execution_options(reads=True) as conn:
            found = dict(journal.remembered(conn, source, node))
        for _, told in mine:
            found.update(told.remember)
        return {name: value for name, value in found.items() if value is not None}

    return Memory(newer[-1].cursor if newer else cursor, Later(remembers))


class Later(Mapping[str, Any]):
    """A mapping that is made when it is first looked into."""

    def __init__(self, make: Callable[[], Mapping[str, Any]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[str, Any]:
        return self._make()

    def __getitem__(self, name: str) -> Any:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass(slots=True)
class Tally:
    """What an applier did since it began: rows counted, rows that were told again, frames or blocks set aside."""

    applied: int = 0
    duplicates: int = 0
    dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class _Range:
    """The frames of one batch of the applier: all past ``committed`` up to ``last``."""

    committed: int
    last: int
    rows: pa.Table
    progress: list[Progress]
    unreadable: list[tuple[int, bytes]]

    def block(self, month: str) -> str:
        return f"{self.committed + 1}-{self.last}-{month}"


class Applier:
    """Moves what the spool holds into the facts; one at a time may.

    A batch is a range of frames that is written down before its first insert. After a crash the same range makes the
    same blocks with the same tokens, so that what was half inserted is healed and nothing counts twice.
    """

    def __init__(
        self,
        spool: Spool,
        facts: Facts,
        ledger: Engine,
        *,
        dead_letters: Path | None = None,
        block_rows: int = _BLOCK_ROWS,
    ) -> None:
        self._spool, self._facts, self._ledger = spool, facts, ledger
        self._dead_letters = dead_letters or spool.path.parent / "dead-letters"
        self._block_rows = block_rows
        self._window = Window(facts)
        self.tally = Tally()
        committed, planned = self._position()
        spool.skip(planned)
        spool.release(committed)

    def run(self, stop: threading.Event) -> None:
        """Apply what comes until ``stop`` is set; waits while memory, disk or the ledger are wanting."""
        pause = _LINGER
        while not stop.is_set():
            try:
                if self._spool.wait(self._position()[0], _LINGER, enough=_BLOCK_BYTES):
                    self.step()
                pause = _LINGER
            except (FactsError, FactsBusy, OSError, OperationalError) as error:
                log.warning("facts not writable", extra={"error": str(error)[:500], "retry_s": pause})
                stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def drain(self) -> int:
        """Apply all that is on disk; how many rows were counted."""
        counted = 0
        while self._position()[0] < self._spool.last:
            counted += self.step()
        return counted

    def step(self) -> int:
        """Apply the next batch of frames, or the one that a crash cut short; how many rows were counted.

        Raises:
            FactsError: memory, disk or merges are wanting. The next call tries the same batch.
            SpoolCorrupt: a frame that was acknowledged can't be read.
        """
        committed, planned = self._position()
        batch = self._next(committed, planned)
        if batch is None:
            return 0
        if planned == committed:
            with self._ledger.begin() as conn:
                journal.plan(conn, batch.last)
        for sequence, payload in batch.unreadable:
            self._set_aside(f"{sequence}.frame", payload)
        counted = self._apply(batch)
        self._spool.release(batch.last)
        return counted

    def _position(self) -> tuple[int, int]:
        with self._ledger.connect().execution_options(reads=True) as conn:
            return journal.position(conn)

    def _next(self, committed: int, planned: int) -> _Range | None:
        """The frames of the batch under way, or else some that make about a block."""
        last, count = committed, 0
        tables: list[pa.Table] = []
        progress: list[Progress] = []
        unreadable: list[tuple[int, bytes]] = []
        for sequence, payload in self._spool.read(committed):
            if planned > committed and sequence > planned:
                break
            try:
                rows, told = decode(payload)
            except ValueError:
                unreadable.append((sequence, payload))
            else:
                if planned == committed and tables and count + rows.num_rows > self._block_rows:
                    break
                tables.append(rows)
                count += rows.num_rows
                progress += [told] if told else []
            last = sequence
        last = max(last, planned)
        if last == committed:
            return None
        return _Range(committed, last, pa.concat_tables([ROWS.empty_table(), *tables]), progress, unreadable)

    def _apply(self, batch: _Range) -> int:
        table = _whole(
            batch.rows.append_column("batch", pa.repeat(pa.scalar(batch.last, pa.uint64()), len(batch.rows)))
        )
        keys, days = _keys_and_days(table)
        fresh = self._window.fresh(keys, days, _final(table), batch.committed)
        counted = np.zeros(len(keys), np.bool_)
        for month, mine in _months(days, fresh):
            if self._insert(table.filter(pa.array(mine)), batch.block(month)):
                counted |= mine
        with self._ledger.begin() as conn:
            journal.commit(conn, batch.last, batch.progress)
        self._window.add(keys[counted], days[counted])
        self.tally.applied += int(counted.sum())
        self.tally.duplicates += int((~fresh).sum())
        return int(counted.sum())

    def _insert(self, rows: pa.Table, block: str) -> bool:
        """Whether the block is in the facts; else it is set aside, since the engine refuses it for itself."""
        token = f"{self._spool.name}:{block}"
        for attempt in range(1, _TRIES + 1):
            try:
                self._facts.append("events", rows, token)
            except FactsError as error:
                if error.passing:
                    raise
                log.error("rows refused", extra={"block": block, "attempt": attempt, "code": error.code})  # noqa: TRY400
            else:
                return True
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        self._set_aside(f"{block}.arrow", sink.getvalue().to_pybytes())
        return False

    def _set_aside(self, name: str, content: bytes) -> None:
        write(self._dead_letters / name, content)
        self.tally.dead_letters += 1
        log.error("set aside", extra={"file": name, "bytes": len(content)})


def _whole(table: pa.Table) -> pa.Table:
    """One chunk a column: one block for the engine, and one dictionary a text."""
    return table.unify_dictionaries().combine_chunks()


def _keys_and_days(table: pa.Table) -> tuple[Keys, Days]:
    return table["key"].to_numpy(), table["at"].cast(pa.int64()).to_numpy() // _DAY


def _final(table: pa.Table) -> Any:
    final = pc.is_in(table["kind"].cast(pa.string()), value_set=pa.array([kind.value for kind in FINAL]))
    return final.to_numpy()


def _months(days: Days, fresh: Any) -> Iterator[tuple[str, Any]]:
    """Each month of ``at`` with the rows that count in it: a block may not touch more than a hundred partitions."""
    months = days.astype("datetime64[D]").astype("datetime64[M]")
    for month in np.unique(months[fresh]):
        yield str(month), fresh & (months == month)
