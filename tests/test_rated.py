"""Rates, lines, cohorts, replies and histories: each is what counting by hand gives, and its pages make a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.rates import COMPLAINING, Rate
from monitor.core.rules import Rule
from monitor.facts import cohorts as by_hour
from monitor.facts import grains, rated, raw, schema
from monitor.facts.blocks import Blocks
from monitor.facts.cohorts import Cohorts, cohorts
from monitor.facts.lines import lines, rule_lines
from monitor.facts.measures import Measure, of_kind, of_rate, of_rule
from monitor.facts.prepare import prepare
from monitor.facts.rated import Rated, leaves, rates, top
from monitor.facts.raw import history
from monitor.facts.said import replies
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.model import COUNTED, LABELS, Batch, Kind, Scope
from tests.builders import rule

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NUMBERS = count(1)
BOUNCE, DEFERRAL, COMPLAINT, RETURN = (of_rate(rate) for rate in Rate)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Facts, Keyring]]:
    folder = tmp_path_factory.mktemp("rated")
    store = Facts.open(f"chdb://{folder / 'facts'}", readers=2)
    ring = Keyring.open(folder / "keyring")
    schema.migrate(store)
    yield store, ring
    ring.close()
    store.close()


@pytest.fixture
def facts(opened: tuple[Facts, Keyring]) -> Facts:
    """The store without a row."""
    empty(opened[0])
    return opened[0]


def empty(facts: Facts) -> None:
    for table in schema.TABLES:
        facts.command(f"TRUNCATE TABLE {table}")


def row(kind: Kind, at: datetime = NOON, age: timedelta = timedelta(), **more: Any) -> dict[str, Any]:
    """An outcome of a message that was sent ``age`` before."""
    return {"kind": kind, "at": at, "age": age, "count": 1, "attempt": 1, **more}


def put(opened: tuple[Facts, Keyring], rows: Sequence[dict[str, Any]]) -> None:
    """Store the rows, each seen when it happened."""
    texts = ("recipient", "message_id", "dsn", "reply", "relay", *LABELS)
    columns = {
        "kind": [one["kind"].value for one in rows],
        "at": [micros(one["at"]) for one in rows],
        "sent_at": [micros(one["at"] - one["age"]) for one in rows],
        "id": [str(next(NUMBERS)) for _ in rows],
        **{name: [one[name] for one in rows] for name in ("count", "attempt")},
        "code": [one.get("code", 0) for one in rows],
        **{name: [one.get(name, "") for one in rows] for name in texts},
    }
    table, rejected = prepare(Batch(columns), "test", opened[1], None, bounds=None)
    assert not rejected
    Blocks(opened[0]).put(table.append_column("batch", pa.array([0] * len(rows), pa.uint64())), str(next(NUMBERS)))


def micros(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


# by hand

PLACES = st.sampled_from(["", "a", "b"])
WHATS = st.sampled_from([BOUNCE, DEFERRAL, COMPLAINT, RETURN, of_kind(Kind.SENT)])


@st.composite
def outcomes(draw: st.DrawFn) -> dict[str, Any]:
    labels = {label: draw(PLACES) for label in LABELS}
    labels["provider"] = draw(st.sampled_from(["yahoo", "gmail", "cox"]))
    if not labels["tenant"]:
        labels.update(segment="", campaign="", variant="")
    return row(
        draw(st.sampled_from(COUNTED)),
        NOON + draw(st.integers(0, 179)) * MINUTE + draw(st.integers(0, 59)) * timedelta(seconds=1),
        draw(st.integers(0, 5)) * MINUTE,
        count=draw(st.integers(1, 5)),
        attempt=draw(st.integers(0, 2)),
        **labels,
    )


ROWS = st.lists(outcomes(), min_size=1, max_size=40)


def counted(one: dict[str, Any], names: Sequence[str]) -> int:
    first = one["attempt"] == 1 and one["kind"] in grains.FIRST_OUTCOMES
    found = {
        one["kind"].value: one["count"],
        "first": one["count"] * first,
        "first_deferred": one["count"] * (first and one["kind"] is Kind.DEFERRED),
    }
    return sum(found.get(name, 0) for name in names)


def scope_of(one: dict[str, Any], by: Sequence[str]) -> Scope:
    names = {*by, "tenant"} if {"segment", "campaign", "variant"} & set(by) else set(by)
    return Scope(**{label: one[label] for label in LABELS}).only(*names)


def time_of(one: dict[str, Any], what: Measure) -> datetime:
    found: datetime = one["at"] - one["age"] if what.by_cohort else one["at"]
    return found


def by_hand(
    rows: Sequence[dict[str, Any]], what: Measure, by: Sequence[str], since: datetime, until: datetime, where: Scope
) -> tuple[Counter[Any], Counter[Any], set[Scope]]:
    """Above and below the line by (scope, POSIX minute), and all scopes that have mail."""
    above: Counter[Any] = Counter()
    below: Counter[Any] = Counter()
    seen = set()
    for one in rows:
        at = time_of(one, what)
        if not since <= at < until or not where.covers(scope_of(one, LABELS)):
            continue
        if what.providers and one["provider"] not in what.providers:
            continue
        scope = scope_of(one, by)
        seen.add(scope)
        above[scope, int(at.timestamp()) // 60] += counted(one, what.above)
        below[scope, int(at.timestamp()) // 60] += counted(one, what.below)
    return above, below, seen


def total(counter: Counter[Any], scope: Scope) -> int:
    return sum(value for (mine, _), value in counter.items() if mine == scope)


ASKED = {
    "rows": ROWS,
    "what": WHATS,
    "by": st.lists(st.sampled_from(LABELS), unique=True, max_size=3),
    "where": st.sampled_from([Scope(), Scope(ip="a"), Scope(provider="yahoo"), Scope(tenant="a", segment="b")]),
    "whole": st.booleans(),
}


def window(*, whole: bool) -> tuple[datetime, datetime]:
    """Of hours, or of minutes that are no hours."""
    return (NOON, NOON + 2 * HOUR) if whole else (NOON + 7 * MINUTE, NOON + 2 * HOUR + 7 * MINUTE)


@settings(max_examples=15, deadline=None)
@given(**ASKED)
def test_rates_are_what_counting_by_hand_gives(
    opened: tuple[Facts, Keyring], rows: list[Any], what: Measure, by: list[str], where: Scope, whole: bool
):
    empty(opened[0])
    put(opened, rows)
    since, until = window(whole=whole)
    above, below, seen = by_hand(rows, what, by, since, until, where)
    found = rates(opened[0], what, by, since, until, where)
    assert found.of == len(found.scopes) == len(seen)
    assert {scope: (int(found.above[n]), int(found.below[n])) for n, scope in enumerate(found.scopes)} == {
        scope: (total(above, scope), total(below, scope)) for scope in seen
    }


@settings(max_examples=15, deadline=None)
@given(**ASKED, most=st.integers(1, 3), at_least=st.integers(1, 3))
def test_the_worst_come_first_and_the_pages_make_a_whole(
    opened: tuple[Facts, Keyring],
    rows: list[Any],
    what: Measure,
    by: list[str],
    where: Scope,
    whole: bool,
    most: int,
    at_least: int,
):
    empty(opened[0])
    put(opened, rows)
    since, until = window(whole=whole)
    above, below, seen = by_hand(rows, what, by, since, until, where)
    paged = [one for page in pages(opened[0], what, by, since, until, where, most, at_least) for one in page]
    line = below if what.below else above
    assert {scope for scope, *_ in paged} == {scope for scope in seen if total(line, scope) >= at_least}
    assert len(paged) == len({scope for scope, *_ in paged})
    heights = [up / down if what.below else up for _, up, down in paged]
    assert heights == sorted(heights, reverse=True)


def pages(facts: Facts, what: Measure, by: Any, since: Any, until: Any, where: Any, most: int, at_least: int) -> Any:
    after = None
    while True:
        found: Rated = top(facts, what, by, since, until, where, at_least=at_least, most=most, after=after)
        assert len(found.scopes) <= most
        yield list(zip(found.scopes, found.above.tolist(), found.below.tolist(), strict=True))
        if found.of == len(found.scopes):
            return
        after = rated.Place(int(found.above[-1]), int(found.below[-1]), int(found.ids[-1]))


@settings(max_examples=20, deadline=None)
@given(**ASKED, step=st.sampled_from([1, 5, 60]), most=st.integers(1, 4))
def test_lines_are_what_counting_by_hand_gives_and_the_rest_is_summed(
    opened: tuple[Facts, Keyring],
    rows: list[Any],
    what: Measure,
    by: list[str],
    where: Scope,
    whole: bool,
    step: int,
    most: int,
):
    empty(opened[0])
    put(opened, rows)
    since, until = window(whole=whole)
    above, below, seen = by_hand(rows, what, by, since, until, where)
    found = lines(opened[0], what, by, since, until, step * MINUTE, where, most=most)
    assert found.at.tolist() == list(range(int(since.timestamp()), int(until.timestamp()), 60 * step))
    assert (len(found.scopes), found.rest) == (min(most, len(seen)), max(0, len(seen) - most))
    for side, mine, rest in ((above, found.above, found.rest_above), (below, found.below, found.rest_below)):
        for place, scope in enumerate(found.scopes):
            assert mine[place].tolist() == [
                sum(side[scope, minute] for minute in range(at // 60, at // 60 + step)) for at in found.at.tolist()
            ]
        assert int(mine.sum() + rest.sum()) == sum(side.values())
    sizes = [total(below if what.below else above, scope) for scope in found.scopes]
    assert sizes == sorted(sizes, reverse=True)


@settings(max_examples=10, deadline=None)
@given(rows=ROWS, by=st.lists(st.sampled_from(["ip", "provider", "tenant", "segment"]), unique=True, max_size=2))
def test_cohorts_tell_what_was_known_by_each_lag_and_their_pages_make_a_whole(
    opened: tuple[Facts, Keyring], rows: list[Any], by: list[str]
):
    empty(opened[0])
    put(opened, rows)
    since, until = NOON - HOUR, NOON + 4 * HOUR
    expected: dict[tuple[int, Scope], list[int]] = {}
    for one in rows:
        if one["provider"] not in COMPLAINING:
            continue
        hour = int((one["at"] - one["age"]).timestamp()) // 3600 * 3600
        mine = expected.setdefault((hour, scope_of(one, by)), [0] * (len(grains.LAG_EDGES) + 1))
        for place, edge in enumerate([*grains.LAG_EDGES, timedelta.max]):
            mine[place] += one["count"] * (one["kind"] is Kind.COMPLAINT and one["age"] < edge)
    told: list[tuple[int, Scope]] = []
    after = None
    while True:
        page: Cohorts = cohorts(opened[0], COMPLAINT, by, since, until, most=3, after=after)
        if not len(page.ids):
            break
        told += zip(page.sent_at.tolist(), page.scopes, strict=True)
        for place, key in enumerate(zip(page.sent_at.tolist(), page.scopes, strict=True)):
            assert page.above[place].tolist() == expected[key]
        assert (np.diff(page.below, axis=1) >= 0).all()
        after = by_hour.Place(int(page.sent_at[-1]), int(page.ids[-1]))
    assert set(told) == set(expected)
    assert len(told) == len(expected)
    assert [hour for hour, _ in told] == sorted((hour for hour, _ in told), reverse=True)


def test_the_hours_of_sending_do_not_keep_variants(facts: Facts):
    with pytest.raises(ValueError, match="by the hour of sending"):
        cohorts(facts, COMPLAINT, ("variant",), NOON, NOON + HOUR)


def test_a_rule_is_drawn_with_its_own_labels_and_providers(facts: Facts, opened: tuple[Facts, Keyring]):
    watched: Rule = rule(rate=Rate.COMPLAINT, by=("tenant",), providers=("seznam",))
    put(
        opened,
        [
            row(Kind.SENT, provider="seznam", tenant="a", count=9),
            row(Kind.SENT, provider="yahoo", tenant="a"),
            row(Kind.COMPLAINT, NOON + DAY, DAY, provider="seznam", tenant="a"),
        ],
    )
    found = rule_lines(facts, watched, NOON, NOON + 2 * HOUR, HOUR)
    assert found.scopes == (Scope(tenant="a"),)
    assert (found.above.tolist(), found.below.tolist(), found.grain) == ([[1, 0]], [[9, 0]], "hour")
    assert of_rule(watched).providers == ("seznam",)


def test_the_leaves_of_a_scope_are_told_apart_by_all_nine_labels(facts: Facts, opened: tuple[Facts, Keyring]):
    labels = {"ip": "i", "provider": "p", "tenant": "t"}
    put(
        opened,
        [
            *(
                row(Kind.BOUNCED, **labels, segment="bad", variant=name, count=many)
                for name, many in (("x", 2), ("y", 5))
            ),
            row(Kind.SENT, **labels, segment="good", count=100),
            row(Kind.SENT, ip="other", count=100),
        ],
    )
    found = leaves(facts, BOUNCE, NOON, NOON + MINUTE, Scope(ip="i"))
    assert [(scope.segment, scope.variant) for scope in found.scopes] == [("bad", "y"), ("bad", "x"), ("good", "")]
    assert (found.above.tolist(), found.below.tolist()) == ([5, 2, 0], [5, 2, 100])
    assert leaves(facts, BOUNCE, NOON, NOON + MINUTE, Scope(ip="i"), most=1).of == 3


def test_nothing_is_answered_by_nothing(facts: Facts):
    for by in ((), ("tenant", "segment")):
        assert rates(facts, BOUNCE, by, NOON, NOON + HOUR).scopes == ()
        assert top(facts, BOUNCE, by, NOON, NOON + HOUR).of == 0
        found = lines(facts, BOUNCE, by, NOON, NOON + HOUR, MINUTE)
        assert (found.above.shape, found.rest) == ((0, 60), 0)
        assert cohorts(facts, COMPLAINT, by, NOON, NOON + HOUR).above.shape == (0, 12)
    assert replies(facts, NOON, NOON + HOUR) == ()


# single events


def said(**more: Any) -> dict[str, Any]:
    return row(Kind.BOUNCED, **{"reply": "550 5.7.1 no", "code": 550, "dsn": "5.7.1", **more})


def test_replies_are_told_with_counts_the_newest_first(facts: Facts, opened: tuple[Facts, Keyring]):
    put(
        opened,
        [
            said(provider="gmail", count=2),
            said(at=NOON + 2 * MINUTE, provider="yahoo"),
            said(at=NOON + 3 * MINUTE, reply="full, says jo.bloggs@example.com", dsn="5.2.2", code=552),
            row(Kind.SENT, NOON + MINUTE, reply="250 ok"),
        ],
    )
    found = replies(facts, NOON, NOON + HOUR)
    assert [(one.text, one.dsn, one.count, one.providers) for one in found] == [
        ("full, says …@example.com", "5.2.2", 1, ()),
        ("550 5.7.1 no", "5.7.1", 3, ("gmail", "yahoo")),
    ]
    assert (found[1].first, found[1].last, found[1].kind) == (NOON, NOON + 2 * MINUTE, Kind.BOUNCED)


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ({}, [3, 2, 1]),
        ({"dsn": "5"}, [2, 1]),
        ({"dsn": "5.7"}, [1]),
        ({"dsn": "5.7.1"}, [1]),
        ({"code": 2}, [2]),
        ({"kinds": [Kind.DEFERRED]}, [3]),
        ({"where": Scope(ip="i")}, [2]),
    ],
)
def test_replies_are_cut_to_a_class_a_code_an_outcome_or_a_scope(
    facts: Facts, opened: tuple[Facts, Keyring], more: dict[str, Any], codes: list[int]
):
    put(
        opened,
        [
            said(code=1, dsn="5.7.1"),
            said(at=NOON + MINUTE, code=2, dsn="5.71.1", ip="i"),
            {**said(at=NOON + 2 * MINUTE, code=3, dsn="4.7.1"), "kind": Kind.DEFERRED},
        ],
    )
    assert [one.code for one in replies(facts, NOON, NOON + HOUR, **more)] == codes


@settings(max_examples=10, deadline=None)
@given(minutes=st.lists(st.integers(0, 3), min_size=1, max_size=12), most=st.integers(1, 4))
def test_the_pages_of_replies_and_of_a_history_make_a_whole(
    opened: tuple[Facts, Keyring], minutes: list[int], most: int
):
    facts, ring = opened
    empty(facts)
    put(
        opened,
        [
            said(at=NOON + minute * MINUTE, reply=str(number), recipient="Jo@Example.com")
            for number, minute in enumerate(minutes)
        ],
    )
    told, after = [], None
    while page := replies(facts, NOON, NOON + HOUR, most=most, after=after):
        told += page
        after = raw.Place(int(page[-1].last.timestamp() * 1000), page[-1].id)
    assert sorted(one.text for one in told) == sorted(map(str, range(len(minutes))))
    assert [one.last for one in told] == sorted((one.last for one in told), reverse=True)
    events, place = [], None
    who = ring.pseudonym("<jo@example.com>")
    while found := history(facts, NOON, NOON + HOUR, recipient=who, most=most, after=place):
        events += found
        place = raw.Place(int(found[-1].at.timestamp() * 1000), found[-1].key)
    assert sorted(one.reply for one in events) == sorted(map(str, range(len(minutes))))
    assert [one.at for one in events] == sorted((one.at for one in events), reverse=True)


def test_a_history_is_of_a_message_of_a_recipient_or_of_both(facts: Facts, opened: tuple[Facts, Keyring]):
    ring = opened[1]
    put(
        opened,
        [
            row(Kind.DEFERRED, message_id="<m1>", recipient="a@example.com", provider="gmail", dsn="4.2.2"),
            row(Kind.SENT, NOON + MINUTE, message_id="<m1>", recipient="a@example.com", provider="gmail"),
            row(Kind.SENT, NOON + 2 * MINUTE, message_id="<m1>", recipient="b@example.com"),
            row(Kind.SENT, NOON + 3 * MINUTE, message_id="<m2>", recipient="a@example.com"),
        ],
    )

    def found(**more: bytes) -> list[int]:
        return [(one.at - NOON) // MINUTE for one in history(facts, NOON, NOON + HOUR, **more)]

    message, recipient = ring.message("m1"), ring.pseudonym("A@example.com")
    assert found(message=message) == [2, 1, 0]
    assert found(recipient=recipient) == [3, 1, 0]
    assert found(message=message, recipient=recipient) == [1, 0]
    assert found(recipient=ring.pseudonym("nobody@example.com")) == []
    first = history(facts, NOON, NOON + HOUR, message=message)[-1]
    assert (first.kind, first.scope, first.dsn, first.message, first.recipient, first.source) == (
        Kind.DEFERRED,
        Scope(provider="gmail"),
        "4.2.2",
        message,
        recipient,
        "test",
    )
    with pytest.raises(ValueError, match="neither"):
        history(facts, NOON, NOON + HOUR)
