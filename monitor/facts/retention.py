"""How long facts are kept; whole days or months are dropped, against the caller's clock and never the engine's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from monitor.facts.schema import GRAINS
from monitor.facts.store import Facts

KEPT: Mapping[str, timedelta] = MappingProxyType(
    {
        "events": timedelta(days=30),
        "leaf": timedelta(days=7),
        "minute": timedelta(days=90),
        "hour": timedelta(days=730),
    }
)


def expire(facts: Facts, now: datetime, policy: Mapping[str, timedelta] = KEPT) -> list[tuple[str, str]]:
    """Drop the partitions whose newest possible row is older than the policy says; (table, partition) of each."""
    dropped = []
    for table, partition in _partitions(facts):
        if table in policy and _ends(partition) <= now - policy[table]:
            facts.command(f"ALTER TABLE {table} DROP PARTITION ID {{partition:String}}", partition=partition)
            dropped.append((table, partition))
    return dropped


def _partitions(facts: Facts) -> list[tuple[str, str]]:
    """(table, partition id): a day such as 20261124, or a month such as 202611."""
    found = facts.query(
        "SELECT DISTINCT table, partition_id FROM system.parts"
        " WHERE active AND database = currentDatabase() AND table IN {tables:Array(String)}"
        " ORDER BY table, partition_id",
        tables=["events", *GRAINS],
    )
    return [(row["table"], row["partition_id"]) for row in found.to_pylist()]


def _ends(partition: str) -> datetime:
    if len(partition) == len("20261124"):
        return datetime.strptime(partition + "+0000", "%Y%m%d%z") + timedelta(days=1)
    begins = datetime.strptime(partition + "01+0000", "%Y%m%d%z")
    return (begins + timedelta(days=32)).replace(day=1)
