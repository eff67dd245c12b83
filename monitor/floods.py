"""How much of one source's rubbish is kept within an hour: what a flood has more of is more of the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from monitor.model import Rejected

ITEMS, THINGS = 200, 10_000  # of one source within an hour


@dataclass(slots=True)
class _Taken:
    """Of one source within one hour."""

    hour: int
    items: int = 0
    things: int = 0
    bytes: int = 0
    told: bool = False


class Floods:
    """What each source has told within its last hour; ``size``: bytes that one may tell in it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._hours: dict[str, _Taken] = {}

    def admit(self, things: Sequence[Rejected], source: str, at: datetime) -> list[Rejected]:
        """The first of them, as many as there is room for."""
        taken = self._taken(source, at)
        if taken.items >= ITEMS:
            return []
        admitted: list[Rejected] = []
        size = taken.bytes
        for thing in islice(things, max(0, THINGS - taken.things)):
            size += len(thing.raw)
            if size > self._size and (taken.items or admitted):  # the first one always: it tells what is wrong
                break
            admitted.append(thing)
        return admitted

    def count(self, source: str, at: datetime, things: int, size: int) -> None:
        """An item is kept; one of an hour that is over counts no more."""
        known = self._hours.get(source)
        if known is None or known.hour <= _hour(at):
            taken = self._taken(source, at)
            taken.items += 1
            taken.things += things
            taken.bytes += size

    def first(self, source: str, at: datetime) -> bool:
        """Whether nobody was told yet that this source's hour is full."""
        taken = self._taken(source, at)
        told, taken.told = taken.told, True
        return not told

    def _taken(self, source: str, at: datetime) -> _Taken:
        hour, taken = _hour(at), self._hours.get(source)
        if taken is None or taken.hour != hour:
            taken = self._hours[source] = _Taken(hour)
        return taken


def _hour(at: datetime) -> int:
    return int(at.timestamp()) // 3600
