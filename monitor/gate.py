"""The decide path: which leases are in force, and what a sender is told. Light, and on the senders' hot path.

It reads the ledger and never writes it. When the ledger can't be read it goes on with what it knows, and each lease
ends at its time: if we die, mail flows again (ADR 3).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from monitor.core.index import Index
from monitor.core.leases import active, decided, generation, granted, spares
from monitor.ledger import actions, providers
from monitor.model import SEND, Action, Answer, Deed, Lease, Scope, labels
from monitor.ports import ALL

log = logging.getLogger(__name__)

CHANGES = 1_000  # kept for those who come back and ask what they missed
LEAP = timedelta(seconds=2)  # by which wall clock and steady clock may part before all is read anew


def utc_now() -> datetime:
    """The clock of the composition roots."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LeaseSet:
    """The leases in force at a time; ``generation`` moves with every change, the end of a lease included."""

    generation: int
    leases: tuple[Lease, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What is between two generations: leases that came into force, and ids of those that are over."""

    since: int
    generation: int
    granted: tuple[Lease, ...] = ()
    ended: tuple[str, ...] = ()


class Gate:
    """Answers senders from the newest leases that it could read."""

    def __init__(self, ledger: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._ledger = ledger
        self._clock = clock
        self._index = Index()
        self._generation = 0
        self._book = _Book()
        self._providers: dict[str, str] = {}
        self._learnt_at: datetime | None = None
        self._changes: deque[Change] = deque(maxlen=CHANGES)
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._lead: timedelta | None = None  # of the wall clock before the steady one, when last looked at
        self._readable = True
        self.closed = False
        self.read_at: datetime | None = None

    def refresh(self) -> None:
        """Read what is new in the ledger, and wake those who wait when the leases have changed.

        One at a time: a slow reader must not put an older set in the place of a newer one.
        """
        with self._reading:
            now = self._clock()
            try:
                with self._ledger.connect().execution_options(reads=True) as conn:
                    change = self._book.read(conn, now, anew=self._leapt(now))
                    self._learn(conn)
                self.read_at, self._readable = now, True
            except SQLAlchemyError as error:
                if self._readable:  # once a change, not each time
                    log.warning(
                        "ledger not readable, leases go on to their ends", extra={"error": type(error).__name__}
                    )
                self._readable = False
                change = self._book.tick(now)
            if change.generation != self._generation or change.granted or change.ended:
                self._publish(change)

    def _leapt(self, now: datetime) -> bool:
        # A clock that was wrong has ended leases that are in force, or begun those that are not.
        lead = now - datetime.fromtimestamp(time.monotonic(), UTC)
        before, self._lead = self._lead, lead
        return before is not None and abs(lead - before) > LEAP

    def _learn(self, conn: Connection) -> None:
        newest = providers.newest(conn)
        if newest != self._learnt_at:
            self._providers |= providers.known(conn, self._learnt_at)
            self._learnt_at = newest

    def _publish(self, change: Change) -> None:
        self._index.change(change.granted, change.ended)
        self._generation = change.generation
        self._changes.append(change)
        self._wake()

    def take(self, leases: Iterable[Lease]) -> None:
        """Put these leases in the place of what the log says: for those who have them from elsewhere."""
        self._publish(Change(self._generation, self._generation + 1, tuple(leases)))

    @property
    def waiting(self) -> int:
        """How many wait for a change."""
        return len(self._waiting)

    def current(self) -> LeaseSet:
        """The set as last read, without leases that have ended since."""
        now = self._clock()
        number = self._generation
        leases = tuple(self._index.leases.values())
        return LeaseSet(number, tuple(lease for lease in leases if lease.until > now))

    @property
    def generation(self) -> int:
        """Of the set as last read; costs nothing, however many leases there are."""
        return self._generation

    def changes(self, known: int) -> tuple[Change, ...] | None:
        """What happened after the generation ``known``, oldest first; None if that is not remembered."""
        if known == self._generation:
            return ()
        found = tuple(self._changes)
        for place, change in enumerate(found):
            if change.since == known:
                return found[place:]
        return None

    def covering(self, names: tuple[str, ...]) -> tuple[Lease, ...]:
        """The leases that cover a message with these labels (in the order of LABELS), the deciding one first.

        Some may have ended by now.
        """
        return self._index.covering(names)

    def check(self, message: Scope, key: str = "", knows: frozenset[str] = ALL) -> Answer:
        """What the sender of a message with these labels is told (see ``ports.Current``)."""
        now = self._clock()
        lease = next((one for one in self._index.covering(labels(message)) if one.until > now), None)
        said = decided(lease, key)
        if lease is None or not said.held or knows == ALL:
            return said
        holes = [hole for hole in self._index.holes if hole.until > now]
        return SEND if spares(holes, lease, message, knows) else said

    def provider(self, domain: str) -> str:
        """The mailbox provider of a recipient domain, as learnt; "" unknown."""
        return self._providers.get(domain, "")

    async def wait(self, known: int, seconds: float) -> None:
        """Return as soon as the generation is not ``known``, or after ``seconds``."""
        mine = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(mine)
        try:
            if self._generation == known and not self.closed:
                async with asyncio.timeout(seconds):
                    await mine[1].wait()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(mine)

    def close(self) -> None:
        """Let those who wait go: the service ends."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            sleepers = tuple(self._waiting)
        for loop in {loop for loop, _ in sleepers}:
            loop.call_soon_threadsafe(_set, [event for mine, event in sleepers if mine is loop])

    @property
    def now(self) -> datetime:
        """The gate's clock, so that answers and leases are measured by the same one."""
        return self._clock()


def _set(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()


class _Book:
    """The fold over the log, kept as it goes on: ``read`` costs what is new, not what is in force."""

    def __init__(self) -> None:
        self._live: dict[str, Lease] = {}
        self._ends: list[tuple[datetime, str]] = []
        self._later: list[Action] = []  # entries of a clock that runs before ours
        self._resumed: set[str] = set()  # what was ended before it began, by two clocks that differ
        self._last = -1  # nothing was read yet
        self._entries = 0
        self._over = 0
        self._number = 0
        self._ahead = 0  # of what log and clock say, by now

    def read(self, conn: Connection, now: datetime, *, anew: bool) -> Change:
        """What changed since the last call."""
        last = actions.last(conn)
        if anew or self._last < 0 or last < self._last:
            self._last = last
            return self._anew(conn, now)
        if last > self._last:
            self._later += actions.after(conn, self._last)
            self._last = last
        return self.tick(now)

    def tick(self, now: datetime) -> Change:
        """What changed by time alone, and by the entries that were read ahead of their time."""
        due = [action for action in self._later if action.at <= now]
        if due:
            self._later = [action for action in self._later if action.at > now]
        fresh: dict[str, Lease] = {}
        over: list[str] = []
        for action in due:
            if lease := granted(action):
                if lease.id in self._resumed:
                    self._resumed.discard(lease.id)
                    self._over += 1
                    continue
                fresh[lease.id] = self._live[lease.id] = lease
                heapq.heappush(self._ends, (lease.until, lease.id))
            elif action.deed is Deed.RESUME and action.lease in self._live:
                del self._live[action.lease]
                over.append(action.lease)
            elif action.deed is Deed.RESUME:
                self._resumed.add(action.lease)
        while self._ends and self._ends[0][0] <= now:
            gone = heapq.heappop(self._ends)[1]
            if self._live.pop(gone, None):
                over.append(gone)
        self._entries += len(due)
        self._over += len(over)
        return self._changed(fresh, over)

    def _anew(self, conn: Connection, now: datetime) -> Change:
        before = self._live
        found = actions.in_force(conn, now)
        self._live = {lease.id: lease for lease in active(found, now)}
        self._resumed = {action.lease for action in found if action.deed is Deed.RESUME and action.at <= now}
        self._later = [*actions.since(conn, now)]
        self._ends = [(lease.until, lease.id) for lease in self._live.values()]
        heapq.heapify(self._ends)
        self._entries, self._over = actions.generation_parts(conn, now)
        fresh = {name: lease for name, lease in self._live.items() if name not in before}
        return self._changed(fresh, [name for name in before if name not in self._live])

    def _changed(self, fresh: dict[str, Lease], over: list[str]) -> Change:
        since = self._number
        self._number = self._ahead + generation(self._entries, self._over)
        if (fresh or over) and self._number <= since:
            # A clock that was set back has undone ends: who knows the number before must see that there is news.
            self._ahead += since + 1 - self._number
            self._number = since + 1
        stays = tuple(lease for name, lease in fresh.items() if name in self._live)
        return Change(since, self._number, stays, tuple(name for name in over if name not in fresh))
