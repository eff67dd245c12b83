"""What a letter tells becomes rows with clues, or a count of what it was; one that can't be read is set aside whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest

from collectors._letters import PATIENCE, Letterbox, Raw, Read
from monitor.model import Batch, Rejected
from monitor.ports import Memory
from tests.servers.keydns import KeyDns
from tests.signing import key, signed

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
YAHOO = "arf.mail.yahoo.com"


class Box(Letterbox):
    """A mailbox of which only the reading is looked at."""

    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        yield from ()


def micros(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000


def read(*letters: bytes, received: datetime = NOW, **settings: object) -> Read:
    raws = [Raw(letter, f"letter {place}", micros(received)) for place, letter in enumerate(letters, 1)]
    return Box(**settings).read(raws, NOW)


def rows(told: Batch) -> list[dict[str, object]]:
    return [dict(zip(told.columns, row, strict=True)) for row in zip(*told.columns.values(), strict=True)]


def bounce(recipients: Sequence[str] = ("jo@example.net",), action: str = "failed", status: str = "5.1.1") -> bytes:
    parts = "".join(
        f"\nFinal-Recipient: rfc822; {one}\nAction: {action}\nStatus: {status}\n"
        "Diagnostic-Code: smtp; 550 5.1.1 user unknown\nRemote-MTA: dns; mx.example.net\n"
        for one in recipients
    )
    return (
        "From: MAILER-DAEMON@mta1.shop.example\nTo: bounce+s07@shop.example\nSubject: Undelivered Mail\n"
        'MIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary="b"\n\n'
        "--b\nContent-Type: text/plain\n\nIt could not be delivered.\n"
        f"--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mta1.shop.example\n{parts}"
        "--b\nContent-Type: text/rfc822-headers\n\nFrom: news@shop.example\nMessage-ID: <7@shop.example>\n"
        "X-Mailvane: 1.abc\nFeedback-ID: bf:s07:news:shop\n\n--b--\n"
    ).encode()


def complaint(kind: str = "abuse") -> bytes:
    text = (
        f"From: feedback@{YAHOO}\nTo: fbl@shop.example\nSubject: FW: offer\nDate: Tue, 24 Nov 2026 11:50:00 +0000\n"
        'MIME-Version: 1.0\nContent-Type: multipart/report; report-type=feedback-report; boundary="b"\n\n'
        f"--b\nContent-Type: message/feedback-report\n\nFeedback-Type: {kind}\nUser-Agent: Y/2\nVersion: 1\n"
        "Original-Rcpt-To: jane@yahoo.example\nSource-IP: 192.0.2.7\n\n"
        "--b\nContent-Type: message/rfc822\n\nFrom: news@shop.example\nMessage-ID: <8@shop.example>\n\nBuy.\n\n--b--\n"
    )
    return text.replace("\n", "\r\n").encode()


@pytest.fixture(scope="module")
def dns() -> Iterator[KeyDns]:
    with KeyDns() as server:
        server.texts[f"arf._domainkey.{YAHOO}"] = [key().record()]
        server.failing.add("lost._domainkey." + YAHOO)
        yield server


def test_each_recipient_of_a_bounce_is_a_row_with_what_led_to_its_message():
    told = read(bounce(["a@example.net", "b@example.net"])).batch
    first, second = rows(told)
    assert (first["kind"], first["recipient"], first["message_id"]) == ("bounced", "a@example.net", "7@shop.example")
    assert (first["dsn"], first["code"], first["reply_class"]) == ("5.1.1", 550, "invalid_recipient")
    assert (second["recipient"], second["relay"]) == ("b@example.net", "mx.example.net")
    assert first["id"] != second["id"]
    clues = told.clues[0]
    assert (clues.token, clues.feedback_id) == ("1.abc", "bf:s07:news:shop")
    assert (clues.return_path, clues.recipient, clues.vouched) == ("bounce+s07@shop.example", "a@example.net", False)
    assert list(told.places) == ["letter 1", "letter 1"]
    assert told.met == {"bounced": 2}


def test_the_envelope_says_better_than_a_header_to_whom_a_bounce_came():
    raw = Raw(bounce(), "letter", micros(NOW), to="bounce+other@shop.example")
    assert Box().read([raw], NOW).batch.clues[0].return_path == "bounce+other@shop.example"


def test_a_bounce_is_believed_without_its_message_only_where_the_operator_says_so():
    assert read(bounce(), trusted=True).batch.clues[0].vouched


def test_a_complaint_counts_only_if_its_reporter_signed_it(dns: KeyDns):
    true, other, bare = signed(complaint(), YAHOO, at=NOW), signed(complaint(), "evil.example", at=NOW), complaint()
    told = read(true, other, bare, resolvers=(dns.address,)).batch
    assert [row["kind"] for row in rows(told)] == ["complaint", "unverified_complaint", "unverified_complaint"]
    assert [clues.vouched for clues in told.clues] == [True, False, False]
    first = rows(told)[0]
    assert (first["provider"], first["ip"], first["recipient"]) == ("yahoo", "192.0.2.7", "jane@yahoo.example")
    assert "signature" in str(rows(told)[1]["reply"])  # whoever set up the loop must know why it is not believed


@pytest.mark.parametrize(("kind", "counts"), [("opt-out", "unsubscribed"), ("not-spam", "not_spam")])
def test_what_is_no_complaint_is_none(dns: KeyDns, kind: str, counts: str):
    told = read(signed(complaint(kind), YAHOO, at=NOW), resolvers=(dns.address,)).batch
    assert [row["kind"] for row in rows(told)] == [counts]


def asked(sender: str, *, to: str = "u-17@shop.example", subject: str = "unsubscribe", head: str = "") -> bytes:
    """A mail that asks to stop, as its writer's own domain signs it."""
    text = f"From: {sender}\nTo: {to}\nSubject: {subject}\nDate: Tue, 24 Nov 2026 11:50:00 +0000\n\nStop.\n"
    return head.encode() + signed(text.replace("\n", "\r\n").encode(), "evil.example", at=NOW)


def test_whoever_asks_to_stop_is_believed_of_themselves(dns: KeyDns):
    dns.texts["arf._domainkey.evil.example"] = [key().record()]
    [row] = rows(read(asked("Eve <eve@evil.example>"), resolvers=(dns.address,)).batch)
    assert (row["kind"], row["recipient"]) == ("unsubscribed", "eve@evil.example")


@pytest.mark.parametrize(
    "sender",
    [
        '"<jane@example.net>" <eve@evil.example>',
        "=?utf-8?Q?=3Cjane=40example.net=3E?= <eve@evil.example>",
        "Eve <=?utf-8?Q?jane=40example.net?=@evil.example>",
        '"" <=?utf-8?Q?jane=40example.net=3E?=@evil.example>',
    ],
    ids=["quoted", "coded", "coded mailbox", "coded end"],
)
def test_whoever_asks_to_stop_asks_for_nobody_else_however_they_spell_it(dns: KeyDns, sender: str):
    dns.texts["arf._domainkey.evil.example"] = [key().record()]
    [row] = rows(read(asked(sender), resolvers=(dns.address,)).batch)
    assert row["kind"] == "unverified_complaint"


def test_a_header_that_nobody_signed_makes_no_mail_one_that_asks_to_stop(dns: KeyDns):
    dns.texts["arf._domainkey.evil.example"] = [key().record()]
    letter = asked("Eve <eve@evil.example>", subject="Hello", head="X-Apple-Unsubscribe: true\r\n")
    [row] = rows(read(letter, resolvers=(dns.address,)).batch)
    assert row["kind"] == "unverified_complaint"


def test_a_true_report_that_may_have_been_sent_to_somebody_else_is_known_for_it(dns: KeyDns):
    dns.texts["arf._domainkey.hotmail.com"] = [key().record()]
    letter = complaint().replace(f"feedback@{YAHOO}".encode(), b"staff@hotmail.com")
    open_, ours = (
        signed(letter, "hotmail.com", at=NOW, headers=("from", "subject")),
        signed(letter, "hotmail.com", at=NOW),
    )
    told = read(open_, ours, resolvers=(dns.address,), addressed=("fbl@shop.example",)).batch
    assert [(clues.vouched, clues.astray) for clues in told.clues] == [(True, True), (True, False)]
    assert [clues.astray for clues in read(open_, resolvers=(dns.address,)).batch.clues] == [False]


def test_reports_about_anything_else_are_counted_and_tell_nothing(dns: KeyDns):
    told = read(signed(complaint("virus"), YAHOO, at=NOW), resolvers=(dns.address,)).batch
    assert (rows(told), told.met) == ([], {"other report": 1})


def test_while_no_name_server_answers_a_report_waits_and_the_others_go_on(dns: KeyDns):
    unsure = signed(complaint(), YAHOO, at=NOW, selector="lost")
    found = read(bounce(), unsure, bounce(["b@example.net"]), resolvers=(dns.address,))
    assert found.later == {1}
    assert [row["kind"] for row in rows(found.batch)] == ["bounced", "bounced"]
    old = read(unsure, received=NOW - PATIENCE - timedelta(seconds=1), resolvers=(dns.address,))
    assert (old.later, [row["kind"] for row in rows(old.batch)]) == (frozenset(), ["unverified_complaint"])


def test_mail_that_tells_nothing_is_counted_by_what_it_is():
    vacation = EmailMessage()
    vacation["From"], vacation["Subject"], vacation["Auto-Submitted"] = "a@example.net", "Out of office", "auto-replied"
    vacation.set_content("I am on holiday.")
    plain = EmailMessage()
    plain["From"], plain["Subject"] = "b@example.net", "Hello"
    plain.set_content("How are you?")
    told = read(vacation.as_bytes(), plain.as_bytes(), bounce(action="delayed", status="4.4.1")).batch
    assert (rows(told), told.rejected) == ([], [])
    assert told.met == {"reply": 1, "nothing": 1, "delay": 1}


def test_a_report_that_names_nobody_is_set_aside_whole_and_read_again():
    broken = bounce(recipients=["not an address at all"]).replace(b"Message-ID", b"X-Nothing")
    told = read(broken, bounce()).batch
    assert len(rows(told)) == 1
    [aside] = told.rejected
    assert (aside.raw, aside.kind, aside.where) == (broken, "message", "letter 1")
    assert "@" not in aside.sample.replace("…@", "")
    mended = Rejected(aside.why, aside.where, raw=bounce(), kind="message")
    assert [row["kind"] for row in rows(Box().again([mended], NOW))] == ["bounced"]


@pytest.mark.parametrize("raw", [b"", b"\0", b"\xff" * 5_000, b"From ", b"--\n" * 1_000])
def test_bytes_that_are_no_mail_stop_nobody(raw: bytes):
    assert [row["kind"] for row in rows(read(raw, bounce()).batch)] == ["bounced"]


def test_times_are_those_of_the_refusal_where_they_can_be():
    letter = bounce().replace(b"Remote-MTA", b"Last-Attempt-Date: Tue, 24 Nov 2026 10:00:00 +0000\nRemote-MTA")
    [row] = rows(read(letter).batch)
    assert row["at"] == micros(NOW - timedelta(hours=2))
    [row] = rows(read(letter.replace(b"2026 10:00", b"2027 10:00")).batch)
    assert row["at"] == micros(NOW)


def test_a_bounce_of_more_recipients_than_are_read_is_set_aside_rather_than_half_told():
    told = read(bounce([f"r{number}@example.net" for number in range(1_200)])).batch
    assert (len(rows(told)), [one.kind for one in told.rejected]) == (0, ["message"])
    assert len(rows(read(bounce([f"r{number}@example.net" for number in range(900)])).batch)) == 900
