"""Log files → batches, in a process of its own: reading and storing each keep a processor busy."""

from __future__ import annotations

import gzip
import multiprocessing
import queue
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.queues import Queue
from pathlib import Path
from typing import BinaryIO

from collectors.sendlog import Sendlog
from monitor.errors import UserError
from monitor.model import Batch

CHUNK = 2 << 20  # bytes
AHEAD = 32  # batches that the reader may be ahead of the store


class ImportFailed(UserError):  # noqa: N818  # it reads so where it is raised
    """A file can't be read to its end; the message names it and says what was kept."""


@dataclass(frozen=True, slots=True)
class Read:
    """What one chunk of a file gave. ``bytes`` are of the file as it lies on disk; ``last``: see ``Parser.last``."""

    file: str
    bytes: int
    lines: int
    batch: Batch
    last: int


class Reader:
    """Reads files ahead from the moment it is made; iterate for what they hold, oldest first."""

    def __init__(self, files: Sequence[Path], source: Sendlog, now: datetime) -> None:
        context = multiprocessing.get_context("spawn")  # never fork beside threads
        self._told: Queue[Read | ImportFailed | None] = context.Queue(AHEAD)
        self._process = context.Process(target=_read, args=(self._told, files, source, now), daemon=True)
        self._process.start()

    def __iter__(self) -> Iterator[Read]:
        """The chunks.

        Raises:
            ImportFailed: a file, or the reader itself, broke off; what came before is told before.
        """
        while (told := self._next()) is not None:
            if isinstance(told, ImportFailed):
                raise told
            yield told

    def _next(self) -> Read | ImportFailed | None:
        while True:
            try:
                return self._told.get(timeout=1)
            except queue.Empty:
                if not self._process.is_alive() and self._told.empty():
                    return ImportFailed(
                        f"the reader ended with code {self._process.exitcode}; what came before is kept"
                    )

    def close(self) -> None:
        """End it, wherever it is."""
        self._process.kill()
        self._process.join()
        self._told.close()


def _read(told: Queue[Read | ImportFailed | None], files: Sequence[Path], source: Sendlog, now: datetime) -> None:
    parser = source.parser(now)
    try:
        for file in files:
            for size, chunk in _chunks(file):
                batch = parser.feed(chunk, file.name)
                told.put(Read(file.name, size, chunk.count(b"\n"), batch, parser.last))
            told.put(Read(file.name, 0, 0, parser.finish(file.name), parser.last))
    except ImportFailed as error:
        told.put(error)
    else:
        told.put(None)


def _chunks(file: Path) -> Iterator[tuple[int, bytes]]:
    """(bytes of the file that it took, content) of a plain or gzipped file."""
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            content: BinaryIO = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]  # reads alike
            before = 0
            while chunk := content.read(CHUNK):
                yield raw.tell() - before, chunk
                before = raw.tell()
    except (EOFError, zlib.error, OSError) as error:
        raise ImportFailed(f"{file} can't be read to its end ({error}); what came before is kept") from error
