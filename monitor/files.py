"""Files that are whole or not there, whatever dies: written aside, synced, then given their name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Put ``content`` in the file ``path``, in place of what was there; its owner alone may read it."""
    draft = drafted(path, (content,))
    draft.replace(path)
    sync_folder(path.parent)


def drafted(path: Path, parts: Iterable[bytes]) -> Path:
    """A file beside ``path`` with all of ``parts``, on disk; the caller gives it its name."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
