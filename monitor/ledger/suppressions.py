"""Who is suppressed, and the log of each change: in its order it is read as a feed, the same at each reading.

An entry is a recipient, a reason, and of whose mail. The log's rows are written once; an entry holds its last one's
number. Of an entry for everybody's mail a seller sees a row only where its own mail brought the evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    and_,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from monitor.core.suppressing import Reason
from monitor.ledger.columns import Stamp, metadata

AUTOMATION = "automation"
_BINDS = 500
_LONGEST = 200  # characters of a text


class Change(StrEnum):
    """What happened to an entry; on disk and in the API: add, never change."""

    ADDED = "added"
    RENEWED = "renewed"  # it ends later, or another seller's mail found the same
    RELEASED = "released"  # before its end, by a person or since it was wrong
    ENDED = "ended"


IN_FORCE = (Change.ADDED, Change.RENEWED)
_NAME = ("pseudonym", "reason", "tenant", "stream")


def _columns() -> list[Column[Any]]:
    return [
        Column("pseudonym", LargeBinary, nullable=False),
        Column("reason", String, nullable=False),
        Column("tenant", String, nullable=False),
        Column("stream", String, nullable=False),
        Column("change", String, nullable=False),
        Column("changed_at", Stamp, nullable=False),
        Column("since", Stamp, nullable=False),
        Column("until", Stamp),
        Column("why", String, nullable=False),
        Column("who", String, nullable=False),
    ]


_entries = Table(
    "suppressions",
    metadata,
    *_columns(),
    Column("at", Stamp, nullable=False),  # of the newest evidence
    Column("seq", BigInteger, nullable=False),
    Index("suppressions_name", *_NAME, unique=True),
    Index("suppressions_until", "change", "until"),
)
_log = Table(
    "suppression_log",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    *_columns(),
    Index("suppression_log_name", *_NAME),
    Index("suppression_log_changed_at", "changed_at"),
    sqlite_autoincrement=True,
)
_sellers = Table(
    "suppression_sellers",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Index("suppression_sellers_seq", "seq"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipient, suppressed or no more. ``tenant`` and ``stream`` empty: of any; ``until`` None: it stays.

    ``change`` is what happened last, at ``changed_at``, by ``who``; ``at`` is when the newest evidence happened.
    """

    pseudonym: bytes
    reason: Reason
    tenant: str
    stream: str
    since: datetime
    until: datetime | None
    at: datetime
    why: str = ""
    who: str = AUTOMATION
    change: Change = Change.ADDED
    changed_at: datetime | None = None
    seq: int = 0

    @property
    def in_force(self) -> bool:
        """Whether it keeps mail back, as far as it was looked at: its end may have come since."""
        return self.change in IN_FORCE

    @property
    def name(self) -> tuple[bytes, str, str, str]:
        """What tells it from others."""
        return self.pseudonym, str(self.reason), self.tenant, self.stream


def write(conn: Connection, entry: Entry, now: datetime, sellers: Collection[str] = ()) -> Entry:
    """Write a change of an entry: into the log, and as what is so now. ``sellers`` may see it besides its tenant."""
    told = {
        "pseudonym": entry.pseudonym,
        "reason": str(entry.reason),
        "tenant": entry.tenant,
        "stream": entry.stream,
        "change": str(entry.change),
        "changed_at": now,
        "since": entry.since,
        "until": entry.until,
        "why": entry.why[:_LONGEST],
        "who": entry.who[:_LONGEST],
    }
    seq = int(conn.execute(_log.insert().values(told)).lastrowid)
    if who := sorted({*sellers, entry.tenant} - {""}):
        conn.execute(_sellers.insert(), [{"tenant": one, "seq": seq} for one in who])
    put = insert(_entries).values({**told, "at": entry.at, "seq": seq})
    kept = {name: put.excluded[name] for name in (*told, "at", "seq") if name not in _NAME}
    conn.execute(put.on_conflict_do_update(index_elements=list(_NAME), set_=kept))
    return replace(entry, changed_at=now, seq=seq)


def touch(conn: Connection, entry: Entry) -> None:
    """The newest evidence for an entry is newer; nothing that others would see."""
    conn.execute(update(_entries).where(_entries.c.seq == entry.seq).values(at=entry.at))


def of(conn: Connection, people: Iterable[bytes]) -> dict[bytes, list[Entry]]:
    """All entries of these recipients, those that are no more in force too; who has none is left out."""
    found: dict[bytes, list[Entry]] = {}
    asked = sorted(set(people))
    for first in range(0, len(asked), _BINDS):
        some = _entries.c.pseudonym.in_(asked[first : first + _BINDS])
        for row in conn.execute(select(_entries).where(some).order_by(*(_entries.c[name] for name in _NAME))):
            found.setdefault(bytes(row.pseudonym), []).append(_entry(row))
    return found


def sellers_of(conn: Connection, entry: Entry) -> set[str]:
    """Who may see the entry besides operators."""
    return set(conn.execute(select(_sellers.c.tenant).where(_sellers.c.seq == entry.seq)).scalars())


def seen_by(conn: Connection, tenant: str, entries: Sequence[Entry]) -> list[Entry]:
    """Those of the entries that a seller may see."""
    numbers = [entry.seq for entry in entries]
    seen: set[int] = set()
    for first in range(0, len(numbers), _BINDS):
        some = _sellers.c.seq.in_(numbers[first : first + _BINDS])
        seen.update(conn.execute(select(_sellers.c.seq).where(some, _sellers.c.tenant == tenant)).scalars())
    return [entry for entry in entries if entry.seq in seen]


def ending(conn: Connection, now: datetime, limit: int) -> list[Entry]:
    """Entries in force whose end has come."""
    asked = select(_entries).where(_in_force(), _entries.c.until <= now).limit(limit)
    return [_entry(row) for row in conn.execute(asked)]


def page(conn: Connection, since: int, limit: int, tenant: str = "") -> list[Entry]:
    """The changes after number ``since``, in their order; of a ``tenant``: those that it may see."""
    asked = select(_log, _log.c.changed_at.label("at")).where(_log.c.seq > since).order_by(_log.c.seq).limit(limit)
    if tenant:
        mine = (_sellers.c.seq == _log.c.seq) & (_sellers.c.tenant == tenant)
        asked = asked.where(_sellers.c.seq > since).join(_sellers, mine)
    return [_entry(row) for row in conn.execute(asked)]


def between(conn: Connection, after: int, upto: int) -> list[Entry]:
    """The changes from after one number to another, in their order."""
    asked = select(_log, _log.c.changed_at.label("at")).where(_log.c.seq > after, _log.c.seq <= upto)
    return [_entry(row) for row in conn.execute(asked.order_by(_log.c.seq))]


def head(conn: Connection) -> int:
    """The number of the last change; 0 where there is none."""
    return int(conn.execute(select(func.coalesce(func.max(_log.c.seq), 0))).scalar_one())


def behind(conn: Connection, after: int) -> int:
    """How many changes there are after that number."""
    return int(conn.execute(select(func.count()).where(_log.c.seq > after)).scalar_one())


def listed(
    conn: Connection, limit: int, after: tuple[bytes, str, str, str] | None = None, why: Reason | None = None
) -> list[Entry]:
    """Entries in force, by pseudonym; ``after``: the name of the last page's last one."""
    columns = [_entries.c[name] for name in _NAME]
    asked = select(_entries).where(_in_force()).order_by(*columns).limit(limit)
    if after:
        asked = asked.where(tuple_(*columns) > tuple_(*after))
    if why:
        asked = asked.where(_entries.c.reason == str(why))
    return [_entry(row) for row in conn.execute(asked)]


def every(conn: Connection, why: Reason | None = None, limit: int = 5000) -> Iterator[Entry]:
    """All entries in force, page by page."""
    after: tuple[bytes, str, str, str] | None = None
    while found := listed(conn, limit, after, why):
        yield from found
        after = found[-1].name


def counts(conn: Connection) -> dict[Reason, int]:
    """How many entries are in force, by reason."""
    asked = select(_entries.c.reason, func.count()).where(_in_force()).group_by(_entries.c.reason)
    found = {Reason(why): int(count) for why, count in conn.execute(asked)}
    return {why: found.get(why, 0) for why in Reason}


def forget(conn: Connection, person: bytes) -> int:
    """Remove a recipient's entries, and all that the log tells of them; how many rows that was."""
    numbers = select(_log.c.seq).where(_log.c.pseudonym == person)
    conn.execute(delete(_sellers).where(_sellers.c.seq.in_(numbers)))
    gone = conn.execute(delete(_log).where(_log.c.pseudonym == person)).rowcount
    return gone + conn.execute(delete(_entries).where(_entries.c.pseudonym == person)).rowcount


def dispensable(conn: Connection, superseded: datetime, over: datetime, limit: int) -> list[int]:
    """Numbers of changes that a later one superseded, and of entries that are over, if older than that.

    Without them, whoever reads the log from its beginning still learns who is suppressed. The newest row always stays.
    """
    later = _log.alias("later")
    same = [later.c[name] == _log.c[name] for name in _NAME]
    newer = select(later.c.seq).where(*same, later.c.seq > _log.c.seq).exists()
    ended = and_(_log.c.changed_at < over, _log.c.change.not_in([str(one) for one in IN_FORCE]))
    old = or_(and_(_log.c.changed_at < superseded, newer), ended)
    asked = select(_log.c.seq).where(_log.c.changed_at < max(superseded, over), old, _log.c.seq < head(conn))
    return list(conn.execute(asked.limit(limit)).scalars())


def drop(conn: Connection, numbers: Sequence[int]) -> None:
    """Remove those changes from the log, and the entries of which they are the last."""
    for first in range(0, len(numbers), _BINDS):
        some = numbers[first : first + _BINDS]
        for table in (_sellers, _log, _entries):
            conn.execute(delete(table).where(table.c.seq.in_(some)))


def _in_force() -> ColumnElement[bool]:
    return _entries.c.change.in_([str(one) for one in IN_FORCE])


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        pseudonym=bytes(row.pseudonym),
        reason=Reason(row.reason),
        tenant=row.tenant,
        stream=row.stream,
        since=row.since,
        until=row.until,
        at=row.at,
        why=row.why,
        who=row.who,
        change=Change(row.change),
        changed_at=row.changed_at,
        seq=row.seq,
    )
