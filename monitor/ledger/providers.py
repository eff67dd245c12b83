"""Recipient domain → mailbox provider, learnt from the relays that took the mail: the gate asks it later."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Column, Connection, String, Table, func, select
from sqlalchemy.dialects.sqlite import insert

from monitor.ledger.columns import Stamp, metadata

_providers = Table(
    "providers",
    metadata,
    Column("domain", String, primary_key=True),
    Column("provider", String, nullable=False),
    Column("seen_at", Stamp, nullable=False, index=True),
)


def learn(conn: Connection, pairs: Mapping[str, str], now: datetime) -> None:
    """Take over which provider a recipient domain's mail went to; the newest sight wins."""
    if not pairs:
        return
    put = insert(_providers)
    conn.execute(
        put.on_conflict_do_update(
            index_elements=["domain"], set_={"provider": put.excluded.provider, "seen_at": put.excluded.seen_at}
        ),
        [{"domain": domain, "provider": provider, "seen_at": now} for domain, provider in pairs.items()],
    )


def newest(conn: Connection) -> datetime | None:
    """When something was learnt last."""
    at: datetime | None = conn.execute(select(func.max(_providers.c.seen_at))).scalar_one()
    return at


def known(conn: Connection, since: datetime | None = None) -> dict[str, str]:
    """All that was learnt, or what was learnt at or after ``since``."""
    asked = select(_providers.c.domain, _providers.c.provider)
    rows = conn.execute(asked.where(_providers.c.seen_at >= since) if since else asked)
    return {row.domain: row.provider for row in rows}
