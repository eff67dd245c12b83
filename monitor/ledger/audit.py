"""Both logs of the ledger, and whether they are still what was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DatabaseError

from monitor.ledger import access_log, actions, verifying
from monitor.ledger.chain import Head
from monitor.ledger.verifying import Flaw

LOGS = (actions.log, access_log.access)


def verify(conn: Connection, log: Table, heads: Sequence[Head] = ()) -> Iterator[Flaw | None]:
    """Go through one of both: None for each row that is right, and each flaw. ``heads``: of any log, kept elsewhere.

    Raises:
        ValueError: a head is of entries that were dropped since, so that it proves nothing.
    """
    kept = [head for head in heads if head.log == log.name]
    yield from verifying.verify(conn, log, kept, _dropped(conn) if log is access_log.access else 0)
    yield from verifying.sound(conn, log)


def _dropped(conn: Connection) -> int:
    try:
        return access_log.dropped(conn)
    except (DatabaseError, ValueError):
        return 0  # what can't be read is found on the way
