"""``GET /v1/series``: a rate or an outcome over event time, for the page, Grafana and scripts (docs/queries.md)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from monitor.api import words
from monitor.api.asked import MINUTE, Measured, Span, Unclear, What, answer, head, widened
from monitor.api.refusals import REFUSED
from monitor.api.seen import seen
from monitor.api.sources import sources
from monitor.core.rates import Rate
from monitor.facts.lines import Lines, lines
from monitor.model import Scope, named
from monitor.service import Core

if TYPE_CHECKING:
    from monitor.ports import Flags, Ints

USUAL = timedelta(minutes=30)
STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 180, 360, 720, 1440, 10080))
POINTS = 5000  # of one series
ALL_POINTS = 400_000  # of one answer
OTHER = "other"
_HOUR = timedelta(hours=1)
_SHORT = timedelta(hours=2)  # a window in which hours would show next to nothing
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The series; points are time (POSIX seconds), numerator, denominator and value.",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/csv": {"schema": {"type": "string"}}},
    },
    **REFUSED,
}


class Asked(Measured):
    """What is drawn."""

    step: Span | None = None
    points: Annotated[int, Field(ge=1, le=POINTS, description="at most so many a series, where no step is named")] = (
        1000
    )
    top: Annotated[int, Field(ge=1, le=200, description="series with most mail; the rest is summed as other")] = 12
    gaps: Annotated[Literal["null", "omit"], Field(description="what a step without mail is")] = "null"
    format: Annotated[Literal["json", "rows", "csv"], Field(description="rows: one a point, for Grafana")] = "json"


def router(core: Core) -> APIRouter:
    """The route of the chart."""
    api = APIRouter(tags=["look"])

    @api.get("/v1/series", response_class=Response, responses=_RESPONSES)
    def series(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """Numerator, denominator and value by steps of event time; the value is null where there is no data."""
        now, mine = core.clock(), seen(core, request)
        where, what = mine.where(asked), asked.what(core, Rate.BOUNCE, mine.tenant)
        since, until = asked.window(now, USUAL)
        step = _step(asked, until - since, what)
        since, until = widened(since, until, step)
        count = (until - since) // step
        if count > POINTS or count * (asked.top if what.by else 1) > ALL_POINTS:
            raise Unclear(f"{count:,} steps of up to {asked.top} series", "ask for a longer step, or for fewer series")
        found = lines(mine.facts, what.measure, what.by, since, until, step, where, most=asked.top)
        until_known, since_known = core.complete_to(), now - _kept(core, found.grain)
        told = {
            **head(what, where, since, until),
            "step": step // timedelta(seconds=1),
            "complete_to": words.stamp(until_known),
            "kept_since": words.stamp(since_known),
            "sources": sources(core, mine, now),
        }
        silent = _silent(found.at, step, since_known, until_known) | _lost(found.at, step, core.missing())
        return _FORMATS[asked.format](told, found, what, silent, omit=asked.gaps == "omit")

    return api


def _step(asked: Asked, length: timedelta, what: What) -> timedelta:
    """The step that was asked for, in whole minutes, or the shortest one that needs no more points than may be."""
    if asked.step is not None:
        return max(MINUTE, -(-asked.step // MINUTE) * MINUTE)
    # The hours of sending are kept for years and the minutes for days, so a cohort is an hour wherever it may be.
    short = not what.measure.by_cohort or length <= _SHORT
    steps = [step for step in STEPS if short or step >= _HOUR]
    return next((step for step in steps if length <= asked.points * step), steps[-1])


def _kept(core: Core, grain: str) -> timedelta:
    kept: timedelta = getattr(core.settings.retention, grain)
    return kept


def _silent(at: Ints, step: timedelta, since: datetime, until: datetime | None) -> Flags:
    """The steps of which nobody may say that nothing happened: not all is told yet, or none of it is kept any more."""
    if until is None:
        return np.ones(len(at), np.bool_)
    silent: Flags = (at + step.total_seconds() > until.timestamp()) | (at < since.timestamp())
    return silent


def _lost(at: Ints, step: timedelta, spans: Iterable[tuple[datetime, datetime]]) -> Flags:
    """The steps of which something was told that is here no more."""
    lost = np.zeros(len(at), np.bool_)
    for since, until in spans:
        lost |= (at + step.total_seconds() > since.timestamp()) & (at < until.timestamp())
    return lost


@dataclass(frozen=True, slots=True)
class _Line:
    """One series as lists of one length; ``below`` is of None where there is no line to stand below."""

    scope: Scope | None  # None: the rest
    at: list[int]
    above: list[int]
    below: list[int] | list[None]
    value: list[float]  # NaN: no data

    @property
    def name(self) -> str:
        return OTHER if self.scope is None else str(self.scope)

    @property
    def points(self) -> list[tuple[int, int, int | None, float]]:
        return list(zip(self.at, self.above, self.below, self.value, strict=True))


def _drawn(found: Lines, what: What, silent: Flags, *, omit: bool) -> Iterator[_Line]:
    for place, scope in enumerate(found.scopes):
        yield _line(found.at, scope, found.above[place], found.below[place], what, silent, omit=omit)
    if found.rest:
        yield _line(found.at, None, found.rest_above, found.rest_below, what, silent, omit=omit)


def _line(at: Ints, scope: Scope | None, above: Ints, below: Ints, what: What, silent: Flags, *, omit: bool) -> _Line:
    if what.measure.below:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(below > 0, above / below, np.nan)
    else:
        value = np.where((above == 0) & silent, np.nan, above)
    if omit:
        seen = ~np.isnan(value)
        at, above, below, value = at[seen], above[seen], below[seen], value[seen]
    under: list[int] | list[None] = below.tolist() if what.measure.below else [None] * len(at)
    return _Line(scope, at.tolist(), above.tolist(), under, value.tolist())


def _json(told: dict[str, Any], found: Lines, what: What, silent: Flags, *, omit: bool) -> Response:
    drawn = [
        {"scope": None if line.scope is None else named(line.scope), "name": line.name, "points": line.points}
        for line in _drawn(found, what, silent, omit=omit)
    ]
    other = {"series": found.rest, "points": drawn.pop()["points"]} if found.rest else None
    return answer({**told, "series": drawn, "other": other})


def _rows(told: dict[str, Any], found: Lines, what: What, silent: Flags, *, omit: bool) -> Response:
    rows = [
        {"time": time, "series": line.name, **labels, "numerator": above, "denominator": below, "value": value}
        for line, labels in _labelled(found, what, silent, omit=omit)
        for time, above, below, value in _timed(line)
    ]
    return answer({**told, "other": found.rest, "rows": rows})


def _csv(told: dict[str, Any], found: Lines, what: What, silent: Flags, *, omit: bool) -> Response:
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    writer.writerow(("time", "series", *what.by, "numerator", "denominator", "value"))
    for line, labels in _labelled(found, what, silent, omit=omit):
        for time, above, below, value in _timed(line):
            writer.writerow((time, line.name, *labels.values(), above, below, "" if math.isnan(value) else value))
    headers = {"Mailvane-Complete-To": told["complete_to"] or ""}
    return Response(sheet.getvalue(), media_type="text/csv", headers=headers)


def _labelled(found: Lines, what: What, silent: Flags, *, omit: bool) -> Iterator[tuple[_Line, dict[str, str]]]:
    for line in _drawn(found, what, silent, omit=omit):
        yield line, {label: OTHER if line.scope is None else getattr(line.scope, label) for label in what.by}


def _timed(line: _Line) -> Iterator[tuple[str, int, int | None, float]]:
    for at, above, below, value in line.points:
        yield datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), above, below, value


_FORMATS = {"json": _json, "rows": _rows, "csv": _csv}
