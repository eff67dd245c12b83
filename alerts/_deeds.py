"""What automation or a person did about an incident, in words, and the commands that undo it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime

from alerts._words import Clock, Line, name, outside, rate, sentence, where
from monitor.model import OWNED, Action, Deed, Scope, named

_RESTRAINTS = (Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE)
_TOLD = 5  # newest entries; older ones stand on the page
_WHY = 200
_PLACE = 26  # what stands before "is paused until …" in a headline


def in_force(actions: Sequence[Action], now: datetime) -> list[Action]:
    """The restraints that still hold mail: not at their end, not resumed, not under a person's ``allow``."""
    resumed = {action.lease for action in actions if action.deed is Deed.RESUME}
    live = [action for action in actions if action.until and action.until > now and action.id not in resumed]
    allowed = [action.scope for action in live if action.deed is Deed.ALLOW]
    return [
        action
        for action in live
        if action.deed in _RESTRAINTS and (action.by_person or not any(scope.covers(action.scope) for scope in allowed))
    ]


def done(actions: Sequence[Action], about: Scope, now: datetime, clock: Clock) -> Line:
    """What stands now in half a sentence: the restraint in force that ends last, else the newest deed.

    ``about`` is the scope that the reader knows already; only what a deed's own scope adds to it is named.
    """
    holding = in_force(actions, now)
    if holding:
        last = max(holding, key=lambda action: action.until or now)
        more = f", and {len(holding) - 1} more" if len(holding) > 1 else ""
        return (*_standing(last, about), *_end(last, clock), more)
    if not actions:
        return ("nothing was paused",)
    last = actions[-1]
    match last.deed:
        case Deed.REFUSE:
            return ("dry run: would have paused" if _rehearsed(last) else f"not paused: {outside(last.why, _WHY)}",)
        case Deed.RESUME:
            return (f"resumed by {name(last.who)} at ", clock(last.at))
        case Deed.ALLOW:
            resumed = "resumed and " if any(action.deed is Deed.RESUME for action in actions) else ""
            return (f"{resumed}allowed by {name(last.who)}", *_end(last, clock))
        case _:
            return (f"the {last.deed} ended at ", clock(last.until or last.at))


def told(actions: Sequence[Action], clock: Clock) -> Iterator[Line]:
    """The newest entries of the log, oldest first, each with its time, its reason and who it was."""
    if len(actions) > _TOLD:
        yield (f"{len(actions) - _TOLD} earlier entries.",)
    for action in actions[-_TOLD:]:
        yield (clock(action.at), " ", *_entry(action, clock))


def undo(actions: Sequence[Action], now: datetime) -> Iterator[str]:
    """The commands that end what is in force, newest first; none for an id that a message or a shell would garble."""
    for action in reversed(in_force(actions, now)[-3:]):
        if len(action.id) <= 100 and action.id.isprintable() and "`" not in action.id:
            yield f"mailvane resume {shlex.quote(action.id)}"


def _standing(action: Action, about: Scope) -> Line:
    deed = {
        Deed.THROTTLE: f"throttled to {rate(action.share)}",
        Deed.REROUTE: f"rerouted to pool {name(action.pool)}",
    }.get(action.deed, "paused")
    place = _beyond(about, action.scope)
    return (f"{place} is {deed}" if place else deed, _by(action, 16))


def _entry(action: Action, clock: Clock) -> Line:
    place = where(action.scope, 160)
    why = f" ({outside(action.why, _WHY)})." if action.why.strip() else "."
    match action.deed:
        case Deed.RESUME:
            return (f"Resumed{_by(action)}{why}",)
        case Deed.REFUSE if _rehearsed(action):
            return (f"Dry run: would have paused {place}.",)
        case Deed.REFUSE:
            return (f"Not paused: {outside(action.why, _WHY)}.",)
        case Deed.ALLOW:
            deed = f"Allowed {place}"
        case Deed.THROTTLE:
            deed = f"Throttled {place} to {rate(action.share)}"
        case Deed.REROUTE:
            deed = f"Rerouted {place} to pool {name(action.pool)}"
        case _:
            deed = f"Paused {place}"
    return (deed, *_end(action, clock), _by(action) + why)


def _end(action: Action, clock: Clock) -> Line:
    return (" until ", clock(action.until)) if action.until else ()


def _by(action: Action, limit: int = 60) -> str:
    return f" by {name(action.who, limit)}" if action.by_person else ""


def _beyond(about: Scope, scope: Scope) -> str:
    """What ``scope`` says beyond ``about``: nothing where both are one, all of it where it is no part of ``about``."""
    if scope == about:
        return ""
    if not about.covers(scope):
        return sentence(where(scope, _PLACE))
    new = [label for label, value in named(scope).items() if not getattr(about, label)]
    owner = [] if {*OWNED}.isdisjoint(new) else ["tenant"]
    return sentence(where(scope.only(*new, *owner), _PLACE))


def _rehearsed(action: Action) -> bool:
    return action.why.lower().startswith("dry run")
