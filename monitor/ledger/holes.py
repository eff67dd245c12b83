"""What a core no longer has of what a shipper told it, such as after a restore: kept until it is told again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from monitor.ledger import journal

_NAME = "shipped hole "  # of what a source remembers
_NEWS = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Hole:
    """Frames ``first`` to ``last`` of a spool; what they told of a source happened ``since`` .. ``until``.

    ``since`` is None where nothing was known of the source before.
    """

    spool: str
    first: int
    last: int
    since: datetime | None
    until: datetime

    @property
    def name(self) -> str:
        """Under which the source remembers it."""
        return f"{_NAME}{self.spool} {self.first}"

    @property
    def kept(self) -> Sequence[Any]:
        """As JSON can hold it."""
        return [self.spool, self.first, self.last, self.since and _micros(self.since), _micros(self.until)]


def of(conn: Connection, source: str, node: str) -> tuple[Hole, ...]:
    """The holes in what that source told."""
    kept = journal.remembered(conn, source, node)
    return tuple(_hole(value) for name, value in kept.items() if name.startswith(_NAME))


def patched(known: Sequence[Hole], new: Hole | None, spool: str, at: Sequence[int]) -> tuple[Hole, ...]:
    """The holes after rows of these times came in ``spool``.

    A shipper that was set up anew tells its log from the first line there is, in order: what is later is here again.
    """
    first = _stamp(min(at)) if at else None
    found = {hole.name: hole for hole in (new, *known) if hole}  # what is known already was told before
    return tuple(
        hole if first is None or hole.spool == spool else replace(hole, until=min(hole.until, first))
        for hole in found.values()
        if first is None or hole.spool == spool or (hole.since and hole.since < first)
    )


def changes(before: Sequence[Hole], after: Sequence[Hole]) -> dict[str, Any]:
    """What a source is to remember, and to forget."""
    gone = {hole.name: None for hole in before}
    return {**gone, **{hole.name: hole.kept for hole in after}} if [*before] != [*after] else {}


def told(found: Iterable[Hole], now: datetime) -> str:
    """The newest of the last day, for people."""
    fresh = [hole for hole in found if now - hole.until < _NEWS]
    if not fresh:
        return ""
    hole = max(fresh, key=lambda one: one.until)
    since = f", of the time from {hole.since:%Y-%m-%dT%H:%M:%SZ} to {hole.until:%H:%M:%SZ}" if hole.since else ""
    remedy = "where its logs still are, stop it, move its `data` away and start it: it tells them again"
    return f"its frames {hole.first} to {hole.last} are not here{since}, such as after a restore; {remedy}"


def spans(conn: Connection) -> list[tuple[datetime, datetime]]:
    """From when to when some source's facts are missing."""
    found = map(_hole, journal.remembered_by_all(conn, _NAME))
    return [(hole.since, hole.until) for hole in found if hole.since]


def _hole(kept: Sequence[Any]) -> Hole:
    spool, first, last, since, until = kept
    return Hole(spool, first, last, None if since is None else _stamp(since), _stamp(until))


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _stamp(micros: int) -> datetime:
    return _EPOCH + micros * _MICROSECOND
