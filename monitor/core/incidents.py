"""Verdicts → incidents: a state machine with hysteresis. Open on bad, resolve on lasting calm, ignore no data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from monitor.model import Grade, Incident, State, Verdict

_RANK = {Grade.NONE: 0, Grade.ALERT: 1, Grade.PAUSE: 2}


def track(
    open_ones: Iterable[Incident], verdicts: Sequence[Verdict], calm_for: timedelta, now: datetime
) -> tuple[Incident, ...]:
    """The incidents of one rule that these verdicts open, change or resolve; new ones have id 0.

    An incident's evidence is its last bad verdict: a better one calms it, and leaves the numbers that opened it.
    """
    known = {incident.scope: incident for incident in open_ones}
    moved = []
    for verdict in verdicts:
        incident = known.get(verdict.scope)
        if incident:
            moved.append(_move(incident, verdict, calm_for, now))
        elif verdict.state is State.BAD:
            moved.append(_opened(verdict, now))
    return tuple(moved)


def _opened(verdict: Verdict, now: datetime) -> Incident:
    return Incident(
        id=0,
        rule=verdict.rule,
        scope=verdict.scope,
        grade=verdict.grade,
        opened_at=now,
        updated_at=now,
        evidence=verdict,
    )


def _move(incident: Incident, verdict: Verdict, calm_for: timedelta, now: datetime) -> Incident:
    if verdict.state is State.NO_DATA:
        # Silence proves nothing: what was last known stays, but calm must be shown without a gap.
        return incident.changed(calm_since=None)
    if verdict.state is State.BAD:
        worst = max(incident.grade, verdict.grade, key=lambda grade: _RANK[grade])
        return incident.changed(evidence=verdict, grade=worst, updated_at=now, calm_since=None)
    if not verdict.calm:
        return incident.changed(updated_at=now, calm_since=None)
    # By the time of the evidence: while a watermark stands still, calm is no longer proved, whatever our clock says.
    since = incident.calm_since or verdict.until
    done = verdict.until - since >= calm_for
    return incident.changed(updated_at=now, calm_since=since, resolved_at=now if done else None)
