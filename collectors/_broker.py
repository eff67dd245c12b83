"""What the brokers have in common: events in messages, which the broker may forget once they are in the facts."""

from __future__ import annotations

import logging
import math
import ssl
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from collectors._bodies import again
from collectors._link import Closed, Link, Read, Session
from monitor.model import Batch, Rejected
from monitor.ports import Collector, Duration, Memory, PluginError
from monitor.scrub import scrub

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TURN = 30.0  # seconds after which a source that never runs dry looks at the clock again


class Broker(Collector):
    """A consumer of one broker, which shares its work with all others of the same name."""

    secrets: ClassVar[tuple[str, ...]] = ("password",)
    settles: ClassVar[bool] = True
    # What the library raises when the broker fails, and when it refuses us for who we are.
    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    refusals: ClassVar[tuple[type[Exception], ...]] = ()

    user: str = Field(default="", description="Name to log in with.")
    password: SecretStr | None = Field(default=None, description="Password of that user.")
    ca_file: Path | None = Field(
        default=None, description="Certificates that the broker's is checked against, in place of the system's."
    )
    cert_file: Path | None = Field(default=None, description="Our certificate, where the broker wants one.")
    key_file: Path | None = Field(default=None, description="The key of our certificate, if it is in another file.")
    delay: Duration = Field(
        default=timedelta(seconds=10), description="The longest time from an outcome to its arrival at the broker."
    )
    silence: Duration = Field(
        default=timedelta(minutes=15), description="A queue quiet for longer vouches for nothing until its next event."
    )
    _link: Link | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _whole(self) -> Broker:
        if self.password and not self.user:
            raise ValueError("password without user: name both")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file without cert_file: name both, or the certificate alone")
        return self

    @abstractmethod
    async def connect(self) -> Session:
        """A session of its own.

        Raises:
            PluginError: something that an operator must mend before.
        """

    @property
    @abstractmethod
    def where(self) -> str:
        """Broker and place for people, such as "NATS at nats://host:4222"."""

    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        """What waits, in batches of up to 100,000 events or a second's worth; a batch without rows moves the watermark.

        What follows a ``yield`` runs after the batch is in the facts.
        """
        if self._link is None:
            self._link = Link(self.connect)
        try:
            yield from self._batches(self._link, memory.cursor.get("last", 0), now)
        except Closed:
            return
        except self.refusals as error:
            name = f"user {self.user!r}" if self.user else "a client without a user"
            raise PluginError(f"{self.where} refuses {name}: check user and password", retry=True) from error
        except self.failures as error:
            raise PluginError(f"{self.where} {_why(error)}: start it, or mend the section", retry=True) from error

    def again(self, items: Sequence[Rejected], now: datetime) -> Batch:  # noqa: ARG002  # events carry their times
        """Messages and lines of them that held no events."""
        return again(items)

    def waiting(self) -> float | None:
        """Messages that are not in the facts yet, as the broker told within the last seconds; NaN where it did not."""
        return self._link.lag if self._link else math.nan

    def close(self) -> None:
        """End soon; what is not settled goes back to the broker."""
        if self._link is None:
            self._link = Link(self.connect)
        self._link.close()

    def context(self) -> ssl.SSLContext:
        """TLS as configured.

        Raises:
            PluginError: a file can't be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            files = ", ".join(str(file) for file in (self.ca_file, self.cert_file, self.key_file) if file)
            raise PluginError(f"{files} can't be used: {error.strerror or error}", retry=True) from error
        return context

    def _batches(self, link: Link, last: int, now: datetime) -> Iterator[Batch]:
        until = time.monotonic() + _TURN
        while (read := link.read()).messages:
            if len(read.batch):
                last = _micros(now)
            yield replace(read.batch, cursor={"last": last}, watermark=self._reached(read))
            link.settle()
            if time.monotonic() > until:
                return
        # An empty broker says that nothing happened. Dead senders look the same, so after some silence it vouches for
        # nothing more.
        if last and _micros(now) - last <= self.silence // _MICROSECOND and link.measure() == 0:
            yield Batch({}, cursor={"last": last}, watermark=now - self.delay)

    def _reached(self, read: Read) -> datetime | None:
        # What the broker took later may have happened up to `delay` before.
        if read.reached is None:
            return read.batch.watermark - self.delay if read.batch.watermark else None
        return _EPOCH + read.reached * _MICROSECOND - self.delay if read.reached else None


def bare(url: str, *schemes: str) -> str:
    """The URL of a server, as written.

    Raises:
        ValueError: another scheme, no host, or credentials in it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"no URL: write {schemes[0]}://host:port") from None
    if "@" in url:
        raise ValueError("a URL with credentials: write user, and name a file by password_file")
    if parts.scheme not in schemes or not host:
        raise ValueError(f"{url!r} is no such URL: write {schemes[0]}://host:port")
    return url


def hush(*loggers: str) -> None:
    """What these libraries log of a broken connection is told by us once, and not at each try."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _why(error: Exception) -> str:
    if "[SSL" in str(error):  # aiormq makes a plain connection error of it
        return f"fails in TLS ({scrub(str(error), 200)})"
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return f"does not answer ({error.strerror})"
    return f"failed ({type(error).__name__}: {scrub(str(error), 200)})"


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND
