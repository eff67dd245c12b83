"""What a reader of folders knows between two looks at them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from collectors._known import Known
from monitor.model import Rejected

_FIRST_WAIT, _LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=1)
_LOOKS = 2  # that found a folder as it was: its stamp is some milliseconds coarse, so one look proves nothing


@dataclass(frozen=True, slots=True)
class Wait:
    """A letter that is to be read again, not before ``until``; the wait was a ``span`` long."""

    until: datetime
    span: timedelta

    @classmethod
    def after(cls, before: Wait | None, now: datetime) -> Wait:
        """The next wait: twice as long as the one before, at most an hour."""
        span = min(2 * before.span, _LONGEST_WAIT) if before else _FIRST_WAIT
        return cls(now + span, span)


@dataclass(slots=True)
class Rounds:
    """``owed`` are keys of letters that count already and still lie where they lay, with the times of their files.

    ``count`` of letters tells one cursor from another. ``aside`` are those that can't be read and were not told yet;
    ``restless``: a letter in the folder under the eye will be readable without a change of the folder.
    """

    known: Known
    owed: dict[str, int]
    count: int
    largest: int
    waits: dict[str, Wait] = field(default_factory=dict)
    aside: list[Rejected] = field(default_factory=list)
    restless: bool = False
    _stands: dict[Path, tuple[tuple[int, int], int]] = field(default_factory=dict)

    @classmethod
    def of(cls, cursor: Mapping[str, Any], remembers: Mapping[str, Any], largest: int) -> Rounds:
        """As the last commit left it; letters that were set aside are looked at again if larger ones are read now."""
        known = Known(remembers, cursor.get("before", 0))
        if largest > cursor.get("largest", largest):
            known.forget_aside()
        return cls(known, dict(cursor.get("owed", {})), cursor.get("count", 0), largest)

    def cursor(self, owed: Mapping[str, int]) -> dict[str, Any]:
        """As JSON can hold it, with what must be put away once the batch is on disk."""
        return {"count": self.count, "before": self.known.before, "largest": self.largest, "owed": dict(owed)}

    def put_off(self, key: str, now: datetime) -> None:
        """Read this letter again later."""
        self.waits[key] = Wait.after(self.waits.get(key), now)

    def still(self, path: Path, descriptor: int) -> bool:
        """Whether nothing came or went since the last looks: then a folder of many files need not be listed again."""
        status = os.fstat(descriptor)
        stamp = (status.st_ino, status.st_mtime_ns)
        before, looks = self._stands.get(path, (None, 0))
        looks = looks if before == stamp else 0
        self._stands[path] = (stamp, looks + 1)
        self.restless = False
        return looks >= _LOOKS and not self.waits

    def look_again(self, path: Path) -> None:
        """The folder must be listed the next time, whether it changes or not."""
        self._stands.pop(path, None)

    def all_seen(self, there: set[str]) -> None:
        """Every folder was listed, and of the letters that are known, owed or put off these are ``there``."""
        self.known.keep(there)
        self.owed = {key: changed for key, changed in self.owed.items() if key in there}
        self.waits = {key: wait for key, wait in self.waits.items() if key in there}
