"""A report is evidence only if a reporter signed it, all of it, of late; whatever else says so is a forger's word."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors._arf import complained
from collectors._keys import Keys, Unreachable, endpoint
from collectors._mail import read
from collectors._reporters import REPORTERS, checked, reporters
from collectors._strict import Unclear, opened
from collectors._verify import SEEN, TRIED, Verdict, Verifier
from tests.servers.keydns import KeyDns
from tests.signing import HEADERS, NOW, key, signed

YAHOO, FORGER = "arf.mail.yahoo.com", "evil.example"
DAY = timedelta(days=1)
SELECTOR = "arf._domainkey."


def report(
    sender: str = "Yahoo! Mail AntiSpam Feedback <feedback@arf.mail.yahoo.com>",
    *,
    to: str = "fbl@shop.example",
    kind: str = 'multipart/report; report-type=feedback-report; boundary="b1"',
    body: str = "",
    more: str = "",
    message_id: str = "1@shop.example",
) -> bytes:
    body = body or (
        "--b1\nContent-Type: text/plain\n\nThis is an email abuse report.\n"
        "--b1\nContent-Type: message/feedback-report\n\n"
        "Feedback-Type: abuse\nUser-Agent: Yahoo!-Mail-Feedback/2.0\nVersion: 1\nOriginal-Rcpt-To: jane@example.net\n\n"
        f"--b1\nContent-Type: message/rfc822\n\nMessage-ID: <{message_id}>\nFrom: shop@shop.example\nSubject: offer\n\nBuy.\n"
        "\n--b1--\n"
    )
    head = (
        f"From: {sender}\nTo: {to}\nSubject: FW: offer\nDate: Tue, 24 Nov 2026 09:00:00 +0000\n"
        f"MIME-Version: 1.0\n{more}Content-Type: {kind}\n\n"
    )
    return (head + body).replace("\n", "\r\n").encode()


@pytest.fixture(scope="module")
def dns() -> Iterator[KeyDns]:
    with KeyDns() as server:
        for domain in (YAHOO, FORGER, "hotmail.com", "outlook.com", "senderscore.net", "yahoo.com"):
            server.texts[SELECTOR + domain] = [key().record()]
        yield server


def told(dns: KeyDns, raw: bytes, now: datetime = NOW, who: tuple[str, ...] = REPORTERS, **how) -> Verdict:
    return Verifier(who, [dns.address], **{"timeout": timedelta(seconds=2), **how}).verify(raw, now)


def put(dns: KeyDns, domain: str, *records: bytes) -> None:
    dns.texts[SELECTOR + domain] = list(records)


# what is evidence


@pytest.mark.parametrize("canon", ["relaxed/relaxed", "relaxed/simple", "simple/simple", "simple", "relaxed"])
def test_a_report_that_its_reporter_signed_is_evidence(dns, canon):
    assert told(dns, signed(report(), canon=canon)) == Verdict("pass", YAHOO, "signed by arf.mail.yahoo.com")


def test_what_dkimpy_signs_by_itself_is_evidence(dns):
    pair = rsa.generate_private_key(65_537, 2_048)
    secret = pair.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    put(dns, "fbl.zoho.com", b"v=DKIM1; p=" + b"".join(public.splitlines()[1:-1]))
    raw = report("feedbackloop@fbl.zoho.com")
    header = dkim.sign(raw, b"arf", b"fbl.zoho.com", secret)
    assert told(dns, header + raw, datetime.now(UTC)).state == "pass"


def test_lines_may_end_as_the_mailbox_has_them_and_a_from_line_may_come_first(dns):
    raw = signed(report())
    assert told(dns, raw.replace(b"\r\n", b"\n")).state == "pass"
    assert told(dns, b"From feedback@arf.mail.yahoo.com Tue Nov 24 09:00:00 2026\n" + raw).state == "pass"


def test_a_large_key_is_asked_for_by_tcp(dns):
    put(dns, YAHOO, key().record("v=DKIM1; n=" + "note" * 400 + "; "))
    try:
        before = dns.by_tcp
        assert told(dns, signed(report())).state == "pass"
        assert dns.by_tcp > before
    finally:
        put(dns, YAHOO, key().record())


def test_a_key_may_stand_elsewhere(dns):
    dns.aliases[SELECTOR + "fbl.usa.net"] = SELECTOR + FORGER
    assert told(dns, signed(report("feedbackloop@fbl.usa.net"), "fbl.usa.net")).state == "pass"


def test_signatures_above_and_below_that_are_no_good_do_no_harm(dns):
    raw = signed(report())
    raw = signed(raw, FORGER)
    raw = b"DKIM-Signature: v=1; a=rsa-sha256; d=arf.mail.yahoo.com; s=arf; h=from; bh=; b=\r\n" + raw
    raw = b"DKIM-Signature: nonsense\r\n" + raw
    assert told(dns, raw).state == "pass"


def test_received_lines_and_the_envelope_may_change(dns):
    raw = signed(report())
    again = b"Return-Path: <other@elsewhere.example>\r\nReceived: from somewhere by here\r\n" + raw
    assert told(dns, again).state == "pass"
    assert complained(read(again)).identity == complained(read(raw)).identity


# who may report


@pytest.mark.parametrize(
    ("sender", "by", "state"),
    [
        ("feedback@arf.mail.yahoo.com", YAHOO, "pass"),
        ("feedback@arf.mail.yahoo.com", "yahoo.com", "fail"),  # where anybody has a mailbox
        ("feedback@arf.mail.yahoo.com", FORGER, "fail"),
        ("feedback@yahoo.com", "yahoo.com", "fail"),
        ("feedback@evil.example", FORGER, "fail"),
        ("feedback@evil.example", YAHOO, "fail"),
        ("feedback@arf.mail.yahoo.com.evil.example", FORGER, "fail"),
        ("feedback@xarf.mail.yahoo.com", YAHOO, "fail"),
        ("feedbackloop@comcastfbl.senderscore.net", "senderscore.net", "pass"),
        ("feedbackloop@fbl.cox.net", "senderscore.net", "pass"),
        ("feedbackloop@fbl.cox.net", FORGER, "fail"),
        ("staff@hotmail.com", "hotmail.com", "pass"),
        ("Staff@Hotmail.Com", "hotmail.com", "pass"),
        ("staff@hotmail.com", "outlook.com", "pass"),
        ("staff@outlook.com", "outlook.com", "fail"),
        ("mallory@hotmail.com", "hotmail.com", "fail"),  # signed by her provider, as all of her mail is
        ("staff@sub.hotmail.com", "hotmail.com", "fail"),
    ],
)
def test_only_reporters_are_believed_of_their_own_mail(dns, sender, by, state):
    assert told(dns, signed(report(sender), by)).state == state


def test_of_one_reporter_a_sister_domain_vouches_for_nothing(dns):
    put(dns, "one.fbl.example", key().record())
    put(dns, "fbl.example", key().record())
    who = ("fbl.example",)
    assert told(dns, signed(report("x@one.fbl.example"), "fbl.example"), who=who).state == "pass"
    assert told(dns, signed(report("x@fbl.example"), "one.fbl.example"), who=who).state == "pass"
    assert told(dns, signed(report("x@two.fbl.example"), "one.fbl.example"), who=who).state == "fail"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "localhost",
        "a@b@c.example",
        "Fbl <fbl@x.example>",
        "x.example signed by",
        "x.example by y.example",
        "*.example",
    ],
)
def test_what_is_no_reporter_is_told_at_once(wrong):
    with pytest.raises(ValueError, match="is no reporter"):
        reporters([wrong])


def test_a_domain_at_which_anybody_has_a_mailbox_is_no_reporter():
    with pytest.raises(ValueError, match=r"anybody may have a mailbox at hotmail\.com"):
        checked(["fbl.example", "Hotmail.com"])
    assert checked(["staff@hotmail.com", "fbl.example"])


def test_the_reporters_that_are_known_can_be_read():
    assert len(reporters(checked(REPORTERS))) == len(set(REPORTERS))


@pytest.mark.parametrize(
    "sender",
    [
        '"staff@hotmail.com" <mallory@evil.example>',
        "staff@hotmail.com <mallory@evil.example>",
        "mallory@evil.example, staff@hotmail.com",
        "<mallory@evil.example> <staff@hotmail.com>",
        "staff@hotmail.com (mallory@evil.example)",
        "reporters: staff@hotmail.com;",
        "nobody",
    ],
)
def test_a_from_of_more_than_one_meaning_is_no_evidence(dns, sender):
    for by in (FORGER, "hotmail.com"):
        assert told(dns, signed(report(sender), by)).state == "fail"


# forgeries


def test_an_unsigned_report_is_none(dns):
    assert told(dns, report()) == Verdict("none", "", "it bears no DKIM signature")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Feedback-Type: abuse", b"Feedback-Type: fraud"),
        (b"jane@example.net", b"john@example.net"),
        (b"<1@shop.example>", b"<2@shop.example>"),
        (b"\r\n--b1--\r\n", b"\r\n--b1--\r\nmore"),
        (b"Subject: FW: offer", b"Subject: FW: other"),
        (b"To: fbl@shop.example", b"To: fbl@rival.example"),
        (b"From: Yahoo! Mail", b"From: Yahoo? Mail"),
        (b"Date: Tue, 24 Nov 2026 09", b"Date: Tue, 24 Nov 2026 08"),
    ],
    ids=["type", "recipient", "message", "end", "Subject", "To", "From", "Date"],
)
@pytest.mark.parametrize("canon", ["relaxed/relaxed", "simple/simple"])
def test_a_right_signature_of_an_altered_report_is_no_evidence(dns, before, after, canon):
    raw = signed(report(), canon=canon)
    assert raw.count(before) == 1
    verdict = told(dns, raw.replace(before, after))
    assert verdict.state == "fail"
    assert verdict.why.startswith("the signature of arf.mail.yahoo.com does not fit the ")


@pytest.mark.parametrize(
    "name", ["From", "To", "Subject", "Date", "Content-Type", "Content-Transfer-Encoding", "Sender"]
)
@pytest.mark.parametrize("where", ["above", "below"])
def test_a_second_header_is_no_evidence(dns, name, where):
    value = "7bit" if name.endswith("Encoding") else "mallory@evil.example"
    raw = signed(report(more="Content-Transfer-Encoding: 7bit\nSender: x@arf.mail.yahoo.com\n"), headers=HEADERS[:4])
    line = f"{name}: {value}\r\n".encode()
    stuffed = line + raw if where == "above" else raw.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n", 1)
    assert told(dns, raw).state == "pass"
    assert told(dns, stuffed) == Verdict("fail", "", f"it has more than one {name}")


@pytest.mark.parametrize("length", [0, 10, 10_000])
def test_a_signature_of_a_part_of_the_body_is_no_evidence(dns, length):
    body = report().partition(b"\r\n\r\n")[2]
    covered = signed(report(), length=min(length, len(body)))
    assert told(dns, covered).why.endswith("covers a part of the body only (l=)")
    assert told(dns, covered + b"--b1\r\nContent-Type: message/feedback-report\r\n\r\n").state == "fail"


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (("to", "subject", "date"), "does not cover From"),
        (("from", "date"), "does not cover Subject and To"),
        (("from", "subject"), "does not cover To"),
        (("from", "to"), "does not cover Subject"),
    ],
)
def test_what_a_signature_does_not_cover_it_does_not_vouch_for(dns, headers, why):
    assert told(dns, signed(report(), headers=headers)).why.endswith(why)


def test_microsoft_does_not_sign_to(dns):
    assert told(dns, signed(report("staff@hotmail.com"), "hotmail.com", headers=("from", "subject"))).state == "pass"


@pytest.mark.parametrize(
    "kind",
    [
        'multipart/report; report-type=feedback-report; boundary="evil"',
        "multipart/report; report-type=feedback-report",
        'multipart/report; boundary=b1; boundary="evil"',
        'multipart/report; boundary*0=ev; boundary*1=il; boundary="b1"',
        'multipart/digest; boundary="b1"',
        'multipart/alternative; boundary="b1"',
        "message/rfc822",
        "text/html",
    ],
)
def test_an_open_content_type_may_not_make_parts_of_what_the_message_said(dns, kind):
    # The recipient of this report wrote the message that it is about, with a report of their own inside.
    inner = (
        "--b1\nContent-Type: text/plain\n\nThis is an email abuse report.\n--b1\nContent-Type: message/rfc822\n\n"
        "From: mallory@evil.example\nSubject: x\n\n--evil\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\n"
        "--evil\nContent-Type: message/rfc822\n\nMessage-ID: <victim@shop.example>\n\n--evil--\n\n--b1--\n"
    )
    raw = signed(report(body=inner))
    assert told(dns, raw).state == "pass"
    assert complained(read(raw)).clues.message_id != "victim@shop.example"
    turned = raw.replace(b'multipart/report; report-type=feedback-report; boundary="b1"', kind.encode())
    assert told(dns, turned).why.endswith("leaves open how the body is to be read")


def test_an_open_transfer_encoding_may_not_change_the_body(dns):
    raw = signed(report()).replace(b"MIME-Version", b"Content-Transfer-Encoding: base64\r\nMIME-Version")
    assert told(dns, raw).why.endswith("leaves open how the body is to be read")


def test_a_signed_content_type_is_what_it_is(dns):
    raw = report(kind='multipart/alternative; boundary="b1"')
    assert told(dns, signed(raw, headers=(*HEADERS, "content-type"))).state == "pass"


@pytest.mark.parametrize(
    "line",
    [
        b"X-A: b\rContent-Type: text/plain\r\r--evil",
        b"X-A: b\0",
        b"X-A: b\x0bc",
        b"X-A: b\x0cc",
        b"X-A: b\xc2\x85c",
        b"X-A: b\xe2\x80\xa8c",
        b"X-A : b",
        b"From mallory@evil.example Tue Nov 24 09:00:00 2026",
        b">From mallory@evil.example Tue Nov 24 09:00:00 2026",
        b"nonsense",
        b"X-A: b\r\n ",
        b": b",
        b"\r",
    ],
)
def test_headers_that_readers_would_part_otherwise_are_no_evidence(dns, line):
    raw = signed(report())
    head, _, body = raw.partition(b"\r\n\r\n")
    assert told(dns, head + b"\r\n" + line + b"\r\n\r\n" + body).state == "fail"
    assert told(dns, b"X-First: x\r\n" + line + b"\r\n" + raw).state == "fail"


@pytest.mark.parametrize("line", [b"", b"\tb", b" ", b"\xef\xbb\xbfX-A: b"])
def test_a_letter_begins_with_a_header(dns, line):
    assert told(dns, line + b"\r\n" + signed(report())).state == "fail"


def test_what_only_headers_tell_is_not_covered(dns):
    # A true mail of a reporter that is no complaint, with a header of Microsoft's old form put on top.
    plain = signed(report(kind="text/plain", body="Your code is 1234.\n"))
    forged = b"X-HmXmrOriginalRecipient: jane@example.net\r\nMessage-ID: <victim@shop.example>\r\n" + plain
    verdict = told(dns, forged)
    assert verdict.state == "pass"
    assert b"X-Hm" not in verdict.content
    assert complained(read(verdict.content)) is None
    complaint = complained(read(forged))
    assert complaint is None or not complaint.covered
    asked = complained(read(b"X-Apple-Unsubscribe: true\r\n" + plain))
    assert asked.in_person
    assert not asked.covered


def test_a_report_to_somebody_else_is_no_evidence_where_it_is_known_who_we_are(dns):
    raw = signed(report(to='"Abuse" <fbl@rival.example>'))
    assert told(dns, raw).state == "pass"
    assert told(dns, raw, addressed=["fbl@shop.example"]).why.startswith("it was sent to somebody else")
    for ours in ("FBL@rival.example", "@rival.example"):
        assert told(dns, raw, addressed=["x@shop.example", ours]).state == "pass"
    assert told(dns, raw, addressed=["@other.example", "bl@rival.example"]).state == "fail"


def test_a_person_is_believed_of_nobody_else(dns):
    put(dns, "gmail.example", key().record())
    verifier = Verifier(resolvers=[dns.address], addressed=["fbl@shop.example"])
    raw = report("Jane <jane@gmail.example>", to="u-17@shop.example", kind="text/plain", body="unsubscribe\n")
    assert verifier.person(signed(raw, "gmail.example"), NOW).state == "pass"
    assert verifier.verify(signed(raw, "gmail.example"), NOW).state == "fail"
    assert verifier.person(signed(raw, FORGER), NOW).state == "fail"
    assert verifier.person(signed(raw, "gmail.example").replace(b"jane", b"john"), NOW).state == "fail"
    assert verifier.person(raw, NOW).state == "none"


# time


@pytest.mark.parametrize(
    ("at", "tags", "why"),
    [
        (NOW - 61 * DAY, "", "is older than 60 days"),
        (NOW - 59 * DAY, "", ""),
        (NOW + timedelta(minutes=30), "", ""),
        (NOW + 2 * DAY, "", "is of the future"),
        (NOW - DAY, f"x={int((NOW - timedelta(minutes=1)).timestamp())}; ", "has run out"),
        (NOW - DAY, f"x={int((NOW + DAY).timestamp())}; ", ""),
        (NOW, f"x={int((NOW - DAY).timestamp())}; ", "has run out before it was made"),
        (NOW, "x=soon; ", "has a time that is none"),
        (NOW, "x=999999999999999; ", "has a time that is none"),
        (None, "t=-1; ", "has a time that is none"),
        (NOW, "x=999999999999; ", ""),
    ],
)
def test_a_signature_is_evidence_for_its_time_only(dns, at, tags, why):
    verdict = told(dns, signed(report(), at=at, tags=tags))
    assert verdict.state == ("fail" if why else "pass")
    assert verdict.why.endswith(why)


def test_without_a_time_of_its_own_the_date_tells_if_it_is_signed(dns):
    assert told(dns, signed(report(), at=None)).state == "pass"
    assert told(dns, signed(report(), at=None), NOW + 61 * DAY).why.endswith("is older than 60 days")
    unsigned = signed(report(), at=None, headers=("from", "to", "subject"))
    assert told(dns, unsigned).why.endswith("does not say of when it is")


def test_a_report_that_waited_in_its_mailbox_counts_as_of_when_it_came(dns):
    raw = signed(report(), at=NOW, tags=f"x={int((NOW + DAY).timestamp())}; ")
    verifier = Verifier(resolvers=[dns.address])
    assert verifier.verify(raw, NOW + 90 * DAY).state == "fail"
    assert verifier.verify(raw, NOW + 90 * DAY, came=NOW + timedelta(hours=1)).state == "pass"
    assert verifier.verify(raw, NOW - 90 * DAY, came=NOW).state == "fail"  # it can't have come later than now


def test_how_old_is_too_old_is_configured(dns):
    raw = signed(report(), at=NOW - 3 * DAY)
    assert told(dns, raw, oldest=2 * DAY).why.endswith("is older than 2 days")


# keys and forms


@pytest.mark.parametrize(
    ("by", "why"),
    [(key(1_023, 2), "has a key of 1023 bits"), (key(512), "has a key of 512 bits"), (key(1_024, 3), "")],
    ids=["1023", "512", "1024"],
)
def test_a_short_key_makes_no_evidence(dns, by, why):
    put(dns, "fbl.synacor.com", by.record())
    assert told(dns, signed(report("x@fbl.synacor.com"), "fbl.synacor.com", by)).why.endswith(
        why or "signed by fbl.synacor.com"
    )


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (key().record("v=DKIM1; t=y; "), "has a key that is being tested only"),
        (key().record("v=DKIM1; t=s:y; "), "has a key that is being tested only"),
        (b"v=DKIM1; p=", "has a key that was revoked"),
        (b"v=DKIM1; p=AAAA", "has a key that can't be read"),
        (b"v=DKIM1; p=%%%", "has a key that can't be read"),
        (key().record("v=DKIM2; "), "has a key of another kind"),
        (key().record("k=ed25519; "), "has a key of another kind"),
        (key().record("h=sha1; "), "has a key that is not for this"),
        (key().record("s=tlsrpt; "), "has a key that is not for this"),
        (b"v=spf1 -all", "has no key in DNS"),
        (b"", "has no key in DNS"),
        (key().record("n=" + "x" * 5_000 + "; "), "has no key in DNS"),
        (key(1_024, 9).record(), "does not fit the headers"),
    ],
    ids=[
        "test",
        "test strictly",
        "revoked",
        "cut",
        "nonsense",
        "2",
        "ed25519",
        "sha1",
        "tls",
        "spf",
        "empty",
        "long",
        "other",
    ],
)
def test_a_key_that_may_not_be_used_so_makes_no_evidence(dns, record, why):
    put(dns, YAHOO, record)
    try:
        assert told(dns, signed(report())).why == f"the signature of {YAHOO} {why}"
    finally:
        put(dns, YAHOO, key().record())


@pytest.mark.parametrize("tags", ["", "v=DKIM1; ", "v=DKIM1; h=sha1:sha256; s=email; t=s; ", "k=rsa; s=*; n=note; "])
def test_a_key_with_all_that_it_may_say_is_a_key(dns, tags):
    put(dns, YAHOO, b"v=spf1 -all", key().record(tags))
    try:
        assert told(dns, signed(report())).state == "pass"
    finally:
        put(dns, YAHOO, key().record())


def test_of_two_keys_at_one_name_neither_counts(dns):
    put(dns, YAHOO, key().record(), key(1_024, 9).record())
    try:
        assert told(dns, signed(report())).why.endswith("has several keys in DNS")
    finally:
        put(dns, YAHOO, key().record())


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"algorithm": "rsa-sha1"}, "is not by rsa-sha256"),
        ({"tags": "q=dns/other; "}, "is of another version"),
        ({"tags": "i=@evil.example; "}, "is for an agent of another domain"),
        ({"tags": "i=@xarf.mail.yahoo.com; "}, "is for an agent of another domain"),
        ({"selector": "other"}, "has no key in DNS"),
    ],
)
def test_a_signature_of_another_form_is_no_evidence(dns, how, why):
    assert told(dns, signed(report(), **how)).why == f"the signature of {YAHOO} {why}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"v=1;", b"v=2;"),
        (b"v=1;", b""),
        (b"c=relaxed/relaxed", b"c=nowsp"),
        (b"a=rsa-sha256", b"a=ed25519-sha256"),
        (b"s=arf;", b"s=a/b;"),
        (b"d=arf.mail.yahoo.com", b"d=\xc3\xa4.example"),
        (b"bh=", b"bh=!"),
        (b"d=arf", b"d=arf; d=arf"),
        (b"h=date", b"h=:date"),
    ],
)
def test_a_signature_out_of_shape_is_no_evidence(dns, before, after):
    raw = signed(report())
    assert raw.count(before) == 1
    assert told(dns, raw.replace(before, after)).state in ("fail", "none")


def test_a_strict_key_is_for_agents_of_the_domain_itself(dns):
    put(dns, YAHOO, key().record("t=s; "))
    try:
        assert told(dns, signed(report(), tags="i=x@arf.mail.yahoo.com; ")).state == "pass"
        assert told(dns, signed(report(), tags="i=x@sub.arf.mail.yahoo.com; ")).why.endswith("agent of another domain")
    finally:
        put(dns, YAHOO, key().record())


# name servers


def test_a_name_server_that_fails_is_asked_again_later():
    with KeyDns() as dns:
        put(dns, YAHOO, key().record())
        dns.failing.add(SELECTOR + YAHOO)
        verifier = Verifier(resolvers=[dns.address], timeout=timedelta(seconds=0.5))
        raw = signed(report())
        verdict = verifier.verify(raw, NOW)
        assert verdict == Verdict("temporary", YAHOO, "no name server tells the key of arf.mail.yahoo.com")
        dns.failing.clear()
        asked = dns.asked[SELECTOR + YAHOO]
        assert verifier.verify(raw, NOW + timedelta(seconds=5)).state == "temporary"
        assert dns.asked[SELECTOR + YAHOO] == asked  # it is left alone for a moment
        assert verifier.verify(raw, NOW + timedelta(minutes=1)).state == "pass"


def test_a_name_server_that_is_silent_costs_no_more_than_its_time():
    with KeyDns() as dns:
        dns.silent = True
        verifier = Verifier(resolvers=[dns.address], timeout=timedelta(seconds=0.2))
        began = time.monotonic()
        assert verifier.verify(signed(report()), NOW).state == "temporary"
        assert time.monotonic() - began < 2
        began = time.monotonic()
        for _ in range(50):
            verifier.verify(signed(report()), NOW)
        assert time.monotonic() - began < 1


def test_name_servers_of_strangers_cost_no_more_than_a_few_seconds_of_a_minute():
    with KeyDns() as dns:
        dns.silent = True
        keys = Keys([dns.address], timedelta(seconds=0.1), timedelta(seconds=0.5))
        for number in range(50):
            with pytest.raises(Unreachable):
                keys.at(f"s{number}._domainkey.evil.example", NOW)
        assert 2 <= len(dns.asked) <= 5
        dns.silent = False
        with pytest.raises(Unreachable):
            keys.at("s._domainkey.evil.example", NOW + timedelta(seconds=59))
        assert keys.at("s._domainkey.evil.example", NOW + timedelta(seconds=61)) == ()


def test_name_servers_that_answer_in_time_cost_nothing(dns):
    keys = Keys([dns.address], timedelta(seconds=2), timedelta(seconds=0.5))
    assert [keys.at(f"s{number}._domainkey.evil.example", NOW) for number in range(200)] == [()] * 200


def test_where_nobody_listens_it_is_temporary():
    with KeyDns() as dns:
        gone = dns.address
    verifier = Verifier(resolvers=[gone], timeout=timedelta(seconds=0.3))
    assert verifier.verify(signed(report()), NOW).state == "temporary"


def test_of_two_name_servers_one_is_enough(dns):
    with KeyDns() as other:
        other.failing.add(SELECTOR + YAHOO)
        verifier = Verifier(resolvers=[other.address, dns.address])
        assert verifier.verify(signed(report()), NOW).state == "pass"


def test_a_failing_name_server_hides_no_signature_that_is_good(dns):
    dns.failing.add(SELECTOR + "x." + YAHOO)
    raw = signed(signed(report()), "x." + YAHOO)
    assert told(dns, raw, timeout=timedelta(seconds=0.3)).state == "pass"


def test_a_key_is_asked_for_once_as_long_as_it_says():
    with KeyDns() as dns:
        put(dns, YAHOO, key().record())
        dns.ttl = 600
        keys = Keys([dns.address])
        name = SELECTOR + YAHOO
        for minutes in (0, 1, 9):
            assert keys.at(name.upper() + ".", NOW + timedelta(minutes=minutes)) == (key().record(),)
        assert dns.asked[name] == 1
        put(dns, YAHOO, key(1_024, 9).record())
        assert keys.at(name, NOW + timedelta(minutes=11)) == (key(1_024, 9).record(),)
        assert dns.asked[name] == 2


@pytest.mark.parametrize("beside", [True, False], ids=["no such record", "no such name"])
def test_that_there_is_no_key_is_kept_too(beside):
    with KeyDns() as dns:
        if beside:
            dns.texts["x." + SELECTOR + YAHOO] = [b"x"]
        dns.ttl = 120
        keys = Keys([dns.address])
        for seconds in (0, 60, 119):
            assert keys.at(SELECTOR + YAHOO, NOW + timedelta(seconds=seconds)) == ()
        assert dns.asked[SELECTOR + YAHOO] == 1
        put(dns, YAHOO, key().record())
        assert keys.at(SELECTOR + YAHOO, NOW + timedelta(seconds=121)) == (key().record(),)


@pytest.mark.parametrize(("ttl", "within", "beyond"), [(0, 59, 61), (10_000_000, 86_399, 86_401)])
def test_a_life_of_a_key_is_neither_shorter_nor_longer_than_makes_sense(ttl, within, beyond):
    with KeyDns() as dns:
        put(dns, YAHOO, key().record())
        dns.ttl = ttl
        keys = Keys([dns.address])
        for seconds, asked in ((0, 1), (within, 1), (beyond, 2)):
            keys.at(SELECTOR + YAHOO, NOW + timedelta(seconds=seconds))
            assert dns.asked[SELECTOR + YAHOO] == asked


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr("collectors._keys.KEPT", 10)
    with KeyDns() as dns:
        keys = Keys([dns.address])
        for number in range(30):
            keys.at(f"{number}._domainkey.{YAHOO}", NOW)
        assert len(keys._known) == 10


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", ".".join(["x" * 60] * 5), "\udcff.example"])
def test_what_is_no_name_has_no_key(dns, name):
    asked = sum(dns.asked.values())
    with contextlib.suppress(Unreachable):
        assert Keys([dns.address]).at(name, NOW) == ()
    assert sum(dns.asked.values()) == asked


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
    ],
)
def test_a_name_server_is_written_by_its_address(text, place):
    assert endpoint(text) == place


@pytest.mark.parametrize(
    "text", ["", "ns.example", "192.0.2.53:", "192.0.2.53:dns", "192.0.2.53:0", "192.0.2.53:70000"]
)
def test_what_is_no_name_server_is_told_at_once(text):
    with pytest.raises(ValueError, match=r"is no name server|has no port"):
        Keys([text])


def test_nobody_is_asked_for_the_keys_of_strangers(dns):
    before = dns.asked.copy()
    told(dns, signed(report("x@evil.example"), FORGER))
    told(dns, signed(report(), FORGER))
    told(dns, signed(report(), headers=("from",)))
    assert dns.asked == before


def test_no_more_keys_are_asked_for_than_a_few(dns):
    raw = report()
    for number in range(3 * SEEN):
        raw = signed(raw, selector=f"s{number}")
    before = sum(dns.asked.values())
    assert told(dns, raw).state == "fail"
    assert sum(dns.asked.values()) - before == TRIED


def test_threads_may_share_one(dns):
    verifier = Verifier(resolvers=[dns.address])
    raw, found = signed(report()), []
    threads = [threading.Thread(target=lambda: found.append(verifier.verify(raw, NOW).state)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["pass"] * 8


# strangers' bytes


@settings(max_examples=int(os.environ.get("MAILVANE_EXAMPLES", "150")), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5_000), st.binary(max_size=8), st.integers(0, 8)), min_size=1, max_size=4))
def test_no_change_of_a_report_is_evidence_of_anything_else(dns, changes):
    raw = signed(report())
    changed = bytearray(raw)
    for at, what, gone in changes:
        place = at % len(raw)
        changed[place : place + gone] = what
    if told(dns, bytes(changed)).state == "pass":
        assert same(complained(read(bytes(changed)))) in (None, same(complained(read(raw))))


WORDS = (
    "multipart/", "report", "mixed", "text/plain", "; ", "boundary", "=", "b1", "evil", '"', "report-type=feedback-report",
    "\r\n\t", " ", "(b1)", "*0", "charset=utf-7", "message/rfc822", ",", "\\",
)  # fmt: skip
OPEN = (
    "X-HmXmrOriginalRecipient: john@example.net", "X-ARF: yes", "X-XARF: PLAIN", "Message-ID: <victim@shop.example>",
    "X-Apple-Unsubscribe: true", "MIME-Version: 1.0", "Auto-Submitted: auto-replied", "List-Unsubscribe: <mailto:x@evil.example>",
    "X-Mailvane: forged", "Feedback-Type: abuse", "Return-Path: <victim@shop.example>", "Content-Disposition: inline",
    "Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: quoted-printable", "Received: from x by y",
)  # fmt: skip
INNER = (
    "--b1\nContent-Type: text/plain\n\nThis is an email abuse report.\n\n--b1\nContent-Type: message/feedback-report\n\n"
    "Feedback-Type: abuse\nOriginal-Rcpt-To: jane@example.net\n\n--b1\nContent-Type: message/rfc822\n\n"
    "Message-ID: <1@shop.example>\nFrom: shop@shop.example\nSubject: offer\n\n--evil\nContent-Type: message/feedback-report\n\n"
    "Feedback-Type: abuse\nOriginal-Rcpt-To: victim@example.net\n\n--evil\nContent-Type: message/rfc822\n\n"
    "Message-ID: <victim@shop.example>\n\n--evil--\n\n--b1--\n"
)


@settings(max_examples=int(os.environ.get("MAILVANE_EXAMPLES", "150")), deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=9).map("".join),
    st.lists(st.sampled_from(OPEN), max_size=3),
    st.sets(st.integers(0, 60), max_size=5),
    st.booleans(),
)
def test_what_is_not_covered_makes_no_evidence_of_anything_else(dns, kind, lines, blanks, whole):
    raw = signed(report(body=INNER))
    head, _, body = raw.partition(b"\r\n\r\n")
    if not whole:
        head = head.replace(b'multipart/report; report-type=feedback-report; boundary="b1"', kind.encode())
    head = "".join(line + "\r\n" for line in lines).encode() + head
    told_lines = body.split(b"\r\n")
    for number in blanks & set(range(len(told_lines))):  # a relaxed signature covers no blanks at ends of lines
        told_lines[number] = told_lines[number].replace(b" ", b" \t") + b"  "
    changed = head + b"\r\n\r\n" + b"\r\n".join(told_lines)
    verdict = told(dns, changed)
    if verdict.state == "pass":
        assert same(complained(read(verdict.content))) == same(complained(read(raw)))
        found = complained(read(changed))  # and whoever reads all of it learns no more
        assert found is None or not found.covered or found.clues.message_id in ("1@shop.example", "")


def same(complaint) -> tuple[object, ...] | None:
    return complaint and (complaint.identity, complaint.type, complaint.recipients, complaint.clues.message_id)


@given(st.binary(max_size=300))
def test_any_bytes_have_a_verdict(raw):
    verifier = Verifier(resolvers=["127.0.0.1:9"])
    assert verifier.verify(raw, NOW).state in ("none", "fail")
    assert verifier.verify(b"From: x@y.example\n" + raw, NOW).state in ("none", "fail")


@given(st.binary(max_size=120))
def test_any_signature_has_a_verdict(dns, value):
    assert told(dns, b"DKIM-Signature: " + value.replace(b"\n", b"") + b"\r\n" + report()).state in ("none", "fail")


@pytest.mark.parametrize(
    "raw",
    [
        b"From: x@y.example\r\n" * 300_000,
        b"X" * 5_000_000,
        b"X: y\r\n" + b" y\r\n" * 900_000,
        b"From: " + b'"' * 200_000 + b"\r\n\r\n",
        b"From: " + b"a " * 90_000 + b"<feedback@arf.mail.yahoo.com>\r\n\r\n",
        b"DKIM-Signature: " + b"\r\n\t".join([b" " * 900] * 200) + b"\r\nFrom: feedback@arf.mail.yahoo.com\r\n\r\n",
        b"DKIM-Signature: " + b" b=" * 60_000 + b"\r\nFrom: feedback@arf.mail.yahoo.com\r\n\r\n",
        bytes(20 << 20),
    ],
    ids=["headers", "no end", "folds", "quotes", "words", "blanks", "own", "zeros"],
)
def test_what_is_made_to_take_long_does_not(raw):
    began = time.process_time()
    assert Verifier(resolvers=["127.0.0.1:9"]).verify(raw, NOW).state in ("none", "fail")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "filling", [" ", "\t ", "x ", "\n", "a\n", "  \n"], ids=["blanks", "tabs", "words", "ends", "lines", "both"]
)
@pytest.mark.parametrize("canon", ["relaxed/relaxed", "simple/simple"])
def test_a_body_of_megabytes_is_summed_in_no_time(dns, filling, canon):
    raw = signed(report(kind="text/plain", body="x"), canon=canon)
    began = time.process_time()
    assert told(dns, raw + (filling * (4 << 20))[: 4 << 20].encode() + b"x").why.endswith("does not fit the body")
    assert time.process_time() - began < 2


def test_blanks_at_the_ends_of_a_large_body_fit_a_relaxed_signature(dns):
    body = "words  and\twords" + " " * 3_000 + "\n" + "\t" * 2_000 + "\nend\n\n\n"
    assert told(dns, signed(report(kind="text/plain", body=body))).state == "pass"


def test_too_large_a_letter_is_told_to_be_so():
    with pytest.raises(Unclear, match="it is larger than 16 MiB"):
        opened(bytes((16 << 20) + 1))


def test_nothing_of_a_letter_reaches_a_log(dns, caplog):
    caplog.set_level(logging.DEBUG)
    for raw in (signed(report()), signed(report(), tags="i=hush@evil.example; "), signed(report()) + b"hush"):
        assert "hush" not in repr(told(dns, raw))
    for name in ("jane", "hush", "shop.example", "domainkey"):
        assert name not in caplog.text


def test_a_hundred_reports_are_verified_in_a_second(dns):
    verifier = Verifier(resolvers=[dns.address])
    put(dns, "senderscore.net", key(2_048).record())
    raws = [
        signed(report("a@b.senderscore.net", message_id=f"{n}@shop.example"), "senderscore.net", by=key(2_048))
        for n in range(20)
    ]
    verifier.verify(raws[0], NOW)
    began = time.process_time()
    assert all(verifier.verify(raw, NOW).state == "pass" for raw in raws)
    assert len(raws) / (time.process_time() - began) > 100
    put(dns, "senderscore.net", key().record())
