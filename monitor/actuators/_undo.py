"""What we hold in a tier that can't let go by itself, in a file that ``mailvane release`` works off (ADR 3).

The file says what is held, until when, and which command undoes it. It is written before anything is held, so whatever
dies when, what is held stands in it. Beside it stand its copy, since one damaged file must not hold mail for ever, a
lock, which whoever changes both the file and the tier has, and a sign that ``mailvane release`` lives.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from monitor.files import write as write_file
from monitor.ports import PluginError

FORMAT = "what mailvane holds, 1"
SILENT = 30.0  # seconds without a sign of life, and nobody is taken to be there
SETTLED = 180.0  # seconds; longer than any helper that was asked to hold may still be at it


class Instant(NamedTuple):
    """Wall clock and the time since the machine started, in seconds; ``boot`` names that start."""

    wall: float
    up: float
    boot: str


class Until(NamedTuple):
    """When a held thing must be let go, in POSIX seconds, and by which lease it is held."""

    end: float
    lease: str


# Of the same few leases for very many things: one value for all of them.
until_of = lru_cache(maxsize=4096)(Until)


@dataclass
class Held:
    """A file's content. ``undo`` is a command that takes what it shall undo on standard input, one a line.

    ``damage`` is what was wrong with the files; ``lost``: not all of it could be read.
    """

    undo: tuple[str, ...]
    at: Instant
    until: dict[str, Until] = field(default_factory=dict)
    damage: str = ""
    lost: bool = False

    def ended(self, at: Instant) -> dict[str, Until]:
        """What must be let go by now: by the wall clock or, if that was set back, by the time that has passed."""
        now = at.wall
        if at.boot == self.at.boot:
            now = max(now, self.at.wall + at.up - self.at.up)
        if now < self.first:
            return {}
        return {what: until for what, until in self.until.items() if until.end <= now}

    @cached_property
    def first(self) -> float:
        """When the first of it ends."""
        return min((until.end for until in self.until.values()), default=math.inf)


def instant(now: datetime) -> Instant:
    """The wall clock's ``now`` with what the machine's other clock says."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return Instant(now.timestamp(), time.clock_gettime(time.CLOCK_BOOTTIME), boot)


def read(path: Path) -> Held | None:
    """What is held; None where nothing was ever written. Damage is told in the answer; the rest is read."""
    found = {place: held for place in (path, _beside(path, "copy")) if (held := _load(place))}
    damage = "; ".join(f"{place}: {held.damage}" for place, held in found.items() if held.damage)
    for held in found.values():
        if not held.damage:
            held.damage = damage if path in found else f"{path} is gone, its copy was read"
            return held
    if not found:
        return None
    parts = [*found.values()]
    best = max(parts, key=lambda part: bool(part.undo))
    until = {what: until for part in reversed(parts) for what, until in part.until.items()}
    return Held(best.undo, best.at, until, damage, lost=True)


def write(path: Path, held: Held) -> None:
    """Put it on disk, twice; the owner alone may read it.

    Raises:
        PluginError: the disk does not take it.
    """
    head: dict[str, Any] = {
        "format": FORMAT,
        "undo": held.undo,
        "wall": held.at.wall,
        "up": held.at.up,
        "boot": held.at.boot,
    }
    each: Iterator[dict[str, Any]] = (
        {"what": what, "end": until.end, "lease": until.lease} for what, until in held.until.items()
    )
    content = b"".join(_sealed(line) for line in (head, *each, {"things": len(held.until)}))
    try:
        write_file(path, content)
        write_file(_beside(path, "copy"), content)
    except OSError as error:
        raise PluginError(f"{path} can't be written: {error.strerror}", retry=True) from error


def set_aside(path: Path) -> None:
    """Keep damaged files under another name too, for a person to look into and remove."""
    for place, aside in zip((path, _beside(path, "copy")), set_aside_as(path), strict=True):
        aside.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            aside.hardlink_to(place)


def set_aside_as(path: Path) -> tuple[Path, Path]:
    """Where damaged files are kept, the file and its copy; they may not be there."""
    return _beside(path, "damaged"), _beside(path, "copy.damaged")


@contextmanager
def locked(path: Path, patience: float) -> Iterator[bool]:
    """Whether we are the only one that changes file and tier; waits so many seconds for another to end."""
    lock = os.open(_beside(path, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _locked(lock, time.monotonic() + patience)
    finally:
        os.close(lock)


def _locked(lock: int, end: float) -> bool:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        else:
            return True


def untouched(path: Path) -> bool:
    """Whether nobody has ever begun to hold anything."""
    return not path.exists() and not _beside(path, "lock").exists()


def about_to_hold(path: Path) -> None:
    """Say, under the lock, that a helper will be asked to hold; it may go on for a while even if we die."""
    os.utime(_beside(path, "lock"))


def settled(path: Path, at: Instant) -> bool:
    """Whether, under the lock, nothing can still be on its way to be held: what is undone now is undone for good."""
    return at.wall - _beside(path, "lock").stat().st_mtime > SETTLED


def show_life(path: Path) -> None:
    """Say that somebody lives who lets go what has ended."""
    alive = _beside(path, "alive")
    alive.touch(0o600)
    os.utime(alive)


def end_life(path: Path) -> None:
    """Say that nobody does any more."""
    _beside(path, "alive").unlink(missing_ok=True)


def alive(path: Path, now: float) -> bool:
    """Whether somebody said lately that he lives."""
    try:
        # A sign from the future is as good as none: a clock was set.
        return abs(now - _beside(path, "alive").stat().st_mtime) <= SILENT
    except OSError:
        return False


def signature(path: Path) -> tuple[tuple[int, int, int], ...]:
    """Another value whenever the file or its copy is another; costs two looks at the folder."""
    found = []
    for place in (path, _beside(path, "copy")):
        try:
            stat = place.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f"{path.name}.{word}")


def _load(path: Path) -> Held | None:
    """As much of one file as can be understood; None where there is none."""
    held = Held((), Instant(0.0, 0.0, ""))
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            # It holds a command that we shall call.
            if stat.st_uid != os.geteuid() or stat.st_mode & 0o022:
                held.damage = "belongs to another user, or others may write it"
            else:
                held.damage = _fill(held, file.read().splitlines())
    except FileNotFoundError:
        return None
    except OSError as error:
        held.damage = f"can't be read: {error.strerror}"
    return held


def _sealed(told: Mapping[str, Any]) -> bytes:
    """A line with its checksum in front: a damaged one must not be taken for another."""
    line = json.dumps(told, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(line), line)


def _fill(held: Held, lines: Sequence[bytes]) -> str:
    """Take over what the lines say; what is wrong with them."""
    bad, things = 0, -1
    for sealed in lines:
        told = _opened(sealed)
        if "what" in told:
            held.until[told["what"]] = until_of(told["end"], told["lease"])
        elif told.get("format") == FORMAT:
            held.undo, held.at = tuple(told["undo"]), Instant(told["wall"], told["up"], told["boot"])
        elif "things" in told:
            things = told["things"]
        else:
            bad += 1
    if bad:
        return f"{bad} of {len(lines)} lines can't be read"
    return "" if held.undo and things == len(held.until) else "it is not whole"


def _opened(sealed: bytes) -> dict[str, Any]:
    """What a line says; nothing where it is damaged."""
    seal, _, line = sealed.partition(b" ")
    if seal != b"%08x" % zlib.crc32(line):
        return {}
    told: dict[str, Any] = json.loads(line)
    return told
