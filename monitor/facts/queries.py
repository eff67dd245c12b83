"""What is asked of the facts, by name: counts by labels, as arrays. See ``rated`` for rates, ``raw`` for events.

No SQL stands outside of this folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from monitor.facts.grains import COUNTERS, GRAINS, HOUR_LABELS, MINUTE_LABELS
from monitor.facts.grouped import ANY, counters, ints, owned, part, scopes, seconds, select, stepped, within
from monitor.facts.store import Facts, Reader
from monitor.model import COUNTED, Kind, Scope

if TYPE_CHECKING:
    from monitor.ports import Ints

_SHARD = 1_000_000  # rows whose distinct values are counted at a time, to stay within a reader's memory


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of each outcome, for n scopes; arrays of shape (n,). ``first`` are first attempts."""

    scopes: tuple[Scope, ...]
    sent: Ints
    deferred: Ints
    bounced: Ints
    expired: Ints
    complaint: Ints
    held: Ints
    unsubscribed: Ints
    returned: Ints
    not_spam: Ints
    first: Ints
    first_deferred: Ints


@dataclass(frozen=True, slots=True)
class Series:
    """One scope's counts over time; arrays of one length. ``at``: POSIX seconds at which each step begins, ascending.

    A step in which nothing happened is left out.
    """

    scope: Scope
    at: Ints
    sent: Ints
    deferred: Ints
    bounced: Ints
    expired: Ints
    complaint: Ints
    held: Ints
    unsubscribed: Ints
    returned: Ints
    not_spam: Ints
    first: Ints
    first_deferred: Ints


def counts(
    facts: Reader,
    by: Sequence[str],
    since: datetime,
    until: datetime,
    where: Scope = ANY,
    sent_since: datetime | None = None,
) -> Counts:
    """Outcomes in the minutes [since, until) of ``at``, grouped by the labels ``by``, within ``where``.

    ``sent_since``: only of messages sent in that minute or later. Naming segment, campaign or variant brings the
    tenant with it. A scope without any outcome is left out.
    """
    names = owned(by)
    grain = "minute" if sent_since is None and within(MINUTE_LABELS, names, where) else "leaf"
    rows = part(grain, "at", since, until, where)
    if sent_since is not None:
        rows = rows.narrowed("leaf.sent_at >= toDateTime({sent_since:Int64}, 'UTC')", sent_since=seconds(sent_since))
    return _counted(facts.query(select(rows, names, counters(grain)), **rows.values), names)


def cohort_counts(
    facts: Reader,
    by: Sequence[str],
    since: datetime,
    until: datetime,
    where: Scope = ANY,
    providers: Sequence[str] | None = None,
    lag_class: int | None = None,
) -> Counts:
    """The same for messages by the hours [since, until) in which they were sent, whenever the outcome came.

    ``providers``: only there. ``lag_class``: only what was known by then (``schema.LAG_EDGES``).

    Raises:
        ValueError: variant or region, which the hours don't keep.
    """
    names = owned(by)
    if not within(HOUR_LABELS, names, where):
        raise ValueError(f"by the hour of sending there are only {', '.join(HOUR_LABELS)}")
    rows = part("hour", "sent_at", since, until, where)
    if providers is not None:
        rows = rows.at(providers)
    if lag_class is not None:
        rows = rows.narrowed("hour.lag <= {lag_class:UInt8}", lag_class=lag_class)
    return _counted(facts.query(select(rows, names, counters("hour")), **rows.values), names)


def series(
    facts: Reader, by: Sequence[str], since: datetime, until: datetime, step: timedelta, where: Scope = ANY
) -> list[Series]:
    """Outcomes by steps of whole minutes from ``since``, one series a scope.

    ``rated.lines`` asks for what a chart needs and no more: it is quicker, and bounded.
    """
    names = owned(by)
    grain = "minute" if within(MINUTE_LABELS, names, where) else "leaf"
    rows = part(grain, "at", since, until, where)
    sql = select(rows, names, counters(grain), step=stepped(grain, "at"), order="id, step")
    return list(_split(facts.query(sql, **rows.values, step=int(step.total_seconds())), names))


def totals(facts: Reader) -> dict[str, Any]:
    """Rows and distinct keys of the raw events, and the sum of counts by kind there and in each grain.

    ``{"rows": n, "keys": n, "events": {kind: n}, "leaf": {kind: n}, "minute": …, "hour": …}``; all must agree.
    """
    sums = ", ".join(f"sumIf(count, kind = '{kind}') AS {kind}" for kind in COUNTED)
    found = _row(facts.query(f"SELECT count() AS rows, {sums} FROM events"))  # noqa: S608  # names are ours
    rows = found.pop("rows")
    keys = _distinct(facts, "key", "1", rows)
    told: dict[str, Any] = {"rows": rows, "keys": keys, "events": found}
    for grain in GRAINS:
        sums = ", ".join(f"sum({grain}.{kind}) AS {kind}" for kind in COUNTED)
        told[grain] = _row(facts.query(f"SELECT {sums} FROM {grain}"))  # noqa: S608  # names are ours
    return told


def by_hour(facts: Facts, timezone: str = "UTC") -> list[tuple[datetime, Kind, int]]:
    """(local hour, kind, count) of all that happened, oldest first; hours are aware and stand in ``timezone``."""
    zone = ZoneInfo(timezone)
    sums = ", ".join(f"sum(minute.{kind}) AS {kind}" for kind in COUNTED)
    table = facts.query(
        f"SELECT toInt64(toUnixTimestamp(toStartOfHour(toTimeZone(at, {{zone:String}})))) AS hour, {sums}"  # noqa: S608  # names are ours
        " FROM minute GROUP BY hour ORDER BY hour",
        zone=timezone,
    )
    return [
        (datetime.fromtimestamp(row["hour"], zone), kind, row[kind.value])
        for row in table.to_pylist()
        for kind in COUNTED
        if row[kind.value]
    ]


def distinct_messages(facts: Facts, kind: Kind) -> int:
    """How many messages had this outcome at one recipient at least."""
    where = f"kind = '{kind}' AND message != toFixedString('', 16)"
    rows = _row(facts.query(f"SELECT count() AS rows FROM events WHERE {where}"))["rows"]  # noqa: S608  # names are ours
    return _distinct(facts, "message", where, rows)


def _counted(table: pa.Table, names: Sequence[str]) -> Counts:
    return Counts(scopes(table, names), **{counter: ints(table, counter) for counter in COUNTERS})


def _split(table: pa.Table, names: Sequence[str]) -> Iterator[Series]:
    """A table ordered by scope and time, as one series for each scope."""
    arrays = {"at": ints(table, "step"), **{counter: ints(table, counter) for counter in COUNTERS}}
    starts = _starts(table["id"].to_numpy())
    ends = np.append(starts, len(table))[1:]
    for scope, start, end in zip(scopes(table.take(starts), names), starts, ends, strict=True):
        yield Series(scope, **{name: values[start:end] for name, values in arrays.items()})


def _starts(ids: Any) -> Ints:
    """Where each run of one number begins."""
    return np.flatnonzero(np.append(True, ids[1:] != ids[:-1])[: len(ids)])


def _distinct(facts: Reader, column: str, where: str, rows: int) -> int:
    """How many different values there are, exactly, in as many turns as memory asks for."""
    turns = rows // _SHARD + 1
    sql = f"SELECT uniqExact({column}) AS n FROM events WHERE {where} AND cityHash64({column}) % {{turns:UInt64}} = {{turn:UInt64}}"  # noqa: E501, S608  # names are ours
    return sum(int(_row(facts.query(sql, turns=turns, turn=turn))["n"]) for turn in range(turns))


def _row(table: pa.Table) -> dict[str, int]:
    return {name: int(value) for name, value in table.to_pylist()[0].items()}
