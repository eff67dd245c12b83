"""Whose message a bounce or complaint is about: found by whatever clue, and never on a stranger's word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

import mailvane_client
from collectors.sendlog import Sendlog
from monitor import tracekeys
from monitor.attribution import Attributor
from monitor.facts.prepare import SELLERS
from monitor.facts.raw import Event, history
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger.db import open_ledger
from monitor.model import Batch, Clues, Kind, named
from monitor.pipeline import Applier, take
from monitor.settings import Attribution
from monitor.spool import Spool
from monitor.tracekeys import KeyFile
from monitor.tracing import Key, Keys
from monitor.weighing import Found, weigh
from monitor.witnesses import Listener, Report
from tests.storing import empty, store

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)  # a Tuesday
SENT = NOW - timedelta(hours=2)
PERSON = "jane@example.net"
MESSAGE = "1@shop.example"
PATTERN = r"^b-(?P<tenant>[^-]+)-(?P<segment>[^-]+)-(?P<campaign>[^-+@]+)"
SELLER = {"tenant": "s07", "segment": "lapsed", "campaign": "spring", "stream": "marketing"}
FEEDBACK = r"^(?P<campaign>[^:]*):(?P<segment>[^:]*):(?P<tenant>[^:]*):"


def micros(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


@dataclass
class Road:
    facts: Facts
    keyring: Keyring
    spool: Spool
    ledger: Engine
    folder: Path
    now: datetime = NOW

    def attributor(self, **settings: Any) -> Attributor:
        told = Attribution(**{"feedback_id": FEEDBACK, **settings})
        return Attributor(self.facts, self.ledger, self.keyring, told, KeyFile(self.folder / "trace.keys"), [PATTERN])

    @property
    def key(self) -> str:
        path = self.folder / "trace.keys"
        if not path.exists():
            tracekeys.make(path, NOW)
        return mailvane_client.trace_key(path)

    def traced(self, at: datetime = SENT, recipient: str = PERSON, message_id: str = MESSAGE, **labels: str) -> str:
        told = {"recipient": recipient, "message_id": message_id, "at": at.timestamp(), **(labels or SELLER)}
        return mailvane_client.trace(self.key, **told)

    def verped(self, address: str = "b-s07-lapsed-spring@mta.example", recipient: str = PERSON) -> str:
        return mailvane_client.verp(self.key, address, recipient, SENT.timestamp())

    def tell(self, *rows: dict[str, Any], source: str = "log") -> None:
        """Facts from elsewhere, applied."""
        told = [
            {
                "kind": "sent",
                "at": micros(SENT),
                "message_id": MESSAGE,
                "recipient": PERSON,
                "provider": "gmail",
                **SELLER,
                **row,
            }
            for row in rows
        ]
        self.put(Batch({name: [row[name] for row in told] for name in told[0]}), source)

    def log(self, *lines: str) -> None:
        """What Postfix's log tells, applied."""
        parser = Sendlog(path="mail.log", sender_pattern=PATTERN, ip="198.51.100.1").parser(self.now)
        self.put(parser.feed("".join(f"{line}\n" for line in lines).encode()))

    def put(self, batch: Batch, source: str = "log") -> None:
        take(batch, self.spool, self.keyring, source=source, node="n", now=self.now, bounds=None)
        Applier(self.spool, self.facts, self.ledger, self.keyring).drain()

    def report(
        self, *reports: tuple[dict[str, Any], Clues], settings: dict[str, Any] | None = None, **more: Any
    ) -> Batch:
        return self.attributor(**(settings or {})).place("inbox", batch(*reports), self.now, **more)

    def events(self, recipient: str = PERSON) -> tuple[Event, ...]:
        span = NOW - timedelta(days=60), NOW + timedelta(days=1)
        return history(self.facts, *span, recipient=self.keyring.pseudonym(recipient))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Facts, Keyring]]:
    folder = tmp_path_factory.mktemp("data")
    keyring = Keyring.open(folder / "keyring")
    with store(folder / "facts") as facts:
        yield facts, keyring
    keyring.close()


@contextmanager
def fresh(opened: tuple[Facts, Keyring], folder: Path) -> Iterator[Road]:
    facts, keyring = opened
    empty(facts)
    spool, ledger = Spool(folder / "spool"), open_ledger(folder / "ledger.sqlite")
    try:
        yield Road(facts, keyring, spool, ledger, folder)
    finally:
        ledger.dispose()
        spool.close()


@pytest.fixture
def road(opened, tmp_path) -> Iterator[Road]:
    with fresh(opened, tmp_path) as made:
        yield made


def bounce(kind: str = "bounced", at: datetime = NOW, recipient: str = PERSON, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "at": micros(at), "recipient": recipient, "message_id": "", "id": "letter 1", **more}


def complaint(**more: Any) -> dict[str, Any]:
    return bounce(**{"kind": "complaint", **more})


def batch(*reports: tuple[dict[str, Any], Clues]) -> Batch:
    rows = [row for row, _ in reports]
    columns: dict[str, Sequence[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    return Batch(
        columns, {"uid": 9}, clues=[clues for _, clues in reports], places=[f"letter {at}" for at in range(len(rows))]
    )


def only(found: Batch) -> dict[str, Any]:
    (row,) = rows(found)
    return row


def rows(found: Batch) -> list[dict[str, Any]]:
    return [dict(zip(found.columns, row, strict=True)) for row in zip(*found.columns.values(), strict=True)]


def told(row: dict[str, Any], **expected: Any) -> bool:
    return {name: row[name] for name in expected} == expected


def test_a_batch_without_clues_is_left_alone(road):
    plain = Batch({"kind": ["sent"]}, {"offset": 1})
    assert road.attributor().place("log", plain, NOW) is plain


def test_reports_that_nobody_attributed_go_nowhere(road):
    with pytest.raises(ValueError, match="nobody attributed"):
        road.put(batch((bounce(), Clues())))


def test_what_stands_around_the_rows_stays(road):
    found = road.report((bounce(), Clues()), settings={"waiting": 0})
    assert (found.cursor, found.clues, list(found.places)) == ({"uid": 9}, (), ["letter 0"])


# our own mark


def test_a_mark_of_ours_tells_seller_and_time_and_vouches_for_a_bounce(road):
    row = only(road.report((bounce(), Clues(token=road.traced(), message_id=f"<{MESSAGE}>"))))
    assert told(row, **SELLER, kind="returned", found_by="token", sent_at=micros(SENT), message_id=MESSAGE)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"recipient": "joe@example.net"}, "another recipient"),
        ({"message_id": "2@shop.example"}, "another message"),
        ({"at": NOW - timedelta(days=61)}, "expired"),
        ({"at": NOW + timedelta(hours=1)}, "of the future"),
    ],
    ids=["recipient", "message", "old", "future"],
)
def test_a_mark_of_another_message_vouches_for_nothing(road, changed, why):
    attributor = road.attributor(waiting=0)
    found = attributor.place("inbox", batch((bounce(), Clues(token=road.traced(**changed), message_id=MESSAGE))), NOW)
    assert told(only(found), kind="unverified_bounce", tenant="", found_by="")
    assert attributor.tally.refused == {("inbox", why): 1}


def test_a_forged_mark_vouches_for_nothing(road):
    strangers = mailvane_client.trace("A" * 43, recipient=PERSON, message_id=MESSAGE, at=SENT.timestamp(), **SELLER)
    road.key  # noqa: B018  # there is one
    found = road.report((bounce(), Clues(token=strangers, message_id=MESSAGE)), settings={"waiting": 0})
    assert told(only(found), kind="unverified_bounce", tenant="", found_by="")


@pytest.mark.parametrize(("kind", "counts"), [("bounced", "returned"), ("complaint", "complaint")])
def test_one_mark_counts_once_however_often_it_is_replayed(road, kind, counts):
    clues = Clues(token=road.traced())
    for at in range(3):
        row = bounce(kind, recipient="", id=f"letter {at}", at=NOW + timedelta(seconds=at))
        road.put(road.report((row, clues)), "inbox")
    assert [
        str(event.kind)
        for event in history(road.facts, SENT, NOW + timedelta(hours=1), message=road.keyring.message(MESSAGE))
    ] == [counts]


def test_a_mark_may_stand_in_the_link_to_unsubscribe(road):
    link = f"<https://shop.example/u/{''.join(road.traced().split())}>"
    row = only(road.report((bounce("unsubscribed"), Clues(unsubscribe=link))))
    assert told(row, **SELLER, kind="unsubscribed", found_by="unsubscribe", sent_at=micros(SENT))


def test_a_marked_return_path_vouches_for_its_seller_and_recipient(road):
    path = road.verped().upper().replace("B-S07-LAPSED-SPRING", "b-s07-lapsed-spring")
    row = only(road.report((bounce(), Clues(return_path=path))))
    assert told(row, kind="returned", found_by="return_path", tenant="s07", campaign="spring", domain="mta.example")
    assert row["sent_at"] == micros(SENT)
    assert row["message_id"]

    other = road.report(
        (bounce(recipient="joe@example.net"), Clues(return_path=road.verped())), settings={"waiting": 0}
    )
    assert told(only(other), kind="unverified_bounce", tenant="s07", found_by="return_path")


def test_a_return_path_for_another_seller_is_no_mark_of_ours(road):
    forged = road.verped().replace("b-s07", "b-s08")
    found = road.report((bounce(), Clues(return_path=forged)), settings={"waiting": 0})
    assert told(only(found), kind="unverified_bounce", tenant="s08")


# what the facts know


def test_a_message_that_is_known_vouches_for_a_bounce(road):
    road.tell({"ip": "198.51.100.1"})
    row = only(road.report((bounce(), Clues(message_id=f"<{MESSAGE}>"))))
    assert told(
        row, **SELLER, kind="returned", found_by="message_id", ip="198.51.100.1", provider="gmail", sent_at=micros(SENT)
    )


def test_a_known_message_of_another_recipient_vouches_for_nothing(road):
    road.tell({"recipient": "joe@example.net"})
    attributor = road.attributor(waiting=0)
    found = attributor.place("inbox", batch((bounce(), Clues(message_id=MESSAGE))), NOW)
    assert told(only(found), kind="unverified_bounce", tenant="")
    assert attributor.tally.unattributed == {("inbox", "too many wait"): 1}


def test_a_known_message_of_nobody_by_name_bounces_once_whoever_is_made_up(road):
    road.tell({"recipient": ""})
    made_up = [(bounce(recipient=f"r{at}@example.net", id=str(at)), Clues(message_id=MESSAGE)) for at in range(5)]
    road.put(road.report(*made_up), "inbox")
    events = history(
        road.facts, NOW - timedelta(days=1), NOW + timedelta(hours=1), message=road.keyring.message(MESSAGE)
    )
    assert [event.count for event in events if event.kind is Kind.RETURNED] == [1]


def test_a_report_that_hides_its_recipient_is_about_the_known_message(road):
    road.tell({}, {"recipient": "joe@example.net"})
    assert told(only(road.report((complaint(recipient=""), Clues(message_id=MESSAGE)))), kind="complaint", tenant="s07")


def test_what_strangers_reported_before_makes_no_message_known(road):
    for _ in range(2):
        found = road.report((bounce(), Clues(message_id="forged@shop.example")), settings={"waiting": 0})
        assert told(only(found), kind="unverified_bounce")
        road.put(found, "inbox")


def test_a_seller_can_not_draw_others_complaints_to_another(road):
    road.tell({})
    road.tell({"tenant": "s66", "at": micros(SENT + timedelta(minutes=1))}, source=SELLERS)
    assert told(only(road.report((complaint(), Clues(message_id=MESSAGE)))), tenant="s07", found_by="message_id")


TO_JANE = (
    "2026-11-24T10:00:01.000000+00:00 mx1 postfix/smtp[2]: {qid}: to=<jane@example.net>, "
    "relay=mx.example.net[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=5.1.1, status=bounced "
    "(host mx.example.net[192.0.2.1] said: 550 5.1.1 no such user (in reply to RCPT TO))"
)
LOG = (
    "2026-11-24T10:00:00.000000+00:00 mx1 postfix/qmgr[1]: {qid}: from=<b-s07-lapsed-spring@mta.example>, size=1, nrcpt=2 (queue active)",
    TO_JANE,
)


@pytest.mark.parametrize("qid", ["4Zq3Lm0Rs2z1bD", "5A0B11C0"], ids=["long", "short"])
@pytest.mark.parametrize("host", ["mx1", "MX1.mta.example", "out.example"])
@pytest.mark.parametrize("dated", [True, False], ids=["dated", "undated"])
def test_a_bounce_that_log_and_notice_both_tell_counts_once(road, qid, host, dated):
    road.log(*(line.format(qid=qid) for line in LOG))
    clues = Clues(queue_id=f"{host}/{qid}", message_id=MESSAGE, token=road.traced(), sent=micros(SENT) if dated else 0)
    found = road.report((bounce(at=SENT + timedelta(seconds=3)), clues), settings={"hosts": {"out.example": "mx1"}})
    assert told(only(found), tenant="s07", kind="bounced", found_by="token")
    road.put(found, "inbox")
    assert [(event.kind, event.source) for event in road.events()] == [(Kind.BOUNCED, "log")]


@pytest.mark.parametrize("weekly", [True, False], ids=["told", "untold"])
def test_a_short_queue_id_is_found_around_the_turn_of_its_week(road, weekly):
    turn = datetime(2026, 11, 22, 3, 37, 11, tzinfo=UTC)  # a Sunday
    before = turn - timedelta(seconds=30)
    line = LOG[1].replace("2026-11-24T10:00:01.000000", f"{before:%Y-%m-%dT%H:%M:%S}.000000").format(qid="5A0B11C0")
    road.log(line)
    week = int((turn.timestamp() - 4 * 86_400 - 3 * 3600 - 37 * 60 - 11) // (7 * 86_400))
    clues = Clues(queue_id=f"mx1/5A0B11C0{f'@{week + 1}' if weekly else ''}")  # by the notice it came in the week after
    found = road.report((bounce(at=turn + timedelta(minutes=5)), clues))
    assert told(only(found), kind="bounced", found_by="queue_id")
    road.put(found, "inbox")
    assert len(road.events()) == 1


ENDED = "2026-11-24T11:00:00.000000+00:00 mx1 postfix/qmgr[1]: {qid}: from=<b-s07-lapsed-spring@mta.example>, status=expired, returned to sender"


@pytest.mark.parametrize("qid", ["4Zq3Lm0Rs2z1bD", "5A0B11C0"], ids=["long", "short"])
def test_the_end_in_the_queue_that_the_log_tells_for_all_is_not_told_for_each(road, qid):
    deferred = [LOG[1].format(qid=qid).replace("bounced", "deferred").replace("jane", name) for name in ("jane", "joe")]
    road.log(LOG[0].format(qid=qid), *deferred, ENDED.format(qid=qid))
    both = [
        (bounce("expired", recipient=f"{name}@example.net", at=SENT + timedelta(hours=1)), Clues(queue_id=f"mx1/{qid}"))
        for name in ("jane", "joe")
    ]
    found = road.report(*both)
    assert [row["recipient"] for row in rows(found)] == ["", ""]
    road.put(found, "inbox")
    message = road.events()[0].message
    told = history(road.facts, NOW - timedelta(days=1), NOW, message=message)
    assert [(event.kind, event.count) for event in told if event.kind is Kind.EXPIRED] == [(Kind.EXPIRED, 2)]


def test_an_end_in_the_queue_waits_for_the_log_to_tell_it(road):
    road.log(LOG[0].format(qid="4Zq3Lm0Rs2z1bD"), LOG[1].format(qid="4Zq3Lm0Rs2z1bD").replace("bounced", "deferred"))
    report = (bounce("expired", at=SENT + timedelta(hours=1)), Clues(queue_id="mx1/4Zq3Lm0Rs2z1bD"))
    assert len(road.report(report)) == 0


def test_a_notice_of_another_server_counts_under_the_message_that_our_log_sent(road):
    sent = LOG[1].format(qid="4Zq3Lm0Rs2z1bD").replace("status=bounced (host", "status=sent (host")
    road.log(LOG[0].format(qid="4Zq3Lm0Rs2z1bD"), sent)
    clues = Clues(token=road.traced(), message_id=MESSAGE, queue_id="their.example/ABC123")
    road.put(road.report((bounce(), clues)), "inbox")
    assert {(event.kind, named(event.scope)["tenant"], event.found_by) for event in road.events()} == {
        (Kind.SENT, "s07", ""),
        (Kind.RETURNED, "s07", "token"),
    }
    assert len({event.message for event in road.events()}) == 1


# by whom it went to


def test_the_only_mail_to_a_recipient_tells_whose_it_was_and_proves_nothing(road):
    road.tell({})
    row = only(road.report((bounce(), Clues())))
    assert told(row, **SELLER, kind="unverified_bounce", found_by="recipient", sent_at=micros(SENT))


def test_of_several_mails_the_time_or_address_of_sending_tells_which(road):
    yesterday = NOW - timedelta(days=1)
    road.tell(
        {"ip": "198.51.100.1"},
        {"at": micros(yesterday), "message_id": "0@shop.example", "tenant": "s08", "ip": "198.51.100.2"},
    )
    assert told(only(road.report((bounce(), Clues(sent=micros(yesterday))))), tenant="s08")
    assert told(only(road.report((bounce(id="2"), Clues(ip="198.51.100.1")))), tenant="s07")

    attributor = road.attributor()
    assert told(
        only(attributor.place("inbox", batch((bounce(id="3"), Clues())), NOW)), tenant="", kind="unverified_bounce"
    )
    assert attributor.tally.unattributed == {("inbox", "ambiguous"): 1}


def test_mail_of_long_ago_or_of_another_time_is_not_what_came_back(road):
    road.tell({"at": micros(NOW - timedelta(days=6))})
    assert told(only(road.report((bounce(), Clues()), settings={"waiting": 0})), tenant="")
    road.tell({"message_id": "new@shop.example"})
    clues = Clues(sent=micros(NOW - timedelta(days=3)))
    assert told(only(road.report((bounce(id="2"), clues), settings={"waiting": 0})), tenant="")


# what anybody could have written


FORGED = Clues(feedback_id="spring:lapsed:s07:shop", sender="shop@shop.example", ip="203.0.113.9")


def test_labels_that_anybody_could_write_count_for_nothing(road):
    lowered = {"bounced": "unverified_bounce", "expired": "unverified_bounce", "complaint": "unverified_complaint"}
    for kind, counts in lowered.items():
        row = only(road.report((bounce(kind, recipient=""), FORGED)))
        assert told(row, kind=counts, tenant="s07", found_by="feedback_id", ip="203.0.113.9", domain="shop.example")


def test_labels_that_anybody_could_write_count_where_one_says_so(road):
    for kind, counts in (("bounced", "returned"), ("complaint", "complaint")):
        row = only(road.report((bounce(kind, recipient=""), FORGED), settings={"believe": "labelled"}))
        assert told(row, kind=counts, tenant="s07", found_by="feedback_id")


def test_a_complaint_about_nobody_s_message_stays_one_without_a_seller(road):
    row = only(road.report((complaint(recipient=""), Clues(vouched=True))))
    assert told(row, kind="complaint", tenant="", found_by="")


def test_a_true_complaint_to_somebody_else_about_nobody_s_message_counts_for_nothing(road):
    row = only(road.report((complaint(recipient=""), Clues(vouched=True, astray=True))))
    assert told(row, kind="unverified_complaint", tenant="", found_by="")
    road.tell({})
    row = only(road.report((complaint(id="2"), Clues(vouched=True, astray=True, message_id=MESSAGE))))
    assert told(row, kind="complaint", tenant="s07")


def test_no_address_is_in_a_repr(road):
    heard = Listener(Attribution()).hear(Report(bounce(), Clues(queue_id="mx1/1", message_id=MESSAGE)), Keys(), NOW)
    assert PERSON not in repr(heard) + repr(heard.report) + repr(weigh(heard, Found()))
    assert MESSAGE not in repr(heard) + repr(weigh(heard, Found()))


def test_a_feedback_id_that_our_own_signature_covers_makes_a_complaint_count(road):
    covered = Clues(feedback_id=FORGED.feedback_id, covered=True)
    assert told(only(road.report((complaint(recipient=""), covered))), kind="complaint", tenant="s07")
    # Signed mail can be sent on to anybody, so it proves no bounce.
    assert told(only(road.report((bounce(recipient=""), covered))), kind="unverified_bounce", tenant="s07")


@pytest.mark.parametrize("kind", ["unsubscribed", "not_spam"])
def test_whatever_else_is_reported_gets_no_seller_on_a_strangers_word(road, kind):
    attributor = road.attributor()
    row = only(attributor.place("inbox", batch((bounce(kind, recipient=""), FORGED)), NOW))
    assert told(row, kind=kind, tenant="", found_by="")
    assert attributor.tally.unattributed == {("inbox", "not vouched for"): 1}


def test_a_source_of_our_own_servers_needs_no_proof(road):
    row = only(road.report((bounce(recipient=""), FORGED), trusted=True))
    assert told(row, kind="returned", tenant="s07")
    assert told(only(road.report((bounce(recipient=""), Clues()), trusted=True)), kind="returned", tenant="")


def test_what_nobody_verified_stays_so_whatever_is_found(road):
    road.tell({})
    row = only(road.report((bounce("unverified_complaint"), Clues(message_id=MESSAGE, token=road.traced()))))
    assert told(row, kind="unverified_complaint", tenant="s07", found_by="token")


def test_our_mark_wins_over_what_is_known_and_that_over_the_rest(road):
    road.tell({"tenant": "s08"})
    attributor = road.attributor()
    clues = Clues(token=road.traced(), message_id=MESSAGE, feedback_id="a:b:s09:shop")
    assert told(
        only(attributor.place("inbox", batch((bounce(), clues)), NOW)),
        tenant="s07",
        found_by="token",
        message_id=MESSAGE,
    )
    clues = Clues(message_id=MESSAGE, feedback_id="a:b:s09:shop")
    row = only(attributor.place("inbox", batch((bounce(), clues)), NOW))
    assert told(row, tenant="s08", found_by="message_id")
    assert attributor.tally.disagree == {"inbox": 2}


def test_a_stranger_fills_no_gap_in_what_is_vouched_for(road):
    clues = Clues(token=road.traced(stream="marketing"), feedback_id="a:b:s09:shop", ip="203.0.113.9")
    assert told(
        only(road.report((bounce(), clues))), tenant="", campaign="", ip="", stream="marketing", kind="returned"
    )


@given(
    st.builds(Clues, *[st.text(max_size=60)] * 9, st.integers(0, micros(NOW)), st.just(value=True)),
    st.sampled_from(sorted(Kind)),
)
def test_no_words_of_a_stranger_make_a_bounce(clues, kind):
    listener = Listener(Attribution(feedback_id=FEEDBACK, unsubscribe=PATTERN), [PATTERN])
    testimony = listener.hear(Report(bounce(str(kind)), clues), Keys([Key(bytes(32), NOW)]), NOW)
    placed = weigh(testimony, Found())
    assert placed.columns["kind"] not in ("bounced", "returned", "expired")
    assert placed.columns["kind"] != "complaint" or not placed.columns["tenant"]


@pytest.mark.parametrize(
    ("path", "person"),
    [
        ("b-s07-x-y+user=example.com@mta.example", "user@example.com"),
        ("b-s07-x-y-user=example.com@mta.example", "user@example.com"),
        ("bounces@mta.example", ""),
    ],
    ids=["plus", "minus", "none"],
)
def test_a_return_path_may_name_the_recipient(road, path, person):
    row = only(road.report((bounce(recipient=""), Clues(return_path=path)), settings={"waiting": 0}))
    assert row["recipient"] == person


def test_when_it_was_sent_is_believed_only_where_it_can_be(road):
    for sent, believed in ((SENT, micros(SENT)), (NOW + timedelta(hours=1), 0), (NOW - timedelta(days=61), 0)):
        row = only(road.report((bounce(recipient="", id=str(sent)), Clues(sent=micros(sent)))))
        assert row["sent_at"] == believed


def test_coverage_is_counted_by_clue(road):
    attributor = road.attributor(waiting=0)
    attributor.place("inbox", batch((bounce(), FORGED), (bounce(id="2"), Clues(message_id="x"))), NOW)
    assert attributor.tally.reports == {"inbox": 2}
    assert attributor.tally.clues["inbox", "feedback_id"] == 1
    assert attributor.tally.clues["inbox", "message_id"] == 1
