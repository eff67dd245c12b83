"""Stores for tests: the embedded engine in a directory, or what ``STORE_DSN`` names, with a database of each one's own.

``STORE_DSN=clickhouse://default@127.0.0.1:8123/x?cluster=mailvane`` runs the same tests on a cluster; its password, if
there is one, is ``STORE_PASSWORD``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitor.dsn import Embedded, Server, parse
from monitor.facts import schema
from monitor.facts.store import Facts

DSN = os.environ.get("STORE_DSN", "")
PASSWORD = os.environ.get("STORE_PASSWORD", "")
# Tests about what only the engine in our own process does: its directory, its memory, its handles.
embedded = pytest.mark.skipif(DSN.startswith("clickhouse://"), reason="about the embedded engine; STORE_DSN is another")


def place(folder: Path) -> Embedded | Server:
    """Where a store of its own may be."""
    named = parse(DSN) if DSN else Embedded(str(folder))
    if isinstance(named, Server):
        return replace(named, database=f"mailvane_test_{secrets.token_hex(6)}")
    return Embedded(str(folder))


@contextmanager
def store(folder: Path, *, migrated: bool = True, **more: Any) -> Iterator[Facts]:
    """An open store without a row, removed afterwards; ``folder`` is where an embedded one goes."""
    facts = Facts.open(str(place(folder)), password=PASSWORD, **more)
    try:
        if migrated:
            schema.migrate(facts)
        yield facts
    finally:
        if isinstance(facts.place, Server):
            facts.command(facts.nodes.drop_database())
        facts.close()


def empty(facts: Facts) -> None:
    """Remove every row: one process may have one directory open, and opening takes a while."""
    for table in schema.TABLES:
        facts.command(facts.nodes.truncate(table))
