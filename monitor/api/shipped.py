"""What shippers have told us: each frame once, whatever was sent again, and how each of their machines stands."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from monitor.api.intake import Refused, later
from monitor.facts.rows import progress_of
from monitor.ledger import holes, journal
from monitor.ledger.holes import Hole
from monitor.model import COLUMNS, Batch, Rejected
from monitor.scrub import scrub
from monitor.service import TOLD, Core
from monitor.shipping import frames
from monitor.shipping.frames import Beat, Hello
from monitor.telemetry import VERSION

log = logging.getLogger(__name__)

NODES = 1000  # machines that are remembered, and sources of each of them
SOURCES = 100
REASONS = 200  # of rejects, as metrics name them
PATIENCE = 20.0  # seconds for another request of the same machine to end
APART = timedelta(minutes=1)  # two shippers that speak by one name within it are two machines
FORGOTTEN = timedelta(days=1)
OLDEST = 30 * 86400.0  # seconds that a frame may have waited
SKEW = timedelta(seconds=30)  # of a clock, from which on a person must see to it


class Misshapen(Exception):  # noqa: N818  # an answer, not a fault
    """Frames that no core of this version will ever take: source, sequence and why of each."""

    def __init__(self, items: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(f"{len(items)} frames are not what they should be")
        self.items = list(items)


@dataclass(slots=True)
class _Node:
    """A machine that ships: ``reached`` is source → (spool, last frame on disk here); ``seen`` the last of them all."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    spool: str = ""
    heard: datetime | None = None
    reached: dict[str, tuple[str, int]] = field(default_factory=dict)
    seen: int | None = None
    holes: dict[str, tuple[Hole, ...]] = field(default_factory=dict)


class Shipped:
    """Takes what shippers send; safe to use from many threads."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._nodes: dict[str, _Node] = {}
        self._waiting: dict[tuple[str, str], tuple[str, int]] | None = None  # as read at the first need
        self._reasons: set[str] = set()

    def take(self, body: bytes) -> dict[str, Any]:
        """Put what is new in an unpacked body on disk; the answer, as JSON can hold it.

        Raises:
            Refused: the body as a whole is not taken; it may come again if the status says so.
            Misshapen: nothing was taken, since frames of it are no frames.
            SpoolFull: not all of it was taken. It may come again.
        """
        try:
            hello, parts = frames.opened(body)
        except frames.Broken as error:
            raise Refused("broken", f"the body is broken: {scrub(str(error), 200)}", "send it whole", 400) from error
        self._fits(hello)
        batches = _batches(hello, parts)
        if not batches and not hello.beats:
            return self._answer({}, 0)  # a question whether we would
        with self._alone(hello) as node:
            return self._taken(hello, node, batches)

    def _fits(self, hello: Hello) -> None:
        if hello.version != frames.VERSION or (unknown := sorted({*hello.columns} - {*COLUMNS})):
            told = (
                f"version {hello.version}" if hello.version != frames.VERSION else f"column {scrub(unknown[0], 50)!r}"
            )
            raise Refused("version", f"this core knows no {told}", "bring the core to the shipper's version first", 409)
        own = {*TOLD, *self._core.settings.collectors}
        names = {*(source for source, _ in hello.frames), *(beat.source for beat in hello.beats)}
        if hello.node == self._core.node and (clash := sorted(names & own)):
            what = f"{clash[0]} on {hello.node} is a source of the core's own"
            raise Refused("name", what, "give the shipper another `node` in [ship]", 409)

    @contextmanager
    def _alone(self, hello: Hello) -> Iterator[_Node]:
        """The machine that speaks, by one request at a time: one that is told again may overtake the first."""
        node = self._node(hello)
        if not node.lock.acquire(timeout=PATIENCE):
            raise later("busy", "an earlier request of this machine is still being taken")
        try:
            now = self._core.clock()
            if node.heard and node.spool != hello.spool and abs(now - node.heard) < APART:
                what = f"two shippers call themselves {hello.node}"
                remedy = "give each its own `node` in [ship]; one that was set up anew is taken in a minute"
                raise Refused("name", what, remedy, 409, {"Retry-After": "10"})
            names = {source for source, _ in hello.frames} | {beat.source for beat in hello.beats} | {*node.reached}
            if len(names) > SOURCES:
                raise Refused("name", f"over {SOURCES} sources on one machine", "join some of them", 409)
            node.seen = node.seen if node.spool == hello.spool else None
            node.spool, node.heard = hello.spool, now
            yield node
        finally:
            node.lock.release()

    def _node(self, hello: Hello) -> _Node:
        with self._lock:
            if found := self._nodes.get(hello.node):
                return found
            if len(self._nodes) >= NODES:
                self._forget(self._core.clock())
            if len(self._nodes) >= NODES:
                raise Refused("name", f"over {NODES:,} machines ship", "use more cores", 409)
            return self._nodes.setdefault(hello.node, _Node())

    def _forget(self, now: datetime) -> None:
        for name, node in [*self._nodes.items()]:
            if node.heard is None or now - node.heard > FORGOTTEN:
                del self._nodes[name]
                self._core.telemetry.ship.forget(name)
                for part in ("", ".clock", *(f".{source}" for source in node.reached)):
                    self._shown(f"ship.{name}{part}", "")

    def _taken(self, hello: Hello, node: _Node, batches: Mapping[str, list[tuple[int, Batch]]]) -> dict[str, Any]:
        beats = {beat.source: beat for beat in hello.beats}
        reached: dict[str, int] = {}
        rejected = 0
        lost = self._lost(hello, node, {*batches, *beats})
        for source in dict.fromkeys([*batches, *beats]):
            before = self._before(hello, node, source)
            told = batches.get(source, [])
            fresh = [(sequence, batch) for sequence, batch in told if sequence > before]
            self._core.telemetry.ship.repeated.labels(hello.node).inc(len(told) - len(fresh))
            last = max([before, *(sequence for sequence, _ in fresh)])
            if fresh or source in beats:
                batch = frames.joined([batch for _, batch in fresh])
                known = node.holes[source]
                left = holes.patched(known, lost.get(source), hello.spool, batch.columns.get("at", ()))
                batch = replace(batch, remember=holes.changes(known, left))
                rejected += self._put(hello, source, batch, beats.get(source), last)
                node.holes[source] = left
            node.reached[source] = (hello.spool, last)
            reached[source] = last
        node.seen = max(node.seen or 0, hello.reached, *(sequence for _, sequence in hello.frames))
        self._show(hello, beats, [hole for known in node.holes.values() for hole in known])
        return self._answer(reached, rejected)

    def _put(self, hello: Hello, source: str, batch: Batch, beat: Beat | None, last: int) -> int:
        # The cursor of a source that is shipped is its last frame: on disk with the rows, or not at all.
        batch = replace(batch, cursor={"spool": hello.spool, "sequence": last})
        if beat and beat.watermark:
            mark = frames.moment(beat.watermark)
            batch = replace(batch, watermark=max(mark, batch.watermark or mark))
        batch = replace(batch, rejected=[self._bounded(item) for item in batch.rejected])
        found = len(self._core.take(source, batch, node=hello.node))
        self._core.learn(batch)
        return found

    def _bounded(self, item: Rejected) -> Rejected:
        reason = item.why.partition(":")[0][:60]
        if reason not in self._reasons:
            if len(self._reasons) >= REASONS:
                return replace(item, why=f"other: {item.why}")
            self._reasons.add(reason)
        return item

    def _before(self, hello: Hello, node: _Node, source: str) -> int:
        """The last frame of the source that is on disk here; 0 for a spool that we don't know."""
        if source not in node.reached:
            node.reached[source] = self._stored(source, hello.node)
        spool, sequence = node.reached[source]
        return sequence if spool == hello.spool else 0

    def _lost(self, hello: Hello, node: _Node, sources: Iterable[str]) -> dict[str, Hole]:
        """By source, what the shipper was told that we have, and we don't: a restore brings back an older state."""
        new = [source for source in sources if source not in node.holes]
        if not new and node.seen is not None and hello.reached <= node.seen:
            return {}
        before = [self._before(hello, node, source) for source in sources]
        with self._core.stores.ledger.connect().execution_options(reads=True) as conn:
            marks = journal.watermarks(conn)
            places = [_place(cursor) for cursor in journal.cursors(conn, hello.node)]
            node.holes.update({source: holes.of(conn, source, hello.node) for source in new})
        places += [*node.reached.values(), *self._unread(hello.node)]
        node.seen = max([node.seen or 0, *(last for spool, last in places if spool == hello.spool), *before])
        if hello.reached <= node.seen:
            return {}
        log.warning("frames lost", extra={"node": hello.node, "first": node.seen + 1, "last": hello.reached})
        until = self._core.clock() - timedelta(seconds=min(max(0.0, hello.waiting.oldest), OLDEST))
        found = {}
        for source in sources:
            mark, _ = marks.get((source, hello.node), (None, None))
            found[source] = Hole(hello.spool, node.seen + 1, hello.reached, mark and min(mark, until), until)
        return found

    def _unread(self, node: str) -> list[tuple[str, int]]:
        """What waits since the last run of sources that have not spoken yet."""
        with self._lock:
            return [place for (_, its), place in (self._waiting or {}).items() if its == node]

    def _stored(self, source: str, node: str) -> tuple[str, int]:
        stores = self._core.stores
        with self._lock:
            if self._waiting is None:
                self._waiting = self._scanned()
            found = self._waiting.pop((source, node), None)
        if found:
            return found
        with stores.ledger.connect().execution_options(reads=True) as conn:
            return _place(journal.cursor(conn, source, node))

    def _scanned(self) -> dict[tuple[str, str], tuple[str, int]]:
        """What waits in the spool since the last run, read once for all; what has gone from it is in the ledger."""
        stores = self._core.stores
        with stores.ledger.connect().execution_options(reads=True) as conn:
            committed, _ = journal.position(conn)
        told = (progress_of(payload) for _, payload in stores.spool.read(committed))
        return {(one.source, one.node): _place(one.cursor) for one in told if one}

    def _show(self, hello: Hello, beats: Mapping[str, Beat], lost: Sequence[Hole]) -> None:
        core, waits = self._core, hello.waiting
        now, metrics, node = core.clock(), core.telemetry.ship, hello.node
        ahead = frames.moment(hello.sent_at) - now
        metrics.frames.labels(node).set(waits.frames)
        metrics.bytes.labels(node).set(waits.bytes)
        metrics.oldest.labels(node).set(waits.oldest)
        metrics.full.labels(node).set(waits.full)
        metrics.dead_letters.labels(node).set(waits.dead_letters)
        metrics.heard.labels(node).set(now.timestamp())
        metrics.ahead.labels(node).set(ahead.total_seconds())
        way = "ahead of" if ahead > timedelta() else "behind"
        skew = (
            f"its clock is {abs(ahead).total_seconds():.0f} s {way} ours: let it keep time" if abs(ahead) > SKEW else ""
        )
        self._shown(f"ship.{node}.clock", skew)
        full = "its spool is full: it reads nothing more until we have taken some" if waits.full else ""
        dead = f"{waits.dead_letters} frames lie in its dead-letters: see its log" if waits.dead_letters else ""
        self._shown(f"ship.{node}", full or dead or holes.told(lost, now))
        for source, beat in beats.items():
            self._shown(f"ship.{node}.{source}", scrub(beat.error, 300))

    def _shown(self, part: str, error: str) -> None:
        if error:
            self._core.health.errors[part] = error
        else:
            self._core.health.errors.pop(part, None)

    def _answer(self, reached: Mapping[str, int], rejected: int) -> dict[str, Any]:
        now = frames.micros(self._core.clock())
        return {"version": VERSION, "now": now, "reached": dict(reached), "rejected": rejected}


def _batches(hello: Hello, parts: Sequence[bytes]) -> dict[str, list[tuple[int, Batch]]]:
    """Source → its frames with their sequences, oldest first."""
    found: dict[str, list[tuple[int, Batch]]] = {}
    wrong = []
    for (source, sequence), part in zip(hello.frames, parts, strict=True):
        try:
            found.setdefault(source, []).append((sequence, frames.batch(part)))
        except frames.Broken as error:
            wrong.append({"source": source, "sequence": sequence, "error": scrub(str(error), 200)})
    if wrong:
        raise Misshapen(wrong)
    return found


def _place(cursor: Mapping[str, Any]) -> tuple[str, int]:
    return str(cursor.get("spool", "")), int(cursor.get("sequence", 0))
