"""What a shipper knows beside its spool: up to which frame the core has all, and where each collector stood then."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reached (spool TEXT NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (source TEXT PRIMARY KEY, cursor TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memory (
    source TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (source, name)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a collector stands after a frame, and what it has to remember since the one before."""

    source: str
    cursor: Mapping[str, Any] = field(default_factory=dict)
    remember: Mapping[str, Any] = field(default_factory=dict)


class State:
    """A small database; every change is on disk when the call returns. Safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._conn = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        path.chmod(0o600)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
            self._conn.execute(f"PRAGMA {pragma}")
        self._conn.executescript(_SCHEMA)

    def reached(self, spool: str) -> int:
        """The last frame of that spool which the core has; 0 before the first."""
        found = self._rows("SELECT sequence FROM reached WHERE spool = ?", spool)
        return int(found[0][0]) if found else 0

    def cursor(self, source: str) -> Mapping[str, Any]:
        """As of the last frame that the core has."""
        found = self._rows("SELECT cursor FROM cursors WHERE source = ?", source)
        return dict(json.loads(found[0][0])) if found else {}

    def remembered(self, source: str) -> dict[str, Any]:
        """As of the last frame that the core has."""
        found = self._rows("SELECT name, value FROM memory WHERE source = ?", source)
        return {name: json.loads(value) for name, value in found}

    def reach(self, spool: str, sequence: int, stands: Iterable[Stand]) -> None:
        """The core has all frames up to ``sequence``; ``stands`` are theirs, oldest first."""
        with self._lock, closing(self._conn.cursor()) as conn:
            conn.execute("BEGIN IMMEDIATE")
            try:
                for stand in stands:
                    _put(conn, stand)
                conn.execute("DELETE FROM reached")
                conn.execute("INSERT INTO reached VALUES (?, ?)", (spool, sequence))
                conn.execute("COMMIT")
            except BaseException:
                conn.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._conn.close()

    def _rows(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._conn.execute(statement, values).fetchall()


def _put(conn: sqlite3.Cursor, stand: Stand) -> None:
    conn.execute(
        "INSERT INTO cursors VALUES (?, ?) ON CONFLICT DO UPDATE SET cursor = excluded.cursor",
        (stand.source, json.dumps(stand.cursor)),
    )
    gone = [(stand.source, name) for name, value in stand.remember.items() if value is None]
    kept = [(stand.source, name, json.dumps(value)) for name, value in stand.remember.items() if value is not None]
    conn.executemany("DELETE FROM memory WHERE source = ? AND name = ?", gone)
    conn.executemany("INSERT INTO memory VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", kept)
