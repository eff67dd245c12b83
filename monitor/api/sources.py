"""Which sources there are, and how old what they told last is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from monitor.api import words
from monitor.api.seen import Seen
from monitor.cycle import STALE
from monitor.service import Core


def sources(core: Core, mine: Seen, now: datetime) -> list[dict[str, Any]]:
    """Each source and node; ``age`` in seconds since its watermark, null where it never told one.

    None for a seller: they are machines of the operator's.
    """
    if mine.tenant:
        return []
    heard = mine.heard()
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
        "age": None if mark is None else round(max((now - mark).total_seconds(), 0.0), 3),
        "seen_at": words.stamp(seen),
        "error": error,
    }
