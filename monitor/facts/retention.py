"""How long facts are kept; whole days or months are dropped, against the caller's clock and never the engine's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from monitor.facts.schema import TABLES
from monitor.facts.store import Facts

KEPT: Mapping[str, timedelta] = MappingProxyType(
    {
        "events": timedelta(days=30),
        "leaf": timedelta(days=7),
        "minute": timedelta(days=90),
        "hour": timedelta(days=730),
        "levels": timedelta(days=1826),
    }
)


def expire(facts: Facts, now: datetime, policy: Mapping[str, timedelta] = KEPT) -> list[tuple[str, str]]:
    """Drop the partitions whose newest possible row is older than the policy says; (table, partition) of each."""
    dropped = []
    for table, partition in _partitions(facts):
        kept = policy.get(table.removesuffix("_series"))  # a series is kept as long as its counts
        if kept is not None and _ends(partition) <= now - kept:
            facts.command(facts.nodes.alter(table, "DROP PARTITION ID {partition:String}"), partition=partition)
            dropped.append((table, partition))
    return dropped


def _partitions(facts: Facts) -> list[tuple[str, str]]:
    """(table, partition id): a day such as 20261124, or a month such as 202611."""
    found = facts.query(
        f"SELECT DISTINCT database, table, partition_id FROM {facts.nodes.system('parts')}"  # noqa: S608  # ours
        " WHERE active AND concat(database, '.', table) IN {tables:Array(String)}"
        " ORDER BY table, partition_id",
        tables=[facts.nodes.local(table) for table in TABLES],
    )
    return [(facts.nodes.named(row["table"]), row["partition_id"]) for row in found.to_pylist()]


def _ends(partition: str) -> datetime:
    if len(partition) == len("20261124"):
        return datetime.strptime(partition + "+0000", "%Y%m%d%z") + timedelta(days=1)
    begins = datetime.strptime(partition + "01+0000", "%Y%m%d%z")
    return (begins + timedelta(days=32)).replace(day=1)
