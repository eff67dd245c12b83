"""Exports: what DuckDB, pyarrow and pandas read is what is in the store, by day, and nobody's address."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from monitor.facts.grains import COUNTERS, GRAINS
from monitor.model import LABELS
from tests.servers import stored
from tests.servers.mailvane import mailvane, program
from tests.servers.teller import events, settled, tell
from tests.waiting import until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
COUNT = 1_000_000 if FULL else 12_000
DAYS = ("2026-11-20", "2026-11-21", "2026-11-22")
TABLES = ("events", "leaf", "minute", "hour", "levels")
WORDS = [word for table in TABLES for word in ("--table", table)]
ROOM = 450  # MiB that an export or a backup may take beside the store's own


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program(), *map(str, words)], capture_output=True, text=True, check=False, timeout=240)


def done(*words: str | Path) -> str:
    ended = run(*words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("store") / "data"
    stored.call("fill", data, str(COUNT))
    return data


@pytest.fixture(scope="module")
def out(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of all tables."""
    folder = tmp_path_factory.mktemp("out") / "facts"
    done("export", folder, "--data", store, *WORDS)
    return folder


def asked(sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as db:
        return db.execute(sql).fetchall()


def test_files_stand_by_table_and_day(out: Path):
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {f"table={table}/day={day}/part-0.parquet" for table in TABLES[:3] for day in DAYS} <= found
    assert all(name.endswith("/part-0.parquet") for name in found)


def test_duckdb_pyarrow_and_pandas_read_the_same_events(store: Path, out: Path):
    held = stored.totals(store)["events"]
    place = f"{out}/table=events"
    sql = f"SELECT kind, sum(count)::BIGINT FROM read_parquet('{place}/**/*.parquet', hive_partitioning=true) GROUP BY kind"
    assert dict(asked(sql)) == {kind: count for kind, count in held.items() if count}
    table = ds.dataset(place, partitioning="hive").to_table()
    assert table.num_rows == COUNT
    assert len(set(table["key"].to_pylist())) == COUNT
    frame = pd.read_parquet(place)
    assert len(frame) == COUNT
    assert frame.groupby("kind")["count"].sum().to_dict() == {kind: count for kind, count in held.items() if count}
    assert sorted(frame["day"].astype(str).unique()) == list(DAYS)


# Of each counter, which events it counts.
COUNTED = {
    **{kind: f"kind = '{kind}'" for kind in COUNTERS[:-2]},
    "first": "attempt = 1 AND kind IN ('sent', 'deferred', 'bounced', 'expired')",
    "first_deferred": "attempt = 1 AND kind = 'deferred'",
}


@pytest.mark.parametrize("grain", sorted(GRAINS))
def test_counts_by_label_agree_with_the_events_and_each_key_stands_once(out: Path, grain: str):
    label = "tenant" if "tenant" in GRAINS[grain].labels else "ip"
    sums = ", ".join(f"sum({counter})::BIGINT" for counter in COUNTED)
    counts = ", ".join(f"coalesce(sum(count) FILTER ({rows}), 0)::BIGINT" for rows in COUNTED.values())
    grains, raw = (f"read_parquet('{out}/table={table}/**/*.parquet')" for table in (grain, "events"))
    found = asked(f"SELECT {label}, {sums} FROM {grains} GROUP BY 1 ORDER BY 1")
    assert found == asked(f"SELECT {label}, {counts} FROM {raw} GROUP BY 1 ORDER BY 1")
    keys = ", ".join(f'"{key}"' for key in (*GRAINS[grain].keys, *GRAINS[grain].labels))
    assert asked(f"SELECT {keys} FROM {grains} GROUP BY ALL HAVING count(*) > 1") == []


def test_types_are_such_as_every_reader_knows(out: Path):
    for table in TABLES:
        shape = pq.read_schema(next((out / f"table={table}").rglob("*.parquet")))
        assert not any(pa.types.is_unsigned_integer(field.type) for field in shape)
        assert {field.type for field in shape if pa.types.is_temporal(field.type)} == {pa.timestamp("us", tz="UTC")}
        assert set(LABELS[:4]) <= set(shape.names)


def test_a_level_is_as_it_was_told_last(out: Path):
    assert asked(f"SELECT kind, name, value FROM read_parquet('{out}/table=levels/**/*.parquet')") == [
        ("listing", "zen", 2.0)
    ]


def test_no_address_is_in_it_and_pseudonyms_only_where_wanted(store: Path, out: Path, tmp_path: Path):
    texts = pq.read_table(out / "table=events").to_pandas().astype(str)
    assert not texts.apply(lambda column: column.str.contains("@")).any().any()
    assert texts["recipient"].str.fullmatch("[0-9a-f]{32}").all()
    done("export", tmp_path, "--data", store, "--without-pseudonyms")
    bare = pq.read_table(tmp_path / "table=events")
    assert bare.num_rows == COUNT
    assert {"recipient", "message", "key", "consent_ref"}.isdisjoint(bare.column_names)


def test_only_the_days_asked_for_are_written_and_a_day_is_replaced(store: Path, tmp_path: Path):
    done("export", tmp_path, "--data", store, "--since", DAYS[1], "--until", DAYS[2])
    (file,) = tmp_path.rglob("part-0.parquet")
    assert file.parent.name == f"day={DAYS[1]}"
    before = file.read_bytes()
    file.write_bytes(b"of an earlier export")
    done("export", tmp_path, "--data", store, "--since", DAYS[1], "--until", DAYS[2])
    assert pq.read_metadata(file).num_rows == pq.read_metadata(pa.BufferReader(before)).num_rows
    assert [path.name for path in file.parent.iterdir()] == ["part-0.parquet"]


def test_days_of_which_there_is_nothing_are_told(store: Path, tmp_path: Path):
    assert "nothing of those days" in done("export", tmp_path, "--data", store, "--since", "2027-01-01")
    assert (
        "not after --since" in run("export", tmp_path, "--data", store, "--since", DAYS[1], "--until", DAYS[1]).stderr
    )
    assert "is no day" in run("export", tmp_path, "--data", store, "--since", "yesterday").stderr


def test_a_service_that_runs_exports_too(tmp_path: Path):
    now = datetime.now(UTC)
    with mailvane(tmp_path, "") as service:
        assert tell(service, events(range(1000), now)).status == 202
        until(lambda: settled(service), "all to be counted")
        said = service.command("export", str(tmp_path / "out"), "--table", "events", "--table", "minute")
        assert "1,000 rows" in said
        assert pq.read_table(tmp_path / "out" / "table=events").num_rows == 1000
        assert sum(pq.read_table(tmp_path / "out" / "table=minute")["sent"].to_pylist()) == 250


@pytest.mark.scale(order=3)
@pytest.mark.parametrize("what", ["export", "backup"])
def test_memory_does_not_grow_with_the_store(store: Path, tmp_path: Path, what: str):
    assert int(stored.call("memory", store, tmp_path, what)) < ROOM
