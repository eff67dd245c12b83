"""Events from Kafka topics, by a consumer group that any number of us share."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    AuthenticationFailedError,
    CommitFailedError,
    ConsumerStoppedError,
    GroupAuthorizationFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
)
from pydantic import AfterValidator, Field

from collectors._broker import Broker, bare, hush
from collectors._link import Message, Session
from monitor.ports import PluginError

hush("aiokafka")

_AT_ONCE = 5000  # records of one read
_MILLISECOND = 1000  # µs
# Another has the partition by now, and reads again what we could not commit.
_NOT_OURS = (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


def _servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        if "://" in server or "@" in server:
            raise ValueError(f"{server.rpartition('@')[2]!r}: write host:port, and neither scheme nor credentials")
        bare(f"kafka://{server}", "kafka")
    return servers


class Kafka(Broker):
    """Reads topics, and commits offsets once the events before them are in the facts."""

    failures: ClassVar[tuple[type[Exception], ...]] = (OSError, KafkaError, ConsumerStoppedError)
    refusals: ClassVar[tuple[type[Exception], ...]] = (
        AuthenticationFailedError,
        TopicAuthorizationFailedError,
        GroupAuthorizationFailedError,
    )

    servers: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_servers)] = Field(
        default=("127.0.0.1:9092",), description="`host:port` of some brokers of the cluster."
    )
    topics: Annotated[tuple[str, ...], Field(min_length=1)] = Field(description="The topics; they must exist.")
    group: Annotated[str, Field(min_length=1)] = Field(
        default="mailvane", description="The consumer group, shared by all who name it."
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="SASL mechanism, where there is a user."
    )
    tls: bool = Field(default=False, description="Whether the brokers speak TLS.")

    @property
    def where(self) -> str:
        """For people."""
        return f"Kafka at {', '.join(self.servers)}"

    async def connect(self) -> Session:
        """Join the group; which partitions are ours is told while reading."""
        sasl: dict[str, Any] = {}
        if self.user:
            secret = self.password.get_secret_value() if self.password else ""
            sasl = {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": secret,
            }
        consumer = AIOKafkaConsumer(
            bootstrap_servers=list(self.servers),
            group_id=self.group,
            client_id="mailvane",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            request_timeout_ms=8000,
            security_protocol=("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT"),
            ssl_context=self.context() if self.tls else None,
            **sasl,
        )
        try:
            await consumer.start()
            self._check(await consumer.topics())
        except BaseException:
            await consumer.stop()
            raise
        session = _Group(consumer)
        consumer.subscribe(self.topics, listener=session)
        return session

    def _check(self, there: Collection[str]) -> None:
        if missing := sorted(set(self.topics).difference(there)):
            raise PluginError(f"{self.where} has no topic {', '.join(missing)}: create it, or mend topics", retry=True)


class _Group(Session, ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """A member of the group, with the partitions that are its own for now."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._unsettled: dict[TopicPartition, deque[int]] = defaultdict(deque)  # offsets that we read and may commit

    async def read(self, wait: float) -> Sequence[Message]:
        """Some records of each partition that has any."""
        found: Mapping[TopicPartition, Sequence[ConsumerRecord]] = await self._consumer.getmany(
            timeout_ms=int(wait * 1000), max_records=_AT_ONCE
        )
        for partition, records in found.items():
            self._unsettled[partition].extend(record.offset for record in records)
        return tuple(_message(partition, record) for partition, records in found.items() for record in records)

    async def settle(self, messages: Sequence[Message]) -> None:
        """Commit what is still ours."""
        last: dict[TopicPartition, int] = {}
        for message in messages:
            last[message.lane] = max(message.handle, last.get(message.lane, 0))
        ours = self._consumer.assignment()
        ends = {
            partition: end for partition in last if (end := self._end(partition, last[partition])) and partition in ours
        }
        try:
            if ends:
                await self._consumer.commit(ends)
        except _NOT_OURS:
            self._unsettled.clear()

    def _end(self, partition: TopicPartition, last: int) -> int:
        """What to commit of a partition whose messages up to ``last`` are settled; 0 where it was taken from us."""
        waiting, end = self._unsettled[partition], 0
        while waiting and waiting[0] <= last:
            end = waiting.popleft() + 1
        return end

    async def lag(self) -> int | None:
        """From what is settled to the end, over the partitions that are ours."""
        ours = self._consumer.assignment()
        if not ours:
            return None
        ends = await self._consumer.end_offsets(list(ours))
        try:
            return sum([await self._behind(partition, end) for partition, end in ends.items()])
        except IllegalStateError:  # taken from us meanwhile
            return None

    async def _behind(self, partition: TopicPartition, end: int) -> int:
        waiting = self._unsettled[partition]
        # What lies between two records, such as the end of a transaction, is nobody's work: the position is past it.
        begin: int = waiting[0] if waiting else await self._consumer.position(partition)
        # tansu 0.6 answers with the last batch's beginning where its end was asked for; a fetch knows better.
        top = self._consumer.highwater(partition) if partition in self._consumer.assignment() else None
        return max(0, max(end, top or 0) - begin)

    async def close(self) -> None:
        """Leave the group, so that others take over at once."""
        await self._consumer.stop()

    def lanes(self) -> frozenset[Hashable]:
        """Our partitions."""
        return frozenset(self._consumer.assignment())

    async def drained(self) -> frozenset[Hashable]:
        """Those whose last record was read, as far as the last fetch knew."""
        return frozenset([one for one in self._consumer.assignment() if await self._is_drained(one)])

    async def _is_drained(self, partition: TopicPartition) -> bool:
        try:
            position = await asyncio.wait_for(self._consumer.position(partition), 1)
        except (IllegalStateError, TimeoutError):  # taken from us meanwhile, or not begun yet
            return False
        top = self._consumer.highwater(partition) if partition in self._consumer.assignment() else None
        return top is not None and position >= top

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """What we read of them is not ours to commit any more."""
        for partition in revoked:
            self._unsettled.pop(partition, None)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """They are read from where the group stands."""


def _message(partition: TopicPartition, record: ConsumerRecord) -> Message:
    encoding = next((value for name, value in record.headers if name.lower() == "content-encoding"), b"")
    return Message(
        f"{partition.topic}/{partition.partition}/{record.offset}",
        record.value or b"",
        (encoding or b"").decode("ascii", "replace"),
        max(0, record.timestamp) * _MILLISECOND,
        lane=partition,
        handle=record.offset,
    )
