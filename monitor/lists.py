"""Whose mail should go nowhere, as one part of the service: its stage, what people do with it, and who is pushed to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

from monitor.hygiene import Hygiene, Moved
from monitor.ledger import evidence, suppressions
from monitor.register import Register
from monitor.settings import Settings
from monitor.stores import Stores
from monitor.telemetry import SuppressionMetrics
from monitor.webhooks import Pusher

log = logging.getLogger(__name__)

Job = tuple[str, timedelta, Callable[[], None]]
_SOON = timedelta(seconds=2)
_JUDGED = timedelta(minutes=1)
_EXPIRED = timedelta(hours=1)


class Lists:
    """``register`` answers people and machines; ``jobs`` are to be run so often."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        clock: Callable[[], datetime],
        metrics: SuppressionMetrics,
        show: Callable[[str, str], None],
    ) -> None:
        self._clock, self._metrics, self._show, self._ledger = clock, metrics, show, stores.ledger
        self.hygiene = Hygiene(settings.hygiene, stores.facts, stores.ledger)
        self.register = Register(stores.ledger, stores.keyring, settings.hygiene)
        self._pushers = [
            Pusher(name, one, stores.ledger, settings.outgoing.allow) for name, one in settings.webhooks.items()
        ]

    def jobs(self) -> Iterator[Job]:
        """Name, how often, and what."""
        yield "suppression", _SOON, lambda: self._moved(self.hygiene.prompt(self._clock()))
        yield "suppression.bounces", _JUDGED, self._judge
        yield "suppression.expire", _EXPIRED, lambda: self.hygiene.expire(self._clock())
        for pusher in self._pushers:
            yield f"push.{pusher.name}", _SOON, partial(self._push, pusher)

    def _judge(self) -> None:
        self._moved(self.hygiene.run(self._clock()))
        with self._ledger.connect().execution_options(reads=True) as conn:
            counts, waiting = suppressions.counts(conn), evidence.waiting(conn)
        for why, count in counts.items():
            self._metrics.entries.labels(str(why)).set(count)
        self._metrics.waiting.set(waiting)

    def _moved(self, moved: Moved) -> None:
        for (change, why), count in moved.changes.items():
            self._metrics.changes.labels(str(change), str(why)).inc(count)
        for outage in moved.outages:
            self._metrics.outages.inc()
            told = {"since": outage.since.isoformat(), "until": outage.until.isoformat(), "why": outage.why}
            log.warning("provider outage", extra={"provider": outage.provider, **told})

    def _push(self, pusher: Pusher) -> None:
        error = pusher.run(self._clock, lambda result: self._metrics.pushes.labels(pusher.name, result).inc())
        self._show(f"webhook.{pusher.name}", error)
        self._metrics.behind.labels(pusher.name).set(pusher.behind())
