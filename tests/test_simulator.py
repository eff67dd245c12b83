"""The demo's marketplace: healthy mail never looks bad, planned incidents soon do, and the dispatcher obeys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from json import loads

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.model import Scope
from monitor.simulator import traffic
from monitor.simulator.delivery import Delivery
from monitor.simulator.incidents import EXAMPLE, IncidentKind, Planned, describe, parse, script
from monitor.simulator.lines import Message
from monitor.simulator.traffic import Group
from monitor.simulator.waiting import Waiting
from monitor.simulator.world import IPS, MARKETING, PROVIDERS, SEGMENTS, SELLERS, TRANSACTIONAL, Marketplace

BEGAN = datetime(2026, 11, 24, 10, tzinfo=UTC)
TICK = timedelta(seconds=2)
WINDOW = 150  # ticks: the five minutes of the bounce rules
ALERT, PAUSE = 0.05, 0.10


def lower(bad, total):
    """The lower 95 % bound of Wilson; NaN without exposure."""
    z = 1.959964
    with np.errstate(divide="ignore", invalid="ignore"):
        p = bad / total
        return (p + z**2 / 2 / total - z * np.sqrt(p * (1 - p) / total + z**2 / 4 / total**2)) / (1 + z**2 / total)


class Watched:
    """Decided and bounced messages by tick for each (tenant, segment) and (ip, provider), nobody braking."""

    def __init__(self, world: Marketplace, planned: Sequence[Planned], ticks: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        places = len(PROVIDERS) * len(IPS)
        self.segments, self.places = np.zeros((2, ticks, len(world.series))), np.zeros((2, ticks, places))
        self.blame = np.zeros((len(SELLERS), places))
        tenants = np.array([SELLERS.index(scope.tenant) for scope in world.series])
        for turn in range(ticks):
            groups, counts = traffic.draw(world, planned, turn * TICK, TICK, turn, rng)
            fate, _ = traffic.outcomes(world, planned, turn * TICK, groups, counts, rng)
            place = groups[:, 1] * len(IPS) + groups[:, 2]
            for each, numbers in enumerate((fate[:, 2], fate[:, 0] + fate[:, 2])):
                np.add.at(self.segments[each, turn], groups[:, 0], numbers)
                np.add.at(self.places[each, turn], place, numbers)
            np.add.at(self.blame, (tenants[groups[:, 0]], place), fate[:, 2])

    @staticmethod
    def tripped(counts, least: int, limit: float):
        """(ticks, series) whether the rule's last five minutes are over the limit."""
        summed = counts.cumsum(axis=1)
        summed[:, WINDOW:] -= summed[:, :-WINDOW].copy()
        return (summed[1] >= least) & (lower(*summed) > limit)


def planned_bought(tenant="s07", segment="lapsed-365d", after=timedelta(seconds=10), seconds=100):
    scope = Scope(tenant=tenant, segment=segment)
    return Planned(IncidentKind.BOUGHT_LIST, scope, after, timedelta(seconds=seconds))


def ticks(number, start=0):
    return [BEGAN + turn * TICK for turn in range(start, start + number)]


@pytest.fixture(scope="module")
def world():
    return Marketplace.from_seed(1)


# The world


@pytest.mark.parametrize("seed", range(20))
def test_nobody_healthy_trips_a_limit_in_twenty_minutes(seed):
    watched = Watched(Marketplace.from_seed(seed), (), ticks=600, seed=seed)
    assert not watched.tripped(watched.segments, 200, ALERT).any()
    assert not watched.tripped(watched.places, 500, ALERT).any()


@pytest.mark.parametrize("seed", range(5))
def test_a_marketplace_has_the_size_of_the_demo(seed):
    world = Marketplace.from_seed(seed)
    mail = [world.busy(timedelta(seconds=second)).sum() for second in range(0, 600, 10)]
    marketing = [row for row, scope in enumerate(world.series) if scope.stream == MARKETING]
    by_seller = [world.volume[world.rows(seller)].sum() for seller in SELLERS]

    assert (len(PROVIDERS), len(IPS), len(SEGMENTS), len(SELLERS)) == (6, 8, 12, 40)
    assert 145 < min(mail) < max(mail) < 225
    assert by_seller[0] > 3 * by_seller[19] > 3 * by_seller[39] > 0
    assert 300 * world.volume[marketing].sum(axis=1).min() > 200, "each decides enough for the rule"
    assert 0.003 < world.bounce.min() < world.bounce.max() < 0.018


def test_receipts_belong_to_no_segment_and_segments_are_named_with_their_seller(world):
    assert {scope.segment for scope in world.series if scope.stream == TRANSACTIONAL} == {""}
    assert {scope.segment for scope in world.series if scope.stream == MARKETING} == set(SEGMENTS)
    assert len(set(world.series)) == len(world.series)


def test_the_same_seed_gives_the_same_marketplace_and_mail(world):
    again = Marketplace.from_seed(1)
    assert again.series == world.series
    assert script(again, 1) == script(world, 1)
    one, other = (traffic.draw(each, (), 9 * TICK, TICK, 4, np.random.default_rng(0)) for each in (world, again))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert Marketplace.from_seed(2).series != world.series


def test_a_marketplace_cannot_be_written_to_and_wants_a_seed_from_zero(world):
    with pytest.raises(ValueError, match="read-only"):
        world.volume[0] = 1
    with pytest.raises(ValueError, match="seed -1 is negative"):
        Marketplace.from_seed(-1)


def test_each_seller_uses_all_ips_alike(world):
    rng = np.random.default_rng(0)
    mails = np.zeros((len(world.series), len(IPS)))
    for turn in range(160):
        groups, counts = traffic.draw(world, (), turn * TICK, TICK, turn, rng)
        np.add.at(mails, (groups[:, 0], groups[:, 2]), counts)
    shares = mails / mails.sum(axis=1, keepdims=True)
    assert shares[mails.sum(axis=1) > 300].min() > 0.05
    assert shares[mails.sum(axis=1) > 300].max() < 0.25


# Incidents


@pytest.mark.parametrize("seed", range(10))
def test_a_bought_list_trips_the_pause_limit_within_half_a_minute(seed):
    world = Marketplace.from_seed(seed)
    first = script(world, seed)[0]
    watched = Watched(world, [first], ticks=100, seed=seed)
    bad = watched.tripped(watched.segments, 200, PAUSE)
    (guilty,) = world.rows(first.scope.tenant, first.scope.segment)

    assert (first.kind, first.starts) == (IncidentKind.BOUGHT_LIST, timedelta(seconds=30))
    assert timedelta(seconds=8) < bad[:, guilty].argmax() * TICK - first.starts <= timedelta(seconds=30)
    assert np.flatnonzero(watched.tripped(watched.segments, 200, ALERT).any(axis=0)).tolist() == [guilty]
    assert not watched.tripped(watched.places, 500, ALERT).any(), "no IP is to blame"


@pytest.mark.parametrize("seed", range(10))
def test_a_refused_ip_trips_the_pause_limit_there_and_blames_no_seller(seed):
    world = Marketplace.from_seed(seed)
    second = script(world, seed)[1]
    watched = Watched(world, [second], ticks=150, seed=seed)
    bad = watched.tripped(watched.places, 500, PAUSE)
    place = PROVIDERS.index(second.scope.provider) * len(IPS) + IPS.index(second.scope.ip)
    blame = np.sort(watched.blame[:, place])[::-1]

    assert (second.kind, second.starts) == (IncidentKind.IP_REFUSED, timedelta(seconds=150))
    assert timedelta(0) < bad[:, place].argmax() * TICK - second.starts <= timedelta(seconds=50)
    assert np.flatnonzero(watched.tripped(watched.places, 500, ALERT).any(axis=0)).tolist() == [place]
    assert not watched.tripped(watched.segments, 200, ALERT).any(), "no seller is to blame"
    assert blame[2] > 0
    assert blame[0] < blame.sum() / 2


@given(
    seed=st.integers(0, 50), seller=st.sampled_from(SELLERS), segment=st.sampled_from(SEGMENTS), times=st.floats(3, 6)
)
def test_a_bought_list_makes_no_more_than_a_tenth_of_the_mail(seed, seller, segment, times):
    world = Marketplace.from_seed(seed)
    one = Planned(IncidentKind.BOUGHT_LIST, Scope(tenant=seller, segment=segment), TICK, TICK, times)
    row, more = traffic.extra(world, one)
    usual, everything = world.volume[world.rows(seller, segment)].sum(), world.volume.sum()
    assert world.series[row].tenant == seller
    assert more > 5
    assert (usual + more) / (everything + more) <= 0.1 + 1e-9


def test_a_bought_list_may_go_to_a_segment_that_the_seller_never_mailed(world):
    unused = next(segment for segment in SEGMENTS if not len(world.rows("s40", segment)))
    planned = [planned_bought("s40", unused, timedelta())]
    groups, counts = traffic.draw(world, planned, TICK, 10 * TICK, 0, np.random.default_rng(0))
    bought = groups[:, 4] == 0
    assert counts[bought].sum() > 20
    scope = traffic.labels_of(world, planned, Group(*groups[bought][0].tolist()))
    assert (scope.tenant, scope.segment, scope.campaign, scope.stream) == ("s40", unused, "new-contacts", MARKETING)


def test_without_a_flag_the_script_keeps_the_demo_alive_elsewhere(world):
    planned = script(world, 1)
    gaps = {later.starts - one.starts for one, later in pairwise(planned[1:])}
    assert planned[-1].starts > timedelta(hours=23)
    assert min(gaps) >= timedelta(minutes=3)
    assert max(gaps) <= timedelta(minutes=5)
    assert all(one.scope != later.scope for one, later in pairwise(planned))
    assert {one.kind for one in planned} == set(IncidentKind)
    assert planned != script(world, 2)


def test_flags_replace_the_script_in_order_of_time(world):
    late, soon = "ip-refused:ip=198.51.100.13,provider=yahoo@150s", EXAMPLE
    refused, bought = parse(late), parse(soon)
    assert script(world, 1, [late, soon]) == (bought, refused)
    assert (bought.kind, bought.starts) == (IncidentKind.BOUGHT_LIST, timedelta(seconds=40))
    assert bought.scope == Scope(tenant="s07", segment="lapsed-365d")
    assert refused.scope == Scope(ip="198.51.100.13", provider="yahoo")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write KIND:SCOPE@TIME, such as bought-list:"),
        ("bought-list", "write KIND:SCOPE@TIME"),
        ("bought-list:tenant=s07,segment=vip", "write KIND:SCOPE@TIME"),
        ("boughtlist:tenant=s07,segment=vip@4s", "no kind 'boughtlist': did you mean bought-list?"),
        ("bought-list:tenant=s07,segment=vip@soon", "'soon' is no duration: write a number and s, m, h or d"),
        ("bought-list:tenant=s07,segment=vip@-4s", "'-4s' is no duration"),
        ("bought-list:tenant=s07,segment=vip@", "'' is no duration"),
        ("bought-list:tenant=s99,segment=vip@4s", "no tenant 's99': it has s01 to s40"),
        ("bought-list:tenant=s07,segment=vips@4s", "no segment 'vips': did you mean vip?"),
        ("bought-list:tenant=s07@4s", "segment is missing in the scope: a bought-list takes tenant and segment"),
        ("bought-list:@4s", "'' in the scope is no label: write label=value"),
        ("bought-list:tenant=s07,segment=vip,color=red@4s", "'color' is no label of a bought-list"),
        ("bought-list:tenant=s07,segment=vip,ip=198.51.100.11@4s", "'ip' does not narrow a bought-list"),
        ("bought-list:tenant=s07,tenant=s08,segment=vip@4s", "tenant stands twice"),
        ("ip-refused:ip=192.0.2.1,provider=yahoo@4s", "no ip '192.0.2.1'"),
        ("ip-refused:ip=198.51.100.13,provider=aol@4s", "no provider 'aol': it has gmail, yahoo,"),
    ],
)
def test_an_unreadable_incident_is_refused_with_the_part_and_the_remedy(text, why):
    with pytest.raises(ValueError) as refused:
        parse(text)
    assert why in str(refused.value)
    assert repr(text) in str(refused.value)


@given(st.text(max_size=60))
def test_no_text_makes_the_parser_fail_otherwise(text):
    with pytest.raises(ValueError, match="incident"):
        parse(text)


def test_the_terminal_tells_what_to_watch(world):
    flags = [EXAMPLE, "ip-refused:ip=198.51.100.13,provider=yahoo@150s"]
    bought, refused = describe(script(world, 1, flags))
    assert bought.startswith("At 0:40 seller s07 mails a bought list to lapsed-365d")
    assert refused.startswith("At 2:30 yahoo refuses 198.51.100.13 for 2:00 minutes")
    assert len(describe(script(world, 1))) == 3


# What becomes of mail


def messages(world, number, provider="gmail", planned=(), bought=-1):
    """As many new messages of the largest seller's first segment by the first IP."""
    group = Group(int(world.rows("s01")[0]), PROVIDERS.index(provider), 0, 0, bought)
    scope = traffic.labels_of(world, planned, group)
    return [Message(group, scope, f"<{each}@x.example>", f"user{each}@x.example", BEGAN) for each in range(number)]


def lived(delivery, mail, ticks_at):
    """The lines about ``mail`` from its first attempt on, retries and complaints included."""
    told = list(delivery.attempt(mail, BEGAN, TICK))
    for at in ticks_at:
        told += delivery.complaints(at)
        told += delivery.attempt(delivery.retries(at, lambda _message: True), at, TICK)
    return [loads(line) for line in told]


def test_a_deferred_message_is_tried_again_as_the_same_message(world):
    delivery = Delivery(world, (), BEGAN, np.random.default_rng(0))
    events = lived(delivery, messages(world, 2000), ticks(30))
    first = {event["message_id"]: event for event in events if event["attempt"] == 1}
    second = [event for event in events if event["attempt"] == 2]
    same = ("message_id", "recipient", "sent_at", "ip", "tenant", "campaign")
    assert 20 < len(second) < 150
    for event in second:
        before = first[event["message_id"]]
        assert before["kind"] == "deferred"
        assert [event[name] for name in same] == [before[name] for name in same]
        assert event["at"] > before["at"]


def test_a_refused_ip_delivers_nothing_there_and_what_is_put_off_too_often_expires(world):
    scope = Scope(ip=IPS[0], provider="gmail")
    refused = Planned(IncidentKind.IP_REFUSED, scope, timedelta(), timedelta(minutes=10))
    delivery = Delivery(world, [refused], BEGAN, np.random.default_rng(0))
    events = lived(delivery, messages(world, 2000), ticks(100))
    kinds = Counter(event["kind"] for event in events)
    assert set(kinds) == {"bounced", "deferred", "expired"}
    assert kinds["bounced"] + kinds["expired"] == 2000
    assert {event["attempt"] for event in events if event["kind"] == "expired"} == {4}
    assert {(event["code"], event["dsn"]) for event in events} == {(550, "5.7.1"), (421, "4.7.0")}
    elsewhere = lived(delivery, messages(world, 100, "yahoo"), [])
    assert Counter(event["kind"] for event in elsewhere)["sent"] > 80


def test_complaints_come_later_about_mail_that_was_delivered_where_somebody_reports(world):
    planned = [planned_bought("s01", "vip", timedelta())]
    delivery = Delivery(world, planned, BEGAN, np.random.default_rng(0))
    events = lived(delivery, messages(world, 1000, "yahoo", planned, bought=0), ticks(40))
    sent = {event["message_id"]: event for event in events if event["kind"] == "sent"}
    complaints = [event for event in events if event["kind"] == "complaint"]
    assert complaints
    assert all(event["sent_at"] == sent[event["message_id"]]["sent_at"] for event in complaints)
    assert all("" < sent[event["message_id"]]["at"] < event["at"] for event in complaints)
    silent = lived(delivery, messages(world, 1000, "gmail", planned, bought=0), ticks(40))
    assert "complaint" not in {event["kind"] for event in silent}


# What waits


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), max_size=30), st.integers(1, 40))
def test_waiting_mail_is_neither_lost_nor_doubled_and_leaves_slowly(arrivals, usual):
    waiting, out = Waiting(), 0
    for row, count in arrivals:
        waiting.add(Group(row, 0, 0, 0, -1), count)
    everything = len(waiting)
    while len(waiting):
        gone = list(waiting.release(lambda _group, most: most, dict.fromkeys(range(4), usual), {(0, 0): usual}))
        assert 0 < sum(count for _, count in gone) <= max(1, round(usual / 2))
        out += sum(count for _, count in gone)
    assert out == everything == sum(count for _, count in arrivals)


def test_a_segment_that_is_new_to_a_seller_can_be_mailed():
    world = Marketplace.from_seed(9)
    missing = next(name for name in SEGMENTS if not len(world.rows("s30", name)))
    wider = world.mailing("s30", missing)
    assert len(wider.rows("s30", missing)) == 1
    assert wider.volume.shape[0] == len(wider.series) == len(world.series) + 1
    assert wider.mailing("s30", missing) is wider
