"""The service beside its broker: either is killed, or not there, and each event still counts once."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aio_pika.exceptions
import nats.errors
import pytest

from tests.servers.brokers import Case, body, kafka_case, nats_case, rabbit_case
from tests.servers.mailvane import Mailvane, mailvane, started
from tests.servers.natsserver import nats_server
from tests.servers.rabbit import rabbit
from tests.servers.tansu import tansu
from tests.servers.teller import exact, settled
from tests.waiting import until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
EVENTS = 1_500_000 if FULL else 40_000
KILLS = 20 if FULL else 1
IN_MESSAGE = 500
AT_ONCE = 20  # messages
FAILURES = (OSError, nats.errors.Error, aio_pika.exceptions.AMQPError, aio_pika.exceptions.ChannelInvalidStateError)


class Publisher:
    """Publishes each message until the broker confirms it, as an outbox would."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._begin = datetime.now(UTC) - timedelta(minutes=50)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        step = IN_MESSAGE * AT_ONCE
        for start in range(0, EVENTS, step):
            at = self._begin + timedelta(seconds=start // step % 2400)
            bodies = [body(range(low, low + IN_MESSAGE), at) for low in range(start, start + step, IN_MESSAGE)]
            while not self._published(bodies):
                time.sleep(0.05)  # the broker is down; an outbox tries again

    def _published(self, bodies: list[bytes]) -> bool:
        try:
            self._case.publish(bodies)
        except FAILURES:
            return False
        return True


def restarted(service: Mailvane) -> None:
    service.kill()
    service.process = started(service.config, service.port).process


def survives(folder: Path, case: Case, mishap: Callable[[int, Mailvane], None], kills: int = KILLS) -> None:
    """Everything counts once although ``mishap`` strikes while events come."""
    chance = random.Random(20261124)
    with mailvane(folder, case.table("mq") + case.table("mq2")) as service:
        publisher = Publisher(case)
        for kill in range(1, kills + 1):
            share = EVENTS * (kill - 1) // kills
            until(lambda share=share: service.get("/v1/facts")["rows"] >= share, f"{share} events", 240)
            time.sleep(chance.random())  # at any moment of reading, spooling, inserting or settling
            mishap(kill, service)
        publisher.thread.join(timeout=300)
        until(lambda: service.get("/v1/facts")["rows"] >= EVENTS, "all events", 240)
        until(lambda: case.unsettled() == 0, "the broker to forget", 120)
        exact(until(lambda: settled(service), "the last ones"), EVENTS)


@pytest.mark.scale(order=3)
def test_kills_of_the_service_and_of_nats_lose_nothing_and_count_nothing_twice(tmp_path):
    with nats_server(tmp_path) as server:

        def mishap(kill: int, service: Mailvane) -> None:
            if kill % 2 == 1:
                server.kill()
            restarted(service)
            if kill % 2 == 1:
                server.start()

        survives(tmp_path, nats_case(server), mishap)


@pytest.mark.scale(order=3)
def test_kills_of_the_service_and_of_rabbitmq_lose_nothing_and_count_nothing_twice(tmp_path):
    with rabbit(tmp_path) as node:

        def mishap(kill: int, service: Mailvane) -> None:
            restarted(service)
            if kill % 2 == 1:
                node.kill()
                node.start()

        survives(tmp_path, rabbit_case(node, quorum=True), mishap)


@pytest.mark.scale(order=3)
def test_kills_of_the_service_beside_a_peer_that_speaks_kafka_count_nothing_twice(tmp_path):
    with tansu(tmp_path) as node:  # it keeps all in memory, so it is not killed
        # After each kill the group waits ten seconds for the lost member.
        survives(tmp_path, kafka_case(node), lambda _, service: restarted(service), min(KILLS, 4))


def ready(service: Mailvane) -> dict[str, str]:
    """What /readyz finds wrong."""
    try:
        return dict(service.get("/readyz")["errors"])
    except urllib.error.HTTPError as answer:
        with answer:
            return dict(json.load(answer)["errors"])


def lag(service: Mailvane) -> float:
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(
        float(line.split()[1]) for line in lines if line.startswith('mailvane_source_lag_messages{source="mq"}')
    )


def test_a_broker_that_is_not_there_is_shown_and_found_again_by_itself(tmp_path):
    table = '[collector.mq]\nkind = "nats"\nservers = ["{}"]\nstream = "mail"\n'
    with nats_server(tmp_path, start=False) as server, mailvane(tmp_path, table.format(server.url)) as service:
        assert server.url in until(lambda: ready(service).get("collector.mq"), "the broker to be missed")
        server.start()
        until(lambda: "create it" in ready(service).get("collector.mq", ""), "the stream to be missed")
        server.make_stream("mail")
        server.publish("mail", [body(range(10), datetime.now(UTC)), b"no event"])
        until(lambda: service.get("/v1/facts")["rows"] == 10, "the events")
        assert ready(service) == {}
        assert service.get("/v1/rejected")["rejected"][0]["where"] == "mail message 2 line 1"
        until(lambda: lag(service) == 0, "no lag")
        server.kill()
        until(lambda: "collector.mq" in ready(service), "the broker to be missed again")
        server.start()
        server.publish("mail", [body(range(20), datetime.now(UTC))])
        exact(until(lambda: rows(service, 20), "the rest"), 20)
        until(lambda: ready(service) == {}, "the broker to be found again")
        with suppress(AssertionError):
            began = time.monotonic()
            service.stop()
        assert time.monotonic() - began < 10
        assert service.process.returncode == 0


def rows(service: Mailvane, count: int) -> dict | None:
    totals = settled(service)
    return totals if totals and totals["rows"] >= count else None
