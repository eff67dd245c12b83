"""Taking files away that nobody shall read again: overwritten first, as far as the disk really does so."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from monitor.files import sync_folder

_BLOCK = bytes(1 << 20)
_STRAY = "[0-9a-f]{16}"  # how ``files.drafted`` ends a name


def supplant(draft: Path, path: Path) -> None:
    """Give the draft the name ``path``, and overwrite what had it. Whoever dies in between leaves one or the other."""
    with path.open("r+b") as old:
        draft.replace(path)
        sync_folder(path.parent)
        _overwrite(old, names=0)


def remove(path: Path) -> None:
    """Overwrite the file and remove it, on disk when this returns; under another name that leads to it it stays."""
    with suppress(OSError), path.open("r+b") as file:
        _overwrite(file, names=1)
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def strays(path: Path) -> None:
    """Remove drafts of the file ``path`` that were left by who died while writing them; nobody may be writing one."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.{_STRAY}")
    if path.parent.is_dir():
        for left in [other for other in path.parent.iterdir() if ours.fullmatch(other.name)]:
            remove(left)


def _overwrite(file: BinaryIO, *, names: int) -> None:
    state = os.fstat(file.fileno())
    if state.st_nlink > names:
        return  # somebody keeps it under another name, and still wants what is in it
    with suppress(OSError):  # a file system that writes elsewhere may have no room for that
        left = state.st_size
        while left > 0:
            left -= file.write(_BLOCK[:left])
        file.flush()
        os.fsync(file.fileno())
