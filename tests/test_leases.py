"""Leases are a fold over the log: nothing ended is in force, and a person's key comes first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.index import Index
from monitor.core.leases import active, answer, ended, generation, rank
from monitor.model import AUTOMATION, Action, Deed, Scope, labels
from tests.builders import NOW, SELLER, minutes, pause, resumed

MESSAGE = Scope(tenant="s07", segment="lapsed", stream="marketing", provider="gmail", ip="192.0.2.1")
DEEDS = st.sampled_from([Deed.PAUSE, Deed.THROTTLE, Deed.ALLOW, Deed.REFUSE])


@st.composite
def logs(draw: st.DrawFn) -> list[Action]:
    log: list[Action] = []
    for seq in range(1, draw(st.integers(1, 8))):
        at = NOW + minutes(draw(st.integers(0, 100)))
        deed = draw(DEEDS)
        log.append(
            pause(
                id=str(seq),
                seq=seq,
                at=at,
                deed=deed,
                until=at + minutes(draw(st.integers(1, 90))),
                who=draw(st.sampled_from([AUTOMATION, "marta"])),
                share=0.25,
                scope=draw(
                    st.sampled_from([SELLER, Scope(provider="gmail"), Scope(tenant="s08"), Scope(tenant="s07")])
                ),
            )
        )
        if draw(st.booleans()):
            log.append(resumed(str(seq), at + minutes(draw(st.integers(0, 90)))))
    return log


@given(logs(), st.integers(-10, 300))
def test_active_never_returns_an_ended_lease(log: list[Action], after: int):
    now = NOW + minutes(after)
    resumes = {action.lease: action.at for action in log if action.deed is Deed.RESUME}
    for lease in active(log, now):
        assert lease.since <= now < lease.until
        assert lease.id not in resumes or resumes[lease.id] > now


@given(logs(), st.lists(st.integers(-10, 300), min_size=2, max_size=6))
def test_the_generation_never_falls_and_moves_when_the_leases_change(log: list[Action], moments: list[int]):
    before: tuple[int, Any] | None = None
    for after in sorted(moments):
        now = NOW + minutes(after)
        seen = [action for action in log if action.at <= now]
        number = generation(len(seen), ended(log, now))
        if before:
            assert number >= before[0]
            if active(log, now) != before[1]:
                assert number > before[0]
        before = (number, active(log, now))


@given(logs(), st.integers(0, 200))
def test_the_compiled_index_finds_what_covers_finds(log: list[Action], after: int):
    leases = active(log, NOW + minutes(after))
    covering = [lease for lease in leases if lease.scope.covers(MESSAGE)]
    assert Index(leases).covering(labels(MESSAGE)) == tuple(sorted(covering, key=rank))


def test_a_pause_holds_its_scope_and_no_other():
    leases = active([pause()], NOW)
    assert answer(leases, MESSAGE).held
    assert not answer(leases, Scope(tenant="s07", segment="buyers")).held


def test_a_lease_ends_at_its_end():
    assert not active([pause()], NOW + minutes(60))


def test_a_resumed_lease_is_over():
    assert not active([pause(), resumed()], NOW + minutes(5))


def test_a_refusal_is_not_in_force():
    assert not active([pause(deed=Deed.REFUSE)], NOW)


def test_a_persons_allow_beats_automations_pause():
    log = [pause(), pause(id="h1", who="marta", deed=Deed.ALLOW, scope=Scope(tenant="s07"), seq=2)]
    assert not answer(active(log, NOW), MESSAGE).held


def test_of_two_persons_leases_the_narrower_decides():
    log = [
        pause(id="h1", who="marta", deed=Deed.ALLOW, seq=1),
        pause(id="h2", who="jan", scope=Scope(tenant="s07"), seq=2),
    ]
    assert not answer(active(log, NOW), MESSAGE).held


def test_of_two_equally_narrow_leases_of_persons_the_newer_decides():
    log = [pause(id="h1", who="marta", seq=1), pause(id="h2", who="jan", deed=Deed.ALLOW, seq=2)]
    assert not answer(active(log, NOW), MESSAGE).held


def test_automations_pause_comes_before_its_throttle():
    log = [pause(id="t", deed=Deed.THROTTLE, share=1.0), pause(id="p", seq=2)]
    assert answer(active(log, NOW), MESSAGE).held


def test_the_same_message_gets_the_same_answer_under_a_throttle():
    leases = active([pause(deed=Deed.THROTTLE, share=0.25)], NOW)
    answers = {key: answer(leases, MESSAGE, key).held for key in map(str, range(4000))}
    assert answers == {key: answer(leases, MESSAGE, key).held for key in answers}
    passed = sum(not held for held in answers.values()) / len(answers)
    assert passed == pytest.approx(0.25, abs=0.03)


def test_a_lease_of_the_future_is_not_in_force():
    assert not active([pause(at=NOW + timedelta(seconds=1))], NOW)
