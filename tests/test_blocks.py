"""Blocks of rows and what they add: what a crash cuts short is whole after the next try, by name too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from monitor.facts import queries
from monitor.facts.blocks import Blocks
from monitor.facts.errors import FactsError
from monitor.facts.measures import Measure
from monitor.facts.names import NameLimit
from monitor.facts.prepare import prepare
from monitor.facts.rated import rates
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.model import Batch
from tests.storing import store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOURLY = Measure(("sent",), by_cohort=True)


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[Facts]:
    with store(tmp_path / "facts") as found:
        yield found


@pytest.fixture
def keyring(tmp_path: Path) -> Iterator[Keyring]:
    found = Keyring.open(tmp_path / "keyring")
    yield found
    found.close()


def rows(keyring: Keyring, limit: NameLimit, *segments: str) -> pa.Table:
    told: dict[str, list[Any]] = {
        "kind": ["sent"] * len(segments),
        "at": [int(NOON.timestamp() * 1_000_000)] * len(segments),
        "id": [f"{place} {segment}" for place, segment in enumerate(segments)],
        "tenant": ["s07"] * len(segments),
        "segment": list(segments),
    }
    table, rejected = prepare(Batch(told), "test", keyring, NOON, bounds=None, names=limit)
    assert not rejected
    return table.append_column("batch", pa.repeat(pa.scalar(1, pa.uint64()), len(table)))


def by_segment(facts: Facts) -> dict[str, int]:
    found = rates(facts, HOURLY, ("tenant", "segment"), NOON, NOON + timedelta(hours=1))
    return {scope.segment: int(count) for scope, count in zip(found.scopes, found.above, strict=True)}


def test_a_block_that_names_more_after_a_crash_than_before_is_found_by_all_its_names(
    facts: Facts, keyring: Keyring
) -> None:
    first = NameLimit(2)
    Blocks(facts).put(rows(keyring, first, "a", "b"), "1")
    # These two are too many for the day, until a restart forgets which were named; the crash comes after the names of
    # the hours went in, and before their counts.
    facts.command("RENAME TABLE hour TO away")
    with pytest.raises(FactsError):
        Blocks(facts).put(rows(keyring, first, *"ccce"), "2")
    facts.command("RENAME TABLE away TO hour")
    Blocks(facts).put(rows(keyring, NameLimit(2), *"ccce"), "2")
    assert by_segment(facts) == {"a": 1, "b": 1, "c": 3, "e": 1}
    told = queries.totals(facts)
    assert told["leaf"] == told["minute"] == told["hour"] == told["events"]
