"""Why a seller's mail is held and what to do about it, in words for people who send mail and know nothing of us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from monitor.core.rates import Rate
from monitor.model import Deed, Lease, Verdict

MARKETPLACE = "Ask the marketplace's support, and name the lease; they can tell more."
_SHARED_WHY = "A part of the mail that several sellers share is {done} for now, whoever's mail it is."
_SHARED_DO = (
    "Nothing needs to be done on your side: the marketplace looks after it.",
    "Messages that wait go out by themselves when it is over; don't send them again.",
)


@dataclass(frozen=True, slots=True)
class _Advice:
    why: str  # of ``numerator`` out of ``denominator`` messages
    to_do: Sequence[str]


_BY_RATE = {
    Rate.BOUNCE: _Advice(
        "{numerator:,} of {denominator:,} messages were refused for good",
        (
            "Clean the list: remove the addresses that were refused, and those that do not exist.",
            "Look at GET /v1/replies?kind=bounced: it shows what the receivers said.",
            "Ask where the list comes from: bought and old addresses bounce. Send to people who signed up.",
        ),
    ),
    Rate.COMPLAINT: _Advice(
        "{numerator:,} of {denominator:,} recipients reported the messages as spam",
        (
            "Stop sending to those who complained, and to those who have not opened anything for months.",
            "Send only to people who asked for it, and no more often than they expect.",
            "Let one click unsubscribe, and make the sender easy to recognise.",
        ),
    ),
    Rate.RETURN: _Advice(
        "{numerator:,} of {denominator:,} messages came back after they had been accepted",
        (
            "Clean the list: remove the addresses that came back, and those that do not exist.",
            "Look at GET /v1/replies?kind=returned: it shows what the receivers wrote.",
        ),
    ),
    Rate.DEFERRAL: _Advice(
        "{numerator:,} of {denominator:,} messages were put off by the receivers at the first attempt",
        (
            "Send more slowly: spread a campaign over hours rather than minutes.",
            "Write first to those who opened something lately, then to the others.",
            "Look at GET /v1/replies?kind=deferred: it shows what the receivers said.",
        ),
    ),
}
_DONE = {Deed.PAUSE: "held back", Deed.REROUTE: "sent by another way"}


def shared(lease: Lease) -> tuple[str, Sequence[str]]:
    """Why, and what to do, where the lease names no seller."""
    return _SHARED_WHY.format(done=_done(lease)), _SHARED_DO


def own(lease: Lease, rate: Rate | None, verdict: Verdict | None) -> tuple[str, Sequence[str]]:
    """Why, and what to do, where the lease is on the seller's own mail.

    ``rate`` and ``verdict`` are those of its incident, where it has one.
    """
    done = _done(lease)
    if lease.by_person or rate is None or verdict is None:
        who = "A person of the marketplace" if lease.by_person else "The marketplace"
        return f"{who} decided that this mail is {done} for now.", (MARKETPLACE,)
    return f"This mail is {done} for now: {counts(rate, verdict)}.", (*_BY_RATE[rate].to_do, MARKETPLACE)


def counts(rate: Rate, verdict: Verdict) -> str:
    """What was seen, with its numbers and what would be tolerated."""
    advice = _BY_RATE[rate]
    seen = advice.why.format(numerator=verdict.numerator, denominator=verdict.denominator)
    if not verdict.denominator:
        return seen
    tolerated = "" if isnan(verdict.expected) else f"; up to {verdict.expected:.2%} is tolerated"
    return f"{seen} ({verdict.rate:.2%}{tolerated})"


def to_do(rate: Rate | None) -> Sequence[str]:
    """What helps against what an incident is about."""
    return _BY_RATE[rate].to_do if rate else (MARKETPLACE,)


def _done(lease: Lease) -> str:
    if lease.deed is Deed.THROTTLE:
        return f"let through at {lease.share:.0%}"
    return _DONE.get(lease.deed, "held back")
