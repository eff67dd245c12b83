"""What sellers' own keys tell: of their own mail alone, and never in the place of what others tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors._decode import NOT_YOURS, check, columns
from monitor.cycle import STALE, complete_to, missing, told_to
from monitor.facts import queries
from monitor.facts.prepare import SELLERS
from monitor.ledger import journal
from monitor.ledger.journal import Progress
from monitor.service import HTTP, TOLD
from tests.servers.sellers import NOW, Market, house

MINUTE = timedelta(minutes=1)
AT = "2026-11-24T12:20:00Z"


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with house(tmp_path) as opened:
        yield opened


def line(**more: Any) -> dict[str, Any]:
    return {"kind": "sent", "at": AT, "message_id": "<1@shop.example>", "recipient": "jo@example.com", **more}


def tell(market: Market, who: str, *events: dict[str, Any] | str) -> Any:
    body = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in events)
    answer = market.ask(who, "POST", "/v1/events", body.encode())
    assert answer.status_code in (202, 422), answer.text
    market.core.stores.applier.drain()
    return answer.json()


def known(market: Market) -> list[tuple[str, str, str]]:
    """Tenant, kind and source of each event."""
    rows = market.core.stores.facts.query(
        "SELECT toString(tenant) AS tenant, toString(kind) AS kind, toString(source) AS source FROM events ORDER BY ALL"
    )
    return [(row["tenant"], row["kind"], row["source"]) for row in rows.to_pylist()]


def test_a_line_without_tenant_is_taken_for_the_seller_who_tells_it(market: Market):
    assert tell(market, "alpha", line(), line(message_id="<2@x>", segment="lapsed"))["accepted"] == 2
    assert known(market) == [("alpha", "sent", SELLERS)] * 2


def test_a_line_of_anothers_mail_is_rejected_with_its_number(market: Market):
    told = tell(
        market, "alpha", line(), line(tenant="bravo", message_id="<2@x>"), line(tenant="alpha", message_id="<3@x>")
    )
    assert (told["accepted"], told["rejected_count"]) == (2, 1)
    assert told["rejected"] == [{"where": "line 2", "line": 2, "field": "tenant", "why": NOT_YOURS}]
    assert {tenant for tenant, *_ in known(market)} == {"alpha"}


def test_so_is_an_element_of_an_array(market: Market):
    body = json.dumps([line(tenant="bravo"), line(), line(tenant="nobody", message_id="<2@x>")])
    told = market.ask("alpha", "POST", "/v1/events", body.encode()).json()
    assert [one["where"] for one in told["rejected"]] == ["item 1", "item 3"]
    assert {one["why"] for one in told["rejected"]} == {NOT_YOURS}


@pytest.mark.parametrize(
    "twice",
    ['"tenant":"bravo","tenant":"alpha"', '"tenant":"bravo","\\u0074enant":"alpha"', '"tenant":"bravo","tenant":""'],
    ids=["twice", "escaped", "emptied"],
)
def test_a_line_that_names_two_tenants_counts_for_nobody_else(market: Market, twice: str):
    text = json.dumps(line())[:-1] + "," + twice + "}"
    tell(market, "alpha", text)
    assert {tenant for tenant, *_ in known(market)} <= {"alpha"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "alpha", "bravo", 7, None]), st.booleans(), st.sampled_from(["", "spring"])),
        max_size=130,
    ),
    st.booleans(),
)
def test_whatever_a_body_holds_only_the_sellers_own_lines_come_through(drawn, array):
    events = [
        line(
            message_id=f"<{place}@x>" if good else "",
            campaign=campaign,
            **({} if tenant is None else {"tenant": tenant}),
        )
        for place, (tenant, good, campaign) in enumerate(drawn)
    ]
    body = json.dumps(events) if array else "\n".join(map(json.dumps, events))
    found = check(body.encode(), tenant="alpha")
    good = [place for place, (tenant, named, _) in enumerate(drawn) if named and tenant in ("", "alpha", None)]
    assert found.count == len(good) == found.lines.count(b"\n")
    read = columns(found.lines)
    assert set(read["tenant"].to_pylist() if good else []) <= {"alpha"}
    assert (read["message_id"].to_pylist() if good else []) == [f"<{place}@x>" for place in good]
    bad = sorted(set(range(len(drawn))) - set(good))
    assert [int(item.where.split()[1]) - 1 for item in found.rejected] == bad


def test_lines_that_were_written_anew_say_the_same(market: Market):
    odd = line(
        at="2026-11-24T13:20:00.123456789+01:00",
        sent_at="2026-11-24T12:00:00Z",
        reply='550 "no" \\ such \u00fc user',
        code=550,
        attempt=2,
        count=3,
        tenant="alpha",
    )
    body = json.dumps(odd).encode()
    told, anew = columns(check(body).lines), columns(check(body, tenant="alpha").lines)
    assert told.keys() == anew.keys()
    for name in told:
        assert list(told[name]) == list(anew[name]), name


# nobody's word in the place of another's


def test_a_seller_can_not_take_the_place_of_anothers_outcome(market: Market):
    """Who received a mail knows its message id: told first by a stranger, the outcome must still count when it comes."""
    tell(market, "bravo", line(kind="bounced"), line(kind="sent"), line(kind="complaint"))
    tell(market, "alpha", line(kind="bounced"))
    tell(market, "", line(kind="bounced", tenant="alpha"), line(kind="complaint", tenant="alpha"))
    assert known(market) == [
        ("alpha", "bounced", HTTP),
        ("alpha", "bounced", SELLERS),
        ("alpha", "complaint", HTTP),
        ("bravo", "bounced", SELLERS),
        ("bravo", "complaint", SELLERS),
        ("bravo", "sent", SELLERS),
    ]


def test_a_seller_can_not_hush_up_its_own_complaint_either(market: Market):
    tell(market, "alpha", line(kind="complaint", at="2026-11-20T00:00:00Z"))
    tell(market, "", line(kind="complaint", tenant="alpha"))
    assert ("alpha", "complaint", HTTP) in known(market)


def test_the_ids_that_two_sellers_choose_are_two_things(market: Market):
    for who in ("alpha", "bravo", ""):
        tell(market, who, {"kind": "sent", "at": AT, "id": "1"})
    assert known(market) == [("", "sent", HTTP), ("alpha", "sent", SELLERS), ("bravo", "sent", SELLERS)]


def test_what_a_seller_tells_twice_counts_once(market: Market):
    for _ in range(2):
        tell(market, "alpha", line(), {"kind": "sent", "at": AT, "id": "1"})
    assert len(known(market)) == 2
    mine = queries.counts(market.core.stores.facts.of("alpha"), ("tenant",), NOW - 20 * MINUTE, NOW)
    assert mine.sent.tolist() == [2]


def test_the_same_idempotency_key_of_two_sellers_is_two_keys(market: Market):
    answers = [
        market.ask_with(who, {"Idempotency-Key": "batch-1"}, json.dumps(line(tenant=who)).encode())
        for who in ("alpha", "bravo", "alpha")
    ]
    assert [answer.json()["accepted"] for answer in answers] == [1, 1, 1]
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, None, "true"]


# nobody's clock in the place of ours


def marks(market: Market, **ago: timedelta) -> None:
    names = {"mta": "mta", "sellers": SELLERS}
    steps = [Progress(names[name], "n", NOW, watermark=NOW - span) for name, span in ago.items()]
    with market.core.stores.ledger.begin() as conn:
        journal.commit(conn, 0, steps)


def test_a_seller_promises_nothing_for_the_sources_of_the_operator(tmp_path: Path):
    """Else one line a second of one seller's would let every rule look at minutes of which nobody else has told yet."""
    with house(tmp_path, watermark=None) as market:
        marks(market, mta=3 * MINUTE, sellers=timedelta())
        with market.core.stores.ledger.connect() as conn:
            assert complete_to(conn, NOW) == NOW - 3 * MINUTE
            assert told_to(conn, NOW, TOLD) == NOW - 3 * MINUTE


def test_where_sellers_alone_tell_their_word_is_what_there_is(tmp_path: Path):
    with house(tmp_path, watermark=None) as market:
        marks(market, sellers=MINUTE)
        with market.core.stores.ledger.connect() as conn:
            assert complete_to(conn, NOW) == NOW - MINUTE
        marks(market, mta=STALE + MINUTE)  # such as an import of last year
        with market.core.stores.ledger.connect() as conn:
            assert complete_to(conn, NOW) == NOW - MINUTE


def test_sellers_who_tell_nothing_keep_no_incident_open(tmp_path: Path):
    with house(tmp_path, watermark=None) as market:
        marks(market, sellers=STALE + MINUTE)
        with market.core.stores.ledger.connect() as conn:
            assert missing(conn, NOW, TOLD) == ()
