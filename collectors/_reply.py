"""What an SMTP reply means."""

from __future__ import annotations

from monitor.meaning import Meaning


def classify(text: str, *, code: int = 0, dsn: str = "", provider: str = "", phase: str = "") -> Meaning:
    """What a reply means."""
    return Meaning(decided_by=f"{text[:0]}{code or dsn or provider or phase}")
