"""Bounces and complaints that lie as files: in a Maildir, or in a folder into which a program drops them."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, StringConstraints

from collectors._known import ASIDE
from collectors._letters import Letterbox, Raw
from collectors._rounds import Rounds
from collectors._shelf import Shelf, shelves
from collectors._strange import File, NotRead, changed, folder, read, shown
from monitor.model import Batch, Rejected
from monitor.ports import Duration, Memory, PluginError

_LISTED = 20_000  # names of one folder that are looked at in one go: some megabytes
_LETTERS = 200  # in a batch
_BYTES = 16 << 20  # in a batch, or one letter
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Name = Annotated[str, StringConstraints(pattern=r"^[^/\x00.][^/\x00]*$", max_length=200)]


@dataclass(frozen=True, slots=True)
class _Letter:
    shelf: Shelf
    name: str
    key: str
    file: File

    def raw(self) -> Raw:
        return Raw(self.file.content, shown(self.shelf.where(self.name)), max(0, self.file.changed // 1000))


class Maildir(Letterbox):
    """Reads each letter once, and puts it away after what it told is on disk."""

    every: Duration = Field(timedelta(seconds=5), description="how often it is read")
    path: Path = Field(description="A Maildir, or a plain folder with one letter a file.")
    folders: tuple[str, ...] = Field(
        default=(), description="Maildir++ folders read besides, such as `Bounces` for `.Bounces`; `*` for all."
    )
    done: dict[Literal["move"], Name] | Literal["seen", "delete", "keep"] = Field(
        default="seen",
        description="What becomes of a letter that was read: `seen`, moved to `cur` and marked so (in a plain folder: "
        'moved to `done` within it); `{move = "Done"}`, to another folder; `delete`; `keep` writes nothing.',
    )
    quiet: Duration = Field(
        default=timedelta(seconds=5), description="A file in a plain folder is read once it was left alone for so long."
    )
    largest: int = Field(default=20 << 20, ge=1 << 10, le=1 << 30, description="Bytes of the largest letter read.")

    _live: tuple[Mapping[str, Any], Rounds] | None = PrivateAttr(default=None)

    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        """What new letters tell, some hundred a batch; nothing where there are none."""
        rounds = self._resumed(memory)
        cursor = memory.cursor
        try:
            for letters in _portions(self._found(rounds, now)):
                for batch in self._told(letters, rounds, now):
                    cursor = batch.cursor
                    yield batch
        except OSError as error:
            raise PluginError(f"{self.path} can't be read: {error.strerror or error}", retry=True) from error
        self._live = (cursor, rounds)

    def unreadable(self) -> str:
        """Why letters can't be read, or put away."""
        try:
            with folder(self.path):
                found = shelves(self.path, self.folders, self._beside)
            for shelf in found:
                with folder(shelf.path):
                    pass
                if self.done != "keep" and not os.access(shelf.path, os.W_OK | os.X_OK):
                    return f'{shelf.path} can\'t be written to: let the service do so, or set done = "keep"'
        except OSError as error:
            return f"{error.filename or self.path} can't be read: {error.strerror}"
        return ""

    def _resumed(self, memory: Memory) -> Rounds:
        live, self._live = self._live, None
        if live and live[0] == memory.cursor:
            return live[1]
        return Rounds.of(memory.cursor, memory.remembers, self.largest)

    @property
    def _reads_seen(self) -> bool:
        # Only where a letter is marked in its place does the mark say that it is done with.
        return self.done != "seen"

    @property
    def _beside(self) -> str:
        """The folder for what is done with, if it is another one."""
        return self.done["move"] if isinstance(self.done, dict) else ""

    def _found(self, rounds: Rounds, now: datetime) -> Iterator[_Letter]:
        """Letters not dealt with yet, read; those that can't be are told in ``rounds.aside``."""
        there: set[str] = set()
        met: set[str] = set()  # another program moves letters from new/ to cur/ meanwhile
        whole = True
        for shelf in shelves(self.path, self.folders, self._beside):
            with folder(shelf.path) as descriptor:
                if rounds.still(shelf.path, descriptor):
                    whole = False
                    continue
                names, complete = self._names(shelf, descriptor, rounds, there, met, now)
                whole &= complete
                there.update(key for _, key in names)
                for name, key in names:
                    letter = self._letter(shelf, descriptor, name, key, rounds, now)
                    if letter:
                        met.add(key)
                        yield letter
                if rounds.restless or not complete:
                    rounds.look_again(shelf.path)
        if whole:
            rounds.all_seen(there)

    def _names(
        self, shelf: Shelf, descriptor: int, rounds: Rounds, there: set[str], met: set[str], now: datetime
    ) -> tuple[list[tuple[str, str]], bool]:
        """The first names in their order, which is that of arrival in a Maildir; and whether these are all."""

        def waiting() -> Iterator[tuple[str, str]]:
            for name in shelf.letters(descriptor, seen=self._reads_seen):
                key = shelf.key(name)
                if key in rounds.known or key in rounds.owed or key in rounds.waits:
                    there.add(key)
                if key in met or (key in rounds.known and not _came_again(shelf, descriptor, name, key, rounds)):
                    continue
                if (wait := rounds.waits.get(key)) and now < wait.until:
                    rounds.restless = True
                    continue
                yield name, key

        names = heapq.nsmallest(_LISTED, waiting())
        return names, len(names) < _LISTED

    def _letter(
        self, shelf: Shelf, descriptor: int, name: str, key: str, rounds: Rounds, now: datetime
    ) -> _Letter | None:
        try:
            if rounds.owed.pop(key, None) == changed(descriptor, name):
                self._put_away(shelf, name)
                return None
            file = read(descriptor, name, self.largest)
        except FileNotFoundError:  # another reader of the folder took it
            return None
        except NotRead as error:
            self._set_aside(shelf, name, key, error, rounds, now)
            return None
        if not shelf.maildir and abs(now - _moment(file.changed)) < self.quiet:
            rounds.restless = True
            return None
        if self.done == "keep" and rounds.known.old(file.changed):
            return None
        return _Letter(shelf, name, key, file)

    def _set_aside(self, shelf: Shelf, name: str, key: str, error: NotRead, rounds: Rounds, now: datetime) -> None:
        if key not in rounds.waits:
            rounds.aside.append(Rejected(error.why, shown(shelf.where(name))))
        if error.passing:
            rounds.put_off(key, now)
        else:
            rounds.known.add(key, ASIDE)

    def _told(self, letters: Sequence[_Letter], rounds: Rounds, now: datetime) -> Iterator[Batch]:
        done, batch = self._read(letters, rounds, now) if letters else ([], Batch({}))
        aside, rounds.aside = rounds.aside, []
        if self.done == "keep":
            for letter in done:
                rounds.known.add(letter.key, letter.file.changed)
        remember = rounds.known.told()
        if not letters and not aside and not remember:
            return
        rounds.count += len(done) + len(aside)
        owed = {letter.key: letter.file.changed for letter in done} if self.done != "keep" else {}
        yield replace(
            batch,
            cursor=rounds.cursor(owed),
            rejected=[*aside, *batch.rejected],
            remember={**batch.remember, **remember},
        )
        if self.done != "keep":
            for letter in done:
                if not self._put_away(letter.shelf, letter.name):
                    rounds.owed[letter.key] = letter.file.changed

    def _read(self, letters: Sequence[_Letter], rounds: Rounds, now: datetime) -> tuple[list[_Letter], Batch]:
        told = self.read([letter.raw() for letter in letters], now)
        done = []
        for place, letter in enumerate(letters):
            if place in told.later:
                rounds.put_off(letter.key, now)
            else:
                rounds.waits.pop(letter.key, None)
                done.append(letter)
        return done, told.batch

    def _put_away(self, shelf: Shelf, name: str) -> bool:
        """Whether it was there: another program may have removed it, or given it another name."""
        try:
            if self.done == "delete":
                (shelf.path / name).unlink()
            else:
                shelf.put(name, self._beside)
        except FileNotFoundError:
            return False
        except OSError as error:
            deed = "deleted" if self.done == "delete" else "moved"
            raise PluginError(
                f"letters in {shelf.path} can't be {deed} ({error.strerror}): "
                f'let the service write there, or set done = "keep"',
                retry=True,
            ) from error
        return True


def _came_again(shelf: Shelf, descriptor: int, name: str, key: str, rounds: Rounds) -> bool:
    """Whether another file bears the name of one that is known: in a Maildir no name is used twice."""
    try:
        return not shelf.maildir and rounds.known.is_other(key, changed(descriptor, name))
    except FileNotFoundError:
        return False


def _portions(letters: Iterator[_Letter]) -> Iterator[list[_Letter]]:
    """As many as make a batch; the last may be empty."""
    some: list[_Letter] = []
    size = 0
    for letter in letters:
        some.append(letter)
        size += len(letter.file.content)
        if len(some) >= _LETTERS or size >= _BYTES:
            yield some
            some, size = [], 0
    yield some


def _moment(nanoseconds: int) -> datetime:
    # A file may bear any stamp.
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _EPOCH
