"""Counts per series → verdicts: what a rule says of each scope, now."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from monitor.core.rules import Rule
from monitor.model import Grade, Scope, State, Verdict
from monitor.ports import Scores

if TYPE_CHECKING:
    from monitor.ports import Ints


HALF = 0.5  # of an excess: who explains so much is its cause


@dataclass(frozen=True, slots=True)
class Table:
    """Numerator and denominator of n series between ``since`` and ``until``."""

    scopes: tuple[Scope, ...]
    bad: Ints
    total: Ints
    since: datetime
    until: datetime

    def kept(self, test: Callable[[Scope], bool]) -> Table:
        """The rows whose scope passes the test."""
        rows = [row for row, scope in enumerate(self.scopes) if test(scope)]
        return replace(self, scopes=tuple(self.scopes[row] for row in rows), bad=self.bad[rows], total=self.total[rows])


def judge(rule: Rule, table: Table, watched: Collection[Scope] = ()) -> tuple[Verdict, ...]:
    """Verdicts of all series that are bad, and of the ``watched`` ones whatever they are.

    A watched scope without a row has sent nothing: no data, which neither opens nor resolves.
    """
    _, scores = rule.detector.step(None, table.bad, table.total)
    seen = {scope: row for row, scope in enumerate(table.scopes)}
    rows = {int(row) for row in np.flatnonzero(scores.alert)} | {seen[scope] for scope in watched if scope in seen}
    found = [_verdict(rule, table, scores, row) for row in sorted(rows)]
    return (*found, *(silent(rule, scope, table) for scope in watched if scope not in seen))


def silent(rule: Rule, scope: Scope, table: Table) -> Verdict:
    """The verdict on a scope that sent nothing in the window."""
    return Verdict(
        rule=rule.name,
        scope=scope,
        state=State.NO_DATA,
        grade=Grade.NONE,
        numerator=0,
        denominator=0,
        expected=float("nan"),
        lower=float("nan"),
        upper=float("nan"),
        since=table.since,
        until=table.until,
        reason="nothing was sent in the window",
    )


def shares(table: Table, expected: float) -> tuple[tuple[Scope, float], ...]:
    """Each row's share of the excess over the rate ``expected``, largest first; rows without an excess are left out."""
    excess = np.clip(table.bad - table.total * expected, 0, None)
    whole = float(excess.sum())
    if whole <= 0:
        return ()
    order = np.argsort(-excess, kind="stable")
    return tuple((table.scopes[row], round(float(excess[row]) / whole, 4)) for row in order if excess[row] > 0)


def is_shared(rule: Rule, by_tenant: Table, expected: float) -> bool:
    """Whether the trouble is everybody's: enough tenants are bad there, and none explains half of the excess.

    A tenant counts as bad when its lower bound is above the alert limit, whatever its volume: here the series as a
    whole has shown enough of it.
    """
    _, scores = rule.detector.step(None, by_tenant.bad, by_tenant.total)
    known = np.array([bool(scope.tenant) for scope in by_tenant.scopes], dtype=bool)
    bad = int(((scores.lower > scores.expected) & known).sum())
    found = shares(by_tenant, expected)
    return bad >= rule.tenants and bool(found) and found[0][1] < HALF


def is_a_sellers(verdict: Verdict, known: Collection[str], *, lasting: bool) -> bool:
    """Whether the bad verdict on an IP or provider only shows a seller's accident, which needs no incident of its own.

    It does when one tenant explains half of the excess and has an incident already (``known``), or may still get one:
    as long as the trouble is not ``lasting``, the seller's own rule has had no time to see enough mail.
    """
    if not verdict.shares or verdict.shares[0][1] < HALF:
        return False
    tenant = verdict.shares[0][0]
    return bool(tenant) and (tenant in known or not lasting)


def _verdict(rule: Rule, table: Table, scores: Scores, row: int) -> Verdict:
    bad, pause, thin = bool(scores.alert[row]), bool(scores.pause[row]), bool(scores.thin[row])
    return Verdict(
        rule=rule.name,
        scope=table.scopes[row],
        state=State.BAD if bad else State.NO_DATA if thin else State.OK,
        grade=Grade.PAUSE if pause else Grade.ALERT if bad else Grade.NONE,
        numerator=int(table.bad[row]),
        denominator=int(table.total[row]),
        expected=float(scores.expected[row]),
        lower=float(scores.lower[row]),
        upper=float(scores.upper[row]),
        since=table.since,
        until=table.until,
        calm=bool(scores.calm[row]),
        reason="too little mail to say" if thin else "",
    )
