"""The rates, defined once (docs/rates.md): which counts stand above the line and which below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Rate(StrEnum):
    """A rate by its name in rules, on the page and in the API."""

    BOUNCE = "bounce"
    DEFERRAL = "deferral"
    COMPLAINT = "complaint"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Parts:
    """Names of the counters to sum above and below the line; ``by_cohort``: counted by the time of sending.

    ``providers``: of mail there only; empty: of all.
    """

    above: tuple[str, ...]
    below: tuple[str, ...]
    by_cohort: bool = False
    providers: tuple[str, ...] = ()


# Providers that send each complaint through a feedback loop. Gmail reports rates only, so its deliveries would make
# every complaint rate look lower than it is (facts of 2026-11).
COMPLAINING = ("yahoo", "outlook", "comcast", "cox", "fastmail", "mail.ru", "seznam", "laposte", "orange", "libero")

PARTS: Mapping[Rate, Parts] = {
    # An expiry is a decision but no refusal: it tells of mail sent days ago, perhaps held by ourselves.
    Rate.BOUNCE: Parts(above=("bounced",), below=("sent", "bounced", "expired")),
    Rate.DEFERRAL: Parts(above=("first_deferred",), below=("first",)),
    Rate.COMPLAINT: Parts(above=("complaint",), below=("sent",), by_cohort=True, providers=COMPLAINING),
    # A server that refuses what it had accepted says so hours later, when nothing may be sent any more that it could be
    # compared with: by the time of its outcome, any such rate would be a false alarm.
    Rate.RETURN: Parts(above=("returned",), below=("sent",), by_cohort=True),
}

# The hours of sending, from which a rate by cohort is counted, are kept without these labels.
NOT_BY_HOUR = ("variant", "region")
