"""The one wrapper around the engine: no answer is ever another query's, and every refusal says what it is."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.errors import UserError
from monitor.facts.errors import DirectoryInUse, FactsBusy, FactsError
from monitor.facts.store import Facts
from tests.storing import embedded

ROOT = Path(__file__).resolve().parent.parent
pytestmark = embedded


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[Facts]:
    """A store with a single reader, so that a handle that was kept would answer the next question too."""
    store = Facts.open(f"chdb://{tmp_path / 'facts'}", readers=1)
    yield store
    store.close()


def test_after_a_query_failed_half_way_the_next_answer_is_exact(facts: Facts) -> None:
    for _ in range(3):
        with pytest.raises(FactsError) as failed:
            facts.query("SELECT number, throwIf(number = 400000) FROM system.numbers LIMIT 450000")
        assert failed.value.code == 395
        assert facts.query("SELECT 7 AS a, 0 AS b").to_pylist() == [{"a": 7, "b": 0}]
        with pytest.raises(FactsError):
            for _ in facts.stream(
                "SELECT toUInt64(number + throwIf(number = 400000)) FROM system.numbers LIMIT 450000"
            ):
                pass
        assert facts.query("SELECT 7 AS a, 0 AS b").to_pylist() == [{"a": 7, "b": 0}]


def test_a_stream_that_is_left_early_does_not_spoil_the_next_answer(facts: Facts) -> None:
    pieces = facts.stream("SELECT number FROM system.numbers LIMIT 3000000")
    assert next(pieces)[0] == 0
    pieces.close()
    assert facts.query("SELECT 7 AS a").to_pylist() == [{"a": 7}]
    whole = np.concatenate(list(facts.stream("SELECT number FROM system.numbers LIMIT 700000")))
    assert (whole == np.arange(700_000)).all()  # more than a plain query may answer
    assert list(facts.stream("SELECT number FROM system.numbers LIMIT 0")) == []


def test_an_answer_that_is_too_large_is_refused(facts: Facts) -> None:
    with pytest.raises(FactsError) as failed:
        facts.query("SELECT number FROM system.numbers LIMIT 600000")
    assert failed.value.code == 396
    assert not failed.value.passing


def test_readers_can_not_write(facts: Facts) -> None:
    with pytest.raises(FactsError):
        facts.query("TRUNCATE TABLE events")


def test_want_of_memory_is_passing_and_nonsense_is_not(facts: Facts) -> None:
    with pytest.raises(FactsError) as failed:
        facts.query("SELECT groupArray(number) FROM (SELECT number FROM system.numbers LIMIT 50000000)")
    assert (failed.value.code, failed.value.passing) == (241, True)
    with pytest.raises(FactsError) as failed:
        facts.query("SELECT nonsense FROM events")
    assert not failed.value.passing


def test_when_all_readers_are_taken_the_caller_is_told(facts: Facts) -> None:
    pieces = facts.stream("SELECT number FROM system.numbers LIMIT 100000")
    next(pieces)
    with pytest.raises(FactsBusy, match="all 1 readers"), facts._reader(wait=0.01):
        pass
    pieces.close()
    assert facts.query("SELECT 1 AS a").to_pylist() == [{"a": 1}]


def test_many_threads_get_their_own_answers(facts: Facts) -> None:
    wrong: list[Any] = []

    def ask(mine: int) -> None:
        for turn in range(20):
            answer = facts.query("SELECT {mine:Int64} + {turn:Int64} AS n", mine=mine, turn=turn).to_pylist()
            if answer != [{"n": mine + turn}]:
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(place * 1000,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def taken(facts: Facts) -> bool:
    try:
        with facts._reader(wait=0.01):
            return False
    except FactsBusy:
        return True


def test_closing_cancels_a_query_that_runs_on(facts: Facts) -> None:
    outcome: list[FactsError] = []

    def ask() -> None:
        try:
            facts.query("SELECT sum(sleepEachRow(0.001)) FROM numbers(15000) SETTINGS max_block_size = 1")
        except FactsError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not taken(facts):
        pass
    facts.close(grace=0.1)
    thread.join(30)
    assert [error.code for error in outcome] == [394]
    with pytest.raises(RuntimeError, match="closed"):
        facts.query("SELECT 1")


def test_a_second_process_is_told_that_the_facts_are_in_use(facts: Facts, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys; from monitor.facts.store import Facts; Facts.open(sys.argv[1])", f"chdb://{tmp_path / 'facts'}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert f"DirectoryInUse: the facts are in use by another process: {tmp_path / 'facts'}" in told.stderr
    assert told.returncode == 1


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_handle_is_dropped_after_whatever_was_raised(facts: Facts) -> None:
    facts.query("SELECT 1")
    with pytest.raises(KeyboardInterrupt), facts._reader() as first:
        interrupt()
    with facts._reader() as second:
        assert second is not first
    writer = facts._writer
    with pytest.raises(KeyboardInterrupt):
        facts._write(interrupt)
    facts.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
    assert facts._writer is not writer


def test_closing_leaves_the_queries_of_others_alone(facts: Facts, tmp_path: Path) -> None:
    other = Facts.open(f"chdb://{tmp_path / 'facts'}", readers=1)
    answers: list[Any] = []
    slow = "SELECT sum(sleepEachRow(0.001)) AS a FROM numbers(1500) SETTINGS max_block_size = 1"
    thread = threading.Thread(target=lambda: answers.append(other.query(slow).to_pylist()))
    thread.start()
    while not taken(other):
        pass
    facts._cancel()
    facts.close(grace=0.1)
    thread.join(30)
    other.close()
    assert answers == [[{"a": 0}]]


LIMITS = """
import resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
from monitor.facts.store import Facts
Facts.open(sys.argv[1]).close()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft >= 8192 or soft == hard)
"""


def test_the_limit_of_open_files_is_raised(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", LIMITS, f"chdb://{tmp_path / 'facts'}"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert told.stdout.strip() == "True"


def test_a_directory_that_can_not_be_made_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/facts"):
        with pytest.raises(UserError, match=r"can't be written: .*\. Let the user .* or name another directory"):
            Facts.open(f"chdb://{tmp_path / folder}")


def imported(path: Path) -> set[str]:
    """The packages that a module names in its imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_only_the_store_knows_the_engine() -> None:
    packages = ("monitor", "collectors", "detectors", "alerts", "dashboards")
    knowing = {
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if imported(path) & {"chdb", "clickhouse_connect"}
    }
    assert knowing == {"monitor/facts/store.py"}


def test_directory_in_use_is_an_error_of_its_own() -> None:
    assert not issubclass(DirectoryInUse, FactsError)
