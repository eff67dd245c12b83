"""What could not be read, kept encrypted for a while: to be looked at, and to be read again once that is mended.

An item is one thing, or some of one batch that were wrong in the same way, so that a flood makes few files. What people
do with it is in ``triage``.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path

from monitor import sealing
from monitor.files import sync_folder, write
from monitor.floods import Floods
from monitor.keyring import Keyring
from monitor.model import Rejected
from monitor.scrub import scrub
from monitor.sealing import Damaged, Head, Trouble

__all__ = ["APPLIER", "Damaged", "Gone", "Item", "Quarantine", "Trouble", "joined"]

log = logging.getLogger(__name__)

APPLIER = "applier"  # the source of what the store refused
# Kinds of it: facts that were acknowledged, as frames of the spool; they come from no stranger.
FRAME, ROWS = "frame", "rows"
OURS = (FRAME, ROWS)
EXPIRED, FULL, LARGE, FLOOD, DISK = "expired", "full", "too large", "flood", "disk"
REASONS = (EXPIRED, FULL, LARGE, FLOOD, DISK)  # why things are not kept, or not any more
LARGEST = 64 << 20  # bytes of one thing; more than any broker or mail server hands over
ITEMS = 20_000  # files: they are looked through at each start
THINGS = 200_000  # in all items: each is known by eight bytes, so that it is kept once
_TOGETHER = 1000  # things in an item
_TOGETHER_BYTES = 1 << 20
_NAME = re.compile(r"[0-9a-f]{20}")


class Gone(Trouble):
    """There is no such item, or no more."""

    def __init__(self, item: str) -> None:
        super().__init__(f"there is no item {scrub(item, 40)} in the quarantine", "see mailvane quarantine list")


@dataclass(frozen=True, slots=True)
class Item:
    """``count`` things of a ``kind`` (line, message, frame, rows): ``where`` the first stood, ``why`` it was no good.

    ``size``: bytes of its file. ``damaged`` says why it can't be opened; ``at`` is then when its file was written, and
    nothing else is known.
    """

    id: str
    at: datetime
    source: str = ""
    kind: str = ""
    where: str = ""
    why: str = ""
    count: int = 1
    size: int = 0
    damaged: str = ""


@dataclass(frozen=True, slots=True)
class Stand:
    """What is kept, at one moment."""

    items: int
    things: int
    bytes: int
    oldest: datetime | None


@dataclass(slots=True)
class _Kept:
    item: Item
    marks: Sequence[bytes] = ()


class Quarantine:
    """The open quarantine of one process, a file an item in ``folder``; safe to use from many threads.

    Kept for ``keep`` and up to ``limit`` bytes: then the oldest go. ``dropped`` counts, by reason, the things that are
    not kept or not any more.
    """

    def __init__(
        self, folder: Path, keyring: Keyring, keep: timedelta = timedelta(days=14), limit: int = 1 << 30
    ) -> None:
        self.keep, self.limit = keep, limit
        self.dropped: Counter[str] = Counter()
        self._folder, self._keyring = folder, keyring
        self._lock = threading.RLock()
        self._kept: dict[str, _Kept] = {}  # oldest first
        self._marks: dict[bytes, str] = {}  # of a thing → its item
        self._floods = Floods(limit // 8)
        self._size = self._things = 0
        for kept in sorted(self._found(), key=lambda kept: kept.item.at):
            self._enter(kept)

    def put(self, raw: bytes, *, source: str, kind: str, where: str, why: str, at: datetime | None = None) -> str:
        """Keep one thing, on disk when this returns; its item's id, also of one that is kept already.

        ``at`` None: as the disk says when its file was written, for who has no clock. Empty where it is not kept: it is
        too large, its source has told too much, or the disk refuses. That is counted.
        """
        with self._lock:
            self._put([Rejected(why, where, raw=raw, kind=kind)], source, at)
            return self._marks.get(_mark(source, raw), "")

    def take(self, rejected: Sequence[Rejected], source: str, at: datetime) -> None:
        """Keep what of these has ``raw``, on disk when this returns; what is kept already is not kept twice."""
        groups: dict[tuple[str, str], list[Rejected]] = defaultdict(list)
        for item in rejected:
            if item.raw:
                groups[item.kind, item.why.partition(":")[0]].append(item)
        with self._lock:
            for group in groups.values():
                for some in _parts(group):
                    self._put(some, source, at)

    def adopt(self, folder: Path) -> None:
        """Take over the dead letters of earlier releases, and of backups; their time begins now."""
        for path in sorted(folder.glob("[!.]*")):
            kind = ROWS if path.suffix == ".arrow" else FRAME
            if self.put(path.read_bytes(), source=APPLIER, kind=kind, where=path.stem, why="set aside before"):
                path.unlink()
        with suppress(OSError):  # it is not there, or not empty
            folder.rmdir()

    def every(self) -> list[Item]:
        """All items, the newest first."""
        with self._lock:
            return sorted(
                (kept.item for kept in self._kept.values()), key=lambda item: (item.at, item.id), reverse=True
            )

    def item(self, name: str) -> Item:
        """What is known of one without opening it.

        Raises:
            Gone: there is none of that id.
        """
        with self._lock:
            if name not in self._kept:
                raise Gone(name)
            return self._kept[name].item

    def things(self, name: str) -> list[Rejected]:
        """The things of an item, each as it was set aside.

        Raises:
            Gone: there is none of that id.
            Damaged: it was changed, or sealed with another keyring.
        """
        self.item(name)
        try:
            with (self._folder / name).open("rb") as file:
                return sealing.things(self._keyring, name, file)
        except FileNotFoundError:
            raise Gone(name) from None

    def open(self, name: str) -> bytes:
        """The bytes of an item; things are one after the other, each with a line end where there are several.

        Raises:
            Gone: there is none of that id.
            Damaged: it was changed, or sealed with another keyring.
        """
        return joined(self.things(name))

    def drop(self, name: str) -> None:
        """Remove an item.

        Raises:
            Gone: there is none of that id.
        """
        with self._lock:
            self.item(name)
            self._remove(name)
            sync_folder(self._folder)

    def leave(self, name: str, things: Sequence[Rejected]) -> None:
        """Keep only these things of an item, with what is wrong with them now; none: it goes.

        Raises:
            Gone: there is none of that id.
        """
        with self._lock:
            before = self.item(name)
            if not things:
                self.drop(name)
                return
            head, content = self._sealed(name, things, before.source, before.at)
            write(self._folder / name, content)
            place = self._kept[name]
            self._uncount(place)
            place.item, place.marks = self._item(head), head.marks
            self._count(place)

    def expire(self, now: datetime) -> int:
        """Remove what is older than ``keep``; how many items went."""
        with self._lock:
            old = [kept.item for kept in self._kept.values() if now - kept.item.at > self.keep]
            for item in old:
                self._remove(item.id)
            if old:
                self.dropped[EXPIRED] += sum(item.count for item in old)
                sync_folder(self._folder)
                log.info("quarantine expired", extra={"items": len(old)})
            return len(old)

    def stand(self) -> Stand:
        """How much is kept."""
        with self._lock:
            oldest = next(iter(self._kept.values())).item.at if self._kept else None
            return Stand(len(self._kept), self._things, self._size, oldest)

    # under the lock

    def _put(self, group: Sequence[Rejected], source: str, at: datetime | None) -> None:
        fresh = {mark: item for item in group if (mark := _mark(source, item.raw)) not in self._marks}
        small = [item for item in fresh.values() if len(item.raw) <= min(LARGEST, self.limit // 4)]
        if lost := len(fresh) - len(small):
            self._lose(LARGE, lost, source)
        things = self._admitted(small, source, at)
        if not things:
            return
        head, content = self._sealed(secrets.token_hex(10), things, source, at)
        try:
            self._make_room(len(content), len(things))
            write(self._folder / head.id, content)
        except OSError as error:
            if things[0].kind in OURS:
                raise  # these were acknowledged: they wait for room
            self._lose(DISK, len(things), source, error=error.strerror)
        else:
            self._enter(_Kept(self._item(head), head.marks))

    def _admitted(self, things: Sequence[Rejected], source: str, at: datetime | None) -> list[Rejected]:
        """Those for which the source's hour has room."""
        if at is None or not things or things[0].kind in OURS:
            return list(things)
        admitted = self._floods.admit(things, source, at)
        if lost := len(things) - len(admitted):
            self.dropped[FLOOD] += lost
            if self._floods.first(source, at):
                log.warning("quarantine takes no more of a source within this hour", extra={"source": source})
        return admitted

    def _sealed(self, name: str, things: Sequence[Rejected], source: str, at: datetime | None) -> tuple[Head, bytes]:
        first = things[0]
        marks = [_mark(source, thing.raw) for thing in things]
        why, where = scrub(first.why, 300), scrub(first.where, 300)
        head = Head(name, at, source, first.kind, where, why, len(things), marks)
        return head, sealing.sealed(self._keyring, head, things)

    def _make_room(self, size: int, things: int) -> None:
        gone: list[Item] = []
        while self._kept and (
            self._size + size > self.limit or self._things + things > THINGS or len(self._kept) >= ITEMS
        ):
            gone.append(next(iter(self._kept.values())).item)
            self._remove(gone[-1].id)
        if gone:
            self._lose(FULL, sum(item.count for item in gone), gone[0].source, oldest=gone[0].at.isoformat())

    def _enter(self, kept: _Kept) -> None:
        item = kept.item
        self._kept[item.id] = kept
        self._count(kept)
        self._floods.count(item.source, item.at, item.count, item.size)

    def _remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
        self._uncount(self._kept.pop(name))

    def _count(self, kept: _Kept) -> None:
        self._size += kept.item.size
        self._things += kept.item.count
        self._marks.update(dict.fromkeys(kept.marks, kept.item.id))

    def _uncount(self, kept: _Kept) -> None:
        self._size -= kept.item.size
        self._things -= kept.item.count
        for mark in kept.marks:
            if self._marks.get(mark) == kept.item.id:
                del self._marks[mark]

    def _lose(self, reason: str, count: int, source: str, **more: str | None) -> None:
        self.dropped[reason] += count
        log.warning("not kept in quarantine", extra={"reason": reason, "things": count, "source": source, **more})

    def _found(self) -> Iterator[_Kept]:
        for path in self._folder.glob(".*.*"):  # what a crash left half written
            path.unlink()
        for path in filter(lambda path: _NAME.fullmatch(path.name), self._folder.glob("*")):
            try:
                with path.open("rb") as file:
                    head = sealing.head(self._keyring, path.name, file)
            except Damaged as error:
                state = path.stat()
                yield _Kept(Item(path.name, _written(state), size=state.st_size, damaged=str(error)))
            else:
                yield _Kept(self._item(head), head.marks)

    def _item(self, head: Head) -> Item:
        state = (self._folder / head.id).stat()
        at = head.at or _written(state)
        return Item(head.id, at, head.source, head.kind, head.where, head.why, head.count, state.st_size)


def joined(things: Sequence[Rejected]) -> bytes:
    """Their bytes, one after the other; each with a line end where there are several."""
    if len(things) == 1:
        return things[0].raw
    return b"".join(thing.raw.removesuffix(b"\n") + b"\n" for thing in things)


def _written(state: os.stat_result) -> datetime:
    return datetime.fromtimestamp(state.st_mtime, UTC)


def _parts(group: Sequence[Rejected]) -> Iterator[list[Rejected]]:
    """The same in parts that each make an item."""
    part: list[Rejected] = []
    size = 0
    for item in group:
        if part and (len(part) >= _TOGETHER or size + len(item.raw) > _TOGETHER_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item.raw)
    if part:
        yield part


def _mark(source: str, raw: bytes) -> bytes:
    return blake2b(source.encode() + b"\0" + raw, digest_size=8).digest()
