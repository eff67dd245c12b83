"""What the dispatcher did so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counts since the start: messages, but for the questions (``asked``) and the event lines of the last three."""

    mailed: int = 0  # handed to a provider, first attempts
    asked: int = 0
    unanswered: int = 0  # groups that went out because the brake said nothing
    held: int = 0
    released: int = 0
    withdrawn: int = 0  # held until their seller took them back
    accepted: int = 0
    rejected: int = 0
    lost: int = 0  # the service was away for longer than lines can be kept
