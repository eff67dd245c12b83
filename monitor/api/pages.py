"""Pages: where one ended, as a text that the next question brings back."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from monitor.api.asked import LAST, Unclear

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def cursor(*numbers: int) -> str:
    """A page's end, for ``page`` to read."""
    return base64.urlsafe_b64encode(json.dumps(numbers, separators=(",", ":")).encode()).decode().rstrip("=")


def page(text: str, count: int) -> tuple[int, ...]:
    """The numbers of a cursor; empty for the first page.

    Raises:
        Unclear: it is none of ours.
    """
    if not text:
        return ()
    try:
        found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), "-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        stray()
    if not isinstance(found, list) or len(found) != count:
        stray()
    if not all(type(number) is int and 0 <= number < 1 << 64 for number in found):
        stray()
    # All but the last, which is a hash, are signed in the engine.
    if any(number >= 1 << 63 for number in found[:-1]):
        stray()
    return tuple(found)


def moment(seconds: float) -> datetime:
    """POSIX seconds out of a cursor.

    Raises:
        Unclear: no time that could be asked for.
    """
    if not 0 <= seconds < LAST.timestamp():
        stray()
    return _EPOCH + timedelta(seconds=seconds)


def stray() -> NoReturn:
    """Refuse a cursor.

    Raises:
        Unclear: always.
    """
    raise Unclear("cursor: none of ours", "send the text in `next` of the last page as it is, or none")
