"""``GET /v1/top`` and ``GET /v1/cohorts``: the worst scopes, and mail by the hour in which it was sent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from detectors.threshold import wilson
from monitor.api import words
from monitor.api.asked import Measured, Unclear, What, answer, between, head, widened
from monitor.api.pages import moment
from monitor.api.refusals import REFUSED
from monitor.api.seen import seen
from monitor.api.sources import sources
from monitor.core.rates import NOT_BY_HOUR, Rate
from monitor.facts import cohorts as by_hour
from monitor.facts import measures, rated
from monitor.facts.cohorts import Cohorts, cohorts
from monitor.facts.grains import LAG_EDGES
from monitor.facts.grouped import owned, seconds
from monitor.facts.rated import Rated, top
from monitor.model import Scope, named
from monitor.service import Core

_HOUR = timedelta(hours=1)
_LATELY, _COHORTS = timedelta(hours=1), timedelta(days=7)
LAGS = [*(edge // timedelta(seconds=1) for edge in LAG_EDGES), None]


class Ranked(Measured):
    """What is ranked."""

    at_least: Annotated[
        int | None, Field(ge=1, le=10**12, description="below the line (100, if left out); of a kind: counted (1)")
    ] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 20
    cursor: Annotated[str, Field(max_length=200)] = ""


class Sent(Measured):
    """Which cohorts."""

    lags: Annotated[bool, Field(description="what was known after each lag, too")] = False
    limit: Annotated[int, Field(ge=1, le=5000)] = 500
    cursor: Annotated[str, Field(max_length=200)] = ""


def router(core: Core) -> APIRouter:
    """The routes that compare."""
    api = APIRouter(tags=["look"], responses=REFUSED)

    @api.get("/v1/top")
    def worst(request: Request, asked: Annotated[Ranked, Query()]) -> Response:
        """The worst scopes first, with at least so much mail; `next` is the cursor of the next page."""
        now, mine = core.clock(), seen(core, request)
        where, what = mine.where(asked), asked.what(core, Rate.BOUNCE, mine.tenant)
        since, until = asked.window(now, timedelta(days=1) if what.measure.by_cohort else _LATELY)
        if what.measure.by_cohort and not set(NOT_BY_HOUR) & {*what.by, *named(where)}:
            since, until = widened(since, until, _HOUR)
        at_least = asked.at_least or (100 if what.measure.below else 1)
        kept_since = now - _kept(core, what, since, until, where)
        if what.measure.by_cohort:
            # What came of older mail is kept longer than that mail: it would stand above a line with nothing below.
            since, until = between(max(since, _whole(kept_since)), until)
        after = None
        if numbers := mine.page(asked.cursor, 5):
            since, until = between(moment(numbers[0]), moment(numbers[1]))
            after = rated.Place(*numbers[2:])
        found = top(
            mine.facts,
            what.measure,
            what.by,
            since,
            until,
            where,
            at_least=at_least,
            most=asked.limit,
            after=after,
        )
        last = (int(found.above[-1]), int(found.below[-1]), int(found.ids[-1])) if len(found.ids) else ()
        more = found.of > len(found.ids)
        return answer(
            {
                **head(what, where, since, until),
                "at_least": at_least,
                "complete_to": words.stamp(core.complete_to()),
                "kept_since": words.stamp(kept_since),
                "sources": sources(core, mine, now),
                "scopes": _ranked(found, what),
                "next": mine.cursor(seconds(since), seconds(until), *last) if more else None,
            }
        )

    @api.get("/v1/cohorts")
    def sent(request: Request, asked: Annotated[Sent, Query()]) -> Response:
        """Mail by the hour of sending, the youngest first; `next` is the cursor of the next page."""
        now, mine = core.clock(), seen(core, request)
        where, what = mine.where(asked), asked.what(core, Rate.COMPLAINT, mine.tenant)
        if unkept := set(NOT_BY_HOUR) & {*what.by, *named(where)}:
            raise Unclear(f"the hours of sending don't keep {', '.join(sorted(unkept))}", "leave it out")
        since, until = widened(*asked.window(now, _COHORTS), _HOUR)
        after = None
        if numbers := mine.page(asked.cursor, 4):
            since, until = between(moment(numbers[0]), moment(numbers[1]))
            after = by_hour.Place(*numbers[2:])
        found = cohorts(mine.facts, what.measure, what.by, since, until, where, most=asked.limit + 1, after=after)
        count = min(len(found.ids), asked.limit)
        ends = (int(found.sent_at[count - 1]), int(found.ids[count - 1])) if len(found.ids) > count else ()
        return answer(
            {
                **head(what, where, since, until),
                "time": "sent_at",  # whatever is rated: the hours are those of sending
                "complete_to": words.stamp(core.complete_to()),
                "kept_since": words.stamp(now - core.settings.retention.hour),
                "sources": sources(core, mine, now),
                "lags": LAGS if asked.lags else None,
                "cohorts": [_cohort(found, place, lags=asked.lags) for place in range(count)],
                "next": mine.cursor(seconds(since), seconds(until), *ends) if ends else None,
            }
        )

    return api


def _kept(core: Core, what: What, since: datetime, until: datetime, where: Scope) -> timedelta:
    """How long the counts are kept that answer: of what the minutes don't know, some days only."""
    rows, _ = measures.rows(what.measure, owned(what.by), since, until, where)
    kept: timedelta = getattr(core.settings.retention, rows.grain)
    return kept


def _whole(at: datetime) -> datetime:
    """The next whole hour."""
    return widened(at, at, _HOUR)[1]


def _ranked(found: Rated, what: What) -> list[dict[str, Any]]:
    lower, upper = wilson(found.above, found.below)
    rate = bool(what.measure.below)
    return [
        {
            **_scope(scope),
            "numerator": above,
            "denominator": below if rate else None,
            "value": above / below if rate else above,
            "lower": words.number(least) if rate else None,
            "upper": words.number(most) if rate else None,
        }
        for scope, above, below, least, most in zip(
            found.scopes, found.above.tolist(), found.below.tolist(), lower.tolist(), upper.tolist(), strict=True
        )
    ]


def _cohort(found: Cohorts, place: int, *, lags: bool) -> dict[str, Any]:
    above, below = found.above[place].tolist(), found.below[place].tolist()
    return {
        "sent_at": words.stamp(moment(int(found.sent_at[place]))),
        **_scope(found.scopes[place]),
        "numerator": above[-1],
        "denominator": below[-1],
        "value": above[-1] / below[-1] if below[-1] else None,
        **({"numerators": above, "denominators": below} if lags else {}),
    }


def _scope(scope: Scope) -> dict[str, Any]:
    return {"scope": named(scope), "name": str(scope)}
