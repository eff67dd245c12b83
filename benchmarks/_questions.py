"""What is asked of the facts in ``queries``: by the product's own functions, which read grains, and of raw events.

Each question comes as two functions whose answers must be alike: what is compared is two roads to the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np

from benchmarks import _events
from monitor.core.rates import Rate
from monitor.facts.cohorts import Cohorts, cohorts
from monitor.facts.grains import LAG_EDGES
from monitor.facts.grouped import ints, scopes
from monitor.facts.lines import Lines, lines
from monitor.facts.measures import Measure, of_rate
from monitor.facts.rated import Rated, leaves, top
from monitor.facts.store import Facts
from monitor.model import LABELS, Scope

BOUNCES, COMPLAINTS = of_rate(Rate.BOUNCE), of_rate(Rate.COMPLAINT)
STEP = timedelta(minutes=5)
IP = _events.ip(7)
ENOUGH = 500  # delivered, below which a segment's rate says little
DAY = timedelta(days=1)


class Timed:
    """The facts, and how many ``seconds`` their queries took until the answer was there; making objects of it not."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.seconds = 0.0

    def query(self, sql: str, **parameters: Any) -> Any:
        """As ``Facts.query``."""
        began = time.perf_counter()
        try:
            return self._facts.query(sql, **parameters)
        finally:
            self.seconds += time.perf_counter() - began


class Asked(NamedTuple):
    """One question, both ways, and the answer of either as plain values to compare."""

    grains: Callable[[Any], Any]
    raw: Callable[[Any], Any]
    plain: Callable[[Any], Any]


def questions(span: timedelta) -> Mapping[str, Asked]:
    """The four, over the ``span`` before ``_events.UNTIL``; of a cause over its last day."""
    until, since = _events.UNTIL, _events.UNTIL - span
    day = max(since, until - DAY)
    values = {"since": int(since.timestamp()), "until": int(until.timestamp())}
    complaining = {**values, "providers": list(COMPLAINTS.providers)}
    return {
        # One IP's bounce rate in steps of five minutes.
        "one_ip": Asked(
            lambda facts: lines(facts, BOUNCES, (), since, until, STEP, Scope(ip=IP)),
            lambda facts: _raw_line(facts.query(_ONE_IP, **values, ip=IP), values),
            lambda found: (found.above[0].tolist(), found.below[0].tolist()),
        ),
        # The ten segments with most complaints for what was delivered.
        "top_segments": Asked(
            lambda facts: top(facts, COMPLAINTS, ("segment",), since, until, at_least=ENOUGH),
            lambda facts: _raw_rated(facts.query(_TOP, **complaining), _SEGMENT),
            lambda found: sorted(_rows(found)),
        ),
        # Complaints by the hour of sending and mailbox provider, as they were known after each lag.
        "cohorts": Asked(
            lambda facts: cohorts(facts, COMPLAINTS, ("provider",), since, until, most=100_000),
            lambda facts: _raw_cohorts(facts.query(_COHORTS, **complaining)),
            lambda found: sorted(zip(found.sent_at.tolist(), _rows(found), strict=True)),
        ),
        # Where a day's bounces lie, by all nine labels.
        "cause": Asked(
            lambda facts: leaves(facts, BOUNCES, day, until),
            lambda facts: _raw_rated(facts.query(_CAUSE, **{**values, "since": int(day.timestamp())}), LABELS),
            lambda found: sorted(_rows(found)),
        ),
    }


def _sum(counters: Sequence[str], condition: str = "") -> str:
    kinds = ", ".join(f"'{counter}'" for counter in counters)
    return f"toInt64(sumIf(events.count, events.kind IN ({kinds}){condition}))"


def _sides(what: Measure) -> str:
    return f"{_sum(what.above)} AS above, {_sum(what.below)} AS below"


def _within(time: str) -> str:
    return f"events.{time} >= toDateTime({{since:Int64}}, 'UTC') AND events.{time} < toDateTime({{until:Int64}}, 'UTC')"


def _named(labels: Sequence[str]) -> str:
    # By a hash of the texts, as the product does it: by the texts themselves the raw side would be far slower still.
    shown = ", ".join(f"any(events.{label}) AS {label}" for label in labels)
    return f"cityHash64({', '.join(f'events.{label}' for label in labels)}) AS id, {shown}"


_SEGMENT = ("tenant", "segment")
_LAG = "dateDiff('millisecond', events.sent_at, events.seen_at)"
_KNOWN = [f" AND {_LAG} < {edge // timedelta(milliseconds=1)}" for edge in LAG_EDGES] + [""]
_ONE_IP = (
    "SELECT {since:Int64} + intDiv(toInt64(toUnixTimestamp(events.at)) - {since:Int64}, 300) * 300 AS step,"
    f" {_sides(BOUNCES)} FROM events WHERE {_within('at')} AND events.ip = {{ip:String}} GROUP BY step"
)
_TOP = (
    f"SELECT {_named(_SEGMENT)}, {_sides(COMPLAINTS)} FROM events WHERE {_within('sent_at')}"
    f" AND events.provider IN {{providers:Array(String)}} GROUP BY id HAVING below >= {ENOUGH}"
    " ORDER BY toFloat64(above) / below DESC, below DESC, id DESC LIMIT 10"
)
_COHORTS = (
    f"SELECT {_named(('provider',))}, toInt64(toUnixTimestamp(toStartOfHour(events.sent_at))) AS step, "
    + ", ".join(f"{_sum(COMPLAINTS.above, known)} AS above_{lag}" for lag, known in enumerate(_KNOWN))
    + ", "
    + ", ".join(f"{_sum(COMPLAINTS.below, known)} AS below_{lag}" for lag, known in enumerate(_KNOWN))
    + f" FROM events WHERE {_within('sent_at')} AND events.provider IN {{providers:Array(String)}} GROUP BY id, step"
)
_CAUSE = (
    f"SELECT {_named(LABELS)}, {_sides(BOUNCES)} FROM events WHERE {_within('at')} GROUP BY id"
    " ORDER BY above DESC, below DESC, id LIMIT 100000"
)


def _raw_line(table: Any, values: Mapping[str, int]) -> Lines:
    at = np.arange(values["since"], values["until"], 300)
    above, below = np.zeros((2, 1, len(at)), np.int64)
    place = (ints(table, "step") - values["since"]) // 300
    above[0, place], below[0, place] = ints(table, "above"), ints(table, "below")
    return Lines("events", at, (Scope(ip=IP),), above, below, 0, above[0], below[0])


def _raw_rated(table: Any, labels: Sequence[str]) -> Rated:
    ids = table["id"].to_numpy()
    return Rated(scopes(table, labels), ids, ints(table, "above"), ints(table, "below"), len(ids))


def _raw_cohorts(table: Any) -> Cohorts:
    above, below = (
        np.stack([ints(table, f"{side}_{lag}") for lag in range(len(_KNOWN))], axis=1) for side in ("above", "below")
    )
    return Cohorts(scopes(table, ("provider",)), table["id"].to_numpy(), ints(table, "step"), above, below)


def _rows(found: Rated | Cohorts) -> list[Any]:
    return list(zip(map(str, found.scopes), found.above.tolist(), found.below.tolist(), strict=True))
