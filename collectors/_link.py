"""A broker's connection in a thread of its own: it outlives a read, reads ahead, and is made anew when it fails."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NoReturn, TypeVar

from collectors._bodies import Bodies
from monitor.model import Batch

T = TypeVar("T")

_ENOUGH_LINES = 100_000  # an insert costs a tenth of a second or so, whatever its size
_ENOUGH_BYTES = 32 << 20
_GATHER = 1.0  # seconds from the first message to the batch
_PATIENCE = 0.3  # seconds that a read waits for the first message
_BREATH = 0.05  # seconds of unpacking after which the library may see to its connection
_CONNECT = 10.0  # seconds
_ANSWER = 10.0  # seconds for any other request
_FAREWELL = 2.0  # seconds
_TEND = 0.5  # seconds between two looks at what waits
_MEASURE = 4  # looks between two questions after the lag
_LONGEST_PAUSE = 8.0  # seconds between two tries to connect


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the broker gave it. ``stamp``: when the broker took it, POSIX µs, 0 where it does not say.

    ``lane`` is what keeps an order among messages, such as a partition; ``handle`` is the library's own.
    """

    place: str
    body: bytes
    encoding: str = ""
    stamp: int = 0
    lane: Hashable = None
    handle: Any = None


class Session(ABC):
    """One connection, used in its loop only. Any method may raise what the library raises; then it is given up."""

    stamps: ClassVar[bool] = True  # whether the broker says when it took a message

    @abstractmethod
    async def read(self, wait: float) -> Sequence[Message]:
        """Some messages, as soon as there are any; none after ``wait`` seconds."""

    @abstractmethod
    async def settle(self, messages: Sequence[Message]) -> None:
        """These are in the facts, and were read before all that is not settled: the broker may forget them."""

    @abstractmethod
    async def lag(self) -> int | None:
        """Messages that are not settled, as the broker counts now; None where it can't tell yet."""

    @abstractmethod
    async def close(self) -> None:
        """Give back what is not settled."""

    async def tend(self) -> None:  # noqa: B027  # most have nothing to do
        """Called twice a second: keep what is not settled from being given to others."""

    async def drained(self) -> frozenset[Hashable]:
        """Lanes in which all that there is has been read."""
        return frozenset()

    def lanes(self) -> frozenset[Hashable]:
        """All lanes that this session reads."""
        return frozenset({None})


@dataclass(frozen=True, slots=True)
class Read:
    """What one read brought; ``reached`` (POSIX µs): all that the broker took before has been read.

    0 where that is unknown, None where the broker never says.
    """

    messages: Sequence[Message] = ()
    batch: Batch = field(default_factory=lambda: Batch({}))
    reached: int | None = None


class Closed(Exception):  # noqa: N818  # no error: the service ends
    """The link was closed meanwhile."""


class Link:
    """Reads a broker by a session that ``connect`` makes. All methods are for one thread, but ``close`` and ``lag``.

    Each may raise what the library raises; the next call connects anew, after a pause that grows.
    """

    def __init__(self, connect: Callable[[], Awaitable[Session]]) -> None:
        self._connect = connect
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="broker", daemon=True)
        self._lock = threading.Lock()
        self._closed = False
        self._tasks: set[asyncio.Task[Any] | None] = set()  # that are ours
        self._pause, self._again = 0.0, 0.0
        self._failure: Exception | None = None
        self.lag = math.nan
        self._forget()
        self._thread.start()

    def _forget(self) -> None:
        self._session: Session | None = None
        self._tending: asyncio.Task[None] | None = None
        self._broken: Exception | None = None
        self._unread: deque[Message] = deque()
        self._reached: dict[Hashable, int] = {}
        self._held: Read | None = None
        self._ahead: Future[Read] | None = None

    def read(self) -> Read:
        """The next messages, or the last ones again if they were not settled; without any when there are none now."""
        session = self._ready()
        if self._held:
            return self._held
        ahead, self._ahead = self._ahead, None
        read = self._result(ahead or self._submit(self._gather(session)))
        if read.messages:
            self._held = read
            self._ahead = self._submit(self._gather(session))
        return read

    def settle(self) -> None:
        """What was read last is in the facts."""
        if self._held and self._session:
            self._result(self._submit(self._within(self._session.settle(self._held.messages))))
        self._held = None

    def measure(self) -> int | None:
        """Messages that are not settled, as the broker counts now; None where it can't tell yet."""
        return self._result(self._submit(self._measured(self._ready())))

    def close(self) -> None:
        """End soon, whatever is under way; what is not settled goes back to the broker."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ended = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        with suppress(TimeoutError, CancelledError):
            ended.result(2 * _FAREWELL)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # in the caller's thread

    def _ready(self) -> Session:
        if self._broken:
            self._failed(self._broken)
        if self._session is None:
            if self._failure and time.monotonic() < self._again:
                raise self._failure.with_traceback(None)
            self._session = self._result(self._submit(self._opened()))
            self._failure, self._pause = None, 0.0
        return self._session

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._closed:
                work.close()
                raise Closed
            return asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)

    def _result(self, future: Future[T]) -> T:
        try:
            return future.result()
        except CancelledError:
            raise Closed from None
        except Exception as error:  # noqa: BLE001  # raised again
            self._failed(error)

    def _failed(self, error: Exception) -> NoReturn:
        """Give the connection up, and say why."""
        if self._ahead:
            self._ahead.cancel()
        with suppress(CancelledError, Closed):
            self._submit(self._dropped(self._session, self._tending)).result()
        self._forget()
        self.lag = math.nan
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause or 0.5)
        self._again = time.monotonic() + self._pause
        self._failure = error
        raise error

    # in the loop

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(_told)
        self._loop.run_forever()
        self._loop.close()

    async def _tracked(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            return await work
        finally:
            self._tasks.discard(task)

    async def _opened(self) -> Session:
        session = await asyncio.wait_for(self._connect(), _CONNECT)
        self._tending = asyncio.create_task(self._tend(session))
        return session

    async def _within(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wait_for(work, _ANSWER)

    async def _measured(self, session: Session) -> int | None:
        lag = await self._within(session.lag())
        self.lag = math.nan if lag is None else float(lag)
        return lag

    async def _tend(self, session: Session) -> None:
        looks = 0
        try:
            while True:
                if looks % _MEASURE == 0:
                    await self._measured(session)
                looks += 1
                await asyncio.sleep(_TEND)
                await self._within(session.tend())
        except Exception as error:  # noqa: BLE001  # the caller's next read raises it
            self._broken = error
            self.lag = math.nan

    async def _gather(self, session: Session) -> Read:
        """Messages until they are enough for a batch, or a second has passed since the first."""
        bodies, messages = Bodies(), list[Message]()
        until, breath = math.inf, self._loop.time()
        while max(bodies.lines, len(messages)) < _ENOUGH_LINES and bodies.size < _ENOUGH_BYTES:
            now = self._loop.time()
            if now >= until:
                break
            if not self._unread:
                if not (found := await session.read(min(_PATIENCE, until - now))):
                    break
                self._unread.extend(found)
                until = min(until, self._loop.time() + _GATHER)
            elif now - breath > _BREATH:
                await asyncio.sleep(0)
                breath = self._loop.time()
            message = self._unread.popleft()
            bodies.add(message.place, message.body, message.encoding)
            messages.append(replace(message, body=b""))  # it would be held until it is settled
        if not messages:
            return Read()
        reached = await self._reach(session, messages)
        return Read(messages, await asyncio.to_thread(bodies.batch), reached)

    async def _reach(self, session: Session, messages: Sequence[Message]) -> int | None:
        """The least of the lanes' newest stamps, as each lane is in order; a lane that is read to its end has none."""
        if not session.stamps:
            return None
        for message in messages:
            self._reached[message.lane] = max(message.stamp, self._reached.get(message.lane, 0))
        lanes = session.lanes()
        open_lanes = lanes - await session.drained() | {message.lane for message in self._unread} & lanes
        if open_lanes:
            return min(self._reached.get(lane, 0) for lane in open_lanes)
        return max(self._reached.values())

    async def _dropped(self, session: Session | None, tending: asyncio.Task[None] | None) -> None:
        if tending:
            tending.cancel()
        if session:
            # Whatever is wrong with it is known, and told by the one who calls.
            with suppress(Exception):
                await asyncio.wait_for(session.close(), _FAREWELL)

    async def _end(self) -> None:
        session, tending = self._session, self._tending
        await _cancelled(task for task in self._tasks if task)
        await self._dropped(session, tending)
        # What the library started for itself, and did not end.
        await _cancelled(asyncio.all_tasks() - {asyncio.current_task()})
        await self._loop.shutdown_default_executor()


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    cancelled = [task for task in tasks if task.cancel()]
    if cancelled:
        await asyncio.wait(cancelled, timeout=_FAREWELL)


def _told(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # What a library leaves behind in its tasks when a connection goes: told by the read that fails for it.
    logging.getLogger(__name__).debug("left behind", extra={"what": str(context.get("message"))[:200]})
