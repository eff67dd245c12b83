"""``/metrics``, ``/healthz`` and ``/readyz``: what operators' machines ask of us."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from monitor.api.access import caller_of
from monitor.model import Grade
from monitor.ports import Collector
from monitor.quarantine import REASONS
from monitor.service import Core


def router(core: Core) -> APIRouter:
    """The routes of our own state."""
    api = APIRouter(tags=["self"])

    @api.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @api.get("/readyz")
    def ready(request: Request, response: Response) -> Any:
        """Whether all parts work; 503 with what does not, for those who may read it."""
        errors = dict(core.health.errors)
        response.status_code = 503 if errors else 200
        told: dict[str, Any] = {"status": "degraded" if errors else "ready"}
        return {**told, "errors": errors} if caller_of(request).sees_all else told

    @api.get("/metrics")
    def metrics() -> Response:
        """Prometheus text format."""
        _measure(core)
        return Response(generate_latest(core.telemetry.registry), media_type=CONTENT_TYPE_LATEST)

    return api


def _measure(core: Core) -> None:
    """Gauges are read when they are asked for."""
    known, telemetry = core.status(), core.telemetry
    telemetry.spool_bytes.set(core.stores.spool.size)
    telemetry.spool_waiting.set(core.waiting())
    tally = core.stores.applier.tally
    telemetry.reach(telemetry.applied, tally.applied)
    telemetry.reach(telemetry.duplicates, tally.duplicates)
    telemetry.reach(telemetry.dead_letters, tally.dead_letters)
    telemetry.reach(telemetry.names_folded, core.names.folded)
    telemetry.notices_owed.set(known["owed"])
    telemetry.held_share.set(float("nan") if known["held_share"] is None else known["held_share"])
    for (source, node), (mark, _) in known["heard"].items():
        if mark:
            telemetry.watermark.labels(source, node).set(mark.timestamp())
    for name, collector in core.settings.collectors.items():
        if isinstance(collector, Collector) and (lag := collector.waiting()) is not None:
            telemetry.lag.labels(name).set(lag)
    for rule in core.settings.rules:
        for grade in (Grade.ALERT, Grade.PAUSE):
            count = sum(1 for one in known["open"] if one.rule == rule.name and one.grade is grade)
            telemetry.incidents.labels(rule.name, str(grade)).set(count)
    _measure_quarantine(core)
    _measure_attribution(core)
    telemetry.gate.measure(known["held"], core.gate.read_at)


def _measure_quarantine(core: Core) -> None:
    kept, metrics = core.stores.quarantine, core.telemetry.quarantine
    stand = kept.stand()
    metrics.items.set(stand.items)
    metrics.things.set(stand.things)
    metrics.bytes.set(stand.bytes)
    metrics.oldest.set((core.clock() - stand.oldest).total_seconds() if stand.oldest else float("nan"))
    for reason in REASONS:
        core.telemetry.reach(metrics.dropped.labels(reason), kept.dropped[reason])


def _measure_attribution(core: Core) -> None:
    tally, metrics = core.attributor.tally, core.telemetry.attribution
    metrics.waiting.set(tally.waiting)
    for metric, by_source in (
        (metrics.reports, tally.reports),
        (metrics.unverified, tally.unverified),
        (metrics.disagree, tally.disagree),
    ):
        for source, total in dict(by_source).items():
            core.telemetry.reach(metric.labels(source), total)
    for metric, by_word in (
        (metrics.clues, tally.clues),
        (metrics.attributed, tally.attributed),
        (metrics.unattributed, tally.unattributed),
        (metrics.refused, tally.refused),
    ):
        for labels, total in dict(by_word).items():
            core.telemetry.reach(metric.labels(*labels), total)
