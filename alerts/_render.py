"""An incident in words, the same on every channel: what, where, how bad, what was done, how to undo it.

Nothing here knows a channel's markup. Names and reasons are clipped and free of addresses, and otherwise as hostile
as they came: the channel escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isnan

from alerts import _deeds
from alerts._words import (
    Clock,
    Line,
    clip,
    clock,
    interval,
    lasting,
    name,
    outside,
    part,
    plain,
    rate,
    sentence,
    size,
    where,
)
from monitor.model import Action, Grade, Incident

HEADLINE = 148  # a header and a phone's notification show 150; two are for the mark
_LEAVE = 36  # characters that the headline keeps for the place, however much there is to say of the deed

# By the beginning of the rule's name: what is counted, and the word over its count.
_COUNTED = {
    "bounce": ("bounces", "Bounced"),
    "complaint": ("complaints", "Complaints"),
    "deferral": ("deferrals", "Deferred"),
    "return": ("returns", "Returned"),
}


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel lays out. ``deeds`` are the newest entries of the log, ``undo`` commands to copy as they are."""

    mark: str
    headline: str
    sentences: tuple[Line, ...]
    fields: tuple[tuple[str, Line], ...]
    deeds: tuple[Line, ...]
    undo: tuple[str, ...]
    context: tuple[Line, ...]


def render(incident: Incident, actions: Sequence[Action]) -> Message:
    """The message that tells the present state of ``incident``; ``actions`` are its own, oldest first."""
    now = max([incident.updated_at, *(action.at for action in actions)])
    show = clock(now)
    done = _deeds.done(actions, incident.scope, now, show)
    ends = ", ends by itself" if _deeds.in_force(actions, now) else ""
    return Message(
        mark="✓" if incident.resolved_at else "◆" if incident.grade is Grade.PAUSE else "△",
        headline=_headline(incident, plain(done)),
        sentences=tuple(_sentences(incident)),
        fields=(*_fields(incident, show, now), ("Done", (sentence(str(done[0])), *done[1:], ends))),
        deeds=tuple(_deeds.told(actions, show)),
        undo=tuple(_deeds.undo(actions, now)),
        context=(
            (f"Incident #{incident.id}, rule {name(incident.rule)}",),
            ("complete to ", show(incident.evidence.until)),
            ("updated ", show(now)),
        ),
    )


def text(message: Message) -> str:
    """The whole message as plain text, its headline on the first line."""
    lines = [message.headline, *map(plain, message.sentences)]
    lines += [f"{title}: {plain(line)}" for title, line in message.fields]
    lines += [*map(plain, message.deeds), *(f"Undo: {command}" for command in message.undo)]
    return "\n".join([*lines, ", ".join(map(plain, message.context)) + "."])


def _headline(incident: Incident, done: str) -> str:
    """Where, what, how bad, what was done; the last two are never cut for the sake of a long name."""
    bad, place = clip(_how_bad(incident), 90), where(incident.scope)
    done = clip(sentence(done), HEADLINE - size(bad) - min(size(place), _LEAVE) - 4) + "."
    return f"{sentence(where(incident.scope, HEADLINE - size(bad) - size(done) - 3))}: {bad} {done}"


def _how_bad(incident: Incident) -> str:
    found, resolved = incident.evidence, incident.resolved_at
    counted = _COUNTED.get(incident.rule.split("-")[0])
    subject = counted[0] if counted else f"the rate of rule {name(incident.rule, 20)}"
    if resolved:
        verb = "were" if counted else "was"
        return f"resolved after {lasting(resolved - incident.opened_at)}; {subject} {verb} {rate(found.rate)}."
    limit = "" if isnan(found.expected) else f", expected at most {rate(found.expected)}"
    return f"{subject} {'are' if counted else 'is'} {rate(found.rate)}{limit}."


def _sentences(incident: Incident) -> Iterator[Line]:
    found = incident.evidence
    sellers = [(f"seller {name(tenant)}", part(share)) for tenant, share in found.shares[:3]]
    if sellers and found.shares[0][1] >= 0.5:
        (most, share), *others = sellers
        texts = [f"{sentence(most)} explains {share} of the excess", *(" ".join(other) for other in others)]
        yield (", ".join(texts) + ".",)
    elif sellers:
        yield ("No seller explains half of the excess: " + ", ".join(" ".join(seller) for seller in sellers) + ".",)
    if found.reason:
        yield (sentence(outside(found.reason, 200)) + ".",)


def _fields(incident: Incident, show: Clock, now: datetime) -> Iterator[tuple[str, Line]]:
    found = incident.evidence
    counted = _COUNTED.get(incident.rule.split("-")[0], ("", "Counted"))[1]
    between = interval(found.lower, found.upper)
    yield counted, (f"{found.numerator:,} of {found.denominator:,} in {lasting(found.until - found.since)}",)
    yield "Rate", (rate(found.rate) + (f" ({between} with 95\u202f% confidence)" if between else ""),)
    if not isnan(found.expected):
        yield "Expected", (f"at most {rate(found.expected)}",)
    yield "Where", (sentence(where(incident.scope)),)
    yield "Since", _since(incident, show, now)


def _since(incident: Incident, show: Clock, now: datetime) -> Line:
    began: Line = (show(incident.opened_at), f", for {lasting((incident.resolved_at or now) - incident.opened_at)}")
    if incident.resolved_at:
        return (*began, ", resolved ", show(incident.resolved_at))
    return (*began, ", calm since ", show(incident.calm_since)) if incident.calm_since else began
