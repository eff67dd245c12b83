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
from monitor.core.judge import HALF, Pauses, Rule, Table, is_a_sellers, is_shared, judge, shares
from monitor.core.leases import active
from monitor.core.policy import Guards, Proposal, Setting, decide, narrowed
from monitor.core.rates import PARTS
from monitor.facts import queries
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
# For calm, at most so many windows are looked back.
LOOK_BACK = 12
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found: the incidents that moved and the actions that were written."""

    moved: tuple[Incident, ...] = ()
    written: tuple[Action, ...] = ()


def complete_to(conn: Connection, now: datetime) -> datetime | None:
    """Up to when at least one source has told everything; None when none ever spoke."""
    known = [mark for mark, _ in journal.watermarks(conn).values() if mark]
    return min(max(known), now) if known else None


class Cycle:
    """Rules and guards over one pair of stores."""

    def __init__(self, rules: Sequence[Rule], guards: Guards, facts: Facts, ledger: Engine) -> None:
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
        for rule in self._rules:
            found = self._rule(rule, until, now)
            moved.extend(found.moved)
            written.extend(found.written)
        return Round(tuple(moved), tuple(written))

    def _rule(self, rule: Rule, until: datetime, now: datetime) -> Round:
        with self._ledger.connect().execution_options(reads=True) as conn:
            known = incidents.open_ones(conn, rule.name)
            began = _pauses(actions.pauses_since(conn, until - rule.window), rule)
            sellers = {one.scope.tenant for one in incidents.open_ones(conn)}
        watched = [incident.scope for incident in known]
        bad_at = {incident.scope: incident.evidence.until for incident in known}
        verdicts = [
            self._settled(rule, verdict, until, bad_at.get(verdict.scope), began.get(verdict.scope))
            for verdict in self._verdicts(rule, until, watched, began)
            if verdict.scope in watched or not self._is_a_sellers(rule, verdict, until, sellers)
        ]
        with self._ledger.begin() as conn:
            # A person may have moved something meanwhile: read again within the transaction that writes.
            known = incidents.open_ones(conn, rule.name)
            moved = tuple(incidents.save(conn, one) for one in track(known, verdicts, rule.calm_for, now))
        return Round(moved, self._enforce(rule, moved, verdicts, now))

    # judging

    def _verdicts(
        self, rule: Rule, until: datetime, watched: Sequence[Scope], began: Mapping[Scope, datetime]
    ) -> tuple[Verdict, ...]:
        table = self._table(rule, until).kept(lambda scope: scope not in began)
        found = list(judge(rule, table, [scope for scope in watched if scope not in began]))
        for scope, at in began.items():
            # Only messages sent after the pause took effect may speak again (ADR 3).
            alone = self._table(rule, until, scope, at).kept(scope.__eq__)
            found.extend(judge(rule, alone, [scope]))
        found.sort(key=lambda verdict: -verdict.numerator)
        return tuple(
            self._explained(rule, verdict, until) if place < EXPLAINED else verdict
            for place, verdict in enumerate(found)
        )

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
        self, rule: Rule, moved: Iterable[Incident], verdicts: Iterable[Verdict], now: datetime
    ) -> tuple[Action, ...]:
        by_scope = {verdict.scope: verdict for verdict in verdicts if verdict.state is State.BAD}
        written = []
        for incident in moved:
            verdict = by_scope.get(incident.scope)
            if verdict is None or incident.resolved_at:
                continue
            if action := self._one(rule, incident, verdict, now):
                written.append(action)
        return tuple(written)

    def _one(self, rule: Rule, incident: Incident, verdict: Verdict, now: datetime) -> Action | None:
        scope = narrowed(verdict.scope, self._guards)
        with self._ledger.connect().execution_options(reads=True) as conn:
            held = active(actions.in_force(conn, now), now)
        proposal = Proposal(
            incident=incident,
            rule=rule,
            verdict=verdict,
            scope=scope,
            shared=rule.pauses is Pauses.SHARED
            and is_shared(rule, self._by_tenant(rule, verdict.scope, verdict.until), verdict.expected),
            everybodys=self._everybodys(rule, verdict),
            share=self.held_share([lease.scope for lease in held if lease.deed is Deed.PAUSE] + [scope], held, now),
            other_ips=self._other_ips(scope, verdict) if scope.ip else None,
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
        since, until = _floor(before - EXPECTED_OVER, _MINUTE), _floor(before, _MINUTE) + _MINUTE
        whole = _decided(queries.counts(self._facts, (), since, until))
        if not whole:
            return None
        parts = sum(_decided(queries.counts(self._facts, (), since, until, scope)) for scope in dict.fromkeys(scopes))
        return min(parts / whole, 1.0)

    def _other_ips(self, scope: Scope, verdict: Verdict) -> int:
        around = replace(scope, ip="")
        since, until = _floor(verdict.since, _MINUTE), _floor(verdict.until, _MINUTE) + _MINUTE
        counts = queries.counts(self._facts, ("ip",), since, until, around)
        return sum(
            1 for seen, sent in zip(counts.scopes, counts.sent, strict=True) if seen.ip not in ("", scope.ip) and sent
        )


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
