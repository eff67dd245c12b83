"""Reports that come before their messages are known: they wait, and count once, whatever dies meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from monitor.attribution import FIRST, Attributor
from monitor.facts.errors import FactsError
from monitor.facts.raw import history
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger import unplaced
from monitor.ledger.db import open_ledger
from monitor.ledger.unplaced import Waiting
from monitor.model import Batch, Clues, Kind
from monitor.pipeline import Applier, memory, take
from monitor.settings import Attribution
from monitor.spool import Spool
from monitor.tracekeys import KeyFile
from tests.storing import embedded, empty, store

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AT = int(NOW.timestamp()) * 1_000_000
WAIT = timedelta(minutes=30)
PLACING = Path(__file__).parent / "servers" / "placing.py"


class House:
    """Facts, ledger and spool, and an attributor that can be begun anew as after a crash."""

    def __init__(self, facts: Facts, keyring: Keyring, folder: Path) -> None:
        self.facts, self.keyring, self.folder = facts, keyring, folder
        self.spool, self.ledger = Spool(folder / "spool"), open_ledger(folder / "ledger.sqlite")
        self.attributor = self.begun()

    def begun(self, facts=None, **settings) -> Attributor:
        keys = KeyFile(self.folder / "trace.keys")
        self.attributor = Attributor(facts or self.facts, self.ledger, self.keyring, Attribution(**settings), keys)
        return self.attributor

    def report(self, number: int = 1, now: datetime = NOW) -> Batch:
        found = self.attributor.place("inbox", report(number), now)
        self.put(found, "inbox")
        return found

    def put(self, batch: Batch, source: str, *, moves: bool = True) -> None:
        take(batch, self.spool, self.keyring, source=source, node="n", now=NOW, bounds=None, moves=moves)

    def tell(self, number: int = 1) -> None:
        """Of the message, as the log does, and applied."""
        row = {"kind": "sent", "at": AT, "recipient": person(number), "message_id": message(number), "tenant": "s07"}
        self.put(Batch({name: [value] for name, value in row.items()}), "log")
        self.apply()

    def turn(self, now: datetime) -> None:
        """Try what waits, and hand over what is decided."""
        self.attributor.retry(now)
        for source, batch, names in self.attributor.decided():
            self.put(batch, source, moves=False)
            self.attributor.handed(names)

    def apply(self) -> None:
        Applier(self.spool, self.facts, self.ledger, self.keyring).drain()

    def kinds(self, number: int = 1) -> list[tuple[str, str]]:
        self.apply()
        span = NOW - timedelta(days=1), NOW + timedelta(days=1)
        told = history(self.facts, *span, recipient=self.keyring.pseudonym(person(number)))
        return sorted((event.kind.value, event.scope.tenant) for event in told if event.kind is not Kind.SENT)

    @property
    def waiting(self) -> int:
        with self.ledger.connect() as conn:
            count = unplaced.waiting(conn)
        assert self.attributor.tally.waiting == count
        return count


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Facts, Keyring]]:
    folder = tmp_path_factory.mktemp("data")
    keyring = Keyring.open(folder / "keyring")
    with store(folder / "facts") as facts:
        yield facts, keyring
    keyring.close()


@pytest.fixture
def house(opened, tmp_path) -> Iterator[House]:
    empty(opened[0])
    made = House(*opened, tmp_path)
    yield made
    made.ledger.dispose()
    made.spool.close()


def person(number: int) -> str:
    return f"user{number}@example.net"


def message(number: int) -> str:
    return f"{number}@shop.example"


def report(number: int = 1) -> Batch:
    row = {"kind": "bounced", "at": AT, "recipient": person(number), "message_id": message(number)}
    clues = Clues(message_id=message(number))
    return Batch({name: [value] for name, value in row.items()}, {"uid": number}, clues=[clues])


def test_a_report_waits_until_its_message_is_known(house):
    assert len(house.report()) == 0
    assert house.waiting == 1
    house.turn(NOW + FIRST)
    assert house.kinds() == []

    house.tell()
    house.turn(NOW + timedelta(minutes=1))
    assert house.waiting == 0
    assert house.kinds() == [("returned", "s07")]
    assert house.attributor.tally.attributed == {("inbox", "message_id"): 1}


def test_a_report_whose_message_stays_unknown_goes_on_without_a_seller(house):
    house.report()
    house.turn(NOW + WAIT - timedelta(seconds=1))
    assert house.kinds() == []
    house.turn(NOW + WAIT + timedelta(minutes=5))
    assert house.kinds() == [("unverified_bounce", "")]
    assert house.attributor.tally.unattributed == {("inbox", "unknown message"): 1}
    assert house.waiting == 0


def test_what_waits_is_tried_less_and_less_often(house):
    house.report()
    tried, now = [], NOW
    while now < NOW + WAIT:
        with house.ledger.connect() as conn:
            due = unplaced.due(conn, now, 10)
        if due:
            tried.append(now)
            house.attributor.retry(now)
        now += timedelta(seconds=1)
    gaps = [(after - before).total_seconds() for before, after in pairwise(tried)]
    assert gaps[:4] == [4, 8, 16, 32]
    assert max(gaps) == 300


def test_what_goes_on_says_nothing_of_where_its_source_stands(house):
    house.report()
    house.tell()
    house.turn(NOW + WAIT)
    house.apply()
    assert memory(house.spool, house.ledger, "inbox", "n").cursor == {"uid": 1}


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_a_crash_before_it_is_told_that_it_was_spooled_counts_nothing_twice(house, known):
    house.report()
    if known:
        house.tell()
    house.attributor.retry(NOW + timedelta(hours=1))
    for source, batch, _ in house.attributor.decided():
        house.put(batch, source, moves=False)  # and here it dies
    house.apply()
    house.tell()  # what is known now changes nothing that was decided
    house.begun()
    house.turn(NOW + timedelta(hours=2))
    assert house.kinds() == ([("returned", "s07")] if known else [("unverified_bounce", "")])
    assert house.waiting == 0


def test_a_source_that_tells_a_report_again_adds_nothing(house):
    house.report()
    assert len(house.report()) == 0
    assert house.waiting == 1
    house.turn(NOW + timedelta(hours=1))
    house.tell()
    assert len(house.report(now=NOW + timedelta(hours=2))) == 0  # it counts for what it was taken for
    assert house.kinds() == [("unverified_bounce", "")]

    house.attributor.expire(NOW + timedelta(days=3))
    assert len(house.report(now=NOW + timedelta(days=3))) == 1


def test_only_so_many_wait_and_the_others_go_on(house):
    house.begun(waiting=2)
    for number in range(4):
        house.report(number)
    assert house.waiting == 2
    assert [house.kinds(number) for number in range(4)] == [[], [], *[[("unverified_bounce", "")]] * 2]
    assert house.attributor.tally.unattributed == {("inbox", "too many wait"): 2}


def test_who_came_just_now_is_tried_before_the_many_that_were_tried_in_vain(house):
    flood = [Waiting(bytes([number]) * 16, "inbox", NOW - WAIT, b"x", NOW - WAIT) for number in range(20)]
    with house.ledger.begin() as conn:
        unplaced.put(conn, flood)
        unplaced.later(conn, dict.fromkeys((one.id for one in flood), NOW - WAIT))
        unplaced.put(conn, [Waiting(b"new" * 5, "inbox", NOW, b"x", NOW)])
    with house.ledger.connect() as conn:
        assert [one.id for one in unplaced.due(conn, NOW, 1)] == [b"new" * 5]


def test_no_address_rests_in_the_ledger(house):
    house.report()
    house.attributor.retry(NOW + timedelta(minutes=1))
    house.ledger.dispose()
    content = b"".join(path.read_bytes() for path in house.folder.glob("ledger.sqlite*"))
    assert b"unplaced" in content
    assert b"user1" not in content
    assert b"shop.example" not in content


def test_while_the_facts_can_not_be_asked_nothing_is_given_up(house):
    class Down:
        def query(self, sql, **parameters):
            raise FactsError("no memory", code=241, passing=True)

    house.begun(Down())
    assert len(house.report()) == 0
    house.turn(NOW + timedelta(hours=1))
    assert house.waiting == 1
    house.begun()
    house.tell()
    house.turn(NOW + timedelta(hours=2))
    assert house.kinds() == [("returned", "s07")]


def test_what_another_keyring_sealed_is_let_go(house):
    stranger = Waiting(b"x" * 16, "inbox", NOW, b"sealed elsewhere", NOW)
    with house.ledger.begin() as conn:
        unplaced.put(conn, [stranger])
    house.report()
    house.tell()
    house.turn(NOW + timedelta(minutes=1))
    assert house.kinds() == [("returned", "s07")]
    assert house.waiting == 0


@embedded
def test_kill_9_loses_no_report_and_counts_none_twice(tmp_path):
    count = 200
    for word in ("waits", "spooled"):
        child = subprocess.Popen([sys.executable, PLACING, tmp_path, str(count)], stdout=subprocess.PIPE, text=True)
        try:
            for line in child.stdout:
                if line.strip() == word:
                    break
        finally:
            child.kill()
            child.communicate(timeout=60)
    ended = subprocess.run(
        [sys.executable, PLACING, tmp_path, "0"], stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found == {"sent s07": count // 2, "returned s07": count // 2, "unverified_bounce": count // 2, "waiting": 0}
