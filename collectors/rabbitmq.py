"""Events from a RabbitMQ queue, classic or quorum; any number of consumers share it (AMQP 0-9-1)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar
from urllib.parse import unquote, urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ProbableAuthenticationError,
)
from pydantic import AfterValidator, Field

from collectors._broker import Broker, bare, hush
from collectors._link import Message, Session
from monitor.ports import PluginError

hush("aio_pika", "aiormq")

_HEARTBEAT = 20  # seconds


def _url(url: str) -> str:
    return bare(url, "amqp", "amqps")


class RabbitMQ(Broker):
    """Consumes one queue with manual acknowledgement."""

    failures: ClassVar[tuple[type[Exception], ...]] = (OSError, AMQPError, ChannelInvalidStateError)
    refusals: ClassVar[tuple[type[Exception], ...]] = (AuthenticationError, ProbableAuthenticationError)

    url: Annotated[str, AfterValidator(_url)] = Field(
        default="amqp://127.0.0.1:5672/", description="`amqp://host:port/vhost`, or `amqps://` for TLS."
    )
    queue: str = Field(min_length=1, description="The queue; it must exist.")
    prefetch: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=2000, description="Messages that may be on their way to the facts at once."
    )

    @property
    def where(self) -> str:
        """For people."""
        return f"RabbitMQ at {self.url}"

    async def connect(self) -> Session:
        """One connection with two channels: a failed question closes the channel that it was asked on."""
        parts = urlsplit(self.url)
        tls = parts.scheme == "amqps"
        connection = await aio_pika.connect(
            host=parts.hostname or "",
            port=parts.port or (5671 if tls else 5672),
            login=self.user or "guest",
            password=self.password.get_secret_value() if self.password else "guest",
            virtualhost=unquote(parts.path[1:]) or "/",
            ssl=tls,
            ssl_context=self.context() if tls else None,
            timeout=8,
            heartbeat=_HEARTBEAT,
        )
        try:
            session = _Consumer(connection, self.queue, await connection.channel(), await connection.channel())
            await session.begin(self.prefetch)
        except ChannelNotFoundEntity:
            await connection.close()
            raise PluginError(
                f"{self.where} has no queue {self.queue}: declare it, or mend queue", retry=True
            ) from None
        except BaseException:
            await connection.close()
            raise
        return session


class _Consumer(Session):
    """Takes what is pushed; never more than the prefetch is under way."""

    stamps: ClassVar[bool] = False

    def __init__(
        self, connection: AbstractConnection, queue: str, channel: AbstractChannel, asking: AbstractChannel
    ) -> None:
        self._connection, self._name = connection, queue
        self._channel, self._asking = channel, asking
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()
        self._unsettled = 0
        self._cancelled = False

    async def begin(self, prefetch: int) -> None:
        """Let the broker push."""
        await self._channel.set_qos(prefetch_count=prefetch)
        queue = await self._channel.declare_queue(self._name, passive=True)
        channel = await self._channel.get_underlay_channel()
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)
        await queue.consume(self._on_message)

    async def read(self, wait: float) -> Sequence[Message]:
        """All that was pushed meanwhile."""
        if self._arrived.empty():
            if self._cancelled:
                raise ConnectionError(0, "the queue was taken away")
            if self._connection.is_closed or self._channel.is_closed:
                raise ConnectionError(0, "the connection was closed")
            try:
                first = await asyncio.wait_for(self._arrived.get(), wait)
            except TimeoutError:
                return ()
        else:
            first = self._arrived.get_nowait()
        return (first, *(self._arrived.get_nowait() for _ in range(self._arrived.qsize())))

    async def settle(self, messages: Sequence[Message]) -> None:
        """Acknowledge the last one and all before it: a channel numbers its deliveries."""
        channel = await self._channel.get_underlay_channel()
        await channel.basic_ack(messages[-1].handle, multiple=True)
        self._unsettled -= len(messages)

    async def lag(self) -> int:
        """What is ready in the queue, and what is on its way through us; not what other consumers hold."""
        try:
            queue = await self._asking.declare_queue(self._name, passive=True)
        except ChannelNotFoundEntity:
            raise PluginError(f"queue {self._name} is gone: declare it, or mend queue", retry=True) from None
        return (queue.declaration_result.message_count or 0) + self._unsettled

    async def close(self) -> None:
        """Close the connection; the broker gives what was not settled to another at once."""
        await self._connection.close()

    def _on_cancel(self, _frame: object) -> None:
        """The broker sends nothing more, and the channel stays open: the queue was deleted, or its node went."""
        self._cancelled = True

    async def _on_message(self, told: AbstractIncomingMessage) -> None:
        self._unsettled += 1
        place = f"{self._name} delivery {told.delivery_tag}" + (
            f" message {told.message_id}" if told.message_id else ""
        )
        self._arrived.put_nowait(Message(place, told.body, told.content_encoding or "", handle=told.delivery_tag))
