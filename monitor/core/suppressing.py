"""Which recipients should get no more mail, of which kind, and until when."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from monitor.meaning import DOUBTFUL, SUPPRESSING, ReplyClass
from monitor.model import Kind


class Reason(StrEnum):
    """Why a recipient is suppressed; on disk and in the API: add, never change."""

    HARD = "hard_bounce"
    SOFT = "soft_bounces"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    MANUAL = "manual"


# What the recipient says of one sender's mail: it never keeps back mail that must arrive.
OF_A_SENDER = frozenset({Reason.COMPLAINT, Reason.UNSUBSCRIBE})
# What is told first, where several entries cover a message.
ORDER = (Reason.MANUAL, Reason.HARD, Reason.COMPLAINT, Reason.UNSUBSCRIBE, Reason.SOFT)
# Of mail that was refused for good at once, and of mail that was given up after days. All others are not the
# recipient's fault, or not known to be.
_SOFT_AT_ONCE = frozenset({ReplyClass.QUOTA})
_SOFT_GIVEN_UP = SUPPRESSING | {
    ReplyClass.QUOTA,
    ReplyClass.EXPIRED,
    ReplyClass.TRANSIENT,
    ReplyClass.DNS_FAILURE,
}
STEP = timedelta(minutes=5)  # the grain in which a provider is watched for outages
MARGIN = 2 * STEP  # around an outage, in which nobody is blamed either: none begins on a step
LONGEST = timedelta(days=3)  # what lasts longer is no outage: the provider is closed


def reason(kind: str, reply_class: str) -> Reason | None:
    """For what an outcome speaks; None: for nothing, and so does everything that nobody vouches for.

    ``reply_class`` as it is stored, such as quota or listed:spamhaus_xbl.
    """
    doubtful, reply_class = reply_class.endswith(DOUBTFUL), reply_class.removesuffix(DOUBTFUL)
    match kind:
        case Kind.COMPLAINT:
            return Reason.COMPLAINT
        case Kind.UNSUBSCRIBED:
            return Reason.UNSUBSCRIBE
        case Kind.BOUNCED | Kind.RETURNED if reply_class in SUPPRESSING:
            return Reason.SOFT if doubtful else Reason.HARD
        case Kind.BOUNCED | Kind.RETURNED if reply_class in _SOFT_AT_ONCE:
            return Reason.SOFT
        case Kind.EXPIRED | Kind.RETURNED if reply_class in _SOFT_GIVEN_UP:
            return Reason.SOFT
    return None


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator chose. ``soft_bounces`` 0: they suppress nobody; a ``keep`` of 0: an entry has no end."""

    soft_bounces: int = 5
    soft_within: timedelta = timedelta(days=14)
    soft_keep: timedelta = timedelta(days=30)
    hard_keep: timedelta = timedelta(days=180)
    hold: timedelta = timedelta(minutes=60)
    protected: frozenset[str] = frozenset({"transactional"})

    def until(self, why: Reason, at: datetime) -> datetime | None:
        """When an entry ends that rests on what happened ``at`` then; None: it stays."""
        keep = {Reason.HARD: self.hard_keep, Reason.SOFT: self.soft_keep}.get(why, timedelta())
        return at + keep if keep else None

    def scope(self, why: Reason, tenant: str, stream: str, *, own: bool = False) -> tuple[str, str]:
        """(tenant, stream) of an entry; empty: of any. ``own``: a seller told it, who speaks for itself alone."""
        if why in OF_A_SENDER:
            return tenant, "" if stream in self.protected else stream
        return (tenant if own else ""), ""


def covers(
    why: Reason, entry: tuple[str, str], tenant: str, stream: str, protected: Collection[str] = ("transactional",)
) -> bool:
    """Whether an entry of the scope ``entry`` (tenant, stream) keeps back a message with these labels.

    An unknown tenant is nobody's, and mail of an unknown stream may be a receipt: so it is protected.
    """
    if (entry[0] and entry[0] != tenant) or (entry[1] and entry[1] != stream):
        return False
    return why not in OF_A_SENDER or (stream != "" and stream not in protected)


def longer(old: datetime | None, new: datetime | None, by: timedelta = timedelta(days=1)) -> bool:
    """Whether a new end is so much later that it is worth a word; None is never."""
    if old is None:
        return False
    return new is None or new - old >= by


def repeated(at: Sequence[datetime], bounces: int, within: timedelta) -> datetime | None:
    """The last time at which so many lay within that span; None where they never did.

    ``at``: soft bounces since the recipient last took a mail, in any order.
    """
    if bounces <= 0:
        return None
    sorted_at = sorted(at)
    pairs = zip(sorted_at, sorted_at[bounces - 1 :], strict=False)
    return max((last for first, last in pairs if last - first <= within), default=None)
