"""What becomes of mail once it is handed over: accepted, refused, tried again, and now and then complained of."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count

import numpy as np

from monitor.model import Kind
from monitor.simulator import lines, traffic
from monitor.simulator.incidents import Planned
from monitor.simulator.lines import Message, Replies
from monitor.simulator.world import Marketplace

_ATTEMPTS = 4
_RETRY = timedelta(seconds=20)  # times the attempt
_ASK_AGAIN = timedelta(seconds=10)
_OUTCOMES = (Kind.SENT, Kind.DEFERRED, Kind.BOUNCED)


class Delivery:
    """The receivers, with all that is still to come from them: retries and complaints."""

    def __init__(
        self, world: Marketplace, planned: Sequence[Planned], began: datetime, rng: np.random.Generator
    ) -> None:
        self._world, self._planned, self._began, self._rng = world, planned, began, rng
        self._retries: list[tuple[datetime, int, Message]] = []
        self._complaints: list[tuple[datetime, int, bytes]] = []
        self._order = count()  # of equal times

    def attempt(self, messages: Sequence[Message], at: datetime, lasts: timedelta) -> Iterator[bytes]:
        """The line of each message, its attempt made some time in the ``lasts`` before ``at``."""
        if not messages:
            return
        groups = np.array([message.group for message in messages])
        once = np.ones(len(messages), dtype=np.int64)
        fates, refused = traffic.outcomes(self._world, self._planned, at - self._began, groups, once, self._rng)
        complains = self._rng.random(len(messages)) < traffic.complaint_rate(self._world, groups)
        earlier = self._rng.random(len(messages)).tolist()
        fate_of = [_OUTCOMES[fate] for fate in fates.argmax(axis=1).tolist()]
        for message, kind, no, spam, back in zip(
            messages, fate_of, refused.tolist(), complains.tolist(), earlier, strict=True
        ):
            when = at - back * lasts
            tried = message if message.attempt > 1 else replace(message, sent_at=when)
            yield self._answer(tried, kind, when, blocked=no)
            if kind is Kind.SENT and spam:
                self._complain(tried, when)

    def retries(self, at: datetime, may_go: Callable[[Message], bool]) -> list[Message]:
        """The deferred messages whose next attempt is due; those that may not go wait some more."""
        going = []
        while self._retries and self._retries[0][0] <= at:
            _, _, message = heapq.heappop(self._retries)
            if may_go(message):
                going.append(message)
            else:
                self._later(message, at + _ASK_AGAIN)
        return going

    def complaints(self, at: datetime) -> Iterator[bytes]:
        """The lines of the complaints that arrived until ``at``."""
        while self._complaints and self._complaints[0][0] <= at:
            yield heapq.heappop(self._complaints)[2]

    def _answer(self, message: Message, kind: Kind, at: datetime, *, blocked: bool) -> bytes:
        if kind is Kind.SENT:
            return lines.outcome(message, kind, at, Replies.ACCEPTED)
        if kind is Kind.BOUNCED:
            bought = message.group.bought >= 0
            why = Replies.BLOCKED if blocked else Replies.GONE if bought else Replies.REFUSED
            return lines.outcome(message, kind, at, why)
        why = Replies.PUT_OFF if blocked else Replies.LATER
        if message.attempt >= _ATTEMPTS:
            return lines.outcome(message, Kind.EXPIRED, at, why)
        again = replace(message, attempt=message.attempt + 1)
        self._later(again, at + _RETRY * message.attempt)
        return lines.outcome(message, kind, at, why)

    def _later(self, message: Message, due: datetime) -> None:
        heapq.heappush(self._retries, (due, next(self._order), message))

    def _complain(self, message: Message, sent_at: datetime) -> None:
        # Hours in the world, seconds to a minute here, so that one watching sees them.
        due = sent_at + timedelta(seconds=min(2 + float(self._rng.exponential(18)), 60))
        heapq.heappush(self._complaints, (due, next(self._order), lines.complaint(message, due)))
