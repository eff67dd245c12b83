"""UIDs of letters as IMAP writes many of them at once, such as "4:7,9" (RFC 9051 section 9, sequence-set)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

LAST = (1 << 32) - 1
_RANGE = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?")


def packed(uids: Iterable[int]) -> str:
    """The text for these; empty for none."""
    return ",".join(f"{low}:{high}" if high > low else str(low) for low, high in _runs(uids))


def unpacked(text: str) -> set[int]:
    """What ``packed`` was given.

    Raises:
        ValueError: nobody has packed this.
    """
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        if not (ends := _RANGE.fullmatch(part)):
            raise ValueError(f"{part[:20]!r} names no letters")
        low = int(ends[1])
        found.update(range(low, int(ends[2] or low) + 1))
    return found


def _runs(uids: Iterable[int]) -> Iterator[tuple[int, int]]:
    low = high = 0
    for uid in sorted(set(uids)):
        if low and uid == high + 1:
            high = uid
            continue
        if low:
            yield low, high
        low = high = uid
    if low:
        yield low, high
