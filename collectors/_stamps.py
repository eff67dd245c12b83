"""Stamps of log lines → POSIX microseconds: classic syslog, RFC 3339, and the classic one behind a year."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from monitor.once import Once

STAMP = (
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9}+)?+(?:Z|[+-]\d\d:?+\d\d)?+"
    r"|\d{4} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:[.,]\d{1,9}+)?+)"
)
UNREADABLE = "stamp is no time"
AHEAD = "stamp ahead of the clock"
_PARTS = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d|(?:\d{4} )?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d)"  # the minute
    r":([0-5]\d|60)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?",  # second (or a leap second), fraction, offset
    re.ASCII,
)
_MONTHS = {"Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6}
_MONTHS |= {"Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_LEAP_YEARS_APART = 8  # 1896 and 1904, 2096 and 2104: a 29 February is found within so many years


class Stamps(Once[str, int]):
    """``stamps["Jun 10 06:27:30"]`` is POSIX microseconds; so for each text that ``STAMP`` matches.

    A stamp without an offset is local time in ``zone``. In the hour that a change of clocks repeats it is read as the
    first of the two, so that the same line always has the same time; in the hour that one skips, as if the clocks had
    not been changed yet. A stamp without a year is of the newest year in which it is at most a day after ``now``.

    Raises:
        ValueError: ``UNREADABLE``, or ``AHEAD``: more than a day after ``now``.
    """

    def __init__(self, zone: str, now: datetime) -> None:
        super().__init__(self._micros)
        self._zone: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
        self._minutes = Once(self._minute)
        self._now = now

    def move(self, now: datetime) -> None:
        """The clock has moved on; years are worked out anew when the day has."""
        if now.date() != self._now.date():
            self.clear()
            self._minutes.clear()
        self._now = now

    def _micros(self, text: str) -> int:
        if not (found := _PARTS.fullmatch(text)):
            raise ValueError(UNREADABLE)
        minute, second, fraction, offset = found.groups()
        try:
            start = self._minutes[minute + (offset or "")]
        except (ValueError, OverflowError, KeyError) as error:
            raise ValueError(UNREADABLE) from error
        at = start + int(second) * 1_000_000 + (int(fraction.ljust(6, "0")[:6]) if fraction else 0)
        if at > (self._now + _DAY - _EPOCH) // _MICROSECOND:
            raise ValueError(AHEAD)
        return at

    def _minute(self, text: str) -> int:
        return (self._start(text) - _EPOCH) // _MICROSECOND

    def _start(self, text: str) -> datetime:
        if text[4] == "-":
            at = datetime.fromisoformat(text)
            return at if at.tzinfo else at.replace(tzinfo=self._zone)
        *year, month, day, clock = text.split()
        rest = (_MONTHS[month], int(day), int(clock[:2]), int(clock[3:]))
        return datetime(int(year[0]), *rest, tzinfo=self._zone) if year else self._newest(*rest)

    def _newest(self, month: int, day: int, hour: int, minute: int) -> datetime:
        newest = self._now.year + 1
        for year in range(newest, newest - _LEAP_YEARS_APART - 2, -1):
            if month == 2 and day == 29 and not _leap(year):
                continue
            at = datetime(year, month, day, hour, minute, tzinfo=self._zone)
            if at <= self._now + _DAY:
                return at
        raise ValueError(UNREADABLE)


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
