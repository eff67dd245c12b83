"""The facts: their tables, what is asked of them, what is known already, and what is let go."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.facts import grains, queries, retention
from monitor.facts.blocks import Blocks
from monitor.facts.prepare import prepare
from monitor.facts.store import Facts
from monitor.facts.window import Outcomes, Window
from monitor.keyring import Keyring
from monitor.model import COUNTED, LABELS, Batch, Kind, Scope
from tests.storing import empty, store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NUMBERS = count(1)  # no two events have one id, no two blocks one token


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    ring = Keyring.open(tmp_path_factory.mktemp("keys") / "keyring")
    yield ring
    ring.close()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    with store(tmp_path_factory.mktemp("data") / "facts", readers=2) as facts:
        yield facts


@pytest.fixture
def facts(opened: Facts) -> Facts:
    """The store without a row."""
    empty(opened)
    return opened


def micros(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


class Told:
    """Rows for the facts, one ``add`` after the other, then put in as one block."""

    def __init__(self, facts: Facts, keyring: Keyring) -> None:
        self._facts, self._keyring = facts, keyring
        self._rows: list[dict[str, Any]] = []
        self.token = ""

    def add(self, kind: Kind, at: datetime, sent_at: datetime | None = None, **more: Any) -> None:
        row = {
            "kind": kind.value,
            "at": micros(at),
            "sent_at": micros(sent_at or at),
            "id": str(next(NUMBERS)),
        }
        self._rows.append({**row, **more})

    def put(self, *, batch: int = 0, seen_at: datetime | None = None) -> pa.Table:
        table = self.made(batch=batch, seen_at=seen_at)
        Blocks(self._facts).put(table, self.token)
        return table

    def made(self, *, batch: int = 0, seen_at: datetime | None = None) -> pa.Table:
        self.token = f"token {next(NUMBERS)}"
        names = sorted({name for row in self._rows for name in row})
        defaults = {"attempt": 0, "count": 1, "code": 0}
        columns = {name: [row.get(name, defaults.get(name, "")) for row in self._rows] for name in names}
        table, rejected = prepare(Batch(columns), "test", self._keyring, seen_at, bounds=None)
        assert not rejected
        self._rows = []
        return table.append_column("batch", pa.array([batch] * len(table), pa.uint64()))


@pytest.fixture
def told(facts: Facts, keyring: Keyring) -> Told:
    return Told(facts, keyring)


# the tables


def test_the_same_token_again_changes_neither_raw_nor_any_grain(facts: Facts, told: Told) -> None:
    told.add(Kind.SENT, NOON, tenant="t1")
    told.add(Kind.BOUNCED, NOON, tenant="t1")
    table = told.put()
    before = queries.totals(facts)
    Blocks(facts).put(table, told.token)
    assert queries.totals(facts) == before
    assert before["rows"] == before["keys"] == 2
    assert before["leaf"] == before["minute"] == before["hour"] == before["events"]


def test_what_nobody_vouches_for_is_kept_and_stands_in_no_grain(facts: Facts, told: Told) -> None:
    told.add(Kind.UNVERIFIED_COMPLAINT, NOON, tenant="t1")
    told.add(Kind.UNVERIFIED_BOUNCE, NOON, tenant="t1", count=1000)
    told.put()
    kept = facts.query("SELECT toString(kind) AS kind FROM events ORDER BY kind")["kind"].to_pylist()
    assert kept == ["unverified_bounce", "unverified_complaint"]
    for grain in grains.GRAINS.values():
        for table in (grain.name, grain.series):
            assert facts.query(f"SELECT count() AS n FROM {table}")["n"].to_pylist() == [0]
    told.add(Kind.SENT, NOON, tenant="t1")
    told.add(Kind.UNVERIFIED_COMPLAINT, NOON, tenant="t1")
    told.put()
    found = queries.counts(facts, ["tenant"], NOON, NOON + MINUTE)
    assert (found.sent.tolist(), found.complaint.tolist(), found.bounced.tolist()) == ([1], [0], [0])


def test_what_people_take_back_or_unsubscribe_is_counted_for_itself(facts: Facts, told: Told) -> None:
    told.add(Kind.UNSUBSCRIBED, NOON, tenant="t1")
    told.add(Kind.NOT_SPAM, NOON, tenant="t1", count=2)
    told.put()
    found = queries.counts(facts, ["tenant"], NOON, NOON + MINUTE)
    assert (found.unsubscribed.tolist(), found.not_spam.tolist(), found.complaint.tolist()) == ([1], [2], [0])


def test_half_an_insert_is_healed_by_the_same_token(facts: Facts, told: Told) -> None:
    """Raw without its grains is what a kill between the two leaves."""
    told.add(Kind.SENT, NOON, tenant="t1")
    table = told.made()
    Blocks(facts).put_events(table, told.token)
    assert queries.totals(facts)["leaf"]["sent"] == 0
    Blocks(facts).put(table, told.token)
    found = queries.totals(facts)
    assert (found["rows"], found["leaf"]["sent"], found["minute"]["sent"], found["hour"]["sent"]) == (1, 1, 1, 1)


EDGES = [edge for edge in grains.LAG_EDGES for edge in (edge - timedelta(milliseconds=1), edge)]


def test_the_lag_class_counts_the_edges_that_were_reached(facts: Facts, told: Told) -> None:
    assert len(grains.LAG_EDGES) == 11
    for edge in EDGES:
        told.add(Kind.COMPLAINT, NOON + edge, NOON, tenant=f"{edge // timedelta(milliseconds=1)}")
    told.put(seen_at=None)  # each when it happened
    told.add(Kind.COMPLAINT, NOON, NOON, tenant="0")
    told.put(seen_at=NOON - timedelta(minutes=5))  # a clock that is late
    found = facts.query("SELECT toInt64(tenant) AS ms, lag FROM hour JOIN hour_series USING series").to_pylist()
    expected = {
        edge // timedelta(milliseconds=1): sum(edge >= other for other in grains.LAG_EDGES) for edge in EDGES
    } | {0: 0}
    assert {row["ms"]: row["lag"] for row in found} == expected


def test_only_first_attempts_count_as_first(facts: Facts, told: Told) -> None:
    for kind in COUNTED:
        for attempt in (0, 1, 2):
            told.add(kind, NOON, attempt=attempt, count=10**attempt)
    told.put()
    [first], [deferred] = (
        getattr(queries.counts(facts, (), NOON, NOON + MINUTE), name) for name in ("first", "first_deferred")
    )
    assert (first, deferred) == (40, 10)


# the questions

PLACES = st.sampled_from(["", "a", "b"])


@st.composite
def outcomes(draw: st.DrawFn) -> dict[str, Any]:
    labels = {label: draw(PLACES) for label in LABELS}
    if not labels["tenant"]:
        labels.update(segment="", campaign="", variant="")
    return {
        "kind": draw(st.sampled_from(COUNTED)),
        "at": NOON + draw(st.integers(0, 5)) * MINUTE + draw(st.integers(0, 59_999)) * timedelta(milliseconds=1),
        "age": draw(st.integers(0, 5)) * MINUTE,
        "count": draw(st.integers(1, 5)),
        "attempt": draw(st.integers(0, 2)),
        **labels,
    }


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(outcomes(), min_size=1, max_size=30),
    by=st.lists(st.sampled_from(LABELS), unique=True, max_size=4),
    since=st.integers(0, 3),
    until=st.integers(3, 6),
    sent=st.none() | st.integers(-3, 5),
    where=st.sampled_from([Scope(), Scope(ip="a"), Scope(tenant="a", segment="b"), Scope(region="a", provider="b")]),
)
def test_counts_are_what_counting_by_hand_gives(
    opened: Facts,
    keyring: Keyring,
    rows: list[dict[str, Any]],
    by: list[str],
    since: int,
    until: int,
    sent: int | None,
    where: Scope,
) -> None:
    empty(opened)
    told = Told(opened, keyring)
    for row in rows:
        told.add(
            row["kind"],
            row["at"],
            row["at"] - row["age"],
            **{name: row[name] for name in ("count", "attempt", *LABELS)},
        )
    told.put()
    start, end = NOON + since * MINUTE, NOON + until * MINUTE
    after = None if sent is None else NOON + sent * MINUTE
    expected = by_hand(rows, by, start, end, where, after)
    found = queries.counts(opened, by, start, end, where, after)
    assert len(found.scopes) == len(expected)
    assert {
        scope: {name: int(getattr(found, name)[place]) for name in grains.COUNTERS}
        for place, scope in enumerate(found.scopes)
    } == expected
    if after is None:
        lines = queries.series(opened, by, start, end, 2 * MINUTE, where)
        assert {line.scope: int(line.sent.sum()) for line in lines} == {
            scope: counters["sent"] for scope, counters in expected.items()
        }
        assert all((np.diff(line.at) > 0).all() for line in lines)


def by_hand(
    rows: list[dict[str, Any]], by: list[str], start: datetime, end: datetime, where: Scope, after: datetime | None
) -> dict[Scope, dict[str, int]]:
    names = set(by) | ({"tenant"} if set(by) & {"segment", "campaign", "variant"} else set())
    expected: dict[Scope, dict[str, int]] = {}
    for row in rows:
        scope = Scope(**{label: row[label] for label in LABELS})
        if not (start <= row["at"] < end and where.covers(scope)) or (after and row["at"] - row["age"] < after):
            continue
        group = expected.setdefault(scope.only(*names), dict.fromkeys(grains.COUNTERS, 0))
        group[row["kind"].value] += row["count"]
        if row["attempt"] == 1 and row["kind"] in grains.FIRST_OUTCOMES:
            group["first"] += row["count"]
            group["first_deferred"] += row["count"] * (row["kind"] is Kind.DEFERRED)
    return expected


def test_a_segment_is_grouped_with_the_tenant_who_chose_its_name(facts: Facts, told: Told) -> None:
    told.add(Kind.SENT, NOON, tenant="t1", segment="s", campaign="c")
    told.add(Kind.SENT, NOON, tenant="t2", segment="s")
    told.add(Kind.SENT, NOON)
    told.put()
    found = queries.counts(facts, ("segment",), NOON, NOON + MINUTE)
    assert set(found.scopes) == {Scope(tenant="t1", segment="s"), Scope(tenant="t2", segment="s"), Scope()}
    with pytest.raises(ValueError, match="unknown labels: shop"):
        queries.counts(facts, ("shop",), NOON, NOON + MINUTE)


def test_nothing_has_no_scopes(facts: Facts) -> None:
    for by in ((), ("tenant", "segment")):
        found = queries.counts(facts, by, NOON, NOON + MINUTE)
        assert found.scopes == ()
        assert found.sent.dtype == np.int64
        assert int(found.sent.sum()) == 0
        assert queries.series(facts, by, NOON, NOON + HOUR, MINUTE) == []


def test_a_quote_in_a_label_is_only_a_quote(facts: Facts, told: Told) -> None:
    nasty = "x' OR '1'='1\\"
    told.add(Kind.SENT, NOON, tenant=nasty)
    told.add(Kind.SENT, NOON, tenant="t")
    told.put()
    found = queries.counts(facts, ("tenant",), NOON, NOON + MINUTE, Scope(tenant=nasty))
    assert found.scopes == (Scope(tenant=nasty),)


def test_cohorts_are_by_hour_of_sending_at_some_providers_as_known_by_a_lag(facts: Facts, told: Told) -> None:
    told.add(Kind.SENT, NOON, provider="yahoo", tenant="t1")
    told.add(Kind.SENT, NOON, provider="gmail", tenant="t1")
    told.put(seen_at=NOON)
    told.add(Kind.COMPLAINT, NOON + timedelta(hours=30), NOON, provider="yahoo", tenant="t1")
    told.put(seen_at=NOON + timedelta(hours=30))

    def asked(**more: Any) -> list[tuple[str, int, int]]:
        found = queries.cohort_counts(facts, ("tenant",), NOON, NOON + HOUR, **more)
        return [
            (scope.tenant, int(found.sent[row]), int(found.complaint[row])) for row, scope in enumerate(found.scopes)
        ]

    assert asked() == [("t1", 2, 1)]
    assert asked(providers=["yahoo"]) == [("t1", 1, 1)]
    assert asked(providers=[]) == []
    assert asked(lag_class=7) == [("t1", 2, 0)]
    assert asked(lag_class=8) == [("t1", 2, 1)]
    assert asked(where=Scope(provider="gmail")) == [("t1", 1, 0)]
    with pytest.raises(ValueError, match="by the hour of sending"):
        queries.cohort_counts(facts, ("variant",), NOON, NOON + HOUR)


def test_hours_are_those_of_the_wall_clock(facts: Facts, told: Told) -> None:
    summer_ends = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30 in Prague, and an hour later again
    for at, many in ((summer_ends, 1), (summer_ends + HOUR, 2), (NOON, 4)):
        told.add(Kind.SENT, at, count=many)
    told.add(Kind.BOUNCED, NOON)
    told.put()
    assert [
        (hour.strftime("%Y %b %d %H %z"), kind, count) for hour, kind, count in queries.by_hour(facts, "Europe/Prague")
    ] == [
        ("2026 Oct 25 02 +0200", Kind.SENT, 1),
        ("2026 Oct 25 02 +0100", Kind.SENT, 2),
        ("2026 Nov 24 13 +0100", Kind.SENT, 4),
        ("2026 Nov 24 13 +0100", Kind.BOUNCED, 1),
    ]
    half = queries.by_hour(facts, "Asia/Kolkata")
    assert half[0][0].strftime("%H:%M %z") == "06:00 +0530"


def test_messages_are_counted_once_however_often_they_were_deferred(facts: Facts, told: Told) -> None:
    for tries in range(3):
        for name in ("m1", "m2"):
            told.add(Kind.DEFERRED, NOON, message_id=name, recipient="a@example.com", tries=tries + 1)
    told.add(Kind.DEFERRED, NOON)  # of no known message
    told.add(Kind.SENT, NOON, message_id="m3")
    for row in told._rows:
        row.setdefault("tries", 0)
    told.put()
    assert queries.distinct_messages(facts, Kind.DEFERRED) == 2
    assert queries.distinct_messages(facts, Kind.SENT) == 1
    assert queries.distinct_messages(facts, Kind.HELD) == 0


# the window


def of(*numbers: int) -> Any:
    return np.array(numbers, np.uint64)


def test_the_window_is_read_back_from_committed_batches_only(facts: Facts, told: Told) -> None:
    told.add(Kind.SENT, NOON)
    committed = told.put(batch=3)
    told.add(Kind.SENT, NOON)
    cut_short = told.put(batch=7)
    keys = np.concatenate([committed["key"].to_numpy(), cut_short["key"].to_numpy()])
    days = np.full(2, NOON.timestamp() // 86_400, np.int64)
    rows = outcomes_of(keys, days)
    assert Window(facts).fresh(rows, committed=3).tolist() == [False, True]
    assert Window(facts).fresh(rows, committed=7).tolist() == [False, False]
    assert Window(facts).fresh(rows, committed=0).tolist() == [True, True]


def test_of_the_same_key_the_first_copy_wins(facts: Facts) -> None:
    rows = outcomes_of(of(4, 9, 4, 4, 9), np.zeros(5, np.int64))
    assert Window(facts).fresh(rows, 0).tolist() == [True, True, False, False, False]


def test_final_outcomes_are_looked_for_on_both_sides_of_midnight(facts: Facts) -> None:
    window = Window(facts)
    window.fresh(day_of(10), 0)
    window.add(day_of(10))
    for day, seen in ((9, True), (10, True), (11, True), (12, False)):
        assert window.fresh(day_of(day), 0).tolist() == [not seen]
        assert window.fresh(day_of(day, final=False), 0).tolist() == [day != 10]


@pytest.mark.parametrize("read_back", [False, True])
def test_a_final_outcome_that_is_told_days_later_is_known_by_the_day_of_sending(
    facts: Facts, told: Told, *, read_back: bool
) -> None:
    day = int(NOON.timestamp() // 86_400)
    told.add(Kind.BOUNCED, NOON + timedelta(days=5), NOON)
    late = told.put(batch=1)["key"].to_numpy()
    window = Window(facts)
    if not read_back:
        window.fresh(day_of(day + 5, sent=day, key=late), 0)
        window.add(day_of(day + 5, sent=day, key=late))
    for other in (day, day + 1, day + 4):
        assert not window.fresh(day_of(other, sent=day, key=late), 1).any()
    assert window.fresh(day_of(day, sent=day, key=late + np.uint64(1)), 1).all()


def day_of(day: int, *, sent: int | None = None, final: bool = True, key: Any = None) -> Outcomes:
    days = np.array([day])
    return Outcomes(of(1) if key is None else key, days, days if sent is None else np.array([sent]), np.array([final]))


def outcomes_of(keys: Any, days: Any) -> Outcomes:
    return Outcomes(keys, days, days, np.ones(len(keys), np.bool_))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), max_size=20), max_size=12))
def test_a_key_is_fresh_exactly_once_however_the_batches_fall(batches: list[list[int]]) -> None:
    window = Window(Nothing())  # type: ignore[arg-type]  # no event was ever stored
    known: set[int] = set()
    for batch in batches:
        keys = np.array(batch, np.uint64)
        rows = outcomes_of(keys, np.zeros(len(batch), np.int64))
        fresh = window.fresh(rows, 0)
        assert [int(key) for key in keys[fresh]] == list(dict.fromkeys(key for key in batch if key not in known))
        window.add(rows.of(fresh))
        known |= set(batch)


class Nothing:
    def stream(self, sql: str, **parameters: Any) -> Iterator[Any]:
        return iter(())


def test_days_that_were_not_asked_for_the_longest_are_let_go_and_read_back(facts: Facts, told: Told) -> None:
    today = int(NOON.timestamp() // 86_400)
    stored = []
    for day in range(6):
        for _ in range(100):
            told.add(Kind.DEFERRED, NOON + timedelta(days=day))
        stored.append(told.put(batch=1)["key"].to_numpy())
    window = Window(facts, most=250)
    for day in [*range(6), *range(6)]:
        days = np.full(100, today + day, np.int64)
        assert not window.fresh(Outcomes(stored[day], days, days, np.zeros(100, np.bool_)), 1).any()
        assert sum(runs.size for runs in window._days.values()) <= 250


# retention


def test_whole_partitions_are_dropped_when_their_last_row_is_too_old(facts: Facts, told: Told) -> None:
    for days in (0, 1, 8, 40):
        told.add(Kind.SENT, NOON - timedelta(days=days))
    told.put()
    keep = {
        "events": timedelta(days=30),
        "leaf": timedelta(days=1),
        "minute": timedelta(days=90),
        "hour": timedelta(days=20),
    }
    assert retention.expire(facts, NOON, keep) == [
        ("events", "20261015"),
        ("hour", "202610"),
        ("hour_series", "202610"),
        ("leaf", "20261015"),
        ("leaf", "20261116"),
        ("leaf_series", "20261015"),
        ("leaf_series", "20261116"),
    ]
    found = queries.totals(facts)
    assert (found["rows"], found["leaf"]["sent"], found["minute"]["sent"], found["hour"]["sent"]) == (3, 2, 4, 3)
    assert retention.expire(facts, NOON, keep) == []
    midnight = NOON + timedelta(hours=12)
    assert retention.expire(facts, midnight, keep) == [("leaf", "20261123"), ("leaf_series", "20261123")]
    assert retention.expire(facts, NOON + timedelta(days=3000), {}) == []
