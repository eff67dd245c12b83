"""What is asked of the facts, by name: counts by labels, as arrays. SQL stands nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from monitor.facts.schema import COUNTERS, GRAINS, HOUR_LABELS, MINUTE_LABELS
from monitor.facts.store import Facts
from monitor.model import LABELS, OWNED, Kind, Scope, named

if TYPE_CHECKING:
    from monitor.ports import Ints

_ANY = Scope()
_SHARD = 1_000_000  # rows whose distinct values are counted at a time, to stay within a reader's memory
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    first: Ints
    first_deferred: Ints


def counts(
    facts: Facts,
    by: Sequence[str],
    since: datetime,
    until: datetime,
    where: Scope = _ANY,
    sent_since: datetime | None = None,
) -> Counts:
    """Outcomes in the minutes [since, until) of ``at``, grouped by the labels ``by``, within ``where``.

    ``sent_since``: only of messages sent in that minute or later. Naming segment, campaign or variant brings the
    tenant with it. A scope without any outcome is left out.
    """
    names = _owned(by)
    limits = ["at >= toDateTime({since:Int64}, 'UTC')", "at < toDateTime({until:Int64}, 'UTC')"]
    values: dict[str, Any] = {"since": _seconds(since), "until": _seconds(until)}
    grain = "minute" if sent_since is None and _within(MINUTE_LABELS, names, where) else "leaf"
    if sent_since is not None:
        limits.append("sent_at >= toDateTime({sent_since:Int64}, 'UTC')")
        values["sent_since"] = _seconds(sent_since)
    return _counted(_grouped(facts, grain, names, limits, values, where), names)


def cohort_counts(
    facts: Facts,
    by: Sequence[str],
    since: datetime,
    until: datetime,
    where: Scope = _ANY,
    providers: Sequence[str] | None = None,
    lag_class: int | None = None,
) -> Counts:
    """The same for messages by the hours [since, until) in which they were sent, whenever the outcome came.

    ``providers``: only there. ``lag_class``: only what was known by then (``schema.LAG_EDGES``).

    Raises:
        ValueError: variant or region, which the hours don't keep.
    """
    names = _owned(by)
    if not _within(HOUR_LABELS, names, where):
        raise ValueError(f"by the hour of sending there are only {', '.join(HOUR_LABELS)}")
    limits = ["sent_at >= toDateTime({since:Int64}, 'UTC')", "sent_at < toDateTime({until:Int64}, 'UTC')"]
    values: dict[str, Any] = {"since": _seconds(since), "until": _seconds(until)}
    if providers is not None:
        limits.append("hour.provider IN {providers:Array(String)}")
        values["providers"] = list(providers)
    if lag_class is not None:
        limits.append("lag <= {lag_class:UInt8}")
        values["lag_class"] = lag_class
    return _counted(_grouped(facts, "hour", names, limits, values, where), names)


def series(
    facts: Facts, by: Sequence[str], since: datetime, until: datetime, step: timedelta, where: Scope = _ANY
) -> list[Series]:
    """Outcomes by steps of whole minutes from ``since``, one series a scope, for charts."""
    names = _owned(by)
    grain = "minute" if _within(MINUTE_LABELS, names, where) else "leaf"
    limits = ["at >= toDateTime({since:Int64}, 'UTC')", "at < toDateTime({until:Int64}, 'UTC')"]
    values = {"since": _seconds(since), "until": _seconds(until), "step": int(step.total_seconds())}
    time = "{since:Int64} + intDiv(toInt64(toUnixTimestamp(at)) - {since:Int64}, {step:Int64}) * {step:Int64}"
    table = _grouped(facts, grain, names, limits, values, where, time)
    return list(_split(table, names))


def totals(facts: Facts) -> dict[str, Any]:
    """Rows and distinct keys of the raw events, and the sum of counts by kind there and in each grain.

    ``{"rows": n, "keys": n, "events": {kind: n}, "leaf": {kind: n}, "minute": …, "hour": …}``; all must agree.
    """
    sums = ", ".join(f"sumIf(count, kind = '{kind}') AS {kind}" for kind in Kind)
    found = _row(facts.query(f"SELECT count() AS rows, {sums} FROM events"))  # noqa: S608  # names are ours
    rows = found.pop("rows")
    keys = _distinct(facts, "key", "1", rows)
    told: dict[str, Any] = {"rows": rows, "keys": keys, "events": found}
    for grain in GRAINS:
        sums = ", ".join(f"sum({grain}.{kind}) AS {kind}" for kind in Kind)
        told[grain] = _row(facts.query(f"SELECT {sums} FROM {grain}"))  # noqa: S608  # names are ours
    return told


def by_hour(facts: Facts, timezone: str = "UTC") -> list[tuple[datetime, Kind, int]]:
    """(local hour, kind, count) of all that happened, oldest first; hours are aware and stand in ``timezone``."""
    zone = ZoneInfo(timezone)
    sums = ", ".join(f"sum(minute.{kind}) AS {kind}" for kind in Kind)
    table = facts.query(
        f"SELECT toInt64(toUnixTimestamp(toStartOfHour(toTimeZone(at, {{zone:String}})))) AS hour, {sums}"  # noqa: S608  # names are ours
        " FROM minute GROUP BY hour ORDER BY hour",
        zone=timezone,
    )
    return [
        (datetime.fromtimestamp(row["hour"], zone), kind, row[kind.value])
        for row in table.to_pylist()
        for kind in Kind
        if row[kind.value]
    ]


def distinct_messages(facts: Facts, kind: Kind) -> int:
    """How many messages had this outcome at one recipient at least."""
    where = f"kind = '{kind}' AND message != toFixedString('', 16)"
    rows = _row(facts.query(f"SELECT count() AS rows FROM events WHERE {where}"))["rows"]  # noqa: S608  # names are ours
    return _distinct(facts, "message", where, rows)


def _owned(by: Sequence[str]) -> tuple[str, ...]:
    """The labels of a grouping in their order; a name that sellers choose comes with the tenant who chose it."""
    if unknown := set(by) - set(LABELS):
        raise ValueError(f"unknown labels: {', '.join(sorted(unknown))}")
    wanted = {*by, "tenant"} if set(by) & set(OWNED) else set(by)
    return tuple(label for label in LABELS if label in wanted)


def _within(held: Sequence[str], names: Sequence[str], where: Scope) -> bool:
    return set(names) | set(named(where)) <= set(held)


def _grouped(
    facts: Facts,
    grain: str,
    names: Sequence[str],
    limits: Sequence[str],
    values: dict[str, Any],
    where: Scope,
    time: str = "",
) -> pa.Table:
    """One row a group: its labels, ``step`` where ``time`` makes one, and the counters."""
    # Columns are named with their table, since what is shown of them bears the same names.
    limits = [*limits, *(f"{grain}.{label} = {{{label}:String}}" for label in named(where))]
    # By hash and any(): grouping by several texts is up to six times slower (26.9, November 2026).
    groups = [f"cityHash64({', '.join(f'{grain}.{name}' for name in names)})"] if names else []
    shown = [f"any({grain}.{name}) AS {name}" for name in names]
    if time:
        groups.append("step")
        shown.append(f"{time} AS step")
    sums = (f"toInt64(sum({grain}.{counter})) AS {counter}" for counter in COUNTERS)
    grouped = f" GROUP BY {', '.join(groups)}" if groups else ""
    order = " ORDER BY step" if time else ""
    return facts.query(
        f"SELECT {', '.join((*shown, *sums))} FROM {grain} WHERE {' AND '.join(limits)}{grouped}"  # noqa: S608  # ours
        f" HAVING count() > 0{order}",
        **values,
        **named(where),
    )


def _counted(table: pa.Table, names: Sequence[str]) -> Counts:
    return Counts(_scopes(table, names), **_arrays(table))


def _split(table: pa.Table, names: Sequence[str]) -> Iterator[Series]:
    """A table ordered by time, as one series for each scope."""
    arrays = {"at": table["step"].to_numpy().astype(np.int64), **_arrays(table)}
    rows: dict[Scope, list[int]] = {}
    for row, scope in enumerate(_scopes(table, names)):
        rows.setdefault(scope, []).append(row)
    for scope, mine in rows.items():
        yield Series(scope, **{name: values[mine] for name, values in arrays.items()})


def _scopes(table: pa.Table, names: Sequence[str]) -> tuple[Scope, ...]:
    if not names:
        return tuple([_ANY] * len(table))
    columns = [table[name].to_pylist() for name in names]
    kept: dict[tuple[str, ...], Scope] = {}
    found: list[Scope] = []
    for values in zip(*columns, strict=True):
        if values not in kept:
            kept[values] = Scope(**dict(zip(names, values, strict=True)))
        found.append(kept[values])
    return tuple(found)


def _arrays(table: pa.Table) -> dict[str, Ints]:
    return {counter: table[counter].to_numpy().astype(np.int64) for counter in COUNTERS}


def _distinct(facts: Facts, column: str, where: str, rows: int) -> int:
    """How many different values there are, exactly, in as many turns as memory asks for."""
    turns = rows // _SHARD + 1
    sql = f"SELECT uniqExact({column}) AS n FROM events WHERE {where} AND cityHash64({column}) % {{turns:UInt64}} = {{turn:UInt64}}"  # noqa: E501, S608  # names are ours
    return sum(int(_row(facts.query(sql, turns=turns, turn=turn))["n"]) for turn in range(turns))


def _row(table: pa.Table) -> dict[str, int]:
    return {name: int(value) for name, value in table.to_pylist()[0].items()}


def _seconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(seconds=1)
