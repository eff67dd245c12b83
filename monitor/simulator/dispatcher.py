"""The demo's dispatcher: sends the marketplace's mail, asks the brake before each group, tells what became of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import count, product

import numpy as np
import urllib3

from monitor.model import Scope
from monitor.simulator import lines, traffic
from monitor.simulator.brake import Brake
from monitor.simulator.delivery import Delivery
from monitor.simulator.incidents import Planned
from monitor.simulator.lines import Message
from monitor.simulator.outbox import Outbox
from monitor.simulator.tally import Tally
from monitor.simulator.traffic import Group
from monitor.simulator.waiting import Waiting
from monitor.simulator.world import IPS, PROVIDERS, Marketplace

log = logging.getLogger(__name__)

TICK = timedelta(seconds=2)
_LONGEST = timedelta(seconds=5)  # after a machine's sleep there is no burst
_TOLD = timedelta(minutes=5)


def run(
    base_url: str,
    world: Marketplace,
    planned: Sequence[Planned],
    *,
    stop: threading.Event,
    token: str = "",
    ticks: Iterable[datetime] | None = None,
) -> None:
    """Mail until ``stop`` is set or ``ticks`` end; the script begins with the first tick.

    ``ticks`` are times in UTC, each waited for by whoever yields it; without them they are the real time, every two
    seconds, from the moment when the service answers. Its absence later is no error: mail flows, and the lines about
    it wait.
    """
    if ticks is None:
        await_service(base_url, stop)
    dispatcher: Dispatcher | None = None
    for at in real_time(stop) if ticks is None else ticks:
        if stop.is_set():
            break
        dispatcher = dispatcher or Dispatcher(base_url, world, planned, began=at, token=token)
        dispatcher.tick(at)
    if dispatcher:
        dispatcher.close()


def await_service(base_url: str, stop: threading.Event, patience: timedelta = timedelta(seconds=60)) -> None:
    """Return when the service answers at all, when ``stop`` is set, or when ``patience`` is at its end."""
    until = time.monotonic() + patience.total_seconds()
    with urllib3.connection_from_url(base_url) as pool:
        while not stop.is_set() and time.monotonic() < until:
            try:
                pool.request("GET", "/healthz", timeout=1.0, retries=False)
            except urllib3.exceptions.HTTPError:
                stop.wait(0.1)
            else:
                return


def real_time(stop: threading.Event, every: timedelta = TICK) -> Iterator[datetime]:
    """The time now, and again each ``every`` until ``stop`` is set; what was missed is left out."""
    due = time.monotonic()
    while not stop.is_set():
        yield datetime.now(UTC)
        due = max(due + every.total_seconds(), time.monotonic())
        stop.wait(due - time.monotonic())


class Dispatcher:
    """One tick after the other: the same seed, ticks and answers give the same mail."""

    def __init__(
        self, base_url: str, world: Marketplace, planned: Sequence[Planned], *, began: datetime, token: str = ""
    ) -> None:
        self.tally = Tally()
        self.waiting = Waiting()
        self._world, self._planned = world, planned
        self._pool = urllib3.connection_from_url(base_url, maxsize=1)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._brake = Brake(self._pool, headers, self.tally)
        self.outbox = Outbox(self._pool, headers, self.tally)
        # Three, so that what is mailed does not depend on the brake's answers, only what becomes of it.
        self._mailing, self._chance, fate = (np.random.default_rng([world.seed, part]) for part in (3, 4, 5))
        self._delivery = Delivery(world, planned, began, fate)
        self._scopes: dict[Group, Scope] = {}
        self._serial, self._turn = count(), 0
        self._began, self._before, self._told = began, began - TICK, began

    def tick(self, at: datetime) -> None:
        """Mail what became due since the last tick, and post what happened until ``at``."""
        lasts = min(max(at - self._before, timedelta()), _LONGEST)
        self._withdraw(at)
        happened = list(self._delivery.complaints(at))
        messages = self._delivery.retries(at, lambda message: self._passing(message.group, 1, at) == 1)
        happened += self._delivery.attempt(messages, at, lasts)
        going = list(self._released(at, lasts))
        for group, number in self._due(at, lasts):
            passing = self._passing(group, number, at)
            if passing < number:
                happened.append(self._hold(group, number - passing, at))
            going.append((group, passing))
        happened += self._delivery.attempt(self._written(going, at), at, lasts)
        self.outbox.put(happened)
        self.outbox.flush(at)
        self._before, self._turn = at, self._turn + 1
        self._tell(at)

    def close(self) -> None:
        """Let go of the connection; lines that were not accepted are gone."""
        self._pool.close()

    def _due(self, at: datetime, lasts: timedelta) -> Iterator[tuple[Group, int]]:
        elapsed = at - self._began
        groups, counts = traffic.draw(self._world, self._planned, elapsed, lasts, self._turn, self._mailing)
        for columns, number in zip(groups.tolist(), counts.tolist(), strict=True):
            yield Group(*columns), number

    def _released(self, at: datetime, lasts: timedelta) -> Iterator[tuple[Group, int]]:
        usual = self._world.busy(at - self._began) * lasts.total_seconds()
        rows = dict(enumerate(usual.sum(axis=1).tolist()))
        each = (usual.sum(axis=0) / len(IPS)).tolist()
        places = {(provider, ip): each[provider] for provider, ip in product(range(len(PROVIDERS)), range(len(IPS)))}
        for group, number in self.waiting.release(lambda group, most: self._passing(group, most, at), rows, places):
            self.tally.released += number
            yield group, number

    def _passing(self, group: Group, number: int, at: datetime) -> int:
        """How many of ``number`` messages of the group the brake lets through."""
        share = self._brake.share(self._scope(group), at)
        return number if share == 1 else int(self._chance.binomial(number, share))

    def _hold(self, group: Group, number: int, at: datetime) -> bytes:
        self.waiting.add(group, number)
        self.tally.held += number
        scope = self._scope(group)
        return lines.held(scope, self._message_id(scope), at, number)

    def _withdraw(self, at: datetime) -> None:
        """A seller takes back what still waits of a bought list when its time is over."""

        def over(group: Group) -> bool:
            return group.bought >= 0 and not self._planned[group.bought].running(at - self._began)

        self.tally.withdrawn += self.waiting.withdraw(over)

    def _written(self, going: Sequence[tuple[Group, int]], at: datetime) -> list[Message]:
        groups = [group for group, number in going for _ in range(number)]
        users = self._chance.integers(1, 1_000_000, len(groups)).tolist()
        self.tally.mailed += len(groups)
        return [self._message(group, user, at) for group, user in zip(groups, users, strict=True)]

    def _message(self, group: Group, user: int, at: datetime) -> Message:
        scope = self._scope(group)
        return Message(group, scope, self._message_id(scope), f"user{user}@{scope.provider}.example", at)

    def _message_id(self, scope: Scope) -> str:
        began = round(self._began.timestamp() * 1000)  # so that the next demo's mail is other mail
        return f"<{began:x}.{next(self._serial):x}@{scope.domain}>"

    def _scope(self, group: Group) -> Scope:
        if group not in self._scopes:
            self._scopes[group] = traffic.labels_of(self._world, self._planned, group)
        return self._scopes[group]

    def _tell(self, at: datetime) -> None:
        if at - self._told >= _TOLD:
            log.info("mail so far", extra={**asdict(self.tally), "waiting": len(self.waiting)})
            self._told = at
