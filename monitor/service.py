"""The service: builds all parts from the settings, runs them, shuts them down in order. Owns the clock."""

from __future__ import annotations

import logging
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger
from pydantic import SecretStr

from collectors._decode import Checked, check
from collectors.sendlog import learnt
from monitor import configured, pipeline, tell
from monitor.access.doorkeeper import Doorkeeper, token_in
from monitor.access.keys import Keys
from monitor.access.noting import Notes, Use
from monitor.access.sessions import Sessions
from monitor.attribution import Attributor
from monitor.core.leases import active
from monitor.cycle import Cycle, complete_to, told_to
from monitor.enforcing import Enforcer
from monitor.errors import UserError
from monitor.facts import retention
from monitor.facts.prepare import SELLERS
from monitor.files import write
from monitor.gate import LEAP, Gate, utc_now
from monitor.hiding import hide
from monitor.ledger import (
    access_log,
    actions,
    audit,
    chain,
    holes,
    incidents,
    journal,
    keys,
    notices,
    providers,
    sessions,
)
from monitor.lists import Lists
from monitor.model import Batch, Deed, Rejected
from monitor.ports import Collector, Memory, PluginError
from monitor.settings import Settings
from monitor.spool import SpoolFull
from monitor.stores import Stores
from monitor.telemetry import VERSION, Telemetry

log = logging.getLogger(__name__)

FUTURE = timedelta(minutes=10)  # how far a peer's clock may run ahead of ours
SHORTEST_TOKEN = 16
HTTP = "http"  # the source that is told rather than asked
TOLD = frozenset({HTTP, SELLERS})
JOBS = 10  # threads for all jobs but the collectors
AGAIN = 5  # seconds until a thread that ended by a fault begins again
SCARCE = 16 << 20  # bytes left on a disk, below which it is shown as full
NOW = timedelta()
ANCHOR = timedelta(hours=1)  # between two tellings of where the linked logs stand
PLACING = timedelta(seconds=3)  # between two looks for the messages of reports that wait
RETENTION = timedelta(hours=1)  # between two looks for what has grown too old
LEARNT = 100_000  # recipient domains kept in memory; a domain beyond costs one more write


@dataclass(slots=True)
class Health:
    """What went wrong last, by part; empty text where all is well."""

    errors: dict[str, str] = field(default_factory=dict)
    # The last hundred items that could not be read, scrubbed: what an operator needs to mend a source.
    aside: list[tuple[str, Rejected]] = field(default_factory=list)

    def set_aside(self, source: str, items: Sequence[Rejected]) -> None:
        """Keep the newest hundred."""
        if not items:
            return
        newest = [(source, replace(item, raw=b"")) for item in items[-100:]]
        self.aside = [*self.aside, *newest][-100:]


class Core:
    """The whole service but for its HTTP server."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self.clock = clock
        self.telemetry = Telemetry(VERSION)
        self.health = Health()
        self.node = socket.gethostname()
        at = settings.service
        self.stores = Stores(
            at.data,
            at.spool_limit,
            facts=at.facts,
            password=at.facts_password.get_secret_value(),
            quarantine=settings.quarantine,
            custody=settings.keyring,
        )
        self.gate = Gate(self.stores.ledger, clock)
        self.cycle = Cycle(settings.rules, settings.guards, self.stores.facts, self.stores.ledger, told=TOLD)
        self.teller = tell.Teller(settings.alerts, self.stores.ledger, self._alert_failed)
        self.enforcer = Enforcer(settings.actuators, self.gate, clock, self._shown, self._tier_failed)
        self.token = token(settings.token_file)
        ledger = self.stores.ledger
        self.keys, self.notes = Keys(ledger), Notes(ledger, clock)
        self.sessions = Sessions(ledger, settings.access.idle)
        self.keeper = Doorkeeper(
            settings.access,
            self.keys,
            self.sessions,
            token_in(settings.token_file),
            clock,
            https=settings.service.tls_cert is not None,
        )
        self.attributor = Attributor.of(self.stores.facts, ledger, self.stores.keyring, settings)
        self.lists = Lists(settings, self.stores, clock, self.telemetry.suppression, self._shown)
        self.names = self.stores.applier.names
        self._learnt: dict[str, str] = {}
        self._cursors: dict[str, Mapping[str, Any]] = {}
        self._failing_alerts = True  # until the ledger says otherwise
        self._said = False  # what is configured, to the access log
        self._stop = threading.Event()
        # A source may take its thread for as long as there is something to read.
        pool = {"type": "threadpool", "max_workers": JOBS + len(settings.collectors) + len(settings.webhooks)}
        self._scheduler = BackgroundScheduler(
            timezone="UTC", executors={"default": pool}, job_defaults={"coalesce": True, "max_instances": 1}
        )
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to apply, collect, judge and tell."""
        self.gate.refresh()
        self._spawn("applier", lambda: self.stores.applier.run(self._stop))
        self._spawn("teller", self._tell)
        self._spawn("clock", self._watch_clock)
        self._every("gate", timedelta(seconds=1), self.gate.refresh)
        self._every("cycle", self.settings.service.cycle, self._cycle)
        # A clock that is wrong from the start must not make us drop what is young either.
        self._every("retention", RETENTION, self._expire, wait=RETENTION)
        self._every("disks", self.settings.service.cycle, self._look_at_disks)
        self._every("access", timedelta(seconds=1), self._write_uses)
        self._every("heads", ANCHOR, self._tell_heads)
        self._every("tiers", timedelta(seconds=10), self.enforcer.watch)
        self._every("attribution", PLACING, self._place)
        for name, span, job in self.lists.jobs():
            self._every(name, span, job)
        for name, source in self.settings.collectors.items():
            if isinstance(source, Collector):
                self._every(f"collector.{name}", source.every, partial(self._collect, name, source))
        self._scheduler.start()
        self.enforcer.start()
        log.info("started", extra={"version": VERSION, "mode": self.settings.automation.mode})

    def stop(self) -> None:
        """End the jobs, then the applier, then the stores."""
        self._stop.set()
        for source in self.settings.collectors.values():
            if isinstance(source, Collector):
                source.close()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
        for name, source in self.settings.collectors.items():
            if isinstance(source, Collector) and source.holds:
                self._collect(name, source)
        for thread in self._threads:
            thread.join()
        self.enforcer.stop()
        self.notes.flush(ending=True)
        self.stores.close()
        log.info("stopped")

    def take(self, source: str, batch: Batch, *, node: str = "", moves: bool = True) -> list[Rejected]:
        """Put a batch on disk; what could not be read or is out of time comes back, scrubbed.

        Reports are attributed first; those that must wait for their message are on disk, too, when this returns.
        ``moves`` False: the batch says nothing of where its source stands.

        Raises:
            SpoolFull: the disk or the limit is reached; nothing of the batch was taken.
        """
        now = self.clock()
        if batch.clues:
            trusted = getattr(self.settings.collectors.get(source), "trusted", False)
            batch = self.attributor.place(source, batch, now, trusted=trusted)
        within = bounds(self.settings, now)
        if batch.watermark and not within[0] <= batch.watermark <= now:
            # A peer's clock must neither promise our future nor come from before there was mail.
            batch = replace(batch, watermark=min(batch.watermark, now) if batch.watermark >= within[0] else None)
        rejected = pipeline.take(
            batch,
            self.stores.spool,
            self.stores.keyring,
            source=source,
            node=node or self.node,
            now=now,
            bounds=within,
            names=self.names,
            moves=moves,
            quarantine=self.stores.quarantine,
        )
        self.telemetry.observations.labels(source).inc(len(batch))
        for what, count in batch.met.items():
            self.telemetry.letters.labels(source, what).inc(count)
        self._note(source, rejected)
        return rejected

    def checked(self, body: bytes, tenant: str = "") -> Checked:
        """Which lines of a body are events of a time that is kept, and of that tenant's mail, if one tells them."""
        now = self.clock()
        return check(body, bounds(self.settings, now), tenant)

    def take_lines(self, source: str, checked: Checked) -> None:
        """Put checked events on disk as they came, sealed, to be taken apart by the applier.

        Raises:
            SpoolFull: the disk or the limit is reached; nothing of them was taken.
        """
        if checked.count:
            now = self.clock()
            stores = self.stores
            pipeline.take_lines(checked, stores.spool, stores.keyring, source=source, node=self.node, now=now)
        self.telemetry.observations.labels(source).inc(checked.count)
        self._note(source, checked.rejected)

    def _note(self, source: str, rejected: Sequence[Rejected]) -> None:
        for item in rejected:
            self.telemetry.rejected.labels(source, item.why.split(":")[0][:60]).inc()
        self.health.set_aside(source, rejected)

    def noted(self, use: Use) -> None:
        """Take a use of a route down, for the access log."""
        self.notes.use(use)

    def _write_uses(self) -> None:
        """What was done at the doors, and when keys and sessions were last used; first, what is configured now."""
        if not self._said:
            with self.stores.ledger.begin() as conn:
                configured.note(conn, self.settings, self.clock())
            self._said = True
        self.notes.flush()
        self._shown("access log", self.notes.trouble)
        used, seen = self.keys.taken(), self.sessions.taken()
        if used or seen:
            with self.stores.ledger.begin() as conn:
                keys.used(conn, used)
                sessions.seen(conn, seen)

    def _tell_heads(self) -> None:
        """Where both linked logs stand: kept with the log of the service, it proves them later."""
        with self.stores.ledger.connect().execution_options(reads=True) as conn:
            heads = {one.name: str(chain.head(conn, one)) for one in audit.LOGS}
        log.info("heads of the linked logs", extra=heads)

    def complete_to(self) -> datetime | None:
        """Up to when each source that is alive has told everything, for who asks; rules have another bound."""
        with self.stores.ledger.connect().execution_options(reads=True) as conn:
            return told_to(conn, self.clock(), TOLD)

    def missing(self) -> list[tuple[datetime, datetime]]:
        """From when to when what was told to us is here no more."""
        with self.stores.ledger.connect().execution_options(reads=True) as conn:
            return holes.spans(conn)

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
                self._shown(f"collector.{name}", "")  # it may go on for long
                if not source.settles:
                    self.learn(batch)
                elif len(batch):
                    self.stores.applier.reached(self.stores.spool.last, self._stop)
                if self._stop.is_set():
                    break
        except (PluginError, SpoolFull) as error:
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

    def learn(self, batch: Batch) -> None:
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

    def _place(self) -> None:
        """Reports that wait: look once more for their messages, and hand over those that are decided."""
        self.attributor.retry(self.clock())
        for source, batch, names in self.attributor.decided():
            with suppress(SpoolFull):  # they are kept, and the disk is shown
                self.take(source, batch, moves=False)
                self.attributor.handed(names)
        self._shown("tracing", self.attributor.keys.trouble)

    def _expire(self) -> None:
        self.stores.quarantine.expire(self.clock())
        self.attributor.expire(self.clock())
        kept = self.settings.retention
        spans: Mapping[str, timedelta] = {
            "events": kept.events,
            "leaf": kept.leaf,
            "minute": kept.minute,
            "hour": kept.hour,
            "levels": kept.levels,
        }
        retention.expire(self.stores.facts, self.clock(), spans)
        self._drop_uses()

    def _drop_uses(self) -> None:
        more = True
        while more and not self._stop.is_set():
            now = self.clock()
            with self.stores.ledger.begin() as conn:
                more = access_log.drop(conn, now - self.settings.retention.access, now)

    def _look_at_disks(self) -> None:
        """Show a disk on which there is no room, and a spool that may grow no more, for as long as that lasts."""
        for name in ("spool", "facts"):
            folder = self.settings.service.data / name
            free = shutil.disk_usage(folder).free if folder.exists() else SCARCE
            why = f"{folder}: {free >> 20} MiB are left on its disk: make room there" if free < SCARCE else ""
            if name == "spool" and not why and self.stores.spool.size > 0.9 * self.settings.service.spool_limit:
                why = f"{folder}: nearly as large as service.spool_limit allows, since the facts fall behind"
            if why and f"disk.{name}" not in self.health.errors:
                log.error("no room", extra={"why": why})
            self._shown(f"disk.{name}", why)
        self._shown("applier.waits", self.stores.applier.trouble)

    def _alert_failed(self, name: str) -> None:
        self.telemetry.plugin_errors.labels("alert", name).inc()
        self._failing_alerts = True

    def _tier_failed(self, name: str) -> None:
        self.telemetry.plugin_errors.labels("actuator", name).inc()

    def _every(self, name: str, span: timedelta, job: Callable[[], None], wait: timedelta = NOW) -> None:
        def run() -> None:
            with self._guarded(name):
                job()

        turns = _Turns(seconds=span.total_seconds(), timezone="UTC")
        self._scheduler.add_job(run, turns, id=name, next_run_time=self.clock() + wait, misfire_grace_time=None)

    def _watch_clock(self) -> None:
        """When the clock was set, begin all turns anew: those of a clock that ran ahead may be hours away."""
        lead = _lead()
        while not self._stop.wait(1):
            before, lead = lead, _lead()
            if abs(lead - before) <= LEAP:
                continue
            log.warning("clock was set", extra={"by_s": round((lead - before).total_seconds())})
            for job in self._scheduler.get_jobs():
                # A clock that is wrong must not make us drop what is young: somebody has an hour to mend it.
                wait = RETENTION if job.id == "retention" else timedelta()
                job.modify(next_run_time=utc_now() + wait)

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


def bounds(settings: Settings, now: datetime) -> tuple[datetime, datetime]:
    """Between which times an event is taken."""
    return now - settings.retention.events, now + FUTURE


class _Turns(IntervalTrigger):  # type: ignore[misc]  # version 3 has no types
    """Turns counted from the last one: a clock that was set forward by years has none to catch up with."""

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """An interval from ``now`` on, whenever the last turn was to be."""
        return now + timedelta(seconds=self.interval_length)


def _lead() -> timedelta:
    """Of the wall clock before the steady one."""
    return utc_now() - datetime.fromtimestamp(monotonic(), UTC)


def token(path: Path) -> SecretStr:
    """The bearer token of the API; made, readable by the owner only, where there is none.

    Raises:
        UserError: the file holds none, so that everybody's empty one would be right.
    """
    if not path.exists():
        write(path, secrets.token_urlsafe(32).encode() + b"\n")
    found = path.read_text("utf-8").strip()
    if len(found) < SHORTEST_TOKEN:
        raise UserError(f"{path} holds no token of {SHORTEST_TOKEN} characters or more: remove it, and one is made")
    hide(found)
    return SecretStr(found)
