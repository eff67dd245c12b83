"""Incidents → guards → actions: when automation turns its key, and why it does not.

In doubt we do not pause. Each guard is a small pure function that answers why not, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from monitor.core.rules import Pauses, Rule
from monitor.model import AUTOMATION, Action, Deed, Grade, Incident, Lease, Scope, State, Verdict, named


@dataclass(frozen=True, slots=True)
class Guards:
    """Limits on the blast radius; ``protected`` maps a label to the values that automation never holds."""

    held_share: float = 0.2
    actions_per_hour: int = 6
    evidence_age: timedelta = timedelta(minutes=15)
    protected: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"stream": ("transactional",)})
    streams: tuple[str, ...] = ("transactional", "marketing")
    dry_run: bool = True


@dataclass(frozen=True, slots=True)
class Proposal:
    """A pause that automation would like: on which scope, on what evidence, and what is known of its reach.

    ``share``: part of all mail that was expected in the scopes already held and this one together (0 to 1; None where
    no volume is known). ``other_ips``: how many further IPs carry the scope's mail, where the scope names an IP.
    ``everybodys``: where other sellers see the same as this one, such as at an IP that a provider refuses.
    ``itself``: the verdict on the mail in ``scope`` alone, where that is less than what the rule measured.
    """

    incident: Incident
    rule: Rule
    verdict: Verdict
    scope: Scope
    shared: bool = False
    share: float | None = None
    other_ips: int | None = None
    everybodys: Scope | None = None
    itself: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What the guards look at beside the proposal."""

    now: datetime
    guards: Guards
    leases: Sequence[Lease] = ()
    log: Sequence[Action] = ()  # the actions of the last hour and all that are in force


Guard = Callable[[Proposal, Setting], str]


def narrowed(scope: Scope, guards: Guards) -> Scope:
    """The scope without its protected part, where one label value is left that is not protected; else as it is.

    A scope that names no stream overlaps the receipts, so of two streams the other one is named.
    """
    for label, values in guards.protected.items():
        if label == "stream" and not scope.stream:
            rest = [stream for stream in guards.streams if stream not in values]
            if len(rest) == 1:
                scope = replace(scope, stream=rest[0])
    return scope


def protected_overlap(scope: Scope, guards: Guards) -> bool:
    """Whether a message that must never be held could match; mail without a stream counts as protected."""
    return any(
        not getattr(scope, label) or getattr(scope, label) in values for label, values in guards.protected.items()
    )


def decide(proposal: Proposal, setting: Setting) -> Action | None:
    """The action for one proposal: a pause, a refusal with its reason, or None when there is nothing to do or say."""
    if not wanted(proposal) or any(
        not lease.by_person and lease.deed is Deed.PAUSE and lease.scope.covers(proposal.scope)
        for lease in setting.leases
    ):
        return None
    for guard in GUARDS:
        if why := guard(proposal, setting):
            return _refusal(proposal, setting, guard.__name__.strip("_"), why)
    return _pause(proposal, setting)


def wanted(proposal: Proposal) -> bool:
    """Whether the rule asks for a pause at all on this verdict."""
    if proposal.rule.pauses is Pauses.SHARED:
        return proposal.shared and proposal.verdict.state is State.BAD
    return proposal.rule.pauses is Pauses.ALWAYS and _pause_grade(proposal.verdict)


def _pause_grade(verdict: Verdict) -> bool:
    return verdict.state is State.BAD and verdict.grade is Grade.PAUSE


def _empty_scope(proposal: Proposal, _setting: Setting) -> str:
    bare = proposal.scope.only(*proposal.rule.by)
    return "" if named(bare) else "the scope is empty: it would hold all mail"


def _wider_than_measured(proposal: Proposal, _setting: Setting) -> str:
    missing = [label for label in proposal.rule.by if not getattr(proposal.scope, label)]
    if not missing:
        return ""
    return f"the mail carries no {' and no '.join(missing)}: a pause would reach further than what was measured"


def _old_evidence(proposal: Proposal, setting: Setting) -> str:
    age = setting.now - proposal.verdict.until
    limit = setting.guards.evidence_age
    return f"the evidence is {span(age)} old, over {span(limit)}" if age > limit else ""


def _protected(proposal: Proposal, setting: Setting) -> str:
    if not protected_overlap(proposal.scope, setting.guards):
        return ""
    kept = ", ".join(f"{label} {' or '.join(values)}" for label, values in setting.guards.protected.items())
    return f"the scope overlaps protected mail ({kept}) and cannot be narrowed"


def _not_bad_itself(proposal: Proposal, _setting: Setting) -> str:
    found = proposal.itself
    if found is None or _pause_grade(found):
        return ""
    if proposal.rule.pauses is Pauses.SHARED and found.state is State.BAD:
        return ""
    counts = f"{found.numerator:,} of {found.denominator:,}"
    return f"the part that may be held ({proposal.scope}) is not surely bad itself: {counts}"


def _everybodys(proposal: Proposal, _setting: Setting) -> str:
    where = proposal.everybodys
    return f"other sellers see the same at {where}: the cause is there rather than with this one" if where else ""


def _persons_key(proposal: Proposal, setting: Setting) -> str:
    for lease in setting.leases:
        if lease.by_person and lease.scope.covers(proposal.scope):
            return f"{lease.who} turned the key here ({lease.deed} until {lease.until:%H:%M} UTC)"
    return ""


def _held_share(proposal: Proposal, setting: Setting) -> str:
    limit = setting.guards.held_share
    if proposal.share is None:
        return "no volume is known to measure the held share against"
    if proposal.share > limit:
        return f"{proposal.share:.0%} of all expected mail would be held, over the limit of {limit:.0%}"
    return ""


def _too_many(_proposal: Proposal, setting: Setting) -> str:
    since = setting.now - timedelta(hours=1)
    done = sum(1 for action in setting.log if not action.by_person and action.deed is Deed.PAUSE and action.at > since)
    limit = setting.guards.actions_per_hour
    return f"{done} pauses in the last hour, the limit is {limit}" if done >= limit else ""


def _last_ip(proposal: Proposal, _setting: Setting) -> str:
    if proposal.scope.ip and not proposal.other_ips:
        return f"{proposal.scope.ip} is the last IP that carries this mail"
    return ""


def _dry_run(proposal: Proposal, setting: Setting) -> str:
    if not setting.guards.dry_run:
        return ""
    return f"dry run: would have paused {proposal.scope} for {span(proposal.rule.lease)}"


GUARDS: tuple[Guard, ...] = (
    _empty_scope,
    _wider_than_measured,
    _old_evidence,
    _protected,
    _not_bad_itself,
    _everybodys,
    _persons_key,
    _held_share,
    _too_many,
    _last_ip,
    _dry_run,
)


def _pause(proposal: Proposal, setting: Setting) -> Action:
    # The same evidence never pauses twice: its moment is part of the id, and the ledger takes an id once.
    at = int(proposal.verdict.until.timestamp())
    return replace(
        _base(proposal, setting),
        id=f"{proposal.incident.id}@{at}",
        deed=Deed.PAUSE,
        why=reason(proposal.verdict),
        until=setting.now + proposal.rule.lease,
    )


def _refusal(proposal: Proposal, setting: Setting, guard: str, why: str) -> Action:
    # Once an incident and reason: a refusal that is written each cycle buries the log.
    return replace(_base(proposal, setting), id=f"{proposal.incident.id}!{guard}", deed=Deed.REFUSE, why=why)


def _base(proposal: Proposal, setting: Setting) -> Action:
    return Action(
        id="",
        at=setting.now,
        who=AUTOMATION,
        deed=Deed.REFUSE,
        scope=proposal.scope,
        why="",
        incident=proposal.incident.id,
        evidence=evidence(proposal),
    )


def evidence(proposal: Proposal) -> dict[str, object]:
    """The numbers on which it was decided, JSON-able."""
    verdict = proposal.verdict
    return {
        "rule": verdict.rule,
        "numerator": verdict.numerator,
        "denominator": verdict.denominator,
        "lower": round(verdict.lower, 6),
        "upper": round(verdict.upper, 6),
        "expected": verdict.expected,
        "since": verdict.since.isoformat(),
        "until": verdict.until.isoformat(),
        "held_share": proposal.share,
        "shares": [list(share) for share in verdict.shares[:5]],
    }


def reason(verdict: Verdict) -> str:
    """The verdict in half a sentence, for the log."""
    window = span(verdict.until - verdict.since)
    counts = f"{verdict.numerator:,} of {verdict.denominator:,} in {window}"
    return f"{verdict.rule}: {counts}, surely above {verdict.lower:.1%}"


def span(length: timedelta) -> str:
    """A length of time in the unit that fits it, such as 90 s, 16 min or 24 h."""
    seconds = round(length.total_seconds())
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    return f"{seconds / 60:.3g} min" if seconds >= 120 or (seconds and seconds % 60 == 0) else f"{seconds} s"
