"""Mail by the hour in which it was sent, and what was known of it after each lag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.facts.grains import HOUR_LABELS, LAG_EDGES
from monitor.facts.grouped import ANY, ints, owned, part, scopes, select, summed, within
from monitor.facts.measures import Measure
from monitor.facts.store import Reader
from monitor.model import Scope

if TYPE_CHECKING:
    from monitor.ports import Ints

_LAGS = range(len(LAG_EDGES) + 1)


@dataclass(frozen=True, slots=True)
class Cohorts:
    """n cohorts, the youngest first: mail of one hour of sending and one scope.

    ``sent_at``: POSIX seconds of the hour. ``above`` and ``below`` have the shape (n, 12): what was known within each
    of ``schema.LAG_EDGES`` after sending, and last what is known now; they never fall from left to right.
    """

    scopes: tuple[Scope, ...]
    ids: npt.NDArray[np.uint64]
    sent_at: Ints
    above: Ints
    below: Ints


class Place(NamedTuple):
    """Where a page ended: its last hour, in POSIX seconds, and the id of its last scope."""

    hour: int
    id: int


def cohorts(
    facts: Reader,
    what: Measure,
    by: Sequence[str],
    since: datetime,
    until: datetime,
    where: Scope = ANY,
    *,
    most: int = 1000,
    after: Place | None = None,
) -> Cohorts:
    """Mail by the hours [since, until) in which it was sent; ``after``: the next page.

    Raises:
        ValueError: variant or region, which the hours don't keep.
    """
    names = owned(by)
    if not within(HOUR_LABELS, names, where):
        raise ValueError(f"by the hour of sending there are only {', '.join(HOUR_LABELS)}")
    of = part("hour", "sent_at", since, until, where)
    of = of.at(what.providers) if what.providers else of
    sides = {"above": what.above, "below": what.below}
    sums = {
        f"{side}_{lag}": summed("hour", counters, f"hour.lag <= {lag}")
        for side, counters in sides.items()
        for lag in _LAGS
    }
    sql = select(
        of,
        names,
        sums,
        step="toInt64(toUnixTimestamp(hour.sent_at))",
        having="(-step, id) > (-{hour:Int64}, {id:UInt64})" if after else "",
        order="step DESC, id",
        most=most,
    )
    table = facts.query(sql, **of.values, **(after._asdict() if after else {}))
    above, below = (np.stack([ints(table, f"{side}_{lag}") for lag in _LAGS], axis=1) for side in sides)
    return Cohorts(scopes(table, names), table["id"].to_numpy(), ints(table, "step"), above, below)
