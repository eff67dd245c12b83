"""The road from a batch to exact counts: hide people, put on disk, apply to the facts once, whatever dies meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from collectors._decode import Checked, columns
from monitor import suppressing
from monitor.facts.blocks import Blocks, whole
from monitor.facts.errors import FactsBusy, FactsError
from monitor.facts.names import NameLimit
from monitor.facts.prepare import prepare
from monitor.facts.rows import ROWS, Frame, decode, encode, encode_lines, progress_of
from monitor.facts.store import Facts
from monitor.facts.window import Days, Outcomes, Window
from monitor.keyring import FINAL, Keyring
from monitor.ledger import journal
from monitor.ledger.journal import Progress
from monitor.model import Batch, Rejected
from monitor.ports import Memory
from monitor.quarantine import APPLIER, FRAME, Quarantine
from monitor.quarantine import ROWS as REFUSED
from monitor.spool import Spool

__all__ = ["Applier", "Tally", "append", "decode", "encode", "memory", "prepare", "take"]

log = logging.getLogger(__name__)

_FRAME_ROWS = 50_000
_BLOCK_ROWS = 100_000  # each insert costs a tenth of a second or so, whatever its size
_BLOCK_BYTES = 8 << 20  # of frames that make a block, or nearly
_BLOCK_TEXT = 96 << 20  # of lines that make a block, when they are opened: as long as they may be, or nearly
_LONGEST_TEXT = 64 << 20  # of one frame's lines; a request is shorter
_LINGER = 1.0  # seconds that the first frame waits for others to share its insert
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ASIDE_ROWS = 20_000  # that are set aside together: a few megabytes, some tens at most
_TRIES = 3  # of rows that the engine refuses for themselves
_LONGEST_PAUSE = 30.0  # seconds between two tries while memory or disk is wanting
_DAY = 86_400_000  # milliseconds
_PACKING = "lz4"
_STREAM = b"\xff\xff\xff\xff"  # how rows began that earlier releases set aside


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
    moves: bool = True,
    quarantine: Quarantine | None = None,
) -> list[Rejected]:
    """Put a batch on disk, and return what was set aside: by its collector, then here.

    ``imported``: the rows were seen when they happened rather than ``now``. ``moves`` False: they say nothing of where
    their source stands. What could not be read goes into the
    ``quarantine`` first: the source may forget it as soon as the rest is on disk.

    Raises:
        SpoolFull: not all of it was taken; the same batch may be taken again.
        ValueError: it reports of messages, and was not attributed: what nothing vouches for must not count.
    """
    if batch.clues:
        raise ValueError("reports that nobody attributed")
    if quarantine:
        quarantine.take(batch.rejected, source, now)
    rows, rejected = prepare(batch, source, keyring, None if imported else now, bounds=bounds, names=names)
    told = Progress(source, node, now, batch.cursor, batch.watermark, batch.remember) if moves else None
    append(spool, rows, told)
    return [*batch.rejected, *rejected]


def take_lines(checked: Checked, spool: Spool, keyring: Keyring, *, source: str, node: str, now: datetime) -> int:
    """Put checked lines on disk, sealed; the sequence of their frame. The applier takes them apart.

    Raises:
        SpoolFull: nothing was taken; the same lines may be taken again.
    """
    packed = pa.compress(checked.lines, codec=_PACKING, asbytes=True)
    progress = Progress(source, node, now, watermark=min(checked.newest, now) if checked.newest else None)
    return spool.append(encode_lines(keyring.seal(packed), checked.count, len(checked.lines), progress))


def append(spool: Spool, rows: pa.Table, progress: Progress | None) -> int:
    """Put prepared rows on disk, in frames of a bounded size; the sequence of the last.

    The source stands where ``progress`` says only once the last of them is applied; None: it stays where it is.
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
    """What an applier did since it began: rows counted, rows that were told again, frames or blocks set aside.

    ``refused`` are lines that said a thing twice, and made no sense so.
    """

    applied: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    refused: int = 0


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


@dataclass(frozen=True, slots=True)
class _Part:
    """What a frame gave, and the frame itself: it is kept when its content is no good."""

    sequence: int
    payload: bytes
    content: pa.Table | _Lines


@dataclass(frozen=True, slots=True)
class _Lines:
    """Checked lines as they came, so many from one source at a time."""

    source: str
    seen_at: datetime
    count: int
    text: bytes


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
        keyring: Keyring,
        *,
        names: NameLimit | None = None,
        quarantine: Quarantine | None = None,
        block_rows: int = _BLOCK_ROWS,
    ) -> None:
        self._spool, self._facts, self._ledger, self._keyring = spool, facts, ledger, keyring
        self.names = names or NameLimit()
        self._quarantine = quarantine or Quarantine(spool.path.parent / "quarantine", keyring)
        self._block_rows = block_rows
        self._window = Window(facts, spool.path)
        self._blocks = Blocks(facts)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._coming: Future[_Range | None] | None = None
        self._turn = threading.RLock()  # one batch at a time, and none while somebody needs the facts still
        self.tally = Tally()
        self.trouble = ""  # why nothing is applied at present
        committed, planned = self._position()
        self._reached, self._moved = committed, threading.Condition()
        spool.skip(planned)
        spool.release(committed)

    def run(self, stop: threading.Event) -> None:
        """Apply what comes until ``stop`` is set; waits while memory, disk or the ledger are wanting."""
        pause = _LINGER
        while not stop.is_set():
            try:
                if self._spool.wait(self._position()[0], _LINGER, enough=_BLOCK_BYTES):
                    self.step()
                pause, self.trouble = _LINGER, ""
            except (FactsError, FactsBusy, OSError, OperationalError) as error:
                self.trouble = f"{type(error).__name__}: see the log"
                log.warning("facts not writable", extra={"error": str(error)[:500], "retry_s": pause})
                stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def reached(self, sequence: int, stop: threading.Event) -> bool:
        """Whether all frames up to ``sequence`` are in the facts; waits for it, unless ``stop`` is set."""
        self._spool.hurry(sequence)
        with self._moved:
            while self._reached < sequence and not stop.is_set():
                self._moved.wait(0.1)
            return self._reached >= sequence

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
        with self._turn:
            return self._step()

    @contextmanager
    def still(self) -> Iterator[int]:
        """While it lasts nothing is applied, and no batch is half done; the last frame that is in the facts.

        Raises:
            FactsError: a batch is half done, and can't be ended now.
        """
        with self._turn:
            committed, planned = self._position()
            if planned > committed:
                self._step()
            yield self._position()[0]

    def _step(self) -> int:
        committed, planned = self._position()
        batch = self._read(committed, planned)
        if batch is None:
            return 0
        if planned == committed:
            with self._ledger.begin() as conn:
                journal.plan(conn, batch.last)
        # While this batch is stored, on one processor, another takes the next one apart: if it is whole by now.
        if self._spool.pending(batch.last) >= _BLOCK_BYTES:
            self._coming = self._ahead.submit(self._next, batch.last, batch.last)
        for sequence, payload in batch.unreadable:
            self._set_aside(f"frame {sequence}", payload, FRAME, "this release can't read it")
        counted = self._apply(batch)
        self._spool.release(batch.last)
        return counted

    def rows(self, payload: bytes) -> pa.Table:
        """The rows of a frame that was set aside, read once more.

        Raises:
            ValueError: it can't be read still.
        """
        try:
            if payload.startswith(_STREAM):
                return pa.ipc.open_stream(pa.py_buffer(payload)).read_all().select(ROWS.names).cast(ROWS)
            return self._rows([self._opened(decode(payload))])
        except (ValueError, OSError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"its lines can't be taken apart ({type(error).__name__})") from error

    def close(self) -> None:
        """Let go of what is read ahead."""
        self._ahead.shutdown(cancel_futures=True)

    def _read(self, committed: int, planned: int) -> _Range | None:
        coming, self._coming = self._coming, None
        if coming and (batch := coming.result()) and planned == committed == batch.committed:
            return batch
        return self._next(committed, planned)

    def _position(self) -> tuple[int, int]:
        with self._ledger.connect().execution_options(reads=True) as conn:
            return journal.position(conn)

    def _next(self, committed: int, planned: int) -> _Range | None:
        """The frames of the batch under way, or else some that make about a block."""
        last, count, size = committed, 0, 0
        parts: list[_Part] = []
        progress: list[Progress] = []
        unreadable: list[tuple[int, bytes]] = []
        for sequence, payload in self._spool.read(committed):
            if planned > committed and sequence > planned:
                break
            try:
                frame = decode(payload)
                size += frame.size
                whole_block = count + frame.count > self._block_rows or size > _BLOCK_TEXT
                if planned == committed and parts and whole_block:
                    break
                parts.append(_Part(sequence, payload, self._opened(frame)))
            except ValueError:
                unreadable.append((sequence, payload))
            else:
                count += frame.count
                progress += [frame.progress] if frame.progress else []
            last = sequence
        last = max(last, planned)
        if last == committed:
            return None
        rows, refused = self._taken(parts)
        return _Range(committed, last, rows, progress, [*unreadable, *refused])

    def _taken(self, parts: Sequence[_Part]) -> tuple[pa.Table, list[tuple[int, bytes]]]:
        """The rows of all parts, and the frames that can't be taken apart, whatever the fault: none stops the road."""
        try:
            return self._rows([part.content for part in parts]), []
        except (OSError, MemoryError):
            raise
        except Exception:
            log.exception("frames can't be taken apart together")
        tables, refused = [ROWS.empty_table()], []
        for part in parts:
            try:
                tables.append(self._rows([part.content]))
            except (OSError, MemoryError):
                raise
            except Exception:
                log.exception("frame can't be taken apart", extra={"frame": part.sequence})
                refused.append((part.sequence, part.payload))
        return pa.concat_tables(tables), refused

    def _opened(self, frame: Frame) -> pa.Table | _Lines:
        if frame.rows is not None:
            return frame.rows
        if frame.progress is None or not 0 <= frame.size <= _LONGEST_TEXT:
            raise ValueError("sealed lines without their source or of no length that they can have")
        try:
            text = pa.decompress(self._keyring.unseal(frame.sealed), frame.size, codec=_PACKING, asbytes=True)
        except pa.ArrowInvalid as error:
            raise ValueError("a frame whose lines can't be unpacked") from error
        return _Lines(frame.progress.source, frame.progress.seen_at, frame.count, text)

    def _rows(self, parts: Sequence[pa.Table | _Lines]) -> pa.Table:
        """The rows of all parts; neighbours with lines of one source are taken apart together."""
        tables = [ROWS.empty_table()]
        for source, group in groupby(parts, lambda part: part.source if isinstance(part, _Lines) else ""):
            neighbours = list(group)
            tables += [self._taken_apart(source, neighbours)] if source else neighbours
        return pa.concat_tables(tables)

    def _taken_apart(self, source: str, lines: Sequence[_Lines]) -> pa.Table:
        seen = np.array([(each.seen_at - _EPOCH) // _MICROSECOND for each in lines], np.int64)
        seen = np.repeat(seen, [each.count for each in lines])
        batch = Batch(columns(b"".join(each.text for each in lines)))
        rows, rejected = prepare(batch, source, self._keyring, seen, bounds=None, names=self.names)
        for item in rejected:  # none, unless a line says a thing twice: it was checked when it came
            log.error("line not counted", extra={"source": source, "why": item.why, "sample": item.sample})
        self.tally.refused += len(rejected)
        return rows

    def _apply(self, batch: _Range) -> int:
        table = whole(batch.rows.append_column("batch", pa.repeat(pa.scalar(batch.last, pa.uint64()), len(batch.rows))))
        outcomes = _outcomes(table)
        fresh = self._window.fresh(outcomes, batch.committed)
        counted = np.zeros(len(table), np.bool_)
        for month, mine in _months(outcomes.days, fresh):
            if self._store(table.filter(pa.array(mine)), batch.block(month)):
                counted |= mine
        with self._ledger.begin() as conn:
            journal.commit(conn, batch.last, journal.latest(batch.progress))
            suppressing.take(conn, table, counted)
        with self._moved:
            self._reached = batch.last
            self._moved.notify_all()
        self._window.add(outcomes.of(counted))
        self.tally.applied += int(counted.sum())
        self.tally.duplicates += int((~fresh).sum())
        return int(counted.sum())

    def _store(self, rows: pa.Table, block: str) -> bool:
        """Put a block into the facts; False if it had to be set aside, since the engine refuses it for itself."""
        token = f"{self._spool.name}:{block}"
        for attempt in range(1, _TRIES + 1):
            try:
                self._blocks.put_events(rows, token)
            except FactsError as error:
                if error.passing:
                    raise
                log.error("rows refused", extra={"block": block, "attempt": attempt, "code": error.code})  # noqa: TRY400
            else:
                self._blocks.put_sums(rows, token)
                return True
        for start in range(0, len(rows), _ASIDE_ROWS):
            some = rows.slice(start, _ASIDE_ROWS).select(ROWS.names)
            self._set_aside(f"block {block} row {start}", encode(some, None), REFUSED, "the store refuses them")
        return False

    def _set_aside(self, where: str, content: bytes, kind: str, why: str) -> None:
        item = self._quarantine.put(content, source=APPLIER, kind=kind, where=where, why=why)
        self.tally.dead_letters += 1
        log.error("set aside", extra={"what": where, "bytes": len(content), "item": item})


def _outcomes(table: pa.Table) -> Outcomes:
    kinds = table["kind"].chunk(0) if len(table) else ROWS.empty_table()["kind"].combine_chunks()
    final = np.array([name in FINAL for name in kinds.dictionary.to_pylist()], np.bool_)
    days, sent = (table[name].cast(pa.int64()).to_numpy() // _DAY for name in ("at", "sent_at"))
    return Outcomes(table["key"].to_numpy(), days, sent, final[kinds.indices.to_numpy()])


def _months(days: Days, fresh: Any) -> Iterator[tuple[str, Any]]:
    """Each month of ``at`` with the rows that count in it: a block may not touch more than a hundred partitions."""
    months = days.astype("datetime64[D]").astype("datetime64[M]")
    for month in np.unique(months[fresh]):
        yield str(month), fresh & (months == month)
