"""Bounces and complaints on their way in: led back to the message that they are about, or kept until it is known.

A report comes before the log's line may be in the facts that tells of its message. So one that the facts might still
explain waits in the ledger, and is tried again; the rest of its batch goes on at once.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from monitor.facts.store import Reader
from monitor.keyring import Keyring, Pseudonym
from monitor.ledger import unplaced
from monitor.ledger.unplaced import Waiting
from monitor.lookup import Lookup
from monitor.model import COLUMNS, UNVERIFIED, Batch, Clues
from monitor.settings import Attribution, Settings
from monitor.tracekeys import KeyFile
from monitor.weighing import FULL, Found, Placed, weigh
from monitor.witnesses import CLUES, Listener, Report, Testimony

log = logging.getLogger(__name__)

FIRST, LONGEST = timedelta(seconds=2), timedelta(minutes=5)  # until a report is tried again: twice as long each time
_AT_ONCE = 1_000  # reports that are tried together
_ROUNDS = 10  # of them in a turn, so that others get theirs
_TOLD_AGAIN = timedelta(days=2)  # a source may tell a report once more after a crash, and is known to have done so


@dataclass(slots=True)
class Tally:
    """What came since the start, by source and a word out of a few: reports, clues, by what they were attributed, …"""

    reports: Counter[str] = field(default_factory=Counter)
    clues: Counter[tuple[str, str]] = field(default_factory=Counter)
    attributed: Counter[tuple[str, str]] = field(default_factory=Counter)
    unattributed: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    disagree: Counter[str] = field(default_factory=Counter)
    unverified: Counter[str] = field(default_factory=Counter)
    waiting: int = 0


class Attributor:
    """Attributes what sources report, by the clues that they hand over; safe to use from many threads."""

    def __init__(
        self,
        facts: Reader,
        ledger: Engine,
        keyring: Keyring,
        settings: Attribution,
        keys: KeyFile,
        senders: Sequence[str] = (),
    ) -> None:
        self.tally = Tally()
        self.keys = keys
        self._ledger, self._keyring, self._settings = ledger, keyring, settings
        self._lookup = Lookup(facts, keyring, settings.within)
        self._listener = Listener(settings, senders)
        self._lock = threading.Lock()
        self.measure()

    @classmethod
    def of(cls, facts: Reader, ledger: Engine, keyring: Keyring, settings: Settings) -> Attributor:
        """As the configuration has it; return paths are read as mail logs name their senders, unless it says how."""
        told = [getattr(source, "sender_pattern", None) for source in settings.collectors.values()]
        keys = KeyFile(settings.trace_keys)
        return cls(facts, ledger, keyring, settings.attribution, keys, [pattern for pattern in told if pattern])

    def place(self, source: str, batch: Batch, now: datetime, *, trusted: bool = False) -> Batch:
        """The batch with what can be attributed, or never will be; the rest waits, on disk when this returns.

        A report that waits already, or did lately, is left out: its source tells it again.
        """
        if not batch.clues:
            return batch
        reports = _reports(batch)
        names = [self._name(source, report) for report in reports]
        with self._ledger.connect().execution_options(reads=True) as conn:
            known = unplaced.known(conn, names)
        fresh = dict(zip(names, reports, strict=True))
        fresh = {name: report for name, report in fresh.items() if name not in known}
        testimonies = {name: self._hear(source, report, now) for name, report in fresh.items()}
        placed = dict(zip(testimonies, self._weigh(list(testimonies.values()), now, trusted=trusted), strict=True))
        waits = [name for name, one in placed.items() if not one.settled][: self._room()]
        self._wait(source, {name: fresh[name] for name in waits}, now, trusted=trusted)
        go = {name: one for name, one in placed.items() if name not in set(waits)}
        for one in go.values():
            self._count(source, one if one.settled or one.by else replace(one, reason=FULL))
        return _batch(batch, [one.columns for one in go.values()], [fresh[name].place for name in go])

    def retry(self, now: datetime) -> None:
        """Try those again whose time has come; what is decided of them is on disk when this returns."""
        for _ in range(_ROUNDS):
            with self._ledger.connect().execution_options(reads=True) as conn:
                some = unplaced.due(conn, now, _AT_ONCE)
            if not some:
                break
            self._retry(some, now)

    def decided(self) -> Iterator[tuple[str, Batch, list[bytes]]]:
        """By source what is decided: to be put into the spool, and then to be told to ``handed``."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            some = unplaced.decided(conn, _AT_ONCE * _ROUNDS)
        by_source: dict[str, list[Waiting]] = defaultdict(list)
        for one in some:
            by_source[one.source].append(one)
        for source, waiting in by_source.items():
            theirs, kept = self._openable(waiting)
            rows = [{**one["row"], "message_id": _named(one["row"]["message_id"])} for one in kept]
            places = ["a report that waited"] * len(rows)
            yield source, _batch(Batch({}), rows, places), [one.id for one in theirs]

    def handed(self, ids: Iterable[bytes]) -> None:
        """These are in the spool, for good."""
        with self._ledger.begin() as conn:
            unplaced.handed(conn, ids)
        self.measure()

    def expire(self, now: datetime) -> None:
        """Forget what was handed over so long ago that its source does not tell it again."""
        with self._ledger.begin() as conn:
            unplaced.forget(conn, now - self._settings.wait - _TOLD_AGAIN)

    def measure(self) -> None:
        """Count those that wait."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            self.tally.waiting = unplaced.waiting(conn)

    # of a batch

    def _hear(self, source: str, report: Report, now: datetime) -> Testimony:
        testimony = self._listener.hear(report, self.keys.current(), now)
        with self._lock:
            self.tally.reports[source] += 1
            self.tally.clues.update((source, clue) for clue in CLUES if getattr(report.clues, clue))
            for why, count in testimony.refused.items():
                self.tally.refused[source, why] += count
        return testimony

    def _count(self, source: str, placed: Placed) -> None:
        with self._lock:
            if placed.by:
                self.tally.attributed[source, placed.by] += 1
            else:
                self.tally.unattributed[source, placed.reason] += 1
            self.tally.disagree[source] += placed.disagree
            self.tally.unverified[source] += placed.columns["kind"] in UNVERIFIED

    def _room(self) -> int:
        return max(0, self._settings.waiting - self.tally.waiting)

    def _wait(self, source: str, reports: Mapping[bytes, Report], now: datetime, *, trusted: bool) -> None:
        if not reports:
            return
        rows = [
            Waiting(name, source, now, self._sealed(_kept(report, trusted=trusted)), now + FIRST)
            for name, report in reports.items()
        ]
        with self._ledger.begin() as conn:
            unplaced.put(conn, rows)
        self.measure()

    def _retry(self, some: Sequence[Waiting], now: datetime) -> None:
        some, kept = self._openable(some)
        heard = [self._listener.hear(_report(one), self.keys.current(), now) for one in kept]
        found, asked = self._lookup.found(heard, now)
        over, later = {}, {}
        for one, content, testimony, known in zip(some, kept, heard, found, strict=True):
            placed = self._weighed(testimony, known, trusted=content["trusted"])
            if placed.settled or (asked and now - one.came >= self._settings.wait):
                self._count(one.source, placed)
                over[one.id] = self._sealed({"row": _row(placed.columns)})
            else:
                later[one.id] = now + min(FIRST * 2 ** min(one.tries + 1, 20), LONGEST)
        with self._ledger.begin() as conn:
            unplaced.decide(conn, over)
            unplaced.later(conn, later)

    def _weigh(self, heard: Sequence[Testimony], now: datetime, *, trusted: bool) -> list[Placed]:
        found, _ = self._lookup.found(heard, now)
        return [self._weighed(testimony, known, trusted=trusted) for testimony, known in zip(heard, found, strict=True)]

    def _weighed(self, testimony: Testimony, found: Found, *, trusted: bool) -> Placed:
        return weigh(testimony, found, trusted=trusted, labelled=self._settings.believe == "labelled")

    # at rest

    def _name(self, source: str, report: Report) -> bytes:
        """By which a report is known when it is told again."""
        told = json.dumps([source, dict(report.columns), asdict(report.clues)], sort_keys=True, default=str)
        return self._keyring.message(f"unplaced {told}")

    def _sealed(self, content: Mapping[str, Any]) -> bytes:
        return self._keyring.seal(json.dumps(content).encode())

    def _openable(self, some: Sequence[Waiting]) -> tuple[list[Waiting], list[dict[str, Any]]]:
        """Those that can be opened, with what they hold; what another keyring sealed nobody can, so it is given up."""
        opened: dict[bytes, dict[str, Any]] = {}
        for one in some:
            with suppress(ValueError):
                opened[one.id] = json.loads(self._keyring.unseal(one.content))
        if lost := [one.id for one in some if one.id not in opened]:
            log.error("reports that waited can't be opened: another keyring sealed them", extra={"count": len(lost)})
            self.handed(lost)
        return [one for one in some if one.id in opened], list(opened.values())


def _reports(batch: Batch) -> list[Report]:
    rows = zip(*batch.columns.values(), strict=True)
    places = batch.places or [""] * len(batch)
    return [
        Report(dict(zip(batch.columns, row, strict=True)), clues, place)
        for row, clues, place in zip(rows, batch.clues, places, strict=True)
    ]


def _batch(like: Batch, rows: Sequence[Mapping[str, Any]], places: Sequence[str]) -> Batch:
    """The rows, in place of those of a batch."""
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    columns = {name: [row.get(name, COLUMNS[name]) for row in rows] for name in names}
    return replace(like, columns=columns, clues=(), places=places if any(places) else ())


def _kept(report: Report, *, trusted: bool) -> dict[str, Any]:
    return {"row": dict(report.columns), "clues": asdict(report.clues), "place": report.place, "trusted": trusted}


def _report(kept: Mapping[str, Any]) -> Report:
    return Report(kept["row"], Clues(**kept["clues"]), kept["place"])


def _row(columns: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON can hold it, with a pseudonym told from a plain message id."""
    name = columns["message_id"]
    return {**columns, "message_id": [str(name)] if isinstance(name, Pseudonym) else str(name)}


def _named(kept: str | list[str]) -> str:
    return Pseudonym(kept[0]) if isinstance(kept, list) else kept
