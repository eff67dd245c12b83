"""When keys were last used in a process that never writes the ledger: a small file, which others read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import monotonic

from sqlalchemy import Connection

from monitor.access.keys import Keys
from monitor.files import write
from monitor.ledger import keys
from monitor.ledger.keys import Key

log = logging.getLogger(__name__)

EVERY = 10.0  # seconds between two writes at least
_LARGEST = 16 << 20  # bytes: more than any number of keys makes


def file(data: Path) -> Path:
    """Where the gate of that directory keeps it."""
    return data / "used.gate.json"


class Uses:
    """Puts what ``Keys`` has noted into the file, beside what stood there."""

    def __init__(self, keys: Keys, path: Path) -> None:
        self._keys, self._path = keys, path
        self._when = dict(read(path))
        self._kept = float("-inf")
        self._writable = True

    def keep(self, *, ending: bool = False) -> None:
        """Write what is new, at most every ten seconds; ``ending``: at once. A disk that refuses is tried again."""
        if not ending and monotonic() - self._kept < EVERY:
            return
        self._kept = monotonic()
        new = self._keys.taken()
        if not new and self._writable:
            return
        self._when |= new
        try:
            write(self._path, json.dumps({name: at.isoformat() for name, at in self._when.items()}).encode())
            self._writable = True
        except OSError as error:
            if self._writable:  # once a change, not each time
                log.warning("last uses of keys not written, tried again", extra={"error": type(error).__name__})
            self._writable = False


def read(path: Path) -> Mapping[str, datetime]:
    """What stands in the file, by the key's id; nothing where there is none, or none of ours."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        if path.stat().st_size <= _LARGEST:
            found = {name: datetime.fromisoformat(at) for name, at in json.loads(path.read_bytes()).items()}
            return {name: at for name, at in found.items() if at.tzinfo}
    return {}


def every(conn: Connection, data: Path) -> list[Key]:
    """All keys as ``ledger.keys`` has them, with their last use in whichever process that was."""
    gate = read(file(data))
    return [_used(key, gate.get(key.id)) for key in keys.every(conn)]


def _used(key: Key, at: datetime | None) -> Key:
    return replace(key, last_used=at) if at and (key.last_used is None or key.last_used < at) else key
