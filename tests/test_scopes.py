"""Laws of scopes: one noun for a pause, an event and a question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.model import LABELS, OWNED, Scope, labels

NAMES = st.sampled_from(["", "a", "b"])


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    found = {label: draw(NAMES) for label in LABELS}
    if not found["tenant"]:
        found.update(dict.fromkeys(OWNED, ""))
    return Scope(**found)


@given(scopes())
def test_a_scope_covers_itself(scope: Scope):
    assert scope.covers(scope)


@given(scopes(), scopes())
def test_two_scopes_that_cover_each_other_are_the_same(one: Scope, other: Scope):
    if one.covers(other) and other.covers(one):
        assert one == other


@given(scopes(), scopes(), scopes())
def test_covers_is_transitive(wide: Scope, middle: Scope, narrow: Scope):
    if wide.covers(middle) and middle.covers(narrow):
        assert wide.covers(narrow)


@given(scopes(), scopes())
def test_overlaps_is_symmetric(one: Scope, other: Scope):
    assert one.overlaps(other) == other.overlaps(one)


@given(scopes(), scopes(), scopes())
def test_scopes_overlap_when_one_whole_message_matches_both(one: Scope, other: Scope, message: Scope):
    if all(labels(message)) and one.covers(message) and other.covers(message):
        assert one.overlaps(other)


@given(scopes(), scopes())
def test_scopes_that_overlap_have_a_message_in_common(one: Scope, other: Scope):
    if one.overlaps(other):
        both = Scope(
            **{
                label: mine or theirs or "a"
                for label, mine, theirs in zip(LABELS, labels(one), labels(other), strict=True)
            }
        )
        assert one.covers(both)
        assert other.covers(both)


@given(scopes())
def test_an_empty_lease_covers_everything(message: Scope):
    assert Scope().covers(message)


def test_a_lease_on_a_segment_does_not_cover_a_message_of_unknown_segment():
    assert not Scope(tenant="t", segment="s").covers(Scope(tenant="t"))


def test_a_lease_without_a_segment_covers_any_segment():
    assert Scope(tenant="t").covers(Scope(tenant="t", segment="s", ip="192.0.2.1"))


@pytest.mark.parametrize("label", OWNED)
def test_a_sellers_name_without_the_seller_is_refused(label: str):
    with pytest.raises(ValueError, match="without tenant"):
        Scope(**{label: "x"})


def test_only_keeps_the_named_labels():
    assert Scope(ip="i", tenant="t", segment="s").only("tenant", "segment") == Scope(tenant="t", segment="s")
