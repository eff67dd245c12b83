"""Files whose names and kinds are others': opened without waiting, without following, and only what is a letter."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from monitor.scrub import scrub

LINK = "a symbolic link: not followed"
SPECIAL = "no plain file: not opened"
LARGE = "over the largest size of a letter"
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
_NAMED = 100  # characters of a name that are shown


class NotRead(Exception):  # noqa: N818  # an answer about one file rather than a fault
    """The file is no letter, or can't be read now: ``why``. ``passing``: it may be another time."""

    def __init__(self, why: str, *, passing: bool = False) -> None:
        super().__init__(why)
        self.why, self.passing = why, passing


@dataclass(frozen=True, slots=True)
class File:
    """A whole file; when it was last written to, in nanoseconds."""

    content: bytes
    changed: int


@contextmanager
def folder(path: Path) -> Iterator[int]:
    """A descriptor of a folder, by which its files are named whatever its name leads to meanwhile."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def changed(descriptor: int, name: str) -> int:
    """When the file of that name was last written to, in nanoseconds.

    Raises:
        FileNotFoundError: it is gone.
    """
    return os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime_ns


def read(descriptor: int, name: str, largest: int) -> File:
    """The file of that name in an open folder.

    Raises:
        FileNotFoundError: it is gone.
        NotRead: it is a link, a pipe, a device, over ``largest`` bytes, or may not be read.
    """
    try:
        _plain(os.stat(name, dir_fd=descriptor, follow_symlinks=False), largest)
        file = os.open(name, _FLAGS, dir_fd=descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:  # it was put in the place of a file just now
            raise NotRead(LINK) from error
        raise NotRead(f"can't be opened: {error.strerror}", passing=True) from error
    try:
        status = os.fstat(file)
        _plain(status, largest)
        return File(_all(file, largest), status.st_mtime_ns)
    except OSError as error:
        raise NotRead(f"can't be read: {error.strerror}", passing=True) from error
    finally:
        os.close(file)


def shown(name: str) -> str:
    """A file's name as people may see it: who made it up may have put an address or a terminal's commands into it."""
    return scrub(os.fsencode(name).decode("utf-8", "replace"), _NAMED)


def _plain(status: os.stat_result, largest: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise NotRead(LINK)
    if not stat.S_ISREG(status.st_mode):
        raise NotRead(SPECIAL)
    if status.st_size > largest:
        raise NotRead(LARGE)


def _all(file: int, largest: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := os.read(file, 1 << 20):
        parts.append(part)
        size += len(part)
        if size > largest:  # it grows while it is read
            raise NotRead(LARGE)
    return b"".join(parts)
