"""The mail that a pause holds: counts by group, let out gently once the brake says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from monitor.simulator.traffic import Group

_Key = TypeVar("_Key")

_TRIES = 12  # groups that are tried in one tick: each try may cost a question
_RAMP = 0.5  # of the usual volume comes on top of it while a queue empties


class Waiting:
    """How many messages of each group wait. They get identities only when they are sent."""

    def __init__(self) -> None:
        self._counts: dict[Group, int] = {}

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, group: Group, count: int) -> None:
        """Keep ``count`` more messages of the group."""
        self._counts[group] = self._counts.get(group, 0) + count

    def withdraw(self, gone: Callable[[Group], bool]) -> int:
        """Forget the mail of the groups that its seller took back; how many messages that were."""
        groups = [group for group in self._counts if gone(group)]
        return sum(self._counts.pop(group) for group in groups)

    def release(
        self,
        passing: Callable[[Group, int], int],
        rows: Mapping[int, float],
        places: Mapping[tuple[int, int], float],
    ) -> Iterator[tuple[Group, int]]:
        """Groups and counts that go out now; ``passing`` says how many of so many the brake lets through.

        ``rows`` and ``places`` (provider and IP) are the usual messages of a tick: what goes out for any of them is
        half of that on top, at least one message, so that the end of a pause is no burst. The groups take turns.
        """
        left_rows = _allowances(rows)
        left_places = _allowances(places)
        for group in list(islice(self._counts, _TRIES)):
            place = (group.provider, group.ip)
            wanted = self._counts.pop(group)
            room = min(wanted, left_rows[group.row], left_places[place])
            out = passing(group, room) if room else 0
            if out < wanted:
                self._counts[group] = wanted - out  # to the end of the line
            if out:
                left_rows[group.row] -= out
                left_places[place] -= out
                yield group, out


def _allowances(usual: Mapping[_Key, float]) -> dict[_Key, int]:
    return defaultdict(lambda: 1, {key: max(1, round(_RAMP * volume)) for key, volume in usual.items()})
