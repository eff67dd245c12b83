"""Dates as strangers write them in mail and in reports, as POSIX microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Hours east of Greenwich. RFC 5322 section 4.3 knows those of North America; reporters use their own all the same.
_ZONES = {
    name: east
    for east, names in {
        -10.0: "hst",
        -9.0: "akst",
        -8.0: "pst akdt",
        -7.0: "mst pdt",
        -6.0: "cst mdt",
        -5.0: "est cdt",
        -4.0: "edt",
        -3.5: "nst",
        -3.0: "brt",
        -2.5: "ndt",
        1.0: "cet met mez bst west",
        2.0: "cest mest mesz eet",
        3.0: "eest msk",
        8.0: "hkt",
        9.0: "jst kst",
        10.0: "aest",
        11.0: "aedt",
        12.0: "nzst",
        13.0: "nzdt",
    }.items()
    for name in names.split()
}
_MAIL = re.compile(
    r"\b(\d{1,2})[ -]{1,3}([A-Za-z]{3})[a-z]{0,6}[ -]{1,3}(\d{2,4})[ ,]{1,3}"
    r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d{1,9})?)?(?: ?([+-]\d{4})| ?\(?([A-Za-z]{1,5})\b)?",
    re.ASCII,
)
_DAY = timedelta(days=1)
_LENGTH = 200  # characters of a date that are read


@lru_cache(maxsize=4096)
def instant(text: str) -> int:
    """When a Date header (RFC 5322, old forms too) or an ISO 8601 date says it was; 0 where it says nothing.

    An offset goes before the name of a zone; without either, or with a name that nobody knows, it is UTC.
    """
    text = " ".join(text[:_LENGTH].split())
    found = _MAIL.search(text)
    try:
        at = _mail(found) if found else _iso(text)
    except (ValueError, OverflowError):
        return 0
    return (at - _EPOCH) // timedelta(microseconds=1) if at is not None and 1990 <= at.year < 2100 else 0


def _mail(found: re.Match[str]) -> datetime | None:
    day, name, year, hour, minute, second, offset, zone = found.groups()
    if name.lower() not in _MONTHS:
        return None
    month = _MONTHS.index(name.lower()) + 1
    number = int(year)
    if len(year) < 4:  # RFC 5322 section 4.3
        number += 2000 if number < 50 else 1900
    at = datetime(number, month, int(day), int(hour), int(minute), min(int(second or 0), 59), tzinfo=UTC)
    if offset and (east := timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))) < _DAY:
        return at - (east if offset[0] == "+" else -east)
    return at - timedelta(hours=_ZONES.get((zone or "").lower(), 0.0))


def _iso(text: str) -> datetime | None:
    if not text[:4].isdigit():
        return None
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
