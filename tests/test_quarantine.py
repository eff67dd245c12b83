"""The quarantine: what could not be read is kept once, encrypted, for a while, and can be read again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from collectors.nats import Nats
from collectors.sendlog import Sendlog
from monitor import floods, triage
from monitor.facts import queries
from monitor.keyring import Keyring
from monitor.ledger import access_log
from monitor.ledger.db import open_ledger
from monitor.model import Batch, Rejected
from monitor.pipeline import encode, prepare
from monitor.quarantine import APPLIER, FRAME, Damaged, Gone, Quarantine, Trouble
from monitor.stores import Stores
from tests.servers import hoarding
from tests.servers.brokers import body, line, nats_case
from tests.servers.mailvane import Mailvane, mailvane, program
from tests.servers.natsserver import nats_server
from tests.waiting import until

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PLANTED = "planted.person@example.org"
EVER = (NOON - 365 * DAY, NOON + 365 * DAY)


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    with closing(Keyring.open(tmp_path_factory.mktemp("keys") / "keyring")) as ring:
        yield ring


@pytest.fixture
def kept(keyring: Keyring, tmp_path: Path) -> Quarantine:
    return Quarantine(tmp_path / "quarantine", keyring)


def put(kept: Quarantine, raw: bytes, at: datetime = NOON, source: str = "mq", **more: str) -> str:
    told = {"kind": "message", "where": "mail message 7", "why": "message: no JSON", **more}
    return kept.put(raw, source=source, at=at, **told)


def lines(*texts: str, why: str = "no log line") -> list[Rejected]:
    return [Rejected(why, "mail.log", raw=text.encode()) for text in texts]


def again(kept: Quarantine, keyring: Keyring) -> Quarantine:
    """The same as the next process opens it."""
    return Quarantine(kept._folder, keyring, kept.keep, kept.limit)


# what is kept


def test_an_item_is_what_was_put_and_outlives_the_process(kept: Quarantine, keyring: Keyring):
    name = put(kept, b"\x00\xffrubbish")
    for one in (kept, again(kept, keyring)):
        (item,) = one.every()
        assert (item.id, item.at, item.source, item.kind) == (name, NOON, "mq", "message")
        assert (item.where, item.why, item.count, item.damaged) == ("mail message 7", "message: no JSON", 1, "")
        assert one.open(name) == b"\x00\xffrubbish"


def test_the_same_bytes_of_the_same_source_are_kept_once(kept: Quarantine, keyring: Keyring):
    name = put(kept, b"rubbish")
    assert put(kept, b"rubbish", NOON + DAY) == name
    assert put(again(kept, keyring), b"rubbish", NOON + DAY) == name
    assert put(kept, b"rubbish", source="other") != name
    kept.drop(name)
    assert put(kept, b"rubbish") not in ("", name)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=8))
def test_each_thing_is_kept_once_however_batches_are_cut(keyring, tmp_path_factory, batches):
    kept = Quarantine(tmp_path_factory.mktemp("q"), keyring)
    for batch in batches:
        kept.take(lines(*(f"line {number}" for number in batch)), "log", NOON)
    found = [thing.raw for item in kept.every() for thing in kept.things(item.id)]
    assert sorted(found) == sorted({f"line {number}".encode() for batch in batches for number in batch})
    assert kept.stand().things == len(found)


def test_things_of_a_batch_that_are_wrong_in_the_same_way_are_one_item(kept: Quarantine):
    kept.take([*lines("a", "b"), *lines("c", why="unknown status")], "log", NOON)
    assert sorted((item.why, item.count) for item in kept.every()) == [("no log line", 2), ("unknown status", 1)]
    (two,) = (item for item in kept.every() if item.count == 2)
    assert kept.open(two.id) == b"a\nb\n"
    assert len(list(kept._folder.iterdir())) == 2


def test_what_its_source_will_give_again_is_not_kept(kept: Quarantine):
    kept.take([Rejected("kind: unknown", "row 1")], "log", NOON)
    assert kept.every() == []
    assert not kept._folder.exists()


def test_nothing_of_an_item_is_plain_on_disk_and_only_its_owner_may_read_it(kept: Quarantine):
    put(kept, f"to=<{PLANTED}>".encode(), where=f"mail {PLANTED}", why=f"no {PLANTED}", source="the-source")
    (path,) = kept._folder.iterdir()
    content = path.read_bytes()
    for text in ("planted", "example.org", "to=<", "the-source", "message"):
        assert text.encode() not in content
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (item,) = kept.every()
    assert PLANTED not in repr(item)
    assert PLANTED not in repr(kept.things(item.id))


# what goes


def test_an_item_goes_when_its_time_is_over(kept: Quarantine, keyring: Keyring):
    old, new = put(kept, b"old"), put(kept, b"new", NOON + DAY)
    assert kept.expire(NOON + kept.keep) == 0
    assert kept.expire(NOON + kept.keep + timedelta(seconds=1)) == 1
    assert [item.id for item in again(kept, keyring).every()] == [new]
    assert kept.dropped == {"expired": 1}
    with pytest.raises(Gone):
        kept.open(old)


def test_the_oldest_go_when_it_is_full(keyring: Keyring, tmp_path: Path):
    kept = Quarantine(tmp_path, keyring, limit=1 << 20)
    names = [put(kept, bytes([number]) * 200_000, NOON + number * DAY) for number in range(8)]
    assert [item.id for item in reversed(kept.every())] == names[-5:]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == kept.stand().bytes <= kept.limit
    assert kept.dropped == {"full": 3}
    assert kept.stand().oldest == NOON + 3 * DAY


def test_one_that_is_too_large_is_refused_and_counted(keyring: Keyring, tmp_path: Path):
    kept = Quarantine(tmp_path, keyring, limit=1 << 20)
    assert put(kept, bytes(300_000)) == ""
    assert kept.dropped == {"too large": 1}
    assert kept.every() == []


def test_a_flood_fills_its_hour_and_takes_no_place_of_others(kept: Quarantine, keyring: Keyring):
    flood = [f"rubbish {number}" for number in range(3 * floods.THINGS)]
    for start in range(0, len(flood), 2000):
        kept.take(lines(*flood[start : start + 2000]), "log", NOON)
    stand = kept.stand()
    assert stand.things == floods.THINGS
    assert stand.items <= floods.ITEMS
    assert kept.dropped == {"flood": 2 * floods.THINGS}
    later = again(kept, keyring)  # who starts anew does not begin to count anew
    assert put(later, b"more", source="log") == ""
    assert put(later, b"more", source="other")
    assert put(later, b"more", NOON + timedelta(hours=1), source="log")


# what was changed


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_changed_byte_is_told_and_nothing_is_served(keyring, tmp_path_factory, place, change):
    kept = Quarantine(tmp_path_factory.mktemp("q"), keyring)
    name = put(kept, b"rubbish")
    path = kept._folder / name
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(content)
    for one in (kept, again(kept, keyring)):
        with pytest.raises(Damaged, match="can't be opened"):
            one.open(name)
        assert one.item(name).id == name


def test_a_damaged_item_is_listed_and_can_be_dropped_and_grows_old(kept: Quarantine, keyring: Keyring):
    first, second = put(kept, b"first"), put(kept, b"second")
    for name in (first, second):
        (kept._folder / name).write_bytes(b"mvq1 something else")
    one = again(kept, keyring)
    assert all("can't be opened" in item.damaged for item in one.every())
    one.drop(first)
    assert one.expire(datetime.now(UTC) + one.keep + DAY) == 1
    assert list(one._folder.iterdir()) == []


def test_an_item_can_not_be_put_together_of_others_or_renamed(kept: Quarantine, keyring: Keyring):
    first, second = put(kept, b"first"), put(kept, b"other")
    whole, other = ((kept._folder / name).read_bytes() for name in (first, second))
    assert len(whole) == len(other)
    end = -(len(b"first") + 70)
    (kept._folder / first).write_bytes(whole[:end] + other[end:])
    (kept._folder / second).rename(kept._folder / ("0" * 20))
    one = again(kept, keyring)
    with pytest.raises(Damaged):
        one.open(first)
    assert "renamed" in one.item("0" * 20).damaged


def test_another_keyring_opens_nothing(kept: Quarantine, tmp_path: Path):
    put(kept, b"rubbish")
    with closing(Keyring.open(tmp_path / "other")) as other:
        (item,) = again(kept, other).every()
    assert "another keyring" in item.damaged


def test_kills_leave_no_half_item(tmp_path: Path):
    chance, told = random.Random(20261124), -1
    for _ in range(4):
        words = [sys.executable, "-m", "tests.servers.hoarding", str(tmp_path), str(told + 1)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(chance.randint(5, 60)):
                told = int(process.stdout.readline())
            process.kill()
            told = max([told, *map(int, process.stdout.read().split())])
    with closing(Keyring.open(tmp_path / "keyring")) as ring:
        kept = Quarantine(tmp_path / "quarantine", ring)
        found = [kept.open(item.id) for item in reversed(kept.every())]
    assert found[: told + 1] == [hoarding.content(number) for number in range(told + 1)]
    assert len(found) <= told + 2
    assert {path.name for path in (tmp_path / "quarantine").iterdir()} == {item.id for item in kept.every()}


# what collectors set aside

STAMP = "2026-11-24T11:00:00.5+00:00 mx1"
GOOD = f"{STAMP} postfix/smtp[7]: 4f1xyzXYZzq: to=<jo@example.com>, relay=a.b[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)"
ODD = {
    "no log line": b"what is this <%b>" % PLANTED.encode(),
    "no log line ": b"not \xff\xfe utf-8",
    "unknown status": GOOD.replace("=sent", "=eaten").encode(),
    "incomplete": GOOD.partition(", relay")[0].encode(),
    "no time": GOOD.replace("2026-11-24", "2026-13-41").encode(),
}


def test_each_log_line_that_is_refused_is_set_aside_whole():
    log = b"\n".join([line for odd in ODD.values() for line in (GOOD.encode(), odd)]) + b"\n"
    batch = Sendlog(path=Path("mail.log")).parser(NOON).feed(log.replace(b"\n", b"\r\n"))
    assert len(batch) == len(ODD)
    assert [item.raw for item in batch.rejected] == list(ODD.values())


@given(st.lists(st.binary(max_size=40).filter(lambda text: b"\n" not in text), max_size=20))
def test_what_is_set_aside_of_a_log_are_lines_of_it(texts):
    log = b"\n".join(texts) + b"\n"
    batch = Sendlog(path=Path("mail.log")).parser(NOON).feed(log)
    found = [item.raw for item in batch.rejected]
    assert all(found)
    rest = iter(texts)
    assert all(any(raw == text.rstrip(b"\r") for text in rest) for raw in found)  # in their order


def test_messages_and_lines_of_brokers_are_set_aside_as_they_came():
    from collectors._bodies import Bodies

    packed, bad = b"\x1f\x8b\x08 torn", b'{"kind": "eaten"}'
    bodies = Bodies()
    for place, content in enumerate((packed, line(1) + b"\n" + bad, bad + b"\n" + bad), 1):
        bodies.add(f"m{place}", content)
    rejected = bodies.batch().rejected
    assert [(item.kind, item.raw) for item in rejected] == [
        ("message", packed),
        ("line", bad),
        ("message", bad + b"\n" + bad),
    ]
    assert bodies.size > len(packed)  # what is held counts, or a flood of such messages would have no bound


# reading again


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with closing(Stores(tmp_path_factory.mktemp("data"))) as opened:
        yield opened


@pytest.fixture
def desk(stores: Stores) -> triage.Desk:
    return triage.Desk(stores, {"log": Sendlog(path=Path("mail.log")), "mq": Nats(stream="mail")})


def rows(stores: Stores) -> int:
    stores.applier.drain()
    return int(queries.totals(stores.facts)["rows"])


def noted(stores: Stores) -> list[tuple[str, str, str]]:
    with stores.ledger.connect().execution_options(reads=True) as conn:
        return [(one.who, one.did, one.result) for one in access_log.newest(conn, 5, did="quarantine")]


def test_what_can_be_read_now_counts_once_and_is_gone(stores: Stores, desk: triage.Desk):
    before = rows(stores)
    for _ in range(2):  # told twice, in two ways
        name = put(stores.quarantine, body([1, 2], NOON))
        stores.quarantine.take(lines(GOOD), "log", NOON)
        (log,) = (item.id for item in stores.quarantine.every() if item.source == "log")
        assert desk.retry(name, "key:k1", NOON, EVER) == triage.Outcome(name, 2, 0)
        assert desk.retry(log, "key:k1", NOON, EVER) == triage.Outcome(log, 1, 0)
        assert stores.quarantine.every() == []
    assert rows(stores) == before + 3
    assert noted(stores)[0] == ("key:k1", "quarantine retried", "done")


def test_what_is_still_no_good_stays_with_its_new_reason(stores: Stores, desk: triage.Desk):
    things = [*lines(line(11, NOON).decode(), "rubbish", line(12, NOON - 400 * DAY).decode(), why="line: odd")]
    before = rows(stores)
    stores.quarantine.take(things, "mq", NOON)
    (item,) = stores.quarantine.every()
    done = desk.retry(item.id, "machine", NOON, EVER)
    assert (done.taken, done.left) == (1, 2)
    left = stores.quarantine.things(item.id)
    assert [(thing.raw, thing.where) for thing in left] == [(thing.raw, "mail.log") for thing in things[1:]]
    assert "no JSON" in left[0].why
    assert "old" in left[1].why or "time" in left[1].why
    assert stores.quarantine.item(item.id).count == 2
    assert desk.retry(item.id, "machine", NOON, EVER).taken == 0
    assert rows(stores) == before + 1
    desk.drop(item.id, "machine", NOON)
    assert noted(stores)[0] == ("machine", "quarantine dropped", "done")


def test_what_the_store_refused_is_read_again_and_the_source_stays_where_it_stands(stores: Stores, desk: triage.Desk):
    before = rows(stores)
    batch = Batch({"kind": ["sent"], "at": [int(NOON.timestamp() * 1e6)], "message_id": ["<dead@shop.example>"]})
    table, _ = prepare(batch, "log", stores.keyring, NOON, bounds=None)
    for payload, taken in ((encode(table, None), 1), (b"rubbish", 0)):
        name = stores.quarantine.put(payload, source=APPLIER, kind=FRAME, where="frame 2", why="refused")
        done = desk.retry(name, "machine", NOON, EVER)
        assert (done.taken, done.left) == (taken, 1 - taken)
    assert rows(stores) == before + 1
    desk.drop(name, "machine", NOON)


def test_a_source_that_is_gone_reads_nothing_and_that_is_noted(stores: Stores, desk: triage.Desk):
    name = put(stores.quarantine, b"rubbish", source="gone")
    with pytest.raises(Trouble, match="gone is no collector"):
        desk.retry(name, "machine", NOON, EVER)
    assert "no collector" in noted(stores)[0][2]
    desk.drop(name, "machine", NOON)


def test_a_read_is_noted_and_shows_no_address_unless_asked(stores: Stores, desk: triage.Desk):
    name = put(stores.quarantine, f"to {PLANTED}".encode())
    told = json.dumps(triage.shown(*desk.read(name, "person:ann", NOON, raw=False)))
    assert PLANTED not in told
    assert "example.org" in told
    assert desk.read(name, "person:ann", NOON, raw=True)[1][0].raw == f"to {PLANTED}".encode()
    with stores.ledger.connect().execution_options(reads=True) as conn:
        found = access_log.newest(conn, 2, did="quarantine read")
    assert [(one.who, one.on, one.details["how"]) for one in found] == [
        ("person:ann", name, "raw"),
        ("person:ann", name, "scrubbed"),
    ]
    desk.drop(name, "person:ann", NOON)


def test_pages_show_each_item_once_though_some_go_meanwhile(kept: Quarantine):
    names = [put(kept, b"%d" % number, NOON + timedelta(seconds=number // 3)) for number in range(20)]
    seen, after = [], ""
    while True:
        items, after = triage.page(kept, limit=6, after=after)
        seen += [item.id for item in items]
        kept.drop(seen[-1])
        if not after:
            break
    assert len(seen) == 20
    assert set(seen) == set(names)
    assert triage.page(kept, since=NOON + timedelta(seconds=6), limit=50)[0]
    assert triage.page(kept, source="other") == ([], "")


# the whole


def planted(folder: Path) -> list[Path]:
    """The files that hold the planted person's name, as it is."""
    return [path for path in folder.rglob("*") if path.is_file() and b"planted.person" in path.read_bytes()]


def listed(service: Mailvane) -> list[dict[str, Any]]:
    return list(json.loads(service.command("quarantine", "list", "--json")))


def test_an_unreadable_message_is_kept_shown_and_read_again_while_the_service_runs_and_when_it_is_down(tmp_path: Path):
    at = datetime.now(UTC) - timedelta(minutes=5)
    with nats_server(tmp_path / "nats") as server:
        case = nats_case(server)
        with mailvane(tmp_path, case.table("mq")) as service:
            case.publish([f"rubbish of {PLANTED}".encode()])
            case.publish([body([1, 2], at)], "gzip")  # it is none, whatever its header says
            until(lambda: len(service.get("/v1/rejected")["rejected"]) == 2, "both to be in quarantine")
            until(lambda: case.unsettled() == 0, "NATS to forget them")
            (tmp_path / "control").write_text(PLANTED)
            assert planted(tmp_path / "data") == []
            assert planted(tmp_path) == [tmp_path / "control", *planted(tmp_path / "nats")]

            items = listed(service)
            assert sum(item["count"] for item in items) == 2
            told = "".join(service.command("quarantine", "show", item["id"]) for item in items)
            assert "…@example.org" in told
            assert "planted" not in told
            raw = "".join(service.command("quarantine", "show", "--raw", item["id"]) for item in items)
            assert f"rubbish of {PLANTED}" in raw

            done = again_all(service)
            assert done.returncode == 1, done.stderr
            assert "2 facts taken" in done.stdout
            until(lambda: service.get("/v1/facts")["rows"] == 2, "both facts")
            (left,) = listed(service)
            assert (left["count"], left["source"]) == (1, "mq")
            metrics = scraped(service)
            assert metrics["mailvane_quarantine_items"] == metrics["mailvane_quarantine_things"] == 1
            assert 0 < metrics["mailvane_quarantine_oldest_seconds"] < 600
            assert metrics['mailvane_quarantine_dropped_total{reason="flood"}'] == 0
            assert service.get("/readyz")["status"] == "ready"
            assert "planted" not in json.dumps(service.get("/v1/rejected"))
        assert listed(service) == [left]
        assert "…@example.org" in service.command("quarantine", "show", left["id"])
        assert again_all(service).returncode == 1
        assert service.command("quarantine", "drop", "--all", "--yes") == "1 removed\n"
        assert not list((tmp_path / "data" / "quarantine").iterdir())
        assert planted(tmp_path / "data") == []
        with closing_engine(tmp_path / "data" / "ledger.sqlite") as conn:
            noted = access_log.newest(conn, 100, did="quarantine")
    who = {one.who.partition(":")[0] for one in noted}
    assert who == {"machine", "cli"}
    assert [one.did for one in noted][:3] == ["quarantine dropped", "quarantine retried", "quarantine read"]


def again_all(service: Mailvane) -> subprocess.CompletedProcess[str]:
    words = [*program(), "--config", str(service.config), "quarantine", "retry", "--all"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def scraped(service: Mailvane) -> dict[str, float]:
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=10) as answer:
        told = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (text.rpartition(" ") for text in told if text[:1] != "#")}


@contextmanager
def closing_engine(path: Path) -> Iterator[Connection]:
    engine = open_ledger(path, reads=True)
    with engine.connect().execution_options(reads=True) as conn:
        yield conn
    engine.dispose()
