"""Verdicts, incidents and the threshold detector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from detectors.threshold import Threshold, wilson
from monitor.core.incidents import track
from monitor.core.judge import Table, is_a_sellers, is_shared, judge, shares
from monitor.core.rules import Pauses
from monitor.model import Grade, Scope, State
from tests.builders import NOW, SELLER, incident, minutes, rule, table, verdict

OTHER = Scope(tenant="s08", segment="lapsed")
CALM = minutes(5)


@given(st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_bounds_are_those_of_statsmodels(rows: list[tuple[int, float]]):
    total = np.array([count for count, _ in rows], dtype=np.int64)
    bad = np.array([int(count * share) for count, share in rows], dtype=np.int64)
    lower, upper = wilson(bad, total)
    theirs = proportion_confint(bad, total, alpha=0.05, method="wilson")
    np.testing.assert_allclose(lower, theirs[0], atol=1e-9)
    np.testing.assert_allclose(upper, theirs[1], atol=1e-9)


def test_two_of_twenty_trip_nothing():
    _, scores = Threshold(alert=0.05, pause=0.1, min_volume=1).step(None, np.array([2]), np.array([20]))
    assert not scores.alert[0]


def test_a_limit_of_pause_below_alert_is_refused():
    with pytest.raises(ValueError, match="people are told before"):
        Threshold(alert=0.1, pause=0.05)


@pytest.mark.parametrize(
    ("bad", "total", "state", "grade"),
    [
        (300, 1000, State.BAD, Grade.PAUSE),
        (80, 1000, State.BAD, Grade.ALERT),
        (5, 1000, State.OK, Grade.NONE),
        (60, 199, State.NO_DATA, Grade.NONE),  # plainly bad, but too thin to act on
        (0, 100, State.OK, Grade.NONE),  # thin, but surely within the limit
        (1, 20, State.NO_DATA, Grade.NONE),
    ],
)
def test_a_watched_series_is_judged_by_its_bounds(bad: int, total: int, state: State, grade: Grade):
    (found,) = judge(rule(), table((SELLER, bad, total)), [SELLER])
    assert (found.state, found.grade) == (state, grade)


def test_a_watched_series_that_sent_nothing_has_no_data():
    (found,) = judge(rule(), table(), [SELLER])
    assert found.state is State.NO_DATA
    assert not found.calm


def test_only_bad_and_watched_series_are_told():
    found = judge(rule(), table((SELLER, 300, 1000), (OTHER, 5, 1000)))
    assert [one.scope for one in found] == [SELLER]


def test_a_bad_verdict_opens_one_incident():
    (opened,) = track([], [verdict()], CALM, NOW)
    assert (opened.id, opened.grade, opened.scope) == (0, Grade.PAUSE, SELLER)


def test_silence_neither_opens_nor_resolves():
    silent = verdict(state=State.NO_DATA, grade=Grade.NONE)
    assert not track([], [silent], CALM, NOW)
    (moved,) = track([incident(calm_since=NOW - minutes(60))], [silent], CALM, NOW)
    assert moved.resolved_at is None
    assert moved.calm_since is None


def test_lasting_calm_resolves_and_keeps_the_numbers_that_opened_it():
    calm = verdict(state=State.OK, grade=Grade.NONE, calm=True, numerator=1)
    (first,) = track([incident()], [calm], CALM, NOW)
    assert first.resolved_at is None
    (still,) = track([first], [calm], CALM, NOW + CALM)
    assert still.resolved_at is None, "a watermark that stands still proves nothing"
    later = replace(calm, until=NOW + CALM)
    (done,) = track([first], [later], CALM, NOW + CALM)
    assert done.resolved_at == NOW + CALM
    assert done.evidence.numerator == 300


def test_a_rate_that_hovers_about_the_limit_does_not_resolve():
    hover = verdict(state=State.OK, grade=Grade.NONE, calm=False)
    (moved,) = track([incident(calm_since=NOW - minutes(60))], [hover], CALM, NOW)
    assert moved.calm_since is None


def test_an_incident_never_gets_milder_before_it_ends():
    (moved,) = track([incident()], [verdict(grade=Grade.ALERT)], CALM, NOW)
    assert moved.grade is Grade.PAUSE


def tenants(*rows: tuple[str, int, int]):
    return table(*((Scope(ip="192.0.2.1", provider="yahoo", tenant=name), bad, total) for name, bad, total in rows))


def shared(rows: Table) -> bool:
    return is_shared(rule(pauses=Pauses.SHARED), rows, 0.05)


def test_trouble_is_shared_when_three_tenants_are_bad_and_none_explains_half():
    assert shared(tenants(("a", 60, 100), ("b", 55, 100), ("c", 58, 100)))


def test_trouble_is_not_shared_when_one_tenant_explains_half():
    one = tenants(("a", 600, 1000), ("b", 20, 100), ("c", 20, 100))
    assert shares(one, 0.05)[0] == (one.scopes[0], pytest.approx(0.948, abs=0.01))
    assert not shared(one)


def test_mail_of_unknown_tenants_counts_as_nobodys():
    assert not shared(tenants(("", 60, 100), ("b", 55, 100), ("c", 58, 100)))


@pytest.mark.parametrize(
    ("explained", "known", "lasting", "sellers"),
    [
        ((("s07", 0.9),), {"s07"}, True, True),  # told already
        ((("s07", 0.9),), set(), False, True),  # the seller's own rule may still see it
        ((("s07", 0.9),), set(), True, False),  # it lasts, and nobody was told: in doubt we alert
        ((("s07", 0.4),), {"s07"}, False, False),
        ((("", 0.9),), {""}, False, False),
        ((), set(), False, False),
    ],
)
def test_an_ips_trouble_that_one_seller_explains_is_that_sellers(explained, known, lasting, sellers):
    bad = verdict(scope=Scope(ip="192.0.2.1", provider="yahoo"), shares=explained)
    assert is_a_sellers(bad, known, lasting=lasting) is sellers
