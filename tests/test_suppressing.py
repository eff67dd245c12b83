"""Who is suppressed, why, and until when: by the real road from events to the ledger, with no clock but the test's."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor import hygiene, suppressing
from monitor.core import outages as core_outages
from monitor.core.outages import Signs, doubtful, raised, spans
from monitor.core.suppressing import OF_A_SENDER, Policy, Reason, covers, reason, repeated
from monitor.facts.prepare import SELLERS
from monitor.facts.store import Facts
from monitor.hygiene import Hygiene
from monitor.ledger import evidence, suppressions
from monitor.ledger.suppressions import AUTOMATION, Change, Entry
from monitor.meaning import SUPPRESSING, ReplyClass
from monitor.model import UNVERIFIED, Kind
from monitor.rebuilding import rebuild
from tests.hygiene_world import BLOCKED, DAY, FULL, GONE, HOUR, MINUTE, NOON, TAKEN, House, world
from tests.storing import empty, store

FULL_SIZE = os.environ.get("MAILVANE_SCALE") == "full"
STEP = MINUTE if FULL_SIZE else 10 * MINUTE
Making = Callable[..., AbstractContextManager[House]]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    with store(tmp_path_factory.mktemp("facts") / "facts") as opened:
        yield opened


@pytest.fixture
def house(facts: Facts, tmp_path: Path) -> Iterator[House]:
    empty(facts)
    with world(facts, tmp_path) as made:
        yield made


# what an outcome speaks for


def test_only_what_somebody_vouches_for_and_what_is_the_recipients_own_speaks_against_it():
    spoken = {
        (kind, cls): why for kind in Kind for cls in ReplyClass if (why := reason(kind.value, cls.value)) is not None
    }
    assert {kind for kind, _ in spoken} == {
        *(Kind.BOUNCED, Kind.RETURNED, Kind.EXPIRED),
        *(Kind.COMPLAINT, Kind.UNSUBSCRIBED),
    }
    assert {kind for kind, _ in spoken} & UNVERIFIED == set()
    assert {cls for (kind, cls), why in spoken.items() if why is Reason.HARD} == SUPPRESSING
    assert {kind for (kind, _), why in spoken.items() if why is Reason.HARD} == {Kind.BOUNCED, Kind.RETURNED}
    assert {cls for (_, cls), why in spoken.items() if why is Reason.SOFT} == SUPPRESSING | {
        ReplyClass.QUOTA,
        ReplyClass.EXPIRED,
        ReplyClass.TRANSIENT,
        ReplyClass.DNS_FAILURE,
    }
    assert reason("bounced", "listed:spamhaus_xbl") is None
    assert reason("bounced", "invalid_recipient:doubtful") is Reason.SOFT


NAMES = st.sampled_from(["", "s1", "s2"])
STREAMS = st.sampled_from(["", "marketing", "news", "transactional"])


@given(why=st.sampled_from(sorted(OF_A_SENDER)), tenant=NAMES, stream=STREAMS, other=NAMES)
def test_a_complaint_never_keeps_back_a_receipt_nor_another_senders_mail(why, tenant, stream, other):
    scope = Policy().scope(why, tenant, stream)
    assert not covers(why, scope, tenant, "transactional")
    assert not covers(why, scope, tenant, "")
    if tenant and other != tenant:
        assert not covers(why, scope, other, "marketing")
    asked = stream if stream not in ("", "transactional") else "marketing"
    assert covers(why, scope, tenant, asked)


@given(tenant=NAMES, stream=STREAMS, asked=NAMES, asked_stream=STREAMS)
def test_an_address_that_is_no_good_is_no_good_for_everybody(tenant, stream, asked, asked_stream):
    for why in (Reason.HARD, Reason.SOFT):
        assert covers(why, Policy().scope(why, tenant, stream), asked, asked_stream)


@given(
    minutes=st.lists(st.integers(0, 60 * 24 * 60), max_size=12),
    bounces=st.integers(1, 6),
    days=st.integers(1, 20),
)
def test_so_many_soft_bounces_in_so_many_days_are_too_many_and_fewer_are_not(minutes, bounces, days):
    at = [NOON + minute * MINUTE for minute in minutes]
    found = repeated(at, bounces, days * DAY)
    counts = [sum(one - days * DAY <= other <= one for other in at) for one in at]
    assert (found is not None) == any(count >= bounces for count in counts)
    assert found is None or found == max(one for one, count in zip(at, counts, strict=True) if count >= bounces)
    assert repeated(at, 0, days * DAY) is None


# providers


COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=60)


@given(taken=COUNTS, usually=st.floats(0, 0.3))
def test_a_provider_that_refuses_nobody_has_no_outage(taken, usually):
    decided = np.array(taken, np.int64)
    assert not raised(np.zeros_like(decided), decided, usually).any()


@given(taken=COUNTS, start=st.integers(0, 59), length=st.integers(1, 20))
def test_steps_in_which_everybody_is_refused_are_found_if_they_are_enough(taken, start, length):
    decided = np.array(taken, np.int64)
    refused = np.zeros_like(decided)
    refused[start : start + length] = decided[start : start + length]
    found = raised(refused, decided, 0.02)
    assert not found[refused == 0].any()
    if refused[start : start + min(length, 3)].sum() >= 10 and refused.sum() >= 0.5 * decided.sum():
        assert found.any()
    for first, last in spans(found):
        assert found[first]
        assert found[last - 1]


@given(refused=COUNTS, around=st.integers(1, 15))
def test_nothing_shows_that_a_provider_works_that_took_nothing(refused, around):
    counts = np.array(refused, np.int64)
    assert doubtful(counts, np.zeros_like(counts), around).all()
    assert not doubtful(counts, np.ones_like(counts), around).any()


def signs(**changes: Any) -> Signs:
    known = {"share": 0.9, "usually": 0.02, "parts": {}, "before": 10_000, "proven": 0.8}
    return Signs(**{**known, **changes})


def test_a_bought_list_is_no_outage_and_an_outage_is_none_of_a_sellers_making():
    bought = {"s1": (900, 2000), "s2": (10, 900), "s3": (7, 800)}
    assert signs().outage()
    assert not signs(share=0.3, parts=bought, proven=0.01).outage()
    assert not signs(share=0.95, parts={"s1": (950, 1000)}, proven=0.0).outage()
    everybody = dict.fromkeys(("s1", "s2", "s3"), (90, 100))
    assert signs(parts=everybody, before=0, proven=None).outage()
    assert signs(parts={"s1": (100, 100)}, share=1.0, before=0, proven=None).outage()
    assert not signs(parts=bought, share=0.25, before=0, proven=None).outage()


# the simulated outage


def people(tenant: str, count: int) -> list[str]:
    return [f"{tenant}p{number}" for number in range(count)]


def deliver(house: House, at: Any, provider: str, **lists: list[str]) -> None:
    """All of them took a mail before."""
    for tenant, names in lists.items():
        house.mail(at, tenant, provider, names)
    house.pass_to(at + 5 * MINUTE)


def day(
    house: House,
    lists: dict[str, list[str]],
    *,
    down: tuple[int, int] = (65, 105),
    until: int = 210,
    every: int = 60,
    churn: float = 0.01,
    bought: bool = False,
    seed: int = 1,
) -> tuple[set[str], set[str], set[str]]:
    """Mail to gmail that refuses everybody in the minutes ``down``: (refused then, dead, bought and dead).

    ``every``: messages of each seller in a step. ``bought``: meanwhile one mails a bad list at another provider.
    """
    drawn = random.Random(seed)
    refused, dead, bad = set(), set(), set()
    step = int(STEP / MINUTE)
    for minute in range(0, until, step):
        at = NOON + minute * MINUTE
        for tenant, pool in lists.items():
            for within in range(step):
                some = drawn.sample(pool, max(1, every // step))
                if down[0] <= minute + within < down[1]:
                    house.mail(at + within * MINUTE, tenant, "gmail", some, GONE)
                    refused.update(some)
                else:
                    house.mail(at + within * MINUTE, tenant, "gmail", some)
            gone = [
                f"{tenant}dead{minute}x{number}" for number in range(sum(drawn.random() < churn for _ in range(every)))
            ]
            house.mail(at, tenant, "gmail", gone, GONE)
            dead.update(gone if not down[0] - 15 <= minute < down[1] + 15 else ())
        if bought and minute < 120:
            wrong = [f"wrong{minute}x{number}" for number in range(20)]
            house.mail(at, "s9", "yahoo", wrong, GONE)
            house.mail(at, "s9", "yahoo", [f"right{minute}x{number}" for number in range(30)])
            house.mail(at, "s1", "yahoo", [f"other{minute}x{number}" for number in range(20)])
            bad.update(wrong)
        house.pass_to(at + step * MINUTE)
    house.pass_to(NOON + until * MINUTE + 2 * HOUR)
    return refused, dead, bad


def held(house: House, provider: str, names: set[str]) -> float:
    return house.suppressed(sorted(names), provider) / len(names)


SHAPES = {
    "three sellers": (("s1", "s2", "s3"), True),
    "three sellers of whom nothing was known": (("s1", "s2", "s3"), False),
    "one seller": (("s1",), True),
    "one seller of whom nothing was known": (("s1",), False),
}


@pytest.mark.scale(order=5)
@pytest.mark.parametrize(("shape", "hold"), [*((shape, 60) for shape in SHAPES), ("three sellers", 0)])
def test_forty_minutes_in_which_a_provider_refuses_everybody_suppress_nobody(house: House, shape: str, hold: int):
    house.policy = Policy(hold=hold * MINUTE)
    tenants, known = SHAPES[shape]
    lists = {tenant: people(tenant, 6000 // len(tenants)) for tenant in tenants}
    if known:
        deliver(house, NOON - DAY, "gmail", **lists)
    refused, dead, _ = day(house, lists, every=180 // len(tenants) * (5 if FULL_SIZE else 1))
    assert len(refused) > 600
    assert held(house, "gmail", refused) <= 0.001
    assert held(house, "gmail", dead) > 0.9
    mine = {house.person(name, "gmail") for name in refused}
    touched = {one.pseudonym for one in house.feed()} & mine
    assert hold == 0 or not touched
    released = {one.pseudonym for one in house.feed() if one.change is Change.RELEASED and "outage" in one.why}
    assert touched <= released


@pytest.mark.scale(order=5)
def test_a_bought_list_at_another_provider_is_suppressed_while_one_has_an_outage(house: House):
    lists = {tenant: people(tenant, 1500) for tenant in ("s1", "s2", "s3")}
    deliver(house, NOON - DAY, "gmail", **lists)
    refused, dead, bad = day(house, lists, bought=True)
    assert held(house, "gmail", refused) <= 0.001
    assert held(house, "yahoo", bad) == 1.0
    assert held(house, "gmail", dead) > 0.9


@pytest.mark.parametrize("alone", [False, True], ids=["among others", "alone"])
def test_a_bought_list_is_suppressed_though_the_provider_refuses_far_more_than_usual(house: House, alone: bool):
    lists = {"s1": people("s1", 1000)} if alone else {tenant: people(tenant, 1000) for tenant in ("s1", "s2", "s3")}
    deliver(house, NOON - DAY, "gmail", **lists)
    bad = set()
    for minute in range(0, 60, 5):
        at = NOON + minute * MINUTE
        wrong = [f"wrong{minute}x{number}" for number in range(40)]
        house.mail(at, "s1", "gmail", wrong, GONE)
        house.mail(at, "s1", "gmail", [f"right{minute}x{number}" for number in range(30)])
        for tenant, pool in lists.items():
            house.mail(at, tenant, "gmail", pool[minute * 5 : minute * 5 + 10])
        bad.update(wrong)
        house.pass_to(at + 5 * MINUTE)
    house.pass_to(NOON + 3 * HOUR)
    assert held(house, "gmail", bad) == 1.0


def test_bounces_that_come_in_late_are_excused_by_an_outage_that_is_known(house: House):
    house.register.declare("gmail", NOON, NOON + HOUR, who="marta", why="their status page", now=NOON + 2 * HOUR)
    house.mail(NOON + 80 * MINUTE, "s1", "gmail", people("s1", 30))
    house.mail(NOON + 30 * MINUTE, "s1", "gmail", ["ann"], GONE)
    house.mail(NOON + 90 * MINUTE, "s1", "gmail", ["bob"], GONE)
    house.pass_to(NOON + 7 * HOUR)
    house.pass_to(NOON + 9 * HOUR)
    assert house.entries("ann") == []
    assert len(house.entries("bob")) == 1


def test_a_person_can_say_that_an_outage_was_none(house: House):
    lists = {"s1": people("s1", 2000)}
    deliver(house, NOON - DAY, "gmail", **lists)
    refused, _, _ = day(house, lists, down=(15, 55), until=70)
    assert held(house, "gmail", refused) == 0
    for outage in house.register.outages(10):
        assert house.register.dismiss(outage.id, who="marta", now=NOON + 6 * HOUR).dismissed_by == "marta"
    for minute in (1, 2):
        house.pass_to(NOON + 6 * HOUR + minute * MINUTE)
        assert held(house, "gmail", refused) > 0.8  # all others took mail since, and so are no less


def test_a_person_can_tell_of_an_outage_and_everybody_is_released(house: House):
    house.mail(NOON, "s1", "gmail", people("s1", 50))
    house.mail(NOON + MINUTE, "s1", "gmail", ["ann", "bob"], GONE)
    house.pass_to(NOON + 5 * MINUTE)
    house.pass_to(NOON + 2 * HOUR)
    assert house.suppressed(["ann", "bob"], "gmail") == 2
    made, moved = house.register.declare(
        "gmail", NOON, NOON + 10 * MINUTE, who="marta", why="their status page", now=NOON + 3 * HOUR
    )
    assert made.who == "marta"
    assert moved.changes == {(Change.RELEASED, Reason.HARD): 2}
    assert house.entries() == []


def test_a_provider_that_took_nobodys_mail_is_doubted_and_a_second_bounce_on_another_day_is_believed(house: House):
    house.mail(NOON, "s1", "small", ["ann"], GONE)
    house.pass_to(NOON + MINUTE)
    for hour in range(2, 20, 3):
        house.pass_to(NOON + hour * HOUR)
    assert house.entries() == []
    house.mail(NOON + 2 * DAY, "s1", "small", ["ann"], GONE)
    house.pass_to(NOON + 2 * DAY + MINUTE)
    house.pass_to(NOON + 2 * DAY + 2 * HOUR)
    assert house.suppressed(["ann"], "small") == 1


def test_three_refusals_in_a_row_at_a_provider_with_little_mail_are_doubted(house: House):
    house.mail(NOON, "s1", "small", ["first"])
    house.mail(NOON + 10 * MINUTE, "s1", "small", ["ann"], GONE)
    house.mail(NOON + 20 * MINUTE, "s2", "small", ["bob"], GONE)
    house.mail(NOON + 30 * MINUTE, "s3", "small", ["cec"], GONE)
    house.mail(NOON + 40 * MINUTE, "s1", "small", ["last"])
    house.mail(NOON + 50 * MINUTE, "s1", "small", ["dan"], GONE)
    house.pass_to(NOON + HOUR)
    house.pass_to(NOON + 3 * HOUR)
    assert house.suppressed(["ann", "bob", "cec"], "small") == 0
    assert house.suppressed(["dan"], "small") == 1


# bounces, one by one


def test_a_bounce_suppresses_when_its_hold_is_over_and_for_as_long_as_was_chosen(house: House):
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    house.mail(NOON + MINUTE, "s1", "gmail", ["ann"], GONE)
    house.pass_to(NOON + 2 * MINUTE)
    assert house.entries() == []
    house.pass_to(NOON + HOUR)
    assert house.entries() == []
    house.pass_to(NOON + HOUR + 3 * MINUTE)
    (entry,) = house.entries()
    assert entry.reason is Reason.HARD
    assert entry.since == NOON + MINUTE
    assert entry.until == NOON + MINUTE + 180 * DAY
    assert (entry.tenant, entry.stream, entry.why, entry.who) == ("", "", "invalid_recipient", AUTOMATION)
    house.pass_to(entry.until)
    assert house.entries() == []
    assert [one.change for one in house.feed()] == [Change.ADDED, Change.ENDED]


def test_an_end_of_nought_is_none(house: House):
    house.policy = Policy(hard_keep=timedelta(0))
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    house.mail(NOON, "s1", "gmail", ["ann"], GONE)
    house.pass_to(NOON + MINUTE)
    house.pass_to(NOON + 2 * HOUR)
    assert [one.until for one in house.entries()] == [None]
    house.pass_to(NOON + 4000 * DAY)
    assert len(house.entries()) == 1


def test_who_takes_mail_after_a_bounce_is_not_suppressed(house: House):
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    house.mail(NOON, "s1", "gmail", ["ann", "bob"], GONE)
    house.mail(NOON + 30 * MINUTE, "s1", "gmail", ["ann"])
    house.pass_to(NOON + 31 * MINUTE)
    house.pass_to(NOON + 2 * HOUR)
    assert house.suppressed(["ann", "bob"], "gmail") == 1
    assert house.entries("ann") == []


def test_what_is_not_the_recipients_fault_and_what_nobody_vouches_for_suppresses_nobody(house: House):
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    for number in range(8):
        at = NOON + number * HOUR
        house.mail(at, "s1", "gmail", ["ann"], BLOCKED)
        house.mail(at, "s1", "gmail", ["bob"], {**GONE, "kind": "unverified_bounce"})
        house.mail(at, "s1", "gmail", ["cec"], {"kind": "unverified_complaint"})
        house.mail(at, "s1", "gmail", ["dan"], {**FULL, "kind": "deferred", "tries": number})
        house.mail(at, "s1", "gmail", ["eve"], {"kind": "held"})
        house.mail(at, "s1", "gmail", ["fay"], {"kind": "not_spam"})
        house.pass_to(at + MINUTE)
    house.pass_to(NOON + DAY)
    assert house.entries() == []
    assert house.feed() == []


@settings(
    max_examples=25 if FULL_SIZE else 4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    bounces=st.integers(1, 4),
    days=st.integers(1, 8),
    told=st.dictionaries(
        st.sampled_from(["ann", "bob", "cec", "dan"]),
        st.lists(
            st.tuples(st.integers(0, 24 * 9), st.booleans()), min_size=1, max_size=7, unique_by=lambda one: one[0]
        ),
        min_size=1,
    ),
)
def test_soft_bounces_suppress_as_configured_and_a_delivery_between_begins_anew(
    facts, tmp_path_factory, bounces, days, told
):
    empty(facts)
    policy = Policy(soft_bounces=bounces, soft_within=days * DAY, soft_keep=timedelta(0))
    with world(facts, tmp_path_factory.mktemp("soft"), policy) as house:
        house.mail(NOON, "s1", "gmail", people("s1", 50))
        expected = set()
        for person, events in told.items():
            since: list[Any] = []
            for hour, refused in sorted(events):
                at = NOON + hour * HOUR
                house.mail(at, "s1", "gmail", [person], FULL if refused else TAKEN)
                since = [*since, at] if refused else []
            # All of it is known before it is judged: an earlier excess that a delivery ended is none.
            expected |= {person} if repeated(since, bounces, days * DAY) else set()
        house.pass_to(NOON + 10 * DAY)
        house.pass_to(NOON + 11 * DAY)
        found = {person for person in told if house.suppressed([person], "gmail", Reason.SOFT)}
        assert found == expected


def test_one_message_that_bounces_softly_by_two_roads_counts_once(house: House):
    house.policy = Policy(soft_bounces=2)
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    house.mail(NOON, "s1", "gmail", ["ann"], FULL, message_id="<same@shop.example>")
    house.mail(NOON + HOUR, "s1", "gmail", ["ann"], {**FULL, "kind": "expired"}, message_id="<same@shop.example>")
    house.pass_to(NOON + HOUR + MINUTE)
    house.pass_to(NOON + 4 * HOUR)
    assert house.entries() == []
    house.mail(NOON + 5 * HOUR, "s1", "gmail", ["ann"], FULL)
    house.pass_to(NOON + 5 * HOUR + MINUTE)
    house.pass_to(NOON + 7 * HOUR)
    assert [(one.reason, one.until) for one in house.entries()] == [(Reason.SOFT, NOON + 5 * HOUR + 30 * DAY)]


# complaints, and what sellers tell


def test_a_complaint_counts_at_once_for_that_tenants_stream_and_stays(house: House):
    house.mail(NOON, "s1", "yahoo", ["ann"], {"kind": "complaint"})
    house.mail(NOON, "s2", "yahoo", ["ann"], {"kind": "unsubscribed"}, stream="transactional")
    house.pass_to(NOON + MINUTE)
    found = {(one.reason, one.tenant, one.stream, one.until) for one in house.entries()}
    assert found == {(Reason.COMPLAINT, "s1", "marketing", None), (Reason.UNSUBSCRIBE, "s2", "", None)}

    def suppressed(tenant: str, stream: str) -> bool:
        (one,) = house.register.check(["ANN@yahoo.example"], tenant, stream, NOON + HOUR)
        assert len(one.others) + (one.entry is not None) >= 2 or one.entry
        return one.entry is not None

    assert suppressed("s1", "marketing")
    assert suppressed("s2", "marketing")
    assert not suppressed("s1", "transactional")
    assert not suppressed("s2", "transactional")
    assert not suppressed("s1", "")
    assert not suppressed("s3", "marketing")


def test_what_a_seller_tells_of_an_address_holds_for_its_own_mail_alone(house: House):
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    house.mail(NOON, "s2", "gmail", ["ann"], GONE, source=SELLERS)
    house.mail(NOON + MINUTE, "s2", "gmail", ["bob"], GONE)
    house.mail(NOON + 2 * MINUTE, "s2", "gmail", ["bob"], source=SELLERS)
    house.pass_to(NOON + 3 * MINUTE)
    house.pass_to(NOON + 2 * HOUR)
    assert [one.tenant for one in house.entries("ann")] == ["s2"]
    assert [one.tenant for one in house.entries("bob")] == [""]


# a person's hand


def test_what_a_person_released_comes_back_only_by_what_happened_later(house: House):
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    house.mail(NOON, "s1", "gmail", ["ann"], GONE)
    house.mail(NOON, "s1", "gmail", ["ann"], {"kind": "complaint"})
    house.pass_to(NOON + MINUTE)
    house.pass_to(NOON + 2 * HOUR)
    assert len(house.entries("ann")) == 2
    done = house.register.release([house.person("ann", "gmail")], who="marta", why="called us", now=NOON + 3 * HOUR)
    assert {one.reason for one in done} == {Reason.HARD, Reason.COMPLAINT}
    house.mail(NOON + MINUTE, "s1", "gmail", ["ann"], GONE)  # told late
    house.pass_to(NOON + 4 * HOUR)
    house.pass_to(NOON + 6 * HOUR)
    assert house.entries("ann") == []
    house.mail(NOON + 6 * HOUR, "s1", "gmail", [*people("s1", 30)])
    house.mail(NOON + 6 * HOUR, "s1", "gmail", ["ann"], GONE)
    house.pass_to(NOON + 6 * HOUR + MINUTE)
    house.pass_to(NOON + 8 * HOUR)
    assert [one.reason for one in house.entries("ann")] == [Reason.HARD]


def test_what_a_person_added_is_in_force_until_it_ends_and_is_written_once(house: House):
    person = house.person("ann", "gmail")
    how = {"who": "marta", "why": "asked by phone", "until": NOON + DAY, "now": NOON}
    (entry,) = house.register.add([person], tenant="s1", **how)
    assert (entry.reason, entry.tenant, entry.who) == (Reason.MANUAL, "s1", "marta")
    assert house.register.add([person], tenant="s1", **how) == []
    house.pass_to(NOON + DAY)
    assert house.entries() == []
    assert [one.change for one in house.feed()] == [Change.ADDED, Change.ENDED]


def test_who_is_forgotten_is_in_no_row(house: House):
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    house.mail(NOON, "s1", "gmail", ["ann", "bob"], GONE)
    house.pass_to(NOON + MINUTE)
    house.pass_to(NOON + 2 * HOUR)
    person = house.person("ann", "gmail")
    assert house.register.forget(person) == 3  # the entry, its change, its bounce
    assert house.register.forget(person) == 0
    assert house.entries("ann") == []
    assert len(house.entries("bob")) == 1
    with house.ledger.connect() as conn:
        raw = conn.connection.driver_connection
        assert raw is not None
        assert not any(person in str(line).encode() or person.hex() in line for line in raw.iterdump())


# once, and the same each time


def test_a_batch_that_a_crash_cut_short_counts_once(house: House, monkeypatch: pytest.MonkeyPatch):
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    house.mail(NOON, "s1", "yahoo", ["ann", "bob"], {"kind": "complaint"})
    with monkeypatch.context() as broken:
        broken.setattr(suppressing, "take", dies)  # between the facts and the ledger's commit
        with pytest.raises(KeyboardInterrupt):
            house.pass_to(NOON + MINUTE)
    house.told.clear()
    with house.ledger.connect() as conn:
        assert evidence.newest(conn) == 0
    house.pass_to(NOON + 2 * MINUTE)
    house.pass_to(NOON + 3 * MINUTE)
    assert [one.change for one in house.feed()] == [Change.ADDED, Change.ADDED]


def test_the_same_event_told_again_changes_nothing(house: House):
    for minute in range(3):
        house.mail(NOON, "s1", "yahoo", ["ann"], {"kind": "complaint"}, message_id="<m1@shop.example>")
        house.pass_to(NOON + minute * MINUTE)
    assert len(house.feed()) == 1


@settings(
    max_examples=100 if FULL_SIZE else 6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.tuples(st.sampled_from("ax"), st.integers(0, 5)), max_size=25), limit=st.integers(1, 7))
def test_the_feed_read_twice_is_equal_in_pages_of_any_size_while_others_write_and_after_a_restart(
    facts, tmp_path_factory, steps, limit
):
    folder = tmp_path_factory.mktemp("feed")
    read: list[Entry] = []
    with world(facts, folder) as house:
        for number, (what, person) in enumerate(steps):
            people_ = [house.person(f"p{person}", "gmail")]
            how = {"who": "marta", "why": f"reason {number}", "now": NOON + number * MINUTE}
            if what == "a":
                house.register.add(people_, until=None, **how)
            else:
                house.register.release(people_, **how)
            read += house.feed(read[-1].seq if read else 0, limit)  # pages while it grows
        while page := house.feed(read[-1].seq if read else 0, limit):
            read += page
        whole = house.feed()
        assert read == whole == house.feed()
        assert [one.seq for one in whole] == sorted({one.seq for one in whole})
        in_force = {one.name: one for one in whole}
        assert {name for name, one in in_force.items() if one.in_force} == {one.name for one in house.entries()}
    with world(facts, folder) as again:
        assert again.feed() == whole


def test_a_seller_sees_what_its_own_mail_brought_and_its_pages_are_stable(house: House):
    for tenant in ("s1", "s2"):
        house.mail(NOON, tenant, "gmail", people(tenant, 30))
        house.mail(NOON, tenant, "gmail", ["both", f"of{tenant}"], GONE)
        house.mail(NOON, tenant, "gmail", [f"angry{tenant}"], {"kind": "complaint"})
        house.pass_to(NOON + MINUTE)
        house.pass_to(NOON + 2 * HOUR)
        if tenant == "s1":
            first = house.feed(tenant="s1")
    mine, theirs = house.feed(tenant="s1"), house.feed(tenant="s2")
    assert mine[: len(first)] == first
    persons = {
        tenant: {house.person(f"of{tenant}", "gmail"), house.person(f"angry{tenant}", "gmail")}
        for tenant in ("s1", "s2")
    }
    both = {house.person("both", "gmail")}
    assert {one.pseudonym for one in mine} == persons["s1"] | both
    assert {one.pseudonym for one in theirs} == persons["s2"] | both
    addresses = ["ofs1@gmail.example", "ofs2@gmail.example", "both@gmail.example"]
    told = house.register.check(addresses, "s1", "marketing", NOON + 3 * HOUR, own="s1")
    assert [one.entry is not None for one in told] == [True, False, True]


def test_what_was_superseded_long_ago_goes_and_who_reads_from_the_beginning_learns_the_same(house: House):
    person = house.person("ann", "gmail")
    for number in range(6):
        how = {"who": "marta", "why": f"reason {number}", "now": NOON + number * MINUTE}
        house.register.add([person], until=None, **how)
        if number < 5:
            house.register.release([person], **how)
    before = {one.name: one for one in house.feed()}
    house.hygiene.expire(NOON + 91 * DAY)
    assert {one.name: one for one in house.feed()} == before
    assert len(house.feed()) == 1
    assert len(house.entries()) == 1


# folded anew


def test_a_rebuild_brings_evidence_in_line_with_the_events_and_says_what_changes_first(house: House):
    house.mail(NOON, "s1", "gmail", people("s1", 30))
    house.mail(NOON, "s1", "gmail", ["ann"], GONE)
    # As an older table had it: blocked mail was taken for an unknown user, and an unknown user for a block.
    house.mail(NOON, "s1", "gmail", ["bob"], BLOCKED, reply_class="invalid_recipient")
    house.mail(NOON, "s1", "gmail", ["cec"], GONE, reply_class="policy")
    house.pass_to(NOON + MINUTE)
    house.pass_to(NOON + 2 * HOUR)
    assert house.suppressed(["ann", "bob", "cec"], "gmail") == 2

    def run(*, apply: bool) -> dict[str, Any]:
        job = rebuild(house.facts, house.ledger, house.policy, NOON + 3 * HOUR, apply=apply)
        try:
            while True:
                next(job)
        except StopIteration as end:
            return dict(end.value)

    seen = run(apply=False)
    assert (seen["events"], seen["released"], seen["to_judge"]) == (3, 1, 1)
    assert house.suppressed(["bob"], "gmail") == 1  # said only
    assert run(apply=True) == {**seen, "applied": True}
    house.pass_to(NOON + 3 * HOUR)
    house.pass_to(NOON + 5 * HOUR)
    assert house.suppressed(["ann", "cec"], "gmail") == 2
    assert house.entries("bob") == []
    assert run(apply=True)["changes"] == []


# what it costs


def test_a_batch_without_bounces_costs_the_applier_next_to_nothing(house: House, monkeypatch: pytest.MonkeyPatch):
    spent = 0.0
    take = suppressing.take

    def timed(*given_: Any) -> None:
        nonlocal spent
        began = time.perf_counter()
        take(*given_)
        spent += time.perf_counter() - began

    house.mail(NOON, "s1", "gmail", people("s1", 20_000))
    monkeypatch.setattr(suppressing, "take", timed)
    began = time.perf_counter()
    house.pass_to(NOON + MINUTE)
    assert 0 < spent < 0.01 * (time.perf_counter() - began)


def test_the_stage_is_the_same_in_whatever_pieces_time_passes(facts: Facts, tmp_path: Path):
    """Laws of a fold: one look at the end finds what many looks found, but for what ended between."""
    found = []
    for name, every in (("often", 5), ("seldom", 30)):
        empty(facts)
        folder = tmp_path / name
        folder.mkdir()
        with world(facts, folder) as house:
            for minute in range(0, 60, 5):
                at = NOON + minute * MINUTE
                house.mail(at, "s1", "gmail", people("s1", 20))
                house.mail(at, "s1", "gmail", [f"dead{minute}"], GONE)
                if minute % every == 0:
                    house.pass_to(at + 5 * MINUTE)
            house.pass_to(NOON + 6 * HOUR)
            house.pass_to(NOON + 8 * HOUR)
            found.append(house.suppressed([f"dead{minute}" for minute in range(0, 60, 5)], "gmail"))
    assert found == [12, 12]


def test_hygiene_finds_nothing_where_there_is_nothing(house: House):
    moved = Hygiene(Policy(), house.facts, house.ledger).run(NOON)
    assert not moved.changes
    assert not moved.outages
    with house.ledger.connect() as conn:
        assert sum(suppressions.counts(conn).values()) == 0
    assert core_outages.usual(0, 0) == pytest.approx(0.02)


def test_many_are_released_some_at_a_time_so_that_others_write_between_and_a_crash_loses_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    house.mail(NOON, "s1", "gmail", people("s1", 200))
    house.mail(NOON + MINUTE, "s1", "gmail", [f"gone{number}" for number in range(50)], GONE)
    house.pass_to(NOON + MINUTE)
    house.pass_to(NOON + 2 * HOUR)
    before = len(house.entries())
    assert before == 50
    monkeypatch.setattr(hygiene, "RELEASED_AT_ONCE", 10)
    reconsider, left = hygiene.reconsider, [2]

    def dies(*given_: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        reconsider(*given_)

    told = {"who": "marta", "why": "their status page", "now": NOON + 10 * HOUR}
    with monkeypatch.context() as broken:
        broken.setattr(hygiene, "reconsider", dies)
        with pytest.raises(KeyboardInterrupt):
            house.register.declare("gmail", NOON - HOUR, NOON + HOUR, **told)
    assert len(house.entries()) == before - 20
    house.register.declare("gmail", NOON - HOUR, NOON + HOUR, **told)
    assert house.entries() == []
    released = [one for one in house.feed() if one.change is Change.RELEASED]
    assert len(released) == len({one.name for one in released}) == before


# what a seller's word can't do


def test_what_a_seller_tells_makes_no_outage_so_that_others_lists_stay_clean(house: House):
    """It tells of bounces of its best customers, and of its own that were given up, to have the provider excused."""
    lists = {tenant: people(tenant, 600) for tenant in ("s1", "s2")}
    deliver(house, NOON - DAY, "gmail", **lists)
    for minute in range(0, 60, 5):
        at = NOON + minute * MINUTE
        for tenant, pool in lists.items():
            house.mail(at, tenant, "gmail", pool[5 * minute : 5 * minute + 20])
        house.mail(at + MINUTE, "s2", "gmail", [f"dead{minute}"], GONE)
        house.mail(at + MINUTE, "s1", "gmail", lists["s1"][300 - 5 * minute :][:40], GONE, source=SELLERS)
        house.pass_to(at + 5 * MINUTE)
    house.pass_to(NOON + 3 * HOUR)
    assert house.register.outages(10) == []
    assert house.suppressed([f"dead{minute}" for minute in range(0, 60, 5)], "gmail") == 12


def test_a_seller_who_alone_tells_of_its_mail_loses_nobody_in_an_outage(house: House):
    mine = people("s1", 600)
    house.mail(NOON - DAY, "s1", "gmail", mine, source=SELLERS)
    for minute in range(0, 150, 5):
        some = mine[4 * minute : 4 * minute + 20]
        down = 65 <= minute < 105
        house.mail(NOON + minute * MINUTE, "s1", "gmail", some, GONE if down else TAKEN, source=SELLERS)
        half = "left" if minute % 2 else "right"  # a part goes through all the while
        house.mail(NOON + minute * MINUTE, "s1", "gmail", [f"{half}{minute}"], source=SELLERS)
        house.pass_to(NOON + minute * MINUTE + 5 * MINUTE)
    house.pass_to(NOON + 5 * HOUR)
    house.pass_to(NOON + 5 * DAY)
    assert house.entries() == []


def test_a_sellers_word_does_not_settle_what_is_in_doubt_for_everybody(house: House):
    house.mail(NOON, "s1", "small", ["ann", "bob"], GONE, source=SELLERS)
    house.mail(NOON + 2 * DAY, "s2", "small", ["ann"], GONE)
    house.mail(NOON + 2 * DAY, "s1", "small", ["bob"], GONE, source=SELLERS)
    house.pass_to(NOON + 2 * DAY + MINUTE)
    house.pass_to(NOON + 2 * DAY + 2 * HOUR)
    assert house.entries("ann", provider="small") == []
    assert [one.tenant for one in house.entries("bob", provider="small")] == ["s1"]


# mail that comes back after it was taken


BACK: dict[str, Any] = GONE | {"kind": "returned"}
FULL_BACK: dict[str, Any] = FULL | {"kind": "returned"}


def came_back(house: House, at: Any, after: Any, tenant: str, names: list[str], outcome: dict[str, Any]) -> None:
    """Their server takes the mail, and writes later that it could not be delivered."""
    for name in names:
        message = {"message_id": f"<{name}.{at:%d%H%M}@shop.example>"}
        house.mail(at, tenant, "yahoo", [name], **message)
        house.mail(at + after, tenant, "yahoo", [name], outcome, **message)


def test_a_bought_list_is_no_outage_where_a_server_takes_all_and_returns_it_later(house: House):
    lists = {tenant: people(tenant, 700) for tenant in ("s1", "s2", "s3")}
    deliver(house, NOON - DAY, "yahoo", **lists)
    wrong: list[str] = []
    for minute in range(0, 180, 10):
        for tenant, pool in lists.items():
            house.mail(NOON + minute * MINUTE, tenant, "yahoo", pool[minute : minute + 10])
        if minute < 30:
            some = [f"wrong{minute}x{number}" for number in range(40)]
            came_back(house, NOON + minute * MINUTE, 2 * HOUR, "s1", some, BACK)
            wrong += some
    house.pass_to(NOON + 3 * HOUR)
    house.pass_to(NOON + 8 * HOUR)
    assert house.register.outages(10) == []
    assert held(house, "yahoo", set(wrong)) == 1.0


def test_what_a_server_took_and_returned_is_no_delivery_that_begins_the_count_anew(house: House):
    for number in range(5):
        at = NOON + number * DAY
        house.mail(at, "s1", "yahoo", people("s1", 20))
        came_back(house, at, HOUR, "s1", ["ann"], FULL_BACK)
        came_back(house, at, HOUR, "s1", ["bob"], FULL_BACK)
        if number == 2:
            house.mail(at + 3 * HOUR, "s1", "yahoo", ["bob"])
        house.pass_to(at + 4 * HOUR)
        house.pass_to(at + 6 * HOUR)
    assert house.suppressed(["ann"], "yahoo", Reason.SOFT) == 1
    assert house.suppressed(["bob"], "yahoo", Reason.SOFT) == 0
