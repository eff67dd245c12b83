"""``mailvane ship``: collectors fill a spool of their own, and a sender empties it into the core, whatever dies."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from zlib import crc32

from monitor import notify
from monitor.errors import UserError
from monitor.facts.errors import DirectoryInUse
from monitor.model import Batch
from monitor.ports import Collector, PluginError
from monitor.ship_settings import ShipSettings
from monitor.shipping import frames
from monitor.shipping.link import Link, NotTaken, Taken, context
from monitor.shipping.outbox import Group, Outbox
from monitor.spool import SpoolFull

log = logging.getLogger(__name__)

BEAT = 10.0  # seconds between two signs of life
GATHER = 0.2  # seconds that the first frame waits for others to share its request
FIRST, LONGEST = 1.0, 60.0  # seconds between two tries while the core does not take what we have
LEAVE = 5.0  # seconds that a request under way has when we end
SKEW = timedelta(seconds=30)  # between our clock and the core's, from which on a person must see to it
AGAIN = 5.0  # seconds until a thread that ended by a fault begins again


def ask(settings: ShipSettings, now: datetime) -> Taken:
    """Ask the core whether it would take batches of ours; nothing is sent.

    Raises:
        NotTaken: it would not.
    """
    question = frames.Hello(
        frames.VERSION, settings.ship.node, "question", frames.micros(now), [], [], [], frames.Waiting()
    )
    link = _linked(settings)
    try:
        return link.post(frames.hello(question), answer=10)
    finally:
        link.close()


def _linked(settings: ShipSettings) -> Link:
    at = settings.ship
    return Link(at.to, at.token.get_secret_value(), context(at.ca_file, at.cert_file, at.key_file))


def _opened(data: Path, limit: int) -> Outbox:
    try:
        return Outbox(data, limit)
    except DirectoryInUse as error:
        raise UserError(f"another shipper works in {data}: stop it, or name another `data` in [ship]") from error
    except OSError as error:
        what = f"{error.filename or data} can't be written: {error.strerror}"
        raise UserError(f"{what}. Let the user that ships write there, or name another `data` in [ship]") from error


@dataclass(slots=True)
class Tally:
    """What was shipped since the start."""

    rows: int = 0
    rejected: int = 0
    frames: int = 0


@dataclass(slots=True)
class _Trouble:
    """What is wrong, by part; told once a change."""

    told: dict[str, str] = field(default_factory=dict)

    def show(self, part: str, error: str) -> None:
        if error == self.told.get(part, ""):
            return
        if error:
            self.told[part] = error
            log.warning("trouble", extra={"part": part, "error": error})
        else:
            del self.told[part]
            log.info("all is well again", extra={"part": part})
        notify.notify("STATUS=" + ("; ".join(self.told.values())[:500] or "the core has all that came"))


class Shipper:
    """Collectors, spool and sender of one machine."""

    def __init__(self, settings: ShipSettings, clock: Callable[[], datetime]) -> None:
        at = settings.ship
        self._settings, self._clock = settings, clock
        self._link = _linked(settings)
        self._collectors = {name: one for name, one in settings.collectors.items() if isinstance(one, Collector)}
        self.outbox = _opened(at.data, at.spool_limit)
        self.tally = Tally()
        self._trouble = _Trouble()
        self._errors: dict[str, str] = {}  # by collector
        self._stop = threading.Event()
        # A try of many machines at once is spread by their names.
        self._spread = 0.75 + crc32(at.node.encode()) / (1 << 33)

    # the whole

    def run(self) -> None:
        """Ship until a signal comes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        for name in self._collectors:
            self.outbox.memory(name)  # so that the first sign of life names all
        sender = self._spawn("sender", self._send)
        readers = [self._spawn(name, partial(self._read, name)) for name in self._collectors]
        log.info(
            "started", extra={"to": self._link.to, "node": self._settings.ship.node, "sources": [*self._collectors]}
        )
        notify.notify("READY=1")
        while not self._stop.wait(min(1.0, notify.watchdog() or 1.0)):
            notify.notify(notify.BEAT)
        notify.notify("STOPPING=1")
        for collector in self._collectors.values():
            collector.close()
        for thread in readers:
            thread.join()
        for name, collector in self._collectors.items():
            if collector.holds:
                self._collect(name, collector)
        sender.join(LEAVE)  # what it is at is sent again after the next start, and counts once
        log.info("stopped", extra={"waiting_frames": self.outbox.waiting(Group(), self._clock()).frames})

    def once(self) -> None:
        """Read all there is, send it, and end.

        Raises:
            NotTaken: the core does not take it; it waits in the spool.
            PluginError: a source can't be read; all else was sent.
        """
        failed: list[PluginError] = []
        for name, collector in self._collectors.items():
            try:
                self._turn(name, collector, drained=self._drain)
            except PluginError as error:
                failed.append(error)
                self._errors[name] = str(error)
        self._drain()
        self._post(self.outbox.next(), beats=True)
        for collector in self._collectors.values():
            collector.close()
        if failed:
            raise failed[0]

    def close(self) -> None:
        """Let go of spool and connection."""
        self._link.close()
        self.outbox.close()

    def _spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            while not self._stop.is_set():
                try:
                    work()
                except Exception:
                    log.exception("fault", extra={"part": name})
                    self._stop.wait(AGAIN)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    # reading

    def _read(self, name: str) -> None:
        collector = self._collectors[name]
        while not self._stop.is_set():
            self._collect(name, collector)
            self._stop.wait(collector.every.total_seconds())

    def _collect(self, name: str, collector: Collector) -> None:
        """One turn; what is wrong with the source or the spool is told, and the next turn goes on where it stands."""
        try:
            self._turn(name, collector)
        except PluginError as error:
            self._errors[name] = str(error)
            self._trouble.show(f"collector.{name}", str(error))
        except SpoolFull as error:
            why = f"{error}: reading stops until the core takes some. What is not read stays where it is"
            self._trouble.show("spool", why)
            self.outbox.room(1.0)
        except OSError as error:
            self._trouble.show("spool", f"{self._settings.ship.data} can't be written: {error.strerror or error}")
        else:
            self._errors.pop(name, None)
            self._trouble.show(f"collector.{name}", "")
            if not self.outbox.full:
                self._trouble.show("spool", "")

    def _turn(self, name: str, collector: Collector, drained: Callable[[], None] | None = None) -> None:
        for batch in collector.collect(self.outbox.memory(name), self._clock()):
            sequence = self._put(name, batch, drained)
            if collector.settles and len(batch):
                if drained:
                    drained()
                self.outbox.settled(sequence, self._stop.is_set)
            if self._stop.is_set():
                return

    def _put(self, name: str, batch: Batch, drained: Callable[[], None] | None) -> int:
        try:
            return self.outbox.put(name, batch, self._clock())
        except SpoolFull:
            if drained is None:
                raise
            drained()
        return self.outbox.put(name, batch, self._clock())

    # sending

    def _send(self) -> None:
        beat, pause = 0.0, FIRST
        while not self._stop.is_set():
            if self.outbox.wait(min(1.0, max(0.01, beat - time.monotonic()))):
                self._stop.wait(GATHER)
            elif time.monotonic() < beat:
                continue
            due = time.monotonic() >= beat
            try:
                self._post(self.outbox.next(), beats=due)
            except NotTaken as error:
                self._trouble.show("core", str(error))
                self._stop.wait((error.wait or pause) * self._spread)
                pause = FIRST if error.wait else min(2 * pause, LONGEST)
            else:
                self._trouble.show("core", "")
                pause = FIRST
                beat = time.monotonic() + BEAT if due else beat

    def _post(self, group: Group, *, beats: bool) -> None:
        """Hand frames over, and forget them once the core says that it has each.

        Raises:
            NotTaken: it does not say so.
        """
        try:
            answer = self._link.post(self._body(group, beats=beats))
        except NotTaken as error:
            if not error.refused:
                raise
            self._give_up(group, error)
            return
        missed = [name for sequence, head, _ in group.frames if answer.reached.get(name := head.source, 0) < sequence]
        if missed:
            raise NotTaken(f"{self._link.to} answered without {missed[0]}: name the core itself by `to` in [ship]")
        if group.frames:
            self.outbox.took(group)
            self.tally.frames += len(group.frames)
            self.tally.rows += sum(head.rows for _, head, _ in group.frames)
            self.tally.rejected += answer.rejected

    def _give_up(self, group: Group, error: NotTaken) -> None:
        """Set aside the frames that the core refuses for themselves; the rest before and after them goes on."""
        number, (sequence, _, _) = next(
            ((place, one) for place, one in enumerate(group.frames) if one[0] in error.refused), (0, (0, None, None))
        )
        if not sequence:
            raise error
        if number:  # what stands before is good: the core has to have it first
            self._post(Group(group.frames[:number]), beats=False)
        bad = Group(group.frames[number : number + 1])
        self.outbox.set_aside(bad, error.refused)
        self.outbox.took(bad)

    def _body(self, group: Group, *, beats: bool) -> bytes:
        now = self._clock()
        hello = frames.Hello(
            version=frames.VERSION,
            node=self._settings.ship.node,
            spool=self.outbox.name,
            sent_at=frames.micros(now),
            frames=[(head.source, sequence) for sequence, head, _ in group.frames],
            columns=sorted({name for _, head, _ in group.frames for name in head.columns}),
            beats=self.outbox.beats(self._errors) if beats else [],
            waiting=self.outbox.waiting(group, now),
            reached=self.outbox.reached,
        )
        return b"".join([frames.hello(hello), *(part for _, _, part in group.frames)])

    def _drain(self) -> None:
        while (group := self.outbox.next()).frames:
            self._post(group, beats=False)
