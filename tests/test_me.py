"""What a seller is told of what is held: all of its own, what touches it of what is shared, nothing of another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from monitor.access import sessions
from monitor.access.sessions import COOKIE
from monitor.api import advice
from monitor.caller import Role
from monitor.core.rates import Rate
from monitor.model import AUTOMATION, Action, Deed, Incident, Scope
from tests.builders import incident, pause, resumed, verdict
from tests.servers.sellers import NOW, Market, asked, house

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
MINE, THEIRS = Scope(tenant="alpha", segment="lapsed"), Scope(tenant="bravo", segment="bravo-vip")
POOL = Scope(ip="192.0.2.1", provider="gmail")


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with house(tmp_path) as opened:
        yield opened


def held(scope: Scope, name: str, **changes: Any) -> Action:
    values = {"at": NOW - MINUTE, "until": NOW + HOUR, "scope": scope, "incident": 0, "why": f"the rule says {name}"}
    return pause(**{**values, "id": name, **changes})


def bad(scope: Scope, **changes: Any) -> Incident:
    found = verdict(scope=scope, since=NOW - 5 * MINUTE, until=NOW, **changes)
    return incident(id=0, scope=scope, opened_at=NOW - MINUTE, updated_at=NOW, evidence=found, rule=found.rule)


def mail(tenant: str, **labels: Any) -> dict[str, Any]:
    return {
        "kind": "sent",
        "at": NOW - 5 * MINUTE,
        "message_id": f"<{tenant}@shop.example>",
        "tenant": tenant,
        **labels,
    }


def me(market: Market, who: str) -> Any:
    answer = market.ask(who, "GET", "/v1/me")
    assert answer.status_code == 200, answer.text
    return answer.json()


# why, what to do, until when


def test_a_seller_is_told_why_it_is_held_what_to_do_and_until_when(market: Market):
    known = market.open(bad(MINE))
    market.log(held(MINE, "1@1", incident=known.id, who=AUTOMATION))
    [one] = me(market, "alpha")["held"]
    assert (one["scope"], one["deed"], one["shared"]) == ({"tenant": "alpha", "segment": "lapsed"}, "pause", False)
    assert (one["until"], one["ttl"]) == ("2026-11-24T13:30:00.000Z", 3600.0)
    assert one["why"] == (
        "This mail is held back for now: 300 of 1,000 messages were refused for good (30.00%; up to 5.00% is tolerated)."
    )
    assert one["what_to_do"][0].startswith("Clean the list: remove the addresses that were refused")
    assert one["numbers"] == {
        "numerator": 300,
        "denominator": 1000,
        "rate": 0.3,
        "limit": 0.05,
        "since": "2026-11-24T12:25:00.000Z",
        "until": "2026-11-24T12:30:00.000Z",
    }
    assert one["incident"] == known.id


def test_own_open_incidents_are_told_and_no_others(market: Market):
    mine = market.open(bad(MINE, rule="complaint-seller"))
    market.open(bad(THEIRS))
    market.open(bad(POOL, shares=(("bravo", 0.4),)))
    market.open(replace(bad(replace(MINE, segment="other")), resolved_at=NOW))
    [one] = me(market, "alpha")["incidents"]
    assert (one["id"], one["scope"]) == (mine.id, {"tenant": "alpha", "segment": "lapsed"})
    assert "reported the messages as spam" in one["why"]
    assert "unsubscribe" in " ".join(one["what_to_do"])
    assert me(market, "nobody")["incidents"] == []


def test_every_rate_has_its_advice_and_no_number_is_made_up():
    for rate in Rate:
        assert advice.to_do(rate)
        assert "300 of 1,000" in advice.counts(rate, verdict())
        assert "%" not in advice.counts(rate, verdict(denominator=0, expected=float("nan")))
        assert "tolerated" not in advice.counts(rate, verdict(expected=float("nan")))


def test_what_a_person_did_is_told_without_name_or_words(market: Market):
    market.log(held(MINE, "h1", who="marta", why="bravo complained about them", deed=Deed.THROTTLE, share=0.25))
    [one] = me(market, "alpha")["held"]
    assert one["why"] == "A person of the marketplace decided that this mail is let through at 25% for now."
    assert (one["what_to_do"], one["numbers"]) == ([advice.MARKETPLACE], None)
    for path in ("/v1/me", "/v1/leases", "/v1/actions"):
        told = market.ask("alpha", "GET", path).text
        assert "marta" not in told
        assert "complained" not in told
    assert market.ask("alpha", "GET", "/v1/actions").json()["actions"][0]["who"] == "a person"


def test_a_shared_pause_is_told_to_those_whose_mail_it_touches_and_says_nothing_of_whose_it_is(market: Market):
    market.tell([mail("alpha", ip="192.0.2.1", provider="gmail"), mail("bravo", ip="192.0.2.1", provider="yahoo")])
    market.log(held(POOL, "1@1", why="ip-provider: bravo and charlie bounce"))
    [one] = me(market, "alpha")["held"]
    assert one == {
        "deed": "pause",
        "until": "2026-11-24T13:30:00.000Z",
        "ttl": 3600.0,
        "why": "A part of the mail that several sellers share is held back for now, whoever's mail it is.",
        "what_to_do": one["what_to_do"],
        "scope": None,
        "lease": None,
        "incident": None,
        "numbers": None,
        "shared": True,
    }
    assert one["what_to_do"][0].startswith("Nothing needs to be done")
    assert me(market, "bravo")["held"] == []
    assert me(market, "nobody")["held"] == []


def test_what_a_person_allows_is_not_held(market: Market):
    market.tell([mail("alpha", ip="192.0.2.1", provider="gmail")])
    market.log(held(MINE, "1@1"), held(POOL, "2@1"))
    assert len(me(market, "alpha")["held"]) == 2
    market.log(held(Scope(tenant="alpha"), "h1", who="marta", deed=Deed.ALLOW))
    assert me(market, "alpha")["held"] == []


def test_a_pause_that_was_renewed_is_told_once_with_its_last_end_and_one_that_was_resumed_not_at_all(market: Market):
    market.log(held(MINE, "1@1"), held(MINE, "1@2", until=NOW + 2 * HOUR))
    assert [one["lease"] for one in me(market, "alpha")["held"]] == ["1@2"]
    market.log(resumed("1@1", NOW), resumed("1@2", NOW))
    assert me(market, "alpha")["held"] == []


# who asks


def test_whoever_asks_is_told_who_it_is_and_what_it_may(market: Market):
    told = me(market, "")
    assert (told["way"], told["tenant"], told["csrf"]) == ("key", None, None)
    assert told["scopes"] == ["admin", "check", "ingest", "metrics", "operate", "read"]
    assert "held" not in told
    assert me(market, "alpha")["scopes"] == ["check", "ingest", "read"]


# leases, actions, incidents, the question of a sender


def test_a_sellers_set_has_its_own_leases_and_of_shared_ones_their_end_alone(market: Market):
    market.log(held(MINE, "1@1"), held(THEIRS, "2@1"), held(POOL, "3@1", who="marta", why="bravo again"))
    told = market.ask("alpha", "GET", "/v1/leases")
    mine, shared = told.json()["leases"]
    assert (mine["id"], mine["scope"], mine["who"], mine["shared"]) == (
        "1@1",
        {"tenant": "alpha", "segment": "lapsed"},
        "automation",
        False,
    )
    assert shared == {
        "shared": True,
        "deed": "pause",
        "until": "2026-11-24T13:30:00.000Z",
        "why": "a part of the mail that several sellers share",
        "ttl": 3600.0,
    }
    assert "bravo" not in told.text
    assert [one["id"] for one in market.ask("", "GET", "/v1/leases").json()["leases"]] == ["1@1", "2@1", "3@1"]


def test_a_seller_can_not_listen_to_everybodys_changes(market: Market):
    assert market.ask("alpha", "GET", "/v1/leases/stream").status_code == 403


def test_incidents_and_actions_of_a_seller_hold_nobody_elses_names_or_numbers(market: Market):
    known = market.open(bad(MINE, shares=(("bravo", 0.3),)))
    theirs = market.open(bad(THEIRS))
    evidence = {"rule": "bounce-seller", "numerator": 3, "held_share": 0.07, "shares": [["bravo", 0.3]]}
    market.log(
        held(MINE, "1@1", incident=known.id, evidence=evidence),
        held(MINE, "1!persons_key", deed=Deed.REFUSE, why="marta turned the key here", until=None, incident=known.id),
        held(POOL, "h1", who="marta", why="for bravo", incident=known.id),
        held(THEIRS, "2@1", incident=theirs.id),
    )
    [one] = market.ask("alpha", "GET", "/v1/incidents").json()["incidents"]
    assert (one["id"], one["evidence"]["shares"]) == (known.id, [])
    assert [done["id"] for done in one["actions"]] == ["1@1", "1!persons_key"]
    assert one["actions"][0]["evidence"] == {"rule": "bounce-seller", "numerator": 3}
    log = market.ask("alpha", "GET", "/v1/actions")
    assert [done["id"] for done in log.json()["actions"]] == ["1!persons_key", "1@1"]
    for told in (json.dumps(one), log.text):
        assert not any(name in told for name in ("bravo", "marta", "held_share"))
    assert len(market.ask("", "GET", "/v1/incidents").json()["incidents"]) == 2


def test_pages_of_a_sellers_log_have_no_gaps(market: Market):
    market.log(*(held(scope, f"{number}@1") for number in range(6) for scope in [(MINE, THEIRS)[number % 2]]))
    first = market.ask("alpha", "GET", "/v1/actions", limit=2).json()["actions"]
    rest = market.ask("alpha", "GET", "/v1/actions", limit=2, before=first[-1]["seq"]).json()["actions"]
    assert [one["id"] for one in (*first, *rest)] == ["4@1", "2@1", "0@1"]


def test_a_sellers_question_is_about_its_own_mail(market: Market):
    market.log(held(MINE, "1@1"), held(THEIRS, "2@1"))
    mine = market.ask("alpha", "GET", "/v1/check", segment="lapsed").json()
    assert (mine["answer"], mine["lease"]["id"], mine["lease"]["who"]) == ("held", "1@1", "automation")
    refused = market.ask("alpha", "GET", "/v1/check", tenant="bravo", segment="bravo-vip")
    assert (refused.status_code, refused.json()["error"]) == (403, "this key asks about its own mail alone")
    assert market.ask("alpha", "GET", "/v1/check", segment="bravo-vip").json()["answer"] == "send"


def test_in_a_batch_the_mail_of_others_gets_an_error_in_its_place(market: Market):
    market.log(held(MINE, "1@1"), held(THEIRS, "2@1"), held(POOL, "3@1", deed=Deed.THROTTLE, share=0.5, who="marta"))
    scopes = [
        {"segment": "lapsed"},
        {"tenant": "bravo", "segment": "bravo-vip"},
        {"tenant": "alpha", "ip": "192.0.2.1", "provider": "gmail", "key": "a"},
        {"nothing": 1},
    ]
    answers = market.ask("alpha", "POST", "/v1/check", {"scopes": scopes}).json()["answers"]
    assert answers[0]["answer"] == "held"
    assert answers[1] == {"error": "this key asks about its own mail alone", "remedy": "leave out tenant"}
    assert answers[2]["lease"].keys() == {"shared", "deed", "until", "ttl", "why"}
    assert answers[2]["share"] == 0.5
    assert "nothing" in answers[3]["error"]


def test_the_gate_tells_sellers_the_same_as_core(market: Market):
    market.log(held(MINE, "1@1"), held(THEIRS, "2@1"), held(POOL, "3@1"))
    for path, query in (
        ("/v1/leases", {}),
        ("/v1/check", {"segment": "lapsed"}),
        ("/v1/check", {"tenant": "bravo"}),
        ("/v1/check", {"ip": "192.0.2.1", "provider": "gmail"}),
        ("/v1/leases/stream", {}),
    ):
        core, gate = (ask("alpha", "GET", path, **query) for ask in (market.ask, market.ask_gate))
        assert (core.status_code, core.json()) == (gate.status_code, gate.json()), path


def test_a_session_is_told_what_proves_that_its_page_asks(market: Market):
    with market.core.stores.ledger.begin() as conn:
        cookie, session = sessions.begin(conn, "marta", Role.OPERATOR, way="local", now=NOW)
    market.core.sessions.anew()
    told = asked(market.app, "GET", "/v1/me", None, {}, {"Cookie": f"{COOKIE}={cookie}"}).json()
    assert (told["name"], told["way"], told["csrf"]) == ("person:marta", "person", session.csrf)
    assert told["scopes"] == ["check", "metrics", "operate", "read"]
