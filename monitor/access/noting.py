"""What is done at the doors, for the access log: the first use of an hour at once, and how often when it has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from monitor.caller import Way
from monitor.ledger import access_log
from monitor.ledger.access_log import Entry
from monitor.scrub import scrub

log = logging.getLogger(__name__)

KINDS = 10_000  # different uses that are counted at a time; the rest together
STRANGERS = 1_000  # of those that may be anonymous: who has no key can't make the log long
WAITING = 10_000  # entries that wait for a ledger that is locked
REFUSED = frozenset({"401", "403", "429"})
_HOUR = timedelta(hours=1)
_LONGEST = 200  # characters of what was used
_Kind = tuple[str, str, str, str]


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
    """Takes notes quickly, and writes them when ``flush`` is called. Safe to use from many threads.

    What waits is lost if the process is killed: a second of entries, and the counts of an hour.
    """

    def __init__(self, ledger: Engine, clock: Callable[[], datetime]) -> None:
        self._ledger, self._clock = ledger, clock
        self._counted: dict[_Kind, _Counted] = {}
        self._strangers = 0
        self._waiting: list[Entry] = []
        self._lost = 0
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self.trouble = ""  # why nothing is written now

    def use(self, use: Use) -> None:
        """One use of a route; refusals are counted, whatever the route, or anybody could make the log long."""
        if use.alone and use.result not in REFUSED:
            self.add(Entry(self._clock(), use.who, use.did, _told(use.on), use.result))
        else:
            self.note(use.who, use.did, use.on, use.result)

    def note(self, who: str, did: str, on: str, result: str) -> None:
        """One use of a route, of which there may be many."""
        kind = (who, did, on[:_LONGEST], result)
        with self._lock:
            counted = self._counted.get(kind)
            if counted is None:
                kind = self._bounded(kind)
                counted = self._counted.get(kind) or self._begun(kind)
            counted.count += 1

    def add(self, entry: Entry) -> None:
        """One entry that stands by itself."""
        with self._lock:
            self._wait(entry)

    def flush(self, *, ending: bool = False) -> None:
        """Write what is new; ``ending``: counts of hours that go on, too. A ledger that is locked is tried again."""
        with self._writing:
            with self._lock:
                self._close_hours(self._clock(), ending=ending)
                entries = self._waiting.copy()
            if not entries:
                return
            try:
                with self._ledger.begin() as conn:
                    access_log.append_all(conn, entries)
            except SQLAlchemyError as error:
                self._failed(error)
                return
            self.trouble = ""
            with self._lock:
                del self._waiting[: len(entries)]

    def _bounded(self, kind: _Kind) -> _Kind:
        """The kind, or the one that stands for all beyond the bounds."""
        stranger = kind[0] == Way.ANONYMOUS
        if len(self._counted) < KINDS and not (stranger and self._strangers >= STRANGERS):
            return kind
        return (Way.ANONYMOUS if stranger else "others", "more kinds of use than are told apart", "", "")

    def _begun(self, kind: _Kind) -> _Counted:
        counted = self._counted[kind] = _Counted(self._clock())
        self._strangers += kind[0] == Way.ANONYMOUS
        self._wait(_entry(counted.since, kind))
        return counted

    def _close_hours(self, now: datetime, *, ending: bool) -> None:
        # A clock that was set back ends an hour too.
        over = [kind for kind, one in self._counted.items() if ending or not timedelta() <= now - one.since < _HOUR]
        for kind in over:
            one = self._counted.pop(kind)
            self._strangers -= kind[0] == Way.ANONYMOUS
            if one.count > 1:
                since = one.since.isoformat(timespec="seconds")
                self._wait(_entry(now, kind, {"times": one.count, "since": since}))
        if self._lost and len(self._waiting) < WAITING:
            self._wait(Entry(now, "mailvane", "entries lost", "", "the ledger was locked", {"times": self._lost}))
            self._lost = 0

    def _wait(self, entry: Entry) -> None:
        if len(self._waiting) < WAITING:
            self._waiting.append(entry)
        else:
            self._lost += 1

    def _failed(self, error: SQLAlchemyError) -> None:
        why = str(getattr(error, "orig", "")) or type(error).__name__
        if not self.trouble:  # once, and not once a second
            log.warning("access log not written, tried again", extra={"error": why})
        self.trouble = f"the access log can't be written, {len(self._waiting)} entries wait: {why}"


def _entry(at: datetime, kind: _Kind, details: dict[str, object] | None = None) -> Entry:
    who, did, on, result = kind
    return Entry(at, who, did, _told(on), result, details or {})


def _told(on: str) -> str:
    """What was used, without the people that a path may name and what a terminal would obey."""
    return scrub(on, _LONGEST)
