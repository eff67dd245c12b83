"""What is done at the doors, for the access log: the first use of an hour at once, and how often when it has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from monitor.ledger import access_log
from monitor.ledger.access_log import Entry

log = logging.getLogger(__name__)

KINDS = 10_000  # different uses that are counted at a time; the rest together
WAITING = 10_000  # entries that wait for a ledger that is locked
_HOUR = timedelta(hours=1)
_Use = tuple[str, str, str, str]
_OTHER: _Use = ("other", "more kinds of use than are counted", "", "")


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a route. ``on``: which thing of many, where the route has one; ``alone``: its entry is its own."""

    who: str
    did: str
    on: str
    result: str
    alone: bool


@dataclass(slots=True)
class _Counted:
    since: datetime
    count: int = 0


class Notes:
    """Takes notes quickly, and writes them when ``flush`` is called. Safe to use from many threads."""

    def __init__(self, ledger: Engine, clock: Callable[[], datetime]) -> None:
        self._ledger, self._clock = ledger, clock
        self._counted: dict[_Use, _Counted] = {}
        self._waiting: list[Entry] = []
        self._lost = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def note(self, who: str, did: str, on: str, result: str) -> None:
        """One use of a route, of which there may be many."""
        use = (who, did, on, result)
        with self._lock:
            counted = self._counted.get(use)
            if counted is None:
                if len(self._counted) >= KINDS:
                    use = _OTHER
                    counted = self._counted.get(use)
                if counted is None:
                    counted = self._counted[use] = _Counted(self._clock())
                    self._wait(Entry(counted.since, *use))
            counted.count += 1

    def add(self, entry: Entry) -> None:
        """One entry that stands by itself."""
        with self._lock:
            self._wait(entry)

    def flush(self, *, ending: bool = False) -> None:
        """Write what is new; ``ending``: counts of hours that go on, too. A ledger that is locked is tried again."""
        with self._writing:
            with self._lock:
                now = self._clock()
                over = [
                    use for use, one in self._counted.items() if ending or not timedelta() <= now - one.since < _HOUR
                ]
                for use in over:
                    one = self._counted.pop(use)
                    if one.count > 1:
                        self._wait(Entry(now, *use, {"times": one.count, "since": one.since.isoformat()}))
                if self._lost:
                    self._waiting.append(
                        Entry(now, "mailvane", "notes lost: the ledger was locked", "", str(self._lost))
                    )
                    self._lost = 0
                entries, self._waiting = self._waiting, []
            if not entries:
                return
            try:
                with self._ledger.begin() as conn:
                    access_log.append_all(conn, entries)
            except SQLAlchemyError as error:
                log.warning("access log not written, tried again", extra={"error": type(error).__name__})
                with self._lock:
                    self._waiting = [*entries, *self._waiting]

    def _wait(self, entry: Entry) -> None:
        if len(self._waiting) < WAITING:
            self._waiting.append(entry)
        else:
            self._lost += 1
