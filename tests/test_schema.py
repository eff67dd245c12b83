"""Migrations: forward only, while rows come in, whatever dies in the middle, and whoever else does it too."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from monitor.facts import queries, schema
from monitor.facts.blocks import Blocks, whole
from monitor.facts.errors import FactsError
from monitor.facts.grains import sums
from monitor.facts.prepare import prepare
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.model import Batch
from tests.storing import embedded, store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MIGRATING = Path(__file__).parent / "servers" / "migrating.py"
NEW = ("consent", "consent_ref", "found_by", "reply_class")
NEW_VALUES = (["opted-in", "", "opted-in"], ["form 7", "", ""], ["token", "", ""], ["", "quota", ""])
NEW_COUNTERS = ("unsubscribed", "returned", "not_spam")
NUMBERS = count()


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    ring = Keyring.open(tmp_path_factory.mktemp("keys") / "keyring")
    yield ring
    ring.close()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Facts]:
    """A store without any table."""
    with store(tmp_path / "facts", migrated=False) as facts:
        yield facts


class Old(Blocks):
    """As version 1 wrote: it knows no newer counters."""

    def put_sums(self, rows: pa.Table, token: str) -> None:
        for added in sums(whole(rows)):
            every = np.arange(len(added.counts))
            self._facts.append(added.grain.series, whole(added.named(rows, every)), f"{token} {added.grain.name}")
            self._facts.append(added.grain.name, added.counts.drop_columns(list(NEW_COUNTERS)), token)


def rows(keyring: Keyring, many: int) -> pa.Table:
    """Events of the columns that version 1 has; no two are one."""
    columns = {
        "kind": ["sent"] * many,
        "at": [int(NOON.timestamp() * 1_000_000)] * many,
        "id": [str(next(NUMBERS)) for _ in range(many)],
        "tenant": ["t1"] * many,
    }
    table, rejected = prepare(Batch(columns), "test", keyring, NOON, bounds=None)
    assert not rejected
    old = table.drop_columns([name for name in NEW if name in table.column_names])
    return old.append_column("batch", pa.array([1] * many, pa.uint64()))


def definitions(facts: Facts) -> list[dict[str, Any]]:
    return facts.query(
        f"SELECT DISTINCT name, replaceAll(create_table_query, database, '') AS made FROM {facts.nodes.system('tables')}"
        " WHERE database = {database:String} ORDER BY name",
        database=facts.nodes.database,
    ).to_pylist()


def test_migrating_again_changes_nothing(bare: Facts) -> None:
    schema.migrate(bare)
    before = definitions(bare)
    schema.migrate(bare)
    for statement in schema.steps(bare.nodes):
        bare.command(statement)
    assert definitions(bare) == before
    assert schema.version(bare) == schema.VERSION


def test_facts_of_a_newer_release_are_refused(bare: Facts) -> None:
    schema.migrate(bare)
    bare.command("INSERT INTO migrations VALUES ({version:UInt32})", version=schema.VERSION + 1)
    with pytest.raises(ValueError, match="use the newer release"):
        schema.migrate(bare)


def test_a_store_of_version_1_becomes_the_newest_while_rows_come_in_and_none_is_lost(
    bare: Facts, keyring: Keyring
) -> None:
    schema.migrate(bare, upto=1)
    assert schema.version(bare) == 1
    blocks, numbers = Old(bare), count(1)
    blocks.put(rows(keyring, 1000), "before")
    stop, failed = threading.Event(), list[Exception]()
    written = [0]

    def insert() -> None:
        try:
            while not stop.is_set():
                blocks.put(rows(keyring, 100), f"meanwhile {next(numbers)}")
                written[0] += 100
        except (FactsError, ValueError) as error:
            failed.append(error)

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        for statement in schema.steps(bare.nodes, 1):
            bare.command(statement)
            seen = written[0]
            while written[0] == seen and not failed:  # at least one block between two statements
                stop.wait(0.005)
    finally:
        stop.set()
        writer.join(30)
    assert failed == []
    blocks.put(rows(keyring, 50), "after")  # an older release's columns still go in
    found = queries.totals(bare)
    assert found["rows"] == found["keys"] == 1050 + written[0]
    assert found["events"] == found["leaf"] == found["minute"] == found["hour"]
    assert found["events"]["sent"] == found["rows"]
    assert bare.query(f"SELECT DISTINCT {', '.join(NEW)} FROM events").to_pylist() == [dict.fromkeys(NEW, "")]


def test_two_that_migrate_at_the_same_time_do_it_once(bare: Facts) -> None:
    failed: list[Exception] = []

    def migrate() -> None:
        try:
            schema.migrate(bare)
        except (FactsError, ValueError) as error:
            failed.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert schema.version(bare) == schema.VERSION


@embedded
def test_a_migration_that_is_killed_between_two_statements_is_begun_anew(tmp_path: Path, keyring: Keyring) -> None:
    for statements in (1, 4, 9):
        killed = subprocess.run(
            [sys.executable, str(MIGRATING), str(tmp_path / "facts"), str(statements)],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    with store(tmp_path / "facts") as facts:
        assert schema.version(facts) == schema.VERSION
        assert set(schema.TABLES) <= {row["name"] for row in definitions(facts)}
        Blocks(facts).put(rows(keyring, 10), "one")
        found = queries.totals(facts)
        assert found["rows"] == found["leaf"]["sent"] == found["minute"]["sent"] == found["hour"]["sent"] == 10


def test_rows_that_name_the_new_columns_keep_them(bare: Facts, keyring: Keyring) -> None:
    schema.migrate(bare)
    table = rows(keyring, 3)
    for name, values in zip(NEW, NEW_VALUES, strict=True):
        table = table.append_column(name, pa.array(values))
    bare.append("events", table, "one")
    found = bare.query(f"SELECT {', '.join(NEW)} FROM events ORDER BY consent_ref, reply_class, consent")
    assert found.to_pylist() == [
        dict.fromkeys(NEW, "") | {"consent": "opted-in"},
        dict.fromkeys(NEW, "") | {"reply_class": "quota"},
        dict.fromkeys(NEW, "") | {"consent": "opted-in", "consent_ref": "form 7", "found_by": "token"},
    ]
