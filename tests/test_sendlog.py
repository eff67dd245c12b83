"""Postfix's log becomes outcomes: the right ones, once, whatever is cut, rotated or restarted."""

from __future__ import annotations

import csv
import gzip
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors._joins import Joins
from collectors._lines import LIMIT
from collectors._postfix import FIELDS, INCOMPLETE, NO_LOG_LINE, TOO_LONG, UNKNOWN_STATUS
from collectors._stamps import AHEAD, UNREADABLE
from collectors.sendlog import LOST, Sendlog, learnt
from monitor.model import COLUMNS, MARKER, Batch
from monitor.ports import Memory, PluginError

GOLDEN = Path(__file__).parent / "golden" / "postfix"
SHARED = Path(os.environ.get("MAILVANE_SHARED") or Path(__file__).resolve().parents[2] / "shared")
NOW = datetime(2025, 3, 8, 12, tzinfo=UTC)
NUMBERS = {name for name in FIELDS if isinstance(COLUMNS[name], int)}
LOGS = {
    "marketplace": {
        "timezone": "Europe/Berlin",
        "addresses": {"smtp-ip1": "198.51.100.1", "smtp-ip2": "198.51.100.2"},
        "ip": "198.51.100.9",
        "sender_pattern": r"^b-(?P<tenant>[^-]+)-(?P<segment>[^-]+)-(?P<campaign>[^-]+)-",
        "sasl_pattern": r"^seller-(?P<tenant>.+)$",
        "headers": {"X-Segment": "segment"},
        "stream": "marketing",
    },
    "oddities": {
        "addresses": {"postfix-out/smtp-ip3": "198.51.100.3"},
        "internal_relays": ["127.0.0.1:10024", "10.0.0.0/8"],
    },
}


def sendlog(path: Path | str = "mail.log", **more) -> Sendlog:
    return Sendlog(path=path, **more)


def rows(batches: Iterable[Batch]) -> list[tuple]:
    return [row for batch in batches for row in zip(*batch.columns.values(), strict=True)]


def named(batches: Iterable[Batch]) -> list[dict]:
    return [dict(zip(FIELDS, row, strict=True)) for row in rows(batches)]


def parsed(content: bytes | str, cuts: Iterable[int] = (), now: datetime = NOW, **more) -> list[Batch]:
    content = content.encode() if isinstance(content, str) else content
    parser = sendlog(**more).parser(now)
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    return [*(parser.feed(content[a:b]) for a, b in pairwise(places)), parser.finish()]


def one(content: str, **more) -> dict:
    (row,) = named(parsed(content, **more))
    return row


def line(text: str, program: str = "smtp", at: str = "Mar  3 09:10:01", qid: str = "4Zq3Lm0Rs2z1bD") -> str:
    return f"{at} mail1 postfix/{program}[1]: {qid}: {text}\n"


def outcome(
    status: str = "sent (250 ok)",
    to: str = "kim@there.example",
    relay: str = "mx.there.example[192.0.2.1]:25",
    delay: str = "1",
    **more,
) -> str:
    return line(f"to=<{to}>, relay={relay}, delay={delay}, delays=0/0/0/1, dsn=2.0.0, status={status}", **more)


def taken_up(sender: str = "news@shop.example", **more) -> str:
    return line(f"from=<{sender}>, size=10, nrcpt=1 (queue active)", program="qmgr", **more)


# Whole files


@pytest.mark.parametrize("name", LOGS)
def test_logs_become_the_columns_that_they_should(name):
    with (GOLDEN / f"{name}.csv").open(newline="") as file:
        expected = [{k: int(v) if k in NUMBERS else v for k, v in row.items()} for row in csv.DictReader(file)]
    assert named(parsed((GOLDEN / f"{name}.log").read_bytes(), **LOGS[name])) == expected


def test_what_can_not_be_read_is_told_with_its_reason_and_without_addresses():
    batches = parsed((GOLDEN / "oddities.log").read_bytes(), **LOGS["oddities"])
    rejected = [item for batch in batches for item in batch.rejected]
    assert [item.why for item in rejected] == [NO_LOG_LINE, INCOMPLETE, UNKNOWN_STATUS, UNREADABLE, AHEAD]
    assert not [item for item in rejected if "secret" in item.sample or "lost@" in item.sample]


@pytest.mark.parametrize("name", LOGS)
@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_rows_and_rejects_are_the_same_however_the_bytes_are_cut(name, cuts):
    content = (GOLDEN / f"{name}.log").read_bytes()
    whole, parts = parsed(content, **LOGS[name]), parsed(content, cuts, **LOGS[name])
    assert rows(parts) == rows(whole)
    assert [r for batch in parts for r in batch.rejected] == [r for batch in whole for r in batch.rejected]


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=400) | st.text(alphabet='to=<>@,: "\\z[]()from status=sent12\n', max_size=400))
def test_any_bytes_are_survived(content):
    for text in (
        content,
        line("").rstrip("\n").encode() + (content if isinstance(content, bytes) else content.encode()),
    ):
        parsed(text, **LOGS["marketplace"])


@settings(deadline=None, max_examples=100)
@given(at=st.integers(0, 9000), byte=st.binary(min_size=1, max_size=3))
def test_a_damaged_byte_damages_one_line_only(at, byte):
    content = (GOLDEN / "marketplace.log").read_bytes()
    at = min(at, len(content) - 1)
    damaged = content[:at] + byte.replace(b"\n", b"?") + content[at + 1 :] if content[at] != 10 else content
    same = {(r["message_id"], r["recipient"], r["kind"]) for r in named(parsed(content, **LOGS["marketplace"]))}
    left = {(r["message_id"], r["recipient"], r["kind"]) for r in named(parsed(damaged, **LOGS["marketplace"]))}
    assert len(same - left) <= 1


# Lines


@pytest.mark.parametrize(
    ("program", "ip"),
    [
        ("smtp-ip1/smtp", "198.51.100.1"),
        ("smtp-ip1", "198.51.100.1"),
        ("out/smtp-ip1/smtp", "198.51.100.1"),
        ("smtp-ip2/smtp-ip1/smtp", "198.51.100.1"),  # the last one is the transport
        ("smtp", "198.51.100.9"),
        ("smtp-ip10/smtp", "198.51.100.9"),
    ],
)
def test_the_transport_tells_the_address(program, ip):
    row = one(outcome(program=program), ip="198.51.100.9", addresses={"smtp-ip1": "198.51.100.1", "smtp-ip2": "::1"})
    assert row["ip"] == ip


@pytest.mark.parametrize("relay", ["mx.there.example[192.0.2.1]:25", "MX.There.Example[2001:DB8::1]:587"])
@pytest.mark.parametrize(
    "named_so", [("mx.there.example",), ("192.0.2.0/24", "2001:db8::/32"), ("mx.there.example:25", "2001:db8::1")]
)
def test_hops_within_the_house_count_no_sends(relay, named_so):
    assert rows(parsed(outcome(relay=relay), internal_relays=named_so)) == []


@pytest.mark.parametrize("program", ["local", "virtual", "pipe", "lmtp", "discard"])
def test_deliveries_within_the_house_count_no_sends(program):
    assert rows(parsed(outcome(program=program, relay="local"))) == []
    assert rows(parsed(outcome(program=program))) == []


def test_a_connection_that_failed_is_its_hosts_providers():
    reply = "connect to mx00.gmx.net[192.0.2.1]:25: Connection timed out"
    row = one(outcome(f"deferred ({reply})", relay="none"))
    assert (row["provider"], row["relay"], row["reply"], row["code"]) == ("gmx", "mx00.gmx.net", reply, 0)


def test_a_pause_of_ours_is_held_and_no_attempt():
    content = taken_up(at="Mar  3 09:00:00", qid="0AAAAA") + taken_up()
    content += outcome(f"deferred ({MARKER} until 10:00)", relay="none", program="retry")
    content += taken_up(at="Mar  3 09:20:00")
    content += outcome("deferred (host x[192.0.2.1] said: 450 later)", at="Mar  3 09:20:01", delay="600")
    assert [(r["kind"], r["attempt"]) for r in named(parsed(content))] == [("held", 0), ("deferred", 1)]


def test_a_receiver_that_repeats_our_words_is_no_pause_of_ours():
    assert one(outcome(f"deferred (host mx[192.0.2.1] said: 450 {MARKER})"))["kind"] == "deferred"


def test_attempts_are_counted_where_the_log_has_the_whole_life_of_a_message():
    content = taken_up(at="Mar  3 09:00:00", qid="0AAAAA")
    for minute, delay in ((10, "1"), (15, "301"), (25, "901")):
        content += taken_up(at=f"Mar  3 09:{minute}:01")
        content += outcome("deferred (x)", at=f"Mar  3 09:{minute}:01", delay=delay)
        content += outcome("deferred (x)", at=f"Mar  3 09:{minute}:01", delay=delay, to="lee@there.example")
    assert [row["attempt"] for row in named(parsed(content))] == [1, 1, 2, 2, 3, 3]


def test_attempts_are_unknown_where_the_log_begins_later_than_the_message():
    content = taken_up() + outcome("deferred (x)", delay="4000")
    assert one(content)["attempt"] == 0


def test_a_queue_manager_that_starts_again_is_no_new_attempt():
    content = taken_up(at="Mar  3 09:00:00", qid="0AAAAA") + taken_up() + taken_up() + outcome()
    assert one(content)["attempt"] == 1


def test_messages_that_were_forgotten_have_unknown_attempts():
    joins = Joins(limit=2)
    for number in range(4):
        joins.taken_up("mail1", f"mail1/{number}", (), 10_000_000 * number)
    assert [joins.get(f"mail1/{number}") is None for number in range(4)] == [True, True, False, False]
    kept = joins.get("mail1/2")
    assert kept
    assert joins.attempt("mail1", kept, 10_000_000) == 0
    assert joins.attempt("mail1", kept, 20_000_000) == 1


def test_an_expired_message_stands_for_the_recipients_that_were_left():
    content = taken_up() + outcome("deferred (x)", to="a@x.example") + outcome("deferred (x)", to="b@x.example")
    content += taken_up(at="Mar  7 09:00:00")
    content += outcome("deferred (x)", at="Mar  7 09:00:01", delay="345000")
    content += line("from=<news@shop.example>, status=expired, returned to sender", "qmgr", "Mar  8 09:00:00")
    last = named(parsed(content))[-1]
    assert (last["kind"], last["count"], last["provider"], last["recipient"]) == ("expired", 1, "there.example", "")
    assert last["sent_at"] == datetime(2025, 3, 3, 9, 10, tzinfo=UTC).timestamp() * 1e6


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("250 2.0.0 Ok", 250),
        ("host a[192.0.2.1] said: 550-5.1.1 no (in reply to RCPT TO command)", 550),
        ("host a[192.0.2.1] refused to talk to me: 421 4.7.0 later", 421),
        ("delivery temporarily suspended: host a[192.0.2.1] refused to talk to me: 554 no", 554),
        ("lost connection with a[192.0.2.1] while receiving the initial server greeting", 0),
        ("2500 messages later", 0),
    ],
)
def test_the_code_is_the_receivers(reply, code):
    assert one(outcome(f"deferred ({reply})"))["code"] == code


def test_a_clock_that_was_wrong_makes_no_message_of_another_age():
    row = one(outcome(delay="99999999"))
    assert row["sent_at"] == row["at"]


# Labels


def test_the_first_word_on_a_label_stands():
    content = line("client=a[10.0.0.1], sasl_method=PLAIN, sasl_username=anna", "smtpd")
    content += line("info: header X-Tenant: bert from a[10.0.0.1]; from=<x@y> to=<z@y> proto=ESMTP helo=<a>", "cleanup")
    content += line("info: header X-Segment: lapsed from local; from=<x@y>", "cleanup")
    content += taken_up("carl+new+c1@shop.example") + outcome()
    row = one(
        content,
        sasl_pattern="(?P<tenant>.*)",
        headers={"x-tenant": "tenant", "X-Segment": "segment"},
        sender_pattern=r"^(?P<tenant>\w+)\+(?P<segment>\w+)\+(?P<campaign>\w+)@",
    )
    assert (row["tenant"], row["segment"], row["campaign"]) == ("anna", "lapsed", "c1")


def test_a_segment_without_its_tenant_is_not_named():
    content = line("info: header X-Segment: lapsed from local; from=<x@y>", "cleanup") + taken_up() + outcome()
    more = {"headers": {"X-Segment": "segment", "X-Tenant": "tenant"}}
    assert one(content, **more)["segment"] == ""
    assert one(content, tenant="shop", **more)["segment"] == "lapsed"


def test_defaults_fill_what_nothing_tells():
    row = one(outcome(), domain="shop.example", stream="marketing", tenant="shop")
    assert (row["domain"], row["stream"], row["tenant"]) == ("shop.example", "marketing", "shop")
    assert one(taken_up() + outcome(), domain="else.example")["domain"] == "shop.example"


def test_labels_are_bounded_and_printable():
    row = one(taken_up("x\x01y" * 500 + "@shop.example") + outcome(), sender_pattern="(?P<tenant>.*)@")
    assert len(row["tenant"]) == 200
    assert row["tenant"].isprintable()


# Identity


def key(row: dict) -> tuple:
    return row["message_id"], row["recipient"], row["kind"], row["tries"]


@pytest.mark.parametrize("name", LOGS)
def test_a_line_has_the_same_key_whatever_was_read_before_it(name):
    lines = (GOLDEN / f"{name}.log").read_bytes().splitlines(keepends=True)
    alone = [key(row) for text in lines for row in named(parsed(text, **LOGS[name]))]
    assert alone == [key(row) for row in named(parsed(b"".join(lines), **LOGS[name]))]
    assert len(set(alone)) == len(alone)


def test_a_short_queue_id_that_comes_again_is_another_message():
    first = one(outcome(qid="5A0B11C0"))
    again = one(outcome(qid="5A0B11C0", at="Feb 20 09:10:01"))
    assert first["message_id"] != again["message_id"]


def test_a_retry_is_the_same_message():
    content = outcome("deferred (x)", qid="5A0B11C0")
    content += outcome(qid="5A0B11C0", at="Mar  8 09:10:01", delay="432001")
    assert len({row["message_id"] for row in named(parsed(content))}) == 1


def test_machines_that_call_themselves_the_same_are_told_apart():
    assert one(outcome(), host="mail7")["message_id"] == "mail7/4Zq3Lm0Rs2z1bD"


# Following a file


class Follower:
    """Collects as the pipeline does, and is restarted each time: what it knows has been through JSON."""

    def __init__(self, path: Path, **more) -> None:
        self.path, self.more = path, more
        self.memory = Memory()
        self.batches: list[Batch] = []
        self.live: Sendlog | None = None

    def collect(self, now: datetime = NOW, *, live: bool = False, only: int | None = None) -> list[Batch]:
        """Commits ``only`` so many batches, as if killed then."""
        if not live or self.live is None:
            self.live = sendlog(self.path, **self.more)
        got = []
        for batch in self.live.collect(self.memory, now):
            if only is not None and len(got) >= only:
                break
            kept = {**self.memory.remembers, **batch.remember}
            kept = {name: value for name, value in kept.items() if value is not None}
            self.memory = Memory(json.loads(json.dumps(batch.cursor)), json.loads(json.dumps(kept)))
            got.append(batch)
        self.batches += got
        return got


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "mail.log"
    path.touch()
    return path


def append(path: Path, content: bytes | str) -> None:
    with path.open("ab") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("live", [True, False], ids=["live", "restarted"])
@pytest.mark.parametrize("name", LOGS)
@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12), rotate=st.sets(st.integers(0, 12)))
def test_restarts_and_rotations_lose_and_repeat_nothing(name, live, cuts, rotate):
    content = (GOLDEN / f"{name}.log").read_bytes()
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mail.log"
        path.touch()
        follower, clock = Follower(path, **LOGS[name]), 1_700_000_000
        for number, (a, b) in enumerate(pairwise(places)):
            append(path, content[a:b])
            clock += 1
            os.utime(path, (clock, clock))
            follower.collect(live=live)
            if number in rotate and content[b - 1 : b] == b"\n":  # logs are rotated between lines
                path.rename(path.with_name(f"mail.log.{number}"))
                path.touch()
                os.utime(path, (clock, clock))
        if not content.endswith(b"\n"):
            append(path, b"\n")
        follower.collect(live=live)
        assert rows(follower.batches) == rows(parsed(content, **LOGS[name]))


def test_what_was_not_committed_is_read_again(log):
    follower = Follower(log)
    append(log, taken_up() + outcome() * 10_000)
    follower.collect(live=True, only=2)
    follower.collect(live=True)
    assert len(rows(follower.batches)) == 10_000


def test_nothing_that_is_remembered_names_an_address(log):
    follower = Follower(log, **LOGS["marketplace"])
    lines = (GOLDEN / "marketplace.log").read_bytes().splitlines(keepends=True)
    kept = ""
    for text in lines:
        append(log, text)
        follower.collect()
        kept += json.dumps([follower.memory.cursor, follower.memory.remembers])
    assert "segment" not in kept  # values only
    assert "lapsed" in kept
    assert not [who for who in ("@", "kim", "lee", "max", "noel", "web.example", "newcomers-spring") if who in kept]


def test_what_has_left_the_queue_is_forgotten(log):
    follower = Follower(log)
    append(log, taken_up())
    follower.collect()
    assert set(follower.memory.remembers) == {"mail1/", "mail1/4Zq3Lm0Rs2z1bD"}
    append(log, outcome() + line("removed", "qmgr"))
    follower.collect()
    assert set(follower.memory.remembers) == {"mail1/"}


def test_a_message_that_comes_and_goes_within_a_batch_is_never_remembered(log):
    append(log, taken_up() + outcome() + line("removed", "qmgr"))
    (batch,) = Follower(log).collect()
    assert set(batch.remember) == {"mail1/"}


def test_half_a_line_waits_for_its_end(log):
    follower = Follower(log)
    append(log, outcome()[:40])
    assert rows(follower.collect()) == []
    append(log, outcome()[40:])
    assert len(rows(follower.collect())) == 1


def test_a_line_that_is_too_long_is_told_once_and_the_rest_goes_on(log):
    follower = Follower(log)
    for part in (outcome(), "x" * 3 * LIMIT, "y" * LIMIT, "\n" + outcome(to="lee@there.example")):
        append(log, part)
        follower.collect()
    assert len(rows(follower.batches)) == 2
    assert [item.why for batch in follower.batches for item in batch.rejected] == [TOO_LONG]


def test_lost_lines_are_told_and_make_attempts_unknown(log):
    follower = Follower(log)
    append(log, taken_up(at="Mar  3 09:00:00", qid="0AAAAA") + taken_up())
    follower.collect()
    log.write_text(taken_up(at="Mar  3 09:20:01") + outcome(at="Mar  3 09:20:02", delay="602"))
    (batch,) = follower.collect()
    assert [item.why for item in batch.rejected] == [LOST]
    assert named([batch])[0]["attempt"] == 0


def test_a_log_that_can_not_be_read_is_worth_another_try(tmp_path):
    with pytest.raises(PluginError) as error:
        Follower(tmp_path / "none.log").collect()
    assert error.value.retry


# Watermarks


LAST = datetime(2025, 3, 3, 9, 10, 1, tzinfo=UTC)


def watermark(follower: Follower, now: datetime) -> datetime | None:
    return follower.collect(now)[-1].watermark


def test_a_log_that_is_quiet_at_its_end_says_that_nothing_happened(log):
    append(log, outcome())
    follower = Follower(log)
    assert watermark(follower, LAST + timedelta(seconds=3)) == LAST
    assert watermark(follower, LAST + timedelta(minutes=5)) == LAST + timedelta(minutes=4, seconds=55)


def test_a_log_that_is_silent_for_long_vouches_for_nothing(log):
    append(log, outcome())
    follower = Follower(log)
    assert watermark(follower, LAST + timedelta(minutes=16)) == LAST
    assert watermark(Follower(log, silence="1h"), LAST + timedelta(minutes=16)) == LAST + timedelta(
        minutes=15, seconds=55
    )


def test_a_line_under_way_holds_the_watermark(log):
    append(log, outcome() + "Mar  3 09:10:0")
    assert watermark(Follower(log), LAST + timedelta(minutes=5)) == LAST


def test_a_log_that_is_not_read_to_its_end_vouches_for_what_was_read(log):
    append(log, outcome() * 3000 + outcome(at="Mar  3 09:11:01"))
    first, *_, last = Follower(log).collect(LAST + timedelta(minutes=5))
    assert first.watermark == LAST
    assert last.watermark == LAST + timedelta(minutes=4, seconds=55)


def test_an_empty_log_vouches_for_nothing(log):
    assert watermark(Follower(log), NOW) is None


def test_a_stamp_ahead_of_the_clock_moves_no_watermark_beyond_it(log):
    append(log, outcome())
    assert watermark(Follower(log), LAST - timedelta(hours=3)) == LAST - timedelta(hours=3)


# Settings


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"timezone": "Mars/Olympus"}, "no time zone"),
        ({"sender_pattern": "("}, "no regular expression"),
        ({"sender_pattern": "(?P<seller>.*)"}, "name its groups"),
        ({"sasl_pattern": "anna"}, "name its groups"),
        ({"sender_pattern": "(?P<segment>.*)"}, "segment without tenant"),
        ({"headers": {"X-Campaign": "campaign"}}, "campaign without tenant"),
        ({"headers": {"X-Ip": "ip"}}, "domain"),
        ({"addresses": {"smtp-ip1": "smtp.shop.example"}}, "no IP address"),
        ({"adresses": {}}, "Extra inputs"),
        ({"silence": "soon"}, "no duration"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(more, told):
    with pytest.raises(ValidationError, match=told):
        sendlog(**more)


# Other people's logs


def corpus(pattern: str) -> Path:
    found = sorted((SHARED / "corpus").glob(pattern))
    return found[0] if found else pytest.skip("the shared corpus is not here")


@pytest.fixture(scope="module")
def real() -> Iterator[bytes]:
    with gzip.open(corpus("mta_logs/FgForrest*/**/mail.log.2.lines00001-30000.gz")) as file:
        yield file.read()


def real_rows(content: bytes, **more) -> list[dict]:
    return named(parsed(content, timezone="Europe/Prague", now=datetime(2013, 6, 11, tzinfo=UTC), **more))


def test_a_real_log_gives_the_counts_of_each_hour(real):
    with corpus("truth/postfix_log_truth.csv").open(newline="") as file:
        truth = {(row["hour"], kind): int(row[kind]) for row in csv.DictReader(file) for kind in list(row)[2:]}
    prague = ZoneInfo("Europe/Prague")
    found = Counter()
    for row in real_rows(real):
        found[f"{datetime.fromtimestamp(row['at'] / 1e6, prague):%Y %b %d %H}", row["kind"]] += row["count"]
    assert found == Counter({name: count for name, count in truth.items() if count})
    assert sum(found.values()) == 4952


def test_a_real_log_read_twice_gives_the_same_keys(real):
    first, second = real_rows(real), real_rows(real)
    assert list(map(key, first)) == list(map(key, second))
    assert len(set(map(key, first))) == 4952
    assert len({row["message_id"] for row in first if row["kind"] == "deferred"}) == 610


def test_a_real_log_read_in_two_halves_gives_the_same_keys(real):
    cut = real.index(b"\n", len(real) // 2) + 1
    assert list(map(key, real_rows(real[:cut]) + real_rows(real[cut:]))) == list(map(key, real_rows(real)))


def test_a_real_log_teaches_providers(real):
    batches = parsed(real, timezone="Europe/Prague", now=datetime(2013, 6, 11, tzinfo=UTC))
    found = {domain: provider for batch in batches for domain, provider in learnt(batch.columns).items()}
    assert Counter(found.values()).keys() >= {"gmail", "outlook", "yahoo", "seznam", "centrum", "azet"}


def test_lines_of_other_peoples_tests_are_outcomes_or_of_no_interest():
    text = "".join(
        f"Mar  3 09:10:01 mail1 postfix/{path.name.partition('_')[0]}[1]: {data[7:-1]}\n"
        for path in sorted(corpus("mta_logs/whyscream*/test/smtp_0001.yaml").parent.glob("*.yaml"))
        for data in path.read_text("utf-8").splitlines()
        if data.startswith('data: "') and data.endswith('"')
    )
    batches = parsed(text)
    assert [item for batch in batches for item in batch.rejected] == []
    assert Counter(row["kind"] for row in named(batches)).keys() == {"sent", "deferred"}
