"""RabbitMQ takes a queue away: its consumers are told, and read on when there is one again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aio_pika
import pytest

from collectors.rabbitmq import RabbitMQ
from monitor.ports import Memory, PluginError
from tests.servers.rabbit import Rabbit, rabbit
from tests.waiting import until

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
EVENT = b'{"kind": "sent", "at": "2026-11-24T11:59:00Z", "message_id": "<1@shop.example>"}'


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Rabbit]:
    with rabbit(tmp_path) as found:
        yield found


async def _made_anew(url: str, queue: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.queue_delete(queue)
        await channel.declare_queue(queue, durable=True)


def test_a_queue_that_is_made_anew_behind_our_back_is_read_on(node: Rabbit) -> None:
    node.declare("events")
    collector = RabbitMQ(every=timedelta(seconds=1), url=node.url, queue="events")

    def read() -> int:
        try:
            return sum(len(batch) for batch in collector.collect(Memory(), NOW))
        except PluginError:
            return 0

    try:
        assert read() == 0
        assert collector.waiting() is not None
        asyncio.run(_made_anew(node.url, "events"))  # in less time than passes between two looks at the queue
        node.publish("events", [EVENT])
        until(lambda: read() == 1, "the event to be read", 20)
    finally:
        collector.close()
