"""Complaints: each form in which they come says the same of the same message, and what is no complaint says nothing."""

from __future__ import annotations

import csv
import os
import re
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors._arf import Complaint, complained, kind_of
from collectors._instants import instant
from collectors._mail import read
from collectors._redacted import recipient, redacted
from monitor.model import Clues, Kind

GOLDEN = Path(__file__).parent / "golden" / "arf"
SHARED = Path(os.environ.get("MAILVANE_SHARED") or Path(__file__).resolve().parents[2] / "shared")
TAKEN, SENT = 1_793_732_400_000_000, 1_793_732_398_000_000  # 3 November 2026 19:00 UTC, two seconds before
VERP, JANE = "b-17@bounces.shop.example", "jane@reporter.example"
CLUES = Clues(message_id="17.autumn@shop.example", sender="sales@shop.example", ip="192.0.2.1", sent=SENT)


def golden(name: str) -> Complaint:
    found = complained(read((GOLDEN / f"{name}.eml").read_bytes()))
    assert found is not None
    return found


def clues(**more: object) -> Clues:
    return Clues(**{**{name: getattr(CLUES, name) for name in ("message_id", "sender", "ip", "sent")}, **more})


def report(
    fields: str = "Feedback-Type: abuse\nUser-Agent: x/1\nVersion: 1\n",
    original: str = "Message-ID: <1@shop.example>\nFrom: sales@shop.example\nTo: jane@example.net\n",
    head: str = "",
) -> Complaint | None:
    text = (
        f'{head}From: fbl@reporter.example\nContent-Type: multipart/report; report-type=feedback-report; boundary="b"\n\n'
        f"--b\nContent-Type: text/plain\n\nA report.\n\n--b\nContent-Type: message/feedback-report\n\n{fields}\n"
        f"--b\nContent-Type: message/rfc822\n\n{original}\n--b--\n"
    )
    return complained(read(text.encode()))


# each loop's own form

WHOLE = {
    "whole": Complaint(
        type="abuse",
        user_agent="Reporter/1.0",
        version="1",
        source_ip="192.0.2.1",
        original_mail_from=VERP,
        original_rcpt_to=(JANE, "john@reporter.example"),
        arrival=TAKEN,
        reported_domain=("shop.example",),
        reported_uri=("https://shop.example/autumn", "mailto:sales@shop.example"),
        incidents=2,
        authentication_results=(f"mx.reporter.example; spf=pass smtp.mailfrom={VERP}",),
        reporter="reporter.example",
        recipients=(JANE, "john@reporter.example"),
        clues=clues(
            token="v1 token",
            feedback_id="autumn:acme:sale:shop",
            unsubscribe="<https://shop.example/u/17>, <mailto:u-17@shop.example>",
            return_path=VERP,
            recipient=JANE,
        ),
    ),
    "validity": Complaint(
        type="abuse",
        user_agent="ReturnPathFBL/2.0",
        version="1",
        source_ip="192.0.2.1",
        original_mail_from=VERP,
        original_rcpt_to=("3b5d5c3712955042212316173ccf37be@comcast.net",),
        arrival=TAKEN,
        reported_domain=("bounces.shop.example",),
        reporter="comcastfbl.senderscore.net",
        clues=clues(return_path=VERP),
    ),
    "yahoo": Complaint(
        type="abuse",
        user_agent="Yahoo!-Mail-Feedback/1.0",
        version="0.1",
        original_mail_from=VERP,
        original_rcpt_to=("jane@yahoo.example",),
        arrival=TAKEN,
        reported_domain=("shop.example",),
        reporter="arf.mail.yahoo.com",
        recipients=("jane@yahoo.example",),
        clues=clues(return_path=VERP, recipient="jane@yahoo.example"),
    ),
    "aol": Complaint(
        type="abuse",
        user_agent="AOL SComp",
        version="0.1",
        source_ip="192.0.2.1",
        arrival=TAKEN,
        reported_domain=("out.shop.example",),
        reporter="aol.net",
        clues=clues(return_path=VERP),
    ),
    "jmrp": Complaint(
        type="abuse",
        reporter="hotmail.com",
        recipients=("jane@hotmail.example",),
        clues=clues(return_path=VERP, recipient="jane@hotmail.example"),
    ),
    "jmrp_empty": Complaint(
        type="abuse",
        user_agent="JMRP/1.0",
        version="1",
        reporter="hotmail.com",
        recipients=("jane@hotmail.example",),
        clues=clues(recipient="jane@hotmail.example"),
    ),
    "coded": Complaint(
        type="abuse",
        user_agent="Coder/1.0",
        version="1",
        source_ip="192.0.2.1",
        original_rcpt_to=("jane@coder.example",),
        arrival=TAKEN,
        reporter="coder.example",
        recipients=("jane@coder.example",),
        clues=clues(recipient="jane@coder.example"),
    ),
    "cfbl": Complaint(
        type="abuse",
        user_agent="FBL/0.1",
        version="0.1",
        source_ip="2001:db8::1",
        original_mail_from="sales@shop.example",
        arrival=TAKEN,
        reporter="provider.example",
        clues=Clues(
            feedback_id="111:222:333:4444",
            return_path="sales@shop.example",
            message_id="17.autumn@shop.example",
            ip="2001:db8::1",
            sent=TAKEN,
        ),
    ),
    "xarf": Complaint(
        type="abuse",
        user_agent="XARF",
        source_ip="192.0.2.1",
        original_mail_from=VERP,
        arrival=TAKEN,
        reporter="provider.example",
        recipients=("jane@provider.example",),
        clues=clues(feedback_id="111:222:333:4444", return_path=VERP, recipient="jane@provider.example"),
    ),
    "optout": Complaint(
        type="opt-out",
        user_agent="Reporter/1.0",
        version="0.1",
        removal_recipient=(JANE,),
        reporter="reporter.example",
        recipients=(JANE,),
        clues=clues(recipient=JANE, sent=0),
    ),
    "notspam": Complaint(
        type="not-spam",
        user_agent="Reporter/1.0",
        version="1",
        source_ip="192.0.2.1",
        original_rcpt_to=(JANE,),
        reporter="reporter.example",
        recipients=(JANE,),
        clues=clues(recipient=JANE, sent=0),
    ),
    "auth": Complaint(
        type="auth-failure",
        user_agent="Receiver/2.0",
        version="1",
        source_ip="203.0.113.9",
        original_rcpt_to=("jane@receiver.example",),
        arrival=TAKEN,
        reported_domain=("shop.example",),
        auth_failure="dmarc",
        delivery_result="reject",
        dkim_domain="shop.example",
        authentication_results=("mx.receiver.example; dmarc=fail header.from=shop.example",),
        reporter="receiver.example",
        recipients=("jane@receiver.example",),
        clues=clues(
            message_id="forged@elsewhere.example", recipient="jane@receiver.example", ip="203.0.113.9", sent=TAKEN
        ),
    ),
    "prose": Complaint(
        type="abuse",
        reporter="isp.example",
        recipients=("jane@isp.example",),
        clues=clues(recipient="jane@isp.example"),
    ),
    "apple": Complaint(
        type="opt-out",
        user_agent="Apple Mail",
        original_rcpt_to=("jane@icloud.example",),
        reporter="icloud.example",
        in_person=True,
        covered=False,
        recipients=("jane@icloud.example",),
        clues=Clues(unsubscribe="<mailto:u-17@shop.example>", recipient="jane@icloud.example"),
    ),
}
KINDS = {"optout": Kind.UNSUBSCRIBED, "apple": Kind.UNSUBSCRIBED, "notspam": Kind.NOT_SPAM, "auth": None}


@pytest.mark.parametrize("name", WHOLE)
def test_a_report_is_read_whole(name):
    assert golden(name) == WHOLE[name]
    assert kind_of(golden(name)) == KINDS.get(name, Kind.COMPLAINT)


def test_every_golden_report_is_compared():
    assert {path.stem for path in GOLDEN.glob("*.eml")} == set(WHOLE)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
def test_lines_may_end_in_any_way(name, end):
    raw = (GOLDEN / f"{name}.eml").read_bytes().replace(b"\n", end)
    assert complained(read(raw)) == WHOLE[name]


@pytest.mark.parametrize("name", WHOLE)
def test_a_report_that_breaks_off_raises_nothing(name):
    raw = (GOLDEN / f"{name}.eml").read_bytes()
    for end in range(0, len(raw), 7):
        found = complained(read(raw[:end]))
        assert found is None or isinstance(found.identity, str)


def test_no_address_is_in_a_repr():
    assert not [name for name in WHOLE if re.search(r"jane|john", repr(golden(name)).replace("jane@icloud", ""))]


# what counts


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("abuse", Kind.COMPLAINT),
        ("Abuse", Kind.COMPLAINT),
        ("spam", Kind.COMPLAINT),
        ("complaint", Kind.COMPLAINT),
        ("opt-out", Kind.UNSUBSCRIBED),
        ("Opt-Out", Kind.UNSUBSCRIBED),
        ("unsubscribe", Kind.UNSUBSCRIBED),
        ("not-spam", Kind.NOT_SPAM),
        ("fraud", None),
        ("virus", None),
        ("other", None),
        ("auth-failure", None),
        ("dmarc", None),
        ("miscategorized", None),
        ("x-unheard-of", None),
        ("", None),
    ],
)
def test_only_abuse_counts_as_a_complaint(said, kind):
    found = report(f"Feedback-Type: {said}\nVersion: 1\n")
    assert (found.type, kind_of(found)) == (said.lower(), kind)


def test_where_the_type_is_missing_another_word_tells_it():
    assert kind_of(report("Abuse-Type: complaint\nVersion: 1\n")) is Kind.COMPLAINT
    assert kind_of(report("User-Agent: x\nVersion: 1\n")) is None


@pytest.mark.parametrize(
    ("written", "number"),
    [("3", 3), ("0", 1), ("-2", 1), ("many", 1), ("", 1), ("9999999999", 1_000_000), ("9" * 5_000, 1), ("٣", 1)],
)
def test_incidents_are_a_number_of_some_sense(written, number):
    assert report(f"Feedback-Type: abuse\nIncidents: {written}\n").incidents == number


def test_of_many_recipients_some_are_read():
    many = "".join(f"Original-Rcpt-To: <{n}@example.net>\n" for n in range(700))
    found = report(f"Feedback-Type: abuse\n{many}")
    assert found.recipients[:2] == ("0@example.net", "1@example.net")
    assert len(found.recipients) == 500


# whom


@pytest.mark.parametrize(
    "local",
    [
        "redacted",
        "REDACTED",
        "xxxx",
        "***",
        "j***",
        "a***e",
        "[redacted]",
        "undisclosed-recipient",
        "hashed",
        "anonymous",
        "b6cf7e1a0096ba1caf76ee2c90aaaeaa",
        "B6CF7E1A0096BA1CAF76EE2C90AAAEAA",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "3q2+7w5vZr8nO1mLcXk9bQyT4sA=",
        "Tm90LWEtcGVyc29uLWJ1dC1hLWhhc2gtMTI3",
    ],
)
def test_what_stands_in_place_of_a_recipient_is_no_address(local):
    found = report(f"Feedback-Type: abuse\nOriginal-Rcpt-To: {local}@example.net\n", "Message-ID: <1@shop.example>\n")
    assert (found.recipients, found.clues.recipient) == ((), "")
    assert found.original_rcpt_to == (f"{local}@example.net",)


@pytest.mark.parametrize(
    "local",
    [
        "jane",
        "x",
        "Jane.Doe+news-2026",
        "deadbeef",
        "maria.magdalena.von.und.zu.lichtenstein",
        "user_1234567890",
        "12345678",
        "international-correspondence-office",
        "JMCNAMARA",
        "a.b.c.d.e",
        "privatebank",
        "1234567890123456789012345678",
    ],
)
def test_a_person_is_not_taken_for_a_digest(local):
    assert recipient(f"<{local}@example.net>") == f"{local}@example.net"
    assert not redacted(f"{local}@example.net")


@pytest.mark.parametrize(
    ("original", "whom"),
    [
        ("To: Jane <jane@example.net>\n", "jane@example.net"),
        ("To: jane@example.net, john@example.net\n", ""),
        ("To: undisclosed recipients:;\n", ""),
        ("To: redacted@example.net\n", ""),
        ("X-Apparently-To: jane@example.net via 192.0.2.45; Thu, 29 Apr 2013 23:45:10 -0800\n", "jane@example.net"),
        ("X-HmXmrOriginalRecipient: jane@example.net\nTo: other@example.net\n", "jane@example.net"),
        ("X-HmXmrOriginalRecipient: \nTo: other@example.net\n", "other@example.net"),
        ("Delivered-To: jane@example.net\nTo: list@example.org\n", "jane@example.net"),
        ("Subject: x\n", ""),
    ],
)
def test_where_the_report_does_not_name_the_recipient_the_message_may(original, whom):
    assert report(original=f"Message-ID: <1@shop.example>\n{original}").clues.recipient == whom


# which message


@pytest.mark.parametrize(
    ("original", "ip"),
    [
        ("Received: from a ([192.0.2.9]) by b\n", "192.0.2.9"),
        ("Received: from a (a [IPv6:2001:db8::9]) by b\n", "2001:db8::9"),
        ("Received-SPF: pass (x) client-ip=192.0.2.9; y\nReceived: from a ([192.0.2.8]) by b\n", "192.0.2.9"),
        ("X-Originating-IP: [192.0.2.9]\n", "192.0.2.9"),
        ("Received: from a ([999.0.2.9]) by b (version 10.3.2.1.9)\n", ""),
        ("", ""),
    ],
)
def test_where_the_report_does_not_name_the_ip_the_message_may(original, ip):
    found = report(original=f"Message-ID: <1@shop.example>\n{original}")
    assert (found.source_ip, found.clues.ip) == ("", ip)


def test_what_is_no_ip_is_kept_but_no_clue():
    found = report("Feedback-Type: abuse\nSource-IP: x.x.x.x\n")
    assert (found.source_ip, found.clues.ip) == ("x.x.x.x", "")


@pytest.mark.parametrize(
    ("fields", "original", "found"),
    [
        ("", "Message-ID: <1@shop.example>\n", "1@shop.example"),
        ("", "Message-Id:\n <1@shop.example>\n", "1@shop.example"),
        ("", "Message-ID: 1@shop.example\n", "1@shop.example"),
        ("Original-Message-ID: <1@shop.example>\n", "Subject: x\n", "1@shop.example"),
        ("", "REDACTED\n", ""),
    ],
)
def test_the_id_is_the_messages_not_the_reports(fields, original, found):
    head = "Message-ID: <report@reporter.example>\n"
    assert report("Feedback-Type: abuse\n" + fields, original, head).clues.message_id == found


def test_fields_may_stand_apart():
    found = report("\n\nUser-Agent: x\n \t\nVersion: 1\n\nFeedback-Type: abuse\nSource-IP: 192.0.2.1\n")
    assert (found.type, found.user_agent, found.version, found.source_ip) == ("abuse", "x", "1", "192.0.2.1")


# what is told again


def test_the_same_report_told_again_is_the_same():
    raw = (GOLDEN / "validity.eml").read_bytes()
    again = (
        b"From other@elsewhere.example Wed Nov 04 10:00:00 2026\nReceived: from a by b\nDelivered-To: other@shop.example\n"
        + re.sub(rb"Date: Tue, 03 Nov 2026 20[^\n]*", b"Date: Wed, 04 Nov 2026 09:00:00 +0000\nMessage-ID: <x@y>", raw)
        .replace(b"\n", b"\r\n")
        .replace(b"To: fbl@shop.example", b"To: abuse@shop.example")
    )
    assert again != raw
    assert complained(read(again)).identity == complained(read(raw)).identity


def test_other_reports_are_others():
    base = "Feedback-Type: {}\nOriginal-Rcpt-To: {}\nSource-IP: 192.0.2.1\n"
    one = report(base.format("abuse", "jane@example.net"))
    assert report(base.format("abuse", "JANE@example.net")).identity == one.identity
    assert report(base.format("spam", "jane@example.net")).identity == one.identity
    others = [
        report(base.format("abuse", "john@example.net")),
        report(base.format("opt-out", "jane@example.net")),
        report(base.format("fraud", "jane@example.net")),
        report(base.format("abuse", "jane@example.net"), "Message-ID: <2@shop.example>\n"),
    ]
    assert len({one.identity, *(other.identity for other in others)}) == 5


def test_digests_in_place_of_recipients_tell_them_apart():
    fields = "Feedback-Type: abuse\nOriginal-Rcpt-To: {}@example.net\n"
    assert report(fields.format("a" * 32)).identity != report(fields.format("b" * 32)).identity


def test_without_an_id_the_rest_tells_reports_apart():
    fields = "Feedback-Type: abuse\nSource-IP: 192.0.2.1\nArrival-Date: Tue, 3 Nov 2026 19:00:0{} +0000\n"
    first, again, other = (report(fields.format(second), "Subject: x\n") for second in (1, 1, 2))
    assert first.identity == again.identity != other.identity


# other forms


def test_a_message_sent_on_by_microsoft_as_it_was_is_told_by_its_headers():
    raw = (
        b"Received: from mx.hotmail.example by us.example\nX-HmXmrOriginalRecipient: jane@hotmail.example\n"
        b"Received: from out.shop.example ([192.0.2.1]) by mx.hotmail.example\nMessage-ID: <17.autumn@shop.example>\n"
        b"From: sales@shop.example\nDate: Tue, 03 Nov 2026 18:59:58 +0000\n\nEverything must go.\n"
    )
    found = complained(read(raw))
    assert found.clues == clues(recipient="jane@hotmail.example")
    assert not found.covered


def xarf(
    body: str, head: str = "X-XARF: PLAIN\n", name: str = "xarf.json", kind: str = "application/json"
) -> Complaint | None:
    return complained(
        read(
            (
                f'From: a@b.example\n{head}Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/plain\n\nHello\n'
                f'--b\nContent-Type: {kind}; name="{name}"\n\n{body}\n--b--\n'
            ).encode()
        )
    )


def test_version_4_of_xarf_is_read():
    found = xarf(
        '{"xarf_version": "4.0.0", "category": "messaging", "type": "spam", "source_identifier": "192.0.2.1",'
        ' "timestamp": "2026-11-03T19:00:00Z", "smtp_from": "b-17@bounces.shop.example", "evidence":'
        ' [{"content_type": "image/png", "payload": "AAAA"},'
        ' {"content_type": "message/rfc822", "payload": "TWVzc2FnZS1JRDogPDE3LmF1dHVtbkBzaG9wLmV4YW1wbGU+DQoNCg=="}]}'
    )
    assert (found.type, found.source_ip, found.arrival) == ("abuse", "192.0.2.1", TAKEN)
    assert (found.original_mail_from, found.clues.message_id) == (VERP, "17.autumn@shop.example")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "{}",
        '"x"',
        "[" * 100_000,
        '{"Report": 1}',
        '{"xarf": 1}',
        "1" * 5_000,
        '{"Report": {"Samples": [1, {}]}}',
        '{"xarf_version": 4, "evidence": {"a": 1}}',
        '{"Report": {"ReportType": ["Spam"], "Samples": "x"}}',
    ],
    ids=range(12),
)
def test_json_of_any_shape_is_borne(body):
    found = xarf(body)
    assert found is None or kind_of(found) is None


def test_x_arf_about_anything_but_mail_is_no_complaint():
    body = (
        "---\nReported-From: a@b.example\nCategory: abuse\nReport-Type: {}\nService: smtp\nVersion: 0.2\n"
        "Date: Tue, 03 Nov 2026 19:00:00 +0000\nSource-Type: ip-address\nSource: 192.0.2.1\n"
    )
    found = xarf(body.format("login-attack"), name="report.txt", kind="text/plain")
    assert (found.type, kind_of(found), found.source_ip) == ("login-attack", None, "192.0.2.1")
    assert kind_of(xarf(body.format("spam"), "X-ARF: Yes\n", "report.txt", "text/plain")) is Kind.COMPLAINT
    assert xarf(body.format("spam"), "", "report.txt", "text/plain") is None


def asked(subject: str, body: str = "", head: str = "") -> Complaint | None:
    text = f"From: Jane <jane@example.net>\nTo: u-17@shop.example\nSubject: {subject}\n{head}\n{body}\n"
    return complained(read(text.encode()))


def test_a_mail_that_says_unsubscribe_is_one():
    for found in (asked("unsubscribe"), asked("Unsubscribe", "This message was sent by my mail program.")):
        assert (kind_of(found), found.in_person, found.recipients) == (Kind.UNSUBSCRIBED, True, ("jane@example.net",))
        assert found.clues.unsubscribe == "<mailto:u-17@shop.example>"
    assert kind_of(asked("", "iOS Mail sent this email to unsubscribe from the message “x”.")) is Kind.UNSUBSCRIBED


@pytest.mark.parametrize(
    ("subject", "body", "head"),
    [
        ("Re: unsubscribe", "", ""),
        ("How do I unsubscribe?", "", ""),
        ("unsubscribe", "", "In-Reply-To: <1@shop.example>\n"),
        ("unsubscribe", "", "Auto-Submitted: auto-replied\n"),
        ("Hello", "He wrote: Apple Mail sent this email to unsubscribe", ""),
        ("Hello", "Feedback-Type: abuse", ""),
        ("Hello", "This is an email abuse report for you", ""),
        ("complaint about message from 192.0.2.1", "", ""),
        ("", "", ""),
    ],
)
def test_other_mail_is_no_complaint(subject, body, head):
    assert asked(subject, body, head) is None


def test_a_bounce_is_no_complaint():
    raw = (
        b"From: mailer-daemon@mx.example\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\n"
        b"This is an email abuse report for nobody\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n"
        b"Final-Recipient: rfc822; jane@example.net\nAction: failed\nStatus: 5.1.1\n\n--b\nContent-Type: message/rfc822\n\n"
        b"X-HmXmrOriginalRecipient: x@y.example\nMessage-ID: <1@shop.example>\n\n--b--\n"
    )
    assert complained(read(raw)) is None


# dates


@given(
    st.datetimes(
        datetime(1990, 1, 2),  # noqa: DTZ001 - the strategy puts the zone
        datetime(2099, 12, 30),  # noqa: DTZ001
        timezones=st.timezones(),
    ),
)
def test_a_date_as_mail_has_it_is_read(at):
    at = at.replace(microsecond=0)
    if at.utcoffset().total_seconds() % 60 == 0:
        assert instant(format_datetime(at)) == int(at.timestamp()) * 1_000_000
        assert instant(at.astimezone(UTC).isoformat()) == int(at.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "Tue, 3 Nov 2026 19:00:00 GMT",
        "Tue, 3 Nov 2026 19:00:00 UT",
        "Tue, 3 Nov 2026 19:00:00",
        "Tue, 03 Nov 2026 14:00:00 -0500 (EST)",
        "Tue,  3 Nov 2026 14:00:00 EST",
        "Tue, 3 Nov 2026 15:00:00 EDT",
        "Wed, 4 Nov 2026 04:00:00 JST",
        "Wed, 4 Nov 2026 04:00:00 +0900 (JST)",
        "Tue, 03 Nov 26 11:00:00 -0800",
        "3 Nov 2026 20:00 +0100",
        "3-Nov-2026 20:00:00 +0100",
        "Tue, 3 November 2026 20:00:00 CET",
        "Tue, 3 Nov 2026\n 19:00:00 +0000",
        "2026-11-03T20:00:00+01:00",
        "2026-11-03 19:00:00",
        "2026-11-03T19:00:00Z",
        "Tue, 3 Nov 2026 19:00:00 XYZ",
        "Tue, 3 Nov 2026 19:00:00 +9999",
        "Tue, 3 Nov 2026 19:00:00.000 +0000",
    ],
)
def test_dates_of_reporters_are_read(text):
    assert instant(text) == TAKEN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "31 Feb 2026 19:00:00 +0000",
        "3 Nov 1900 19:00:00",
        "3 Foo 2026 19:00:00",
        "3 Nov 2026 25:00:00",
        "9999-99-99",
        "2026",
        "\u0663 Nov 2026 19:00:00 +0000",
        "0001-01-01T00:00:00+23:59",
    ],
)
def test_what_is_no_date_says_nothing(text):
    assert instant(text) == 0


# strangers' bytes


@settings(max_examples=int(os.environ.get("MAILVANE_EXAMPLES", "200")), deadline=None)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 4_000), st.binary(max_size=12), st.integers(0, 30)), min_size=1, max_size=5),
)
def test_a_report_that_is_broken_raises_nothing(name, changes):
    raw = bytearray((GOLDEN / f"{name}.eml").read_bytes())
    for at, what, gone in changes:
        place = at % len(raw)
        raw[place : place + gone] = what
    found = complained(read(bytes(raw)))
    assert found is None or (len(found.identity) == 32 and "@" not in found.reporter)


@pytest.mark.parametrize(
    "filling",
    [
        "Original-Rcpt-To: a@b\n",
        "Source-IP: [",
        "this is a ",
        "from [1",
        "client-ip=",
        "message-id of ",
        "unsubscribe ",
        "1 Nov 2026 ",
        "*#",
        "\n \n",
        " ",
        "a" * 60,
        "@",
        "<",
        "Feedback-Type:",
        "\t",
        "[1.2.3.4]",
    ],
)
def test_what_is_made_to_take_long_does_not(filling):
    long = filling * (400_000 // len(filling))
    raw = (
        f"From: a@b.example\nSubject: {long[:50_000]}\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n"
        f"--b\n\n{long}\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nSource-IP: {long}\n"
        f"Arrival-Date: {long}\nOriginal-Rcpt-To: {long}\n\n--b\nContent-Type: message/rfc822\n\nReceived: {long}\n"
        f"To: {long}\nDate: {long}\nMessage-ID: {long}\n\n--b--\n"
    ).encode()
    mail = read(raw)
    began = time.process_time()
    complained(mail)
    assert time.process_time() - began < 1


# others' mail


@pytest.mark.skipif(not (SHARED / "corpus").is_dir(), reason="needs the shared corpus")
def test_the_types_that_others_found_are_found():
    with (SHARED / "corpus" / "truth" / "arf_fields.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["feedback_type"]]
    for row in rows:
        found = complained(read((SHARED / "corpus" / row["file"]).read_bytes()))
        assert found is not None, row["file"]
        assert found.type == row["feedback_type"], row["file"]


@pytest.mark.skipif(not (SHARED / "corpus").is_dir(), reason="needs the shared corpus")
def test_no_bounce_of_others_is_taken_for_a_complaint():
    for path in sorted((SHARED / "corpus" / "bounce").rglob("*")):
        if path.is_file() and b"X-HmXmrOriginalRecipient" not in (raw := path.read_bytes()):
            assert complained(read(raw)) is None, path.name


def test_five_hundred_reports_are_read_in_a_second():
    raws = [(GOLDEN / f"{name}.eml").read_bytes() for name in WHOLE] * 10
    began = time.process_time()
    assert all(complained(read(raw)).identity for raw in raws)
    assert len(raws) / (time.process_time() - began) > 500
