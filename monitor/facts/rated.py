"""Rates as numerators and denominators: of any scope and window, the worst scopes, and where to look for a cause.

What stands above and below the line is defined in ``core.rates``; here it is only summed. All on grains, none on raw
events. A scope's ``id`` is a hash of its labels, the same at each asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.facts.grouped import ANY, Part, ints, owned, scopes, select
from monitor.facts.measures import Measure, rows, sums
from monitor.facts.store import Reader
from monitor.model import LABELS, Scope

if TYPE_CHECKING:
    from monitor.ports import Ints


@dataclass(frozen=True, slots=True)
class Rated:
    """n scopes with what stands above and below the line; arrays of shape (n,).

    ``of``: how many there are in all, where only the first were asked for; on a later page, how many from there on.
    """

    scopes: tuple[Scope, ...]
    ids: npt.NDArray[np.uint64]
    above: Ints
    below: Ints
    of: int


class Place(NamedTuple):
    """Where a page of ``top`` ended: the sums of its last scope, and its id."""

    above: int
    below: int
    id: int


def rates(
    facts: Reader, what: Measure, by: Sequence[str], since: datetime, until: datetime, where: Scope = ANY
) -> Rated:
    """Every scope that has mail in [since, until), in no order; by no label: the one that ``where`` is."""
    names = owned(by)
    found, _ = rows(what, names, since, until, where)
    return asked(facts, what, names, found)


def top(
    facts: Reader,
    what: Measure,
    by: Sequence[str],
    since: datetime,
    until: datetime,
    where: Scope = ANY,
    *,
    at_least: int = 1,
    most: int = 10,
    after: Place | None = None,
) -> Rated:
    """The worst scopes first: by rate, and of one rate the larger; only those with ``at_least`` so much below the line.

    Of a measure that is no rate: the largest counts, of ``at_least`` so many. ``after``: the next page.
    """
    names = owned(by)
    found, _ = rows(what, names, since, until, where)
    key = ("toFloat64(above) / below", "below", "id") if what.below else ("above", "below", "id")
    having = f"{'below' if what.below else 'above'} >= {{at_least:Int64}}"
    values: dict[str, int] = {"at_least": at_least}
    if after is not None:
        # The rate is divided by the engine here too: as a text it might come back as its neighbour.
        mark = "toFloat64({above:Int64}) / {below:Int64}" if what.below else "{above:Int64}"
        having += f" AND ({', '.join(key)}) < ({mark}, {{below:Int64}}, {{id:UInt64}})"
        values |= after._asdict()
    order = ", ".join(f"{column} DESC" for column in key)
    return asked(facts, what, names, found, having=having, order=order, most=most, **values)


def leaves(
    facts: Reader, what: Measure, since: datetime, until: datetime, where: Scope = ANY, *, most: int = 100_000
) -> Rated:
    """What lies within ``where``, told apart by all nine labels, most above the line first: to look for a cause in."""
    found, _ = rows(what, LABELS, since, until, where)
    return asked(facts, what, LABELS, found, order="above DESC, below DESC, id", most=most)


def largest(facts: Reader, what: Measure, names: Sequence[str], of: Part, most: int) -> Rated:
    """The scopes with most mail first."""
    return asked(facts, what, names, of, order=f"{'below' if what.below else 'above'} DESC, id", most=most)


def asked(
    facts: Reader,
    what: Measure,
    names: Sequence[str],
    of: Part,
    *,
    having: str = "",
    order: str = "",
    most: int = 0,
    **values: Any,
) -> Rated:
    """The scopes of ``of`` with their sums."""
    groups = {"groups": "toInt64(count() OVER ())"}
    sql = select(of, names, sums(what, of.grain), beside=groups, having=having, order=order, most=most)
    table = facts.query(sql, **of.values, **values)
    many = int(table["groups"][0].as_py()) if len(table) else 0
    return Rated(scopes(table, names), table["id"].to_numpy(), ints(table, "above"), ints(table, "below"), many)
