"""Reports about messages that are not known yet: they wait here, sealed, and are tried again for a while.

On disk before the letter is acknowledged that told them. What is decided of one is written down before it goes into the
spool, so that after a crash in between the same goes in again, and counts once. Then only its digest stays, for as long
as its source may tell it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Boolean, Column, Connection, Integer, LargeBinary, String, Table, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from monitor.ledger.columns import Stamp, metadata

_unplaced = Table(
    "unplaced",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("source", String, nullable=False),
    Column("came", Stamp, nullable=False),
    Column("due", Stamp, index=True),  # none: decided
    Column("tries", Integer, nullable=False),
    Column("decided", Boolean, nullable=False, index=True),
    Column("content", LargeBinary),  # none: handed over
)
_waits = _unplaced.c.due.is_not(None)
_BOUND = 500  # values of one statement: SQLite binds a bounded number


@dataclass(frozen=True, slots=True)
class Waiting:
    """One report: ``id`` is a digest of it, ``came`` when it was told, ``due`` when it is tried next."""

    id: bytes
    source: str
    came: datetime
    content: bytes = field(repr=False)
    due: datetime | None = None
    tries: int = 0


def put(conn: Connection, reports: Sequence[Waiting]) -> None:
    """Let these wait; one that is here, or was lately, stays as it is."""
    if reports:
        rows = [
            {
                "id": one.id,
                "source": one.source,
                "came": one.came,
                "due": one.due,
                "tries": one.tries,
                "decided": False,
                "content": one.content,
            }
            for one in reports
        ]
        conn.execute(insert(_unplaced).on_conflict_do_nothing(), rows)


def known(conn: Connection, ids: Iterable[bytes]) -> set[bytes]:
    """Which of these are here, or were lately."""
    found: set[bytes] = set()
    for some in _parts(list(ids)):
        found.update(map(bytes, conn.execute(select(_unplaced.c.id).where(_unplaced.c.id.in_(some))).scalars()))
    return found


def due(conn: Connection, now: datetime, most: int) -> list[Waiting]:
    """What is to be tried now: the least often tried first, so that a flood of lies delays no true report."""
    by = _unplaced.c.tries, _unplaced.c.due
    asked = select(_unplaced).where(_waits, _unplaced.c.due <= now).order_by(*by).limit(most)
    return [Waiting(row.id, row.source, row.came, row.content, row.due, row.tries) for row in conn.execute(asked)]


def later(conn: Connection, when: Mapping[bytes, datetime]) -> None:
    """Try these once more, at their times."""
    for name, at in when.items():
        conn.execute(
            update(_unplaced).where(_unplaced.c.id == name, _waits).values(due=at, tries=_unplaced.c.tries + 1)
        )


def decide(conn: Connection, content: Mapping[bytes, bytes]) -> None:
    """What these are to count as, for good."""
    for name, sealed in content.items():
        conn.execute(
            update(_unplaced).where(_unplaced.c.id == name, _waits).values(due=None, decided=True, content=sealed)
        )


def decided(conn: Connection, most: int) -> list[Waiting]:
    """What is decided and not yet handed over, the first that came first."""
    asked = select(_unplaced).where(_unplaced.c.decided).order_by(_unplaced.c.came).limit(most)
    return [Waiting(row.id, row.source, row.came, row.content, None, row.tries) for row in conn.execute(asked)]


def handed(conn: Connection, ids: Iterable[bytes]) -> None:
    """These are in the spool: nothing but their digests stays."""
    for some in _parts(list(ids)):
        conn.execute(update(_unplaced).where(_unplaced.c.id.in_(some)).values(due=None, decided=False, content=None))


def forget(conn: Connection, before: datetime) -> None:
    """Take away what was handed over and came before that time."""
    conn.execute(delete(_unplaced).where(_unplaced.c.content.is_(None), _unplaced.c.came < before))


def waiting(conn: Connection) -> int:
    """How many are not yet handed over."""
    count = select(func.count()).select_from(_unplaced).where(_waits | _unplaced.c.decided)
    return int(conn.execute(count).scalar_one())


def _parts(ids: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (ids[first : first + _BOUND] for first in range(0, len(ids), _BOUND))
