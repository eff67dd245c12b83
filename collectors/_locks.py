"""The two locks by which mail programs keep each other out of an mbox: a file beside it, and one of the kernel's."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

_STALE = timedelta(minutes=10)  # nobody holds an mbox for so long: who made an older lock has died
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@contextmanager
def locked(path: Path, now: datetime) -> Iterator[int | None]:
    """A descriptor of the mbox, for reading and writing, with both locks held; None where another program has it.

    Never waits. A lock file older than ten minutes is taken for one of a program that died.

    Raises:
        OSError: a lock can't be made there, or the file can't be opened.
    """
    beside = path.with_name(f"{path.name}.lock")
    if not _made(beside, now):
        yield None
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield file if _owned(file) else None
        finally:
            os.close(file)  # and the kernel's lock with it
    finally:
        beside.unlink(missing_ok=True)


def _owned(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _made(beside: Path, now: datetime) -> bool:
    for _ in range(2):
        try:
            file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            if not _stale(beside, now):
                return False
            beside.unlink(missing_ok=True)
        else:
            os.write(file, f"{os.getpid()}\n".encode())
            os.close(file)
            return True
    return False


def _stale(beside: Path, now: datetime) -> bool:
    try:
        made = beside.lstat().st_mtime_ns
    except FileNotFoundError:
        return True
    return now - _EPOCH > timedelta(microseconds=made // 1000) + _STALE
