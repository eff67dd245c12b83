"""Thousands of peers that connect and say nothing, or half of it: the gate stays small, and answers who asks."""

from __future__ import annotations

import os
import resource
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers.gate_alone import GateAlone, gate_alone
from tests.servers.memory import resident
from tests.servers.tier import netstring, request
from tests.waiting import answers, free_port, until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
STRANGERS = 5000 if FULL else 200
MOST = (60 if FULL else 20) << 20  # bytes by which the gate may grow

HTTP = b"GET /v1/check?tenant=s1&stream=marketing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POLICY = request(sender="b-s1-x-marketing-1@shop.example", recipient="jo@one.example")
ASKS = {"http": HTTP, "policy": POLICY, "socketmap": netstring("recipients jo@one.example")}
SAYS = {"http": b'"held"', "policy": b"action=DUNNO\n\n", "socketmap": b"9:NOTFOUND ,"}


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[GateAlone]:
    """A new one for each server: what one test gave back another would use again."""
    with gate_alone(tmp_path, policy=free_port(), socketmap=free_port()) as here:
        here.pause("tenant=s1", 3600)
        until(lambda: all(answers(port) for port in here.ports.values()), "all servers to listen", 20)
        until(lambda: held(here), "the pause to be in force", 10)
        yield here


def held(gate: GateAlone) -> bool:
    with urllib.request.urlopen(f"{gate.url}/v1/check?tenant=s1&stream=marketing", timeout=5) as answer:
        return b'"held"' in answer.read()


def asked(peer: socket.socket, server: str) -> float:
    """Seconds until the answer was there, and right."""
    began = time.monotonic()
    peer.sendall(ASKS[server])
    said = b""
    while SAYS[server] not in said:
        more = peer.recv(65536)
        assert more, f"closed after {said!r}"
        said += more
    return time.monotonic() - began


@pytest.mark.scale(order=2)
@pytest.mark.parametrize("server", ASKS)
def test_half_open_connections_make_the_gate_no_larger_and_leave_others_their_answers(gate: GateAlone, server: str):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < STRANGERS + 1000:
        pytest.skip(f"needs {STRANGERS + 1000} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    place = ("127.0.0.1", {**gate.ports, "http": gate.port}[server])
    with ExitStack() as open_:
        well = open_.enter_context(socket.create_connection(place, timeout=10))
        assert asked(well, server) < 5
        before, pid = resident(gate.pid), gate.pid
        for number in range(STRANGERS):
            peer = open_.enter_context(socket.create_connection(place, timeout=10))
            if number % 2:
                peer.sendall(ASKS[server][: len(ASKS[server]) // 2])
        slowest = max(asked(well, server) for _ in range(50))
        new = open_.enter_context(socket.create_connection(place, timeout=10))
        slowest = max(slowest, asked(new, server))
        grown = resident(gate.pid) - before
    assert grown < MOST, f"{STRANGERS} on {server}: the gate grew by {grown >> 20} MiB"
    assert slowest < 2, f"{STRANGERS} on {server}: somebody waited {slowest:.2f} s"
    with socket.create_connection(place, timeout=10) as last:
        assert asked(last, server) < 5
    assert gate.pid == pid
