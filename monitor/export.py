"""Facts as Parquet files by day, for other tools: DuckDB, pandas, Spark. What users know: docs/export.md."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from monitor.backup import worded
from monitor.facts.frozen import PIECE, Frozen, freezer, name
from monitor.facts.grains import COUNTERS, GRAINS, Grain
from monitor.facts.store import Facts
from monitor.files import sync_folder
from monitor.manifest import Job, Step
from monitor.model import LABELS
from monitor.parquet import Sink
from monitor.stores import Stores
from monitor.telemetry import VERSION

TABLES = ("events", *GRAINS, "levels")
PERSONAL = ("recipient", "message", "key", "consent_ref")  # what stands for one person, message or choice
_STAMP = pa.timestamp("us", tz="UTC")
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONG = "max_execution_time = 0, max_threads = 1"


def _texts(*names: str) -> dict[str, pa.DataType]:
    return dict.fromkeys(names, pa.string())


# Signed integers, since Spark knows no others; keys keep their 64 bits, and the upper half of them is negative.
COLUMNS: Mapping[str, Mapping[str, pa.DataType]] = {
    "events": {
        **dict.fromkeys(("at", "sent_at", "seen_at"), _STAMP),
        **_texts("kind"),
        "attempt": pa.int32(),
        "count": pa.int64(),
        **_texts(*LABELS, "recipient", "message"),
        "key": pa.int64(),
        "code": pa.int32(),
        **_texts("dsn", "relay", "reply", "reply_class", "consent", "consent_ref", "source"),
    },
    **{
        grain.name: {
            **{key: pa.int32() if key == "lag" else _STAMP for key in grain.keys},
            **_texts(*grain.labels),
            **dict.fromkeys(COUNTERS, pa.int64()),
        }
        for grain in GRAINS.values()
    },
    "levels": {
        **dict.fromkeys(("at", "seen_at"), _STAMP),
        **_texts("kind", "name", *LABELS),
        "value": pa.float64(),
        **_texts("text", "source"),
    },
}


@dataclass(frozen=True, slots=True)
class _Day:
    """A day of a table, with its rows by minute as POSIX seconds."""

    table: str
    day: date
    minutes: Mapping[int, int]

    @property
    def rows(self) -> int:
        return sum(self.minutes.values())


def make(
    stores: Stores,
    folder: Path,
    *,
    tables: Sequence[str] = ("events",),
    since: date | None = None,
    until: date | None = None,
    pseudonyms: bool = True,
) -> Job:
    """Write the days [since, until) of ``tables``, as far as there are any, in place of files of an earlier export.

    A day is one of UTC: of ``at``, or of ``sent_at`` in ``hour``. The answer has ``path``, ``files``, ``rows`` (by
    table) and ``bytes``.

    Raises:
        UserError: the folder can't be written or is full; files that are there are whole.
        FactsError: the facts can't be read.
    """
    needed = [name for table in tables for name in (table, *([GRAINS[table].series] if table in GRAINS else []))]
    rows, size, files = dict.fromkeys(tables, 0), 0, 0
    with worded(folder), freezer(stores.facts, needed) as frozen:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with stores.applier.still():
            frozen.take()
        days = [day for table in tables for day in _days(stores.facts, table, since, until)]
        total, done = sum(day.rows for day in days), 0
        for day in days:
            columns = [name for name in COLUMNS[day.table] if pseudonyms or name not in PERSONAL]
            sink = yield from _written(stores.facts, frozen, day, columns, folder, done, total)
            done, size, files = done + day.rows, size + sink.bytes, files + 1
            rows[day.table] += sink.rows
        yield Step("rows", total, total)
    return {"path": str(folder), "files": files, "rows": rows, "bytes": size}


def _days(facts: Facts, table: str, since: date | None, until: date | None) -> list[_Day]:
    time = GRAINS[table].keys[0] if table in GRAINS else "at"
    limits = [f"toDate({time}) >= {{since:Date}}"] if since else []
    limits += [f"toDate({time}) < {{until:Date}}"] if until else []
    values = {name: value for name, value in (("since", since), ("until", until)) if value}
    where = f" WHERE {' AND '.join(limits)}" if limits else ""
    found = facts.query(
        f"SELECT toInt64(toUnixTimestamp(toStartOfMinute({time}))) AS minute, count() AS stored FROM {name(table)}{where}"  # noqa: S608, E501  # ours
        f" GROUP BY minute ORDER BY minute SETTINGS {_LONG}, max_result_rows = 0",
        **values,
    )
    days: dict[date, dict[int, int]] = {}
    for minute, stored in zip(found["minute"].to_pylist(), found["stored"].to_pylist(), strict=True):
        days.setdefault((_EPOCH + timedelta(seconds=minute)).date(), {})[minute] = stored
    return [_Day(table, day, minutes) for day, minutes in days.items()]


def _written(
    facts: Facts, frozen: Frozen, day: _Day, columns: Sequence[str], folder: Path, done: int, total: int
) -> Generator[Step, None, Sink]:
    """Write a day's file aside, and give it its name when it is whole."""
    target = folder / f"table={day.table}" / f"day={day.day}" / "part-0.parquet"
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = target.with_name(f".part-0.{secrets.token_hex(8)}")  # no reader takes it for a part
    shape = pa.schema([(name, COLUMNS[day.table][name]) for name in columns])
    read = _events(frozen, day) if day.table == "events" else _summed(facts, day)
    try:
        with Sink(draft, metadata={"mailvane.version": VERSION, "mailvane.table": day.table}) as sink:
            for piece in read:
                sink.write(_shaped(piece, shape))
                yield Step("rows", done + min(sink.rows, day.rows), total)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(target.parent)
    return sink


def _events(frozen: Frozen, day: _Day) -> Iterator[pa.Table]:
    """The day's events, each once."""
    where = "toDate(at) = {day:Date}"
    made = {
        "kind": "toString(kind)",
        **{who: f"nullIf(lower(hex({who})), repeat('0', 32))" for who in ("recipient", "message")},
    }
    shown = ", ".join(f"{made.get(column, column)} AS {column}" for column in COLUMNS["events"])
    doubled = frozen.doubled(where, day=day.day)
    seen: set[int] = set()
    for piece in frozen.rows("events", where, shown, day=day.day):
        if not doubled:
            yield piece
            continue
        first = []
        for key in piece["key"].to_pylist():
            first.append(key not in seen)
            if key in doubled:
                seen.add(key)
        yield piece.filter(pa.array(first))


def _summed(facts: Facts, day: _Day) -> Iterator[pa.Table]:
    """The day's counts, a row for each of their keys; or its levels, each as it was told last."""
    sql = _counts(GRAINS[day.table]) if day.table in GRAINS else _LEVELS
    for since, until, slices in _spans(day.minutes):
        for number in range(slices):
            yield facts.query(sql, day=day.day, since=since, until=until, slices=slices, number=number)


def _spans(minutes: Mapping[int, int]) -> Iterator[tuple[int, int, int]]:
    """(since, until, slices): runs of minutes with so many rows that a slice is about a piece."""
    begin, held = 0, 0
    last = max(minutes)
    for minute in sorted(minutes):
        if not held:
            begin = minute
        held += minutes[minute]
        if held >= PIECE or minute == last:
            yield begin, minute + 60, -(-held // PIECE)
            held = 0


def _limits(time: str, key: str) -> str:
    return (
        f"{time} >= toDateTime({{since:Int64}}, 'UTC') AND {time} < toDateTime({{until:Int64}}, 'UTC')"
        f" AND intHash64({key}) % {{slices:UInt64}} = {{number:UInt64}}"
    )


def _counts(grain: Grain) -> str:
    """The question for a grain's sums, with what their series are."""
    keys = ("series", *grain.keys)
    inner = ", ".join(
        (*(f"counts.{key} AS {key}" for key in keys), *(f"sum(counts.{each}) AS {each}" for each in COUNTERS))
    )
    limits = _limits(f"counts.{grain.keys[0]}", "counts.series")
    mine = f"SELECT counts.series FROM {name(grain.name)} AS counts WHERE {limits}"  # noqa: S608  # all names are ours
    day = "toStartOfMonth({day:Date})" if grain.monthly else "{day:Date}"
    labels = ", ".join(f"toString(any(named.{label})) AS {label}" for label in grain.labels)
    shown = ", ".join(
        (
            *(
                f"summed.{key} AS {key}" if key == "lag" else f"{_micros(f'summed.{key}')} AS {key}"
                for key in grain.keys
            ),
            *(f"labels.{label} AS {label}" for label in grain.labels),
            *(f"summed.{each} AS {each}" for each in COUNTERS),
        )
    )
    return (
        f"SELECT {shown} FROM (SELECT {inner} FROM {name(grain.name)} AS counts WHERE {limits}"  # noqa: S608  # ours
        f" GROUP BY {', '.join(f'counts.{key}' for key in keys)}) AS summed GLOBAL ANY LEFT JOIN"
        f" (SELECT named.series AS series, {labels} FROM {name(grain.series)} AS named WHERE named.day = {day}"
        f" AND named.series GLOBAL IN ({mine}) GROUP BY series) AS labels USING (series)"
        f" ORDER BY {', '.join(grain.keys)} SETTINGS {_LONG}"
    )


def _micros(time: str) -> str:
    return f"toInt64(toUnixTimestamp({time})) * 1000000"


_LEVELS = (
    f"SELECT {', '.join(COLUMNS['levels'])} FROM {name('levels')} WHERE {_limits('at', 'key')}"  # noqa: S608  # ours
    f" ORDER BY at, key, seen_at DESC LIMIT 1 BY at, key SETTINGS {_LONG}"
)


def _shaped(piece: pa.Table, shape: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays([_cast(piece[field.name], field) for field in shape], schema=shape)


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if field.name == "key":  # the same bits, with a sign
        return pa.chunked_array([pa.array(column.to_numpy().astype(np.uint64).view(np.int64))])
    return column.cast(field.type)
