"""The client library: it answers as the gate does, hears of changes, and lets mail flow when nobody tells it anything."""

from __future__ import annotations

import ast
import itertools
import json
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mailvane_client
from mailvane_client import Client, Pace
from monitor.core.leases import answer
from monitor.model import AUTOMATION, LABELS, Deed, Lease, Scope, named
from tests.builders import NOW
from tests.servers.leases import LeaseServer, Stream, told
from tests.waiting import free_port, until

QUICK = Pace(connect=2, first_word=0.3, silence=0.4, wait=5, slack=1, again=0.02, cap=0.2, stream_again=60, longest=0.6)
SELLER = {"tenant": "s07", "segment": "lapsed"}
MESSAGE = {**SELLER, "stream": "marketing", "provider": "gmail"}
MODULE = Path(mailvane_client.__file__)


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with LeaseServer() as server:
        yield server


@pytest.fixture
def connect(server) -> Iterator[Callable[..., Client]]:
    made = []

    def build(url: str = "", **changes: Any) -> Client:
        made.append(Client(url or server.url, **{"pace": QUICK, **changes}))
        return made[-1].start()

    yield build
    for client in made:
        client.close()


class Clock:
    """A monotonic clock that a test sets forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def held(client, **labels) -> bool:
    return client.check(**(labels or MESSAGE)).held


def streams(server) -> list[dict[str, str]]:
    """The headers of each request for the stream."""
    return [headers for path, headers in server.asked if path == "/v1/leases/stream"]


def polls(server) -> list[str]:
    return [path for path, _ in server.asked if path.startswith("/v1/leases") and "stream" not in path]


# What it answers.


def test_a_held_scope_is_held_and_other_mail_goes(server, connect):
    lease = server.grant(**SELLER)
    client = connect()
    assert client.wait_ready(5)
    said = client.check(**MESSAGE, key="<1@shop.example>")
    assert (said.held, said.share, said.pool) == (True, 0.0, "")
    assert said.lease is not None
    assert (said.lease.id, said.lease.scope) == (lease.id, SELLER)
    assert 3590 < said.ttl <= 3600
    assert said.until == told(lease, NOW)["until"]
    assert client.check(tenant="s08", segment="lapsed") == mailvane_client.SEND
    assert client.check() == mailvane_client.SEND


def test_a_person_lets_pass_what_automation_holds(server, connect):
    server.grant(tenant="s07")
    server.grant(deed=Deed.ALLOW, who="marta", **SELLER)
    client = connect()
    assert client.wait_ready(5)
    assert not held(client)
    assert held(client, tenant="s07", segment="buyers")
    assert client.check(**MESSAGE).share == 1.0


def test_a_reroute_names_its_pool(server, connect):
    server.grant(deed=Deed.REROUTE, pool="warm", provider="gmail")
    client = connect()
    assert client.wait_ready(5)
    said = client.check(provider="gmail")
    assert (said.held, said.pool, said.share) == (False, "warm", 1.0)


def test_a_throttle_draws_as_the_gate_does(server, connect):
    server.grant(deed=Deed.THROTTLE, share=0.25, **SELLER)
    client = connect()
    assert client.wait_ready(5)
    keys = [f"<{number}@shop.example>" for number in range(400)]
    ours = [client.check(**MESSAGE, key=key).held for key in keys]
    theirs = [server.check({**MESSAGE, "key": key})["answer"] == "held" for key in keys]
    assert ours == theirs
    assert 0.65 < sum(ours) / len(ours) < 0.85
    assert not client.check(**MESSAGE).held, "without a key it passes, and the sender is told the share"
    assert client.check(**MESSAGE).share == 0.25


WORDS = st.sampled_from(["a", "b", ""])
SCOPES = st.builds(Scope, ip=WORDS, provider=WORDS, stream=WORDS, tenant=st.just("t"), segment=WORDS, region=WORDS)


@st.composite
def leases(draw: st.DrawFn, seq: int = 0) -> Lease:
    return Lease(
        id=f"{seq}@1",
        seq=seq,
        deed=draw(st.sampled_from([Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE, Deed.ALLOW])),
        scope=draw(SCOPES | st.builds(Scope, provider=WORDS, stream=WORDS)),
        since=NOW,
        until=NOW + timedelta(seconds=draw(st.integers(-5, 5))),
        who=draw(st.sampled_from([AUTOMATION, "marta"])),
        why="",
        share=draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        pool=draw(st.sampled_from(["", "warm"])),
    )


@given(st.data(), st.integers(0, 6), SCOPES, st.sampled_from(["", "x", "y", "\udc80"]))
def test_it_says_what_the_core_says(data: st.DataObject, number: int, message: Scope, key: str):
    given_ones = [data.draw(leases(seq)) for seq in range(number)]
    document = {"generation": 1, "leases": [told(lease, NOW) for lease in given_ones]}
    known = mailvane_client._Leases.told(json.loads(json.dumps(document)), 50.0)
    said = known.answer(tuple(getattr(message, label) for label in LABELS), key, 50.0)
    live = [lease for lease in given_ones if lease.until > NOW]
    right = answer(live, message, key if key.isascii() else "")
    assert said.lease is None if right.lease is None else said.lease.id == right.lease.id
    if key.isascii():
        assert said.held == right.held


def test_a_question_costs_the_shapes_of_scopes_and_not_the_leases():
    def quickest(number: int) -> float:
        many = [
            told(Lease(str(one), Deed.PAUSE, Scope(tenant=f"s{one}"), NOW, NOW + timedelta(hours=1), "x", "y"), NOW)
            for one in range(number)
        ]
        known = mailvane_client._Leases.told({"generation": 1, "leases": many}, 0.0)
        labels = ("192.0.2.1", "", "gmail", "marketing", "s0", "lapsed", "", "", "")
        rounds = []
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(50):
                known.answer(labels, "k", 1.0)
            rounds.append(time.perf_counter() - began)
        return min(rounds)

    assert quickest(5000) < 5 * quickest(5)


def test_a_label_that_does_not_exist_is_a_mistake_told_at_once(connect):
    with pytest.raises(TypeError, match="tennant"):
        connect().check(tennant="s07")


def test_an_owned_label_without_its_tenant_is_not_known(server, connect):
    server.grant(**SELLER)
    client = connect()
    assert client.wait_ready(5)
    assert client.check(segment="lapsed") == mailvane_client.SEND


def test_labels_that_are_no_text_stop_no_mail_and_a_number_is_its_text(server, connect):
    server.grant(tenant="7")
    client = connect()
    assert client.wait_ready(5)
    assert held(client, tenant=7, segment=None)
    assert not held(client, tenant=None, segment=["lapsed"])


# How it hears.


def test_changes_are_heard_by_the_stream(server, connect):
    client = connect()
    assert client.wait_ready(5)
    lease = server.grant(**SELLER)
    until(lambda: held(client), "the pause", 5)
    assert client.state.by == "stream"
    server.end(lease)
    until(lambda: not held(client), "the end of it", 5)
    assert client.state.generation == server.generation
    assert len(streams(server)) == 1
    assert polls(server) == []


def test_a_stream_that_is_cut_goes_on_where_it_was(server, connect):
    kept, gone = server.grant(**SELLER), server.grant(tenant="s08")
    client = connect()
    assert client.wait_ready(5)
    heard = client.state.generation
    server.stop()
    server.end(gone)
    server.grant(tenant="s09")
    server.start()
    until(lambda: held(client, tenant="s09"), "what was missed", 5)
    assert [headers.get("Last-Event-ID") for headers in streams(server)][:2] == [None, str(heard)]
    assert {lease.scope["tenant"] for lease in client.leases} == {"s07", "s09"}
    assert kept.id in {lease.id for lease in client.leases}


def test_a_gate_that_remembers_too_little_tells_the_whole_set(server, connect):
    server.remembers = 1
    client = connect()
    assert client.wait_ready(5)
    server.stop()
    for tenant in ("s01", "s02", "s03"):
        server.grant(tenant=tenant)
    server.start()
    until(lambda: held(client, tenant="s03"), "the set", 5)
    assert held(client, tenant="s01")


def test_a_change_that_does_not_follow_is_not_taken_and_the_whole_set_is_fetched(server, connect):
    client = connect()
    assert client.wait_ready(5)
    server.astray = 1
    server.grant(**SELLER)
    until(lambda: held(client), "the set", 5)
    assert "Last-Event-ID" not in streams(server)[1]


def test_an_older_generation_is_the_truth_after_a_backup_is_brought_back(server, connect):
    server.grant(**SELLER)
    other = server.grant(tenant="s08")
    client = connect()
    assert client.wait_ready(5)
    server.stop()
    server.restore(3, other)
    server.start()
    until(lambda: client.state.generation == 3, "the older set", 5)
    assert not held(client)
    assert held(client, tenant="s08")


@pytest.mark.parametrize("kind", [Stream.MISSING, Stream.KEPT_BACK])
def test_without_a_stream_it_polls_and_hears_at_once(server, connect, kind):
    server.stream = kind
    lease = server.grant(**SELLER)
    client = connect()
    assert client.wait_ready(5)
    assert held(client)
    until(lambda: "/v1/leases?wait=5" in polls(server), "a long-poll", 5)
    began = time.monotonic()
    server.end(lease)
    until(lambda: not held(client), "the end of the pause", 5)
    assert time.monotonic() - began < 2
    assert client.state.by == "poll"


def test_a_poll_that_is_answered_without_waiting_makes_no_storm(server, connect):
    server.stream = Stream.MISSING
    client = connect(pace=Pace(again=0.02, wait=0.5))
    assert client.wait_ready(5)
    until(lambda: len(polls(server)) > 1, "a long-poll", 5)
    server.wait = lambda *_: False  # answers 304 at once
    server.grant(tenant="s01")
    before, began = len(polls(server)), time.monotonic()
    until(lambda: len(polls(server)) >= before + 3, "some polls", 10)
    assert time.monotonic() - began > 0.4


def test_a_stream_that_falls_silent_is_left_and_tried_again_later(server, connect):
    server.stream = Stream.SILENT
    client = connect(pace=Pace(silence=0.2, stream_again=0.5, wait=0.3, again=0.02))
    assert client.wait_ready(5)
    server.grant(**SELLER)
    until(lambda: held(client), "news on another connection", 5)
    assert polls(server)
    server.stream = Stream.FLOWS
    until(lambda: client.state.by == "stream", "the stream", 5)


def test_a_gate_that_goes_on_telling_nonsense_is_asked_less_and_less_often(server, connect):
    server.mangled, server.retry = b"nonsense", 100
    connect(pace=Pace(again=0.1))
    began = time.monotonic()
    until(lambda: len(streams(server)) >= 4, "some tries", 10)
    assert time.monotonic() - began > 0.5 * (0.1 + 0.2 + 0.4)


def test_the_state_tells_how_old_the_news_are(server, connect):
    clock = Clock()
    client = connect(clock=clock)
    assert client.wait_ready(5)
    until(lambda: client.state.connected, "the connection", 5)
    assert client.state.age == 0
    server.stop()
    until(lambda: not client.state.connected, "the loss", 5)
    clock.now += 90
    assert client.state == mailvane_client.State(generation=17, age=90.0, connected=False, by="")


def test_a_client_that_never_connected_knows_no_age(connect):
    client = connect(f"http://127.0.0.1:{free_port()}")
    assert client.state == mailvane_client.State(generation=None, age=None, connected=False, by="")
    assert not client.wait_ready(0.05)


def test_who_wants_to_is_told_of_changes(server, connect):
    seen: list[list[str]] = []
    client = connect(on_change=lambda leases: seen.append([lease.scope["tenant"] for lease in leases]))
    assert client.wait_ready(5)
    lease = server.grant(**SELLER)
    until(lambda: ["s07"] in seen, "the pause", 5)
    server.end(lease)
    until(lambda: seen == [[], ["s07"], []], "the end", 5)


def test_a_listener_that_fails_stops_no_news(server, connect, caplog):
    client = connect(on_change=lambda _: 1 / 0)
    assert client.wait_ready(5)
    server.grant(**SELLER)
    until(lambda: held(client), "the pause", 5)
    assert "on_change failed" in caplog.text


def test_losing_the_gate_is_told_once_and_its_return_too(server, connect, caplog):
    caplog.set_level("INFO", "mailvane_client")
    client = connect()
    assert client.wait_ready(5)
    server.stop()
    until(lambda: not client.state.connected, "the loss", 5)
    server.start()
    until(lambda: client.state.connected, "the return", 5)
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(",")[0] for text in said] == ["the gate is not heard", "the gate is heard again"]


# How it fails: open.


@pytest.mark.parametrize("status", [500, 401, 503, 0], ids=["broken", "not allowed", "too busy", "hangs"])
def test_mail_flows_while_the_gate_gives_no_answer(server, connect, status):
    server.status = status
    server.grant(**SELLER)
    client = connect()
    until(lambda: server.asked, "a try", 5)
    began = time.monotonic()
    assert not any(held(client) for _ in range(1000))
    assert time.monotonic() - began < 1
    assert not client.wait_ready(0)


def test_mail_flows_without_a_gate(connect):
    client = connect(f"http://127.0.0.1:{free_port()}")
    assert client.check(**MESSAGE) == mailvane_client.SEND


def test_a_lease_ends_by_its_ttl_though_no_gate_answers_any_more(server, connect):
    clock = Clock()
    server.grant(ttl=60, **SELLER)
    server.grant(ttl=600, tenant="s08")
    client = connect(clock=clock)
    assert client.wait_ready(5)
    server.stop()
    clock.now += 59
    assert held(client)
    assert 0 < client.check(**MESSAGE).ttl <= 1
    clock.now += 1.5
    assert not held(client)
    assert held(client, tenant="s08")
    assert [lease.scope["tenant"] for lease in client.leases] == ["s08"]
    clock.now += 600
    assert client.leases == ()


LEASE = told(Lease("1@1", Deed.PAUSE, Scope(tenant="s07"), NOW, NOW + timedelta(hours=1), "x", "y"), NOW)


def one(**changes: Any) -> bytes:
    return json.dumps({"generation": 99, "leases": [{**LEASE, **changes}]}).encode()


NONSENSE = [
    b"",
    b"<html>a proxy's own words</html>",
    b"[]",
    b"null",
    b"{}",
    b"\xff\xfe{}",
    b"[" * 100_000,
    b'{"generation": 99}',
    b'{"generation": "99", "leases": []}',
    b'{"generation": true, "leases": []}',
    b'{"generation": 99, "leases": {}}',
    b'{"generation": 99, "leases": [7]}',
    one(scope=None),
    one(scope={"tenant": 7}),
    one(ttl=None),
    one(ttl="60"),
    one(ttl=float("nan")),
    one(ttl=float("inf")),
    one(ttl=10**400),
    one(share=2),
    one(seq=None),
    one(who=None),
    one(why=7),
]


@pytest.mark.parametrize("text", NONSENSE, ids=lambda text: text[:60].decode("latin1"))
def test_nonsense_is_no_set(text):
    with pytest.raises((ValueError, ArithmeticError, RecursionError)):
        mailvane_client._Leases.told(mailvane_client._parsed(text), 0.0)


HUGE = b'{"generation": 99, "leases": [], "more": "' + b"x" * (mailvane_client.LARGEST + 10) + b'"}'


@pytest.mark.parametrize(
    "text", [NONSENSE[1], NONSENSE[6], one(ttl=10**400), HUGE], ids=["html", "deep", "big", "huge"]
)
@pytest.mark.parametrize("kind", [Stream.FLOWS, Stream.MISSING])
def test_mail_flows_on_nonsense_and_sense_is_heard_again(server, connect, kind, text):
    server.stream = kind
    server.mangled = text
    client = connect()
    until(lambda: len(server.asked) > 2, "some tries", 10)
    assert client.check(**MESSAGE) == mailvane_client.SEND
    assert client.state.generation is None
    server.mangled = None
    server.grant(**SELLER)
    until(lambda: held(client), "sense", 10)


def test_nonsense_takes_away_nothing_that_was_known(server, connect):
    server.grant(**SELLER)
    client = connect()
    assert client.wait_ready(5)
    server.mangled = b'{"generation": 1'
    server.grant(tenant="s08")
    until(lambda: len(streams(server)) > 2, "some tries", 5)
    assert held(client)


def test_what_a_later_gate_may_add_is_no_nonsense():
    later = {**LEASE, "id": "2@1", "deed": "drip", "scope": {"tenant": "s08"}, "more": 1}
    strange = {**LEASE, "id": "3@1", "scope": {"tenant": "s09", "planet": "mars"}}
    everywhere = {**LEASE, "id": "4@1", "scope": {"segment": "lapsed"}}
    document = {"generation": 1, "leases": [LEASE, later, strange, everywhere], "more": 2}
    known = mailvane_client._Leases.told(document, 0.0)
    said = {
        tenant: known.answer(("", "", "", "", tenant, "lapsed", "", "", ""), "", 0.0)
        for tenant in ("s07", "s08", "s09")
    }
    assert {tenant: one.held for tenant, one in said.items()} == {"s07": True, "s08": False, "s09": False}
    assert said["s08"].lease is not None, "a deed that is not known lets mail pass"


@pytest.mark.parametrize("head", [b"text/event-stream", b"application/json"])
def test_an_answer_that_drips_is_left_in_time(connect, head):
    over = threading.Event()
    came = []

    def drip(listening: socket.socket) -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            came.append(1)
            with connection:
                connection.recv(4096)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: " + head + b"\r\n\r\n")
                    while not over.wait(0.02):
                        connection.sendall(b"x")
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        client = connect(f"http://127.0.0.1:{listening.getsockname()[1]}")
        try:
            until(lambda: len(came) > 2, "other tries", 10)
            assert client.check(**MESSAGE) == mailvane_client.SEND
        finally:
            client.close()
            over.set()
            thread.join()


# Events out of bytes.


def parsed(pieces: list[bytes]) -> list[tuple[str, str]]:
    events = mailvane_client._Events()
    return [event for piece in pieces for event in events.feed(piece)]


LINES = st.lists(
    st.sampled_from(
        [
            b"event: set",
            b"event:change",
            b"data: {}",
            b"data",
            b"data:  x:y",
            b": alive",
            b"id: 7",
            b"retry: 5",
            b"",
            b"ev",
        ]
    ),
    max_size=12,
)


@given(LINES, st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(0, 200), max_size=8))
def test_events_are_the_same_however_their_bytes_are_cut(lines: list[bytes], end: bytes, cuts: list[int]):
    text = b"".join(line + end for line in lines)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert parsed([text[a:b] for a, b in itertools.pairwise(places)]) == parsed([text])


def test_an_event_has_a_name_and_lines():
    text = b"retry: 1000\n\nevent: set\nid: 17\ndata: a\ndata: b\n\n: alive\n\nevent: lost\n\ndata:\n\n"
    assert parsed([text]) == [("retry", "1000"), ("set", "a\nb"), ("message", "")]


@pytest.mark.parametrize("endless", [b"data: " + b"x" * (1 << 16) + b"\n", b"data\n" * 10_000, b"x" * (1 << 16)])
def test_an_event_without_bounds_is_refused(endless):
    with pytest.raises(ValueError, match="too large"):
        parsed([endless] * 300)


# The rest of its life.


def test_the_token_is_shown(server, connect):
    server.token = "s3cret"
    server.grant(**SELLER)
    assert not connect().wait_ready(0.2)
    client = connect(token="s3cret")
    assert client.wait_ready(5)
    assert held(client)


@pytest.mark.parametrize("url", ["127.0.0.1:8026", "ftp://gate", "http://", "http://gate/?x=1", ""])
def test_an_address_that_is_none_is_told_at_once(url):
    with pytest.raises(ValueError, match="address"):
        Client(url)


def test_a_token_that_would_break_a_header_is_told_at_once():
    with pytest.raises(ValueError, match="token"):
        Client("http://127.0.0.1:1", token="a\r\nX: y")


@pytest.fixture
def certificate(tmp_path) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=gate -addext"
    file = tmp_path / "both.pem"
    subprocess.run(
        ["openssl", *words.split(), "subjectAltName=IP:127.0.0.1", "-keyout", file, "-out", tmp_path / "cert.pem"],
        check=True,
        capture_output=True,
    )
    file.write_bytes(file.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return file


@pytest.mark.parametrize("kind", [Stream.FLOWS, Stream.MISSING])
def test_https_is_spoken_with_who_is_trusted_and_with_nobody_else(certificate, connect, kind):
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate)
    with LeaseServer(tls=theirs, stream=kind) as server:
        server.grant(**SELLER)
        client = connect(server.url, context=ssl.create_default_context(cafile=str(certificate)))
        assert client.wait_ready(5)
        lease = server.grant(tenant="s08")
        until(lambda: held(client, tenant="s08"), "a change", 5)
        assert lease.id in {lease.id for lease in client.leases}
        client.close()
        stranger = connect(server.url)
        assert not stranger.wait_ready(0.2)
        assert not held(stranger)
        stranger.close()


@pytest.mark.parametrize("kind", list(Stream))
def test_it_closes_at_once_whatever_it_waits_for(server, connect, kind):
    server.stream = kind
    client = connect(pace=Pace(first_word=30 if kind is Stream.KEPT_BACK else 1))
    until(lambda: len(server.asked) > (kind is Stream.MISSING), "a request", 5)
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 0.9
    assert not client._thread.is_alive()
    assert not client.check(**MESSAGE).held


def test_a_closed_client_answers_from_what_it_knew(server):
    server.grant(**SELLER)
    with Client(server.url, pace=QUICK) as client:
        assert client.wait_ready(5)
    assert held(client)
    client.start()
    assert not client._thread.is_alive(), "closed for good"


def test_a_client_nobody_started_starts_at_the_first_question(server):
    server.grant(**SELLER)
    client = Client(server.url, pace=QUICK)
    try:
        assert server.asked == []
        assert client.state.generation is None
        held(client)  # whether the leases have come by then is a matter of threads
        until(lambda: held(client), "the leases", 5)
    finally:
        client.close()


def test_many_threads_ask_while_leases_change(server, connect):
    server.grant(tenant="s01")
    client = connect()
    assert client.wait_ready(5)
    wrong: list[object] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            if not held(client, tenant="s01") or held(client, tenant="s02"):
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(40):
        server.grant(tenant=f"t{number}")
    until(lambda: client.state.generation == server.generation, "all changes", 10)
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []


FORKING = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
import mailvane_client
client = mailvane_client.Client(sys.argv[1], pace=mailvane_client.Pace(again=0.02)).start()
assert client.wait_ready(10)
def waits(seconds, **labels):
    end = time.monotonic() + seconds
    while not client.check(**labels).held and time.monotonic() < end:
        time.sleep(0.01)
    return client.check(**labels).held
child = os.fork()
ok = waits(0, tenant="before") and waits(10, tenant="after") and client.state.connected
if child == 0:
    os._exit(0 if ok else 7)
_, status = os.waitpid(child, 0)
client.close()
print("both heard" if ok and status == 0 else f"parent {ok}, child {status}")
"""


def test_a_forks_child_hears_for_itself_and_leaves_the_parents_connection_alone(server):
    server.grant(tenant="before")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKING, server.url, str(MODULE.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: len(streams(server)) >= 2, "the streams of parent and child", 20)
        server.grant(tenant="after")
        assert process.communicate(timeout=20)[0].strip() == "both heard"
    finally:
        process.kill()
        process.wait()
    assert len(streams(server)) == 2


def test_it_needs_nothing_but_the_standard_library():
    tree = ast.parse(MODULE.read_text("utf-8"), feature_version=(3, 9))
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.12", "3.13"])
def test_it_runs_on_other_versions_of_python(server, version):
    python = shutil.which(f"python{version}")
    if not python or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"needs python{version}")
    server.grant(**SELLER)
    script = f"""
import sys
sys.path.insert(0, sys.argv[2])
import mailvane_client
with mailvane_client.Client(sys.argv[1]) as client:
    print(client.wait_ready(10), client.check(**{MESSAGE!r}).held, client.check(tenant="x").held, client.state.by)
"""
    copied = [python, "-W", "error", "-c", script, server.url, str(MODULE.parent)]
    done = subprocess.run(copied, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout.strip(), done.stderr) == ("True True False stream", "")


def test_tries_are_spread_and_bounded():
    client = Client("http://127.0.0.1:1")
    random.seed(1)
    delays = [[client._delay(failures) for failures in (1, 3, 50)] for _ in range(200)]
    for first, third, late in delays:
        assert 0.5 <= first <= 1
        assert 2 <= third <= 4
        assert 15 <= late <= 30
    assert len({late for *_, late in delays}) == 200


def test_a_scope_is_told_by_its_names():
    assert set(mailvane_client.LABELS) == set(LABELS)
    assert named(Scope(**SELLER)) == SELLER
