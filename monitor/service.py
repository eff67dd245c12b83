"""The service: builds all parts from the settings, runs them, shuts them down in order. Owns the clock."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler

from collectors.sendlog import learnt
from monitor import pipeline, tell
from monitor.core.leases import active
from monitor.cycle import Cycle, complete_to
from monitor.enforcing import Enforcer
from monitor.errors import UserError
from monitor.facts import retention
from monitor.facts.names import NameLimit
from monitor.files import write
from monitor.gate import Gate, utc_now
from monitor.ledger import actions, incidents, journal, notices, providers
from monitor.model import Batch, Deed, Rejected
from monitor.ports import Collector, Memory, PluginError
from monitor.settings import Settings
from monitor.stores import Stores
from monitor.telemetry import VERSION, Telemetry

log = logging.getLogger(__name__)

FUTURE = timedelta(minutes=10)  # how far a peer's clock may run ahead of ours
SHORTEST_TOKEN = 16
HTTP = "http"  # the source that is told rather than asked
AGAIN = 5  # seconds until a thread that ended by a fault begins again
LEARNT = 100_000  # recipient domains kept in memory; a domain beyond costs one more write


@dataclass(slots=True)
class Health:
    """What went wrong last, by part; empty text where all is well."""

    errors: dict[str, str] = field(default_factory=dict)
    # The last hundred items that could not be read, scrubbed: what an operator needs to mend a source.
    aside: list[tuple[str, Rejected]] = field(default_factory=list)

    def set_aside(self, source: str, items: list[Rejected]) -> None:
        """Keep the newest hundred."""
        self.aside = [*self.aside, *((source, item) for item in items)][-100:]


class Core:
    """The whole service but for its HTTP server."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self.clock = clock
        self.telemetry = Telemetry(VERSION)
        self.health = Health()
        self.node = socket.gethostname()
        self.stores = Stores(settings.service.data, settings.service.spool_limit)
        self.gate = Gate(self.stores.ledger, clock)
        self.cycle = Cycle(settings.rules, settings.guards, self.stores.facts, self.stores.ledger, told={HTTP})
        self.teller = tell.Teller(settings.alerts, self.stores.ledger, self._alert_failed)
        self.enforcer = Enforcer(settings.actuators, self.gate, clock, self._shown, self._tier_failed)
        self.token = token(settings.token_file)
        self.names = NameLimit()
        self._learnt: dict[str, str] = {}
        self._cursors: dict[str, Mapping[str, Any]] = {}
        self._failing_alerts = True  # until the ledger says otherwise
        self._stop = threading.Event()
        self._scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1})
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to apply, collect, judge and tell."""
        self.gate.refresh()
        self._spawn("applier", lambda: self.stores.applier.run(self._stop))
        self._spawn("teller", self._tell)
        self._every("gate", timedelta(seconds=1), self.gate.refresh)
        self._every("cycle", self.settings.service.cycle, self._cycle)
        self._every("retention", timedelta(hours=1), self._expire)
        self._every("tiers", timedelta(seconds=10), self.enforcer.watch)
        for name, source in self.settings.collectors.items():
            if isinstance(source, Collector):
                self._every(f"collector.{name}", source.every, partial(self._collect, name, source))
        self._scheduler.start()
        self.enforcer.start()
        log.info("started", extra={"version": VERSION, "mode": self.settings.automation.mode})

    def stop(self) -> None:
        """End the jobs, then the applier, then the stores."""
        self._stop.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
        for thread in self._threads:
            thread.join()
        self.enforcer.stop()
        self.stores.close()
        log.info("stopped")

    def take(self, source: str, batch: Batch, *, node: str = "") -> list[Rejected]:
        """Put a batch on disk; what could not be read or is out of time comes back, scrubbed.

        Raises:
            SpoolFull: the disk or the limit is reached; nothing of the batch was taken.
        """
        now = self.clock()
        bounds = (now - self.settings.retention.events, now + FUTURE)
        if batch.watermark and not bounds[0] <= batch.watermark <= now:
            # A peer's clock must neither promise our future nor come from before there was mail.
            batch = replace(batch, watermark=min(batch.watermark, now) if batch.watermark >= bounds[0] else None)
        rejected = pipeline.take(
            batch,
            self.stores.spool,
            self.stores.keyring,
            source=source,
            node=node or self.node,
            now=now,
            bounds=bounds,
            names=self.names,
        )
        self.telemetry.observations.labels(source).inc(len(batch))
        for item in rejected:
            self.telemetry.rejected.labels(source, item.why.split(":")[0][:60]).inc()
        self.health.set_aside(source, rejected)
        return rejected

    def complete_to(self) -> datetime | None:
        """Up to when at least one source has told everything."""
        with self.stores.ledger.connect().execution_options(reads=True) as conn:
            return complete_to(conn, self.clock())

    def waiting(self) -> int:
        """Frames that are on disk and not yet counted."""
        with self.stores.ledger.connect().execution_options(reads=True) as conn:
            committed, _ = journal.position(conn)
        return self.stores.spool.last - committed

    def status(self) -> dict[str, Any]:
        """What is known of sources, mode and held share, in plain values."""
        now = self.clock()
        with self.stores.ledger.connect().execution_options(reads=True) as conn:
            heard = journal.watermarks(conn)
            until = complete_to(conn, now)
            held = active(actions.in_force(conn, now), now)
            owed = notices.owed(conn)
            open_now = incidents.open_ones(conn)
        paused = [lease.scope for lease in held if lease.deed is Deed.PAUSE]
        share = self.cycle.held_share(paused, held, now) if paused else 0.0
        return {
            "now": now,
            "complete_to": until,
            "heard": heard,
            "held": held,
            "held_share": share,
            "owed": owed,
            "open": open_now,
        }

    # jobs

    def _cycle(self) -> None:
        with self.telemetry.cycle.time():
            now = self.clock()
            found = self.cycle.run(now)
            with self.stores.ledger.begin() as conn:
                tell.owe(conn, list(self.settings.alerts), now)
        for action in found.written:
            self.telemetry.actions.labels(str(action.deed), "person" if action.by_person else "automation").inc()
            log.info("action", extra={"deed": str(action.deed), "scope": str(action.scope), "why": action.why})
        if found.written:
            self.gate.refresh()
        for rule in self.settings.rules:
            self._shown(f"rule.{rule.name}", "not judged: see the log" if rule.name in found.failed else "")

    def _tell(self) -> None:
        while not self._stop.wait(0.5):
            with self._guarded("alerts"):
                if self.teller.run(self.clock) or self._failing_alerts:
                    self._show_alerts()

    def _show_alerts(self) -> None:
        with self.stores.ledger.connect().execution_options(reads=True) as conn:
            failing = notices.errors(conn)
        for name in self.settings.alerts:
            self._shown(f"alert.{name}", failing.get(name, ""))
        self._failing_alerts = bool(failing)

    def _shown(self, part: str, error: str) -> None:
        """What is wrong with a part, for /readyz and the page; nothing where all is well."""
        if error:
            self.health.errors[part] = error
        else:
            self.health.errors.pop(part, None)

    def _collect(self, name: str, source: Collector) -> None:
        try:
            for batch in source.collect(self._memory(name), self.clock()):
                self.take(name, batch)
                self._cursors[name] = batch.cursor
                self._learn(batch)
                if self._stop.is_set():
                    break
        except PluginError as error:
            self.telemetry.plugin_errors.labels("collector", name).inc()
            if self.health.errors.get(f"collector.{name}") != str(error):  # once a change, not once a second
                log.warning("source not readable", extra={"source": name, "error": str(error)})
            self.health.errors[f"collector.{name}"] = str(error)
        else:
            self.health.errors.pop(f"collector.{name}", None)

    def _memory(self, name: str) -> Memory:
        """Where the source stands; read from disk only at the first time, since all that waits there is read then."""

        def stored() -> Memory:
            return pipeline.memory(self.stores.spool, self.stores.ledger, name, self.node)

        if name not in self._cursors:
            return stored()
        return Memory(self._cursors[name], pipeline.Later(lambda: stored().remembers))

    def _learn(self, batch: Batch) -> None:
        """Which provider a recipient domain's mail went to: known to the gate, which knows no relay."""
        if "recipient" not in batch.columns or "provider" not in batch.columns:
            return
        new = {domain: name for domain, name in learnt(batch.columns).items() if self._learnt.get(domain) != name}
        if not new:
            return
        if len(self._learnt) > LEARNT:
            self._learnt.clear()
        self._learnt.update(new)
        with self.stores.ledger.begin() as conn:
            providers.learn(conn, new, self.clock())

    def _expire(self) -> None:
        kept = self.settings.retention
        spans: Mapping[str, timedelta] = {
            "events": kept.events,
            "leaf": kept.leaf,
            "minute": kept.minute,
            "hour": kept.hour,
        }
        retention.expire(self.stores.facts, self.clock(), spans)

    def _alert_failed(self, name: str) -> None:
        self.telemetry.plugin_errors.labels("alert", name).inc()
        self._failing_alerts = True

    def _tier_failed(self, name: str) -> None:
        self.telemetry.plugin_errors.labels("actuator", name).inc()

    def _every(self, name: str, span: timedelta, job: Callable[[], None]) -> None:
        def run() -> None:
            with self._guarded(name):
                job()

        self._scheduler.add_job(
            run, "interval", seconds=span.total_seconds(), id=name, next_run_time=self.clock(), misfire_grace_time=None
        )

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """A job that fails is shown and tried again at its next turn; it stops nobody else."""
        try:
            yield
        except Exception as error:
            self.health.errors[name] = f"{type(error).__name__}: see the log"
            log.exception("job failed", extra={"job": name})
        else:
            if not name.startswith("collector."):
                self.health.errors.pop(name, None)

    def _spawn(self, name: str, work: Callable[[], Any]) -> None:
        def run() -> None:
            # A thread that ends by a fault begins again, as a job of the scheduler does at its next turn.
            while not self._stop.is_set():
                with self._guarded(name):
                    work()
                self._stop.wait(AGAIN)

        thread = threading.Thread(target=run, name=name)
        thread.start()
        self._threads.append(thread)


def token(path: Path) -> str:
    """The bearer token of the API; made, readable by the owner only, where there is none.

    Raises:
        UserError: the file holds none, so that everybody's empty one would be right.
    """
    if not path.exists():
        write(path, secrets.token_urlsafe(32).encode() + b"\n")
    found = path.read_text("utf-8").strip()
    if len(found) < SHORTEST_TOKEN:
        raise UserError(f"{path} holds no token of {SHORTEST_TOKEN} characters or more: remove it, and one is made")
    return found
