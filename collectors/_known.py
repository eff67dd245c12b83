"""Letters that lie where they lay and are done with: known by name, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

LIMIT = 100_000


def key(place: str) -> str:
    """What a letter's place is remembered by: strangers name files, and a name may hold an address."""
    return blake2b(place.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


ASIDE = 0  # in place of a time


class Known:
    """Keys with the time at which each file was last written to, in nanoseconds; ``ASIDE`` for what was not read.

    At most ``LIMIT``: beyond it the oldest are forgotten, and any file as old as those counts as known by its age.
    """

    def __init__(self, remembered: Mapping[str, Any] | None = None, before: int = 0, limit: int = LIMIT) -> None:
        self._changed: dict[str, int] = {name: int(at) for name, at in (remembered or {}).items()}
        self._told: dict[str, int | None] = {}
        self._limit = limit
        self.before = before

    def __contains__(self, name: str) -> bool:
        return name in self._changed

    def is_other(self, name: str, changed: int) -> bool:
        """Whether the file of that name is not the one that is known."""
        return self._changed.get(name, changed) not in (changed, ASIDE)

    def __len__(self) -> int:
        return len(self._changed)

    def old(self, changed: int) -> bool:
        """Whether a file is as old as those that were forgotten."""
        return changed <= self.before

    def add(self, name: str, changed: int) -> None:
        """One more that is done with."""
        self._changed[name] = self._told[name] = changed
        if len(self._changed) > self._limit:
            self._forget_oldest()

    def keep(self, names: set[str]) -> None:
        """Forget all others: they are gone from where they lay."""
        for name in self._changed.keys() - names:
            self._forget(name)

    def forget_aside(self) -> None:
        """Look again at what was not read."""
        for name in [name for name, changed in self._changed.items() if changed == ASIDE]:
            self._forget(name)

    def told(self) -> dict[str, int | None]:
        """What changed since the last call, as a batch's ``remember`` wants it."""
        told, self._told = self._told, {}
        return told

    def _forget_oldest(self) -> None:
        # A tenth at once: one at a time would sort all of them for each letter.
        oldest = sorted(self._changed, key=self._changed.__getitem__)[: max(1, self._limit // 10)]
        self.before = max(self.before, self._changed[oldest[-1]])
        for name in oldest:
            self._forget(name)

    def _forget(self, name: str) -> None:
        del self._changed[name]
        self._told[name] = None
