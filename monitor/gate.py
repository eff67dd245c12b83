"""The decide path: which leases are in force, and what a sender is told. Light, and on the senders' hot path.

It reads the ledger each second and never writes it. When the ledger can't be read it goes on with what it knows,
and each lease ends at its time: if we die, mail flows again (ADR 3).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from monitor.core.leases import Answer, active, answer, generation
from monitor.ledger import actions
from monitor.model import Lease, Scope, labels

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The clock of the composition roots."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LeaseSet:
    """The leases in force when it was read; ``generation`` moves with every change, the end of a lease included."""

    generation: int
    leases: tuple[Lease, ...] = ()
    index: Index = field(default_factory=lambda: Index(()), compare=False)


class Index:
    """Leases by the labels that they name, so that a question costs the number of such shapes, not of leases."""

    def __init__(self, leases: Iterable[Lease]) -> None:
        shapes: dict[tuple[int, ...], dict[tuple[str, ...], list[Lease]]] = defaultdict(lambda: defaultdict(list))
        for lease in leases:
            values = labels(lease.scope)
            shape = tuple(place for place, value in enumerate(values) if value)
            shapes[shape][tuple(values[place] for place in shape)].append(lease)
        self._shapes = [(shape, dict(found)) for shape, found in shapes.items()]

    def covering(self, message: Scope) -> list[Lease]:
        """The leases whose scope covers the message."""
        values = labels(message)
        return [
            lease for shape, found in self._shapes for lease in found.get(tuple(values[place] for place in shape), ())
        ]


class Gate:
    """Answers senders from the newest set of leases that it could read."""

    def __init__(self, ledger: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._ledger = ledger
        self._clock = clock
        self._set = LeaseSet(generation=0)
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._closed = False
        self.read_at: datetime | None = None

    def refresh(self) -> None:
        """Read the ledger, and wake those who wait when the set has changed.

        One at a time: a slow reader must not put an older set in the place of a newer one.
        """
        with self._reading:
            self._refresh()

    def _refresh(self) -> None:
        now = self._clock()
        try:
            with self._ledger.connect().execution_options(reads=True) as conn:
                log_in_force = actions.in_force(conn, now)
                last, over = actions.generation_parts(conn, now)
        except SQLAlchemyError as error:
            log.warning("ledger not readable, leases go on to their ends", extra={"error": type(error).__name__})
            return
        leases = active(log_in_force, now)
        fresh = LeaseSet(generation(last, over), leases, Index(leases))
        self.read_at = now
        changed = fresh != self._set
        self._set = fresh
        if changed:
            self._wake()

    def current(self) -> LeaseSet:
        """The set as last read, without leases that have ended since."""
        now = self._clock()
        known = self._set
        live = tuple(lease for lease in known.leases if lease.until > now)
        return known if len(live) == len(known.leases) else LeaseSet(known.generation, live, known.index)

    @property
    def generation(self) -> int:
        """Of the set as last read; costs nothing, however many leases there are."""
        return self._set.generation

    def check(self, message: Scope, key: str = "") -> Answer:
        """What the sender of a message with these labels is told."""
        now = self._clock()
        return answer([lease for lease in self._set.index.covering(message) if lease.until > now], message, key)

    async def wait(self, known: int, seconds: float) -> LeaseSet:
        """The current set, as soon as its generation is not ``known``, or after ``seconds``."""
        mine = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(mine)
        try:
            if self._set.generation == known and not self._closed:
                async with asyncio.timeout(seconds):
                    await mine[1].wait()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(mine)
        return self.current()

    def close(self) -> None:
        """Let those who wait go: the service ends."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            sleepers: Sequence[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = tuple(self._waiting)
        for loop, event in sleepers:
            loop.call_soon_threadsafe(event.set)

    @property
    def now(self) -> datetime:
        """The gate's clock, so that answers and leases are measured by the same one."""
        return self._clock()
