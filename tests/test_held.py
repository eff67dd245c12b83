"""What our own pauses keep back comes out of Postfix's log as held: never as a deferral, and never on a stranger's word."""

from __future__ import annotations

import re
import smtplib
import socketserver
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.sendlog import Sendlog
from monitor.facts.prepare import prepare
from monitor.keyring import Keyring
from monitor.model import MARKER, Batch
from monitor.ports import Memory
from tests.servers.policy import policy
from tests.servers.postfix import Postfix, postfix
from tests.servers.sink import sink
from tests.waiting import until

NOW = datetime(2025, 3, 8, 12, tzinfo=UTC)
AT = "Mar  3 09:10:01"
WORDS = f"{MARKER} until 10:21 UTC"
SENDER = "bounces+s07.lapsed.marketing@shop.example"
PATTERN = r"^bounces\+(?P<tenant>[^.]+)\.(?P<segment>[^.]+)\.(?P<stream>[^@]+)@"


def parsed(content: str, now: datetime = NOW, **more) -> list[Batch]:
    parser = Sendlog(path="mail.log", **{"sender_pattern": PATTERN, **more}).parser(now)
    return [parser.feed(content.encode()), parser.finish()]


def rows(content: str, **more) -> list[dict]:
    return [row for batch in parsed(content, **more) for row in named(batch)]


def named(batch: Batch) -> list[dict]:
    return [dict(zip(batch.columns, row, strict=True)) for row in zip(*batch.columns.values(), strict=True)]


def one(content: str, **more) -> dict:
    (row,) = rows(content, **more)
    return row


def line(text: str, program: str = "smtpd", at: str = AT, qid: str = "NOQUEUE") -> str:
    return f"{at} mail1 postfix/{program}[1]: {qid}: {text}\n"


def refused(
    rejected: str = f"Recipient address rejected: {WORDS}",
    *,
    stage: str = "RCPT",
    client: str = "app1.shop.example[10.0.0.1]",
    code: str = "450 4.7.1",
    name: str = "kim@one.example",
    sender: str = SENDER,
    to: str = " to=<kim@one.example>",
    end: str = " proto=ESMTP helo=<app1>",
    **more,
) -> str:
    return line(f"reject: {stage} from {client}: {code} <{name}>: {rejected}; from=<{sender}>{to}{end}", **more)


def outcome(status: str, to: str = "kim@one.example", relay: str = "none", program: str = "smtp", **more) -> str:
    told = f"to=<{to}>, relay={relay}, delay=1, delays=0/0/0/1, dsn=4.7.0, status={status}"
    return line(told, program, **{"qid": "4Zq3Lm0Rs2z1bD", **more})


def taken_up(at: str = AT, sender: str = SENDER, qid: str = "4Zq3Lm0Rs2z1bD") -> str:
    return line(f"from=<{sender}>, size=10, nrcpt=1 (queue active)", "qmgr", at, qid)


# What smtpd refuses


def test_what_smtpd_refuses_in_our_words_is_held():
    at = int(datetime(2025, 3, 3, 9, 10, 1, tzinfo=UTC).timestamp() * 1e6)
    row = one(refused(), ip="198.51.100.1")
    assert {name: value for name, value in row.items() if value and name != "message_id"} == {
        "kind": "held",
        "at": at,
        "sent_at": at,
        "tries": at // 1000,
        "count": 1,
        "recipient": "kim@one.example",
        "code": 450,
        "dsn": "4.7.1",
        "reply": WORDS,
        "domain": "shop.example",
        "tenant": "s07",
        "segment": "lapsed",
        "stream": "marketing",
    }


@pytest.mark.parametrize(
    ("stage", "name", "rejected", "to"),
    [
        ("RCPT", SENDER, "Sender address rejected", " to=<kim@one.example>"),
        ("RCPT", "app1", "Helo command rejected", " to=<kim@one.example>"),
        ("RCPT", "app1.shop.example[10.0.0.1]", "Client host rejected", " to=<kim@one.example>"),
        ("MAIL", SENDER, "Sender address rejected", ""),
        ("DATA", "DATA", "Data command rejected", " to=<kim@one.example>"),
        ("BDAT", "DATA", "Data command rejected", ""),
        ("END-OF-MESSAGE", "END-OF-MESSAGE", "End-of-data rejected", " to=<kim@one.example>"),
        ("END-OF-MESSAGE", "END-OF-MESSAGE", "End-of-data rejected", ""),
    ],
)
def test_a_message_is_held_whatever_smtpd_was_asked_when_it_was_refused(stage, name, rejected, to):
    row = one(refused(f"{rejected}: {WORDS}", stage=stage, name=name, to=to))
    assert (row["kind"], row["recipient"]) == ("held", "kim@one.example" if to else "")
    assert row["segment"] == "lapsed"


@pytest.mark.parametrize("client", ["unknown[127.0.0.1]", "a.example[192.0.2.1]:51234", "unknown[2001:db8::1]"])
@pytest.mark.parametrize("code", ["450 4.7.1", "450 4.7.0", "421 4.7.1"])
@pytest.mark.parametrize("program", ["smtpd", "submission/smtpd"])
def test_a_message_is_held_whoever_brought_it(client, code, program):
    row = one(refused(client=client, code=code, program=program))
    assert (row["kind"], f"{row['code']} {row['dsn']}") == ("held", code)


@pytest.mark.parametrize(
    ("end", "tenant"),
    [
        (" proto=ESMTP helo=<app1> sasl_username=<seller-anna>", "anna"),
        (" proto=ESMTP helo=<app1>, sasl_username=seller-anna", "anna"),
        (" proto=ESMTP helo=<app1>", "s07"),
        (" proto=SMTP", "s07"),
    ],
)
def test_the_sasl_user_goes_before_the_sender_where_the_line_tells_one(end, tenant):
    row = one(refused(end=end), sasl_pattern="^seller-(?P<tenant>.+)$")
    assert (row["tenant"], row["segment"]) == (tenant, "lapsed")


def test_a_further_recipient_has_the_labels_of_its_message():
    told = line("client=a[10.0.0.1], sasl_method=PLAIN, sasl_username=seller-anna", qid="4Zq3Lm0Rs2z1bD")
    row = one(told + refused(qid="4Zq3Lm0Rs2z1bD"), sasl_pattern="^seller-(?P<tenant>.+)$")
    assert (row["kind"], row["tenant"], row["segment"]) == ("held", "anna", "lapsed")


def test_messages_without_an_id_are_not_taken_for_one_another():
    told = line("client=a[10.0.0.1], sasl_method=PLAIN, sasl_username=seller-bert")  # before a filter that is a proxy
    assert one(told + refused(), sasl_pattern="^seller-(?P<tenant>.+)$")["tenant"] == "s07"


@pytest.mark.parametrize("recipient", ['"kim lee"@one.example', "jürgen@bücher.example", '"kim; from=you"@one.example'])
def test_odd_recipients_are_held_too(recipient):
    assert one(refused(name=recipient.replace('"', ""), to=f" to=<{recipient}>"))["recipient"] == recipient


@pytest.mark.parametrize(
    "content",
    [
        refused("Recipient address rejected: Greylisted"),
        refused("Recipient address rejected: User unknown", code="550 5.1.1"),
        refused(code="550 5.7.1"),
        refused("Relay access denied"),
        refused(stage="VRFY"),
        refused().replace("reject:", "reject_warning:"),
        refused().replace("reject:", "milter-reject:"),
        refused(program="cleanup"),
        refused(program="postscreen"),
        refused(program="else"),
        refused()[:-9] + "\n",  # a line that was cut
        line(f"hold: RCPT from unknown[127.0.0.1]: <a@b>: Recipient address {WORDS}; from=<a@b> to=<a@b> proto=ESMTP"),
        line("placed on hold", "postsuper", qid="4Zq3Lm0Rs2z1bD"),
        line("released from hold", "postsuper", qid="4Zq3Lm0Rs2z1bD"),
        f"{AT} mail1 postfix/postsuper[1]: Placed on hold: 1 message\n",
    ],
)
def test_other_lines_are_no_rows_and_no_rejects(content):
    batches = parsed(content)
    assert ([len(batch) for batch in batches], [batch.rejected for batch in batches]) == ([0, 0], [[], []])


# Once


def keys(content: str, tmp_path: Path, source: str = "postfix", **more) -> list[int]:
    keyring = Keyring.open(tmp_path / "keyring")
    tables = [prepare(batch, source, keyring, None, bounds=None)[0] for batch in parsed(content, **more)]
    return [key for table in tables for key in table["key"].to_pylist()]


def test_a_refused_line_counts_once_however_often_and_wherever_it_is_read(tmp_path):
    first = keys(refused(), tmp_path)
    assert keys(taken_up() + outcome("sent (250 ok)") + refused(), tmp_path)[1:] == first
    assert keys(refused(), tmp_path, source="import") == first


def test_each_attempt_counts_and_each_recipient(tmp_path):
    content = refused() + refused(at="Mar  3 09:10:02") + refused(name="lee@one.example", to=" to=<lee@one.example>")
    content += refused(qid="4Zq3Lm0Rs2z1bD") + refused(sender=SENDER.replace("s07", "s08"))
    content += taken_up() + outcome(f"deferred ({WORDS})", program="error") + outcome("sent (250 ok)")
    found = keys(content, tmp_path)
    assert len(found) == 7
    assert len(set(found)) == 7


def test_it_counts_once_across_restarts_and_rotation(tmp_path):
    log = tmp_path / "mail.log"
    contents = [refused(), refused(at="Mar  3 09:10:05"), refused(at="Mar  3 09:10:09")]
    log.write_text(contents[0] + contents[1][:40])
    memory, found = Memory(), []

    def collect() -> None:
        nonlocal memory
        for batch in Sendlog(path=log, sender_pattern=PATTERN).collect(memory, NOW):
            kept = {**memory.remembers, **batch.remember}
            memory = Memory(batch.cursor, {name: value for name, value in kept.items() if value is not None})
            found.extend(row["at"] // 1_000_000 % 60 for row in named(batch))

    collect()
    with log.open("a") as file:
        file.write(contents[1][40:])
    log.rename(tmp_path / "mail.log.1")
    log.write_text(contents[2])
    collect()
    collect()
    assert found == [1, 5, 9]


# Whose words


BRACKETS = f"x>: Recipient address rejected: {WORDS}; from=<{SENDER}> to=<kim@one.example> proto=ESMTP helo=<app1>"
HOSTILE = [
    f'"450 4.7.1 {MARKER}"@evil.example',
    f'"450 4.7.1 <kim@one.example>: Recipient address rejected: {WORDS}"@evil.example',
    f'"{BRACKETS}"@evil.example',
    f'"{BRACKETS} sasl_username=<anna"@evil.example',
    f'"x>: Recipient address rejected: {WORDS}; from=<"@evil.example',
    f'"x\\">: Recipient address rejected: {WORDS}; from=<"@evil.example',
    f'"x> to=<\\": Recipient address rejected: {WORDS}; from=<\\""@evil.example',
]


PIECES = [
    *("<", ">", '"', "\\", "x", "a@b"),
    *("; from=<", "> to=<", " proto=ESMTP", " helo=<", "> sasl_username=<", "450 4.7.1 <"),
    f"x>: Recipient address rejected: {WORDS}; from=<",
    "> to=<a@b> proto=ESMTP helo=<",
]


@pytest.mark.parametrize("address", HOSTILE)
@pytest.mark.parametrize("said", ["Recipient address rejected: Greylisted", "Relay access denied"])
def test_a_strangers_address_holds_nothing(address, said):
    bare = address.replace('"', "", 1).replace('"@', "@").replace("\\", "")
    assert rows(refused(said, sender=address)) == []
    assert rows(refused(said, name=bare, to=f" to=<{address}>")) == []
    assert rows(refused(said, name=bare, to=f" to=<{address}>", sender=address)) == []
    assert rows(refused(said, name=address, to=f" to=<{address}>", sender=address)) == []


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=14),
    sasl=st.sampled_from(["", " sasl_username=<anna>"]),
)
def test_no_address_that_smtpd_would_log_forges_our_words(pieces, sasl):
    inside = "".join(pieces)
    quoted = '"' + re.sub(r'([\\"])', r"\\\1", inside) + '"@evil.example'
    end = " proto=ESMTP helo=<x>" + sasl
    for sender in (quoted, SENDER):
        said = "Recipient address rejected: Greylisted"
        assert rows(refused(said, name=f"{inside}@evil.example", sender=sender, to=f" to=<{quoted}>", end=end)) == []


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=9))
def test_no_sender_of_a_held_message_forges_whose_it_is(pieces):
    quoted = '"' + re.sub(r'([\\"])', r"\\\1", "".join(pieces)) + '"@evil.example'
    for row in rows(refused(sender=quoted), sasl_pattern="(?P<tenant>.+)"):
        assert (row["recipient"], row["tenant"], row["domain"]) == ("kim@one.example", "", "evil.example")


@pytest.mark.parametrize(
    "reply",
    [
        f"host mx[192.0.2.1] said: 450 4.7.1 {WORDS}",
        f"delivery temporarily suspended: host mx[192.0.2.1] refused to talk to me: 450 {WORDS}",
        f"delivery temporarily suspended: {WORDS}",
        f"unable to look up host {MARKER}",
    ],
)
@pytest.mark.parametrize("program", ["smtp", "error"])
def test_a_receiver_that_repeats_our_words_defers(reply, program):
    assert one(outcome(f"deferred ({reply})", program=program))["kind"] == "deferred"
    assert one(outcome(f"deferred ({reply})", relay="mx[192.0.2.1]:25", program=program))["kind"] == "deferred"


def test_a_receiver_that_says_nothing_but_our_words_defers():
    assert one(outcome(f"deferred ({WORDS})", relay="mx[192.0.2.1]:25"))["kind"] == "deferred"


# Attempts


BEFORE = taken_up("Mar  3 09:00:00", qid="0AAAAA")  # so that the log has the whole life of what follows
HELD, LATER, SENT = f"deferred ({WORDS})", "deferred (host x[192.0.2.1] said: 450 later)", "sent (250 ok)"


def attempts(*rounds: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Of a message whose recipients fare so, each time that it is taken up."""
    content = BEFORE
    for number, fares in enumerate(rounds):
        at = f"Mar  3 09:{10 + number}:01"
        content += taken_up(at)
        content += "".join(outcome(status, to=f"{who}@one.example", at=at) for who, status in fares.items())
    return [(row["recipient"][0], row["kind"], row["attempt"]) for row in rows(content)]


def test_the_first_try_after_a_pause_is_the_first_attempt():
    assert attempts({"a": HELD}, {"a": HELD}, {"a": LATER}, {"a": SENT}) == [
        *[("a", "held", 0)] * 2,
        ("a", "deferred", 1),
        ("a", "sent", 2),
    ]


def test_a_pause_between_two_attempts_is_none():
    assert attempts({"a": LATER}, {"a": HELD}, {"a": SENT})[-1] == ("a", "sent", 2)


def test_a_recipient_whose_provider_was_paused_is_tried_first_after_the_others_have_it():
    assert attempts({"a": SENT, "b": HELD}, {"b": HELD}, {"b": LATER}, {"b": SENT})[-2:] == [
        ("b", "deferred", 1),
        ("b", "sent", 2),
    ]


@pytest.mark.parametrize("first", [{"a": LATER, "b": HELD, "c": SENT}, {"b": HELD, "a": LATER, "c": SENT}])
def test_attempts_are_unknown_once_some_recipients_were_held_and_others_deferred(first):
    found = attempts(first, {"a": LATER, "b": LATER}, {"a": SENT, "b": SENT})
    assert {(who, kind, attempt) for who, kind, attempt in found[:3]} == {
        ("a", "deferred", 1),
        ("b", "held", 0),
        ("c", "sent", 1),
    }
    assert {attempt for _, _, attempt in found[3:]} == {0}


def test_attempts_are_the_same_when_the_collector_starts_anew_at_each_line(tmp_path):
    log = tmp_path / "mail.log"
    content = BEFORE
    for minute, a, b in ((10, SENT, HELD), (11, None, LATER), (12, None, HELD), (13, None, LATER)):
        content += taken_up(f"Mar  3 09:{minute}:01")
        content += outcome(a, to="a@one.example", at=f"Mar  3 09:{minute}:01") if a else ""
        content += outcome(b, at=f"Mar  3 09:{minute}:01")
    memory, found = Memory(), []
    for text in content.splitlines(keepends=True):
        with log.open("a") as file:
            file.write(text)
        for batch in Sendlog(path=log, sender_pattern=PATTERN).collect(memory, NOW):
            memory = Memory(batch.cursor, {**memory.remembers, **batch.remember})
            found += named(batch)
    assert [row["attempt"] for row in found] == [1, 0, 1, 0, 2]
    assert [row["attempt"] for row in rows(content)] == [1, 0, 1, 0, 2]


def test_what_grew_old_under_a_pause_expires_as_any_other_mail():
    content = BEFORE + taken_up() + outcome(HELD) + taken_up("Mar  8 09:00:00") + outcome(HELD, at="Mar  8 09:00:01")
    expired = f"from=<{SENDER}>, status=expired, returned to sender"
    content += line(expired, "qmgr", "Mar  8 09:00:02", "4Zq3Lm0Rs2z1bD")
    assert [(row["kind"], row["count"], row["segment"]) for row in rows(content)] == [
        *[("held", 1, "lapsed")] * 2,
        ("expired", 1, "lapsed"),
    ]


# A real Postfix

TRANSPORTS = "transport_maps = inline:{ { paused.example = retry:4.7.0 %s } { parrot.example = smtp:[127.0.0.1]:%d } }"
NEWS = "news@shop.example"
KEPT = ["ann@paused.example", "bob@paused.example", "cat@paused.example", *["dan@parrot.example"] * 3]
QUEUED = 8  # messages: three at the door, five to be kept


def decide(request: Mapping[str, str]) -> str:
    """As the gate would for a segment, or at the end of a message; as a grey list for strangers."""
    stage, sender, recipient = request["protocol_state"], request["sender"], request["recipient"]
    if "evil.example" in sender + recipient:
        return "450 4.7.1 Greylisted"
    if sender == SENDER and stage == "RCPT" and not recipient.startswith("vip"):
        return f"450 4.7.1 {WORDS}"
    if sender == "late@shop.example" and stage == "END-OF-MESSAGE":
        return f"DEFER_IF_PERMIT {WORDS}"
    return f"450 4.7.1 {WORDS}" if stage == "VRFY" else "DUNNO"


@contextmanager
def parrot() -> Iterator[int]:
    """A receiver that greets everybody with our own words; its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(f"450 4.7.1 {WORDS}\r\n".encode())
            self.rfile.readline()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def command(mta: Postfix, name: str, *words: str) -> None:
    etc = str(mta.log.parents[1] / "etc")
    subprocess.run([f"/usr/sbin/{name}", "-c", etc, *words], check=True, capture_output=True, timeout=30)


def configure(mta: Postfix, *lines: str) -> None:
    """Change main.cf, and wait until it holds: the greeting says so."""
    banner = f"configured {mta.log.stat().st_size}"
    command(mta, "postconf", "-e", *lines, f"smtpd_banner = $myhostname {banner}")
    command(mta, "postfix", "reload")
    until(lambda: banner in greeting(mta), "Postfix to have read its configuration again", 20)


def greeting(mta: Postfix) -> str:
    with smtplib.SMTP(timeout=10) as client:
        return client.connect("127.0.0.1", mta.port)[1].decode()


def told(mta: Postfix, *commands: str, helo: str = "app1", login: str = "") -> list[int]:
    """The codes with which the commands of a session are answered."""
    with smtplib.SMTP("127.0.0.1", mta.port, timeout=20) as client:
        if login:
            client.ehlo(helo)
            client.docmd(f"XCLIENT LOGIN={login}")
        said(client, f"EHLO {helo}")
        return [said(client, text) for text in commands]


def said(client: smtplib.SMTP, text: str) -> int:
    client.send(f"{text}\r\n")
    return client.getreply()[0]


def to(sender: str, *recipients: str) -> tuple[str, ...]:
    return f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients)


BODY = ("DATA", f"Subject: 450 4.7.1 <a@b>: Recipient address rejected: {WORDS}\r\n\r\n{WORDS}\r\n.")


@pytest.fixture(scope="module")
def real() -> tuple[str, list[dict]]:
    """A real log and its outcomes: mail refused and kept in the queue by pauses, let go, and strangers' attempts."""
    with sink() as receiver, policy(decide) as service, parrot() as hostile, postfix(receiver.port) as mta:
        headers = mta.log.parents[1] / "etc/headers"
        headers.write_text("/^Subject:/ WARN\n")
        configure(
            mta,
            f"smtpd_recipient_restrictions = {service}, permit_mynetworks, reject_unauth_destination",
            f"smtpd_end_of_data_restrictions = {service}",
            "smtpd_reject_unlisted_recipient = no",  # else smtpd itself refuses what `retry` would keep in the queue
            "smtpd_authorized_xclient_hosts = 127.0.0.1",
            "initial_destination_concurrency = 1",
            f"header_checks = regexp:{headers}",
            TRANSPORTS % (WORDS, hostile),
        )
        refuse(mta)
        told(mta, *to(NEWS, "ann@paused.example", "bob@paused.example", "vip@one.example"), *BODY)
        told(mta, *to(NEWS, "cat@paused.example"), *BODY)
        for _ in range(3):
            told(mta, *to(NEWS, "dan@parrot.example"), *BODY)
        until(
            lambda: mta.log.read_text().count("to=<cat@paused.example>, relay=none") > 1,
            "a second time under the pause",
        )
        until(lambda: "temporarily suspended: host" in mta.log.read_text(), "the receiver with our words to be avoided")
        command(mta, "postsuper", "-h", "ALL")
        command(mta, "postsuper", "-H", "ALL")
        configure(mta, "transport_maps =")
        command(mta, "postqueue", "-f")
        until(lambda: Counter(KEPT) <= Counter(receiver.taken), "what was kept to be delivered")
        until(lambda: mta.log.read_text().count(": removed") == QUEUED, "the log to tell of all of it")
        text = mta.log.read_text()
    older = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ} mta1 postfix/master[1]: daemon started\n"
    return text, rows(older + text, now=datetime.now(UTC), sasl_pattern="^seller-(?P<tenant>.+)$")


def refuse(mta: Postfix) -> None:
    """What is refused at the door, ours and that of strangers."""
    assert told(mta, *to(SENDER, "kim@one.example", "vip@one.example", "lee@one.example"), *BODY)[1:4] == [
        450,
        250,
        450,
    ]
    assert told(mta, *to(SENDER, '"max m"@one.example'))[-1] == 450
    assert told(mta, *to(SENDER, "kay@one.example", "vip@one.example", "liz@one.example"), *BODY, login="seller-anna")
    assert told(mta, *to("late@shop.example", "noa@one.example"), *BODY)[-1] == 450
    assert told(mta, *to("late@shop.example", "noa@one.example", "ole@one.example"), *BODY)[-1] == 450
    assert told(mta, "VRFY kim@one.example") == [450]
    assert told(mta, *to("stranger@else.example", "vip@one.example"), *BODY)[-1] == 250
    for address in HOSTILE:
        assert told(mta, *to(address, "kim@one.example", address)) == [250, 450, 450]
    helo = f"app1>: Recipient address rejected: {WORDS}; from=<{SENDER}> to=<kim@one.example>"
    assert told(mta, *to("a@evil.example", "kim@one.example"), helo=helo)[-1] == 450


def of_kind(found: list[dict], kind: str) -> list[dict]:
    return [row for row in found if row["kind"] == kind]


def test_what_a_real_postfix_refuses_for_us_is_held(real):
    _, found = real
    told = [(row["recipient"], row["tenant"], row["segment"]) for row in of_kind(found, "held") if row["code"]]
    assert told == [
        ("kim@one.example", "s07", "lapsed"),
        ("lee@one.example", "s07", "lapsed"),
        ('"max m"@one.example', "s07", "lapsed"),
        ("kay@one.example", "s07", "lapsed"),  # smtpd 3.7 tells no user before a message has its id
        ("liz@one.example", "anna", "lapsed"),
        ("noa@one.example", "", ""),
        ("", "", ""),  # at the end of a message smtpd names one recipient, or none
    ]


def test_what_a_real_postfix_keeps_for_us_is_held_and_its_first_try_is_the_first_attempt(real):
    _, found = real
    held = Counter(row["recipient"] for row in of_kind(found, "held") if not row["code"])
    assert set(held) == set(KEPT[:3])
    assert held["cat@paused.example"] >= 2
    assert {row["attempt"] for row in of_kind(found, "held")} == {0}
    sent = [row for row in of_kind(found, "sent") if row["recipient"] in held]
    assert [row["attempt"] for row in sent] == [1, 1, 1]


def test_a_real_receiver_that_greets_with_our_words_defers_each_time(real):
    text, found = real
    assert re.search(rf"relay=none, .*\(delivery temporarily suspended: host .*{MARKER}", text)
    deferred = of_kind(found, "deferred")
    assert {row["recipient"] for row in deferred} == {"dan@parrot.example"}
    assert all(MARKER in row["reply"] for row in deferred)
    assert min(row["attempt"] for row in of_kind(found, "sent") if row["recipient"] == "dan@parrot.example") >= 2


def test_a_real_log_has_nothing_that_can_not_be_read(real):
    text, _ = real
    assert "postsuper" in text
    assert [item for batch in parsed(text, now=datetime.now(UTC)) for item in batch.rejected] == []
