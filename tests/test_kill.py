"""kill -9 of the service while events arrive: what was acknowledged counts once, and leases stand as they were."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers.mailvane import Mailvane, mailvane, started
from tests.waiting import until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
EVENTS = 200_000 if FULL else 30_000
KILLS = 10
BATCH = 500


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
def test_ten_kills_lose_nothing_and_count_nothing_twice(tmp_path: Path):
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
