"""Four eyes: whoever widens a pause needs a second person, by API and by command alike."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from monitor import four_eyes, hand
from monitor.access import keys, sessions
from monitor.caller import Right, Role
from monitor.core.leases import active
from monitor.core.widening import held_lately, widens
from monitor.hand import HandError
from monitor.ledger import access_log, actions, approvals, incidents
from monitor.ledger.approvals import Approval, State
from monitor.ledger.db import open_ledger
from monitor.model import Action, Deed, Scope, labels
from tests.builders import NOW, SELLER, incident, minutes, pause, resumed
from tests.servers.mailvane import Mailvane, mailvane, program
from tests.waiting import until

TENANT = Scope(tenant="s07")

_value = st.sampled_from(["", "a", "b"])
scopes = st.builds(
    lambda ip, provider, stream, tenant, segment: Scope(
        ip=ip, provider=provider, stream=stream, tenant=tenant, segment=segment if tenant else ""
    ),
    _value,
    _value,
    _value,
    _value,
    _value,
)


@given(scopes, scopes)
def test_what_lies_in_what_is_held_widens_nothing(wish: Scope, held: Scope):
    if held.covers(wish):
        assert widens(wish, [held]) is None


@given(scopes, scopes)
def test_what_covers_more_than_is_held_widens_it(wish: Scope, held: Scope):
    if wish.covers(held) and not held.covers(wish):
        assert widens(wish, [held]) == held


@given(scopes, scopes, scopes)
def test_a_wish_that_is_wider_still_widens_too(widest: Scope, wish: Scope, held: Scope):
    if widest.covers(wish) and widens(wish, [held]):
        assert widens(widest, [held]) == held


@given(scopes, scopes, st.sampled_from(["marketing", "transactional"]))
def test_to_spare_a_stream_is_no_way_around(wish: Scope, held: Scope, stream: str):
    bare = replace(held, stream="")
    if widens(wish, [bare]):
        assert widens(replace(wish, stream=stream), [bare]) == bare


@given(scopes, scopes)
def test_what_meets_nothing_that_is_held_widens_nothing(wish: Scope, held: Scope):
    if any(mine and theirs and mine != theirs for mine, theirs in zip(labels(wish), labels(held), strict=True)):
        assert widens(wish, [held]) is None


def test_a_pause_counts_for_an_hour_after_its_end():
    log = [pause(until=NOW + minutes(30))]
    assert held_lately(log, NOW + minutes(29)) == (SELLER,)
    assert held_lately(log, NOW + minutes(89)) == (SELLER,)
    assert held_lately(log, NOW + minutes(90)) == ()


def test_a_pause_that_was_resumed_counts_for_an_hour_after_that():
    log = [pause(until=NOW + minutes(600)), resumed(at=NOW + minutes(5))]
    assert held_lately(log, NOW + minutes(64)) == (SELLER,)
    assert held_lately(log, NOW + minutes(65)) == ()


def test_an_allow_holds_nothing_that_could_be_widened():
    assert held_lately([pause(deed=Deed.ALLOW, who="marta")], NOW) == ()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Engine]:
    engine = open_ledger(tmp_path / "ledger.sqlite")
    with engine.begin() as conn:
        actions.append(conn, pause())
    yield engine
    engine.dispose()


def ask(ledger: Engine, scope: Scope = TENANT, who: str = "marta", **changes: Any) -> Action | Approval:
    wish: dict[str, Any] = {
        "deed": Deed.PAUSE,
        "span": minutes(60),
        "why": "worse than it looked",
        "now": NOW,
    } | changes
    deed, span, why, now = (wish.pop(name) for name in ("deed", "span", "why", "now"))
    with ledger.begin() as conn:
        return four_eyes.turn(conn, deed, scope, span, who, why, now, **{"four_eyes": True, **wish})


def waits(ledger: Engine, scope: Scope = TENANT, **changes: Any) -> Approval:
    found = ask(ledger, scope, **changes)
    assert isinstance(found, Approval)
    return found


def held(ledger: Engine, now: datetime = NOW) -> set[str]:
    with ledger.begin() as conn:
        return {str(lease.scope) for lease in active(actions.in_force(conn, now), now)}


def test_a_wider_pause_waits_and_holds_nothing_meanwhile(ledger: Engine):
    wish = waits(ledger)
    assert (wish.beyond, wish.asked_by, wish.until) == (SELLER, "marta", NOW + minutes(15))
    assert held(ledger) == {str(SELLER)}
    with ledger.begin() as conn:
        assert approvals.waiting(conn, NOW) == [wish]


@pytest.mark.parametrize("deed", [Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE])
def test_whatever_holds_mail_back_or_leads_it_elsewhere_waits(ledger: Engine, deed: Deed):
    wish = waits(ledger, deed=deed, share=0.25, pool="quarantine")
    with ledger.begin() as conn:
        action, _ = four_eyes.agree(conn, wish.id, "jo", NOW)
    assert (action.deed, action.share > 0, action.pool != "") == (deed, deed is Deed.THROTTLE, deed is Deed.REROUTE)


@pytest.mark.parametrize(
    "scope",
    [SELLER, replace(SELLER, stream="marketing"), Scope(tenant="s08"), Scope(provider="gmail")],
    ids=["the-same", "tighter", "another-seller", "elsewhere"],
)
def test_a_pause_that_widens_nothing_is_in_force_at_once(ledger: Engine, scope: Scope):
    assert isinstance(ask(ledger, scope), Action)
    assert str(scope) in held(ledger)


def test_to_let_mail_flow_nobody_need_agree(ledger: Engine):
    assert isinstance(ask(ledger, deed=Deed.ALLOW), Action)
    with ledger.begin() as conn:
        assert hand.resume(conn, "1@0", minutes(60), "marta", "", NOW)


def test_what_is_wider_than_an_open_incident_waits(ledger: Engine):
    bad = Scope(tenant="s30", segment="bought")
    assert isinstance(ask(ledger, Scope(tenant="s30")), Action)
    with ledger.begin() as conn:
        found = incidents.save(conn, incident(id=0, scope=bad))
    assert waits(ledger, Scope(tenant="s30", stream="marketing")).beyond == bad
    with ledger.begin() as conn:
        incidents.save(conn, found.changed(resolved_at=NOW))
    assert isinstance(ask(ledger, Scope(tenant="s30", stream="transactional")), Action)


def test_without_four_eyes_nobody_waits(ledger: Engine):
    assert isinstance(ask(ledger, four_eyes=False), Action)


def test_what_makes_no_sense_is_refused_before_anybody_is_asked(ledger: Engine):
    with pytest.raises(HandError, match="say why"):
        ask(ledger, why=" ")
    with pytest.raises(HandError, match="empty"):
        ask(ledger, Scope())
    with ledger.begin() as conn:
        assert approvals.newest(conn, 10) == []


def test_a_second_person_brings_it_into_force_from_then_on_in_both_names(ledger: Engine):
    wish = waits(ledger)
    later = NOW + minutes(14)
    with ledger.begin() as conn:
        action, done = four_eyes.agree(conn, wish.id, "jo", later)
    assert (action.who, action.at, action.until) == ("marta", later, later + minutes(60))
    assert action.evidence == {"asked_by": "marta", "agreed_by": "jo"}
    assert (done.state(later), done.decided_by, done.action) == (State.AGREED, "jo", action.id)
    assert str(TENANT) in held(ledger, later)


@pytest.mark.parametrize("name", ["marta", " Marta ", "MARTA"])
def test_nobody_is_a_second_person_to_themselves(ledger: Engine, name: str):
    wish = waits(ledger)
    with pytest.raises(HandError, match="your own"), ledger.begin() as conn:
        four_eyes.agree(conn, wish.id, name, NOW)
    assert held(ledger) == {str(SELLER)}


def test_who_asked_by_a_key_is_no_second_person_either(ledger: Engine):
    wish = waits(ledger, who="marta by key:abcdefgh")
    with pytest.raises(HandError, match="your own"), ledger.begin() as conn:
        four_eyes.agree(conn, wish.id, "marta", NOW)


def test_a_wish_can_be_agreed_to_for_a_quarter_of_an_hour(ledger: Engine):
    wish = waits(ledger)
    with pytest.raises(HandError, match="ask again"), ledger.begin() as conn:
        four_eyes.agree(conn, wish.id, "jo", NOW + minutes(15))
    with ledger.begin() as conn:
        assert approvals.waiting(conn, NOW + minutes(15)) == []
        assert approvals.newest(conn, 1)[0].state(NOW + minutes(15)) is State.EXPIRED
    assert waits(ledger, now=NOW + minutes(15)).id != wish.id


def test_a_wish_is_decided_once(ledger: Engine):
    agreed, declined = waits(ledger), waits(ledger, span=minutes(30))
    with ledger.begin() as conn:
        four_eyes.agree(conn, agreed.id, "jo", NOW)
        four_eyes.decline(conn, declined.id, "jo", NOW)
    for name, said in ((agreed.id, "jo has agreed"), (declined.id, "jo has declined")):
        with pytest.raises(HandError, match=said), ledger.begin() as conn:
            four_eyes.agree(conn, name, "kim", NOW)
        with pytest.raises(HandError, match=said), ledger.begin() as conn:
            four_eyes.decline(conn, name, "kim", NOW)
    with ledger.begin() as conn:
        assert len(actions.newest(conn, 10)) == 2


def test_what_nobody_asked_for_can_not_be_agreed_to(ledger: Engine):
    with pytest.raises(four_eyes.UnknownWishError, match="mailvane approvals"), ledger.begin() as conn:
        four_eyes.agree(conn, "w-00000000", "jo", NOW)


def test_the_same_wish_waits_once(ledger: Engine):
    assert waits(ledger) == waits(ledger, now=NOW + minutes(5))
    assert waits(ledger).id != waits(ledger, who="kim").id


def test_who_asked_can_take_it_back(ledger: Engine):
    wish = waits(ledger)
    with ledger.begin() as conn:
        assert four_eyes.decline(conn, wish.id, "marta", NOW).state(NOW) is State.DECLINED


def test_each_step_stands_in_the_access_log(ledger: Engine):
    wish = waits(ledger, by="person:marta")
    with ledger.begin() as conn:
        four_eyes.agree(conn, wish.id, "jo", NOW, "person:jo")
        log = access_log.newest(conn, 10)
    assert [(one.who, one.did, one.on) for one in log] == [
        ("person:jo", "wider pause agreed", wish.id),
        ("person:marta", "wider pause asked", wish.id),
    ]
    assert log[0].details["scope"] == {"tenant": "s07"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailvane, dict[str, dict[str, str]]]]:
    """The service with four eyes, a pause of s07's lapsed segment, two operators, a key and the machine's token."""
    folder = tmp_path_factory.mktemp("eyes")
    ledger = open_ledger(folder / "data/ledger.sqlite")
    now = datetime.now(UTC)
    callers = {}
    with ledger.begin() as conn:
        for name in ("marta", "jo"):
            cookie, session = sessions.begin(conn, name, Role.OPERATOR, way="local", now=now)
            callers[name] = {"Cookie": f"{sessions.COOKIE}={cookie}", "X-CSRF-Token": session.csrf}
        text, _ = keys.make(conn, "chat", {Right.OPERATE}, now=now, by="test")
        callers["key"] = {"Authorization": f"Bearer {text}"}
        for tenant in ("s07", "s08", "s09"):
            scope = Scope(tenant=tenant, segment="lapsed")
            actions.append(conn, pause(id=f"{tenant}@0", at=now, scope=scope, until=now + timedelta(hours=1)))
    ledger.dispose()
    granted = '[access]\nfour_eyes = true\nanonymous = ["check"]\n'
    with mailvane(folder, granted) as service:
        token = (folder / "data/token").read_text().strip()
        yield service, callers | {"machine": {"Authorization": f"Bearer {token}"}}


def asked(service: Mailvane, method: str, path: str, headers: dict[str, str], body: Any = None) -> tuple[int, Any, Any]:
    sent = None if body is None else json.dumps(body).encode()
    more = {"Content-Type": "application/json"} if sent else {}
    request = urllib.request.Request(service.url + path, sent, {**headers, **more}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers


def wish(tenant: str, **more: str) -> dict[str, Any]:
    return {"deed": "pause", "scope": {"tenant": tenant, "stream": "marketing"}, "why": "all of it", **more}


def test_two_people_widen_a_pause_by_the_api(house: tuple[Mailvane, dict[str, dict[str, str]]]):
    service, callers = house
    status, said, _ = asked(service, "POST", "/v1/actions", callers["marta"], wish("s07", who="jo"))
    assert (status, said["approval"]["asked_by"], said["approval"]["state"]) == (202, "marta", "waiting")
    name = said["approval"]["id"]
    assert service.answer(tenant="s07", stream="marketing") == "send"
    listed = asked(service, "GET", "/v1/approvals", callers["jo"])[1]["approvals"]
    assert [one["id"] for one in listed] == [name]
    assert asked(service, "POST", f"/v1/approvals/{name}", callers["marta"])[0] == 409
    status, said, _ = asked(service, "POST", f"/v1/approvals/{name}", callers["jo"])
    assert status == 201
    assert said["actions"][0]["evidence"] == {"asked_by": "marta", "agreed_by": "jo"}
    assert service.answer(tenant="s07", stream="marketing") == "held"
    assert asked(service, "POST", f"/v1/approvals/{name}", callers["jo"])[0] == 409
    assert asked(service, "GET", "/v1/approvals", callers["jo"])[1]["approvals"] == []
    decided = asked(service, "GET", "/v1/approvals?everything=true", callers["jo"])[1]["approvals"]
    assert next(one for one in decided if one["id"] == name)["decided_by"] == "jo"


def test_a_key_may_ask_and_is_no_second_person(house: tuple[Mailvane, dict[str, dict[str, str]]]):
    service, callers = house
    status, said, _ = asked(service, "POST", "/v1/actions", callers["key"], wish("s08", who="marta"))
    assert status == 202
    path = f"/v1/approvals/{said['approval']['id']}"
    status, said, _ = asked(service, "POST", path, callers["key"], {"who": "jo"})
    assert (status, said["error"]) == (409, "a key is no second pair of eyes")
    status, said, _ = asked(service, "POST", path, callers["machine"])
    assert (status, said["remedy"]) == (422, 'send {"who": "a name"}, or sign in')
    assert asked(service, "DELETE", path, callers["jo"])[1]["approval"]["state"] == "declined"
    assert asked(service, "DELETE", path, callers["jo"])[0] == 409
    assert asked(service, "POST", "/v1/approvals/w-nothing", callers["jo"])[0] == 404
    assert service.answer(tenant="s08", stream="marketing") == "send"


def command(service: Mailvane, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [*program(), "--config", str(service.config), *words], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_the_commands_obey_the_same_rule(house: tuple[Mailvane, dict[str, dict[str, str]]]):
    service, _ = house
    status, said = command(service, "pause", "tenant=s09", "--why", "all of it", "--as", "marta")
    assert status == 3
    assert "is not in force: it is wider than tenant=s09 segment=lapsed" in said
    name = said.split()[0]
    assert f"approve {name}" in said
    assert name in command(service, "approvals")[1]
    assert command(service, "approve", name, "--as", "marta")[0] == 1
    status, said = command(service, "approve", name, "--as", "jo")
    assert status == 0
    assert "asked by marta, agreed by jo" in said
    until(lambda: service.answer(tenant="s09", segment="other") == "held", "the core to have read it", 10)
    assert "has agreed" in command(service, "decline", name, "--as", "jo")[1]
    assert "agreed by jo" in command(service, "approvals", "--all")[1]
    assert command(service, "pause", "tenant=s10", "--why", "elsewhere", "--as", "marta")[0] == 0
