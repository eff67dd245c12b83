"""Who is suppressed: judges what speaks against recipients, watches for providers' outages, and ends what is over.

Reads evidence and facts, writes the ledger. Each step may be run again to no effect, and each change that is seen
outside is a row of the log in the transaction that makes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine

from monitor.core.suppressing import OF_A_SENDER, Policy, Reason, longer, repeated
from monitor.facts.recipients import delivered
from monitor.facts.store import Facts
from monitor.keyring import UNKNOWN
from monitor.ledger import evidence, outages, suppressions
from monitor.ledger.evidence import BOUNCES, Evidence, State
from monitor.ledger.suppressions import AUTOMATION, Change, Entry
from monitor.watching import Verdict, Watch

AT_ONCE = 5000  # rows that are judged in one transaction
RELEASED_AT_ONCE = 1000  # in one transaction, in which nobody else can write: some half a second
DOUBT = timedelta(days=3)  # how long a bounce waits for a sign that its provider works
AGAIN = timedelta(days=1)  # after which a second bounce is another fact
_DOUBTFUL = timedelta(hours=6)  # between two looks at a bounce in doubt
EVIDENCE_KEPT = timedelta(days=31)
_SUPERSEDED, _OVER = timedelta(days=90), timedelta(days=400)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Moved:
    """What a round did: changes by (change, reason), and outages that were found or grew."""

    changes: Counter[tuple[Change, Reason]] = field(default_factory=Counter)
    outages: list[outages.Outage] = field(default_factory=list)

    def note(self, entry: Entry) -> None:
        """Count a change."""
        self.changes[entry.change, entry.reason] += 1


class Hygiene:
    """The stage. One at a time may run; people may change the ledger meanwhile."""

    def __init__(self, policy: Policy, facts: Facts, ledger: Engine) -> None:
        self.policy, self._facts, self._ledger = policy, facts, ledger
        self._watch = Watch(facts, ledger, policy.hold)

    def run(self, now: datetime) -> Moved:
        """All of it, as of ``now``."""
        moved = self.prompt(now)
        for step in (self.watch, self.hard, self.soft, self.end):
            step(now, moved)
        return moved

    def prompt(self, now: datetime, moved: Moved | None = None) -> Moved:
        """Take over complaints and unsubscriptions: they wait for nothing."""
        moved = moved or Moved()
        while True:
            with self._ledger.begin() as conn:
                found = evidence.new(conn, OF_A_SENDER, AT_ONCE)
                self._suppress(conn, found, now, moved)
                evidence.mark(conn, [one.seq for one in found], State.COUNTED)
            if len(found) < AT_ONCE:
                return moved

    def watch(self, now: datetime, moved: Moved) -> None:
        """Look at providers who refused somebody since the last look, and excuse what they said in an outage."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            upto = evidence.newest(conn)
            unseen = evidence.unseen(conn, upto)
        if not unseen:
            return
        for one in self._watch.look(unseen):
            found = outages.Outage(0, one.provider, one.since, one.until, one.why, AUTOMATION, now)
            moved.outages.append(excuse(self._ledger, self.policy, found, moved))
        with self._ledger.begin() as conn:
            evidence.look_over(conn, upto)

    def hard(self, now: datetime, moved: Moved) -> None:
        """Judge bounces whose hold is over."""
        while found := self._due(Reason.HARD, now):
            judged = self._watch.verdicts(found)
            since = min(one.at for one in found)
            up = [one for one in found if judged[one.seq] is not Verdict.OUTAGE]
            took = delivered(self._facts, {one.pseudonym for one in up}, since, now)
            with self._ledger.begin() as conn:
                open_ = evidence.still(conn, [one.seq for one in found], State.WAITING)
                found = [one for one in found if one.seq in open_]
                doubted = [one for one in found if judged[one.seq] is Verdict.DOUBT]
                before = evidence.against(conn, {one.pseudonym for one in doubted}, Reason.HARD, _SPEAKS_STILL)
                became: dict[State, list[Evidence]] = {}
                for one in found:
                    state = self._hard_state(one, judged[one.seq], took, before.get(one.pseudonym, ()), now)
                    became.setdefault(state, []).append(one)
                self._suppress(conn, became.get(State.COUNTED, ()), now, moved)
                for state, rows in became.items():
                    again = now + _DOUBTFUL - self.policy.hold if state is State.WAITING else None
                    evidence.mark(conn, [one.seq for one in rows], state, again)

    def _hard_state(
        self,
        one: Evidence,
        verdict: Verdict,
        took: Mapping[bytes, datetime],
        others: Sequence[Evidence],
        now: datetime,
    ) -> State:
        if verdict is Verdict.OUTAGE:
            return State.EXCUSED
        if one.pseudonym in took and took[one.pseudonym] > one.at:
            return State.REFUTED
        if verdict is Verdict.UP or any(one.at - other.at >= AGAIN for other in others if _speaks_for(other, one)):
            return State.COUNTED
        return State.DOUBTED if now - one.at >= DOUBT else State.WAITING

    def soft(self, now: datetime, moved: Moved) -> None:
        """Count soft bounces whose hold is over; whoever has too many, and took no mail between, is suppressed."""
        while found := self._due(Reason.SOFT, now):
            judged = self._watch.verdicts(found)
            with self._ledger.begin() as conn:
                open_ = evidence.still(conn, [one.seq for one in found], State.WAITING)
                excused = {one.seq for one in found if judged[one.seq] is Verdict.OUTAGE} & open_
                evidence.mark(conn, excused, State.EXCUSED)
                evidence.mark(conn, open_ - excused, State.COUNTED)
                counted = {one.pseudonym for one in found if one.seq in open_ - excused}
                known = self._softs(conn, counted, min(one.at for one in found))
            self._too_soft(known, now, moved)

    def _softs(self, conn: Connection, people: Iterable[bytes], newest: datetime) -> dict[bytes, list[Evidence]]:
        since = newest - self.policy.soft_within
        return evidence.against(conn, people, Reason.SOFT, (State.COUNTED,), since)

    def _too_soft(self, known: Mapping[bytes, Sequence[Evidence]], now: datetime, moved: Moved) -> None:
        policy = self.policy
        many = {person: rows for person, rows in known.items() if _many(rows, policy)}
        if not many:
            return
        since = min(one.at for rows in many.values() for one in rows)
        took = delivered(self._facts, many, since, now)
        with self._ledger.begin() as conn:
            fresh = evidence.against(conn, many, Reason.SOFT, (State.COUNTED,), since)
            for person, rows in fresh.items():
                last = took.get(person, _EPOCH)
                evidence.mark(conn, [one.seq for one in rows if one.at <= last], State.REFUTED)
                for some in _by_teller([one for one in rows if one.at > last]):
                    if last_at := _many(some, policy):
                        self._suppress(conn, [one for one in some if one.at == last_at][:1], now, moved)

    def end(self, now: datetime, moved: Moved) -> None:
        """End entries whose time is over."""
        while True:
            with self._ledger.begin() as conn:
                found = suppressions.ending(conn, now, AT_ONCE)
                for one in found:
                    ended = replace(one, change=Change.ENDED, who=AUTOMATION, why="its time is over")
                    moved.note(suppressions.write(conn, ended, now, suppressions.sellers_of(conn, one)))
            if len(found) < AT_ONCE:
                return

    def expire(self, now: datetime) -> None:
        """Remove evidence that nothing asks for any more, and of the log what was superseded long ago."""
        kept = max(EVIDENCE_KEPT, self.policy.soft_within + DOUBT)
        more = True
        while more:
            # Looked for beforehand: it may take a while, in which nobody else could write.
            with self._ledger.connect().execution_options(reads=True) as conn:
                old = suppressions.dispensable(conn, now - _SUPERSEDED, now - _OVER, AT_ONCE)
            with self._ledger.begin() as conn:
                gone = evidence.expire(conn, now - kept, AT_ONCE)
                suppressions.drop(conn, old)
            more = AT_ONCE in (gone, len(old))

    def _due(self, why: Reason, now: datetime) -> list[Evidence]:
        with self._ledger.connect().execution_options(reads=True) as conn:
            return evidence.due(conn, why, now - self.policy.hold, AT_ONCE)

    def _suppress(self, conn: Connection, found: Iterable[Evidence], now: datetime, moved: Moved) -> None:
        suppress(conn, self.policy, found, now, moved)


def _speaks_for(other: Evidence, one: Evidence) -> bool:
    """Whether another bounce settles a doubt: a seller's own word does so for its own word alone."""
    return not other.own or (one.own and one.tenant == other.tenant)


_SPEAKS_STILL = (State.WAITING, State.COUNTED, State.DOUBTED)


def suppress(conn: Connection, policy: Policy, found: Iterable[Evidence], now: datetime, moved: Moved) -> None:
    """Add or renew the entries for which this speaks."""
    rows = sorted(found, key=lambda one: one.at)
    known = suppressions.of(conn, {one.pseudonym for one in rows})
    entries = {entry.name: entry for some in known.values() for entry in some}
    for one in rows:
        tenant, stream = policy.scope(one.reason, one.tenant, one.stream, own=one.own)
        until = policy.until(one.reason, one.at)
        made = Entry(one.pseudonym, one.reason, tenant, stream, one.at, until, one.at, one.reply_class)
        if until is not None and until <= now:
            continue
        if written := _merged(conn, entries.get(made.name), made, one.tenant, now):
            entries[made.name] = written
            moved.note(written)


def _merged(conn: Connection, old: Entry | None, made: Entry, tenant: str, now: datetime) -> Entry | None:
    """What is written of a new sight of an entry; None where nobody would see a difference."""
    told = {tenant} - {""}
    if old is None:
        return suppressions.write(conn, made, now, told)
    if not old.in_force:
        if old.change is Change.RELEASED and old.who != AUTOMATION and old.changed_at and made.at <= old.changed_at:
            return None  # a person knew it, and knew better
        return suppressions.write(conn, made, now, told | suppressions.sellers_of(conn, old))
    sellers = suppressions.sellers_of(conn, old)
    if longer(old.until, made.until) or not told <= sellers | {old.tenant}:
        until = max(old.until, made.until) if old.until and made.until else None
        renewed = replace(
            old, until=until, at=max(old.at, made.at), why=made.why, change=Change.RENEWED, who=AUTOMATION
        )
        return suppressions.write(conn, renewed, now, told | sellers)
    if made.at > old.at:
        suppressions.touch(conn, replace(old, at=made.at))
    return None


def excuse(ledger: Engine, policy: Policy, found: outages.Outage, moved: Moved) -> outages.Outage:
    """Write an outage down, and take back what its bounces did: they speak against nobody.

    Whoever was suppressed for them is released some at a time, so that others write between. The outage is written
    with the last of them: if this is cut short, it is found again, and the rest is done.
    """
    provider, now = found.provider, found.found_at
    while True:
        with ledger.begin() as conn:
            did = evidence.at_provider(conn, provider, *found.excused, (State.COUNTED,), RELEASED_AT_ONCE)
            _excused(conn, policy, provider, did, now, moved)
            if len(did) == RELEASED_AT_ONCE:
                continue
            outage = outages.put(conn, provider, found.since, found.until, found.why, now, found.who)
            states = (State.NEW, State.WAITING, State.COUNTED, State.DOUBTED)
            rest = evidence.at_provider(conn, provider, *outage.excused, states)
            _excused(conn, policy, provider, rest, now, moved)
            return outage


def _excused(
    conn: Connection, policy: Policy, provider: str, rows: Sequence[Evidence], now: datetime, moved: Moved
) -> None:
    evidence.mark(conn, [one.seq for one in rows], State.EXCUSED)
    lost = [one for one in rows if one.state is State.COUNTED]
    reconsider(conn, policy, lost, f"outage of {provider or 'a provider'}", now, moved)


def reconsider(
    conn: Connection, policy: Policy, lost: Sequence[Evidence], why: str, now: datetime, moved: Moved
) -> None:
    """Release entries that rested on ``lost`` evidence, where nothing else speaks against their recipients."""
    for reason in BOUNCES:
        people = {one.pseudonym for one in lost if one.reason is reason}
        left = evidence.against(conn, people, reason, (State.COUNTED,))
        for person, entries in suppressions.of(conn, people).items():
            rows = left.get(person, [])
            for entry in entries:
                mine = [one for one in rows if policy.scope(reason, one.tenant, "", own=one.own)[0] == entry.tenant]
                stands = bool(mine) if reason is Reason.HARD else _many(mine, policy) is not None
                older = entry.since < now - EVIDENCE_KEPT  # it rests on what is gone, and so can't be taken back
                if entry.reason is reason and entry.in_force and not stands and not older:
                    released = replace(entry, change=Change.RELEASED, who=AUTOMATION, why=why)
                    moved.note(suppressions.write(conn, released, now, suppressions.sellers_of(conn, entry)))


def _many(rows: Sequence[Evidence], policy: Policy) -> datetime | None:
    """The last time at which there were too many; one message bounces once, whatever tells of it."""
    by_message = {one.message if one.message != UNKNOWN else one.seq: one.at for one in rows}
    return repeated(list(by_message.values()), policy.soft_bounces, policy.soft_within)


def _by_teller(rows: Sequence[Evidence]) -> list[list[Evidence]]:
    """What we know ourselves, together; and what each seller tells, apart."""
    found: dict[str, list[Evidence]] = {}
    for one in rows:
        found.setdefault(one.tenant if one.own else "", []).append(one)
    return list(found.values())
