"""A measure over time: the series with most mail, by steps, and the rest as a sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from monitor.core.rules import Rule
from monitor.facts.grouped import ANY, Part, identity, ints, owned, seconds, select, stepped
from monitor.facts.measures import Measure, of_rule, rows, sums
from monitor.facts.rated import largest
from monitor.facts.store import Reader
from monitor.model import Scope

if TYPE_CHECKING:
    from monitor.ports import Ints

_ALL = np.zeros(1, np.uint64)  # the id of what is not grouped


@dataclass(frozen=True, slots=True)
class Lines:
    """n series over m steps, those with most mail first; ``above`` and ``below`` have the shape (n, m).

    ``at``: POSIX seconds at which each step begins, ascending, none left out; without mail there is 0 above and below.
    ``rest`` series more are summed in ``rest_above`` and ``rest_below``, of shape (m,). ``grain``: where it was read.
    """

    grain: str
    at: Ints
    scopes: tuple[Scope, ...]
    above: Ints
    below: Ints
    rest: int
    rest_above: Ints
    rest_below: Ints


def lines(
    facts: Reader,
    what: Measure,
    by: Sequence[str],
    since: datetime,
    until: datetime,
    step: timedelta,
    where: Scope = ANY,
    *,
    most: int = 12,
) -> Lines:
    """The ``most`` series with most mail over [since, until), in steps of whole minutes from ``since``."""
    names = owned(by)
    of, time = rows(what, names, since, until, where, step)
    steps = _Steps(facts, what, time, seconds(since), step // timedelta(seconds=1), seconds(until))
    none = np.zeros(len(steps.at), np.int64)
    if not names:
        some, above, below = steps.summed(of, (), _ALL)
        return Lines(of.grain, steps.at, (ANY,) * some, above[:some], below[:some], 0, none, none)
    chosen = largest(facts, what, names, of, most)
    mine = of.narrowed(f"{identity(names)} IN {{ids:Array(UInt64)}}", ids=chosen.ids.tolist())
    _, above, below = steps.summed(mine, names, chosen.ids)
    rest = chosen.of - len(chosen.scopes)
    if not rest:
        return Lines(of.grain, steps.at, chosen.scopes, above, below, 0, none, none)
    _, all_above, all_below = steps.summed(of, (), _ALL)
    # Facts may come in between two questions, and no sum is below 0.
    rest_above, rest_below = (
        np.maximum(whole[0] - shown.sum(axis=0), 0) for whole, shown in ((all_above, above), (all_below, below))
    )
    return Lines(of.grain, steps.at, chosen.scopes, above, below, rest, rest_above, rest_below)


def rule_lines(
    facts: Reader, rule: Rule, since: datetime, until: datetime, step: timedelta, where: Scope = ANY, *, most: int = 12
) -> Lines:
    """What a rule watches, over time."""
    return lines(facts, of_rule(rule), rule.by, since, until, step, where, most=most)


@dataclass(frozen=True, slots=True)
class _Steps:
    """A measure by steps of ``size`` seconds from ``since``."""

    facts: Reader
    what: Measure
    time: str
    since: int
    size: int
    until: int

    @property
    def at(self) -> Ints:
        return np.arange(self.since, self.until, self.size, dtype=np.int64)

    def summed(self, of: Part, names: Sequence[str], ids: npt.NDArray[np.uint64]) -> tuple[int, Ints, Ints]:
        """How many rows were found, and above and below the line of the series ``ids``, each of shape (n, m)."""
        above, below = np.zeros((2, len(ids), len(self.at)), np.int64)
        if not len(ids):
            return 0, above, below
        sql = select(of, names, sums(self.what, of.grain), step=stepped(of.grain, self.time), labelled=False)
        table = self.facts.query(sql, **of.values, step=self.size)
        order = np.argsort(ids)
        line = order[np.searchsorted(ids, table["id"].to_numpy(), sorter=order)]
        column = (ints(table, "step") - self.since) // self.size
        above[line, column], below[line, column] = ints(table, "above"), ints(table, "below")
        return min(len(table), 1), above, below
