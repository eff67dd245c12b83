"""kill -9 at any moment, between raw events and their grains too: what was acknowledged counts once, leases stand."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from monitor.facts.grains import GRAINS
from monitor.model import COUNTED
from tests.servers.applying import BATCH as TOLD_AT_ONCE
from tests.servers.mailvane import Mailvane, mailvane, started
from tests.waiting import until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
EVENTS = 400_000 if FULL else 10_000
KILLS = 20 if FULL else 3
BATCH = 500
HALFWAY = Path(__file__).parent / "servers" / "halfway.py"
HALVES = 24 if FULL else 2  # kills of an insert that is half done
TOLD = 6000 if FULL else 2000  # events that are told in each of these rounds


class Sender:
    """Posts each batch until it is acknowledged, as a marketplace's outbox would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged = 0
        self._begin = datetime.now(UTC) - timedelta(minutes=50)
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        for first in range(0, EVENTS, BATCH):
            body = b"\n".join(self._line(number) for number in range(first, first + BATCH))
            while not self._posted(body):
                time.sleep(0.02)  # the service is down; an outbox tries again
            self.acknowledged += BATCH

    def _line(self, number: int) -> bytes:
        kind = ("sent", "deferred", "bounced", "complaint")[number % 7 % 4]
        return json.dumps(
            {
                "kind": kind,
                "at": (self._begin + timedelta(seconds=number % 2400)).isoformat(),
                "message_id": f"<{number}@shop.example>",
                "recipient": f"user{number}@example.net",
                "attempt": 1,
                "ip": f"192.0.2.{number % 5}",
                "provider": "gmail",
                "stream": "marketing",
                "tenant": f"s{number % 11}",
                "segment": f"g{number % 3}",
                "campaign": f"c{number % 17}",
            }
        ).encode()

    def _posted(self, body: bytes) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v1/events", body, timeout=20) as answer:
                return answer.status == 202
        except (OSError, urllib.error.URLError):
            return False


def leases(service: Mailvane) -> list[tuple[str, str]]:
    return [(lease["id"], lease["until"]) for lease in service.get("/v1/leases")["leases"]]


@pytest.mark.scale(order=1)
@pytest.mark.scale(order=3)
def test_kills_of_the_service_lose_nothing_and_count_nothing_twice(tmp_path: Path):
    chance = random.Random(20261124)
    with mailvane(tmp_path, "") as service:
        service.command("pause", "tenant=s1", "--for", "60m", "--why", "a test")
        before = until(lambda: leases(service), "the lease to be in force")
        sender = Sender(service.url)
        sender.thread.start()
        for kill in range(1, KILLS + 1):
            until(lambda kill=kill: sender.acknowledged >= EVENTS * kill // (KILLS + 1), "events to arrive", 240)
            time.sleep(chance.random() * 0.3)  # at any moment of spooling, inserting or committing
            service.kill()
            service.process = started(service.config, service.port).process
        sender.thread.join(timeout=300)
        assert sender.acknowledged == EVENTS
        totals = until(lambda: applied(service), "all events to be applied", 120)
        assert totals["rows"] == EVENTS
        assert totals["keys"] == EVENTS
        for grain in ("events", "leaf", "minute", "hour"):
            assert sum(totals[grain].values()) == EVENTS, f"{grain}: {totals[grain]}"
            assert totals[grain] == totals["events"]
        assert leases(service) == before


def applied(service: Mailvane) -> dict | None:
    """The totals, once nothing on disk waits to be counted."""
    totals = service.get("/v1/facts")
    return None if totals["waiting"] else totals


class Halfway:
    """The process that is killed while an insert of its is half done; ``found`` is what it saw at its opening."""

    def __init__(self, folder: Path, first: int, last: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HALFWAY), str(folder), str(first), str(last), str(3 * TOLD_AT_ONCE)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HALFWAY.parents[2])},
        )
        self.found: dict[str, int] = self.next("found")

    def next(self, name: str) -> Any:
        """The next thing of that name that it tells."""
        assert self.process.stdout
        for line in self.process.stdout:
            told = json.loads(line)
            if name in told:
                return told[name]
        raise AssertionError(f"it ended with {self.process.wait(30)} and told no {name}")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.mark.scale(order=3)
def test_a_kill_between_an_insert_and_its_grains_is_healed(tmp_path: Path):
    chance = random.Random(20261125)
    halves = 0
    for turn in range(HALVES):
        here = Halfway(tmp_path, turn * TOLD, (turn + 1) * TOLD)
        # What the kill before this one left: raw has what a grain lacks, for nothing has been applied since.
        halves += here.found["events"] > min(here.found[grain] for grain in GRAINS)
        until(lambda here=here, turn=turn: here.next("acknowledged") == (turn + 1) * TOLD, "all to be on disk")
        here.next("half")
        time.sleep(chance.random() * 0.4)  # all inserts take half a second or so: any number of grains have it by now
        here.kill()
    last = Halfway(tmp_path, 1, 0)
    halves += last.found["events"] > min(last.found[grain] for grain in GRAINS)
    totals = last.next("totals")
    last.process.communicate(timeout=30)
    assert last.process.returncode == 0
    assert halves >= HALVES // 2, f"only {halves} of {HALVES} kills came between raw events and a grain"
    numbers = {number - 500 if number % 5 == 0 and number >= 500 else number for number in range(HALVES * TOLD)}
    expected = dict.fromkeys(map(str, COUNTED), 0)
    for number in numbers:
        expected[("sent", "deferred", "bounced", "complaint")[number % 7 % 4]] += 1
    assert totals["rows"] == totals["keys"] == len(numbers)
    assert {name: totals[name] for name in ("events", *GRAINS)} == dict.fromkeys(("events", *GRAINS), expected)
