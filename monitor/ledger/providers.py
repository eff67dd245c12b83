"""Recipient domain → mailbox provider, learnt from the relays that took the mail: the gate asks it later."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Column, Connection, String, Table, select
from sqlalchemy.dialects.sqlite import insert

from monitor.ledger.columns import Stamp, metadata

_providers = Table(
    "providers",
    metadata,
    Column("domain", String, primary_key=True),
    Column("provider", String, nullable=False),
    Column("seen_at", Stamp, nullable=False),
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


def known(conn: Connection) -> dict[str, str]:
    """All that was learnt."""
    return {row.domain: row.provider for row in conn.execute(select(_providers.c.domain, _providers.c.provider))}
