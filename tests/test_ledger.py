"""The ledger: the log is the state, notices are owed until told, and a person's key works beside the service."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from monitor import hand
from monitor.core.leases import active, ended
from monitor.gate import Gate
from monitor.ledger import actions, incidents, notices, providers
from monitor.ledger.db import open_ledger
from monitor.model import Deed, Scope
from tests.builders import NOW, SELLER, incident, minutes, pause, resumed

HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Engine]:
    engine = open_ledger(tmp_path / "ledger.sqlite")
    yield engine
    engine.dispose()


def test_an_action_comes_back_as_it_was_written(ledger: Engine):
    with ledger.begin() as conn:
        written = actions.append(conn, pause(evidence={"numerator": 3}))
        assert written
        assert actions.newest(conn, 1) == (written,)
        assert written.evidence == {"numerator": 3}


def test_an_id_is_written_once(ledger: Engine):
    with ledger.begin() as conn:
        assert actions.append(conn, pause())
        assert actions.append(conn, pause(why="again")) is None


def test_what_is_in_force_can_be_told_from_the_stored_part_alone(ledger: Engine):
    log = [
        pause(id="a"),
        pause(id="b", until=NOW + minutes(10), seq=2),
        pause(id="c", seq=3),
        resumed("c", NOW + minutes(5)),
    ]
    with ledger.begin() as conn:
        for action in log:
            actions.append(conn, action)
        for after in (0, 5, 10, 59, 60):
            now = NOW + minutes(after)
            stored = active(actions.in_force(conn, now), now)
            assert {lease.id for lease in stored} == {lease.id for lease in active(log, now)}
            seen = [action for action in log if action.at <= now]
            if len(seen) == len(log):
                assert actions.generation_parts(conn, now)[1] == ended(log, now), "the query says what the fold says"


def test_the_generation_moves_when_a_lease_ends_or_is_resumed(ledger: Engine):
    with ledger.begin() as conn:
        actions.append(conn, pause())
        before = sum(actions.generation_parts(conn, NOW))
        assert sum(actions.generation_parts(conn, NOW + HOUR)) == before + 1
        actions.append(conn, resumed())
        assert sum(actions.generation_parts(conn, NOW + minutes(5))) > before


def test_one_rule_and_scope_has_one_open_incident(ledger: Engine):
    with ledger.begin() as conn:
        first = incidents.save(conn, incident(id=0))
        assert incidents.open_ones(conn, "bounce-seller") == (first,)
    with pytest.raises(IntegrityError), ledger.begin() as conn:
        incidents.save(conn, incident(id=0))
    with ledger.begin() as conn:
        incidents.save(conn, first.changed(resolved_at=NOW))
        incidents.save(conn, incident(id=0))


def test_a_notice_is_owed_until_it_is_told(ledger: Engine):
    with ledger.begin() as conn:
        notices.owe(conn, 1, "ops", "alert open 0", NOW)
        notice = notices.claim(conn, NOW, HOUR)
        assert notice
        assert notices.claim(conn, NOW, HOUR) is None, "a claimed notice is kept from other workers"
        notices.told(conn, notice, "C1:17")
        notices.owe(conn, 1, "ops", "alert open 0", NOW)
        assert notices.owed(conn) == 0, "the same state is told once"
        notices.owe(conn, 1, "ops", "alert resolved 0", NOW)
        again = notices.claim(conn, NOW, HOUR)
        assert again
        assert again.handle == "C1:17"


def test_a_worker_that_died_leaves_its_notice_to_the_next(ledger: Engine):
    with ledger.begin() as conn:
        notices.owe(conn, 1, "ops", "alert open 0", NOW)
        assert notices.claim(conn, NOW, minutes(2))
        assert notices.claim(conn, NOW + minutes(2), minutes(2))


def test_what_changed_while_it_was_told_stays_owed(ledger: Engine):
    with ledger.begin() as conn:
        notices.owe(conn, 1, "ops", "alert open 0", NOW)
        notice = notices.claim(conn, NOW, HOUR)
        assert notice
        notices.owe(conn, 1, "ops", "pause open 1", NOW)
        notices.told(conn, notice, "h")
        assert notices.owed(conn) == 1


def test_the_newest_sight_of_a_provider_wins(ledger: Engine):
    with ledger.begin() as conn:
        providers.learn(conn, {"example.com": "gmail"}, NOW)
        providers.learn(conn, {"example.com": "yahoo"}, NOW)
        assert providers.known(conn) == {"example.com": "yahoo"}


def test_resuming_ends_the_lease_and_keeps_automation_away(ledger: Engine):
    with ledger.begin() as conn:
        actions.append(conn, pause())
        ended, allowed = hand.resume(conn, "1@0", 24 * HOUR, "marta", "", NOW + minutes(1))
        assert (ended.deed, allowed.deed, allowed.scope) == (Deed.RESUME, Deed.ALLOW, SELLER)
        assert allowed.until == NOW + minutes(1) + 24 * HOUR


def test_resuming_an_allow_only_ends_it(ledger: Engine):
    with ledger.begin() as conn:
        granted = hand.grant(conn, Deed.ALLOW, SELLER, HOUR, "marta", "", NOW)
        assert len(hand.resume(conn, granted.id, HOUR, "marta", "", NOW)) == 1


def test_a_lease_that_is_not_in_force_cannot_be_resumed(ledger: Engine):
    with ledger.begin() as conn:
        actions.append(conn, pause())
        with pytest.raises(hand.HandError, match="in force: 1@0"):
            hand.resume(conn, "nonsense", HOUR, "marta", "", NOW)
        with pytest.raises(hand.HandError, match="in force: none"):
            hand.resume(conn, "1@0", HOUR, "marta", "", NOW + HOUR)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("seller=s07", "no label"),
        ("tenant=", "no value"),
        ("segment=x", "without tenant"),
        ("tenant=a tenant=b", "twice"),
    ],
)
def test_a_scope_that_means_nothing_is_refused_by_hand(ledger: Engine, text: str, why: str):
    with pytest.raises(hand.HandError, match=why), ledger.begin() as conn:
        hand.grant(conn, Deed.PAUSE, hand.scope_of(text), HOUR, "marta", "test", NOW)


def test_a_pause_by_hand_always_ends_and_has_a_reason(ledger: Engine):
    with ledger.begin() as conn:
        with pytest.raises(hand.HandError, match="at most"):
            hand.grant(conn, Deed.PAUSE, SELLER, timedelta(days=400), "marta", "x", NOW)
        with pytest.raises(hand.HandError, match="say why"):
            hand.grant(conn, Deed.PAUSE, SELLER, HOUR, "marta", " ", NOW)


def test_nobody_can_sign_as_automation(ledger: Engine):
    with ledger.begin() as conn:
        assert hand.grant(conn, Deed.PAUSE, SELLER, HOUR, "Automation", "x", NOW).by_person


def test_the_gate_lets_go_at_the_end_although_the_ledger_is_gone(ledger: Engine, tmp_path: Path):
    now = [NOW]
    gate = Gate(ledger, lambda: now[0])
    with ledger.begin() as conn:
        actions.append(conn, pause())
    gate.refresh()
    message = Scope(tenant="s07", segment="lapsed", stream="marketing")
    assert gate.check(message).held
    ledger.dispose()
    (tmp_path / "ledger.sqlite").write_bytes(b"this is no database any more" * 200)
    gate.refresh()
    assert gate.check(message).held, "what is known holds to its end"
    now[0] = NOW + HOUR
    assert not gate.check(message).held
    assert not gate.current().leases
