"""The gate: it follows the log, tells each change once, answers many at a time, and strangers can't harm it."""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor import serving
from monitor.api import leases
from monitor.core.leases import active, answer
from monitor.gate import Gate
from monitor.ledger import actions
from monitor.ledger.db import open_ledger
from monitor.model import AUTOMATION, Action, Deed, Scope
from tests.builders import NOW, SELLER, minutes, pause, resumed
from tests.servers.gate import Clock, GateServer, gate_server
from tests.waiting import until

SCOPES = [SELLER, Scope(tenant="s07"), Scope(provider="gmail"), Scope(ip="192.0.2.1", provider="gmail")]
HEAVY = (
    "chdb",
    "clickhouse_connect",
    "collectors",
    "detectors",
    "fastapi",
    "numpy",
    "pandas",
    "pyarrow",
    "monitor.facts",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GateServer]:
    with gate_server(tmp_path) as running:
        yield running


def get(server: GateServer, path: str, **headers: str) -> tuple[int, Any, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as client:
        client.request("GET", path, headers=headers)
        response = client.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else None, response.headers


def ask(server: GateServer, body: Any) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as client:
        client.request("POST", "/v1/check", body if isinstance(body, bytes) else json.dumps(body))
        response = client.getresponse()
        return response.status, json.loads(response.read())


class Stream:
    """An open stream of leases."""

    def __init__(self, server: GateServer, known: int | None = None) -> None:
        self._client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        self._client.request("GET", "/v1/leases/stream", headers={} if known is None else {"Last-Event-ID": str(known)})
        self._response = self._client.getresponse()
        assert self._response.headers["Content-Type"].startswith("text/event-stream")
        assert self._response.readline() == b"retry: 1000\n"
        self._response.readline()

    def event(self) -> tuple[str, int, Any]:
        """The next event: name, id, document."""
        lines: list[str] = []
        while (line := self._response.readline().decode().rstrip("\n")) or not lines:
            if line and not line.startswith(":"):
                lines.append(line)
        found = dict(line.split(": ", 1) for line in lines)
        return found["event"], int(found["id"]), json.loads(found["data"])

    def close(self) -> None:
        self._client.close()


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, Action]]:
    """Entries of a log with the minute in which each is written; some are of a clock that runs ahead."""
    found: list[tuple[int, Action]] = []
    minute = 0
    for number in range(draw(st.integers(1, 10))):
        minute += draw(st.integers(0, 20))
        at = NOW + minutes(minute + draw(st.sampled_from([0, 0, 0, 3])))
        granted = [action.id for _, action in found if action.deed is not Deed.RESUME]
        if granted and draw(st.booleans()):
            entry = resumed(draw(st.sampled_from(granted)), at)
            entry = pause(id=f"r{number}", at=at, deed=Deed.RESUME, lease=entry.lease, until=None, who="marta")
        else:
            deed = draw(st.sampled_from([Deed.PAUSE, Deed.ALLOW, Deed.REFUSE]))
            end = at + minutes(draw(st.integers(1, 40)))
            who = draw(st.sampled_from([AUTOMATION, "marta"]))
            entry = pause(id=f"a{number}", at=at, deed=deed, until=end, who=who, scope=draw(st.sampled_from(SCOPES)))
        found.append((minute, entry))
    return found


@settings(max_examples=40, deadline=None)
@given(history=histories(), looks=st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_following_the_log_comes_to_what_reading_it_anew_comes_to(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, Action]], looks: list[int]
):
    ledger = open_ledger(tmp_path_factory.mktemp("gate") / "ledger.sqlite")
    clock = Clock()
    following = Gate(ledger, clock)
    replica: dict[str, Any] = {}
    known = following.generation
    moments = sorted({*looks, *(minute for minute, _ in history)})
    for moment in moments:
        clock.now = NOW + minutes(moment)
        with ledger.begin() as conn:
            for minute, entry in history:
                if minute == moment:
                    actions.append(conn, entry)
        following.refresh()
        anew = Gate(ledger, clock)
        anew.refresh()
        assert set(following.current().leases) == set(anew.current().leases)
        assert following.generation == anew.generation
        for change in following.changes(known) or ():
            assert change.since == known < change.generation
            known = change.generation
            replica |= {lease.id: lease for lease in change.granted}
            for gone in change.ended:
                del replica[gone]
        assert set(replica.values()) == set(following.current().leases)
    ledger.dispose()


def test_nothing_heavy_is_loaded_by_the_gate(tmp_path: Path):
    (tmp_path / "mailvane.toml").write_text('[collector.mail]\nkind = "sendlog"\npath = "/var/log/mail.log"\n')
    program = (
        "import sys; from pathlib import Path; from monitor import gate_process; from monitor.config import load_gate; "
        f"load_gate(Path({str(tmp_path / 'mailvane.toml')!r})); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "monitor.gate" in loaded
    assert not [name for name in loaded if name.startswith(HEAVY)]


def test_a_lease_and_its_end_are_told_to_who_listens(server: GateServer):
    stream = Stream(server)
    with closing(stream):
        name, known, first = stream.event()
        assert (name, first) == ("set", {"generation": known, "leases": []})
        server.write(pause())
        name, after, change = stream.event()
        assert (name, change["since"], change["generation"]) == ("change", known, after)
        assert [lease["id"] for lease in change["granted"]] == ["1@0"]
        assert change["granted"][0]["ttl"] == 3600
        server.clock.turn(minutes(61))
        name, last, change = stream.event()
        assert (name, change["ended"], change["since"]) == ("change", ["1@0"], after)
        assert last == server.gate.generation


def test_who_comes_back_is_told_what_was_missed(server: GateServer):
    server.write(pause())
    known = server.gate.generation
    server.write(pause(id="2@0", scope=Scope(provider="gmail")), resumed(at=NOW))
    with closing(Stream(server, known)) as stream:
        name, number, change = stream.event()
    assert name == "change"
    assert [lease["id"] for lease in change["granted"]] == ["2@0"]
    assert change["ended"] == ["1@0"]
    assert number == server.gate.generation


def test_who_missed_more_than_is_remembered_is_told_the_whole(server: GateServer):
    server.write(pause())
    with closing(Stream(server, 12345)) as stream:
        name, _, document = stream.event()
    assert (name, len(document["leases"])) == ("set", 1)


def test_a_long_poll_answers_when_a_lease_ends(server: GateServer):
    server.write(pause())
    tag = f'"{server.gate.generation}"'
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(get, server, "/v1/leases?wait=20", **{"If-None-Match": tag})
        until(lambda: server.gate.waiting or waiting.done(), "the poll to wait")
        server.clock.turn(minutes(61))
        status, document, headers = waiting.result(timeout=20)
    assert (status, document["leases"]) == (200, [])
    assert headers["ETag"] != tag


def test_a_batch_is_answered_as_its_messages_one_by_one(server: GateServer):
    server.write(
        pause(),
        pause(id="t", deed=Deed.THROTTLE, share=0.5, scope=Scope(tenant="s08")),
        pause(id="p", deed=Deed.REROUTE, pool="quarantine", scope=Scope(tenant="s09")),
    )
    asked = [
        {"tenant": "s07", "segment": "lapsed"},
        {"tenant": "s07"},
        *({"tenant": "s08", "key": str(number)} for number in range(20)),
        {"tenant": "s09", "provider": "gmail"},
    ]
    status, found = ask(server, {"scopes": asked})
    assert status == 200
    alone = [get(server, "/v1/check?" + "&".join(f"{name}={value}" for name, value in one.items()))[1] for one in asked]
    assert found["answers"] == [{name: value for name, value in one.items() if name != "generation"} for one in alone]
    assert found["answers"][0]["answer"] == "held"
    assert {one["answer"] for one in found["answers"][2:22]} == {"held", "send"}
    assert found["answers"][-1]["pool"] == "quarantine"


@pytest.mark.parametrize(
    "item",
    [{"colour": "red"}, {"tenant": 7}, {"segment": "lapsed"}, {"tenant": "x" * 201}, "s07", None, {"key": "k" * 1001}],
)
def test_of_a_batch_only_the_bad_question_is_refused(server: GateServer, item: Any):
    server.write(pause())
    status, found = ask(server, {"scopes": [{"tenant": "s07", "segment": "lapsed"}, item, {"tenant": "s08"}]})
    assert status == 200
    assert [one.get("answer") for one in found["answers"]] == ["held", None, "send"]
    assert found["answers"][1]["error"]
    assert found["answers"][1]["remedy"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"scopes": 1}', b'{"scopes": [', b"\xff\xfe", b'{"scopes": [}]}'])
def test_a_body_that_is_no_question_is_refused(server: GateServer, body: bytes):
    status, found = ask(server, body)
    assert status == 422
    assert found["error"]


def test_more_than_a_thousand_questions_are_refused(server: GateServer):
    assert ask(server, {"scopes": [{"tenant": "s07"}] * 1001})[0] == 413
    assert ask(server, b'{"scopes": [' + b" " * (2 << 20) + b"]}")[0] == 413


def test_an_empty_batch_is_answered(server: GateServer):
    assert ask(server, {"scopes": []}) == (200, {"generation": server.gate.generation, "answers": []})


def test_deep_nesting_is_refused(server: GateServer):
    assert ask(server, b'{"scopes": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")[0] == 422


def test_a_hole_that_the_asker_cannot_see_lets_its_mail_pass(server: GateServer):
    whole, hole = Scope(provider="gmail"), Scope(provider="gmail", tenant="s07")
    server.write(pause(scope=whole), pause(id="h", who="marta", deed=Deed.ALLOW, scope=hole))
    assert server.gate.check(whole).held
    assert not server.gate.check(whole, knows=frozenset({"provider"})).held
    server.write(resumed("h", NOW))
    assert server.gate.check(whole, knows=frozenset({"provider"})).held


labels_known = st.sets(st.sampled_from(["ip", "provider", "tenant", "segment", "stream"]))
values = st.sampled_from(["", "a", "b"])


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    found = {name: draw(values) for name in ("ip", "provider", "tenant", "stream")}
    return Scope(**found, segment=draw(values) if found["tenant"] else "")


@settings(max_examples=300, deadline=None)
@given(
    leases=st.lists(
        st.tuples(scopes(), st.sampled_from([Deed.PAUSE, Deed.ALLOW, Deed.REROUTE]), st.booleans()), max_size=6
    ),
    message=scopes(),
    knows=labels_known,
)
def test_held_by_who_knows_little_is_held_whatever_the_rest_is(
    tmp_path_factory: pytest.TempPathFactory,
    leases: list[tuple[Scope, Deed, bool]],
    message: Scope,
    knows: set[str],
):
    known = message.only(*(knows if "tenant" in knows else knows - {"segment"}))
    log = [
        pause(id=str(seq), seq=seq, scope=scope, deed=deed, who="marta" if person else AUTOMATION)
        for seq, (scope, deed, person) in enumerate(leases, 1)
    ]
    gate = Gate(open_ledger(tmp_path_factory.getbasetemp() / "never-there.sqlite", reads=True), lambda: NOW)
    gate.take(active(log, NOW))
    if gate.check(known, knows=frozenset(knows)).held:
        # `message` is one way to fill in what is not known.
        assert answer(active(log, NOW), message).held


def test_a_ledger_that_is_locked_keeps_no_answer_waiting(server: GateServer, tmp_path: Path):
    server.write(pause())
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        with suppress(sqlite3.OperationalError):
            other.execute("BEGIN EXCLUSIVE")
        assert get(server, "/v1/check?tenant=s07&segment=lapsed")[1]["answer"] == "held"
        server.clock.turn(minutes(61))
        assert get(server, "/v1/check?tenant=s07&segment=lapsed")[1]["answer"] == "send"


def test_a_ledger_that_comes_later_is_read(tmp_path: Path):
    gate = Gate(open_ledger(tmp_path / "ledger.sqlite", reads=True), lambda: NOW)
    gate.refresh()
    assert gate.read_at is None
    assert not (tmp_path / "ledger.sqlite").exists(), "the gate writes nothing"
    ledger = open_ledger(tmp_path / "ledger.sqlite")
    with ledger.begin() as conn:
        actions.append(conn, pause())
    gate.refresh()
    assert gate.check(SELLER).held
    ledger.dispose()


def test_a_head_that_does_not_end_is_cut_off(server: GateServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.2)
    silent = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    half = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    half.sendall(b"GET /v1/check?tenant=s07 HTTP/1.1\r\nHost: x\r\nX-A: ")
    with silent, half:
        for one in (silent, half):
            with suppress(ConnectionResetError):
                assert one.recv(1) == b""
    assert get(server, "/healthz")[0] == 200


def test_a_connection_too_many_is_closed_and_the_others_go_on(server: GateServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "CONNECTIONS", 5)
    held = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=10) for _ in range(5)]
    for client in held:
        client.request("GET", "/healthz")
        assert client.getresponse().read()
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as one, suppress(ConnectionError):
        assert one.recv(1) == b""
    for client in held:
        client.request("GET", "/v1/check?tenant=s07")
        assert json.loads(client.getresponse().read())["answer"] == "send"
        client.close()


def test_a_reader_that_does_not_read_is_let_go(server: GateServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "STUCK_SECONDS", 0.3)
    server.write(*(pause(id=f"{number}@0", scope=Scope(tenant=f"t{number}"), why="x" * 400) for number in range(4000)))
    refused = server.metrics.refused.labels("http", "slow reader")
    slow = socket.socket()
    with closing(slow):
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(b"GET /v1/leases HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        until(lambda: refused._value.get() >= 1, "the slow reader to be let go", 20)
    assert len(get(server, "/v1/leases")[1]["leases"]) == 4000


def test_many_listen_and_all_are_told(server: GateServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leases, "ALIVE", 0.2)
    streams = [Stream(server) for _ in range(100)]
    try:
        assert {stream.event()[0] for stream in streams} == {"set"}
        server.write(pause())
        assert {stream.event()[2]["granted"][0]["id"] for stream in streams} == {"1@0"}
    finally:
        for stream in streams:
            stream.close()
    until(lambda: not server.gate.waiting, "the gate to forget those who went", 30)


def test_metrics_tell_what_was_answered(server: GateServer):
    server.write(pause())
    ask(server, {"scopes": [{"tenant": "s07", "segment": "lapsed"}, {"tenant": "s08"}]})
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as client:
        client.request("GET", "/metrics")
        text = client.getresponse().read().decode()
    assert 'mailvane_checks_total{answer="held"} 1.0' in text
    assert 'mailvane_checks_total{answer="send"} 1.0' in text
    assert 'mailvane_leases{deed="pause",key="automation"} 1.0' in text


def test_readiness_says_that_the_ledger_is_stale(server: GateServer):
    assert get(server, "/readyz")[0] == 200


def test_a_gate_that_never_read_the_ledger_makes_nobody_drop_what_he_holds(tmp_path: Path):
    with gate_server(tmp_path, readable=False) as server:
        assert get(server, "/v1/leases")[0] == 503
        assert get(server, "/v1/leases/stream")[0] == 503
        assert get(server, "/v1/check?tenant=s07")[1]["answer"] == "send", "no answer would cost its sender time"


def test_a_clock_that_is_set_back_is_news_to_those_who_listen(server: GateServer):
    server.write(pause())
    server.clock.turn(minutes(61))
    server.gate.refresh()
    known = server.gate.generation
    server.clock.turn(-minutes(61))
    server.gate.refresh()
    assert server.gate.check(SELLER).held
    assert server.gate.generation > known
    changes = server.gate.changes(known)
    assert changes
    assert [lease.id for lease in changes[0].granted] == ["1@0"]


def test_a_lease_that_was_ended_before_it_began_never_begins(server: GateServer):
    """Two people whose clocks differ: one grants from a minute ahead, the other takes it back at once."""
    server.write(pause(id="ahead", at=NOW + minutes(1), until=NOW + minutes(30)))
    server.write(pause(id="back", at=NOW, deed=Deed.RESUME, lease="ahead", until=None, who="marta"))
    server.gate.refresh()
    server.clock.turn(minutes(2))
    server.gate.refresh()
    assert server.gate.current().leases == ()
