"""The brokers under one face, each test with a queue of its own; and the events that go through them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from collectors._broker import Broker
from collectors.kafka import Kafka
from collectors.nats import Nats
from collectors.rabbitmq import RabbitMQ
from monitor.model import Batch
from tests.servers.natsserver import NatsServer
from tests.servers.rabbit import Rabbit
from tests.servers.tansu import Tansu
from tests.servers.teller import event

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def line(number: int, at: datetime = NOW) -> bytes:
    """An outcome of the numbered message."""
    return json.dumps(event(number, at)).encode()


def body(numbers: Iterable[int], at: datetime = NOW) -> bytes:
    """An outcome of each, a line each."""
    return b"\n".join(line(number, at) for number in numbers)


def numbers(batches: Iterable[Batch]) -> list[int]:
    """Which events these are, in order."""
    told = (message for batch in batches for message in batch.columns.get("message_id", ()))
    return [int(str(message).strip("<").partition("@")[0]) for message in told]


@dataclass
class Case:
    """One kind of broker that runs, with a queue of its own."""

    publish: Callable[..., None]
    unsettled: Callable[[], int]
    make: Callable[..., Broker]
    settings: dict[str, Any]
    published: int = 0

    def table(self, name: str) -> str:
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.settings.items()]
        return "\n".join([f"[collector.{name}]", *lines, ""])


names = count()


def nats_case(server: NatsServer) -> Case:
    """A stream and a consumer of their own."""
    stream = f"mail{next(names)}"
    server.make_stream(stream)
    settings = {"kind": "nats", "servers": [server.url], "stream": stream, "ack_wait": "3s"}

    def unsettled() -> int:
        return server.pending(stream)

    def publish(bodies: Sequence[bytes], encoding: str = "") -> None:
        server.publish(stream, bodies, encoding)

    return Case(publish, unsettled, maker(Nats, settings), settings)


def rabbit_case(node: Rabbit, *, quorum: bool = False) -> Case:
    queue = f"mail{next(names)}"
    node.declare(queue, quorum=quorum)
    settings = {"kind": "rabbitmq", "url": node.url, "queue": queue, "prefetch": 100}

    def publish(bodies: Sequence[bytes], encoding: str = "") -> None:
        node.publish(queue, bodies, encoding)

    return Case(publish, lambda: node.ready(queue), maker(RabbitMQ, settings), settings)


def kafka_case(node: Tansu) -> Case:
    topic = f"mail{next(names)}"
    node.make_topic(topic, partitions=2)
    settings = {"kind": "kafka", "servers": [node.server], "topics": [topic], "group": topic}
    sent = [0]

    def publish(bodies: Sequence[bytes], encoding: str = "") -> None:
        node.publish(topic, bodies, encoding)
        sent[0] += len(bodies)

    return Case(publish, lambda: sent[0] - node.committed(topic, topic), maker(Kafka, settings), settings)


def maker(kind: type[Broker], settings: dict[str, Any]) -> Callable[..., Broker]:
    plain = {key: value for key, value in settings.items() if key != "kind"}
    return lambda **changes: kind(**{**plain, **changes})
