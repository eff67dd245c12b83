"""What people look at: status, incidents and volume; read by our page and by anybody else."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from monitor.api import words
from monitor.api.basics import MOST
from monitor.api.seen import seen
from monitor.api.sources import sources
from monitor.facts import queries
from monitor.service import Core
from monitor.telemetry import VERSION

_MINUTE = timedelta(minutes=1)
VOLUME = ("sent", "deferred", "bounced", "complaint", "held")


def router(core: Core, *, demo: bool) -> APIRouter:
    """The routes that only read."""
    api = APIRouter(tags=["look"])

    @api.get("/v1/status")
    def status(request: Request) -> Any:
        """Mode, sources, held share, and the outcomes of the last five minutes."""
        known, mine = core.status(), seen(core, request)
        now: datetime = known["now"]
        counts = queries.counts(mine.facts, (), _minute(now) - 5 * _MINUTE, _minute(now) + _MINUTE)
        return {
            "version": VERSION,
            "mode": core.settings.automation.mode,
            "demo": demo,
            "now": words.stamp(now),
            "generation": core.gate.generation,
            "held_share": known["held_share"],
            "complete_to": words.stamp(known["complete_to"]),
            "notices_owed": known["owed"],
            "errors": dict(core.health.errors),
            "sources": sources(core, mine, now),
            "counts": {name: int(getattr(counts, name).sum()) for name in VOLUME},
        }

    @api.get("/v1/incidents")
    def list_incidents(
        request: Request,
        state: Literal["open", "all"] = "open",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[int, Query(ge=0, le=MOST)] = 0,
    ) -> Any:
        """Incidents with what was done about them, the newest first; `before` an id for the next page."""
        return {"incidents": seen(core, request).incidents(limit, before, only_open=state == "open")}

    @api.get("/v1/volume")
    def volume(request: Request, minutes: Annotated[int, Query(ge=1, le=1440)] = 30) -> Any:
        """Outcomes of all mail by minute: time, then sent, deferred, bounced, complaint, held."""
        mine = seen(core, request)
        since, until = _window(core.clock(), minutes)
        found = queries.series(mine.facts, (), since, until, _MINUTE, mine.all_mail)
        points = [
            [int(at), *(int(getattr(one, name)[place]) for name in VOLUME)]
            for one in found
            for place, at in enumerate(one.at)
        ]
        return {"step": 60, "points": points}

    @api.get("/v1/facts")
    def totals(request: Request) -> Any:
        """How many facts are stored: rows, distinct keys, and the sums of each grain.

        They must agree as soon as `waiting` (frames on disk that are not yet applied) is 0.
        """
        return {"waiting": core.waiting(), **queries.totals(seen(core, request).facts)}

    @api.get("/v1/rejected")
    def rejected() -> Any:
        """The last hundred items that could not be read, scrubbed."""
        return {
            "rejected": [
                {"source": source, "where": item.where, "why": item.why, "sample": item.sample}
                for source, item in core.health.aside
            ]
        }

    return api


def _window(now: datetime, minutes: int) -> tuple[datetime, datetime]:
    until = _minute(now) + _MINUTE
    return until - minutes * _MINUTE, until


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
