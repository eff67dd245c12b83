"""The road from a batch to exact counts: once, in whatever order it is told, whatever dies on the way."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from collectors._decode import Checked
from monitor.dsn import Embedded
from monitor.facts import queries
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger import journal
from monitor.ledger.db import open_ledger
from monitor.ledger.journal import Progress
from monitor.model import COUNTED, Batch, Kind
from monitor.pipeline import Applier, append, decode, memory, prepare, take, take_lines
from monitor.quarantine import Quarantine
from monitor.spool import Spool, SpoolFull
from tests.storing import embedded, empty, store
from tests.waiting import until

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
APPLYING = Path(__file__).parent / "servers" / "applying.py"


@dataclass
class Road:
    facts: Facts
    keyring: Keyring
    spool: Spool
    ledger: Engine
    folder: Path

    def applier(self, **limits: int) -> Applier:
        return Applier(self.spool, self.facts, self.ledger, self.keyring, quarantine=self.quarantine, **limits)

    @cached_property
    def quarantine(self) -> Quarantine:
        return Quarantine(self.folder / "quarantine", self.keyring)

    def dead(self) -> list[bytes]:
        """What was set aside, the oldest first."""
        return [self.quarantine.open(item.id) for item in reversed(self.quarantine.every())]

    def take(self, batch: Batch, source: str = "log") -> None:
        take(batch, self.spool, self.keyring, source=source, node="n", now=NOON, bounds=None)

    def count(self) -> dict[str, Any]:
        """The totals, if raw, keys and grains agree."""
        told = queries.totals(self.facts)
        assert told["leaf"] == told["minute"] == told["hour"] == told["events"]
        assert told["keys"] == told["rows"]
        return {"rows": told["rows"], **{kind: number for kind, number in told["events"].items() if number}}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Facts, Keyring]]:
    folder = tmp_path_factory.mktemp("data")
    keyring = Keyring.open(folder / "keyring")
    with store(folder / "facts") as facts:
        yield facts, keyring
    keyring.close()


@contextmanager
def fresh(opened: tuple[Facts, Keyring], folder: Path, **limits: int) -> Iterator[Road]:
    """A road on which nothing went: one process may have one directory of facts open, so that one is emptied."""
    facts, keyring = opened
    empty(facts)
    spool, ledger = Spool(folder / "spool", **limits), open_ledger(folder / "ledger.sqlite")
    try:
        yield Road(facts, keyring, spool, ledger, folder)
    finally:
        spool.close()
        ledger.dispose()


@pytest.fixture
def road(opened: tuple[Facts, Keyring], tmp_path: Path) -> Iterator[Road]:
    with fresh(opened, tmp_path) as way:
        yield way


def batch(*numbers: int, kind: Kind = Kind.SENT, at: datetime = NOON, **more: Any) -> Batch:
    """One outcome of each numbered message."""
    columns = {
        "kind": [kind.value] * len(numbers),
        "at": [int(at.timestamp() * 1_000_000)] * len(numbers),
        "message_id": [f"<{number}@shop.example>" for number in numbers],
        "recipient": [f"User{number}@example.net" for number in numbers],
        "tenant": ["t"] * len(numbers),
    }
    return Batch(columns, **more)


# once


def test_events_are_counted_in_raw_and_in_each_grain(road: Road) -> None:
    road.take(batch(1, 2, 3))
    road.take(batch(3, kind=Kind.COMPLAINT))
    applier = road.applier()
    assert applier.drain() == 4
    assert road.count() == {"rows": 4, "sent": 3, "complaint": 1}
    assert (applier.tally.applied, applier.tally.duplicates) == (4, 0)


@st.composite
def tellings(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Batches of outcomes, some told several times; each is always told alike."""
    outcome = st.fixed_dictionaries(
        {
            "kind": st.sampled_from([kind.value for kind in COUNTED]),
            "message": st.integers(0, 3),
            "recipient": st.integers(0, 1),
            "tries": st.integers(0, 2),
        }
    )
    return draw(st.lists(st.lists(outcome, max_size=8), min_size=1, max_size=4))


def told(rows: list[dict[str, Any]]) -> Batch:
    final = [row["kind"] not in {"deferred", "held"} for row in rows]
    days = [row["message"] % 2 + 30 * (row["message"] // 2) for row in rows]  # in two months
    return Batch(
        {
            "kind": [row["kind"] for row in rows],
            "at": [int((NOON + timedelta(days=day)).timestamp() * 1_000_000) for day in days],
            "message_id": [f"m{row['message']}" for row in rows],
            "recipient": [f"r{row['recipient']}@example.com" for row in rows],
            "tries": [0 if once else row["tries"] for once, row in zip(final, rows, strict=True)],
            "tenant": [f"t{row['message']}" for row in rows],
        }
    )


def by_hand(batches: list[list[dict[str, Any]]]) -> dict[str, int]:
    keys = {
        (row["kind"], row["message"], row["recipient"], row["tries"] if row["kind"] in {"deferred", "held"} else 0)
        for rows in batches
        for row in rows
    }
    counted = {kind.value: sum(key[0] == kind for key in keys) for kind in COUNTED}
    return {"rows": len(keys), **{kind: number for kind, number in counted.items() if number}}


@settings(max_examples=12, deadline=None)
@given(batches=tellings(), block=st.integers(1, 20))
def test_appending_twice_is_appending_once(
    opened: tuple[Facts, Keyring],
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[dict[str, Any]]],
    block: int,
) -> None:
    with fresh(opened, tmp_path_factory.mktemp("road")) as road:
        for rows in batches:
            road.take(told(rows))
        road.applier(block_rows=block).drain()
        once = road.count()
        assert once == by_hand(batches)
        for rows in batches:
            road.take(told(rows), source="another road")
        again = road.applier(block_rows=block)
        assert again.drain() == 0
        assert again.tally.duplicates == sum(len(rows) for rows in batches)
        assert road.count() == once


@settings(max_examples=12, deadline=None)
@given(batches=tellings(), order=st.randoms(use_true_random=False), block=st.integers(1, 20))
def test_batches_in_any_order_give_the_same_counts(
    opened: tuple[Facts, Keyring],
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[dict[str, Any]]],
    order: random.Random,
    block: int,
) -> None:
    found = []
    for shuffled in (batches, order.sample(batches, len(batches))):
        with fresh(opened, tmp_path_factory.mktemp("road")) as road:
            for rows in shuffled:
                road.take(told(rows))
            road.applier(block_rows=block).drain()
            counts = queries.counts(road.facts, ("tenant",), NOON, NOON + timedelta(days=40))
            by_tenant = {
                scope.tenant: tuple(int(getattr(counts, kind)[row]) for kind in COUNTED)
                for row, scope in enumerate(counts.scopes)
            }
            found.append((road.count(), by_tenant))
    assert found[0] == found[1]
    assert found[0][0] == by_hand(batches)


def test_a_batch_over_many_months_goes_in_whole(road: Road) -> None:
    for month in range(8):
        road.take(batch(*range(20 * month, 20 * month + 20), at=NOON - timedelta(days=30 * month)))
    days = Batch(
        {
            "kind": ["sent"] * 240,
            "at": [int((NOON - timedelta(days=day)).timestamp() * 1_000_000) for day in range(240)],
            "id": [str(day) for day in range(240)],
        }
    )
    road.take(days)  # more days than the engine takes in one block
    assert road.applier().drain() == 400
    assert road.count() == {"rows": 400, "sent": 400}


# whatever dies


def test_what_a_crash_left_without_its_grains_is_healed(road: Road) -> None:
    """Raw rows in, their sums in one grain not, nothing committed: as a kill between the two leaves it."""
    road.take(batch(1, 2))
    road.applier().drain()
    road.facts.command("RENAME TABLE hour TO whole, hour_series TO whole_series")
    road.facts.command("CREATE TABLE hour AS whole")
    road.facts.command("CREATE TABLE hour_series AS whole_series")
    road.take(batch(2, 3, 4))
    road.take(batch(4, 5))
    road.applier().drain()
    road.facts.command("DROP TABLE hour")
    road.facts.command("DROP TABLE hour_series")
    road.facts.command("RENAME TABLE whole TO hour, whole_series TO hour_series")
    with road.ledger.begin() as conn:
        journal.commit(conn, 1, [])
        journal.plan(conn, 3)
    road.take(batch(5, 6))  # came after the crash: it must not join the batch that is sent again
    assert road.applier().step() == 3
    assert road.count() == {"rows": 5, "sent": 5}
    assert road.applier().drain() == 1
    assert road.count() == {"rows": 6, "sent": 6}


def test_ten_kills_at_any_moment_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    chance = random.Random(1)
    acknowledged = 0
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, str(APPLYING), str(tmp_path), str(acknowledged), "10000000"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        for _ in range(chance.randint(1, 12)):
            acknowledged = int(process.stdout.readline())
        time.sleep(chance.random() * 0.4)  # at any moment of spooling, inserting or committing
        process.kill()
        rest, _ = process.communicate(timeout=30)
        acknowledged = max([acknowledged, *map(int, rest[: rest.rfind("\n") + 1].split())])
    # The last batch may be on disk without a word; the source, which heard none, tells it again.
    final = [[str(acknowledged), str(acknowledged + 500)], ["1", "0"]]
    for first, last in final:
        done = subprocess.run(
            [sys.executable, str(APPLYING), str(tmp_path), first, last],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    found = json.loads(done.stdout)
    events = acknowledged + 500
    numbers = {number - 500 if number % 5 == 0 and number >= 500 else number for number in range(events)}
    assert found["rows"] == found["keys"] == len(numbers)
    expected = dict.fromkeys(COUNTED, 0)
    for number in numbers:
        expected[(Kind.SENT, Kind.DEFERRED, Kind.BOUNCED, Kind.COMPLAINT)[number % 7 % 4]] += 1
    assert found["events"] == found["leaf"] == found["minute"] == found["hour"] == expected
    assert found["cursor"] == {"next": events}


def test_a_spool_that_was_lost_does_not_repeat_its_tokens(opened: tuple[Facts, Keyring], tmp_path: Path) -> None:
    with fresh(opened, tmp_path) as road:
        road.take(batch(1, 2))
        road.applier().drain()
        again = Spool(tmp_path / "another")
        applier = Applier(again, road.facts, road.ledger, road.keyring)
        take(batch(2, 3), again, road.keyring, source="log", node="n", now=NOON, bounds=None)
        assert again.last == 2
        assert applier.drain() == 1
        assert road.count() == {"rows": 3, "sent": 3}
        again.close()


# what can't be applied


def test_a_frame_that_no_release_can_read_goes_to_the_dead_letters_and_the_rest_goes_on(road: Road) -> None:
    road.take(batch(1))
    road.spool.append(b"rubbish")
    road.take(batch(2))
    applier = road.applier()
    assert applier.drain() == 2
    assert applier.tally.dead_letters == 1
    assert road.dead() == [b"rubbish"]
    assert road.count() == {"rows": 2, "sent": 2}


def test_rows_that_the_engine_refuses_for_themselves_go_to_the_dead_letters(road: Road) -> None:
    import pyarrow as pa

    rows, _ = prepare(batch(1, 2), "log", road.keyring, NOON, bounds=None)
    strange = pa.array(["sent", "teleported"]).dictionary_encode()
    append(
        road.spool,
        rows.set_column(rows.schema.get_field_index("kind"), "kind", strange),
        Progress("log", "n", NOON, {"at": 1}),
    )
    append(road.spool, rows, Progress("log", "n", NOON, {"at": 2}))
    applier = road.applier(block_rows=1)
    assert applier.drain() == 2  # the second frame tells the first row again, and it counts
    assert applier.tally.dead_letters == 1
    (dead,) = road.dead()
    assert applier.rows(dead)["kind"].to_pylist() == ["sent", "teleported"]
    assert memory(road.spool, road.ledger, "log", "n").cursor == {"at": 2}


def test_lines_that_can_not_be_taken_apart_are_set_aside_and_stop_nobody(road: Road) -> None:
    """However they came there: a mistake of ours must not stop what comes after."""
    good = b'{"kind":"sent","at":"2026-11-24T11:00:00Z","message_id":"<%d@shop.example>"}\n'
    for lines, number in ((good % 1, 1), (b"rubbish\n", 1), (good % 2, 2), (good % 3, 1)):
        checked = Checked(lines, number, NOON)
        take_lines(checked, road.spool, road.keyring, source="http", node="n", now=NOON)
    assert road.applier().drain() == 2
    assert road.count() == {"rows": 2, "sent": 2}
    assert [item.where for item in reversed(road.quarantine.every())] == ["frame 2", "frame 3"]


@embedded
def test_want_of_memory_is_no_reason_to_give_rows_up(road: Road) -> None:
    road.take(batch(*range(5000)))
    starved = road.facts._writer
    assert starved
    starved.set_client_setting("max_memory_usage", 1_000_000)
    applier = road.applier()
    assert applier.drain() == 5000
    assert road.facts._writer is not starved  # it refused, and was thrown away
    assert applier.tally.dead_letters == 0
    assert road.count() == {"rows": 5000, "sent": 5000}


def filled(road: Road) -> int:
    for taken in count():
        try:
            road.take(batch(taken))
        except SpoolFull:
            return taken
    raise AssertionError


def test_a_full_spool_refuses_and_takes_again_once_it_was_applied(
    opened: tuple[Facts, Keyring], tmp_path: Path
) -> None:
    with fresh(opened, tmp_path, max_bytes=100_000) as road:
        taken = filled(road)
        assert taken > 3
        road.applier().drain()
        road.take(batch(taken))
        road.applier().drain()
        assert road.count()["rows"] == taken + 1


# where sources stand


def test_a_source_goes_on_from_what_is_on_disk_even_if_it_is_not_applied(road: Road) -> None:
    assert memory(road.spool, road.ledger, "log", "n").cursor == {}
    road.take(batch(1, cursor={"offset": 1}, remember={"a": 1, "b": 2}))
    road.applier().drain()
    road.take(batch(2, cursor={"offset": 2}, remember={"b": None, "c": 3}))
    road.take(batch(3, cursor={"offset": 9}), source="other")
    for _ in range(2):
        stands = memory(road.spool, road.ledger, "log", "n")
        assert (stands.cursor, stands.remembers) == ({"offset": 2}, {"a": 1, "c": 3})
        assert memory(road.spool, road.ledger, "log", "elsewhere").cursor == {}
        road.applier().drain()


def test_a_batch_without_rows_moves_its_source_on(road: Road) -> None:
    road.take(Batch({}, cursor={"offset": 5}, watermark=NOON))
    assert road.applier().drain() == 0
    with road.ledger.connect() as conn:
        assert journal.watermarks(conn) == {("log", "n"): (NOON, NOON)}
        assert journal.position(conn) == (1, 1)
    assert memory(road.spool, road.ledger, "log", "n").cursor == {"offset": 5}


def test_a_long_batch_becomes_frames_of_which_the_last_moves_the_source(road: Road) -> None:
    rows, _ = prepare(batch(*range(120_000)), "log", road.keyring, NOON, bounds=None)
    assert append(road.spool, rows, Progress("log", "n", NOON, {"offset": 7})) == 3
    frames = [decode(payload) for _, payload in road.spool.read(0)]
    assert [(frame.count, frame.progress and frame.progress.cursor) for frame in frames] == [
        (50_000, None),
        (50_000, None),
        (20_000, {"offset": 7}),
    ]
    applier = road.applier()
    assert applier.step() == 100_000
    with road.ledger.connect() as conn:
        assert journal.cursor(conn, "log", "n") == {}
    assert applier.step() == 20_000
    with road.ledger.connect() as conn:
        assert journal.cursor(conn, "log", "n") == {"offset": 7}


def test_the_applier_applies_what_comes_until_it_is_stopped(road: Road) -> None:
    stop = threading.Event()
    applier = road.applier()
    thread = threading.Thread(target=applier.run, args=(stop,))
    thread.start()
    try:
        for number in range(5):
            road.take(batch(number))
        until(lambda: applier.tally.applied == 5, "five events to be applied", 30)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert road.count() == {"rows": 5, "sent": 5}


# people


def test_no_address_is_in_any_byte_on_disk(road: Road) -> None:
    person = "verysecretperson"
    told = Batch(
        {
            "kind": ["bounced", "opened"], "at": [int(NOON.timestamp() * 1_000_000)] * 2,
            "recipient": [f"{person}@example.com"] * 2, "message_id": [f"<1.{person}@shop.example>"] * 2,
            "reply": [f"550 <{person}@example.com> unknown"] * 2, "relay": [f"{person}%40mx.example"] * 2,
            "dsn": [f"5.1.1 {person}@x"] * 2,
        }
    )  # fmt: skip
    road.take(told)
    road.spool.append(b"rubbish")
    plain = (
        b"".join(payload for _, payload in road.spool.read(0)) + str(decode(next(road.spool.read(0))[1]).rows).encode()
    )
    assert person.encode() not in plain
    road.applier().drain()
    stored = str(road.facts.query("SELECT * FROM events").to_pylist())
    assert "…@example.com" in stored
    assert person not in stored
    kept = Path(road.facts.place.path).rglob("*") if isinstance(road.facts.place, Embedded) else ()
    for path in [*road.folder.rglob("*"), *kept]:
        if path.is_file():
            assert person.encode() not in path.read_bytes(), path
