"""A clock that is set back or forward: leases end, nothing is lost or counted twice, no promise is taken back."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.clock import Clock
from tests.servers.mailvane import Mailvane, mailvane, started
from tests.servers.teller import events, exact, settled, tell
from tests.waiting import until

HOUR = 3600


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.made(tmp_path, monkeypatch)


@pytest.fixture
def service(clock: Clock, tmp_path: Path) -> Iterator[Mailvane]:
    with mailvane(tmp_path, "") as running:
        yield running


def held(service: Mailvane, tenant: str) -> set[bool]:
    """What core and gate say, each with its own eyes."""
    return {service.answer(gate=gate, tenant=tenant, stream="marketing") == "held" for gate in (True, False)}


def watermark(service: Mailvane) -> float:
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=10) as answer:
        found = re.search(
            r'^mailvane_[a-z_]*watermark[a-z_]*\{[^}]*source="http"[^}]*\} (\S+)', answer.read().decode(), re.MULTILINE
        )
    assert found
    return float(found[1])


def test_a_clock_set_back_and_forward_loses_nothing_and_ends_each_lease(service: Mailvane, clock: Clock):
    began = clock.now
    service.command("pause", "tenant=s1", "--for", "60m", "--why", "a test")
    until(lambda: held(service, "s1") == {True}, "the pause to be in force", 10)
    assert tell(service, events(range(100), began)).status == 202
    exact(until(lambda: settled(service), "the first to be counted"), 100)
    promised = watermark(service)

    clock.set(-HOUR)
    service.command("pause", "tenant=s2", "--for", "30s", "--why", "a test")
    until(lambda: held(service, "s2") == {True}, "a pause of the earlier hour to be in force", 10)
    until(lambda: held(service, "s1") == {False}, "a pause that begins in an hour not to hold yet", 10)
    assert tell(service, events(range(100, 200), clock.now)).status == 202
    ahead = tell(service, events(range(100), began))  # of a peer whose clock is right
    assert (ahead.status, ahead.body["rejected_count"]) == (422, 100)
    assert "ahead of our clock" in ahead.body["rejected"][0]["why"]
    exact(until(lambda: settled(service), "the earlier hour to be counted"), 200)
    assert watermark(service) >= promised

    clock.set(2 * HOUR)
    until(lambda: held(service, "s1") | held(service, "s2") == {False}, "both leases to have ended", 10)
    assert tell(service, events(range(100), began)).status == 202  # told again, and counted already
    assert tell(service, events(range(200, 300), clock.now)).status == 202
    exact(until(lambda: settled(service), "the later hour to be counted"), 300)
    promised = watermark(service)

    clock.set(0)
    service.command("pause", "tenant=s3", "--for", "3s", "--why", "a test")
    until(lambda: held(service, "s3") == {True}, "a pause of the right hour to be in force", 10)
    assert tell(service, events(range(300, 400), clock.now)).status == 202
    exact(until(lambda: settled(service), "the right hour to be counted"), 400)
    assert watermark(service) >= promised
    until(lambda: held(service, "s3") == {False}, "the last pause to end", 10)
    assert service.get("/readyz")["status"] == "ready"


def test_a_service_that_starts_by_a_clock_far_ahead_drops_nothing(service: Mailvane, clock: Clock):
    began = clock.now
    assert tell(service, events(range(100), began)).status == 202
    exact(until(lambda: settled(service), "the first to be counted"), 100)
    service.kill()
    clock.set(400 * 24 * HOUR)
    service.process = started(service.config, service.port).process
    # Jobs of the start are done by the time that something told after it is counted.
    assert tell(service, events(range(100, 200), clock.now)).status == 202
    exact(until(lambda: settled(service), "what came by the wrong clock to be counted"), 200)
