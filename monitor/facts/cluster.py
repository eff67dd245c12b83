"""What a cluster must be told otherwise than one node; nothing else in the product knows of clusters.

On one node a table is a table. On a cluster ``events`` is a Distributed table, which reads from all shards and shares
inserts out, and ``events_local`` is the part of each shard, replicated. So SELECT and INSERT are the same text on both;
what makes, alters, drops or lists parts is made here.

A repeated event always falls to the shard that has it, since its key decides; all counts of a series fall to one shard,
where merges sum them. A block that is sent again is shared out alike, and its token goes with it to every shard, which
knows it and takes nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass

# Blocks that are remembered by token. Days of them at one a second or so; a cluster forgets them by age too.
_WINDOW = 10_000
_WEEK = 7 * 24 * 3600
_ONE = f"non_replicated_deduplication_window = {_WINDOW}"
_MANY = f"replicated_deduplication_window = {_WINDOW}, replicated_deduplication_window_seconds = {_WEEK}"
# Synced before an insert is acknowledged; what merges leave behind is removed soon, or the disk holds twice the rows.
_TABLE = "fsync_after_insert = 1, fsync_part_directory = 1, cleanup_delay_period = 10, max_cleanup_delay_period = 30"

# How a block reaches the shards: all of them have it before the insert is acknowledged. The replicas in their order,
# so that what was inserted a moment ago is read from where it went.
INSERT = {"distributed_foreground_insert": 1, "load_balancing": "in_order"}
READ = {"load_balancing": "in_order"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a MergeTree ``engine``. ``shard`` is the column, an integer, that says to which shard a row goes."""

    name: str
    columns: str
    engine: str
    order: str
    shard: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that a table gets in addition; ``added`` are their definitions."""

    table: str
    added: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Types:
    """Columns of a table whose type is another from now on; ``changed`` are their definitions."""

    table: str
    changed: tuple[str, ...]


Change = Table | Columns | Types


@dataclass(frozen=True, slots=True)
class Nodes:
    """Where statements run: one node, or the ``cluster`` of that name; names without a database are in ``database``."""

    database: str = "default"
    cluster: str = ""

    @property
    def everywhere(self) -> str:
        """The clause that runs a statement on all nodes; empty on one."""
        return f" ON CLUSTER '{self.cluster}'" if self.cluster else ""

    def local(self, table: str) -> str:
        """The table in which the rows are."""
        return f"{self.database}.{table}_local" if self.cluster else f"{self.database}.{table}"

    def statements(self, change: Change) -> tuple[str, ...]:
        """What makes the change; each may be run again, to no effect."""
        match change:
            case Table():
                return self._table(change)
            case Columns():
                return self._altered(change.table, "ADD COLUMN IF NOT EXISTS", change.added)
            case Types():
                return self._altered(change.table, "MODIFY COLUMN", change.changed)

    def _table(self, table: Table) -> tuple[str, ...]:
        engine = f"Replicated{table.engine}" if self.cluster else table.engine
        local = (
            f"CREATE TABLE IF NOT EXISTS {self.local(table.name)}{self.everywhere} ({table.columns})"
            f" ENGINE = {engine} {table.order} SETTINGS {_MANY if self.cluster else _ONE}, {_TABLE}"
        )
        return (local, *self.distributed(table.name, table.shard))

    def distributed(self, table: str, shard: str = "") -> tuple[str, ...]:
        """What lets all nodes' parts of a table be read by its name; none on one node. No ``shard``: to read only."""
        if not self.cluster:
            return ()
        by = f", {shard}" if shard else ""
        made = f"CREATE TABLE IF NOT EXISTS {self.database}.{table}{self.everywhere} AS {self.local(table)}"
        return (f"{made} ENGINE = Distributed('{self.cluster}', '{self.database}', '{table}_local'{by})",)

    def _altered(self, table: str, verb: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        """The local tables first: a Distributed table must not name a column that they lack."""
        change = ", ".join(f"{verb} {column}" for column in columns)
        tables = [self.local(table), *([f"{self.database}.{table}"] if self.cluster else [])]
        return tuple(f"ALTER TABLE {each}{self.everywhere} {change}" for each in tables)

    def alter(self, table: str, change: str) -> str:
        """``ALTER TABLE`` where the rows are, such as ``DROP PARTITION ID {partition:String}``."""
        return f"ALTER TABLE {self.local(table)}{self.everywhere} {change}"

    def truncate(self, table: str) -> str:
        """The statement that empties the table."""
        return f"TRUNCATE TABLE IF EXISTS {self.local(table)}{self.everywhere}"

    def create_database(self) -> str:
        """The statement that makes the database where there is none."""
        return f"CREATE DATABASE IF NOT EXISTS {self.database}{self.everywhere}"

    def drop_database(self) -> str:
        """The statement that removes the database with all that is in it, at once."""
        return f"DROP DATABASE IF EXISTS {self.database}{self.everywhere} SYNC"

    def system(self, table: str) -> str:
        """A system table of all nodes, to SELECT from, such as ``parts``."""
        return f"clusterAllReplicas('{self.cluster}', system.{table})" if self.cluster else f"system.{table}"

    def named(self, table: str) -> str:
        """The name that a local table has for the rest of the product."""
        return table.removesuffix("_local") if self.cluster else table

    def cancel(self) -> str:
        """The statement that ends the queries marked with ``{mark:String}``, and no one else's."""
        return f"KILL QUERY{self.everywhere} WHERE Settings['log_comment'] = {{mark:String}} ASYNC"
