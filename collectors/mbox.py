"""Bounces and complaints in an mbox to which another program appends."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from collectors._letters import Letterbox, Raw
from collectors._locks import locked
from collectors._mbox import Splitter
from collectors._rounds import Wait
from collectors._strange import LARGE
from collectors._tail import Piece, Position, follow
from monitor.model import Batch, Rejected
from monitor.ports import Duration, Memory, PluginError

LOST = "emptied, rewritten or rotated away: letters may be lost"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Mbox(Letterbox):
    """Follows one mbox, through rotation too, and reads each letter once."""

    every: Duration = Field(timedelta(seconds=5), description="how often it is read")
    path: Path = Field(description="The mbox; files it was rotated to are looked for beside it.")
    done: Literal["keep", "empty"] = Field(
        default="keep",
        description="`empty`: the file is emptied when all of it was read, under the locks that mail programs use.",
    )
    quiet: Duration = Field(
        default=timedelta(seconds=30), description="The last letter is whole once the file was left alone for so long."
    )
    largest: int = Field(default=20 << 20, ge=1 << 10, le=1 << 30, description="Bytes of the largest letter read.")

    _wait: Wait | None = PrivateAttr(default=None)

    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        """What letters since ``memory.cursor`` tell, a batch for each piece of the file that ended some."""
        cursor = memory.cursor
        try:
            status = self.path.stat() if self.path.exists() else None
            if status and not stat.S_ISREG(status.st_mode):
                raise PluginError(f"{self.path} is no plain file: name an mbox", retry=True)
            if cursor.get("emptying") and status and status.st_size < cursor["offset"]:
                cursor = {}  # by ourselves, and then we were killed
            for batch in self._batches(cursor, now):
                cursor = batch.cursor
                yield batch
            if self.done == "empty" and cursor.get("emptying") and self._emptied(cursor, now):
                yield Batch({})
        except OSError as error:
            raise PluginError(f"{self.path} can't be read: {error.strerror or error}", retry=True) from error

    def unreadable(self) -> str:
        """Why the mbox can't be read, or emptied."""
        flags, deed = (os.O_RDONLY, "read") if self.done == "keep" else (os.O_RDWR, "emptied")
        try:
            os.close(os.open(self.path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError as error:
            return f"{self.path} can't be {deed}: {error.strerror}"
        return ""

    def _batches(self, cursor: Mapping[str, Any], now: datetime) -> Iterator[Batch]:
        cut = _Cut(self, cursor, now, again=self._due(cursor, now))
        for piece in follow(self.path, cut.position):
            if cut.rewritten(piece):
                yield from self._batches({"lost": True}, now)
                return
            letters, rejected = cut.letters(piece)
            told = self.read(letters, now)
            cut.put_off(piece, told.later)
            after = cut.cursor(piece)
            if letters or rejected or _moved(cursor, after):
                yield replace(told.batch, cursor=after, rejected=[*rejected, *told.batch.rejected])
                cursor = after
        if not cut.later:
            self._wait = None
        elif cut.again or self._wait is None:
            self._wait = Wait.after(self._wait, now)

    def _due(self, cursor: Mapping[str, Any], now: datetime) -> bool:
        return bool(cursor.get("later")) and (self._wait is None or now >= self._wait.until)

    def _emptied(self, cursor: Mapping[str, Any], now: datetime) -> bool:
        """Whether the file is empty now: not if somebody writes to it, or wrote since we read it."""
        try:
            with locked(self.path, now) as file:
                if file is None:
                    return False
                status = os.fstat(file)
                if (status.st_ino, status.st_size) != (cursor["inode"], cursor["offset"]):
                    return False
                os.ftruncate(file, 0)
                os.fsync(file)
        except OSError as error:
            raise PluginError(
                f"{self.path} can't be emptied ({error.strerror}): let the service write to it and its folder, "
                f'or set done = "keep"',
                retry=True,
            ) from error
        return True


class _Cut:
    """One reading: letters cut out of pieces, and how far that is.

    Nothing of a letter but its place may rest on disk, so those to be read ``later`` are read with all behind them,
    ``again``; which counts nothing twice.
    """

    def __init__(self, box: Mbox, cursor: Mapping[str, Any], now: datetime, *, again: bool) -> None:
        self._box, self._now = box, now
        self.again = again
        self.later: Mapping[str, Any] = {} if again else cursor.get("later", {})
        self._since = cursor["later"]["since"] if again else 0
        self._until = cursor["offset"] if again else 0
        start = cursor["later"] if again else cursor
        self.position = Position.of(start)
        self._first = self.position.offset > 0
        self._lost = bool(cursor.get("lost"))
        self._splitter = Splitter(box.largest, skipping=not again and cursor.get("skipping", False))
        self._begins: list[int] = []

    def rewritten(self, piece: Piece) -> bool:
        """Whether the file is no longer the one that was read so far, though it begins as that did."""
        first, self._first = self._first, False
        text = piece.data.lstrip(b"\r\n")
        return first and not self._splitter.skipping and bool(text) and not text.startswith(b"From ")

    def letters(self, piece: Piece) -> tuple[list[Raw], list[Rejected]]:
        """Letters that end in the piece, and what is lost."""
        where = str(self._box.path)
        rejected = []
        if piece.lost or self._lost:
            self._lost = False
            self._splitter = Splitter(self._box.largest)
            rejected.append(Rejected(LOST, where))
        dropped = self._splitter.dropped
        found = list(self._splitter.push(piece.data))
        if piece.complete or (piece.at_end and self._quiet(piece)):
            found += self._splitter.finish()
        rejected += [Rejected(LARGE, where)] * (self._splitter.dropped - dropped)
        self._begins = [piece.offset - behind for _, behind in found]
        changed = max(0, piece.log.changed // 1000)
        return [
            Raw(letter, f"{where} byte {begin}", min(changed, self._since) if begin < self._until else changed)
            for (letter, _), begin in zip(found, self._begins, strict=True)
        ], rejected

    def put_off(self, piece: Piece, places: frozenset[int]) -> None:
        """These letters are to be read once more."""
        if places and not self.later:
            since = self._since or (self._now - _EPOCH) // _MICROSECOND
            self.later = {**piece.log.position(self._begins[min(places)]).dumped(), "since": since}

    def cursor(self, piece: Piece) -> dict[str, Any]:
        """Where the next reading begins. ``emptying``: all that is in the file was read, and it may be emptied."""
        pending = self._splitter.pending
        whole = piece.at_end and not pending and not self.later and not self._splitter.skipping and piece.offset > 0
        return {
            **piece.position(pending).dumped(),
            "skipping": self._splitter.skipping,
            "emptying": whole and self._box.done == "empty",
            **({"later": dict(self.later)} if self.later else {}),
        }

    def _quiet(self, piece: Piece) -> bool:
        return abs(self._now - _EPOCH - timedelta(microseconds=piece.log.changed // 1000)) >= self._box.quiet


def _moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the next reading begins elsewhere: stamps of a file that is written to are no news."""
    names = ("inode", "offset", "skipping", "emptying", "later")
    return after["offset"] > 0 and any(before.get(name) != after.get(name) for name in names)
