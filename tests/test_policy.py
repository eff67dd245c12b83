"""In doubt automation does not pause, and says why."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.core.leases import active
from monitor.core.policy import Guards, Proposal, Setting, decide, narrowed
from monitor.core.rules import Pauses
from monitor.model import Deed, Grade, Scope, State
from tests.builders import NOW, SELLER, incident, minutes, pause, rule, verdict

MARKETING = Scope(tenant="s07", segment="lapsed", stream="marketing")


def proposal(**changes: Any) -> Proposal:
    values: dict[str, Any] = {
        "incident": incident(),
        "rule": rule(),
        "verdict": verdict(),
        "scope": MARKETING,
        "share": 0.05,
    }
    return Proposal(**{**values, **changes})


def setting(log: Any = (), **guards: Any) -> Setting:
    return Setting(now=NOW, guards=Guards(**{"dry_run": False, **guards}), leases=active(log, NOW), log=tuple(log))


def test_sure_evidence_pauses_for_the_rules_lease():
    action = decide(proposal(), setting())
    assert action
    assert (action.deed, action.scope, action.until) == (Deed.PAUSE, MARKETING, NOW + minutes(60))
    assert action.evidence["numerator"] == 300


def test_the_same_evidence_has_the_same_id():
    first, again = decide(proposal(), setting()), decide(proposal(), setting())
    assert first
    assert again
    assert first.id == again.id
    later = decide(proposal(verdict=verdict(until=NOW - minutes(1))), setting())
    assert later
    assert later.id != first.id


def refusal(one: Proposal, where: Setting) -> str:
    action = decide(one, where)
    assert action
    assert action.deed is Deed.REFUSE
    assert action.until is None
    return action.why


def test_dry_run_says_what_it_would_have_done():
    assert "would have paused" in refusal(proposal(), setting(dry_run=True))


def test_old_evidence_is_refused():
    old = verdict(until=NOW - minutes(16))
    assert "16 min old" in refusal(proposal(verdict=old), setting())


def test_an_empty_scope_is_refused():
    assert "empty" in refusal(proposal(scope=Scope(stream="marketing")), setting())


def test_mail_without_the_rules_labels_is_not_paused_wider_than_measured():
    assert "no segment" in refusal(proposal(scope=Scope(tenant="s07", stream="marketing")), setting())


def test_a_scope_that_overlaps_protected_mail_is_refused():
    assert "protected" in refusal(proposal(scope=SELLER), setting())


def test_a_transactional_scope_is_refused():
    assert "protected" in refusal(proposal(scope=Scope(tenant="s07", segment="x", stream="transactional")), setting())


def test_too_large_a_held_share_is_refused():
    assert "over the limit of 20%" in refusal(proposal(share=0.21), setting())


def test_an_unknown_held_share_is_refused():
    assert "no volume" in refusal(proposal(share=None), setting())


def test_too_many_pauses_an_hour_are_refused():
    log = [pause(id=str(n), scope=Scope(tenant=f"t{n}"), at=NOW - minutes(n), seq=n) for n in range(1, 7)]
    assert "6 pauses in the last hour" in refusal(proposal(), setting(log))


def test_a_seller_is_not_paused_for_what_all_sellers_see():
    cell = Scope(ip="192.0.2.1", provider="yahoo")
    assert "other sellers see the same" in refusal(proposal(everybodys=cell), setting())


def test_a_persons_key_is_respected():
    turned = pause(who="marta", deed=Deed.ALLOW, scope=Scope(tenant="s07"))
    assert "marta" in refusal(proposal(), setting([turned]))


def test_a_persons_lease_elsewhere_does_not_hinder():
    turned = pause(who="marta", deed=Deed.ALLOW, scope=Scope(tenant="s08"))
    action = decide(proposal(), setting([turned]))
    assert action
    assert action.deed is Deed.PAUSE


def test_the_last_ip_is_never_paused():
    shared = rule(by=("ip", "provider"), pauses=Pauses.SHARED)
    scope = Scope(ip="192.0.2.1", provider="yahoo", stream="marketing")
    assert "last IP" in refusal(proposal(rule=shared, scope=scope, shared=True, other_ips=0), setting())
    action = decide(proposal(rule=shared, scope=scope, shared=True, other_ips=1), setting())
    assert action
    assert action.deed is Deed.PAUSE


def test_what_is_held_already_needs_no_second_word():
    assert decide(proposal(), setting([pause(scope=MARKETING)])) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": verdict(grade=Grade.ALERT)},
        {"verdict": verdict(state=State.NO_DATA, grade=Grade.NONE)},
        {"rule": rule(pauses=Pauses.NEVER)},
        {"rule": rule(pauses=Pauses.SHARED), "shared": False},
    ],
)
def test_no_pause_is_wanted_without_cause(changes: Any):
    assert decide(proposal(**changes), setting()) is None


def test_a_scope_without_a_stream_is_narrowed_to_what_is_not_protected():
    assert narrowed(SELLER, Guards()) == MARKETING


def test_with_several_unprotected_streams_nothing_is_narrowed():
    guards = Guards(streams=("transactional", "marketing", "news"))
    assert narrowed(SELLER, guards) == SELLER


def test_a_pause_that_would_hold_only_healthy_mail_is_refused():
    healthy = verdict(state=State.OK, grade=Grade.NONE, numerator=0)
    assert "is not surely bad itself: 0 of 1,000" in refusal(proposal(itself=healthy), setting())


def test_a_pause_whose_own_mail_is_bad_is_written():
    action = decide(proposal(itself=verdict(numerator=200)), setting())
    assert action
    assert action.deed is Deed.PAUSE
