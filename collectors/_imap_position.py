"""How far a folder has been read, as it is kept on disk with each batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collectors._uids import packed, unpacked


@dataclass(slots=True)
class Position:
    """All letters up to ``uid`` have been read, but for those that are to be offered ``later``.

    ``owed`` are counted for good, and not yet moved, marked or deleted. UIDs mean nothing under another ``validity``.
    """

    validity: int = 0
    uid: int = 0
    owed: set[int] = field(default_factory=set)
    later: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, cursor: Mapping[str, Any]) -> Position:
        """Where a cursor stands; at the beginning if it is none of ours."""
        try:
            owed, later = unpacked(cursor.get("owed", "")), unpacked(cursor.get("later", ""))
            return cls(int(cursor.get("uidvalidity", 0)), int(cursor.get("uid", 0)), owed, later)
        except (ValueError, TypeError, AttributeError):
            return cls()

    def cursor(self) -> Mapping[str, Any]:
        """What ``of`` reads."""
        owed, later = packed(self.owed), packed(self.later)
        return {"uidvalidity": self.validity, "uid": self.uid, "owed": owed, "later": later}
