"""The data nouns: what flows through Mailvane. Frozen values without behaviour, but for what a scope covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

LABELS = ("ip", "domain", "provider", "stream", "tenant", "segment", "campaign", "variant", "region")
# A seller chooses these names, so two sellers may choose the same one: alone they name nothing.
OWNED = ("segment", "campaign", "variant")


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of the mail flow, by nine labels.

    An empty label means *any* in a lease or a rule, and *unknown* in an event or a question.

    Raises:
        ValueError: segment, campaign or variant without the tenant that owns the name.
    """

    ip: str = ""
    domain: str = ""
    provider: str = ""
    stream: str = ""
    tenant: str = ""
    segment: str = ""
    campaign: str = ""
    variant: str = ""
    region: str = ""

    def __post_init__(self) -> None:
        if not self.tenant and (self.segment or self.campaign or self.variant):
            orphan = next(label for label in OWNED if getattr(self, label))
            raise ValueError(f"{orphan} without tenant: sellers choose these names, so say whose it is")

    def covers(self, other: Scope) -> bool:
        """Whether all that ``other`` describes lies in this scope; a partial order.

        With a message's labels as ``other``: whether a lease on this scope applies to it. A label that the lease
        names and the message does not know is not covered.
        """
        return all(mine in ("", theirs) for mine, theirs in zip(labels(self), labels(other), strict=True))

    def overlaps(self, other: Scope) -> bool:
        """Whether one message could match both scopes; symmetric."""
        return all(
            not mine or not theirs or mine == theirs for mine, theirs in zip(labels(self), labels(other), strict=True)
        )

    def only(self, *names: str) -> Scope:
        """The same scope with the named labels kept and all others empty."""
        return Scope(**{name: getattr(self, name) for name in names})

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in zip(LABELS, labels(self), strict=True) if value) or "all"


def labels(scope: Scope) -> tuple[str, ...]:
    """The nine labels in the order of ``LABELS``."""
    return (
        scope.ip,
        scope.domain,
        scope.provider,
        scope.stream,
        scope.tenant,
        scope.segment,
        scope.campaign,
        scope.variant,
        scope.region,
    )


def named(scope: Scope) -> dict[str, str]:
    """The labels that are not empty."""
    return {name: value for name, value in zip(LABELS, labels(scope), strict=True) if value}


class Kind(StrEnum):
    """What a source says happened to a message at one recipient."""

    SENT = "sent"  # accepted by the receiving server
    DEFERRED = "deferred"  # refused for now; the sender tries again
    BOUNCED = "bounced"  # refused for good
    EXPIRED = "expired"  # given up after deferrals
    COMPLAINT = "complaint"  # the recipient called it spam
    HELD = "held"  # kept back by a pause of ours: neither a deferral nor evidence
    UNSUBSCRIBED = "unsubscribed"  # the recipient wants no more of it, and said so in a proper way
    # Accepted by the receiving server, which wrote afterwards that it could not deliver it: told by mail, hours later.
    RETURNED = "returned"
    NOT_SPAM = "not_spam"  # the recipient took it out of the spam folder
    # Told by somebody whom nothing vouches for: kept and shown, counted in no grain, and so evidence of nothing.
    UNVERIFIED_COMPLAINT = "unverified_complaint"
    UNVERIFIED_BOUNCE = "unverified_bounce"


# What no rate, rule or rollup ever sees, and what is counted.
UNVERIFIED = frozenset({Kind.UNVERIFIED_COMPLAINT, Kind.UNVERIFIED_BOUNCE})
COUNTED = tuple(kind for kind in Kind if kind not in UNVERIFIED)


@dataclass(frozen=True, slots=True, repr=False)
class Clues:
    """What a report tells of the message that it is about, so that the pipeline finds whose it was.

    All of it is what a stranger wrote, and it reaches no disk but sealed. Headers are values, unfolded, of the message
    that came back: ``token`` of X-Mailvane, ``feedback_id``, ``unsubscribe`` of List-Unsubscribe. ``return_path`` is
    the address to which a bounce came, that is the sender of the envelope. ``queue_id`` is "host/queue id" as the
    reporting server names the message. ``sent`` is when it says that it was sent (POSIX microseconds, 0 unknown).
    ``vouched``: the report itself is from whom it says, by a signature that was verified. ``covered``: the headers that
    came back are what a domain of ours signed, by a signature over them that was verified. ``astray``: the report is
    true, and may have been written to somebody else about mail of theirs.
    """

    token: str = ""
    feedback_id: str = ""
    unsubscribe: str = ""
    return_path: str = ""
    message_id: str = ""
    queue_id: str = ""
    recipient: str = ""
    sender: str = ""
    ip: str = ""
    sent: int = 0
    vouched: bool = False
    covered: bool = False
    astray: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read of a source brought, as columns; each row is an observation, a fact that the source vouches for.

    ``columns`` has the names of ``COLUMNS`` as far as the source knows them, each a sequence of one length; missing
    ones take the column's default. Times are POSIX microseconds (int).
    ``cursor`` is where the next read goes on (JSON-able); ``watermark`` promises that nothing older is still to come.
    ``remember`` are changes to what the source must remember between reads (a value of None forgets the name).
    ``places`` say where each row stood, such as "line 7", for whoever must find it again; empty where nobody must.
    ``rejected`` are items that could not be read, with the reason and the item scrubbed of addresses.
    ``clues``, one for each row where the source reports about messages of others: the pipeline attributes by them.
    ``met`` counts what was read, by what it was, where a source meets more than it makes rows of: a few fixed words.
    """

    columns: Mapping[str, Sequence[Any]]
    cursor: Mapping[str, Any] = field(default_factory=dict)
    watermark: datetime | None = None
    remember: Mapping[str, Any] = field(default_factory=dict)
    rejected: Sequence[Rejected] = ()
    places: Sequence[str] = ()
    clues: Sequence[Clues] = field(default=(), repr=False)
    met: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


# What an address or a message id may be dressed in: a text of nothing else says nothing.
DRESS = "<> \t\r\n"
# An observation: name and default of each column that a collector may hand over. `at` is when it happened, `sent_at`
# when the message that it is about was sent (0: as `at`), `count` how many it stands for. `recipient` and `message_id`
# are plain text here and reach no disk so, at most sealed. `attempt` 1 is the first one, 0 unknown. An event counts
# once by its key: of message_id, recipient, kind and (unless the kind is final) `tries`, a number or stamp that names
# the attempt and is the same at each telling; without message_id by the source's own `id`. `found_by` says by which
# clue a report was attributed.
COLUMNS: Mapping[str, Any] = {
    "kind": "",
    "at": 0,
    "sent_at": 0,
    "attempt": 0,
    "tries": 0,
    "count": 1,
    **dict.fromkeys(LABELS, ""),
    "recipient": "",
    "message_id": "",
    "id": "",
    "code": 0,
    "dsn": "",
    "relay": "",
    "reply": "",
    "reply_class": "",
    "consent": "",
    "consent_ref": "",
    "found_by": "",
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """One item that could not be read: ``where`` it stood, ``why``, and a scrubbed ``sample`` of it.

    ``raw`` is the item itself where its source will not give it again: a ``kind`` of thing, such as a line or message.
    It goes into the quarantine and nowhere else.
    """

    why: str
    where: str = ""
    sample: str = ""
    raw: bytes = field(default=b"", repr=False, compare=False)
    kind: str = field(default="line", compare=False)


class State(StrEnum):
    """The three answers of a verdict; "no data" neither opens nor resolves anything."""

    OK = "ok"
    BAD = "bad"
    NO_DATA = "no data"


class Grade(StrEnum):
    """How bad: tell people, or stop the harm too."""

    NONE = "none"
    ALERT = "alert"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of a scope at a time.

    ``numerator`` of ``denominator`` between ``since`` and ``until`` (event time); ``expected`` is the rate that is
    still tolerated, ``lower`` and ``upper`` bound the true rate with 95 % confidence. ``calm``: even the upper bound
    is within the alert limit. ``shares`` are the tenants that explain the excess, largest first, where the rule asks.
    """

    rule: str
    scope: Scope
    state: State
    grade: Grade
    numerator: int
    denominator: int
    expected: float
    lower: float
    upper: float
    since: datetime
    until: datetime
    calm: bool = False
    reason: str = ""
    shares: tuple[tuple[str, float], ...] = ()

    @property
    def rate(self) -> float:
        """0 to 1; NaN without exposure."""
        return self.numerator / self.denominator if self.denominator else float("nan")


@dataclass(frozen=True, slots=True)
class Incident:
    """A rule and a scope that went bad, until resolved. ``id`` 0: not yet in the ledger."""

    id: int
    rule: str
    scope: Scope
    grade: Grade
    opened_at: datetime
    updated_at: datetime
    evidence: Verdict
    calm_since: datetime | None = None
    resolved_at: datetime | None = None

    def changed(self, **changes: Any) -> Incident:
        """A copy with those fields replaced."""
        return replace(self, **changes)


class Deed(StrEnum):
    """What an entry of the brake's audit log does."""

    PAUSE = "pause"
    THROTTLE = "throttle"
    REROUTE = "reroute"
    ALLOW = "allow"
    RESUME = "resume"  # ends the lease named in `lease`
    REFUSE = "refuse"  # automation would have paused, and did not: see `why`


AUTOMATION = "automation"
# What the replies say with which our pauses keep mail in a queue: such a reply is neither a deferral nor evidence.
MARKER = "paused by mailvane"


@dataclass(frozen=True, slots=True)
class Action:
    """One entry of the brake's audit log. ``seq`` is its place in the log, 0 before it is written.

    ``who`` is ``automation`` or a person's name. ``id`` of automation's is incident @ time of evidence, so that the
    same evidence never acts twice. ``evidence`` is JSON-able: the numbers on which it was decided.
    """

    id: str
    at: datetime
    who: str
    deed: Deed
    scope: Scope
    why: str
    until: datetime | None = None
    share: float = 0.0
    pool: str = ""
    incident: int = 0
    lease: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0

    @property
    def by_person(self) -> bool:
        """Whose key turned: a person's or automation's."""
        return self.who != AUTOMATION


@dataclass(frozen=True, slots=True)
class Lease:
    """What is in force on a scope from ``since`` until ``until``, computed from the action whose id it bears.

    ``share`` is the part of the mail that may pass (0 for a pause); ``pool`` is where a reroute leads.
    """

    id: str
    deed: Deed
    scope: Scope
    since: datetime
    until: datetime
    who: str
    why: str
    share: float = 0.0
    pool: str = ""
    incident: int = 0
    seq: int = 0

    @property
    def by_person(self) -> bool:
        """Whose key turned: a person's or automation's."""
        return self.who != AUTOMATION


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender of one message is told; ``lease`` is what decided it, None when no lease applies."""

    held: bool
    lease: Lease | None = None


SEND = Answer(held=False)
