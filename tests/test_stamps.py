"""Stamps of log lines become the right microsecond, and the same one at each reading."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors._stamps import AHEAD, UNREADABLE, Stamps

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 3, 10, 12, tzinfo=UTC)
ZONES = ("UTC", "Europe/Prague", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Auckland")


def read(text: str, zone: str = "UTC", now: datetime = NOW) -> datetime:
    return EPOCH + timedelta(microseconds=Stamps(zone, now)[text])


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("Mar 10 06:27:30", "UTC", "2025-03-10T06:27:30"),
        ("Mar  1 06:27:30", "Europe/Prague", "2025-03-01T05:27:30"),
        ("Mar 01 06:27:30", "Europe/Prague", "2025-03-01T05:27:30"),
        ("2013 Jun 10 06:27:30.123", "Europe/Prague", "2013-06-10T04:27:30.123"),
        ("2013 Jun 10 06:27:30", "Europe/Prague", "2013-06-10T04:27:30"),
        ("2025-03-10T06:27:30.123456+01:00", "America/New_York", "2025-03-10T05:27:30.123456"),
        ("2025-03-10T06:27:30,5-0330", "UTC", "2025-03-10T09:57:30.5"),
        ("2025-03-10T06:27:30Z", "Asia/Kolkata", "2025-03-10T06:27:30"),
        ("2025-03-10T06:27:30", "Asia/Kolkata", "2025-03-10T00:57:30"),
        ("2025-03-10T06:27:30.123456789Z", "UTC", "2025-03-10T06:27:30.123456"),
        ("2016-12-31T23:59:60Z", "UTC", "2017-01-01T00:00:00"),
    ],
)
def test_each_kind_of_stamp_is_read(text, zone, utc):
    assert read(text, zone) == datetime.fromisoformat(utc).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "text", "year"),
    [
        (datetime(2025, 1, 1, 0, 5, tzinfo=UTC), "Dec 31 23:59:59", 2024),
        (datetime(2024, 12, 31, 23, 55, tzinfo=UTC), "Jan  1 00:00:01", 2025),  # a clock that is a little ahead
        (datetime(2024, 12, 30, 12, 0, tzinfo=UTC), "Jan  1 00:00:01", 2024),
        (datetime(2025, 3, 1, 0, 0, tzinfo=UTC), "Feb 29 10:00:00", 2024),
        (datetime(2103, 3, 1, 0, 0, tzinfo=UTC), "Feb 29 10:00:00", 2096),
    ],
)
def test_a_stamp_without_a_year_is_of_the_newest_year_that_is_not_ahead(now, text, year):
    assert read(text, now=now).year == year


def test_the_year_is_worked_out_anew_when_the_day_has_changed():
    stamps = Stamps("UTC", datetime(2025, 1, 1, tzinfo=UTC))
    first = stamps["Jan  1 00:00:00"]
    stamps.move(datetime(2026, 1, 1, tzinfo=UTC))
    assert stamps["Jan  1 00:00:00"] - first == 365 * 86_400_000_000


@pytest.mark.parametrize(
    "text",
    ["", "Foo 10 06:27:30", "Feb 30 06:27:30", "Jun 10 24:00:00", "2023-02-29T00:00:00Z", "2023-02-28T00:00:00+99:00"],
)
def test_what_is_no_time_is_told(text):
    with pytest.raises(ValueError, match=UNREADABLE):
        read(text)


def test_a_stamp_more_than_a_day_ahead_is_refused():
    assert read("2025-03-11T11:59:59Z")
    with pytest.raises(ValueError, match=AHEAD):
        read("2025-03-11T12:00:01Z")


def test_the_hour_that_a_change_of_clocks_repeats_is_its_first():
    assert read("2024-10-27T02:30:00", "Europe/Prague") == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)


def test_the_hour_that_a_change_of_clocks_skips_is_read_as_if_they_had_not_changed():
    assert read("2024-03-31T02:30:00", "Europe/Prague") == datetime(2024, 3, 31, 1, 30, tzinfo=UTC)


@given(
    at=st.datetimes(datetime(2000, 1, 1), datetime(2025, 3, 10)),  # noqa: DTZ001  # made aware below
    zone=st.sampled_from(ZONES),
)
def test_local_stamps_agree_with_the_calendar(at, zone):
    text = f"{at:%Y %b %d %H:%M:%S}.{at.microsecond // 1000:03}"
    local = at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=ZoneInfo(zone))
    assert read(text, zone) == local.astimezone(UTC)


@given(
    ago=st.timedeltas(timedelta(days=-1), timedelta(days=363)),
    zone=st.sampled_from(ZONES),
    now=st.datetimes(datetime(2001, 1, 1), datetime(2098, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # UTC it is
)
def test_a_stamp_of_the_last_year_finds_its_year(ago, zone, now):
    at = (now - ago).replace(microsecond=0)
    if at > now + timedelta(days=1):
        return
    local = at.astimezone(ZoneInfo(zone))
    if local.fold or (local.month, local.day) == (2, 29):
        return
    assert read(f"{local:%b %e %H:%M:%S}", zone, now) == at


def test_stamps_do_not_grow_without_bound():
    stamps = Stamps("UTC", NOW)
    for second in range(70_000):
        stamps[f"{datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=second):%Y %b %d %H:%M:%S}"]
    assert len(stamps) < 70_000
