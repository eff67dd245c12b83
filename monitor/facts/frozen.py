"""The facts as they are at one moment, to be read in peace: tables of the same parts, linked rather than copied.

Linking takes milliseconds a table and no room. What retention drops or merges replace meanwhile stays readable here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from monitor.facts.cluster import Table
from monitor.facts.errors import FactsError
from monitor.facts.grains import COUNTERS, GRAINS
from monitor.facts.schema import MIGRATIONS, TABLES
from monitor.facts.store import Facts
from monitor.model import COUNTED

PIECE = 65_536  # rows that are held at a time
_SMALLEST = 1024  # rows that are not divided further when the engine finds them too many
_TOO_MUCH = (241, 396)  # memory, size of the result
# Of one partition there may be much: a reader's seconds do not bind, and other readers and inserts still have room.
_LONG = "max_execution_time = 0, max_threads = 1"
_WHOLE = f"{_LONG}, max_memory_usage = 200000000, do_not_merge_across_partitions_select_final = 1"
_MADE = {change.name: change for changes in MIGRATIONS for change in changes if isinstance(change, Table)}


class Content(msgspec.Struct, frozen=True):
    """What a partition says, whichever way it lies on disk: two that are equal hold the same facts.

    ``rows`` are 0 for counts, whose rows are summed by merges; ``counts`` are sums by kind, empty for what has none.
    ``merged``: rows that repeat others were told apart, which takes longer.
    """

    rows: int
    digest: str
    counts: dict[str, int]
    merged: bool = False


@dataclass(frozen=True, slots=True)
class Partition:
    """A day or month of a table, such as 20261124 or 202611, and how many rows of it are stored."""

    table: str
    id: str
    rows: int


class Frozen:
    """The tables as they were at ``take``."""

    def __init__(self, facts: Facts, tables: Sequence[str]) -> None:
        self._facts, self.tables = facts, tables

    def take(self) -> None:
        """Freeze them now. To be called while nothing is inserted, so that they fit one another."""
        nodes = self._facts.nodes
        for table in self.tables:
            source = f"ATTACH PARTITION ALL FROM {nodes.local(table)}"
            self._facts.command(nodes.alter(name(table), source))

    def partitions(self) -> list[Partition]:
        """All that there is, by table and age."""
        return [
            Partition(table, row["id"], int(row["stored"]))
            for table in self.tables
            for row in self._facts.query(
                f"SELECT _partition_id AS id, count() AS stored FROM {name(table)} GROUP BY id ORDER BY id"  # noqa: S608  # ours
            ).to_pylist()
        ]

    def columns(self, table: str) -> dict[str, str]:
        """Each column with its type, in their order."""
        return columns(self._facts, name(table))

    def content(self, partition: Partition, among: Sequence[str]) -> Content:
        """What the partition says in the columns ``among``."""
        doubled = partition.table == "events" and bool(self.doubled("_partition_id = {id:String}", id=partition.id))
        return content(self._facts, name(partition.table), partition, among, merged=doubled)

    def doubled(self, where: str, **values: Any) -> frozenset[int]:
        """Keys of events that stand there more than once; none, unless a merge is still to come."""
        sql = f"SELECT key FROM {name('events')} WHERE {where} GROUP BY key HAVING count() > 1 SETTINGS {_LONG}"  # noqa: S608  # ours
        return frozenset(self._facts.query(sql, **values)["key"].to_pylist())

    def rows(self, table: str, where: str, shown: str, **values: Any) -> Iterator[pa.Table]:
        """``shown`` of the rows for which ``where`` is true, in bounded pieces, as they lie on disk."""
        shard = "_shard_num" if self._facts.nodes.cluster else "toUInt32(0)"
        parts = self._facts.query(
            f"SELECT {shard} AS shard, _part AS part, max(_part_offset) + 1 AS length FROM {name(table)} WHERE {where}"  # noqa: S608  # ours
            f" GROUP BY shard, part ORDER BY shard, part SETTINGS {_LONG}",
            **values,
        )
        for part in parts.to_pylist():
            sql = (
                f"SELECT {shown} FROM {name(table)} WHERE {where} AND _part = {{part:String}}"  # noqa: S608  # ours
                " AND _part_offset >= {first:UInt64} AND _part_offset < {last:UInt64}"
                + (" AND _shard_num = {shard:UInt32}" if self._facts.nodes.cluster else "")
                + f" SETTINGS {_LONG}"
            )
            named = {**values, "part": part["part"]} | ({"shard": part["shard"]} if self._facts.nodes.cluster else {})
            yield from self._span(sql, named, 0, int(part["length"]))

    def _span(self, sql: str, values: Mapping[str, Any], first: int, last: int) -> Iterator[pa.Table]:
        """The rows of a part in [first, last)."""
        for begin in range(first, last, PIECE):
            yield from self._piece(sql, values, begin, min(begin + PIECE, last))

    def _piece(self, sql: str, values: Mapping[str, Any], first: int, last: int) -> Iterator[pa.Table]:
        try:
            found = self._facts.query(sql, **values, first=first, last=last)
        except FactsError as error:
            if error.code not in _TOO_MUCH or last - first <= _SMALLEST:
                raise
            middle = (first + last) // 2
            yield from self._piece(sql, values, first, middle)
            yield from self._piece(sql, values, middle, last)
        else:
            if len(found):
                yield found


def name(table: str) -> str:
    """What a table is called while it is frozen."""
    return f"frozen_{table}"


@contextmanager
def freezer(facts: Facts, tables: Sequence[str] = TABLES) -> Iterator[Frozen]:
    """Tables to be frozen by ``take``, and removed in the end. One at a time may.

    Raises:
        FactsError: the engine refused.
    """
    thaw(facts)
    nodes = facts.nodes
    try:
        for table in tables:
            local, made = nodes.local(name(table)), _MADE[table]
            facts.command(
                f"CREATE TABLE {local}{nodes.everywhere} AS {nodes.local(table)} ENGINE = {made.engine} {made.order}"
            )
            facts.command(f"SYSTEM STOP MERGES{nodes.everywhere} {local}")
            if nodes.cluster:
                facts.command(
                    f"CREATE TABLE {nodes.database}.{name(table)}{nodes.everywhere} AS {local}"
                    f" ENGINE = Distributed('{nodes.cluster}', '{nodes.database}', '{name(table)}_local')"
                )
        yield Frozen(facts, tables)
    finally:
        thaw(facts)


def thaw(facts: Facts) -> None:
    """Remove what was frozen, by a process that died meanwhile too: it would keep room on disk."""
    nodes = facts.nodes
    for table in TABLES:
        for gone in dict.fromkeys((f"{nodes.database}.{name(table)}", nodes.local(name(table)))):
            facts.command(f"DROP TABLE IF EXISTS {gone}{nodes.everywhere} SYNC")


def columns(facts: Facts, table: str) -> dict[str, str]:
    """Each column of a table with its type, in their order."""
    found = facts.query(
        "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String}"
        " ORDER BY position",
        database=facts.nodes.database,
        table=table,
    )
    return {row["name"]: row["type"] for row in found.to_pylist()}


def content(facts: Facts, stored: str, partition: Partition, among: Sequence[str], *, merged: bool = False) -> Content:
    """What the partition says in the columns ``among``, of the table that is called ``stored`` now."""
    where = "WHERE _partition_id = {id:String}"
    if grain := GRAINS.get(partition.table):
        keys = ", ".join((*grain.keys, "series"))
        # Each count by its keys and its name: the sum is the same before and after rows of one key are merged.
        parts = " + ".join(f"cityHash64({keys}, '{counter}') * {counter}" for counter in COUNTERS)
        sums = ", ".join(f"sum({kind}) AS sum_{kind}" for kind in COUNTED)
        sql = f"SELECT sum({parts}) AS digest, {sums} FROM {stored} {where} SETTINGS {_LONG}"  # noqa: S608  # ours
    else:
        # What is told again replaces what was told, at a merge: levels, and what series are.
        merged = merged or partition.table != "events"
        final, settings = (" FINAL", _WHOLE) if merged else ("", _LONG)
        sums = ", ".join(f"sumIf(count, kind = '{kind}') AS sum_{kind}" for kind in COUNTED)
        more = f", {sums}" if partition.table == "events" else ""
        hashed = f"cityHash64({', '.join(among)})"
        sql = f"SELECT count() AS total, sum({hashed}) AS digest{more} FROM {stored}{final} {where} SETTINGS {settings}"  # noqa: S608  # ours
    row = facts.query(sql, id=partition.id).to_pylist()[0]
    counts = {kind.value: int(row[f"sum_{kind}"]) for kind in COUNTED if f"sum_{kind}" in row}
    return Content(int(row.get("total") or 0), f"{int(row['digest'] or 0):016x}", counts, merged)
