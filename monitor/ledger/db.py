"""The ledger's database: SQLite in WAL mode beside the facts; one schema, made at first opening."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from monitor.ledger import (
    access_log,
    actions,
    approvals,
    audit,
    chain,
    evidence,
    incidents,
    journal,
    keys,
    notices,
    outages,
    people,
    providers,
    sessions,
    suppressions,
    unplaced,
    webhooks,
)
from monitor.ledger.columns import metadata

TABLES = (
    access_log,
    actions,
    approvals,
    chain,
    evidence,
    incidents,
    journal,
    keys,
    notices,
    outages,
    people,
    providers,
    sessions,
    suppressions,
    unplaced,
    webhooks,
)  # imported, they have entered `metadata`


def open_ledger(path: Path, *, reads: bool = False) -> Engine:
    """An engine on the database file ``path``; its tables are made where they are missing.

    Every commit is on disk when it returns (``synchronous=FULL``); other processes may read and write meanwhile. For
    one that only ``reads`` nothing is made: it fails until there is a file, and it waits a second for a lock at most.
    """
    if reads:
        # WAL's shared memory is written by readers too, so the file is not opened read-only.
        engine = create_engine(
            f"sqlite:///file:{quote(str(path))}?mode=rw&uri=true",
            connect_args={"timeout": 1, "check_same_thread": False},
        )
        event.listen(engine, "begin", _begin)
        return engine
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10, "check_same_thread": False})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    metadata.create_all(engine)
    with engine.begin() as conn:
        chain.begin(conn, audit.LOGS)
    path.chmod(0o600)
    return engine


def open_still(path: Path) -> Engine:
    """An engine on a file that nobody writes, such as a backup's: nothing is made beside it, or locked."""
    place = f"sqlite:///file:{quote(str(path))}?mode=ro&immutable=1&uri=true"
    engine = create_engine(place, connect_args={"check_same_thread": False})
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late for a read that a write follows
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    # IMMEDIATE: two writers queue here rather than fail in the middle with "database is locked".
    connection.exec_driver_sql("BEGIN IMMEDIATE" if not connection.get_execution_options().get("reads") else "BEGIN")
