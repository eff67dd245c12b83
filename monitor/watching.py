"""Whether a provider worked when it refused somebody: its refusals and deliveries, step by step."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import numpy as np
from sqlalchemy import Connection, Engine

from monitor.core.outages import Flags, Ints, Signs, doubtful, raised, spans, usual
from monitor.core.suppressing import LONGEST, STEP
from monitor.facts import queries
from monitor.facts.errors import FactsError
from monitor.facts.recipients import delivered
from monitor.facts.store import Facts
from monitor.ledger import evidence, outages
from monitor.ledger.evidence import Evidence
from monitor.ledger.outages import Outage
from monitor.model import Scope

log = logging.getLogger(__name__)

_AROUND = 12  # steps beside what was refused that are looked at
_BASELINE = timedelta(days=7)
_PROVEN_OVER = timedelta(days=14)  # before an outage, in which the refused are looked for among those who took mail
_SAMPLE = 400
_REST = timedelta(days=1)  # after an outage of the longest kind there is none for so long
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Verdict(StrEnum):
    """What is known of the provider at the time of a bounce."""

    UP = "up"
    OUTAGE = "outage"
    DOUBT = "doubt"


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which the provider is to blame."""

    provider: str
    since: datetime
    until: datetime
    why: str


@dataclass(frozen=True, slots=True)
class _Line:
    """A provider step by step from ``since``: recipients refused; outcomes that are final, and those taken.

    ``told``: refused, by sellers' words too; on those no outage rests, since it would speak for others' mail.
    """

    provider: str
    since: datetime
    refused: Ints
    told: Ints
    decided: Ints
    taken: Ints

    def at(self, place: int) -> datetime:
        """When that step begins."""
        return self.since + place * STEP

    def place(self, at: datetime) -> int:
        """The step of that time."""
        return (at - self.since) // STEP

    def during(self, known: Collection[Outage]) -> Flags:
        """Which steps lie in one of the outages."""
        found = np.zeros(len(self.refused), np.bool_)
        for one in known:
            found[max(0, self.place(one.since)) : max(0, self.place(one.until - timedelta(microseconds=1)) + 1)] = True
        return found


class Watch:
    """Looks at providers; reads, and writes nothing."""

    def __init__(self, facts: Facts, ledger: Engine, hold: timedelta) -> None:
        self._facts, self._ledger = facts, ledger
        self._around = max(1, hold // STEP)

    def look(self, refused: Mapping[str, tuple[datetime, datetime]]) -> Iterator[Span]:
        """Outages around what was refused: provider → first and last time."""
        for line in self._lines(refused, _AROUND):
            with self._ledger.connect().execution_options(reads=True) as conn:
                known = outages.during(conn, line.provider, line.since, line.at(len(line.refused)), _REST)
            told = line.during([one for one in known if not one.holds]) | line.during(_rests(known))
            if not raised(line.refused, line.decided).any():
                continue  # nothing that could be one, whatever is usual there
            usually, before = self._usual(line)
            flags = raised(line.refused, line.decided, usually) & ~told
            for start, end in spans(flags):
                yield from self._outage(line, start, end, usually, before, known)

    def verdicts(self, rows: Sequence[Evidence]) -> dict[int, Verdict]:
        """What is known of the provider at each bounce, by its number."""
        times: dict[str, list[datetime]] = {}
        for one in rows:
            times.setdefault(one.provider, []).append(one.at)
        found: dict[int, Verdict] = {}
        lines = self._lines({name: (min(at), max(at)) for name, at in times.items()}, self._around)
        for line in lines:
            with self._ledger.connect().execution_options(reads=True) as conn:
                known = outages.during(conn, line.provider, line.since, line.at(len(line.refused)))
            held = [one.excused for one in known if one.holds]
            dismissed = line.during([one for one in known if not one.holds])
            doubt = doubtful(line.refused, line.taken, self._around) & ~dismissed
            # Of a seller's own word no outage is found: what could be one is in doubt, for its own mail.
            own = (doubtful(line.told, line.taken, self._around) | raised(line.told, line.decided)) & ~dismissed
            for one in rows:
                if one.provider != line.provider:
                    continue
                if any(since <= one.at < until for since, until in held):
                    found[one.seq] = Verdict.OUTAGE
                else:
                    here = own if one.own else doubt
                    found[one.seq] = Verdict.DOUBT if here[line.place(one.at)] else Verdict.UP
        return found

    def _outage(
        self, line: _Line, start: int, end: int, usually: float, before: int, known: Sequence[Outage]
    ) -> Iterator[Span]:
        """The span, if the provider is to blame for it."""
        since, until = line.at(start), line.at(end)
        if any(one.holds and one.since <= since and until <= one.until for one in known):
            return
        with self._ledger.connect().execution_options(reads=True) as conn:
            people = evidence.some_refused(conn, line.provider, since, until, _SAMPLE)
            parts = self._parts(conn, line.provider, since, until)
        proven = self._proven(people, since) if before else None
        refused, decided = int(line.refused[start:end].sum()), int(line.decided[start:end].sum())
        why = Signs(refused / max(decided, refused), usually, parts, before, proven).outage()
        if why:
            begun = min([since, *(one.since for one in known if one.holds and one.until >= since)])
            yield Span(line.provider, since, min(until, begun + LONGEST), why)

    def _proven(self, people: Sequence[bytes], since: datetime) -> float | None:
        """The share of these people who took mail before; None where the facts can't tell in time."""
        try:
            return len(delivered(self._facts, people, since - _PROVEN_OVER, since)) / len(people)
        except FactsError as error:
            if error.passing:
                raise
            log.warning("recipients not looked up", extra={"code": error.code})
            return None

    def _parts(self, conn: Connection, provider: str, since: datetime, until: datetime) -> dict[str, tuple[int, int]]:
        """(refused, decided) of each tenant, or of each campaign where one tenant alone has mail there."""
        found: dict[str, tuple[int, int]] = {}
        for label in ("tenant", "campaign"):
            counts = queries.counts(self._facts, ["provider", label], since, until, Scope(provider=provider))
            refused = evidence.refused_by(conn, label, provider, since, until)
            found = dict.fromkeys(refused, (0, 0))
            decided = (counts.sent + counts.bounced + counts.expired).tolist()
            for scope, count in zip(counts.scopes, decided, strict=True):
                if scope.provider == provider:
                    name = getattr(scope, label)
                    found[name] = (0, found.get(name, (0, 0))[1] + count)
            found = {name: (refused.get(name, 0), count) for name, (_, count) in found.items()}
            if len(found) > 1:
                return found
        return found

    def _usual(self, line: _Line) -> tuple[float, int]:
        """The share that the provider refuses on other days, and how much it took in the days before."""
        until = line.since
        counts = queries.counts(self._facts, ["provider"], until - _BASELINE, until, Scope(provider=line.provider))
        sent = decided = 0
        for place, scope in enumerate(counts.scopes):
            if scope.provider == line.provider:
                sent = int(counts.sent[place])
                decided = sent + int(counts.bounced[place] + counts.expired[place])
        with self._ledger.connect().execution_options(reads=True) as conn:
            refused = evidence.refused_in_all(conn, line.provider, until - _BASELINE, until)
            for one in outages.during(conn, line.provider, until - _BASELINE, until):
                refused -= evidence.refused_in_all(conn, line.provider, one.since, min(one.until, until))
        return usual(max(refused, 0), decided), sent

    def _lines(self, times: Mapping[str, tuple[datetime, datetime]], around: int) -> Iterator[_Line]:
        """Each provider from the first time to the last, with so many steps before and after."""
        if not times:
            return
        first = min(_floor(since) for since, _ in times.values()) - around * STEP
        last = max(_floor(until) for _, until in times.values()) + (around + 1) * STEP
        only = Scope(provider=next(iter(times))) if len(times) == 1 else Scope()
        counted = {
            one.scope.provider: one for one in queries.series(self._facts, ["provider"], first, last, STEP, only)
        }
        for provider, (since, until) in times.items():
            begin = _floor(since) - around * STEP
            steps = (_floor(until) - begin) // STEP + around + 1
            taken, decided = np.zeros((2, steps), np.int64)
            if one := counted.get(provider):
                places = (one.at - int(begin.timestamp())) // int(STEP.total_seconds())
                mine = (places >= 0) & (places < steps)
                taken[places[mine]] = one.sent[mine]
                decided[places[mine]] = (one.sent + one.bounced + one.expired)[mine]
            refused, told = np.zeros((2, steps), np.int64)
            with self._ledger.connect().execution_options(reads=True) as conn:
                for own, line in ((False, refused), (True, told)):
                    found = evidence.refused(conn, provider, begin, begin + steps * STEP, STEP, own=own)
                    line[list(found)] = list(found.values())
            yield _Line(provider, begin, refused, told, decided, taken)


def _rests(known: Sequence[Outage]) -> list[Outage]:
    """After each outage that lasted as long as one may: a time in which there is no other."""
    return [
        Outage(0, one.provider, one.until, one.until + _REST, "", "", one.found_at)
        for one in known
        if one.holds and one.until - one.since >= LONGEST
    ]


def _floor(at: datetime) -> datetime:
    return at - (at - _EPOCH) % STEP
