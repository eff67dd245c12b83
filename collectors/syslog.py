"""What became of each message, from log lines that syslog daemons send: as sendlog, without a file between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from pydantic import Field, PrivateAttr

from collectors._listener import Heard, Listener
from collectors._listening import Listening
from collectors._maillog import MailLog
from collectors._postfix import Parser
from monitor.model import Batch
from monitor.ports import Duration, Memory

_PIECE = 1 << 20  # bytes of lines that make a batch, or nearly
_BEAT = 1.0  # seconds between two batches that only tell that nothing came
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Syslog(MailLog, Listening):
    """Listens for what syslog daemons of one or many Postfix machines forward."""

    holds: ClassVar[bool] = True

    # What was received and not yet read is lost where the process dies.
    every: Duration = Field(default=timedelta(seconds=0.2), description="how often it is read")
    _listener: Listener | None = PrivateAttr(default=None)
    _parser: Parser | None = PrivateAttr(default=None)
    _heard: deque[Heard] = PrivateAttr(default_factory=deque)
    _untaken: Batch | None = PrivateAttr(default=None)
    _quiet: float = PrivateAttr(default=0.0)
    _closed: bool = PrivateAttr(default=False)

    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        """The lines that have come, a batch for each megabyte or so; what can't be taken is handed over again."""
        if self._listener is None:
            if self._closed:
                return
            self._listener = self.opened()
        parser = self._resumed(memory, now)
        if self._untaken is not None:
            yield self._untaken
            self._untaken = None
        while heard := self._next(self._listener):
            yield self._batch(parser, heard, now)
            self._untaken = None
        if time.monotonic() - self._quiet >= _BEAT and not self._closed:
            yield Batch({}, cursor={"last": parser.last}, watermark=self._watermark(parser, now, quiet=True))
            self._quiet = time.monotonic()

    def close(self) -> None:
        """Hang up; what was received is read by one more ``collect``, as one batch."""
        self._closed = True
        if self._listener:
            self._listener.close()

    def _resumed(self, memory: Memory, now: datetime) -> Parser:
        if self._parser is None:
            self._parser = self.parser(now, memory)
            self._parser.gap()  # nobody listened before
        self._parser.resume(now)
        return self._parser

    def _next(self, listener: Listener) -> Heard | None:
        """The next lines; from the sockets only when all that came before is taken, so that senders wait with us."""
        if self._closed:
            rest = [*self._heard, listener.take()]
            self._heard.clear()
            broken = any(heard.broken for heard in rest)
            texts, rejected = (
                (text for heard in rest for text in heard.texts),
                (r for heard in rest for r in heard.rejected),
            )
            whole = Heard([*texts], broken, [*rejected])
            return whole if whole.texts or whole.rejected else None
        if not self._heard:
            self._heard.extend(_pieces(listener.take()))
        return self._heard.popleft() if self._heard else None

    def _batch(self, parser: Parser, heard: Heard, now: datetime) -> Batch:
        if heard.broken:
            parser.gap()
        batch = parser.gather(heard.texts)
        batch = replace(
            batch,
            cursor={"last": parser.last},
            watermark=self._watermark(parser, now, quiet=False),
            rejected=[*heard.rejected, *batch.rejected],
        )
        self._untaken = batch
        return batch

    def _watermark(self, parser: Parser, now: datetime, *, quiet: bool) -> datetime | None:
        if not parser.last:
            return None
        last = min(_EPOCH + timedelta(microseconds=parser.last), now)
        # A sender that is connected and quiet says that nothing happened; one that hangs looks the same.
        if quiet and self._listener and self._listener.connected and now - last <= self.silence:
            return now - self.lag
        return last - self.lag


def _pieces(heard: Heard) -> Iterator[Heard]:
    """The same in parts of about a megabyte; what is wrong is told with the first."""
    part, size = Heard([], heard.broken, heard.rejected), 0
    for peer, text in heard.texts:
        if size >= _PIECE:
            yield part
            part, size = Heard(), 0
        part.texts.append((peer, text))
        size += len(text)
    if part.texts or part.rejected:
        yield part
