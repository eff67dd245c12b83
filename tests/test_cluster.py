"""A cluster is one place's affair: what it is told is parsed by the engine, and all else is the same text."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from monitor.errors import UserError
from monitor.facts import levels, queries, retention, schema
from monitor.facts.blocks import Blocks
from monitor.facts.cluster import Nodes, Table
from monitor.facts.errors import FactsError
from monitor.facts.grains import GRAINS
from monitor.facts.levels import Level
from monitor.facts.prepare import prepare
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.model import Batch
from tests.storing import embedded, store
from tests.waiting import free_port, until

ROOT = Path(__file__).resolve().parent.parent
SERVER = Path(__file__).parent / "servers" / "clickhouse.py"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ONE, MANY = Nodes("mail"), Nodes("mail", "prod")
TABLES = [change for changes in schema.MIGRATIONS for change in changes if isinstance(change, Table)]


def statements(nodes: Nodes) -> list[str]:
    """All that is not asked or inserted."""
    return [
        nodes.create_database(),
        *schema.steps(nodes),
        *(nodes.truncate(table) for table in schema.TABLES),
        nodes.alter("events", "DROP PARTITION ID {partition:String}"),
        nodes.cancel(),
        nodes.drop_database(),
    ]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    with store(tmp_path_factory.mktemp("data") / "facts", migrated=False, readers=1) as facts:
        yield facts


@pytest.mark.parametrize("statement", [*statements(ONE), *statements(MANY), f"SELECT 1 FROM {MANY.system('parts')}"])
def test_the_engine_can_parse_every_statement(engine: Facts, statement: str) -> None:
    [parsed] = engine.query("SELECT formatQuery({statement:String}) AS text", statement=statement).to_pylist()
    assert ("ON CLUSTER" in statement) == ("ON CLUSTER prod" in parsed["text"])


def test_on_a_cluster_every_definition_is_for_all_nodes() -> None:
    for statement in statements(MANY):
        assert "ON CLUSTER 'prod'" in statement or statement.startswith("INSERT INTO migrations")
    assert not any("CLUSTER" in statement or "_local" in statement for statement in statements(ONE))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_of_a_cluster_is_distributed_over_replicated_ones_with_the_same_columns(table: Table) -> None:
    [one], [local, distributed] = ONE.statements(table), MANY.statements(table)
    assert f"CREATE TABLE IF NOT EXISTS mail.{table.name}_local" in local
    assert f"ENGINE = Replicated{table.engine} {table.order}" in local
    assert f"({table.columns})" in one
    assert f"({table.columns})" in local
    assert f" AS mail.{table.name}_local ENGINE = Distributed('prod', 'mail', '{table.name}_local'" in distributed
    for window in re.findall(r"deduplication_window = (\d+)", one + local):
        assert window == "10000"


def test_what_is_told_again_falls_to_the_shard_that_has_it_and_a_series_to_one_shard() -> None:
    shards = {table.name: table.shard for table in TABLES if table.name != "migrations"}
    series = {name: "series" for grain in GRAINS.values() for name in (grain.name, grain.series)}
    assert shards == {"events": "key", "levels": "key", **series}


def test_no_other_module_knows_of_clusters() -> None:
    words = re.compile(r"ON CLUSTER|Replicated|Distributed\(|_local\b|system\.parts\b|clusterAllReplicas")
    knowing = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "monitor").rglob("*.py")
        if words.search(path.read_text("utf-8"))
    }
    # The copies that a backup reads are tables of a moment, which no schema has.
    assert knowing - {"monitor/facts/frozen.py"} == {"monitor/facts/cluster.py"}


def test_the_shipped_cluster_has_two_shards_of_two_replicas_that_replicate_themselves() -> None:
    config = ET.parse(ROOT / "deploy" / "cluster" / "cluster.xml").getroot()
    shards = config.findall("./remote_servers/mailvane/shard")
    assert [len(shard.findall("replica")) for shard in shards] == [2, 2]
    assert [shard.findtext("internal_replication") for shard in shards] == ["true", "true"]
    hosts = [replica.findtext("host") for shard in shards for replica in shard.findall("replica")]
    composed = (ROOT / "deploy" / "cluster" / "compose.yaml").read_text("utf-8")
    for host in hosts:
        assert host
        assert re.search(rf"^  {host}:$", composed, re.MULTILINE)
    keeper = ET.parse(ROOT / "deploy" / "cluster" / "keeper.xml").getroot()
    assert keeper.find("keeper_server") is not None


# a server, asked as one is: by HTTP


@contextmanager
def server(folder: Path, port: int, password: str = "") -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, str(SERVER), str(folder), str(port), password])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def opened(port: int, password: str = "") -> Facts:
    """The store on that server, once it is up."""

    def attempt() -> Facts | None:
        with contextlib.suppress(FactsError):
            return Facts.open(f"clickhouse://default@127.0.0.1:{port}/mail", password=password, readers=2)
        return None

    facts = until(attempt, "the server to be up")
    assert facts
    return facts


def rows(folder: Path, many: int) -> pa.Table:
    keyring = Keyring.open(folder / "keyring")
    columns = {
        "kind": ["sent"] * many,
        "at": [int((NOON - timedelta(days=row % 2)).timestamp() * 1_000_000) for row in range(many)],
        "id": [str(row) for row in range(many)],
        "tenant": ["t1"] * many,
        "reply": ["250 2.0.0 “ok”, it's\ta tab"] * many,
    }
    table, rejected = prepare(Batch(columns), "test", keyring, NOON, bounds=None)
    keyring.close()
    assert not rejected
    return table.append_column("batch", pa.array([1] * many, pa.uint64()))


def test_a_server_takes_the_same_statements_and_comes_back(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path / "server", port, "geheim"):
        facts = opened(port, "geheim")
        schema.migrate(facts)
        block = rows(tmp_path, 1000)
        for _ in range(2):
            Blocks(facts).put(block, "one")
        levels.append(facts, [Level("score", "reputation", NOON, 0.5)])
        before = queries.totals(facts)
    assert before["rows"] == before["keys"] == before["leaf"]["sent"] == 1000
    with pytest.raises(FactsError) as gone:
        Blocks(facts).put(block, "one")
    assert gone.value.passing
    with server(tmp_path / "server", port, "geheim"):
        again = opened(port, "geheim")
        again.close()
        Blocks(facts).put(block, "one")  # the old handles know nothing of the restart
        assert queries.totals(facts) == before
        with pytest.raises(FactsError) as failed:
            facts.query("SELECT number, throwIf(number = 400000) FROM system.numbers LIMIT 450000")
        assert failed.value.code == 395
        assert facts.query("SELECT 7 AS a").to_pylist() == [{"a": 7}]
        with pytest.raises(FactsError) as refused:
            facts.query("TRUNCATE TABLE events")
        assert refused.value.code == 164
        assert sum(len(piece) for piece in facts.stream("SELECT key FROM events")) == 1000
        assert retention.expire(facts, NOON, {"events": timedelta(hours=1)}) == [("events", "20261123")]
        assert levels.latest(facts, "score", NOON)[0].value == 0.5
        facts.close()


def test_a_wrong_password_is_told_and_not_repeated(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path / "server", port, "geheim"):
        opened(port, "geheim").close()
        with pytest.raises(UserError, match="check user and facts_password_file") as refused:
            Facts.open(f"clickhouse://default@127.0.0.1:{port}/mail", password="falsch")
        assert "falsch" not in str(refused.value)


@embedded
def test_with_a_server_the_embedded_engine_is_not_loaded() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys, monitor.service, monitor.facts.store; print('chdb' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stdout.strip() == "False"
