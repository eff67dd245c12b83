"""The one at the door: keys, limits, pages of somebody else's, and what an answer always bears."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from monitor.access import keys
from monitor.access.limits import network
from monitor.caller import TENANTS, Right
from monitor.ledger.db import open_ledger
from tests.servers.mailvane import Mailvane, mailvane
from tests.waiting import until

RATE = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailvane, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("guard")
    ledger = open_ledger(folder / "data/ledger.sqlite")
    now, year = datetime.now(UTC), timedelta(days=365)
    with ledger.begin() as conn:
        found = {
            name: keys.make(conn, name, rights, now=now, by="test", expires=year)[0]
            for name, rights in {"greedy": {Right.READ}, "calm": {Right.READ}, "sends": {Right.CHECK}}.items()
        }
        found["seller"] = keys.make(conn, "seller", TENANTS, tenant="s07", now=now, by="test", expires=year)[0]
    ledger.dispose()
    granted = f'[access]\nanonymous = ["read", "check"]\nkey_rate = "{RATE}/minute"\n'
    with mailvane(folder, granted) as service:
        yield service, found


def ask(
    service: Mailvane, path: str, *, gate: bool = False, method: str = "GET", **headers: str
) -> tuple[int, Any, Any]:
    url = (service.gate_url if gate else service.url) + path
    body = b'{"scopes": [{"tenant": "s1"}]}' if method == "POST" else None
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_a_key_opens_core_and_gate(made: tuple[Mailvane, dict[str, str]]):
    service, found = made
    assert ask(service, "/v1/check?tenant=s1", Authorization=f"Bearer {found['sends']}")[0] == 200
    assert ask(service, "/v1/check?tenant=s1", gate=True, Authorization=f"Bearer {found['sends']}")[0] == 200
    assert ask(service, "/metrics", gate=True)[0] == 401
    assert ask(service, "/metrics", gate=True, Authorization=f"Bearer {found['sends']}")[0] == 403
    token = (service.config.parent / "data/token").read_text().strip()
    assert ask(service, "/metrics", gate=True, Authorization=f"bearer {token}")[0] == 200


def test_a_wrong_key_is_refused_where_nobody_would_need_one(made: tuple[Mailvane, dict[str, str]]):
    service, _ = made
    assert ask(service, "/v1/status")[0] == 200
    status, said, headers = ask(service, "/v1/status", Authorization="Bearer mv_nobody")
    assert status == 401
    assert "invalid_token" in headers["WWW-Authenticate"]
    assert "mv_nobody" not in said.decode()
    assert ask(service, "/v1/status", Authorization="Basic am86YWJj")[0] == 401


def test_what_is_granted_to_anybody_is_for_this_machine_alone(made: tuple[Mailvane, dict[str, str]]):
    service, _ = made
    assert ask(service, "/v1/status", Host="localhost:8025")[0] == 200
    assert ask(service, "/v1/status", Host="[::1]:8025")[0] == 200
    assert ask(service, "/v1/status", Host="rebound.example")[0] == 401
    assert ask(service, "/v1/status", Host="127.0.0.1.rebound.example")[0] == 401
    assert ask(service, "/v1/status", X_Forwarded_For="192.0.2.9")[0] == 401
    assert ask(service, "/v1/check?tenant=s1", gate=True, Via="1.1 proxy")[0] == 401


def test_a_page_of_somebody_else_can_send_nothing(made: tuple[Mailvane, dict[str, str]]):
    service, _ = made
    assert ask(service, "/v1/check", method="POST")[0] == 200
    assert ask(service, "/v1/check", method="POST", Origin=service.url)[0] == 200
    assert ask(service, "/v1/check", method="POST", Origin="https://other.example")[0] == 403
    assert ask(service, "/v1/check", method="POST", Sec_Fetch_Site="cross-site")[0] == 403


def test_a_key_that_asks_too_often_waits_and_others_do_not(made: tuple[Mailvane, dict[str, str]]):
    service, found = made
    greedy, calm = ({"Authorization": f"Bearer {found[name]}"} for name in ("greedy", "calm"))
    answers = [ask(service, "/v1/incidents", **greedy) for _ in range(RATE + 5)]
    assert [status for status, _, _ in answers].count(200) == RATE
    status, said, headers = answers[-1]
    assert status == 429
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert json.loads(said)["remedy"].startswith("ask again in")
    assert ask(service, "/v1/incidents", **calm)[0] == 200


def test_an_address_with_many_wrong_keys_waits_and_who_has_a_right_one_does_not_notice_before(tmp_path: Path):
    with mailvane(tmp_path, "") as service:
        answers = [ask(service, "/v1/status", Authorization=f"Bearer mv_{number}") for number in range(12)]
        assert [status for status, _, _ in answers] == [401] * 10 + [429] * 2
        assert answers[-1][2]["Retry-After"]
        assert ask(service, "/v1/status")[0] == 200


def test_a_sellers_key_is_told_of_no_route_that_is_not_for_sellers(made: tuple[Mailvane, dict[str, str]]):
    service, found = made
    seller = {"Authorization": f"Bearer {found['seller']}"}
    assert ask(service, "/v1/status", **seller)[0] == 403
    assert ask(service, "/v1/leases/stream", **seller)[0] == 403
    assert ask(service, "/v1/leases/stream", gate=True, **seller)[0] == 403


def test_every_answer_says_how_a_browser_is_to_keep_it(made: tuple[Mailvane, dict[str, str]]):
    service, _ = made
    for path, gate in (
        ("/", False),
        ("/v1/status", False),
        ("/nothing", False),
        ("/metrics", True),
        ("/v1/leases", True),
    ):
        _, _, headers = ask(service, path, gate=gate)
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["Cache-Control"], path
    assert ask(service, "/v1/status")[2]["Cache-Control"] == "no-store"


def test_a_browser_that_is_not_known_is_led_to_the_page_on_which_one_signs_in(tmp_path: Path):
    with mailvane(tmp_path, "[access]\n") as service:
        with closing(socket.create_connection(("127.0.0.1", service.port))) as peer:
            peer.sendall(b"GET /?range=1h HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            said = peer.recv(4096).decode()
        assert said.startswith("HTTP/1.1 303")
        assert "location: /login?next=%2F%3Frange%3D1h" in said
        assert ask(service, "/healthz")[0] == 200
        status, said_, _ = ask(service, "/readyz")
        assert status == 200
        assert set(json.loads(said_)) == {"status"}


def test_a_hundred_thousand_headers_and_a_slow_head_cost_little(made: tuple[Mailvane, dict[str, str]]):
    service, _ = made
    pid = service.pids()["core"]
    before = resident(pid)
    with closing(socket.create_connection(("127.0.0.1", service.port))) as peer:
        peer.settimeout(20)
        head = b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(100_000))
        said = b""
        try:
            peer.sendall(head + b"\r\n")
            said = peer.recv(1000)
        except ConnectionError:
            pass  # it had enough
        assert not said or said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert resident(pid) - before < 8
    slow = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(100)]
    try:
        for peer in slow:
            peer.sendall(b"GET /v1/status HTTP/1.1\r\nX-Slow: ")
        assert ask(service, "/v1/status")[0] == 200
        for peer in slow:
            peer.settimeout(30)
        until(lambda: all(ended(peer) for peer in slow), "the slow ones to be let go", 40)
    finally:
        for peer in slow:
            peer.close()


def ended(peer: socket.socket) -> bool:
    try:
        return peer.recv(1000) == b""
    except ConnectionError:
        return True


def resident(pid: int) -> float:
    """Megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def test_networks_of_ipv6_count_as_one():
    assert network("2001:db8::1") == network("2001:db8::ffff") == "2001:db8::/64"
    assert network("::ffff:192.0.2.1") == "192.0.2.1"
    assert network("192.0.2.1") == "192.0.2.1"
