"""The shipper's own spool: batches wait in it until the core has them; with them, where their collectors stand."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from monitor.files import write
from monitor.model import Batch
from monitor.ports import Memory
from monitor.shipping import frames
from monitor.shipping.state import Stand, State
from monitor.spool import Spool, SpoolFull

log = logging.getLogger(__name__)

REQUEST_BYTES = 8 << 20  # of the frames of one request, unpacked; the core takes twice as many
REQUEST_FRAMES = 200
REQUEST_REJECTED = 500_000
_ROOMY = 0.8  # of the limit
_LENGTH = struct.Struct("<I")


class Head(msgspec.Struct):
    """What stands before a frame in the spool; only the shipper reads it. ``at``: when it came, POSIX µs."""

    source: str
    at: int
    rows: int
    size: int
    rejected: int
    columns: list[str]
    cursor: dict[str, Any] | None = None  # None: another part of the same batch follows
    remember: dict[str, Any] = {}


_head = msgspec.json.Decoder(Head)


@dataclass(frozen=True, slots=True)
class Group:
    """Frames that go in one request: sequence, head and packed part of each, oldest first."""

    frames: Sequence[tuple[int, Head, bytes]] = ()

    @property
    def stands(self) -> Iterator[Stand]:
        """Where their collectors stand after them."""
        for _, head, _ in self.frames:
            if head.cursor is not None:
                yield Stand(head.source, head.cursor, head.remember)


@dataclass(slots=True)
class _Told:
    """What a collector said last: its cursor, the last frame of its own, and the watermark that holds after that."""

    cursor: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0
    watermark: datetime | None = None


class Outbox:
    """The spool and the state of one shipper, in ``folder``; safe to use from many threads.

    Raises:
        DirectoryInUse: another process has it.
        SpoolCorrupt: a frame that was put on disk can't be read.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        self._folder, self._limit = folder, limit
        self._spool = Spool(folder / "spool", max_bytes=limit)
        self._state = State(folder / "ship.sqlite")
        self.name = self._spool.name
        self._told: dict[str, _Told] = {}
        self._moved = threading.Condition()
        self._reached = self._state.reached(self.name)
        self._spool.skip(self._reached)
        self._spool.release(self._reached)
        self.full = False
        self.dead_letters = len(list((folder / "dead-letters").glob("*.frame")))

    # what collectors bring

    def memory(self, source: str) -> Memory:
        """Where a collector stands, with all that is on disk; what it remembers is read when it is looked into."""
        if source not in self._told:
            mine = self._mine(source)
            sequence, last = next(((s, h) for s, h in reversed(mine) if h.cursor is not None), (0, None))
            cursor = last.cursor if last else None
            found = _Told(self._state.cursor(source) if cursor is None else cursor, sequence)
            with self._moved:
                self._told[source] = found
        return Memory(self._told[source].cursor, _Later(lambda: self._remembers(source)))

    def _mine(self, source: str) -> list[tuple[int, Head]]:
        """The frames of a collector that are on disk; read before the state, which has those that went meanwhile."""
        heads = ((sequence, _opened(payload)[0]) for sequence, payload in self._spool.read(self._reached))
        return [(sequence, head) for sequence, head in heads if head.source == source]

    def _remembers(self, source: str) -> Mapping[str, Any]:
        mine = self._mine(source)
        found = self._state.remembered(source)
        for _, head in mine:
            found.update(head.remember)
        return {name: value for name, value in found.items() if value is not None}

    def put(self, source: str, batch: Batch, now: datetime) -> int:
        """Put a batch on disk, if it says more than a watermark; the sequence of its collector's last frame.

        Raises:
            SpoolFull: not all of it was kept; the same batch may be put again.
            ValueError: a row of it is too long for any frame.
        """
        told = self._told[source]
        sequence = told.sequence
        if len(batch) or batch.rejected or batch.remember or batch.cursor != told.cursor:
            try:
                sequence = self._append(source, batch, frames.micros(now))
            except SpoolFull:
                self.full = True
                raise
        with self._moved:
            told.cursor, told.sequence = batch.cursor, sequence
            told.watermark = batch.watermark or told.watermark
        self._look()
        return sequence

    def _look(self) -> None:
        # Not at the first frame that finds room, or it would be told at each.
        self.full = self.full and self._spool.size > _ROOMY * self._limit

    def _append(self, source: str, batch: Batch, at: int) -> int:
        parts = list(frames.split(batch))
        sequence = 0
        for number, part in enumerate(parts, start=1):
            head = Head(source, at, 0, len(part), 0, list(batch.columns))
            if number == len(parts):
                head.rows, head.rejected = len(batch), len(batch.rejected)
                head.cursor, head.remember = dict(batch.cursor), dict(batch.remember)
            first = msgspec.json.encode(head)
            sequence = self._spool.append(_LENGTH.pack(len(first)) + first + frames.packed(part))
        return sequence

    # what the core is sent

    def wait(self, timeout: float) -> bool:
        """Whether something waits, after ``timeout`` seconds at most."""
        return self._spool.wait(self._reached, timeout)

    def next(self) -> Group:
        """The oldest frames that the core does not have yet, as many as one request may hold."""
        found: list[tuple[int, Head, bytes]] = []
        size = rejected = 0
        for sequence, payload in self._spool.read(self._reached):
            head, part = _opened(payload)
            size, rejected = size + head.size, rejected + head.rejected
            if found and (size > REQUEST_BYTES or rejected > REQUEST_REJECTED):
                break
            found.append((sequence, head, part))
            if len(found) == REQUEST_FRAMES:
                break
        return Group(found)

    def beats(self, errors: Mapping[str, str]) -> list[frames.Beat]:
        """A sign of life of each collector, with its watermark where the core has all that came before it."""
        with self._moved:
            return [frames.Beat(name, self._mark(told), errors.get(name, "")) for name, told in self._told.items()]

    def _mark(self, told: _Told) -> int | None:
        return frames.micros(told.watermark) if told.watermark and told.sequence <= self._reached else None

    def waiting(self, group: Group, now: datetime) -> frames.Waiting:
        """How much waits beside ``group``, which is the oldest and on its way."""
        oldest = (frames.micros(now) - group.frames[0][1].at) / 1e6 if group.frames else 0.0
        count = self._spool.last - self._reached - len(group.frames)
        return frames.Waiting(count, self._spool.size, max(0.0, oldest), self.full, self.dead_letters)

    def took(self, group: Group) -> None:
        """The core has these frames, or never will: forget them, and keep where their collectors stand."""
        last = group.frames[-1][0]
        self._state.reach(self.name, last, group.stands)
        with self._moved:
            self._reached = last
            self._moved.notify_all()
        self._spool.release(last)
        self._look()

    def set_aside(self, group: Group, sequences: Mapping[int, str]) -> None:
        """Keep those frames as files: the core refuses them for themselves, and always will."""
        for sequence, head, part in group.frames:
            if sequence in sequences:
                place = self._folder / "dead-letters" / f"{self.name}-{sequence}.frame"
                write(place, part)
                self.dead_letters += 1
                facts = {"source": head.source, "file": str(place), "why": sequences[sequence]}
                log.error("core refuses a frame, set aside", extra=facts)

    @property
    def reached(self) -> int:
        """The last frame that the core has, or never will."""
        return self._reached

    def empty(self) -> bool:
        """Whether the core has all."""
        return self._spool.last <= self._reached

    def settled(self, sequence: int, stop: Callable[[], bool]) -> bool:
        """Whether the core has all frames up to ``sequence``; waits for it until ``stop`` says otherwise."""
        with self._moved:
            while self._reached < sequence and not stop():
                self._moved.wait(0.2)
            return self._reached >= sequence

    def room(self, timeout: float) -> None:
        """Wait until the core has taken something, ``timeout`` seconds at most."""
        with self._moved:
            self._moved.wait(timeout)

    def close(self) -> None:
        """Let another process have it."""
        self._spool.close()
        self._state.close()


class _Later(Mapping[str, Any]):
    """A mapping that is read when it is first looked into."""

    def __init__(self, read: Callable[[], Mapping[str, Any]]) -> None:
        self._read = read

    @cached_property
    def _found(self) -> Mapping[str, Any]:
        return self._read()

    def __getitem__(self, name: str) -> Any:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _opened(payload: bytes) -> tuple[Head, bytes]:
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    return _head.decode(payload[_LENGTH.size : end]), payload[end:]
