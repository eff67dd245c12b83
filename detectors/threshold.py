"""The providers' own limits, tripped only when the rate is surely above them.

A fixed limit on a rate, as Google, Yahoo and Amazon SES publish them. It looks at the lower end of the 95 % Wilson
score interval (E. B. Wilson, 1927) rather than at the rate itself, so that 2 of 20 never trips a limit of 5 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from monitor.ports import Detector, Scores

if TYPE_CHECKING:
    from monitor.ports import Floats, Ints

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution

Rate = Annotated[float, Field(gt=0, lt=1)]


class Threshold(Detector):
    """Bad when the lower bound exceeds the limit, given at least ``min_volume`` in the denominator."""

    alert: Rate = Field(description="The limit above which people are told.")
    pause: Rate = Field(description="The limit above which a pause may follow; at least `alert`.")
    min_volume: Annotated[int, Field(ge=1)] = Field(
        default=200, description="The least denominator that says anything; below it there is no data."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.pause < self.alert:
            raise ValueError(f"pause {self.pause} is below alert {self.alert}: people are told before mail is stopped")
        return self

    def step(self, state: Any, bad: Ints, total: Ints) -> tuple[Any, Scores]:
        """Scores of the window's counts; keeps no state, since a fixed limit learns nothing."""
        lower, upper = wilson(bad, total)
        enough = total >= self.min_volume
        with np.errstate(invalid="ignore"):  # NaN where nothing was sent compares as False, which is meant
            calm = upper <= self.alert
            return state, Scores(
                lower=lower,
                upper=upper,
                expected=np.full(total.shape, self.alert),
                alert=enough & (lower > self.alert),
                pause=enough & (lower > self.pause),
                calm=calm,
                thin=~enough & ~calm,
            )


def wilson(bad: Ints, total: Ints, z: float = Z95) -> tuple[Floats, Floats]:
    """Lower and upper bound of the true rate for each pair of counts; NaN where ``total`` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = bad / total
        spread = z * np.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2)
        middle = p + z**2 / (2 * total)
        scale = 1 + z**2 / total
        return np.clip((middle - spread) / scale, 0, 1), np.clip((middle + spread) / scale, 0, 1)
