"""What can be measured of mail: a rate as it is defined, what a rule watches, or one outcome; and in which grain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from monitor.core.rates import PARTS, Rate
from monitor.core.rules import Rule
from monitor.facts.grains import HOUR_LABELS, MINUTE_LABELS
from monitor.facts.grouped import Part, part, seconds, summed, within
from monitor.model import Kind, Scope

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
# A leaf lies where its outcome does, and is looked for by the time of sending: a server's clock may be a little late.
_LATE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Measure:
    """What is summed: the counters ``above`` and ``below`` the line (no ``below``: a count and no rate).

    ``by_cohort``: by the time of sending rather than of the outcome. ``providers``: of mail there only; empty: all.
    """

    above: tuple[str, ...]
    below: tuple[str, ...] = ()
    by_cohort: bool = False
    providers: tuple[str, ...] = ()


def of_rate(rate: Rate) -> Measure:
    """The measure of a rate as it is defined."""
    parts = PARTS[rate]
    return Measure(parts.above, parts.below, parts.by_cohort, parts.providers)


def of_rule(rule: Rule) -> Measure:
    """The measure of what a rule watches."""
    parts = PARTS[rule.rate]
    return Measure(parts.above, parts.below, parts.by_cohort, rule.counted_providers)


def of_kind(kind: Kind) -> Measure:
    """The measure that counts one outcome, by its own time."""
    return Measure((kind.value,))


def sums(what: Measure, grain: str) -> dict[str, str]:
    """What stands ``above`` and ``below`` the line, in SQL."""
    return {"above": summed(grain, what.above), "below": summed(grain, what.below)}


def rows(
    what: Measure, names: Sequence[str], since: datetime, until: datetime, where: Scope, step: timedelta = _HOUR
) -> tuple[Part, str]:
    """The coarsest grain that can tell ``names`` and ``step`` apart, cut to what is asked for; and its column of time.

    A measure by cohort looks at hours of sending as long as both ends and the step are whole ones.
    """
    if not what.by_cohort:
        grain, time = ("minute" if within(MINUTE_LABELS, names, where) else "leaf"), "at"
    else:
        whole = not any(span % _HOUR for span in (since - _EPOCH, until - _EPOCH, step))
        grain, time = ("hour" if whole and within(HOUR_LABELS, names, where) else "leaf"), "sent_at"
    found = part(grain, time, since, until, where)
    if (grain, time) == ("leaf", "sent_at"):
        found = found.narrowed("leaf.at >= toDateTime({told_since:Int64}, 'UTC')", told_since=seconds(since - _LATE))
    return (found.at(what.providers) if what.providers else found), time
