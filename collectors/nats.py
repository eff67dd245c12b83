"""Events from a NATS JetStream stream, by a durable pull consumer that any number of us share."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError, Error
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError
from pydantic import AfterValidator, Field, SecretStr, field_validator

from collectors._broker import Broker, bare, hush
from collectors._link import Message, Session
from monitor.ports import Duration, PluginError

hush("nats")

_PULL = 1000  # messages that are asked for at once
_PULL_BYTES = 16 << 20
_PULL_SECONDS = 5.0  # that the server waits for messages before it says that there are none
_GRACE = 5.0  # seconds after which a pull without an answer is lost
_ENDS = ("404", "408")  # no messages, and none within the time
_BATCH_ENDS = ("Batch Completed", "Message Size Exceeds MaxBytes", "Exceeded MaxAckPending", "Leadership Change")


def _urls(servers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(bare(server, "nats", "tls") for server in servers)


class Nats(Broker):
    """Pulls from one stream, and acknowledges each message once its events are in the facts."""

    secrets: ClassVar[tuple[str, ...]] = ("password", "token")
    failures: ClassVar[tuple[type[Exception], ...]] = (OSError, Error)
    refusals: ClassVar[tuple[type[Exception], ...]] = (AuthorizationError,)

    servers: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_urls)] = Field(
        default=("nats://127.0.0.1:4222",), description="URLs of the cluster's servers; `tls://` for TLS."
    )
    stream: str = Field(description="The stream; it must exist.")
    consumer: str = Field(
        default="mailvane",
        description="Name of the durable consumer; made if there is none, shared by all who name it.",
    )
    subject: str = Field(default="", description="Only messages of this subject, when the consumer is made.")
    token: SecretStr | None = Field(default=None, description="Token to log in with, in place of user and password.")
    ack_wait: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=3),
        description="After so long without a word from us others get our messages, when the consumer is made.",
    )
    max_pending: Annotated[int, Field(ge=1)] = Field(
        default=50_000, description="Messages on their way to the facts at most, when the consumer is made."
    )

    @field_validator("stream", "consumer")
    @classmethod
    def _name(cls, name: str) -> str:
        if not name or any(sign in name for sign in ".*>/\\ \t\r\n"):
            raise ValueError(f"{name!r} is no name: no dots, blanks, slashes or wildcards")
        return name

    @property
    def where(self) -> str:
        """For people."""
        return f"NATS at {', '.join(self.servers)}"

    async def connect(self) -> Session:
        """Connect to the first server that answers."""
        failure: Exception | None = None
        errors = _Errors()
        for server in self.servers:
            try:
                client = await self._client(server, errors)
                break
            except (OSError, Error) as error:
                failure = error
        else:
            assert failure  # noqa: S101  # there is at least one server
            raise failure
        errors.connecting, errors.last = False, None
        try:
            return await self._session(client)
        except BaseException as error:
            await _end(client)
            if isinstance(error, TimeoutError) and errors.last:  # a question that we may not ask has no answer
                raise errors.last from error
            raise

    async def _client(self, server: str, errors: _Errors) -> Client:
        tls = server.startswith("tls:")
        options: dict[str, Any] = {
            "user": self.user or None,
            "password": self.password.get_secret_value() if self.password else None,
            "token": self.token.get_secret_value() if self.token else None,
            "tls": self.context() if tls or self.ca_file or self.cert_file else None,
        }
        client = Client()
        try:
            # A connection that breaks is not mended behind our back: what was read by it is given up, and read again.
            await client.connect(
                server,
                name="mailvane",
                error_cb=errors.tell,
                allow_reconnect=False,
                connect_timeout=5,
                ping_interval=10,
                max_outstanding_pings=2,
                **options,
            )
        except BaseException as error:
            await _end(client)
            if isinstance(error, Error) and "auth" in str(error).lower():
                raise AuthorizationError from error
            raise
        return client

    async def _session(self, client: Client) -> Session:
        js = client.jetstream(timeout=5)
        try:
            await js.stream_info(self.stream)
        except NotFoundError:
            raise PluginError(
                f"{self.where} has no stream {self.stream}: create it, or mend stream", retry=True
            ) from None
        except ServiceUnavailableError:
            raise PluginError(f"{self.where} runs without JetStream: start it with -js", retry=True) from None
        info = await self._consumer(js)
        session = _Pull(client, js, self.stream, self.consumer, self._patience(info))
        await session.begin()
        return session

    async def _consumer(self, js: JetStreamContext) -> ConsumerInfo:
        try:
            info: ConsumerInfo = await js.consumer_info(self.stream, self.consumer)
        except NotFoundError:
            config = ConsumerConfig(
                name=self.consumer,
                durable_name=self.consumer,
                filter_subject=self.subject or None,
                ack_wait=self.ack_wait.total_seconds(),
                max_ack_pending=self.max_pending,
            )
            made: ConsumerInfo = await js.add_consumer(self.stream, config=config)
            return made
        if info.config.deliver_subject or info.config.ack_policy != AckPolicy.EXPLICIT:
            raise PluginError(
                f"consumer {self.consumer} of {self.stream} is not one that is pulled with explicit acknowledgement: "
                "name another one",
                retry=True,
            )
        return info

    def _patience(self, info: ConsumerInfo) -> float:
        """Seconds that the server waits for a word of ours."""
        return float(min([info.config.ack_wait or self.ack_wait.total_seconds(), *(info.config.backoff or ())]))


class _Errors:
    """What the client is told beside its calls."""

    def __init__(self) -> None:
        self.connecting = True
        self.last: Exception | None = None

    async def tell(self, error: Exception) -> None:
        """While it connects this ends its own tries, which would go on without end."""
        self.last = error
        if self.connecting:
            raise error


class _Pull(Session):
    """One pull at a time; its messages come to an inbox of our own."""

    def __init__(self, client: Client, js: JetStreamContext, stream: str, consumer: str, ack_wait: float) -> None:
        self._client, self._js = client, js
        self._stream, self._name = stream, consumer
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._arrived = asyncio.Event()
        self._buffer: deque[Message] = deque()
        self._wanted = 0  # messages of the present pull that are still to come
        self._lost_at = 0.0
        self._open: dict[str, None] = {}  # where to acknowledge what is not settled
        self._ack_wait = ack_wait
        self._extended = asyncio.get_running_loop().time()
        self._failure: Exception | None = None

    async def begin(self) -> None:
        """Listen on the inbox."""
        self._interest = await self._client.subscribe(self._inbox, cb=self._on_message)

    async def read(self, wait: float) -> Sequence[Message]:
        """What the present pull has brought, or a new one."""
        if self._failure:
            raise self._failure
        if self._client.is_closed:
            raise ConnectionError(0, "the connection was closed")
        now = asyncio.get_running_loop().time()
        if not self._buffer:
            if not self._wanted or now > self._lost_at:
                await self._pull(now)
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), wait)
            except TimeoutError:
                return ()
        found = tuple(self._buffer)
        self._buffer.clear()
        return found

    async def settle(self, messages: Sequence[Message]) -> None:
        """Acknowledge each; one whose acknowledgement is lost comes again, and counts nothing."""
        for message in messages:
            await self._client.publish(message.handle)
            self._open.pop(message.handle, None)
        await self._client.flush(5)

    async def lag(self) -> int:
        """What the consumer has not given to anybody yet, and what those have not acknowledged."""
        try:
            info = await self._js.consumer_info(self._stream, self._name)
        except NotFoundError:
            raise PluginError(
                f"consumer {self._name} of {self._stream} was removed: it is made anew", retry=True
            ) from None
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def tend(self) -> None:
        """Say that work goes on, well before the server would give the messages to another."""
        now = asyncio.get_running_loop().time()
        if now - self._extended < self._ack_wait / 3:
            return
        self._extended = now
        for reply in tuple(self._open):
            await self._client.publish(reply, Msg.Ack.Progress)

    async def close(self) -> None:
        """Give back what was not settled, and close the connection."""
        with suppress(Error, OSError):
            await self._interest.unsubscribe()
            await self._client.flush(1)  # of the end of our interest: what we give back must not come to us once more
            for reply in tuple(self._open):
                await self._client.publish(reply, Msg.Ack.Nak)
            await self._client.flush(1)
        await _end(self._client)

    async def _pull(self, now: float) -> None:
        self._wanted = _PULL
        self._lost_at = now + _PULL_SECONDS + _GRACE
        most = max(_PULL_BYTES, 2 * self._client.max_payload)  # a message that is longer would never come
        wish = {"batch": _PULL, "expires": int(_PULL_SECONDS * 1e9), "max_bytes": most}
        await self._client.publish(self._next, json.dumps(wish).encode(), self._inbox)

    async def _on_message(self, msg: Msg) -> None:
        if not msg.reply:
            self._on_status(msg)
            return
        self._wanted -= 1
        stamp, sequence = _placed(msg.reply)
        headers = {name.lower(): value for name, value in (msg.headers or {}).items()}
        place = f"{self._stream} message {sequence}"
        self._open[msg.reply] = None
        self._buffer.append(
            Message(place, msg.data, headers.get("content-encoding", ""), stamp // 1000, handle=msg.reply)
        )
        self._arrived.set()

    def _on_status(self, msg: Msg) -> None:
        headers = msg.headers or {}
        status, words = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":  # a sign of life
            return
        self._wanted = 0
        if status in _ENDS or words.startswith(_BATCH_ENDS):
            return
        self._failure = APIError(code=int(status) if status.isdigit() else 0, description=words or "no answer")
        self._arrived.set()


async def _end(client: Client) -> None:
    with suppress(TimeoutError, OSError, Error):  # a handshake that failed may keep it waiting
        await asyncio.wait_for(client.close(), 1)


def _placed(reply: str) -> tuple[int, int]:
    """(when the stream took it in POSIX nanoseconds, its sequence), of where to acknowledge a message.

    That is ``$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.CONSUMER-SEQUENCE.STAMP.PENDING``, with domain and account
    before the stream and a random token at the end where the server has domains.
    """
    parts = reply.split(".")
    first = 2 if len(parts) < 11 else 4
    return int(parts[first + 5]), int(parts[first + 3])
