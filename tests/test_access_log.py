"""The access log: who read or changed what, with its result, and what of the configuration changed."""

from __future__ import annotations

import json
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from monitor import configured
from monitor.access import keys, noting
from monitor.access.noting import Notes, Use
from monitor.caller import Right
from monitor.config import parse
from monitor.ledger import access_log, audit
from monitor.ledger.access_log import Entry
from monitor.ledger.db import open_ledger
from monitor.settings import Settings
from tests.builders import NOW, minutes
from tests.servers.mailvane import Mailvane, mailvane
from tests.waiting import until


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Engine]:
    engine = open_ledger(path)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notes(ledger: Engine, clock: Clock) -> Notes:
    return Notes(ledger, clock)


def entries(ledger: Engine, **which: Any) -> list[Entry]:
    with ledger.connect().execution_options(reads=True) as conn:
        return access_log.newest(conn, 100, **which)[::-1]


def told(ledger: Engine) -> list[tuple[str, str, str, str, int]]:
    return [(one.who, one.did, one.on, one.result, one.details.get("times", 1)) for one in entries(ledger)]


# notes


def test_the_first_use_of_an_hour_is_written_at_once_and_the_count_when_the_hour_is_over(
    ledger: Engine, notes: Notes, clock: Clock
):
    for _ in range(5):
        notes.note("key:a", "GET /v1/series", "", "200")
    notes.flush()
    assert told(ledger) == [("key:a", "GET /v1/series", "", "200", 1)]
    clock.now += minutes(59)
    notes.note("key:a", "GET /v1/series", "", "200")
    notes.flush()
    assert len(told(ledger)) == 1
    clock.now += minutes(1)
    notes.flush()
    assert told(ledger)[1:] == [("key:a", "GET /v1/series", "", "200", 6)]
    assert entries(ledger)[1].details["since"] == NOW.isoformat()


def test_other_callers_things_and_results_are_told_apart(ledger: Engine, notes: Notes):
    for who, on, result in (("key:a", "", "200"), ("key:b", "", "200"), ("key:a", "x", "200"), ("key:a", "", "403")):
        notes.note(who, "GET /v1/series", on, result)
    notes.flush()
    assert len(told(ledger)) == 4


def test_a_use_that_happened_once_is_one_entry(ledger: Engine, notes: Notes, clock: Clock):
    notes.note("key:a", "GET /v1/series", "", "200")
    notes.flush()
    clock.now += minutes(61)
    notes.flush()
    assert len(told(ledger)) == 1


def test_what_goes_on_is_counted_at_the_end(ledger: Engine, notes: Notes):
    for _ in range(3):
        notes.note("key:a", "GET /v1/series", "", "200")
    notes.flush(ending=True)
    assert [one[-1] for one in told(ledger)] == [1, 3]
    notes.flush(ending=True)
    assert len(told(ledger)) == 2


def test_a_clock_that_was_set_back_ends_the_hour(ledger: Engine, notes: Notes, clock: Clock):
    notes.note("key:a", "GET /v1/series", "", "200")
    notes.note("key:a", "GET /v1/series", "", "200")
    clock.now -= timedelta(days=300)
    notes.flush()
    assert [one[-1] for one in told(ledger)] == [1, 2]


def test_what_changes_something_is_an_entry_each_and_a_refusal_is_not(ledger: Engine, notes: Notes):
    for result in ("200", "200", "401", "401", "429", "500"):
        notes.use(Use("key:a", "POST /v1/actions", "", result, alone=True))
    notes.flush()
    assert sorted(one[3] for one in told(ledger)) == ["200", "200", "401", "429", "500"]


def test_nobody_in_a_path_and_nothing_that_a_terminal_obeys_is_written(ledger: Engine, notes: Notes):
    notes.note("anonymous", "GET /v1/keys/{key}", "/v1/keys/jo.doe@example.org", "401")
    notes.use(Use("key:a", "DELETE /v1/keys/{key}", "/v1/keys/\x1b[2J\n" + "a" * 5000, "404", alone=True))
    notes.flush()
    said = [one.on for one in entries(ledger)]
    assert not any("jo.doe" in on for on in said)
    assert all(on.isprintable() and len(on) <= 200 for on in said)


def test_strangers_can_not_make_the_log_long(ledger: Engine, notes: Notes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(noting, "STRANGERS", 10)
    monkeypatch.setattr(noting, "KINDS", 20)
    for number in range(100):
        notes.note("anonymous", "GET /v1/series", f"192.0.2.{number}", "401")
    for number in range(100):
        notes.note("key:a", "GET /v1/series", f"{number}", "200")
    notes.flush(ending=True)
    found = told(ledger)
    assert len(found) < 30
    assert sum(one[-1] for one in found if one[1].startswith("more kinds")) >= 100
    assert len([one for one in found if one[0] == "key:a"]) == 9, "who has a key still has room"


def test_notes_taken_by_many_threads_are_all_counted(ledger: Engine, notes: Notes):
    def take() -> None:
        for number in range(500):
            notes.note("key:a", "GET /v1/series", f"{number % 3}", "200")

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        notes.flush()
    for thread in threads:
        thread.join()
    notes.flush(ending=True)
    assert sum(one[-1] for one in told(ledger) if one[-1] > 1) == 2000


def test_a_locked_ledger_holds_nobody_up_and_loses_nothing(path: Path, ledger: Engine, clock: Clock):
    reading = open_ledger(path, reads=True)  # waits for a lock for a second alone
    notes = Notes(reading, clock)
    with closing(sqlite3.connect(path)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        notes.note("key:a", "GET /v1/series", "", "200")
        notes.flush()
        assert "can't be written, 1 entries wait: database is locked" in notes.trouble
        notes.note("key:b", "GET /v1/series", "", "200")
        lock.rollback()
    notes.flush()
    assert notes.trouble == ""
    assert [one[0] for one in told(ledger)] == ["key:a", "key:b"]
    reading.dispose()


def test_what_waits_for_a_locked_ledger_is_bounded_and_what_is_lost_is_told(
    ledger: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(noting, "WAITING", 50)
    notes = Notes(ledger, clock)
    for number in range(80):
        notes.add(Entry(NOW, "key:a", "POST /v1/actions", str(number), "200"))
    notes.flush()
    notes.flush()
    found = entries(ledger)
    assert len(found) == 51
    assert (found[-1].did, found[-1].details) == ("entries lost", {"times": 30})


# what is configured


def settings(**tables: Any) -> Settings:
    return parse({"service": {"data": "/var/lib/mailvane"}, **tables}, "mailvane.toml", {})


def changes(ledger: Engine, *told: Settings) -> list[Entry]:
    for one in told:
        with ledger.begin() as conn:
            configured.note(conn, one, NOW)
    return entries(ledger)


def rule(**of: Any) -> Mapping[str, Any]:
    return {"bounce-seller": of}


def test_a_change_of_policy_is_an_entry_with_a_diff(ledger: Engine):
    first, changed = changes(ledger, settings(), settings(), settings(rule=rule(pause=0.2, lease="90m")))
    assert (first.did, first.on, first.details["diff"]) == ("configuration first seen", "mailvane.toml", [])
    assert "rule.bounce-seller.pause = 0.1" in first.details["lines"]
    assert changed.did == "configuration changed"
    assert changed.details["diff"] == [
        "--- before",
        "+++ now",
        '-rule.bounce-seller.lease = "1h"',
        '+rule.bounce-seller.lease = "90m"',
        "-rule.bounce-seller.pause = 0.1",
        "+rule.bounce-seller.pause = 0.2",
    ]


def test_a_rule_that_goes_and_a_mode_that_changes_show(ledger: Engine):
    _, changed = changes(ledger, settings(), settings(rule=rule(enabled=False), automation={"mode": "enforce"}))
    assert '-automation.mode = "dry-run"' in changed.details["diff"]
    assert '+automation.mode = "enforce"' in changed.details["diff"]
    assert "-rule.bounce-seller.pause = 0.1" in changed.details["diff"]


def test_going_back_is_a_change_too(ledger: Engine):
    plain, other = settings(), settings(rule=rule(pause=0.2))
    assert len(changes(ledger, plain, other, plain)) == 3


def test_a_plugin_says_its_kind_and_no_secret(tmp_path: Path, ledger: Engine):
    for name in ("one", "two"):
        (tmp_path / name).write_text("xoxb-planted-secret")
    slack = {"kind": "slack", "channel": "#mail"}
    found = [
        parse({"alert": {"ops": {**slack, "token_file": str(tmp_path / name)}}}, "t", {}) for name in ("one", "two")
    ]
    _, changed = changes(ledger, *found)
    lines = changed.details["lines"]
    assert 'alert.ops.kind = "slack"' in lines
    assert 'alert.ops.token = "(set)"' in lines
    assert changed.details["diff"][2:] == [
        f'-alert.ops.token_file = "{tmp_path}/one"',
        f'+alert.ops.token_file = "{tmp_path}/two"',
    ]
    assert "planted" not in repr(entries(ledger))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("amqp://jo:hunter2@mq.example:5672/v", "amqp://…@mq.example:5672/v"),
        ("https://h.example/x?api_key=hunter2&a=1", "https://h.example/x?api_key="),
        ("redis://hunter2@h.example", "redis://…@h.example"),
    ],
)
def test_what_is_secret_in_a_url_is_left_out(value: str, kept: str):
    said = configured._plain(value)
    assert "hunter2" not in said
    assert said.startswith(kept)


@pytest.mark.parametrize(
    ("seconds", "said"), [(90, "90s"), (900, "15m"), (7200, "2h"), (86400, "1d"), (0.5, "0.5s"), (0, "0s"), (61, "61s")]
)
def test_lengths_of_time_are_told_exactly(seconds: float, said: str):
    assert configured._plain(timedelta(seconds=seconds)) == said


def test_sets_are_told_in_one_order():
    some = [f"10.{number}.0.0/16" for number in range(20)]
    assert configured._plain(frozenset(some)) == sorted(some)


# the service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailvane, str]]:
    """A service, and the text of an admin's key."""
    folder = tmp_path_factory.mktemp("access")
    ledger = open_ledger(folder / "data/ledger.sqlite")
    with ledger.begin() as conn:
        key, _ = keys.make(conn, "auditor", {Right.ADMIN}, now=datetime.now(UTC), by="test")
    ledger.dispose()
    with mailvane(folder, "\n[access]\nanonymous = []\n") as service:
        yield service, key


def asked(running: tuple[Mailvane, str], path: str, *, known: bool = True, body: Any = None) -> Any:
    service, key = running
    headers = {"Authorization": f"Bearer {key}"} if known else {}
    told = None if body is None else json.dumps(body).encode()
    headers |= {} if body is None else {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(service.url + path, told, headers), timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def found(running: tuple[Mailvane, str], query: str) -> list[dict[str, Any]]:
    return until(lambda: asked(running, f"/v1/access?{query}")["entries"], f"an entry like {query}", 20)


def test_who_read_what_is_in_the_log(running: tuple[Mailvane, str]):
    who = "key:" + running[1].split("_")[1]
    assert isinstance(asked(running, "/v1/status"), dict)
    entry = found(running, f"who={who}&did=GET%20/v1/status")[-1]
    assert (entry["who"], entry["did"], entry["result"]) == (who, "GET /v1/status", "200")


def test_who_was_refused_is_in_the_log(running: tuple[Mailvane, str]):
    assert asked(running, "/v1/access", known=False) == 401
    entry = found(running, "who=anonymous&result=401&did=GET%20/v1/access")[0]
    assert entry["on"].startswith("127.0.0.1")


def test_each_search_for_a_persons_mail_is_an_entry(running: tuple[Mailvane, str]):
    for _ in range(3):
        assert isinstance(asked(running, "/v1/search", body={"message_id": "<1@shop.example>"}), dict)
    until(lambda: len(found(running, "did=POST%20/v1/search")) == 3, "an entry each")


def test_the_configuration_is_in_the_log(running: tuple[Mailvane, str]):
    entry = found(running, "who=mailvane&did=configuration")[-1]
    assert entry["did"] == "configuration first seen"
    assert "rule.bounce-seller.pause = 0.1" in entry["details"]["lines"]


def test_a_key_that_was_made_is_in_the_log(running: tuple[Mailvane, str]):
    assert found(running, "did=key%20made")[0]["who"] == "test"


def test_pages_of_the_log_follow_each_other(running: tuple[Mailvane, str]):
    asked(running, "/v1/incidents")
    found(running, "did=GET%20/v1/incidents")
    newest = asked(running, "/v1/access?limit=2")["entries"]
    older = asked(running, f"/v1/access?limit=1&before={newest[-1]['seq']}")["entries"]
    assert [one["seq"] for one in (*newest, *older)] == list(range(newest[0]["seq"], newest[0]["seq"] - 3, -1))


def test_times_bound_the_entries(running: tuple[Mailvane, str]):
    assert asked(running, "/v1/access?until=2020-01-01T00:00:00Z")["entries"] == []
    assert asked(running, "/v1/access?since=2020-01-01T00:00:00Z")["entries"]
    assert asked(running, "/v1/access?since=yesterday") == 422


def test_a_restart_with_another_policy_is_in_the_log_and_the_log_is_whole(running: tuple[Mailvane, str]):
    service, _ = running
    service.config.write_text(service.config.read_text("utf-8") + "\n[rule.bounce-seller]\npause = 0.3\n")
    service.kill_core()
    until(lambda: isinstance(answer := quiet(running, "/v1/status"), dict) and answer, "core again")
    entry = found(running, "did=configuration%20changed")[0]
    assert entry["details"]["diff"][2:] == ["-rule.bounce-seller.pause = 0.1", "+rule.bounce-seller.pause = 0.3"]
    listed = service.command("audit", "list", "--did", "configuration changed")
    assert "+rule.bounce-seller.pause = 0.3" in listed
    service.command("pause", "tenant=s07", "--why", "a test")
    verified = service.command("audit", "verify").splitlines()
    assert [line.split(",")[0] for line in verified] == ["actions: 1 rows", verified[1].split(",")[0]]
    assert "all as they were written" in verified[1]


def quiet(running: tuple[Mailvane, str], path: str) -> Any:
    try:
        return asked(running, path)
    except OSError:
        return None


def test_where_the_logs_stand_is_told_to_the_log_of_the_service(running: tuple[Mailvane, str]):
    service, _ = running
    line = until(
        lambda: next((line for line in service.log.read_text().splitlines() if "heads of the linked logs" in line), ""),
        "the heads",
    )
    head = next(word for word in line.replace('"', " ").replace("=", " ").split() if word.startswith("access:"))
    assert service.command("audit", "verify", "--head", head)


def test_the_command_lists_what_is_asked_for(running: tuple[Mailvane, str]):
    service, _ = running
    lines = service.command("audit", "list", "--who", "mailvane", "--json").splitlines()
    assert {json.loads(line)["who"] for line in lines} == {"mailvane"}
    assert service.command("audit", "list", "--who", "nobody") == ""


def test_old_entries_go_and_the_log_says_so(ledger: Engine):
    with ledger.begin() as conn:
        access_log.append_all(conn, [Entry(NOW + minutes(at), "key:a", "did", "", "done") for at in range(10)])
        assert not access_log.drop(conn, NOW + minutes(4), NOW + minutes(20))
    assert [one.at for one in entries(ledger)][:1] == [NOW + minutes(4)]
    assert entries(ledger)[-1].did == access_log.DROPPED


def test_a_long_log_is_dropped_piece_by_piece(ledger: Engine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(access_log, "AT_ONCE", 4)
    with ledger.begin() as conn:
        access_log.append_all(conn, [Entry(NOW, "key:a", "did", "", "done")] * 10)
        turns = 1
        while access_log.drop(conn, NOW + minutes(1), NOW + minutes(2)):
            turns += 1
        assert turns == 3
        assert [flaw for flaw in audit.verify(conn, access_log.access) if flaw] == []
    assert len(entries(ledger)) < 5
