"""The demo's dispatcher: it obeys the brake, and neither a dead brake nor a full ingest stops the mail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from monitor.model import Scope
from monitor.simulator.dispatcher import Dispatcher, real_time, run
from monitor.simulator.incidents import IncidentKind, Planned, script
from monitor.simulator.world import IPS, MARKETING, Marketplace
from tests.servers.ownside import OwnSide

BEGAN = datetime(2026, 11, 24, 10, tzinfo=UTC)
TICK = timedelta(seconds=2)


def bought(seconds=100):
    """A bought list of seller s05 from the first tick on."""
    scope = Scope(tenant="s05", segment="vip")
    return Planned(IncidentKind.BOUGHT_LIST, scope, timedelta(), timedelta(seconds=seconds))


def ticks(number, start=0):
    return [BEGAN + turn * TICK for turn in range(start, start + number)]


@pytest.fixture(scope="module")
def world():
    return Marketplace.from_seed(1)


@pytest.fixture
def side() -> Iterator[OwnSide]:
    with OwnSide() as side:
        yield side


@pytest.fixture
def dispatch(side, world) -> Iterator[Callable[..., Dispatcher]]:
    started = []

    def build(*planned: Planned, token: str = "") -> Dispatcher:
        started.append(Dispatcher(side.url, world, planned, began=BEGAN, token=token))
        return started[-1]

    yield build
    for dispatcher in started:
        dispatcher.close()


def tried(events, **labels):
    """Attempts at delivery in that scope."""
    return sum(
        event["kind"] in ("sent", "deferred", "bounced", "expired") and labels.items() <= event.items()
        for event in events
    )


def test_a_held_segment_falls_silent_while_others_go_on_and_resumes(side, dispatch):
    vip = {"tenant": "s05", "segment": "vip"}
    side.held = [vip]
    dispatcher = dispatch(bought())
    for at in ticks(8):
        dispatcher.tick(at)

    held = [event for event in side.events if event["kind"] == "held"]
    assert tried(side.events, **vip) == 0
    assert tried(side.events, tenant="s02") > 100
    assert all(vip.items() <= event.items() for event in held)
    assert sum(event["count"] for event in held) == dispatcher.tally.held == len(dispatcher.waiting) > 80
    assert len({event["message_id"] for event in held}) == len(held), "none may be taken for another"

    side.held, side.events = [], []
    waiting = len(dispatcher.waiting)
    for at in ticks(8, start=8):
        dispatcher.tick(at)
    assert tried(side.events, **vip) > 100
    assert 0 < dispatcher.tally.released < waiting, "gently"


def test_what_waits_of_a_bought_list_is_taken_back_when_its_time_is_over(side, dispatch):
    side.held = [{"tenant": "s05"}]
    dispatcher = dispatch(bought(seconds=10))
    for at in ticks(5):
        dispatcher.tick(at)
    assert dispatcher.tally.withdrawn == 0
    dispatcher.tick(BEGAN + 5 * TICK)
    assert dispatcher.tally.withdrawn > 50
    assert dispatcher.tally.held == dispatcher.tally.withdrawn + len(dispatcher.waiting)


def test_a_throttled_scope_sends_its_share(side, dispatch):
    side.held, side.share = [{"stream": MARKETING}], 0.25
    dispatcher = dispatch()
    for at in ticks(5):
        dispatcher.tick(at)
    marketing = tried(side.events, stream=MARKETING)
    assert 0.15 < (marketing - dispatcher.tally.released) / (marketing + len(dispatcher.waiting)) < 0.35


def test_retries_into_a_held_scope_wait_too(side, dispatch):
    dispatcher = dispatch()
    dispatcher.tick(BEGAN)
    side.held, side.events = [{}], []
    for at in ticks(3, start=8):
        dispatcher.tick(at)
    assert tried(side.events) == 0
    side.held = []
    for at in ticks(6, start=11):
        dispatcher.tick(at)
    assert tried(side.events, attempt=2) > 3


def test_a_line_says_all_that_the_ingest_takes(side, dispatch):
    dispatch(bought()).tick(BEGAN)
    event = next(event for event in side.events if event["kind"] == "bounced" and event["campaign"] == "new-contacts")
    at = datetime.fromisoformat(event.pop("at"))
    assert BEGAN - TICK <= at <= BEGAN
    assert datetime.fromisoformat(event.pop("sent_at")) == at
    assert event.pop("message_id").endswith("@news.s05.example>")
    recipient, provider, ip = event.pop("recipient"), event.pop("provider"), event.pop("ip")
    assert recipient.endswith(f"@{provider}.example")
    assert ip in IPS
    assert event == {
        "kind": "bounced",
        "attempt": 1,
        "domain": "news.s05.example",
        "stream": MARKETING,
        "tenant": "s05",
        "segment": "vip",
        "campaign": "new-contacts",
        "code": 550,
        "dsn": "5.1.1",
        "relay": f"mx.{provider}.example",
        "reply": f"550 5.1.1 <{recipient}>: no such user here",
        "count": 1,
    }


def test_the_question_names_all_labels_that_the_mail_has(side, dispatch):
    dispatch().tick(BEGAN)
    marketing = next(question for question in side.questions if question["stream"] == MARKETING)
    assert set(marketing) == {"ip", "domain", "provider", "stream", "tenant", "segment", "campaign"}
    assert len(side.questions) < 2 * 130


def test_an_answer_is_remembered_for_half_its_time(side, world, dispatch):
    side.ttl = 9
    dispatcher = dispatch()
    brake, scope = dispatcher._brake, world.series[0]
    for second in (0, 4, 5):
        brake.share(scope, BEGAN + timedelta(seconds=second))
    assert len(side.questions) == 2


@pytest.mark.parametrize("status", [500, 401, 0], ids=["broken", "not allowed", "hangs"])
def test_mail_flows_when_the_brake_gives_no_answer(side, dispatch, status):
    side.check = status
    dispatcher = dispatch()
    for at in ticks(2):
        dispatcher.tick(at)
    assert tried(side.events) > 500
    assert dispatcher.tally.held == 0
    assert dispatcher.tally.unanswered > 200
    assert dispatcher.tally.asked == 6, "and is not kept waiting for each message"


def test_a_silent_brake_is_told_of_once_and_so_is_its_return(side, dispatch, caplog):
    caplog.set_level("INFO", "monitor.simulator")
    side.check = 500
    dispatcher = dispatch()
    for at in ticks(2):
        dispatcher.tick(at)
    side.check = 200
    dispatcher.tick(BEGAN + 2 * TICK)
    assert [record.getMessage() for record in caplog.records] == [
        "the brake does not answer, mail goes on",
        "the brake answers again",
    ]


def test_mail_flows_when_the_service_is_not_there_and_its_story_waits_within_bounds(world):
    with OwnSide() as side:
        url = side.url
    dispatcher = Dispatcher(url, world, (), began=BEGAN)
    dispatcher.outbox._kept = 1_000
    for at in ticks(5):
        dispatcher.tick(at)
    dispatcher.close()
    assert dispatcher.tally.mailed > 1_500
    assert len(dispatcher.outbox) == 1_000
    assert dispatcher.tally.lost >= dispatcher.tally.mailed - 1_000


def test_lines_that_are_too_many_wait_as_long_as_the_service_asks(side, dispatch):
    side.ingest = 429
    dispatcher = dispatch()
    for at in ticks(2):
        dispatcher.tick(at)
    assert len(side.posts) == 1, "four seconds of peace"
    dispatcher.tick(BEGAN + 2 * TICK)
    assert len(side.posts) == 2
    side.ingest = 202
    for at in ticks(3, start=3):
        dispatcher.tick(at)
    assert len(dispatcher.outbox) == dispatcher.tally.lost == 0
    assert dispatcher.tally.mailed <= tried(side.events)
    assert len({event["message_id"] for event in side.events if event.get("attempt") == 1}) == tried(
        side.events, attempt=1
    ), "each line once"


def test_too_large_a_batch_is_halved(side, dispatch):
    side.ingest = 413
    dispatcher = dispatch()
    dispatcher.tick(BEGAN)
    side.ingest = 202
    dispatcher.tick(BEGAN + TICK)
    assert side.posts[0] > 250
    assert max(side.posts[1:]) == 250
    assert len(dispatcher.outbox) == 0


def test_rejected_lines_are_counted_and_the_others_are_not_sent_again(side, dispatch):
    side.reject_first = True
    dispatcher = dispatch()
    dispatcher.tick(BEGAN)
    assert dispatcher.tally.rejected == len(side.posts)
    assert dispatcher.tally.accepted == len(side.events)
    assert len(dispatcher.outbox) == 0


def test_a_batch_without_one_good_line_is_counted_and_not_sent_again(side, dispatch):
    side.ingest = 422
    dispatcher = dispatch()
    dispatcher.tick(BEGAN)
    assert (dispatcher.tally.rejected, dispatcher.tally.accepted) == (sum(side.posts), 0)
    assert len(dispatcher.outbox) == 0


def test_the_token_is_shown_at_both_doors(side, dispatch):
    side.token = "secret"
    allowed, refused = dispatch(token="secret"), dispatch()
    allowed.tick(BEGAN)
    refused.tick(BEGAN)
    assert (allowed.tally.unanswered, len(allowed.outbox)) == (0, 0)
    assert refused.tally.unanswered > 100
    assert len(refused.outbox) == refused.tally.mailed


def test_the_same_seed_and_ticks_give_the_same_mail(world):
    told = []
    for _ in range(2):
        with OwnSide() as side:
            run(side.url, world, script(world, 1), stop=threading.Event(), ticks=ticks(8))
            told.append(side.events)
    assert told[0] == told[1]


def test_a_long_sleep_is_followed_by_no_burst(side, dispatch):
    dispatcher = dispatch()
    dispatcher.tick(BEGAN)
    dispatcher.tick(BEGAN + timedelta(hours=1))
    assert dispatcher.tally.mailed < 2 * 5 * 220


def test_it_stops_when_told(side, world):
    stop = threading.Event()
    dispatching = threading.Thread(target=run, args=(side.url, world, ()), kwargs={"stop": stop})
    dispatching.start()
    deadline = threading.Timer(20, stop.set)
    deadline.start()
    for _ in real_time(stop, timedelta(milliseconds=10)):
        if side.events:
            break
    stop.set()
    deadline.cancel()
    dispatching.join(20)
    assert not dispatching.is_alive()
    assert side.events
