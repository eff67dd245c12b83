"""What is watched: a rule, and when it may propose a pause. Apart from the judging, which brings numpy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from monitor.core.rates import PARTS, Rate
from monitor.ports import Detector


class Pauses(StrEnum):
    """When a rule may propose a pause."""

    ALWAYS = "always"  # whenever the verdict has the pause grade
    SHARED = "shared"  # only if several tenants are bad there and none explains half of the excess
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rate, grouped by which labels, over which window, judged by which detector, and what may follow.

    ``lease`` is how long a pause lasts; ``calm_for`` how long the rate must be surely within its limit before the
    incident is resolved; ``tenants`` how many must be bad for ``Pauses.SHARED``; ``providers`` those whose mail
    counts (empty: all).
    """

    name: str
    rate: Rate
    by: tuple[str, ...]
    window: timedelta
    detector: Detector
    lease: timedelta
    calm_for: timedelta
    pauses: Pauses = Pauses.ALWAYS
    tenants: int = 3
    providers: tuple[str, ...] = ()

    @property
    def counted_providers(self) -> tuple[str, ...]:
        """Whose deliveries are the exposure, as its rate has it, unless the rule names others; empty: everybody's."""
        return self.providers or PARTS[self.rate].providers
