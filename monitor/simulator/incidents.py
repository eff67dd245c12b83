"""What goes wrong in the demo, where and when: the script, and the flag ``KIND:SCOPE@TIME``. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import cast

import numpy as np

from monitor.model import LABELS, Scope, named
from monitor.ports import duration
from monitor.simulator.world import IPS, PROVIDERS, SEGMENTS, SELLERS, Marketplace

EXAMPLE = "bought-list:tenant=s07,segment=lapsed-365d@40s"
_VALUES = {"tenant": SELLERS, "segment": SEGMENTS, "ip": IPS, "provider": PROVIDERS}
_FIRST, _SECOND = timedelta(seconds=30), timedelta(seconds=150)
_SCRIPT = timedelta(days=1)
_TOLD = 6  # sentences that a person still reads


class IncidentKind(StrEnum):
    """What can go wrong."""

    BOUGHT_LIST = "bought-list"  # a seller mails addresses that it bought: many don't exist
    IP_REFUSED = "ip-refused"  # one provider refuses one of our IPs, whoever mails


_NEEDS = {IncidentKind.BOUGHT_LIST: ("tenant", "segment"), IncidentKind.IP_REFUSED: ("ip", "provider")}
_LASTS = {IncidentKind.BOUGHT_LIST: timedelta(seconds=100), IncidentKind.IP_REFUSED: timedelta(seconds=120)}


@dataclass(frozen=True, slots=True)
class Planned:
    """An incident to come: ``starts`` counts from the marketplace's start.

    Of a bought list, ``times`` is what the segment's volume becomes of its usual one (other bounds of
    ``traffic.extra`` go before it), and ``bounced`` the part of the list that doesn't exist.
    """

    kind: IncidentKind
    scope: Scope
    starts: timedelta
    lasts: timedelta
    times: float = 5.0
    bounced: float = 0.45

    def running(self, elapsed: timedelta) -> bool:
        """Whether it goes wrong at that time after the start."""
        return self.starts <= elapsed < self.starts + self.lasts


def script(world: Marketplace, seed: int, incidents: Sequence[str] = ()) -> tuple[Planned, ...]:
    """The incidents in order of time: those that ``incidents`` describe, or without any a day's worth from ``seed``.

    Raises:
        ValueError: a description that can't be read, see ``parse``.
    """
    rng = np.random.default_rng([seed, 2])
    planned = [parse(text) for text in incidents] if incidents else list(_course(world, rng))
    return tuple(sorted(planned, key=lambda one: one.starts))


def parse(text: str) -> Planned:
    """The incident that ``KIND:SCOPE@TIME`` describes, such as ``bought-list:tenant=s07,segment=lapsed-365d@40s``.

    Raises:
        ValueError: says which part can't be read, and what to write instead.
    """
    kind_name, colon, rest = text.partition(":")
    scope_text, at, time_text = rest.rpartition("@")
    if not colon or not at:
        raise ValueError(f"incident {text!r}: write KIND:SCOPE@TIME, such as {EXAMPLE}")
    try:
        kind = IncidentKind(_one_of(kind_name.strip(), "kind", tuple(IncidentKind)))
        scope = _scope(kind, scope_text)
        starts = cast("timedelta", duration(time_text))  # of any text it makes one, or raises
    except ValueError as error:
        raise ValueError(f"incident {text!r}: {error}") from error
    return Planned(kind, scope, starts, _LASTS[kind])


def describe(planned: Sequence[Planned]) -> list[str]:
    """Sentences for the terminal: what happens when, and what to watch."""
    if len(planned) <= _TOLD:
        return [_sentence(one) for one in planned]
    return [*(_sentence(one) for one in planned[:2]), "After that one of the two comes every few minutes, elsewhere."]


def _sentence(one: Planned) -> str:
    where = named(one.scope)
    if one.kind is IncidentKind.BOUGHT_LIST:
        return (
            f"At {_clock(one.starts)} seller {where['tenant']} mails a bought list to {where['segment']}: "
            "watch its bounces rise, the pause come within half a minute, its volume fall to zero while others "
            "go on, and its mail flow again when the pause has ended."
        )
    return (
        f"At {_clock(one.starts)} {where['provider']} refuses {where['ip']} for {_clock(one.lasts)} minutes: "
        "all sellers are hit alike, so the pause holds that IP at that provider, spares receipts, and no seller "
        "is blamed."
    )


def _clock(time: timedelta) -> str:
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    return f"{minutes}:{seconds:02}"


def _scope(kind: IncidentKind, text: str) -> Scope:
    found: dict[str, str] = {}
    needed = _NEEDS[kind]
    for part in text.split(","):
        label, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"{part.strip()!r} in the scope is no label: write label=value")
        if label not in needed:
            known = "does not narrow" if label in LABELS else "is no label of"
            raise ValueError(f"{label!r} {known} a {kind}: it takes {' and '.join(needed)}")
        if label in found:
            raise ValueError(f"{label} stands twice in the scope: name it once")
        found[label] = _one_of(value, label, _VALUES[label])
    if missing := [label for label in needed if label not in found]:
        raise ValueError(f"{missing[0]} is missing in the scope: a {kind} takes {' and '.join(needed)}")
    return Scope(**found)


def _one_of(value: str, what: str, known: Sequence[str]) -> str:
    if value in known:
        return value
    if len(known) > len(SEGMENTS):
        raise ValueError(f"this marketplace has no {what} {value!r}: it has {known[0]} to {known[-1]}")
    near = get_close_matches(value, known, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"this marketplace has no {what} {value!r}: {meant}it has {', '.join(known)}")


def _course(world: Marketplace, rng: np.random.Generator) -> Iterator[Planned]:
    """A bought list at 0:30, a refused IP at 2:30, then one of them again every few minutes."""
    last = Scope()
    starts, turn = _FIRST, 0
    while starts < _SCRIPT:
        bought = turn == 0 or (turn > 1 and bool(rng.random() < 0.5))
        draw = _bought if bought else _refused
        one = draw(world, rng, starts)
        while one.scope == last:
            one = draw(world, rng, starts)
        yield one
        last, turn = one.scope, turn + 1
        starts = _SECOND if turn == 1 else starts + timedelta(seconds=int(rng.integers(200, 280)))


def _bought(world: Marketplace, rng: np.random.Generator, starts: timedelta) -> Planned:
    tenant = SELLERS[rng.integers(8, 24)]  # middle-sized
    rows = world.rows(tenant)
    row = rows[np.argmax(world.volume[rows].sum(axis=1))]
    scope = Scope(tenant=tenant, segment=world.series[row].segment)
    kind = IncidentKind.BOUGHT_LIST
    return Planned(kind, scope, starts, _LASTS[kind], float(rng.uniform(5, 6)), float(rng.uniform(0.40, 0.52)))


def _refused(_world: Marketplace, rng: np.random.Generator, starts: timedelta) -> Planned:
    # Where five minutes bring the 500 decided messages of the rule with ease.
    provider = PROVIDERS[rng.choice([0, 1, 2])]
    scope = Scope(ip=IPS[rng.integers(len(IPS))], provider=provider)
    kind = IncidentKind.IP_REFUSED
    return Planned(kind, scope, starts, _LASTS[kind])
