"""Whether what automation may pause, and what a person reads of it, can reach a dispatch tier as configured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from monitor.core.policy import narrowed
from monitor.core.rules import Pauses, Rule
from monitor.model import LABELS, Scope
from monitor.ports import Actuator, Plugin
from monitor.settings import Settings

# What a collector and an actuator must read alike, so that what is measured and what is held are the same mail.
_DEFAULTS = ("domain", "stream", "tenant")
_NAMING = ("sender_pattern", "sasl_pattern", *_DEFAULTS)


def ways(settings: Settings) -> Iterator[str]:
    """What each way of each actuator can tell, in words."""
    for name, tier in settings.actuators.items():
        for way, told in tier.ways().items():
            yield f"actuator {name}: {way} tells {', '.join(label for label in LABELS if label in told)}"


def warnings(settings: Settings) -> Iterator[str]:
    """What is valid, and yet will not do what it looks like."""
    if settings.actuators:
        yield from (_unheld(rule, settings) for rule in settings.rules if not _reached(rule, settings))
    for name, tier in settings.actuators.items():
        yield from _named_otherwise(f"actuator.{name}", tier, settings)


def _pause_of(rule: Rule, settings: Settings) -> Scope:
    return narrowed(Scope(**dict.fromkeys(rule.by, "any")), settings.guards)


def _reached(rule: Rule, settings: Settings) -> bool:
    scope = _pause_of(rule, settings)
    tiers: tuple[Actuator, ...] = tuple(settings.actuators.values())
    return rule.pauses is Pauses.NEVER or any(tier.expresses(scope) is not None for tier in tiers)


def _unheld(rule: Rule, settings: Settings) -> str:
    scope = _pause_of(rule, settings)
    names = ", ".join(label for label in LABELS if getattr(scope, label))
    return f"rule.{rule.name}: its pauses name {names}; no actuator can tell all of these, so they would hold nothing"


def _named_otherwise(path: str, tier: Actuator, settings: Settings) -> Iterator[str]:
    ours = _naming(tier)
    sources = {name: theirs for name, source in settings.collectors.items() if (theirs := _naming(source))}
    if not ours or not sources:
        return
    differing = {name: [key for key in ours if ours[key] != theirs[key]] for name, theirs in sources.items()}
    nearest = min(differing, key=lambda name: len(differing[name]))
    if keys := differing[nearest]:
        names = " and ".join(keys)
        yield f"{path}: {names} not as in collector.{nearest}: mail would be held under other names than it is measured"
    headers = getattr(settings.collectors[nearest], "headers", {})
    for label in sorted({*headers.values()}.intersection(_DEFAULTS)):
        if ours[label]:
            yield f"{path}.{label}: collector.{nearest} reads it in a header, which we are not told: leave it out"


def _naming(plugin: Plugin) -> Mapping[str, object]:
    """The settings by which a plugin names mail; none where it names none."""
    if "sender_pattern" not in type(plugin).model_fields:
        return {}
    return {key: getattr(plugin, key, None) for key in _NAMING}
