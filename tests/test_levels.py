"""Levels: kept once, the newest found by name and scope, replaced by what is told later of the same reading."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from monitor.facts import levels, retention
from monitor.facts.levels import Level
from monitor.facts.store import Facts
from monitor.model import Scope
from tests.storing import empty, store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ADDRESS = Scope(ip="192.0.2.7")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    with store(tmp_path_factory.mktemp("data") / "facts", readers=1) as facts:
        yield facts


@pytest.fixture
def facts(opened: Facts) -> Facts:
    empty(opened)
    return opened


def listed(value: float = 1, at: datetime = NOON, **more: object) -> Level:
    said = {"kind": "listing", "name": "zen.example", "at": at, "value": value, "scope": ADDRESS, "source": "dnsbl"}
    return Level(**{**said, **more})  # type: ignore[arg-type]


def test_a_level_comes_back_as_it_was_told(facts: Facts) -> None:
    told = listed(0.5, at=NOON + timedelta(milliseconds=1), text="127.0.0.2 “spam source”", seen_at=NOON + HOUR)
    assert levels.append(facts, [told]) == 1
    assert levels.latest(facts, "listing", NOON + HOUR) == [told]
    assert levels.history(facts, "listing", NOON, NOON + HOUR) == [told]


def test_the_same_again_is_kept_once(facts: Facts) -> None:
    told = [listed(), listed(at=NOON + HOUR)]
    for _ in range(2):
        levels.append(facts, told)
        levels.append(facts, told[:1])
    assert len(levels.history(facts, "listing", NOON, NOON + 2 * HOUR)) == 2
    assert levels.append(facts, []) == 0


def test_what_is_learnt_later_of_the_same_reading_replaces_it(facts: Facts) -> None:
    levels.append(facts, [listed(1, seen_at=NOON + HOUR)])
    levels.append(facts, [listed(0, seen_at=NOON)])  # told late, and seen before
    assert [level.value for level in levels.history(facts, "listing", NOON, NOON + HOUR)] == [1]
    levels.append(facts, [listed(0, seen_at=NOON + 2 * HOUR)])
    assert [level.value for level in levels.latest(facts, "listing", NOON + HOUR)] == [0]


def test_the_newest_of_each_name_scope_and_source_up_to_now(facts: Facts) -> None:
    other = Scope(ip="192.0.2.8")
    levels.append(
        facts,
        [
            *(listed(hour, at=NOON + hour * HOUR) for hour in range(4)),
            listed(7, scope=other),
            listed(8, name="another.example"),
            listed(9, source="people"),
            listed(3, kind="score"),
        ],
    )
    found = levels.latest(facts, "listing", NOON + 2 * HOUR)
    assert [(level.name, level.scope, level.source, level.value) for level in found] == [
        ("another.example", ADDRESS, "dnsbl", 8),
        ("zen.example", ADDRESS, "dnsbl", 2),
        ("zen.example", ADDRESS, "people", 9),
        ("zen.example", other, "dnsbl", 7),
    ]
    assert levels.latest(facts, "listing", NOON - HOUR) == []
    [only] = levels.latest(facts, "listing", NOON + 9 * HOUR, name="zen.example", where=other)
    assert only.value == 7


def test_history_is_oldest_first_and_ends_before_its_end(facts: Facts) -> None:
    levels.append(facts, [listed(hour, at=NOON + hour * HOUR) for hour in (3, 1, 2, 0)])
    found = levels.history(facts, "listing", NOON, NOON + 3 * HOUR, where=ADDRESS, name="zen.example")
    assert [level.value for level in found] == [0, 1, 2]


def test_years_of_levels_go_in_at_once_and_what_is_too_old_is_let_go(facts: Facts) -> None:
    months = [NOON - timedelta(days=30 * month) for month in range(130)]  # more than the engine takes in one block
    assert levels.append(facts, [listed(at=at) for at in months]) == 130
    assert len(levels.history(facts, "listing", months[-1], NOON + HOUR)) == 130
    dropped = retention.expire(facts, NOON)
    assert {table for table, _ in dropped} == {"levels"}
    left = levels.history(facts, "listing", months[-1], NOON + HOUR)
    assert left[0].at > NOON - timedelta(days=1826 + 31)
    assert len(left) < 130
