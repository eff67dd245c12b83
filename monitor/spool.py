"""The spool: acknowledged means on disk. Append-only files between those who bring facts and the one who applies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from monitor.facts.errors import DirectoryInUse
from monitor.files import sync_folder
from monitor.segments import HEAD_BYTES, LONGEST, Segment, SpoolCorrupt, head_of, mend, payload_of, write_all

__all__ = ["Spool", "SpoolCorrupt", "SpoolFull"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SpoolFull(Exception):  # noqa: N818  # a state, not a fault
    """The disk or the spool's limit is reached and nothing of the frame was kept: try again when some was applied."""


@dataclass(slots=True)
class _Waiting:
    payload: bytes
    sequence: int = 0
    error: BaseException | None = None


class Spool:
    """The open spool of one process; safe to use from many threads.

    It is made at first; what a crash left half written at its end is cut off. ``name`` is drawn when it is made, so
    that its sequences mean nothing in another spool.

    Raises:
        DirectoryInUse: another process has it open.
        SpoolCorrupt: a broken frame stands before whole ones; the message names file and offset.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 4 << 30, segment_bytes: int = 64 << 20) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder
        self._max_bytes = max_bytes
        self._segment_bytes = max(1, min(segment_bytes, max_bytes // 4))
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._promised = 0  # bytes of frames that wait for the leader
        self._leading = False
        self._broken: OSError | None = None
        self._closed = False
        self._hurried = 0  # the frame that somebody waits for
        self._lock = _locked(folder / "lock")
        self.name = _named(self._lock)
        self._segments = [Segment(path, int(path.stem), path.stat().st_size) for path in sorted(folder.glob("*.seg"))]
        self._last = 0
        self._file: BinaryIO
        try:
            if self._segments:
                self._last = mend(self._segments[-1])
                self._file = self._segments[-1].path.open("ab")
            else:
                self._file = self._rotate()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def last(self) -> int:
        """The sequence of the newest frame on disk; 0 before the first."""
        return self._last

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with self._changed:
            return sum(segment.size for segment in self._segments)

    def append(self, payload: bytes) -> int:
        """Put a frame on disk and return its sequence; whoever comes meanwhile shares the next fdatasync.

        Raises:
            SpoolFull: it would pass the spool's limit, or the disk is full.
            OSError: the disk refused for another reason; nothing of the frame is kept.
            ValueError: the payload is longer than ``LONGEST``, or the spool is closed.
        """
        if len(payload) > LONGEST:
            raise ValueError(f"a frame of {len(payload)} bytes: at most {LONGEST}")
        mine = _Waiting(payload)
        with self._changed:
            if self._closed:
                raise ValueError("the spool is closed")
            if self._broken:
                raise OSError(self._broken.errno, "the spool's file could not be mended: restart") from self._broken
            need = HEAD_BYTES + len(payload)
            if sum(segment.size for segment in self._segments) + self._promised + need > self._max_bytes:
                raise SpoolFull(f"the spool holds {self._max_bytes} bytes that are not applied yet")
            self._waiting.append(mine)
            self._promised += need
            while not mine.sequence and mine.error is None:
                if self._leading:
                    self._changed.wait()
                else:
                    self._lead()
        if isinstance(mine.error, OSError) and mine.error.errno in _NO_ROOM:
            raise SpoolFull("the spool's disk is full") from mine.error
        if mine.error is not None:
            raise mine.error
        return mine.sequence

    def _lead(self) -> None:
        """Write and sync all frames that wait, for all their callers; the lock is free meanwhile."""
        group = list(self._waiting)
        self._waiting.clear()
        self._leading = True
        first = self._last + 1
        error: BaseException | None = None
        self._changed.release()
        try:
            self._write(first, group)
        except BaseException as failure:  # noqa: BLE001  # each caller gets it raised
            error = failure
        finally:
            self._changed.acquire()
            self._leading = False
            self._promised -= sum(HEAD_BYTES + len(waiting.payload) for waiting in group)
            for sequence, waiting in enumerate(group, start=first):
                waiting.sequence, waiting.error = (0, error) if error else (sequence, None)
            if not error:
                self._last = first + len(group) - 1
            self._changed.notify_all()

    def _write(self, first: int, group: list[_Waiting]) -> None:
        if self._segments[-1].size >= self._segment_bytes:
            self._file = self._rotate()
        segment = self._segments[-1]
        parts = []
        offset = segment.size
        marks = []
        for sequence, waiting in enumerate(group, start=first):
            parts += [head_of(sequence, waiting.payload), waiting.payload]
            marks.append((sequence, offset))
            offset += HEAD_BYTES + len(waiting.payload)
        try:
            write_all(self._file.fileno(), b"".join(parts))
            os.fdatasync(self._file.fileno())
        except BaseException:
            self._undo(segment.size)
            raise
        with self._changed:
            segment.size = offset
            for sequence, at in marks:
                segment.mark(sequence, at)

    def _undo(self, size: int) -> None:
        """Cut a group that the disk refused, so that the next one follows the last whole frame."""
        try:
            os.ftruncate(self._file.fileno(), size)
            os.fdatasync(self._file.fileno())
        except OSError as error:
            self._broken = error

    def _rotate(self) -> BinaryIO:
        """Begin the next segment; its name is on disk before a frame goes into it."""
        first = self._last + 1
        path = self.path / f"{first:020d}.seg"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        sync_folder(self.path)
        file = path.open("ab")
        with self._changed:
            if self._segments:
                self._file.close()
            self._segments.append(Segment(path, first, 0))
        return file

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        """(sequence, payload) of each frame on disk past ``after``, oldest first, as far as they were when called.

        Frames that were released are left out.

        Raises:
            SpoolCorrupt: a frame is broken; the message names file and offset.
        """
        with self._changed:
            last = self._last
            segments = list(self._segments)
        start = max(0, bisect_right([segment.first for segment in segments], after + 1) - 1)
        for segment in segments[start:]:
            if segment.first > last:
                return
            with contextlib.suppress(FileNotFoundError):  # released since
                yield from self._frames(segment, after, last)

    def _frames(self, segment: Segment, after: int, last: int) -> Iterator[tuple[int, bytes]]:
        with self._changed:
            sequence, offset = segment.place(after + 1)
        with segment.path.open("rb") as file:
            file.seek(offset)
            while sequence <= last and (head := file.read(HEAD_BYTES)):
                payload = payload_of(file, head, sequence)
                if payload is None:
                    raise SpoolCorrupt(f"{segment.path}: broken frame {sequence} at offset {offset}")
                with self._changed:
                    segment.mark(sequence, offset)
                if sequence > after:
                    yield sequence, payload
                offset += HEAD_BYTES + len(payload)
                sequence += 1

    def wait(self, after: int, timeout: float, *, enough: int = 0) -> bool:
        """Whether there are frames past ``after``, waiting for the first at most ``timeout`` seconds.

        With ``enough``, waits on from the first frame, as long again at most, until some that many bytes are there or
        somebody is in a hurry.
        """
        with self._changed:
            if self._changed.wait_for(lambda: self._last > after or self._closed, timeout) and enough:
                self._changed.wait_for(
                    lambda: self._closed or self._hurried > after or self._pending(after) >= enough, timeout
                )
            return self._last > after

    def hurry(self, upto: int) -> None:
        """Somebody waits for what becomes of the frames up to ``upto``."""
        with self._changed:
            self._hurried = max(self._hurried, upto)
            self._changed.notify_all()

    def pending(self, after: int) -> int:
        """Bytes of the frames past ``after``, to the next mark."""
        with self._changed:
            return self._pending(after)

    def _pending(self, after: int) -> int:
        young = [segment for segment in self._segments if segment.first > after]
        held = next((segment for segment in reversed(self._segments) if segment.first <= after), None)
        return sum(segment.size for segment in young) + (held.size - held.place(after + 1)[1] if held else 0)

    def release(self, upto: int) -> None:
        """Frames up to ``upto`` are applied: segments that hold no other are deleted."""
        with self._changed:
            while self._leading:
                self._changed.wait()
            if upto >= self._last and self._segments[-1].size >= max(1, self._segment_bytes // 4):
                with contextlib.suppress(OSError):  # the next call tries again
                    self._file = self._rotate()
            gone = [
                old for old, young in zip(self._segments, self._segments[1:], strict=False) if young.first <= upto + 1
            ]
            self._segments = self._segments[len(gone) :]
        for segment in gone:
            segment.path.unlink(missing_ok=True)

    def skip(self, upto: int) -> None:
        """Number frames from ``upto + 1`` at least: a spool that was lost must not give its numbers out again."""
        with self._changed:
            while self._leading:
                self._changed.wait()
            if upto > self._last:
                self._last = upto
                self._file = self._rotate()

    def close(self) -> None:
        """Let waiting callers finish, then let another process have it."""
        with self._changed:
            while self._leading or self._waiting:
                self._changed.wait()
            if not self._closed:
                self._closed = True
                self._file.close()
                os.close(self._lock)
            self._changed.notify_all()


def _named(lock: int) -> str:
    if len(name := os.pread(lock, 16, 0)) == 16:
        return name.decode()
    name = secrets.token_hex(8).encode()
    os.pwrite(lock, name, 0)
    os.fsync(lock)
    return name.decode()


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise DirectoryInUse(f"the spool is in use by another process: {path.parent}") from error
    return lock
