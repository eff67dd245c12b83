"""One round: judge the counts, move the incidents, decide what to hold. Reads facts, writes the ledger."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import Connection, Engine

from monitor.core.incidents import track
from monitor.core.judge import HALF, Table, is_a_sellers, is_shared, judge, shares
from monitor.core.leases import active
from monitor.core.policy import Guards, Proposal, Setting, decide, narrowed
from monitor.core.rates import PARTS
from monitor.core.rules import Pauses, Rule
from monitor.facts import queries
from monitor.facts.prepare import SELLERS
from monitor.facts.queries import Counts
from monitor.facts.store import Facts
from monitor.ledger import actions, incidents, journal
from monitor.model import Action, Deed, Incident, Lease, Scope, State, Verdict, named

if TYPE_CHECKING:
    from monitor.ports import Ints

log = logging.getLogger(__name__)

# Over this long before the first pause in force the expected volume is measured: long enough to smooth a burst.
EXPECTED_OVER = timedelta(minutes=30)
# At most so many bad series have their tenants looked up in one round, the worst first; the others wait a round.
EXPLAINED = 50
STALE = timedelta(minutes=5)  # a source that has told nothing for so long is stale
GIVEN_UP = timedelta(days=1)
# Mail that was sent before a pause may wait in a queue and bounce for days after it (Postfix: 5 days).
QUEUED = timedelta(days=7)
# For calm, at most so many windows are looked back.
LOOK_BACK = 12
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found: the incidents that moved, the actions that were written, the rules that failed."""

    moved: tuple[Incident, ...] = ()
    written: tuple[Action, ...] = ()
    failed: tuple[str, ...] = ()


def complete_to(conn: Connection, now: datetime) -> datetime | None:
    """Up to when at least one source has told everything; None when none ever spoke.

    Sellers promise nothing for others: as long as a source of our own is alive, theirs is left out.
    """
    marks = {place: mark for place, (mark, _) in journal.watermarks(conn).items() if mark}
    ours = [mark for (source, _), mark in marks.items() if source != SELLERS]
    known = ours if ours and now - max(ours) <= STALE else [*marks.values()]
    return min(max(known), now) if known else None


def told_to(conn: Connection, now: datetime, told: Collection[str]) -> datetime | None:
    """Up to when each source that is alive has told everything: nothing later may be shown as nought.

    A source in ``told`` is silent when there is nothing to tell, and a stale one is told as such; where there are no
    others, the furthest. Rules are judged up to ``complete_to``, or one late source would put off every pause.
    """
    alive = [
        mark
        for (source, _), (mark, _) in journal.watermarks(conn).items()
        if mark and source not in told and now - mark <= STALE
    ]
    return min(*alive, now) if alive else complete_to(conn, now)


def missing(conn: Connection, now: datetime, told: Collection[str]) -> tuple[str, ...]:
    """The sources that stopped within the last day: what they would say is unknown, so nothing is calm meanwhile.

    One that is older was imported or has been given up. A source in ``told`` is silent when there is nothing to tell.
    """
    return tuple(
        f"{source} on {node}"
        for (source, node), (mark, _) in journal.watermarks(conn).items()
        if mark and source not in told and STALE < now - mark < GIVEN_UP
    )


class Cycle:
    """Rules and guards over one pair of stores."""

    def __init__(
        self, rules: Sequence[Rule], guards: Guards, facts: Facts, ledger: Engine, told: Collection[str] = ()
    ) -> None:
        self._told = told
        self._rules = rules
        self._guards = guards
        self._facts = facts
        self._ledger = ledger

    def run(self, now: datetime) -> Round:
        """Judge every rule at ``now``; all that follows is in the ledger when it returns."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            until = complete_to(conn, now)
        if until is None:
            return Round()
        moved: list[Incident] = []
        written: list[Action] = []
        failed: list[str] = []
        for rule in self._rules:
            try:
                found = self._rule(rule, until, now)
            except Exception:
                # One rule that can't be judged must not keep the others from being judged, or people from being told.
                log.exception("rule not judged", extra={"rule": rule.name})
                failed.append(rule.name)
                continue
            moved.extend(found.moved)
            written.extend(found.written)
        return Round(tuple(moved), tuple(written), tuple(failed))

    def _rule(self, rule: Rule, until: datetime, now: datetime) -> Round:
        with self._ledger.connect().execution_options(reads=True) as conn:
            known = incidents.open_ones(conn, rule.name)
            began = _pauses(actions.pauses_since(conn, until - QUEUED), rule)
            gone = missing(conn, now, self._told)
            sellers = {one.scope.tenant for one in incidents.open_ones(conn)}
        watched = [incident.scope for incident in known]
        bad_at = {incident.scope: incident.evidence.until for incident in known}
        verdicts = [
            self._settled(rule, verdict, until, bad_at.get(verdict.scope), began.get(verdict.scope))
            for verdict in self._verdicts(rule, until, watched, began)
            if verdict.scope in watched or not self._is_a_sellers(rule, verdict, until, sellers)
        ]
        if gone:
            verdicts = [replace(verdict, calm=False) for verdict in verdicts]
        with self._ledger.begin() as conn:
            # A person may have moved something meanwhile: read again within the transaction that writes.
            known = incidents.open_ones(conn, rule.name)
            moved = tuple(incidents.save(conn, one) for one in track(known, verdicts, rule.calm_for, now))
        return Round(moved, self._enforce(rule, moved, verdicts, began, now))

    # judging

    def _verdicts(
        self, rule: Rule, until: datetime, watched: Sequence[Scope], began: Mapping[Scope, datetime]
    ) -> tuple[Verdict, ...]:
        found = [
            self._alone(rule, verdict.scope, until, began[verdict.scope]) if verdict.scope in began else verdict
            for verdict in judge(rule, self._table(rule, until), watched)
        ]
        found.sort(key=lambda verdict: -verdict.numerator)
        return tuple(
            self._explained(rule, verdict, until) if place < EXPLAINED else verdict
            for place, verdict in enumerate(found)
        )

    def _alone(
        self, rule: Rule, scope: Scope, until: datetime, began: datetime | None, within: Scope | None = None
    ) -> Verdict:
        """The verdict on one series; only messages sent after its last pause ``began`` may speak (ADR 3).

        ``within``: on that part of its mail only.
        """
        table = self._table(rule, until, within or scope, began).kept(scope.__eq__)
        return judge(rule, table, [scope])[0]

    def _table(
        self, rule: Rule, until: datetime, where: Scope | None = None, sent_after: datetime | None = None
    ) -> Table:
        parts = PARTS[rule.rate]
        since = until - rule.window
        if parts.by_cohort:
            first = max(since, sent_after + _HOUR if sent_after else since)
            counts = queries.cohort_counts(
                self._facts,
                rule.by,
                _floor(first, _HOUR),
                _floor(until, _HOUR) + _HOUR,
                where or Scope(),
                rule.counted_providers or None,
            )
        else:
            sent_since = _floor(sent_after, _MINUTE) + _MINUTE if sent_after else None
            counts = queries.counts(
                self._facts,
                rule.by,
                _floor(since, _MINUTE),
                _floor(until, _MINUTE) + _MINUTE,
                where or Scope(),
                sent_since,
            )
        return _tabled(rule, counts, since, until)

    def _settled(
        self, rule: Rule, verdict: Verdict, until: datetime, bad_at: datetime | None, began: datetime | None
    ) -> Verdict:
        """The verdict, or a calm one where all mail since it was last bad proves it though the window holds too little.

        A small segment sends in a window hardly ever enough to show that its rate is surely within the limit.
        """
        if bad_at is None or verdict.state is State.BAD or verdict.calm:
            return verdict
        longer = replace(rule, window=min(until - bad_at - _MINUTE, LOOK_BACK * rule.window))
        if longer.window <= rule.window:
            return verdict
        table = self._table(longer, until, verdict.scope, began).kept(verdict.scope.__eq__)
        return next((found for found in judge(longer, table, [verdict.scope]) if found.calm), verdict)

    def _explained(self, rule: Rule, verdict: Verdict, until: datetime) -> Verdict:
        if verdict.state is not State.BAD or "tenant" in rule.by:
            return verdict
        found = shares(self._by_tenant(rule, verdict.scope, until), verdict.expected)
        return replace(verdict, shares=tuple((scope.tenant, share) for scope, share in found[:10]))

    def _by_tenant(self, rule: Rule, scope: Scope, until: datetime) -> Table:
        return self._table(replace(rule, by=(*named(scope), "tenant")), until, scope)

    def _is_a_sellers(self, rule: Rule, verdict: Verdict, until: datetime, sellers: Collection[str]) -> bool:
        if verdict.state is not State.BAD or "tenant" in rule.by:
            return False
        before = self._table(rule, until - rule.window, verdict.scope).kept(verdict.scope.__eq__)
        lasting = any(one.state is State.BAD for one in judge(rule, before))
        return is_a_sellers(verdict, sellers, lasting=lasting)

    def _everybodys(self, rule: Rule, verdict: Verdict) -> Scope | None:
        """Where other sellers see what this one sees: the IP, the provider or both that half of its excess is at."""
        if "tenant" not in rule.by:
            return None
        for by in (("ip", "provider"), ("provider",), ("ip",)):
            found = shares(self._table(replace(rule, by=by), verdict.until, verdict.scope), verdict.expected)
            if not found or found[0][1] < HALF or len(named(found[0][0])) < len(by):
                continue
            cell = found[0][0]
            if is_shared(rule, self._by_tenant(rule, cell, verdict.until), verdict.expected):
                return cell
        return None

    # deciding

    def _enforce(
        self,
        rule: Rule,
        moved: Iterable[Incident],
        verdicts: Iterable[Verdict],
        began: Mapping[Scope, datetime],
        now: datetime,
    ) -> tuple[Action, ...]:
        by_scope = {verdict.scope: verdict for verdict in verdicts if verdict.state is State.BAD}
        written = []
        for incident in moved:
            verdict = by_scope.get(incident.scope)
            if verdict is None or incident.resolved_at:
                continue
            if action := self._one(rule, incident, verdict, began.get(verdict.scope), now):
                written.append(action)
        return tuple(written)

    def _one(
        self, rule: Rule, incident: Incident, verdict: Verdict, began: datetime | None, now: datetime
    ) -> Action | None:
        scope = narrowed(verdict.scope, self._guards)
        with self._ledger.connect().execution_options(reads=True) as conn:
            held = [lease for lease in active(actions.in_force(conn, now), now) if lease.deed is Deed.PAUSE]
        proposal = Proposal(
            incident=incident,
            rule=rule,
            verdict=verdict,
            scope=scope,
            shared=rule.pauses is Pauses.SHARED
            and is_shared(rule, self._by_tenant(rule, verdict.scope, verdict.until), verdict.expected),
            everybodys=self._everybodys(rule, verdict),
            itself=None if scope == verdict.scope else self._alone(rule, verdict.scope, verdict.until, began, scope),
            share=self._reach(scope, held, now),
            other_ips=self._other_ips(scope, held, verdict) if scope.ip else None,
        )
        with self._ledger.begin() as conn:
            setting = Setting(
                now=now,
                guards=self._guards,
                leases=active(actions.in_force(conn, now), now),
                log=actions.since(conn, now - _HOUR),
            )
            action = decide(proposal, setting)
            return actions.append(conn, action) if action else None

    def held_share(self, scopes: Sequence[Scope], held: Sequence[Lease], now: datetime) -> float | None:
        """The part of all mail that was expected in these scopes before the first pause in force; None: unknown.

        Where scopes overlap the sum counts the common part twice: too high rather than too low.
        """
        before = min((lease.since for lease in held if lease.deed is Deed.PAUSE), default=now)
        return self._share(scopes, before)

    def _reach(self, scope: Scope, held: Sequence[Lease], now: datetime) -> float | None:
        """The held share if this scope were held too; None where nothing is known of its volume.

        A scope that has grown since the first pause counts as it is now.
        """
        already = self.held_share([lease.scope for lease in held], held, now) if held else 0.0
        before = min((lease.since for lease in held), default=now)
        own = max(self._share([scope], before) or 0.0, self._share([scope], now) or 0.0)
        return None if already is None or not own else min(already + own, 1.0)

    def _share(self, scopes: Sequence[Scope], before: datetime) -> float | None:
        since, until = _floor(before - EXPECTED_OVER, _MINUTE), _floor(before, _MINUTE) + _MINUTE
        whole = _decided(queries.counts(self._facts, (), since, until))
        if not whole:
            return None
        parts = sum(_decided(queries.counts(self._facts, (), since, until, scope)) for scope in dict.fromkeys(scopes))
        return min(parts / whole, 1.0)

    def _other_ips(self, scope: Scope, held: Sequence[Lease], verdict: Verdict) -> int:
        """The IPs that carry the scope's mail too and are not held themselves."""
        around = replace(scope, ip="")
        since, until = _floor(verdict.since, _MINUTE), _floor(verdict.until, _MINUTE) + _MINUTE
        counts = queries.counts(self._facts, ("ip",), since, until, around)
        others = {seen.ip for seen, sent in zip(counts.scopes, counts.sent, strict=True) if sent} - {"", scope.ip}
        return sum(not any(lease.scope.covers(replace(scope, ip=ip)) for lease in held) for ip in others)


def _pauses(log_entries: Iterable[Action], rule: Rule) -> dict[Scope, datetime]:
    """For each series of the rule that was paused within the window: when its last pause began."""
    return {action.scope.only(*rule.by): action.at for action in log_entries if _is_series(action.scope, rule)}


def _is_series(scope: Scope, rule: Rule) -> bool:
    return all(getattr(scope, label) for label in rule.by)


def _tabled(rule: Rule, counts: Counts, since: datetime, until: datetime) -> Table:
    parts = PARTS[rule.rate]
    bad = _sum(counts, parts.above)
    total = _sum(counts, parts.below)
    return Table(counts.scopes, bad, total, since, until)


def _sum(counts: Counts, names: Sequence[str]) -> Ints:
    total: Ints = np.sum(np.stack([getattr(counts, name) for name in names]), axis=0, dtype=np.int64)
    return total


def _decided(counts: Counts) -> int:
    return int(counts.sent.sum() + counts.bounced.sum() + counts.expired.sum())


def _floor(at: datetime, step: timedelta) -> datetime:
    return at - timedelta(seconds=at.timestamp() % step.total_seconds())
