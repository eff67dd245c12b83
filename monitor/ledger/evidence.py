"""What speaks against a recipient: a row for each bounce, complaint or unsubscription, and what became of it.

Written with the batch that brought it, in one transaction with how far the spool is applied: so each counts once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    distinct,
    func,
    or_,
    select,
    true,
    type_coerce,
    update,
)

from monitor.core.suppressing import Reason
from monitor.ledger.columns import Stamp, metadata

_BINDS = 500  # SQLite binds a bounded number of values
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
BOUNCES = (Reason.HARD, Reason.SOFT)


class State(IntEnum):
    """What became of it. On disk: add, never change."""

    NEW = 0
    WAITING = 1  # for its time to pass, or for another sign
    COUNTED = 2
    EXCUSED = 3  # the provider had an outage
    DOUBTED = 4  # nothing showed that the provider worked
    REFUTED = 5  # the recipient took mail since, or a person knows better


_evidence = Table(
    "suppression_evidence",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("key", BigInteger, nullable=False, unique=True),  # the event's, as a signed number
    Column("state", Integer, nullable=False),
    Column("look_at", Stamp, nullable=False),  # judged when the hold is over after this
    Column("reason", String, nullable=False),
    Column("reply_class", String, nullable=False),
    Column("at", Stamp, nullable=False),
    Column("pseudonym", LargeBinary, nullable=False),
    Column("message", LargeBinary, nullable=False),
    Column("provider", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("stream", String, nullable=False),
    Column("campaign", String, nullable=False),
    Column("own", Boolean, nullable=False),  # a seller told it, who speaks for itself alone
    Index("suppression_evidence_due", "state", "reason", "look_at"),
    Index("suppression_evidence_at_provider", "provider", "at"),
    Index("suppression_evidence_of_one", "pseudonym", "at"),
)
_INSERT = """
INSERT OR IGNORE INTO suppression_evidence
(key, state, look_at, reason, reply_class, at, pseudonym, message, provider, tenant, stream, campaign, own)
VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# key, look_at, reason, reply class, at, pseudonym, message, provider, tenant, stream, campaign, own; times in POSIX
# microseconds, the key signed
Raw = tuple[int, int, str, str, int, bytes, bytes, str, str, str, str, bool]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One row."""

    seq: int
    key: int
    state: State
    reason: Reason
    reply_class: str
    at: datetime
    pseudonym: bytes
    message: bytes
    provider: str
    tenant: str
    stream: str
    campaign: str
    own: bool


def add(conn: Connection, rows: Sequence[Raw]) -> None:
    """Put new evidence down; what is known already stays as it is."""
    if rows:
        conn.exec_driver_sql(_INSERT, list(rows))


def newest(conn: Connection) -> int:
    """The number of the last row; 0 where there is none."""
    return int(conn.execute(select(func.coalesce(func.max(_evidence.c.seq), 0))).scalar_one())


def new(conn: Connection, reasons: Collection[Reason], limit: int) -> list[Evidence]:
    """Rows at which nobody has looked, the oldest first."""
    asked = select(_evidence).where(_in_state(State.NEW), _for(reasons)).order_by(_evidence.c.seq).limit(limit)
    return [_read(row) for row in conn.execute(asked)]


def unseen(conn: Connection, upto: int) -> dict[str, tuple[datetime, datetime]]:
    """Provider → first and last time of its bounces at which nobody has looked, up to that row."""
    asked = (
        select(_evidence.c.provider, func.min(_evidence.c.at), func.max(_evidence.c.at))
        .where(_in_state(State.NEW), _for(BOUNCES), _evidence.c.seq <= upto)
        .group_by(_evidence.c.provider)
    )
    return {provider: (first, last) for provider, first, last in conn.execute(asked)}


def look_over(conn: Connection, upto: int) -> None:
    """Their provider was looked at: bounces up to that row wait for their time."""
    conn.execute(
        update(_evidence)
        .where(_in_state(State.NEW), _for(BOUNCES), _evidence.c.seq <= upto)
        .values(state=int(State.WAITING))
    )


def refused(
    conn: Connection, provider: str, since: datetime, until: datetime, step: timedelta, *, own: bool = False
) -> Mapping[int, int]:
    """Step → recipients whom the provider refused in it; steps are counted from ``since``.

    ``own``: sellers' words too. Like all that is counted here of a provider, it is else what we know ourselves.
    """
    began, size = (since - _EPOCH) // _MICROSECOND, step // _MICROSECOND
    number = (type_coerce(_evidence.c.at, BigInteger) - began) // size
    asked = (
        select(number.label("step"), func.count(distinct(_evidence.c.pseudonym)))
        .where(_at_provider(provider, since, until), true() if own else ~_evidence.c.own)
        .group_by("step")
    )
    return {int(place): int(count) for place, count in conn.execute(asked)}


def refused_in_all(conn: Connection, provider: str, since: datetime, until: datetime) -> int:
    """How many bounces there were at the provider."""
    asked = select(func.count()).where(_at_provider(provider, since, until), ~_evidence.c.own)
    return int(conn.execute(asked).scalar_one())


def refused_by(conn: Connection, label: str, provider: str, since: datetime, until: datetime) -> dict[str, int]:
    """``tenant`` or ``campaign`` → recipients of its mail whom the provider refused."""
    column = _evidence.c[label]
    asked = (
        select(column, func.count(distinct(_evidence.c.pseudonym)))
        .where(_at_provider(provider, since, until), ~_evidence.c.own)
        .group_by(column)
    )
    return {name: int(count) for name, count in conn.execute(asked)}


def some_refused(conn: Connection, provider: str, since: datetime, until: datetime, most: int) -> list[bytes]:
    """Some of the recipients whom the provider refused, as good as drawn at random: a pseudonym is random."""
    asked = (
        select(_evidence.c.pseudonym)
        .distinct()
        .where(_at_provider(provider, since, until), ~_evidence.c.own)
        .order_by(_evidence.c.pseudonym)
        .limit(most)
    )
    return [bytes(found) for found in conn.execute(asked).scalars()]


def due(conn: Connection, why: Reason, before: datetime, limit: int) -> list[Evidence]:
    """What waits and is to be judged, the oldest first."""
    asked = (
        select(_evidence)
        .where(_in_state(State.WAITING), _evidence.c.reason == str(why), _evidence.c.look_at <= before)
        .order_by(_evidence.c.look_at, _evidence.c.seq)
        .limit(limit)
    )
    return [_read(row) for row in conn.execute(asked)]


def at_provider(
    conn: Connection,
    provider: str,
    since: datetime,
    until: datetime,
    states: Collection[State],
    limit: int | None = None,
) -> list[Evidence]:
    """The provider's bounces of that time which are in one of the states; so many at most."""
    asked = select(_evidence).where(_at_provider(provider, since, until), _in_states(states)).limit(limit)
    return [_read(row) for row in conn.execute(asked)]


def against(
    conn: Connection, people: Iterable[bytes], why: Reason, states: Collection[State], since: datetime | None = None
) -> dict[bytes, list[Evidence]]:
    """All of that sort for each of these recipients, the oldest first; who has none is left out."""
    found: dict[bytes, list[Evidence]] = {}
    for some in _some(sorted(set(people))):
        asked = select(_evidence).where(
            _evidence.c.pseudonym.in_(some), _evidence.c.reason == str(why), _in_states(states)
        )
        if since:
            asked = asked.where(_evidence.c.at >= since)
        for row in conn.execute(asked.order_by(_evidence.c.at)):
            found.setdefault(bytes(row.pseudonym), []).append(_read(row))
    return found


def mark(conn: Connection, rows: Iterable[int], state: State, look_at: datetime | None = None) -> None:
    """Put rows, by number, into a state; ``look_at``: when they are judged again."""
    values: dict[str, Any] = {"state": int(state)} | ({"look_at": look_at} if look_at else {})
    for some in _some(list(rows)):
        conn.execute(update(_evidence).where(_evidence.c.seq.in_(some)).values(values))


def still(conn: Connection, rows: Iterable[int], state: State) -> set[int]:
    """Which of the rows are in that state now."""
    found: set[int] = set()
    for some in _some(list(rows)):
        asked = select(_evidence.c.seq).where(_evidence.c.seq.in_(some), _in_state(state))
        found.update(conn.execute(asked).scalars())
    return found


def refute(conn: Connection, person: bytes, why: Reason | None = None) -> None:
    """A person knows better: nothing of that sort that was told so far speaks against the recipient."""
    mine = _evidence.c.pseudonym == person
    if why is not None:
        mine = mine & (_evidence.c.reason == str(why))
    conn.execute(update(_evidence).where(mine).values(state=int(State.REFUTED)))


def known(conn: Connection, keys: Iterable[int]) -> dict[int, Evidence]:
    """Key of an event → its row, where there is one; keys are signed."""
    found: dict[int, Evidence] = {}
    for some in _some(list(keys)):
        for row in conn.execute(select(_evidence).where(_evidence.c.key.in_(some))):
            found[row.key] = _read(row)
    return found


def change(conn: Connection, seq: int, why: Reason, reply_class: str, look_at: datetime) -> None:
    """It speaks for something else, as it is understood now: judged anew, unless a person knew better."""
    values = {"reason": str(why), "reply_class": reply_class, "look_at": look_at}
    conn.execute(update(_evidence).where(_evidence.c.seq == seq).values(values))
    refuted = _evidence.c.state == int(State.REFUTED)
    conn.execute(update(_evidence).where(_evidence.c.seq == seq, ~refuted).values(state=int(State.NEW)))


def remove(conn: Connection, rows: Iterable[int]) -> None:
    """It speaks against nobody."""
    for some in _some(list(rows)):
        conn.execute(delete(_evidence).where(_evidence.c.seq.in_(some)))


def forget(conn: Connection, person: bytes) -> int:
    """Remove all that speaks against a recipient; how many rows that was."""
    return conn.execute(delete(_evidence).where(_evidence.c.pseudonym == person)).rowcount


def expire(conn: Connection, before: datetime, limit: int) -> int:
    """Remove what happened before that time, so many rows at most; how many went."""
    old = select(_evidence.c.seq).where(_evidence.c.at < before).limit(limit)
    return conn.execute(delete(_evidence).where(_evidence.c.seq.in_(old))).rowcount


def waiting(conn: Connection) -> int:
    """How many bounces wait to be judged."""
    asked = select(func.count()).where(_in_states((State.NEW, State.WAITING)), _for(BOUNCES))
    return int(conn.execute(asked).scalar_one())


def _in_state(state: State) -> ColumnElement[bool]:
    return _evidence.c.state == int(state)


def _in_states(states: Collection[State]) -> ColumnElement[bool]:
    return or_(*(_in_state(state) for state in states))


def _for(reasons: Collection[Reason]) -> ColumnElement[bool]:
    return or_(*(_evidence.c.reason == str(why) for why in reasons))


def _at_provider(provider: str, since: datetime, until: datetime) -> ColumnElement[bool]:
    return and_(_evidence.c.provider == provider, _evidence.c.at >= since, _evidence.c.at < until, _for(BOUNCES))


def _some(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[first : first + _BINDS] for first in range(0, len(values), _BINDS))


def _read(row: Row[Any]) -> Evidence:
    return Evidence(
        seq=row.seq,
        key=row.key,
        state=State(row.state),
        reason=Reason(row.reason),
        reply_class=row.reply_class,
        at=row.at,
        pseudonym=bytes(row.pseudonym),
        message=bytes(row.message),
        provider=row.provider,
        tenant=row.tenant,
        stream=row.stream,
        campaign=row.campaign,
        own=row.own,
    )
