"""``GET /v1/attribution``: how reports find their messages, by source, since the start."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter

from monitor.api import words
from monitor.attribution import Tally
from monitor.service import Core
from monitor.witnesses import CLUES


def router(core: Core) -> APIRouter:
    """The route."""
    api = APIRouter(tags=["facts"])
    began = core.clock()

    @api.get("/v1/attribution")
    def attribution() -> dict[str, Any]:
        """By which clues reports were attributed, why others were not, and how many bear which clue.

        Counts since the start; a `share` is a part of the source's `reports`, 0 to 1. Those `waiting` are tried again.
        """
        tally = core.attributor.tally
        return {
            "since": words.stamp(began),
            "waiting": tally.waiting,
            "keys": [key.name for key in core.attributor.keys.current().all],
            "sources": {source: _source(tally, source) for source in sorted(tally.reports)},
        }

    return api


def _source(tally: Tally, source: str) -> dict[str, Any]:
    reports = tally.reports[source]
    clues = _of(tally.clues, source)
    return {
        "reports": reports,
        "unverified": tally.unverified[source],
        "disagree": tally.disagree[source],
        "attributed": _of(tally.attributed, source),
        "unattributed": _of(tally.unattributed, source),
        "marks_refused": _of(tally.refused, source),
        "clues": {clue: {"reports": clues.get(clue, 0), "share": clues.get(clue, 0) / reports} for clue in CLUES},
    }


def _of(counts: Counter[tuple[str, str]], source: str) -> dict[str, int]:
    return {word: count for (name, word), count in sorted(dict(counts).items()) if name == source}
