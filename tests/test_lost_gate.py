"""The client library and a real gate that is killed, stopped and brought back: mail flows, ends are kept, news caught up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailvane_client import SEND, Client, Pace
from tests.servers.gate_alone import GateAlone, gate_alone
from tests.waiting import until

QUICK = Pace(connect=1, first_word=1, silence=1, wait=1, slack=0.5, again=0.05, cap=0.2, stream_again=60, longest=2)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[GateAlone]:
    with gate_alone(tmp_path) as here:
        yield here


@pytest.fixture
def connect(gate: GateAlone) -> Iterator[Callable[[], Client]]:
    made: list[Client] = []

    def build() -> Client:
        made.append(Client(gate.url, pace=QUICK).start())
        return made[-1]

    yield build
    for client in made:
        client.close()


def held(client: Client, tenant: str) -> bool:
    """What a sender is told, and at once, whatever the gate does."""
    began = time.monotonic()
    said = client.check(tenant=tenant, stream="marketing")
    assert time.monotonic() - began < 0.5
    return said.held


def test_a_killed_gate_holds_what_it_told_to_its_end_and_is_caught_up_with(gate: GateAlone, connect) -> None:
    long = gate.pause("tenant=s2", 3600)
    client = connect()
    assert client.wait_ready(10)
    gate.pause("tenant=s1", 3)
    until(lambda: held(client, "s1") and held(client, "s2"), "both pauses to be told", 3)
    gate.kill()
    until(lambda: not client.state.connected, "the client to notice", 5)
    assert held(client, "s2")
    assert not held(client, "s9")
    until(lambda: not held(client, "s1"), "the short one to end by the client's own clock", 8)
    assert held(client, "s2")
    newcomer = connect()
    assert not newcomer.wait_ready(0.5)
    assert newcomer.check(tenant="s2", stream="marketing") == SEND  # it knows nothing: mail flows
    gate.resume(long)
    gate.pause("tenant=s3", 3600)
    gate.start()
    for one in (client, newcomer):
        until(lambda one=one: held(one, "s3") and not held(one, "s2"), "what happened meanwhile to be heard", 10)


def test_a_stopped_gate_is_noticed_and_caught_up_with(gate: GateAlone, connect) -> None:
    gate.pause("tenant=s2", 3600)
    client = connect()
    assert client.wait_ready(10)
    gate.pause("tenant=s1", 3)
    until(lambda: held(client, "s1") and held(client, "s2"), "both pauses to be told", 3)
    gate.freeze()
    try:
        until(lambda: not client.state.connected, "the client to notice", 10)
        newcomer = connect()
        assert not newcomer.wait_ready(0.5)
        assert newcomer.check(tenant="s2", stream="marketing") == SEND
        until(lambda: not held(client, "s1"), "the short one to end by the client's own clock", 10)
        assert held(client, "s2")
        gate.pause("tenant=s3", 3600)
    finally:
        gate.thaw()
    for one in (client, newcomer):
        until(lambda one=one: held(one, "s3") and held(one, "s2"), "what happened meanwhile to be heard", 10)
    assert not held(client, "s1")
