"""A reader of mailboxes that counts what it is given, in place of one that understands it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import PrivateAttr

from collectors._letters import Raw, Read
from collectors.imap import Imap
from monitor.model import Batch, Rejected
from monitor.ports import Memory, PluginError


class Counting(Imap):
    """Each letter is a row with its content; those that hold a word of ``_unsure`` are to be offered later."""

    _unsure: set[bytes] = PrivateAttr(default_factory=set)

    def read(self, letters: Sequence[Raw], now: datetime) -> Read:
        later = {place for place, letter in enumerate(letters) if any(word in letter.content for word in self._unsure)}
        told = [letter for place, letter in enumerate(letters) if place not in later]
        columns = {"content": [letter.content for letter in told], "to": [letter.to for letter in told]}
        return Read(Batch(columns, places=[letter.where for letter in told]), frozenset(later))


@dataclass
class Service:
    """What the service does with a source: takes batches, remembers the cursor of the last, calls again."""

    source: Imap
    cursor: Mapping[str, Any] = field(default_factory=dict)
    letters: list[bytes] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    to: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    reads: int = 0  # passes that found nothing more

    def read(self, batches: int | None = None, *, dies: bool = False) -> int:
        """One call of ``collect``; ends after so many batches, before what follows the last ``yield`` if it ``dies``.

        Returns how many batches came.
        """
        count = 0
        run = self.source.collect(Memory(self.cursor), datetime.now(UTC))
        for batch in run:
            self._take(batch)
            count += 1
            if count == batches:
                if not dies:
                    next(run, None)
                run.close()
                break
        return count

    def emptied(self) -> None:
        """Read until all has been read, whatever fails meanwhile; the wait for more is not begun."""
        done = self.reads
        while self.reads == done:
            try:
                for batch in self.source.collect(Memory(self.cursor), datetime.now(UTC)):
                    self._take(batch)
                    if self.reads > done:
                        break
            except PluginError as error:
                if not self.errors or self.errors[-1] != str(error):
                    self.errors.append(str(error))
                time.sleep(0.02)  # as the service would; the source itself knows when to try again

    def _take(self, batch: Batch) -> None:
        self.letters += batch.columns.get("content", ())
        self.to += batch.columns.get("to", ())
        self.places += batch.places
        self.rejected += batch.rejected
        self.cursor = dict(batch.cursor)
        self.reads += not batch.columns


@contextmanager
def running(service: Service) -> Iterator[Service]:
    """The service reads in a thread of its own, again and again, until the end; then the source is closed."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                service.read()
            except PluginError as error:
                if not service.errors or service.errors[-1] != str(error):
                    service.errors.append(str(error))
            ended.wait(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield service
    finally:
        ended.set()
        service.source.close()
        thread.join(30)
        assert not thread.is_alive()
