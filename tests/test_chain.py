"""The links of both logs: one byte that was changed, a row taken out or put in, is found, and in its place."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Table
from sqlalchemy.exc import DatabaseError

from monitor.cli import cli
from monitor.ledger import access_log, actions, audit, chain
from monitor.ledger.access_log import Entry, access
from monitor.ledger.chain import Head
from monitor.ledger.columns import metadata
from monitor.ledger.db import open_ledger, open_still
from monitor.ledger.verifying import Flaw
from tests.builders import NOW, minutes, pause
from tests.waiting import until

ROWS = 9
LOGS = {"actions": actions.log, "access": access}
WRITER = Path(__file__).parent / "servers" / "appending.py"
FULL = os.environ.get("MAILVANE_SCALE") == "full"


def fill(ledger: Engine, rows: int = ROWS, first: int = 1) -> None:
    with ledger.begin() as conn:
        for number in range(first, first + rows):
            at = NOW + minutes(number)
            evidence = {"numerator": number, "why": "bounces  of ünïcode", "rate": 0.1 + number}
            lease = {"id": f"{number}@0", "at": at, "until": at + minutes(60), "share": number / 7, "pool": "slow"}
            assert actions.append(conn, pause(**lease, lease="1@0", evidence=evidence))
            access_log.append(conn, Entry(at, f"key:{number}", "GET /v1/series", "s07", "200", {"times": number}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of nine rows in each log, closed."""
    path = tmp_path_factory.mktemp("chain") / "ledger.sqlite"
    engine = open_ledger(path)
    fill(engine)
    engine.dispose()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        conn.execute("PRAGMA journal_mode=DELETE")
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "ledger.sqlite"))


def flaws(path: Path, name: str, heads: tuple[Head, ...] = ()) -> list[Flaw]:
    engine = open_still(path)
    try:
        with engine.connect().execution_options(reads=True) as conn:
            return [flaw for flaw in audit.verify(conn, LOGS[name], heads) if flaw]
    finally:
        engine.dispose()


def heads(path: Path) -> dict[str, Head]:
    engine = open_still(path)
    try:
        with engine.connect().execution_options(reads=True) as conn:
            return {log.name: chain.head(conn, log) for log in audit.LOGS}
    finally:
        engine.dispose()


def places(path: Path, name: str) -> list[int]:
    return [flaw.seq for flaw in flaws(path, name) if flaw.seq]


def tamper(path: Path, *statements: str, values: tuple[Any, ...] = ()) -> None:
    with closing(sqlite3.connect(path)) as conn:
        for statement in statements:
            assert conn.execute(statement, values).rowcount, f"{statement} touched nothing"
        conn.commit()


def other(value: Any) -> Any:
    """A value that differs by one byte, or by as little as its type can."""
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
    if isinstance(value, float):
        return value + 2**-50
    return 0 if value is None else value + 1


@pytest.mark.parametrize("name", sorted(LOGS))
def test_a_log_that_nobody_touched_is_whole(path: Path, name: str):
    assert flaws(path, name) == []
    assert heads(path)[name].seq == ROWS


CELLS = [(name, column.name) for name, log in sorted(LOGS.items()) for column in log.columns if column.name != "seq"]


@pytest.mark.parametrize("seq", [1, 5, ROWS])
@pytest.mark.parametrize(("name", "column"), CELLS)
def test_one_byte_changed_in_any_column_is_found_in_its_row(path: Path, name: str, column: str, seq: int):
    with closing(sqlite3.connect(path)) as conn:
        (value,) = conn.execute(f'SELECT "{column}" FROM {name} WHERE seq = {seq}').fetchone()
    tamper(path, f'UPDATE {name} SET "{column}" = ? WHERE seq = {seq}', values=(other(value),))
    assert places(path, name) == [seq]
    said = flaws(path, name)[0].what
    assert said == ("was changed" if seq < ROWS else "was changed, or its link was")


@pytest.mark.parametrize(
    ("change", "of"),
    [
        ("until = NULL", "a value becomes none"),
        ("pool = CAST(pool AS BLOB)", "a text becomes bytes"),
        ("who = who || char(0)", "a text goes on behind a zero byte"),
        ("evidence = replace(evidence, ': ', ':  ')", "blanks in JSON"),
        ("at = CAST(at AS BLOB)", "a number becomes bytes"),
        ("share = share * (1 + 2e-16)", "the last bit of a fraction"),
        ("pool = lease, lease = pool", "values of two columns change places"),
    ],
)
def test_what_reads_nearly_the_same_is_found(path: Path, change: str, of: str):
    tamper(path, f"UPDATE actions SET {change} WHERE seq = 5")
    assert places(path, "actions") == [5], of


def test_none_and_an_empty_text_are_not_the_same():
    encode = chain._encoder("log", ["a", "b"])
    assert len({encode(values) for values in ([None, b""], [b"", None], [b"", b""], [None, None])}) == 4


@given(
    st.lists(
        st.tuples(
            *[st.none() | st.binary(max_size=3) | st.text("0f", max_size=3) | st.integers(0, 3) | st.floats()] * 2
        ),
        min_size=2,
        max_size=2,
        unique_by=repr,
    )
)
def test_different_rows_give_different_bytes(rows: list[tuple[Any, ...]]):
    encode = chain._encoder("log", ["a", "b"])
    assert encode(rows[0]) != encode(rows[1])


@pytest.mark.parametrize("name", sorted(LOGS))
@pytest.mark.parametrize("gone", [(1,), (5,), (8,), (4, 5), (2, 7)], ids=str)
def test_rows_taken_out_are_named(path: Path, name: str, gone: tuple[int, ...]):
    tamper(path, f"DELETE FROM {name} WHERE seq IN ({','.join(map(str, gone))})")
    assert [(flaw.seq, flaw.what) for flaw in flaws(path, name)] == [(seq, "was removed") for seq in gone]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_a_row_taken_out_with_its_link_is_named(path: Path, name: str):
    tamper(path, f"DELETE FROM {name} WHERE seq = 5", f"DELETE FROM links WHERE log = '{name}' AND seq = 5")
    assert str(flaws(path, name)[0]) == f"{name}: row 5 was removed with the link; row 6 can't be proven"
    assert places(path, name) == [5]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_an_end_that_was_cut_off_is_found(path: Path, name: str):
    tamper(path, f"DELETE FROM {name} WHERE seq > 7", f"DELETE FROM links WHERE log = '{name}' AND seq > 7")
    assert str(flaws(path, name)[0]) == f"{name}: row 8 and those up to 9 were removed from the end, with the link"


def test_an_end_that_was_cut_off_is_found_after_the_log_went_on(path: Path):
    tamper(path, "DELETE FROM access WHERE seq = 9", "DELETE FROM links WHERE log = 'access' AND seq = 9")
    engine = open_ledger(path)
    fill(engine, rows=2, first=10)
    engine.dispose()
    assert places(path, "access") == [9]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_an_end_that_was_cut_off_without_a_trace_is_found_by_a_head_kept_elsewhere(path: Path, name: str):
    kept = heads(path)[name]
    tamper(
        path,
        f"DELETE FROM {name} WHERE seq > 7",
        f"DELETE FROM links WHERE log = '{name}' AND seq > 7",
        f"UPDATE sqlite_sequence SET seq = 7 WHERE name = '{name}'",
    )
    assert flaws(path, name) == []
    assert [flaw.seq for flaw in flaws(path, name, (kept,))] == [8]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_a_log_that_was_written_anew_is_found_by_a_head_kept_elsewhere(path: Path, name: str):
    kept = heads(path)[name]
    tamper(
        path, f"UPDATE {name} SET who = 'nobody' WHERE seq = 3", f"DELETE FROM links WHERE log = '{name}' AND seq > 0"
    )
    engine = open_ledger(path)
    with engine.begin() as conn:
        chain.extend(conn, LOGS[name], 1)
    engine.dispose()
    assert flaws(path, name) == []
    assert [flaw.seq for flaw in flaws(path, name, (kept,))] == [ROWS]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_a_count_of_rows_that_was_turned_back_is_found(path: Path, name: str):
    tamper(path, f"UPDATE sqlite_sequence SET seq = 4 WHERE name = '{name}'")
    assert places(path, name) == [ROWS]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_two_rows_that_changed_places_are_named(path: Path, name: str):
    tamper(
        path,
        f"UPDATE {name} SET seq = 99 WHERE seq = 3",
        f"UPDATE {name} SET seq = 3 WHERE seq = 7",
        f"UPDATE {name} SET seq = 7 WHERE seq = 99",
    )
    assert places(path, name)[:2] == [3, 7]


def copied(log: Table, seq: int) -> str:
    """A statement that puts a row in, like the fifth one."""
    names = [column.name for column in log.columns]
    taken = {"seq": str(seq), "id": "'put in'"}
    values = ", ".join(taken.get(name, f'"{name}"') for name in names)
    return f"INSERT INTO {log.name} SELECT {values} FROM {log.name} WHERE seq = 5"


@pytest.mark.parametrize("name", sorted(LOGS))
def test_a_row_put_in_at_the_end_is_found_and_stays_found_when_the_log_goes_on(path: Path, name: str):
    tamper(path, copied(LOGS[name], ROWS + 1))
    assert places(path, name) == [ROWS + 1]
    engine = open_ledger(path)
    fill(engine, rows=3, first=20)
    engine.dispose()
    assert [(flaw.seq, flaw.what) for flaw in flaws(path, name)] == [(ROWS + 1, "was put in")]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_a_row_put_in_before_all_others_is_found(path: Path, name: str):
    tamper(path, copied(LOGS[name], -4))
    assert places(path, name) == [-4]


@pytest.mark.parametrize("name", sorted(LOGS))
@pytest.mark.parametrize("seq", [1, 5, 8])
def test_a_link_that_was_changed_is_told_from_a_row_that_was(path: Path, name: str, seq: int):
    tamper(path, f"UPDATE links SET link = zeroblob(32) WHERE log = '{name}' AND seq = {seq}")
    assert [(flaw.seq, "link was changed" in flaw.what) for flaw in flaws(path, name)] == [(seq, True)]


@pytest.mark.parametrize("name", sorted(LOGS))
@pytest.mark.parametrize(
    "change", ["DELETE FROM links", "UPDATE links SET seq = 'five'", "UPDATE links SET seq = 500"], ids=str
)
def test_a_link_that_is_gone_is_told_from_a_row_put_in(path: Path, name: str, change: str):
    tamper(path, f"{change} WHERE log = '{name}' AND seq = 5")
    assert flaws(path, name)[0].seq == 5
    assert flaws(path, name)[0].what == "lost its link"


def test_the_first_link_taken_out_or_changed_is_found(path: Path):
    tamper(path, "DELETE FROM links WHERE log = 'access' AND seq = 0")
    assert flaws(path, "access")
    tamper(path, "UPDATE links SET link = x'01' WHERE log = 'actions' AND seq = 0")
    assert places(path, "actions") == [1]


def test_links_taken_out_altogether_are_found_and_never_made_anew(path: Path):
    tamper(path, "DELETE FROM links")
    open_ledger(path).dispose()
    assert [flaw.what for name in LOGS for flaw in flaws(path, name)] == ["all links were removed"] * 2


def test_an_index_that_hides_a_row_is_found(path: Path):
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA writable_schema = 1")
        conn.execute("UPDATE sqlite_master SET sql = sql || ' WHERE seq <> 5' WHERE name = 'ix_actions_until'")
        conn.commit()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("REINDEX ix_actions_until")
        conn.execute("PRAGMA writable_schema = 1")
        conn.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ' WHERE seq <> 5', '') WHERE name = 'ix_actions_until'"
        )
        conn.commit()
    assert "missing from index ix_actions_until" in str(flaws(path, "actions")[0])


@pytest.mark.parametrize("seed", range(4 if FULL else 1))
def test_a_byte_flipped_anywhere_in_the_file_is_found_or_changes_nothing_in_the_logs(
    whole: Path, tmp_path: Path, seed: int
):
    """The law: whatever verifies as whole reads as it was written."""
    raw, draw = whole.read_bytes(), random.Random(seed)
    before = told(whole)
    path, found = tmp_path / "ledger.sqlite", 0
    for _ in range(2000 if FULL else 250):
        place = draw.randrange(len(raw))
        path.write_bytes(raw[:place] + bytes([raw[place] ^ (1 << draw.randrange(8))]) + raw[place + 1 :])
        try:
            seen = any(flaws(path, name) for name in LOGS)
        except (DatabaseError, ValueError):
            seen = True  # not even opened
        found += seen
        assert seen or told(path) == before, f"byte {place}"
    assert found


def told(path: Path) -> list[list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as conn:
        return [conn.execute(f"SELECT * FROM {name} ORDER BY seq").fetchall() for name in sorted(LOGS)]


def test_every_byte_of_a_row_is_guarded(whole: Path, tmp_path: Path):
    """Each byte of the texts of the middle rows, as it stands in the file."""
    raw = whole.read_bytes()
    for name, mark in (("access", b"key:5GET /v1/seriess07200"), ("actions", b'{"numerator": 5')):
        assert raw.count(mark) == 1
        for place in range(raw.index(mark), raw.index(mark) + len(mark)):
            path = tmp_path / "ledger.sqlite"
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
            assert places(path, name) == [5]


# ledgers of before


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger from before there were links, whose numbers have holes."""
    path = tmp_path / "ledger.sqlite"
    engine = open_ledger(path)
    fill(engine, rows=6)
    with engine.begin() as conn:
        for table in ("links", "access"):
            conn.exec_driver_sql(f"DROP TABLE {table}")
        conn.exec_driver_sql("DELETE FROM actions WHERE seq IN (2, 3)")
    engine.dispose()
    return path


def test_an_old_ledger_is_linked_at_its_first_opening(old: Path):
    engine = open_ledger(old)
    fill(engine, rows=2, first=7)
    engine.dispose()
    assert flaws(old, "actions") == []
    assert heads(old)["actions"].seq == 8
    tamper(old, "UPDATE actions SET why = 'other' WHERE seq = 4")
    assert places(old, "actions") == [4]


def test_an_old_ledgers_holes_are_known_and_newer_ones_are_not(old: Path):
    engine = open_ledger(old)
    fill(engine, rows=4, first=7)
    engine.dispose()
    tamper(old, "DELETE FROM actions WHERE seq = 8", "DELETE FROM links WHERE log = 'actions' AND seq = 8")
    assert places(old, "actions") == [8]


def test_a_repeated_action_leaves_no_number_out(path: Path):
    engine = open_ledger(path)
    with engine.begin() as conn:
        assert actions.append(conn, pause(id="5@0")) is None
    fill(engine, rows=1, first=30)
    engine.dispose()
    assert heads(path)["actions"].seq == ROWS + 1
    assert flaws(path, "actions") == []


def test_what_is_undone_leaves_no_link(path: Path):
    engine = open_ledger(path)
    with engine.connect() as conn, conn.begin() as transaction:
        assert actions.append(conn, pause(id="new"))
        transaction.rollback()
    fill(engine, rows=1, first=30)
    engine.dispose()
    assert flaws(path, "actions") == []


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["append", "several", "drop", "undone"]), max_size=12))
def test_whatever_is_appended_and_dropped_the_log_is_whole(tmp_path_factory: pytest.TempPathFactory, steps: list[str]):
    path = tmp_path_factory.mktemp("steps") / "ledger.sqlite"
    engine = open_ledger(path)
    entry = Entry(NOW, "machine", "did", "", "done")
    for step in steps:
        with engine.connect() as conn, conn.begin() as transaction:
            if step == "drop":
                access_log.drop(conn, NOW + minutes(1), NOW)
            else:
                access_log.append_all(conn, [entry] * (3 if step == "several" else 1))
            if step == "undone":
                transaction.rollback()
    engine.dispose()
    assert flaws(path, "access") == []


# entries whose time is over


def dropping(path: Path, before: timedelta) -> None:
    engine = open_ledger(path)
    with engine.begin() as conn:
        access_log.drop(conn, NOW + before, NOW + minutes(100))
    engine.dispose()


def test_old_entries_are_dropped_and_the_rest_still_proves_itself(path: Path):
    kept = heads(path)["access"]
    dropping(path, minutes(5))
    assert flaws(path, "access", (kept,)) == []
    tamper(path, "UPDATE access SET who = 'nobody' WHERE seq = 5")
    assert places(path, "access") == [5]


def test_a_beginning_that_was_cut_off_is_told_from_one_whose_time_was_over(path: Path):
    dropping(path, minutes(4))
    tamper(path, "DELETE FROM access WHERE seq < 7", "DELETE FROM links WHERE log = 'access' AND seq < 6")
    assert "those before were removed" in flaws(path, "access")[0].what


def test_a_head_of_what_was_dropped_proves_nothing_and_says_so(path: Path):
    old = Head("access", 1, bytes(32))
    dropping(path, minutes(5))
    with pytest.raises(ValueError, match="Take a newer one"):
        flaws(path, "access", (old,))


def test_the_newest_entry_is_never_dropped(path: Path):
    dropping(path, timedelta(days=9))
    assert [row[0] for row in told(path)[0]] == [ROWS, ROWS + 1]
    assert flaws(path, "access") == []


# several writers


def writing(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(path), name, str(count)], stdout=subprocess.PIPE, text=True
    )


def test_many_processes_write_one_unbroken_chain(path: Path):
    writers = [writing(path, f"w{number}", 40) for number in range(3)]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    assert {name: heads(path)[name].seq for name in LOGS} == {"actions": ROWS + 120, "access": ROWS + 120}
    assert [flaws(path, name) for name in LOGS] == [[], []]


def test_a_writer_that_is_killed_leaves_an_unbroken_chain(path: Path):
    for turn in range(3):
        writer = writing(path, f"k{turn}", 100_000)
        assert writer.stdout
        for _ in range(10):
            assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    engine = open_ledger(path)
    fill(engine, rows=1, first=500)
    engine.dispose()
    assert [flaws(path, name) for name in LOGS] == [[], []]
    assert heads(path)["access"].seq > ROWS + 30


# the command


@pytest.fixture
def run(path: Path, tmp_path: Path) -> Callable[..., Any]:
    config = tmp_path / "mailvane.toml"
    config.write_text(f'[service]\ndata = "{tmp_path}"\n')
    return lambda *words: CliRunner().invoke(cli, ["--config", str(config), "audit", *words])


def test_the_command_says_that_all_is_well(run: Callable[..., Any]):
    done = run("verify")
    assert done.exit_code == 0
    assert "actions: 9 rows, all as they were written, up to actions:9:" in done.output
    assert "access: 9 rows" in done.output


def test_the_command_names_the_row_and_fails(run: Callable[..., Any], path: Path):
    tamper(path, "UPDATE actions SET who = 'nobody' WHERE seq = 5")
    done = run("verify")
    assert done.exit_code == 1
    assert "actions: row 5 was changed (written 2026-11-24 10:05:00 UTC)" in done.output
    assert "access: 9 rows, all as they were written" in done.output


def test_the_command_checks_against_heads_kept_elsewhere(run: Callable[..., Any], path: Path):
    lines = run("head").output.split()
    kept = [word for line in lines for word in ("--head", line)]
    assert run("verify", *kept).exit_code == 0
    wrong = lines[0][:-1] + ("0" if lines[0][-1] != "0" else "1")
    assert run("verify", "--head", wrong).exit_code == 1
    assert "a head looks like" in run("verify", "--head", "17").output


def test_the_command_reads_a_backups_ledger_and_leaves_nothing_beside_it(
    run: Callable[..., Any], path: Path, tmp_path: Path
):
    folder = tmp_path / "backup"
    folder.mkdir()
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(folder / "ledger.sqlite")) as copy:
        live.backup(copy)
    folder.chmod(0o500)
    assert run("verify", "--ledger", str(folder / "ledger.sqlite")).exit_code == 0
    assert [one.name for one in folder.iterdir()] == ["ledger.sqlite"]


def test_the_command_says_what_it_can_not_read(run: Callable[..., Any], tmp_path: Path):
    junk = tmp_path / "junk"
    junk.write_bytes(b"no database" * 100)
    done = run("verify", "--ledger", str(junk))
    assert done.exit_code == 1
    assert "can't be read" in done.output
    empty = tmp_path / "empty"
    with closing(sqlite3.connect(empty)) as conn:
        conn.execute("CREATE TABLE actions (seq INTEGER)")
    assert "has no links" in run("verify", "--ledger", str(empty)).output


def test_a_log_is_verified_while_it_is_written(run: Callable[..., Any], path: Path):
    writer = writing(path, "w", 100_000)
    try:
        assert writer.stdout
        assert until(writer.stdout.readline, "the writer")
        for _ in range(3):
            done = run("verify")
            assert done.exit_code == 0, done.output
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()


@pytest.mark.scale(order=4)
def test_a_long_log_is_verified_in_little_memory(tmp_path: Path):
    rows = 1_000_000 if FULL else 20_000
    engine = open_ledger(tmp_path / "ledger.sqlite")
    with engine.begin() as conn:
        conn.exec_driver_sql(
            f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
            INSERT INTO access (at, who, did, "on", result, details)
            SELECT i, 'key:a', 'GET /v1/series', '', '200', '{{"times": ' || i || '}}' FROM n"""
        )
        chain.extend(conn, access, 1)
        conn.exec_driver_sql(f"UPDATE access SET who = 'key:b' WHERE seq = {rows - 1}")
    with engine.connect().execution_options(reads=True) as conn:
        tracemalloc.start()
        try:
            found = [flaw.seq for flaw in audit.verify(conn, access) if flaw]
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
    engine.dispose()
    assert found == [rows - 1]


def test_the_schema_of_a_log_is_whole_in_its_links():
    """A column that comes later must be one that may be NULL: those of now are in every link."""
    assert {log.name for log in audit.LOGS} <= set(metadata.tables)
    assert [column.name for column in access.columns] == ["seq", "at", "who", "did", "on", "result", "details"]
