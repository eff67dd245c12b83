"""What cuts every question to the mail of one tenant: the only place where that predicate is made.

It goes to the engine beside the question and not into its text, so that no text can forget it: the engine puts it to
each row that is read of a table, in subqueries and joins too (26.9, November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping

from monitor.facts.cluster import Nodes
from monitor.facts.grains import GRAINS


def settings(tenant: str, nodes: Nodes) -> dict[str, str | int]:
    """Settings of the engine under which a question sees the rows of ``tenant``, and nothing else of our tables.

    Raises:
        ValueError: an empty name, which all mail without a tenant has.
    """
    if not tenant:
        raise ValueError("no tenant to cut the facts to")
    told = ", ".join(f"{_quoted(table)}: {_quoted(limit)}" for table, limit in filters(tenant, nodes).items())
    return {
        "additional_table_filters": f"{{{told}}}",
        # It remembers where a condition found nothing; nobody is to find less for what another may not see.
        "use_query_condition_cache": 0,
    }


def filters(tenant: str, nodes: Nodes) -> Mapping[str, str]:
    """Table → what a row must fulfil; a table that does not know tenants shows nothing."""
    # By its bytes: a name is chosen by somebody, and so none of its characters stands in the text.
    own = f"tenant = unhex('{tenant.encode('utf-8', 'replace').hex()}')"
    limits = {"events": own, "levels": own, "migrations": "0"}
    for grain in GRAINS.values():
        knows = "tenant" in grain.labels
        # A count and what its series is lie on one shard, so the part of the table that is there has the answer.
        of_own = f"series IN (SELECT series FROM {nodes.local(grain.series)} WHERE {own})"  # noqa: S608  # names are ours, the tenant's is hexadecimal
        limits |= {grain.series: own if knows else "0", grain.name: of_own if knows else "0"}
    return limits


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
