"""A whole service of one process that no clock moves: its routes, guard, stores and keys, asked without a network.

    with house(folder) as market:
        market.tell({"kind": "sent", "tenant": "alpha", …})
        market.ask("alpha", "GET", "/v1/series", by="campaign")

Who asks is a tenant, by a key of its own with all that a seller's key may have, or "" by a key that sees everybody's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from monitor.access import keys
from monitor.access.doorkeeper import Doorkeeper
from monitor.access.limits import Limits
from monitor.api import gate as gate_api
from monitor.api.app import build
from monitor.api.doors import GATE, Doors
from monitor.api.guard import Guard
from monitor.caller import TENANTS, Right
from monitor.config import load
from monitor.facts.blocks import Blocks
from monitor.facts.prepare import prepare
from monitor.keyring import Keyring
from monitor.ledger import actions, incidents, journal
from monitor.ledger.journal import Progress
from monitor.model import COLUMNS, Action, Batch, Incident
from monitor.service import Core
from monitor.telemetry import GateMetrics
from tests.storing import empty

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
_BLOCK = count(1)


@dataclass
class Market:
    """The service. What is told stands in the facts at once, as if the spool had been applied."""

    core: Core
    app: FastAPI
    _keys: dict[str, str] = field(default_factory=dict)

    def ask(self, who: str, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        """What core answers; a trailing ``_`` is left out of the names of the query."""
        return asked(self.app, method, path, body, query, {"Authorization": f"Bearer {self.key(who)}"})

    def ask_gate(self, who: str, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        """What the gate's own application answers, on the same leases."""
        return asked(self.gate, method, path, body, query, {"Authorization": f"Bearer {self.key(who)}"})

    def ask_with(self, who: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """What core answers to events with such headers."""
        known = {"Authorization": f"Bearer {self.key(who)}", **headers}
        return asked(self.app, "POST", "/v1/events", body, {}, known)

    @property
    def gate(self) -> ASGIApp:
        """The gate's application behind its doors."""
        core, metrics = self.core, GateMetrics(CollectorRegistry())
        keeper = Doorkeeper(core.settings.access, core.keys, None, lambda: None, core.clock)
        limits = Limits(core.settings.access)
        return Guard(gate_api.build(core.gate, metrics, {}), Doors(GATE), keeper, limits, metrics)

    def key(self, who: str) -> str:
        """The text of the key by which that one asks."""
        if who not in self._keys:
            rights = TENANTS if who else frozenset(Right)
            with self.core.stores.ledger.begin() as conn:
                text, _ = keys.make(conn, "test", rights, tenant=who, now=NOW, by="test", expires=timedelta(days=30))
            self.core.keys.anew()
            self._keys[who] = text
        return self._keys[who]

    def tell(self, events: Iterable[Mapping[str, Any]], source: str = "test") -> None:
        """Put events into the facts: columns of ``COLUMNS`` by name, with aware times."""
        put(self.core, self.core.stores.keyring, list(events), source)

    def forget(self) -> None:
        """Remove every event."""
        empty(self.core.stores.facts)

    def open(self, incident: Incident) -> Incident:
        """Put an incident down; it comes back with its id."""
        with self.core.stores.ledger.begin() as conn:
            return incidents.save(conn, incident)

    def log(self, *entries: Action) -> None:
        """Put entries into the brake's log, and let the gate see them."""
        with self.core.stores.ledger.begin() as conn:
            for entry in entries:
                assert actions.append(conn, entry)
        self.core.gate.refresh()


def asked(
    app: ASGIApp, method: str, path: str, body: Any, query: Mapping[str, Any], headers: Mapping[str, str]
) -> httpx.Response:
    """What an application answers, without a network."""
    named = {name.rstrip("_"): value for name, value in query.items()}
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()

    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, params=named or None, content=content, headers=dict(headers))

    return asyncio.run(sent())


def put(core: Core, keyring: Keyring, events: list[Mapping[str, Any]], source: str) -> None:
    if not events:
        return
    columns = {
        name: [_plain(event.get(name, default)) for event in events]
        for name, default in COLUMNS.items()
        if any(name in event for event in events)
    }
    rows, rejected = prepare(Batch(columns), source, keyring, NOW, bounds=None)
    assert rejected == []
    number = next(_BLOCK)
    rows = rows.append_column("batch", pa.repeat(pa.scalar(number, pa.uint64()), len(rows)))
    Blocks(core.stores.facts).put(rows, f"sellers:{number}")


def _plain(value: Any) -> Any:
    return int(value.timestamp() * 1_000_000) if isinstance(value, datetime) else value


@contextmanager
def house(folder: Path, tables: str = "", watermark: datetime | None = NOW) -> Iterator[Market]:
    """The service with its data in ``folder``; its one source has told everything up to ``watermark``."""
    config = folder / "mailvane.toml"
    config.write_text(
        f'[service]\ndata = "{folder / "data"}"\n[access]\nkey_rate = "100000/second"\n'
        f'address_rate = "100000/second"\n{tables}',
        "utf-8",
    )
    core = Core(load(config, {}), lambda: NOW)
    try:
        if watermark:
            with core.stores.ledger.begin() as conn:
                journal.commit(conn, 0, [Progress("mta", "mx-internal-1", NOW, watermark=watermark)])
        core.gate.refresh()
        yield Market(core, build(core))
    finally:
        core.stores.close()
