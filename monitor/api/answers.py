"""Answers kept by ``Idempotency-Key``, so that a request told twice is answered twice and taken once.

Facts count once by their own keys whatever is kept here: this spares the work, and the counting of what was rejected.
So it may be bounded, and forget when the process ends.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

LIFETIME = timedelta(hours=24)
MEMORY = 16 << 20  # bytes of all that is kept; the oldest goes first
_OVERHEAD = 500  # bytes of an entry beside its texts
LONGEST_KEY = 255  # characters
Key = Hashable  # who asks, of which tenant, and the text that it chose


class Busy(Exception):  # noqa: N818  # a state, not a fault
    """The first request with this key is still being taken."""


class Another(Exception):  # noqa: N818  # a state, not a fault
    """The first request with this key had another body."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the first request was told: a status and a body as it was sent."""

    status: int
    body: bytes


@dataclass(slots=True)
class _Kept:
    fingerprint: bytes
    at: datetime
    answer: Answer | None = None  # None: under way

    @property
    def size(self) -> int:
        return _OVERHEAD + (len(self.answer.body) if self.answer else 0)


class Answers:
    """What was answered lately; safe to use from many threads."""

    def __init__(self, clock: Callable[[], datetime], memory: int = MEMORY) -> None:
        self._clock = clock
        self._memory = memory
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def once(self, key: Key, body: bytes, take: Callable[[bytes], Answer]) -> tuple[Answer, bool]:
        """The answer to this key, and whether it is a repeated one: ``take`` is asked the first time only.

        What ``take`` raises, and a status that says "later", is not kept: the next request is again the first.

        Raises:
            Busy: the first request is still under way.
            Another: the first request had another body.
        """
        fingerprint = blake2b(body, digest_size=16).digest()
        now = self._clock()
        with self._lock:
            self._forget(now)
            known = self._kept.get(key)
            if known is not None:
                if known.fingerprint != fingerprint:
                    raise Another
                if known.answer is None:
                    raise Busy
                return known.answer, True
            mine = self._kept[key] = _Kept(fingerprint, now)
            self._size += mine.size
        try:
            answer = take(body)
        except BaseException:
            self._settle(key, mine, None)
            raise
        self._settle(key, mine, None if answer.status in (429, 503) else answer)
        return answer, False

    def _settle(self, key: Key, mine: _Kept, answer: Answer | None) -> None:
        with self._lock:
            if self._kept.get(key) is not mine:  # forgotten meanwhile
                return
            self._drop(key)
            if answer is not None:
                mine.answer = answer
                self._kept[key] = mine
                self._size += mine.size
                self._forget(mine.at)

    def _forget(self, now: datetime) -> None:
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if now - oldest.at < LIFETIME and self._size <= self._memory:
                return
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self._size -= self._kept.pop(key).size
