"""Small builders with defaults, shared by the tests of the core."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from detectors.threshold import Threshold
from monitor.core.judge import Table
from monitor.core.rates import Rate
from monitor.core.rules import Pauses, Rule
from monitor.model import AUTOMATION, Action, Deed, Grade, Incident, Scope, State, Verdict

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)
SELLER = Scope(tenant="s07", segment="lapsed")


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def pause(**changes: Any) -> Action:
    """An hour's pause by automation that began at NOW."""
    values: dict[str, Any] = {
        "id": "1@0",
        "at": NOW,
        "who": AUTOMATION,
        "deed": Deed.PAUSE,
        "scope": SELLER,
        "why": "bounces",
        "until": NOW + minutes(60),
        "incident": 1,
        "seq": 1,
    }
    return Action(**{**values, **changes})


def resumed(lease: str = "1@0", at: datetime = SOON) -> Action:
    return pause(id=f"r-{lease}", at=at, who="marta", deed=Deed.RESUME, lease=lease, until=None, seq=2)


def rule(**changes: Any) -> Rule:
    values: dict[str, Any] = {
        "name": "bounce-seller",
        "rate": Rate.BOUNCE,
        "by": ("tenant", "segment"),
        "window": minutes(5),
        "detector": Threshold(alert=0.05, pause=0.10, min_volume=200),
        "lease": minutes(60),
        "calm_for": minutes(5),
        "pauses": Pauses.ALWAYS,
    }
    return Rule(**{**values, **changes})


def table(*rows: tuple[Scope, int, int]) -> Table:
    return Table(
        scopes=tuple(row[0] for row in rows),
        bad=np.array([row[1] for row in rows], dtype=np.int64),
        total=np.array([row[2] for row in rows], dtype=np.int64),
        since=NOW - minutes(5),
        until=NOW,
    )


def verdict(**changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "rule": "bounce-seller",
        "scope": SELLER,
        "state": State.BAD,
        "grade": Grade.PAUSE,
        "numerator": 300,
        "denominator": 1000,
        "expected": 0.05,
        "lower": 0.27,
        "upper": 0.33,
        "since": NOW - minutes(5),
        "until": NOW,
    }
    return Verdict(**{**values, **changes})


def incident(**changes: Any) -> Incident:
    values: dict[str, Any] = {
        "id": 1,
        "rule": "bounce-seller",
        "scope": SELLER,
        "grade": Grade.PAUSE,
        "opened_at": NOW,
        "updated_at": NOW,
        "evidence": verdict(),
    }
    return Incident(**{**values, **changes})
