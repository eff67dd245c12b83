"""The directory of the embedded engine, before the engine sees it: its own words for these faults help nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import tempfile
from pathlib import Path

from monitor.errors import UserError

_DESCRIPTORS = 8192  # some 900 were seen with three readers and merges; a common limit is 1024


def prepared(path: str) -> Path:
    """The directory, made where there is none, for its owner only. On a full disk the engine opens all the same.

    Raises:
        UserError: it can't be read or written; the message says what to do.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _try_out(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{folder} can't be written: {error.strerror}. Let the user that runs Mailvane write there, "
                "or name another directory (service.data, or --data)"
            ) from error
    return folder


def in_use(folder: Path) -> bool:
    """Whether an engine, of another process or of this one, has the directory open."""
    try:
        with (folder / "status").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def raise_descriptor_limit() -> None:
    """As many open files as the engine may need, or as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _try_out(folder: Path) -> None:
    """Do once what the engine will do: list, write, sync."""
    os.listdir(folder)  # noqa: PTH208  # whether it may be read; what is in it does not matter
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
