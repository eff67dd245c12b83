"""What people look at: status, incidents and series; read by our page and by anybody else."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from monitor.api import words
from monitor.api.basics import refusal
from monitor.core.rates import PARTS, Rate
from monitor.cycle import STALE
from monitor.facts import queries
from monitor.facts.queries import Series
from monitor.ledger import actions, incidents
from monitor.model import LABELS, OWNED, named
from monitor.service import Core
from monitor.telemetry import VERSION

_MINUTE = timedelta(minutes=1)
VOLUME = ("sent", "deferred", "bounced", "complaint", "held")


def router(core: Core, *, demo: bool) -> APIRouter:
    """The routes that only read."""
    api = APIRouter(tags=["look"])

    @api.get("/v1/status")
    def status() -> Any:
        """Mode, sources, held share, and the outcomes of the last five minutes."""
        known = core.status()
        now: datetime = known["now"]
        counts = queries.counts(core.stores.facts, (), _minute(now) - 5 * _MINUTE, _minute(now) + _MINUTE)
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
            "sources": _sources(core, known, now),
            "counts": {name: int(getattr(counts, name).sum()) for name in VOLUME},
        }

    @api.get("/v1/incidents")
    def list_incidents(
        state: Literal["open", "all"] = "open",
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[int, Query(ge=0)] = 0,
    ) -> Any:
        """Incidents with what was done about them, the newest first; `before` an id for the next page."""
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            found = incidents.newest(conn, limit, before, only_open=state == "open")
            done = actions.of_incidents(conn, [one.id for one in found])
        return {"incidents": [words.incident(one, done[one.id]) for one in found]}

    @api.get("/v1/series", response_model=None)
    def series(
        by: str = "",
        rate: Rate = Rate.BOUNCE,
        minutes: Annotated[int, Query(ge=1, le=1440)] = 30,
        top: Annotated[int, Query(ge=1, le=200)] = 12,
    ) -> Response | dict[str, Any]:
        """Numerators and denominators by minute of the series with most mail; a minute that is missing had none."""
        names = tuple(name for name in by.split(",") if name)
        if wrong := _wrong(names):
            return refusal(wrong, f"name labels out of {', '.join(LABELS)}")
        since, until = _window(core.clock(), minutes)
        found = queries.series(core.stores.facts, names, since, until, _MINUTE)
        parts = PARTS[rate]
        most = sorted(found, key=lambda one: -_sum(one, parts.below))[:top]
        return {
            "by": names,
            "rate": str(rate),
            "step": 60,
            "since": words.stamp(since),
            "until": words.stamp(until),
            "complete_to": words.stamp(core.complete_to()),
            "series": [{"scope": named(one.scope), "points": _points(one, parts.above, parts.below)} for one in most],
        }

    @api.get("/v1/volume")
    def volume(minutes: Annotated[int, Query(ge=1, le=1440)] = 30) -> Any:
        """Outcomes of all mail by minute: time, then sent, deferred, bounced, complaint, held."""
        since, until = _window(core.clock(), minutes)
        found = queries.series(core.stores.facts, (), since, until, _MINUTE)
        points = [
            [int(at), *(int(getattr(one, name)[place]) for name in VOLUME)]
            for one in found
            for place, at in enumerate(one.at)
        ]
        return {"step": 60, "points": points}

    @api.get("/v1/facts")
    def totals() -> Any:
        """How many facts are stored: rows, distinct keys, and the sums of each grain.

        They must agree as soon as `waiting` (frames on disk that are not yet applied) is 0.
        """
        return {"waiting": core.waiting(), **queries.totals(core.stores.facts)}

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


def _sources(core: Core, known: dict[str, Any], now: datetime) -> list[dict[str, Any]]:
    heard = known["heard"]
    configured = {name: type(source).__name__.lower() for name, source in core.settings.collectors.items()}
    names = {(source, node) for source, node in heard} | {
        (name, core.node) for name in configured if not any(source == name for source, _ in heard)
    }
    return [
        _source(name, node, configured.get(name, "events"), heard.get((name, node)), core, now)
        for name, node in sorted(names)
    ]


def _source(
    name: str, node: str, kind: str, marks: tuple[datetime | None, datetime] | None, core: Core, now: datetime
) -> dict[str, Any]:
    mark, seen = marks or (None, None)
    error = core.health.errors.get(f"collector.{name}", "")
    state = "error" if error else "no data" if mark is None else "stale" if now - mark > STALE else "fresh"
    return {
        "name": name,
        "node": node,
        "kind": kind,
        "state": state,
        "watermark": words.stamp(mark),
        "seen_at": words.stamp(seen),
        "error": error,
    }


def _wrong(names: tuple[str, ...]) -> str:
    if unknown := [name for name in names if name not in LABELS]:
        return f"unknown labels: {', '.join(unknown)[:300]}"
    if "tenant" not in names and any(name in OWNED for name in names):
        return "segment, campaign and variant are only named together with tenant"
    return ""


def _points(one: Series, above: tuple[str, ...], below: tuple[str, ...]) -> list[list[int]]:
    bad = sum(getattr(one, name) for name in above)
    whole = sum(getattr(one, name) for name in below)
    return [[int(at), int(bad[place]), int(whole[place])] for place, at in enumerate(one.at) if whole[place]]


def _sum(one: Series, names: tuple[str, ...]) -> int:
    return sum(int(getattr(one, name).sum()) for name in names)


def _window(now: datetime, minutes: int) -> tuple[datetime, datetime]:
    until = _minute(now) + _MINUTE
    return until - minutes * _MINUTE, until


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
