"""What receivers said: replies with counts, the classes that they fall into, and those that nothing explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from monitor.facts.grouped import ANY
from monitor.facts.raw import Place, last, limits, stamp
from monitor.facts.store import Reader
from monitor.meaning import ReplyClass
from monitor.model import Kind, Scope

REFUSED = (Kind.DEFERRED, Kind.BOUNCED, Kind.EXPIRED, Kind.RETURNED)
_UNEXPLAINED = 20_000  # texts that are looked at: the most frequent ones


@dataclass(frozen=True, slots=True)
class Reply:
    """A text that receivers answered with, as it was scrubbed; ``count`` outcomes between ``first`` and ``last``.

    ``code`` 0 and empty ``dsn``: it named none. ``reply_class`` is what it means (``monitor.meaning``), "" unknown.
    ``providers``: some of those that said it.
    """

    id: int
    kind: Kind
    code: int
    dsn: str
    reply_class: str
    text: str
    count: int
    first: datetime
    last: datetime
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Class:
    """How many refusals of a class there were, by whom and of which kind."""

    reply_class: str
    kind: Kind
    provider: str
    count: int


def replies(
    facts: Reader,
    since: datetime,
    until: datetime,
    where: Scope = ANY,
    *,
    kinds: Sequence[Kind] = (Kind.DEFERRED, Kind.BOUNCED, Kind.RETURNED),
    code: int | None = None,
    dsn: str = "",
    reply_class: str = "",
    most: int = 50,
    after: Place | None = None,
) -> tuple[Reply, ...]:
    """The replies in [since, until), the one that came last first; ``after``: the next page.

    ``dsn``: an enhanced status or how it begins, such as 5, 5.7 or 5.7.1. ``reply_class``: what they mean, such as
    quota, or listed for all lists. Outcomes without a text are one more reply.
    """
    cut, values = limits(since, until, where)
    cut.append("events.kind IN {kinds:Array(String)}")
    values["kinds"] = [kind.value for kind in kinds]
    if code is not None:
        cut.append("events.code = {code:UInt16}")
        values["code"] = code
    if dsn:
        cut.append("(events.dsn = {dsn:String} OR startsWith(events.dsn, concat({dsn:String}, '.')))")
        values["dsn"] = dsn
    if reply_class:
        cut.append("(events.reply_class = {cls:String} OR startsWith(events.reply_class, concat({cls:String}, ':')))")
        values["cls"] = reply_class
    having = ""
    if after:
        having, values = " HAVING (last, id) < ({last_at:Int64}, {last_id:UInt64})", values | last(after)
    columns = ("kind", "code", "dsn", "reply")
    table = facts.query(
        f"SELECT cityHash64({', '.join(f'events.{column}' for column in columns)}) AS id,"  # noqa: S608  # names are ours
        " toString(any(events.kind)) AS kind, any(events.code) AS code, toString(any(events.dsn)) AS dsn,"
        " any(events.reply) AS text, anyLast(toString(events.reply_class)) AS cls, toInt64(sum(events.count)) AS count,"
        " toUnixTimestamp64Milli(min(events.at)) AS first, toUnixTimestamp64Milli(max(events.at)) AS last,"
        " arraySort(groupUniqArray(5)(toString(events.provider))) AS providers"
        f" FROM events WHERE {' AND '.join(cut)} GROUP BY id{having} ORDER BY last DESC, id DESC LIMIT {most:d}",
        **values,
    )
    return tuple(_reply(row) for row in table.to_pylist())


def classes(
    facts: Reader, since: datetime, until: datetime, where: Scope = ANY, *, most: int = 500
) -> tuple[Class, ...]:
    """What the refusals in [since, until) meant, by provider, the most frequent first. Class "" is an unknown one."""
    cut, values = limits(since, until, where)
    cut.append("events.kind IN {kinds:Array(String)}")
    values["kinds"] = [kind.value for kind in REFUSED]
    table = facts.query(
        "SELECT toString(events.reply_class) AS cls, toString(events.kind) AS what,"  # noqa: S608  # names are ours
        " toString(events.provider) AS whose, toInt64(sum(events.count)) AS count FROM events"
        f" WHERE {' AND '.join(cut)} GROUP BY cls, what, whose ORDER BY count DESC, cls, what, whose LIMIT {most:d}",
        **values,
    )
    return tuple(Class(row["cls"], Kind(row["what"]), row["whose"], row["count"]) for row in table.to_pylist())


def unexplained(facts: Reader, since: datetime, until: datetime, where: Scope = ANY) -> list[tuple[str, int]]:
    """The texts of refusals in [since, until) whose class nobody knows, with counts, the most frequent first."""
    cut, values = limits(since, until, where)
    cut += [
        "events.kind IN {kinds:Array(String)}",
        "events.reply != ''",
        "events.reply_class IN {unknown:Array(String)}",
    ]
    values |= {"kinds": [kind.value for kind in REFUSED], "unknown": ["", str(ReplyClass.OTHER)]}
    table = facts.query(
        "SELECT events.reply AS text, toInt64(sum(events.count)) AS count FROM events"  # noqa: S608  # names are ours
        f" WHERE {' AND '.join(cut)} GROUP BY text ORDER BY count DESC, text LIMIT {_UNEXPLAINED:d}",
        **values,
    )
    return [(row["text"], row["count"]) for row in table.to_pylist()]


def _reply(row: dict[str, Any]) -> Reply:
    return Reply(
        id=row["id"],
        kind=Kind(row["kind"]),
        code=row["code"],
        dsn=row["dsn"],
        reply_class=row["cls"],
        text=row["text"],
        count=row["count"],
        first=stamp(row["first"]),
        last=stamp(row["last"]),
        providers=tuple(filter(None, row["providers"])),
    )
