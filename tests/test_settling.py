"""Who may forget what it told only once it is in the facts can wait for that, and need not wait for others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from monitor.facts import queries
from monitor.keyring import Keyring
from monitor.ledger.db import open_ledger
from monitor.model import Batch
from monitor.pipeline import Applier, take
from monitor.spool import Spool
from tests.storing import store
from tests.waiting import until

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
BATCH = Batch({"kind": ["sent"], "at": [int(NOON.timestamp() * 1_000_000)], "message_id": ["<1@shop.example>"]})


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool")
    yield opened
    opened.close()


class Waiter(threading.Thread):
    """Keeps what ``ask`` answers."""

    def __init__(self, ask) -> None:
        super().__init__()
        self.ask = ask
        self.answer: bool | None = None
        self.start()

    def run(self) -> None:
        self.answer = self.ask()


def test_who_waits_is_told_when_the_facts_hold_the_frame(tmp_path, spool):
    keyring, ledger, stop = (
        Keyring.open(tmp_path / "keyring"),
        open_ledger(tmp_path / "ledger.sqlite"),
        threading.Event(),
    )
    with store(tmp_path / "facts") as facts:
        applier = Applier(spool, facts, ledger, keyring)
        take(BATCH, spool, keyring, source="mq", node="n", now=NOON, bounds=None)
        waiter = Waiter(lambda: applier.reached(spool.last, stop))
        assert queries.totals(facts)["rows"] == 0
        assert waiter.answer is None
        applier.drain()
        waiter.join(5)
        assert waiter.answer is True
        assert queries.totals(facts)["rows"] == 1
        assert Applier(spool, facts, ledger, keyring).reached(spool.last, stop)  # also after a restart

        late = Waiter(lambda: applier.reached(spool.last + 1, stop))
        stop.set()
        late.join(5)
        assert late.answer is False
    ledger.dispose()
    keyring.close()


def test_who_hurries_ends_the_waiting_for_more(spool):
    waiter = Waiter(lambda: spool.wait(0, 60, enough=1 << 30))
    spool.append(b"frame")
    until(waiter.is_alive, "it to wait for more")
    spool.hurry(1)
    waiter.join(5)
    assert waiter.answer is True
