"""Following a log file over its rotations, by rename or by copy and truncation; nothing lost, nothing repeated."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from monitor.ports import Collector

CHUNK = 256 * 1024  # bytes read at once: some two thousand lines, which still fit the processor's cache
_HEAD = 1024  # bytes by which a file is known again: the first lines, whose stamps no other log has
_ROTATED = re.compile(r"[.-][\d.-]+(?:\.gz)?")  # mail.log.1, mail.log.2.gz, mail.log-20260131, mail.log.20260131-000102
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)
_TRIES = 3  # a rotation that is under way renames files between listing and opening them


@dataclass(frozen=True, slots=True)
class Position:
    """How far a log was read: ``offset`` bytes of the file that began with ``head`` (a fingerprint, not its text).

    In a compressed file the bytes are the ones that come out. ``changed`` is when the file was last written to, in
    nanoseconds. Without an inode it stands before the first file.
    """

    inode: int = 0
    offset: int = 0
    head: str = ""
    changed: int = 0

    def dumped(self) -> dict[str, Any]:
        """As JSON can hold it; ``of`` reads it."""
        return asdict(self)

    @classmethod
    def of(cls, cursor: Mapping[str, Any]) -> Position:
        """The position in a cursor, which may hold more; an empty one stands before the first file."""
        return cls(**{field.name: cursor[field.name] for field in fields(cls) if field.name in cursor})


class Log:
    """One open file of a log, plain or .gz."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        status = os.fstat(self._file.fileno())
        self.inode, self.changed, self.size = status.st_ino, status.st_mtime_ns, status.st_size
        self._packed = path.suffix == ".gz"
        self._stream: IO[bytes] = gzip.GzipFile(fileobj=self._file) if self._packed else self._file  # type: ignore[assignment]  # both read and seek
        self._start = b""

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def head(self, length: int = _HEAD) -> bytes:
        """The first bytes, fewer where the file is shorter."""
        if not self._packed:
            return os.pread(self._file.fileno(), length, 0)
        if not self._start:
            self._stream.seek(0)
            self._start = self._stream.read(_HEAD)
        return self._start[:length]

    def position(self, offset: int) -> Position:
        """Where one stands who has read up to ``offset``."""
        return Position(self.inode, offset, self._fingerprint(offset), self.changed)

    def continues(self, position: Position) -> bool:
        """Whether the file is the one of ``position``, wherever it lies now: the same, renamed, copied, compressed.

        Never for one of which nothing was read yet: it could not be told from any other.
        """
        if not position.offset or (not self._packed and self.size < position.offset):
            return False
        return self._fingerprint(position.offset) == position.head

    def chunks(self, offset: int, length: int) -> Iterator[tuple[bytes, int, bool, bool]]:
        """(bytes, offset after them, whether they are the last ones, whether the file is broken there).

        Ends where the file ended when it was opened.
        """
        broken = ended = False
        while not ended:
            wanted = length if self._packed else max(0, min(length, self.size - offset))
            data = b""
            try:
                self._stream.seek(offset)
                data = self._stream.read(wanted)
            except _BROKEN:
                broken = True
            offset += len(data)
            ended = len(data) < wanted or (not self._packed and offset >= self.size)
            yield data, offset, ended, broken

    def _fingerprint(self, offset: int) -> str:
        return blake2b(self.head(min(offset, _HEAD)), digest_size=16).hexdigest() if offset else ""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a log in their order. ``complete``: its file is at its end for good, the next piece is another's.

    ``at_end``: nothing more for now. ``lost``: bytes before these, or from here to the end of this file, are gone.
    """

    data: bytes
    log: Log
    offset: int
    complete: bool
    at_end: bool
    lost: bool

    def position(self, pending: int = 0) -> Position:
        """Where one stands who has dealt with all of it but the last ``pending`` bytes."""
        return self.log.position(self.offset - pending)


class Followed(Collector):
    """Reads a log file and the ones that it was rotated to."""

    path: Path = Field(description="The log file; its rotated files are looked for beside it.")

    def unreadable(self) -> str:
        """Why the log can't be opened."""
        try:
            os.close(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            return f"{self.path} can't be read: {error.strerror}"
        return ""


def follow(path: Path, position: Position, length: int = CHUNK) -> Iterator[Piece]:
    """What was written to the log ``path`` since ``position``, at least one piece (maybe an empty one).

    The file of ``position`` is looked for beside ``path`` when it is no longer there, and read to its end; then the
    ones that were rotated away meanwhile, then ``path`` from its start. An old file is left only when the new one has
    bytes: until then whoever writes may still hold the old one.

    Raises:
        OSError: ``path`` can't be read, or is not there and no file of it either.
    """
    with ExitStack() as stack:
        road, offset, lost = _road(path, position, stack)
        for log in road:
            more = log is not road[-1]
            for data, after, ended, broken in log.chunks(offset, length):
                yield Piece(data, log, after, complete=ended and more, at_end=ended and not more, lost=lost or broken)
                lost = False
            offset = 0


def _road(path: Path, position: Position, stack: ExitStack) -> tuple[list[Log], int, bool]:
    """The files to read, oldest first; where to begin in the first; whether something between is lost."""
    current = _opened(path, stack) if path.exists() or not position.inode else None
    if current and (not position.inode or current.continues(position)):
        return [current], position.offset, False
    old, newer = _rotated(path, position, stack)
    road = [old, *newer] if old else newer
    known = {log.head() for log in road}
    if current and (not road or (current.size and current.head() not in known)):
        road.append(current)
    if not road:
        raise FileNotFoundError(2, os.strerror(2), str(path))
    return road, position.offset if old else 0, not old and position.offset > 0


def _rotated(path: Path, position: Position, stack: ExitStack) -> tuple[Log | None, list[Log]]:
    """The file of ``position`` under another name, and the files rotated away after it, oldest first."""
    logs: list[Log] = []
    for _ in range(_TRIES):
        names = (other for other in path.parent.iterdir() if _is_rotated(other.name, path.name))
        logs = sorted((log for name in names if (log := _readable(name, stack))), key=lambda log: log.changed)
        same = [log for log in logs if log.continues(position)]
        if same:
            old = next((log for log in same if log.inode == position.inode), same[0])
            return old, _unread(logs, old.changed, old.head())
    # Of the file of which nothing was read yet, not even the time of its last line has gone by.
    return None, _unread(logs, position.changed if position.offset else position.changed - 1, b"")


def _unread(logs: list[Log], since: int, known: bytes) -> list[Log]:
    """The files that were written to after ``since``, each once: one that is being compressed is there twice."""
    once: dict[bytes, Log] = {}
    for log in logs:
        if log.changed > since and log.head() != known:
            once.setdefault(log.head(), log)
    return list(once.values())


def _is_rotated(name: str, log: str) -> bool:
    return name.startswith(log) and _ROTATED.fullmatch(name, len(log)) is not None


def _readable(path: Path, stack: ExitStack) -> Log | None:
    try:
        log = _opened(path, stack)
        log.head()
    except (OSError, *_BROKEN):
        return None
    return log


def _opened(path: Path, stack: ExitStack) -> Log:
    log = Log(path)
    stack.callback(log.close)
    return log
