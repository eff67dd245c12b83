"""Whole rounds on real stores: facts in, incidents and pauses out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from monitor import pipeline
from monitor.config import parse
from monitor.cycle import Cycle, complete_to, told_to
from monitor.ledger import actions, incidents
from monitor.model import Action, Batch, Deed, Scope
from monitor.stores import Stores
from tests.builders import pause

BEGIN = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SELLER = {"tenant": "s07", "segment": "lapsed", "stream": "marketing", "provider": "gmail", "ip": "192.0.2.1"}


class House:
    """One directory's stores, and a clock that the test moves."""

    def __init__(self, data: Path, **tables: Any) -> None:
        settings = parse({"automation": {"mode": "enforce"}, "guards": {"held_share": 0.5}, **tables}, "test", {})
        self.stores = Stores(data)
        self.cycle = Cycle(settings.rules, settings.guards, self.stores.facts, self.stores.ledger, told={"http"})
        self._number = count()

    def told(
        self, kind: str, many: int, at: datetime, sent_at: datetime | None = None, source: str = "http", **labels: str
    ) -> None:
        """That many messages had this outcome at that time."""
        micros = int(at.timestamp() * 1e6)
        columns: dict[str, list[Any]] = {
            "kind": [kind] * many,
            "at": [micros] * many,
            "sent_at": [int((sent_at or at).timestamp() * 1e6)] * many,
            "message_id": [f"<{next(self._number)}@shop.example>" for _ in range(many)],
            **{name: [value] * many for name, value in labels.items()},
        }
        pipeline.take(
            Batch(columns, watermark=at),
            self.stores.spool,
            self.stores.keyring,
            source=source,
            node="n",
            now=at,
            bounds=None,
        )

    def round(self, now: datetime) -> list[tuple[Deed, str]]:
        """What a round at that time does."""
        self.stores.applier.drain()
        found = self.cycle.run(now)
        assert not found.failed
        return [(action.deed, str(action.scope)) for action in found.written]

    def log(self) -> tuple[Action, ...]:
        with self.stores.ledger.begin() as conn:
            return actions.since(conn, BEGIN - timedelta(days=30))

    def write(self, action: Action) -> None:
        with self.stores.ledger.begin() as conn:
            actions.append(conn, action)

    def open_scopes(self) -> list[str]:
        with self.stores.ledger.begin() as conn:
            return [str(one.scope) for one in incidents.open_ones(conn)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    here = House(tmp_path)
    yield here
    here.stores.close()


def test_a_bad_segment_is_paused_and_no_other(house: House):
    house.told("sent", 900, BEGIN, **{**SELLER, "segment": "buyers"})
    house.told("sent", 200, BEGIN, **SELLER)
    house.told("bounced", 100, BEGIN, **SELLER)
    assert house.round(BEGIN + MINUTE) == [(Deed.PAUSE, "stream=marketing tenant=s07 segment=lapsed")]
    assert house.round(BEGIN + 2 * MINUTE) == [], "the same evidence does not pause twice"


def test_complaints_pause_the_segment_that_caused_them(house: House):
    house.told("sent", 3000, BEGIN, **{**SELLER, "provider": "yahoo", "segment": "buyers"})
    house.told("sent", 2000, BEGIN, **{**SELLER, "provider": "yahoo"})
    house.told("complaint", 30, BEGIN + MINUTE, BEGIN, **{**SELLER, "provider": "yahoo"})
    assert house.round(BEGIN + 2 * MINUTE) == [(Deed.PAUSE, "stream=marketing tenant=s07 segment=lapsed")]


def shared_trouble(house: House, ips: tuple[str, ...] = ("192.0.2.1", "192.0.2.2")) -> None:
    for tenant in ("a", "b", "c", "d"):
        labels = {"tenant": tenant, "segment": "news", "stream": "marketing"}
        house.told("sent", 4000, BEGIN, **labels, provider="gmail", ip="192.0.2.9")
        for ip in ips:
            house.told("bounced", 150, BEGIN, **labels, provider="yahoo", ip=ip)
        house.told("sent", 150, BEGIN, **labels, provider="yahoo", ip="192.0.2.3")


def test_an_ip_that_a_provider_refuses_is_paused_there_and_no_seller_is(house: House):
    shared_trouble(house, ("192.0.2.1",))
    assert house.round(BEGIN + MINUTE) == [(Deed.PAUSE, "ip=192.0.2.1 provider=yahoo stream=marketing")]
    assert house.open_scopes() == ["ip=192.0.2.1 provider=yahoo"]


def test_the_last_ip_is_kept_within_one_round_too(house: House):
    for tenant in ("a", "b", "c", "d"):
        labels = {"tenant": tenant, "segment": "news", "stream": "marketing"}
        house.told("sent", 9000, BEGIN, **labels, provider="gmail", ip="192.0.2.9")
        for ip in ("192.0.2.1", "192.0.2.2"):
            house.told("bounced", 50, BEGIN, **labels, provider="yahoo", ip=ip)
            house.told("sent", 150, BEGIN, **labels, provider="yahoo", ip=ip)
    done = house.round(BEGIN + MINUTE)
    assert [deed for deed, _ in done] == [Deed.PAUSE, Deed.REFUSE]
    assert "last IP" in house.log()[-1].why


def test_a_seller_is_not_paused_where_all_see_the_same(house: House):
    # One IP for everything: its refusal at yahoo makes each seller's rate bad.
    for tenant in ("a", "b", "c", "d"):
        labels = {"tenant": tenant, "segment": "news", "stream": "marketing", "ip": "192.0.2.1"}
        house.told("sent", 300, BEGIN, **labels, provider="gmail")
        house.told("bounced", 100, BEGIN, **labels, provider="yahoo")
    done = house.round(BEGIN + MINUTE)
    assert {deed for deed, _ in done} == {Deed.REFUSE}
    assert all("other sellers see the same" in action.why for action in house.log())


def test_bad_receipts_do_not_pause_healthy_marketing(house: House):
    house.told("sent", 1000, BEGIN, **SELLER)
    house.told("sent", 300, BEGIN, **{**SELLER, "stream": "transactional"})
    house.told("bounced", 300, BEGIN, **{**SELLER, "stream": "transactional"})
    ((deed, _),) = house.round(BEGIN + MINUTE)
    assert deed is Deed.REFUSE
    assert "is not surely bad itself: 0 of 1,000" in house.log()[-1].why


def test_late_bounces_of_mail_from_before_the_pause_renew_nothing(house: House):
    house.told("sent", 900, BEGIN, **{**SELLER, "segment": "buyers"})
    house.told("bounced", 300, BEGIN, **SELLER)
    assert house.round(BEGIN + MINUTE)[0][0] is Deed.PAUSE
    for hours in (2, 30):
        late = BEGIN + timedelta(hours=hours)
        house.told("sent", 900, late, **{**SELLER, "segment": "buyers"})
        house.told("bounced", 300, late, BEGIN - MINUTE, **SELLER)
        assert house.round(late + MINUTE) == []


def test_mail_sent_after_the_pause_may_pause_again(house: House):
    house.told("sent", 900, BEGIN, **{**SELLER, "segment": "buyers"})
    house.told("bounced", 300, BEGIN, **SELLER)
    house.round(BEGIN + MINUTE)
    later = BEGIN + timedelta(hours=2)
    house.told("sent", 900, later, **{**SELLER, "segment": "buyers"})
    house.told("bounced", 300, later, **SELLER)
    assert house.round(later + MINUTE)[0][0] is Deed.PAUSE


def test_a_scope_that_grew_since_the_first_pause_counts_as_it_is_now(house: House):
    house.write(
        pause(id="h1", who="marta", scope=Scope(tenant="tiny"), at=BEGIN - 120 * MINUTE, until=BEGIN + 60 * MINUTE)
    )
    house.told("sent", 1000, BEGIN - 130 * MINUTE, tenant="s01", segment="x", stream="marketing")
    house.told("sent", 10, BEGIN - 130 * MINUTE, **SELLER)
    house.told("sent", 100, BEGIN, tenant="s01", segment="x", stream="marketing")
    house.told("bounced", 900, BEGIN, **SELLER)
    ((deed, _),) = house.round(BEGIN + MINUTE)
    assert deed is Deed.REFUSE
    assert "would be held" in house.log()[-1].why


def test_an_incident_is_resolved_by_healthy_mail_and_not_by_silence(house: House):
    house.told("sent", 900, BEGIN, **{**SELLER, "segment": "buyers"})
    house.told("bounced", 300, BEGIN, **SELLER)
    house.round(BEGIN + MINUTE)
    for minutes in range(10, 30, 5):
        house.told("sent", 900, BEGIN + minutes * MINUTE, **{**SELLER, "segment": "buyers"})
        house.round(BEGIN + minutes * MINUTE)
    assert house.open_scopes() == ["tenant=s07 segment=lapsed"]
    for minutes in range(70, 90, 2):
        house.told("sent", 100, BEGIN + minutes * MINUTE, **SELLER)
        house.round(BEGIN + minutes * MINUTE)
    assert house.open_scopes() == []


def test_the_slowest_source_that_is_alive_says_how_far_all_is_told(house: House):
    now = BEGIN + 60 * MINUTE
    marks = {"dead": 30 * MINUTE, "slow": 57 * MINUTE, "quick": 60 * MINUTE, "http": 56 * MINUTE}
    for source, mark in marks.items():
        house.told("sent", 1, BEGIN + mark, source=source, **SELLER)
    house.stores.applier.drain()
    with house.stores.ledger.connect() as conn:
        assert told_to(conn, now, {"http"}) == BEGIN + 57 * MINUTE
        # Where all are stale, or silent because there is nothing to tell, the furthest.
        assert told_to(conn, now, {"slow", "quick", "http"}) == complete_to(conn, now) == now
        assert told_to(conn, now + 60 * MINUTE, {"http"}) == now


def test_nothing_is_calm_while_a_source_is_missing(house: House):
    house.told("bounced", 300, BEGIN, source="mail-a", **SELLER)
    house.told("sent", 900, BEGIN, source="mail-b", **{**SELLER, "segment": "buyers"})
    house.round(BEGIN + MINUTE)
    for minutes in range(70, 90, 2):
        house.told("sent", 100, BEGIN + minutes * MINUTE, source="mail-b", **SELLER)
        house.round(BEGIN + minutes * MINUTE)
    assert house.open_scopes() == ["tenant=s07 segment=lapsed"]
