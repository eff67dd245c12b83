"""What bounces tell, in the forms of many servers; and what is no bounce."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors._automatic import Automatic, automatic
from collectors._bounce import bounced, clues, outcomes
from collectors._dsn import instant, report
from collectors._mail import read
from collectors._prose import plain, prose, said
from collectors._refusal import codes, phase_of, prefer
from collectors._reply import classify
from monitor.meaning import ReplyClass
from monitor.model import Kind

GOLDEN = Path(__file__).parent / "golden" / "bounces"


def golden(name):
    return read((GOLDEN / f"{name}.eml").read_bytes())


def told(mail):
    return [(one.recipient, one.kind.value, one.status, one.code, one.phase) for one in outcomes(mail)]


def notice(text, subject="failure notice", sender="MAILER-DAEMON@relay.example"):
    return read(f"From: {sender}\nTo: news@shop.example\nSubject: {subject}\n\n{text}".encode())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "postfix",
            [
                ("anna@box.example", "bounced", "5.1.1", 550, "rcpt"),
                ("bert@full.example", "expired", "4.2.2", 452, ""),
            ],
        ),
        (
            "exim",
            [("carla@gone.example", "bounced", "5.7.1", 550, "rcpt"), ("dora@gone.example", "expired", "", 0, "")],
        ),
        (
            "qmail",
            [
                ("emil@box.example", "bounced", "5.1.1", 550, "rcpt"),
                ("fritz@slow.example", "expired", "4.7.0", 421, "mail"),
            ],
        ),
        (
            "sendmail",
            [("gerd@one.example", "bounced", "", 550, "rcpt"), ("hanna@two.example", "bounced", "5.7.1", 553, "mail")],
        ),
        ("exchange", [("ida@firm.example", "bounced", "", 0, "")]),
        ("notes", [("jan@notes.example", "bounced", "", 0, "")]),
        ("rejected-receipt", [("paul@store.example", "bounced", "", 0, "")]),
        ("wrapped", [("rosa@box.example", "bounced", "5.1.1", 550, "")]),
        ("japanese", [("sato@keitai.example", "bounced", "", 550, "")]),
        ("delayed", [("klara@slow.example", "deferred", "", 0, "")]),
        ("vacation", []),
        ("challenge", []),
        ("receipt", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_form_tells_its_recipients(name, expected):
    assert told(golden(name)) == expected


def makes():
    """What the bounces of all makes must give, by mail."""
    expected = {}
    for row in csv.DictReader((GOLDEN / "makes" / "makes.csv").read_text(encoding="utf-8").splitlines()):
        expected.setdefault(row.pop("mail"), []).append(tuple(row.values()))
    return expected


@pytest.mark.parametrize(("name", "expected"), sorted(makes().items()), ids=sorted(makes()))
def test_each_make_says_whom_and_why(name, expected):
    found = outcomes(golden(f"makes/{name}"))
    got = [(one.recipient, one.kind.value, one.status, one.meaning.name, str(one.meaning.permanence)) for one in found]
    assert got == expected


@pytest.mark.parametrize("stage", ["rcpt", "data"])
@pytest.mark.parametrize("status", ["", "5.1.1", "5.2.1", "5.2.0", "5.7.1"])
def test_a_log_and_a_bounce_mean_the_same_by_the_same_reply(status, stage):
    command = {"rcpt": "RCPT TO", "data": "end of DATA"}[stage]
    reply = f"550 {status} <a@b.example>: user unknown (in reply to {command} command)".replace("  ", " ")
    report = report_of(
        f"Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: {status or '5.0.0'}\nDiagnostic-Code: smtp; {reply}"
    )
    assert outcomes(report)[0].meaning == classify(reply, code=550, dsn=status or "5.0.0", phase=stage)


def test_a_refusal_is_read_whatever_the_language_around_it():
    text = "Nije bilo isporučeno.\n\n<a@b.example>\n#550 5.2.2 mailbox full ##\n"
    assert [(one.recipient, one.meaning.cls) for one in outcomes(notice(text, subject="Obavijest"))] == [
        ("a@b.example", ReplyClass.QUOTA)
    ]
    assert outcomes(notice(text, subject="Obavijest", sender="Ana <ana@b.example>")) == ()


@pytest.mark.parametrize("name", ["delayed", "vacation", "challenge", "receipt"])
def test_what_is_no_bounce_is_none(name):
    assert bounced(golden(name)) == ()


def test_a_failure_says_why_and_who_refused():
    first, second = outcomes(golden("postfix"))
    assert first.meaning.cls is ReplyClass.INVALID_RECIPIENT
    assert first.reply.startswith("550 5.1.1 <anna@box.example>: Recipient address rejected")
    assert first.remote == "mx.box.example"
    assert second.meaning.cls is ReplyClass.QUOTA
    assert first.action == "failed"
    assert first.at == instant("Tue, 10 Nov 2026 08:30:02 +0000")


def test_an_expanded_address_keeps_the_one_that_was_mailed_to():
    assert [one.original for one in outcomes(golden("exim"))] == ["", "sales@gone.example"]


def test_the_message_is_told_by_what_came_back():
    found = clues(golden("postfix"))
    assert found.token == "v1.abc"
    assert found.feedback_id == "autumn:seller7:marketing:shop"
    assert found.unsubscribe == "<https://shop.example/u/7c1>"
    assert found.return_path == "b-7c1@bounces.shop.example"
    assert found.message_id == "n-1@shop.example"
    assert found.sender == "news@shop.example"
    assert found.sent == instant("Thu, 05 Nov 2026 08:29:59 +0000")
    assert clues(golden("exim")).message_id == "n-2@shop.example"


def test_the_queue_id_is_the_name_that_the_log_gives():
    week = (instant("Thu, 5 Nov 2026 08:30:00 +0000") - (3 * 86400 + 3 * 3600 + 37 * 60 + 11) * 10**6) // (
        7 * 86400 * 10**6
    )
    assert clues(golden("postfix")).queue_id == f"out1.shop.example/4Nq2@{week}"
    long = (GOLDEN / "postfix.eml").read_bytes().replace(b"Queue-ID: 4Nq2", b"Queue-ID: 4Nq2z8")
    assert clues(read(long)).queue_id == "out1.shop.example/4Nq2z8"


def report_of(fields):
    body = f"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nnotice\n--b\nContent-Type: message/delivery-status\n\n{fields}\n--b--\n"
    return read(("From: MAILER-DAEMON@a.example\n" + body).encode())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1\n", ["a@b.example"]),
        ("Final-Recipient: RFC822;<a@b.example>\nAction: Failed (no)\nStatus: 5.0.0\n", ["a@b.example"]),
        ("Final-Recipient: a@b.example\nAction: error\n", ["a@b.example"]),
        ("Original-Recipient: rfc822; a@b.example\nStatus: 5.0.0\n", ["a@b.example"]),
        ("Final-Recipient: rfc822; a@store\nOriginal-Recipient: rfc822;a@b.example\nAction: failed\n", ["a@b.example"]),
        ("Final-Recipient: rfc822; a@b.example\n\nAction: failed\n\nStatus: 5.1.1\n", ["a@b.example"]),
        (
            "Final-Recipient: rfc822; a@b.example\nAction: failed\nFinal-Recipient: rfc822; c@b.example\nAction: failed\n",
            ["a@b.example", "c@b.example"],
        ),
        ("Final-Recipient: rfc822; a@b.example\nAction: delivered\nStatus: 2.0.0\n", []),
        ("Final-Recipient: rfc822; a@b.example\nAction: relayed\nStatus: 2.0.0\n", []),
        ("Final-Recipient: rfc822; a@b.example\nAction: delayed\nStatus: 4.4.1\n", []),
    ],
    ids=[
        "plain",
        "dressed",
        "untyped",
        "original",
        "within",
        "torn",
        "run together",
        "delivered",
        "relayed",
        "delayed",
    ],
)
def test_reports_for_programs_are_read_however_they_are_written(fields, expected):
    mail = report_of("Reporting-MTA: dns; a.example\n\n" + fields)
    assert [one.recipient for one in bounced(mail)] == expected


def test_only_those_who_failed_are_bounced_of_several():
    mail = report_of(
        "Reporting-MTA: dns; a.example\n\nFinal-Recipient: rfc822; a@b.example\nAction: delayed\nStatus: 4.0.0\n\n"
        "Final-Recipient: rfc822; c@d.example\nAction: failed\nStatus: 5.1.1\n"
    )
    assert [one.recipient for one in bounced(mail)] == ["c@d.example"]


def test_a_report_in_a_part_of_another_type_is_found():
    raw = b"From: MAILER-DAEMON@a.example\n\nReporting-MTA: dns; a.example\n\nFinal-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.2.2\n"
    assert [(one.recipient, one.status) for one in bounced(read(raw))] == [("a@b.example", "5.2.2")]


@pytest.mark.parametrize(
    "text",
    [
        "Your message could not be delivered to: <a@b.example>\n as the mailbox is full.",
        "Unknown user: a@b.example\n\nRCPT TO generated following response:\n553 5.3.0 <a@b.example>... unknown",
        "Delivery failed 20 attempts: a@b.example",
        "The following addresses had delivery problems:\n\n<a@b.example>   (User unknown)",
        "The following recipient(s) could not be reached:\n\n\tRecipient: [SMTP:a@b.example]\n\tReason: 550 no",
        "Your message was not sent: it could not be sent.\nAddressed To: a@b.example\n\n550 no such user",
        "Hi. This is the James mail server.\nI wasn't able to deliver your message.\n\nFailed recipient(s):\na@b.example\n\nError message:\n550 no",
        " was not delivered to:\n\n  a@b.example\n\nbecause:\n\n  not listed",
        "did not reach the following recipient(s):\n\nc=US;a= ;p=X;dda:SMTP=a@b.example; on Fri, 4 Oct 2002\n  unknown",
        "The message could not be delivered:\n --> RCPT To:<a@b.example>\n <-- 550 no such user",
        "Wiadomość nie mogła zostać dostarczona:\n\n<a@b.example>: 550 nie ma",
        "Die folgende Nachricht konnte nicht zugestellt werden:\n\n  a@b.example\n\nPostfach unbekannt",
    ],
    ids=["sentence", "imail", "attempts", "mcafee", "mailenable", "surfcontrol", "james", "domino", "x400", "mdaemon", "polish", "german"],
)  # fmt: skip
def test_prose_of_many_makes_names_the_recipient(text):
    assert [one.recipient for one in bounced(notice(text))] == ["a@b.example"]


def test_a_user_of_the_writers_own_is_named_without_domain():
    mail = notice(
        "Your mail to the following recipients could not be delivered:\n\n\tanna\n", sender="MAILER-DAEMON@box.example"
    )
    assert [one.recipient for one in bounced(mail)] == ["anna@box.example"]


def test_what_came_back_is_not_searched_for_recipients():
    mail = notice(
        "<a@b.example>:\nuser unknown\n\n--- Below this line is a copy of the message.\n\n<c@d.example>:\nhello"
    )
    assert [one.recipient for one in bounced(mail)] == ["a@b.example"]


def test_a_reason_above_the_names_is_theirs():
    mail = notice(
        "Could not be delivered because of\n\n550 5.1.1 User unknown\n\nThe following recipients were affected:\n  a@b.example\n"
    )
    assert [(one.status, one.code) for one in bounced(mail)] == [("5.1.1", 550)]


def test_a_bounce_without_names_is_of_the_one_recipient_of_its_message():
    mail = notice(
        "Message could not be delivered to mobile.\n\nOriginal Message:\nFrom: news@shop.example\nTo: 555@mms.example\n"
    )
    assert [one.recipient for one in bounced(mail)] == ["555@mms.example"]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"From: a@b.example\nSubject: Abwesenheit: News\n\nich bin im Urlaub", Automatic.REPLY),
        (b"From: a@b.example\nSubject: Re: x (Automatic Response)\n\nI am away", Automatic.REPLY),
        (b"From: a@b.example\nPrecedence: auto_reply\nSubject: x\n\ny", Automatic.REPLY),
        (b"From: a@b.example\nX-Autoreply: yes\n\ny", Automatic.REPLY),
        (
            b"From: postmaster@b.example\nSubject: Warning: could not send message for past 4 hours\n\ny",
            Automatic.DELAY,
        ),
        (b"From: MAILER-DAEMON@b.example\nSubject: failure notice\n\nfailed", Automatic.NO),
    ],
    ids=["away", "response", "precedence", "header", "delay", "bounce"],
)
def test_automatic_mail_is_told_apart(raw, kind):
    mail = read(raw)
    assert automatic(mail, prose(mail)) is kind


def test_a_list_that_takes_no_mail_of_strangers_names_itself():
    text = "You are not a member of this mailing list <list@ml.example>.\n\nOriginal mail as follows:\n\n  From: a@b.example\n"
    mail = notice(text, "NOT MEMBER article from news@shop.example", "list-admin@ml.example")
    assert [(one.recipient, one.meaning.cls) for one in bounced(mail)] == [("list@ml.example", ReplyClass.POLICY)]


def test_a_remote_host_is_found_in_prose():
    text = "The following address failed:\n\na@b.example:\nSMTP error from remote server for TEXT command, host: in.b.example (192.0.2.1) reason: 550 5.2.0 Mail rejected"
    (one,) = bounced(notice(text))
    assert (one.remote, one.phase, one.status) == ("in.b.example", "data", "5.2.0")


def test_a_parcel_that_could_not_be_delivered_is_no_bounce():
    text = "Dear anna@box.example,\n\nyour parcel could not be delivered to anna@box.example. Please pay the fee."
    assert bounced(notice(text, "Delivery failed", "Parcels <no-reply@parcels.example>")) == ()


def test_unknown_users_are_in_doubt_where_filters_may_have_spoken():
    def cls(reply, status):
        fields = (
            f"Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: {status}\nDiagnostic-Code: smtp; {reply}\n"
        )
        (one,) = bounced(report_of("Reporting-MTA: dns; a.example\n\n" + fields))
        return one.meaning.cls, one.meaning.suppresses

    assert cls("550 user unknown", "5.1.1") == (ReplyClass.INVALID_RECIPIENT, True)
    assert cls("550 user unknown (in reply to RCPT TO command)", "5.0.0") == (ReplyClass.INVALID_RECIPIENT, True)
    assert cls("550 user unknown (in reply to end of DATA command)", "5.0.0") == (ReplyClass.POLICY, False)
    assert cls("550 user unknown", "5.2.0") == (ReplyClass.POLICY, False)
    assert cls("550 5.2.1 user unknown", "5.2.1") == (ReplyClass.INACTIVE_MAILBOX, True)
    assert cls("550 user unknown", "5.0.0") == (ReplyClass.INVALID_RECIPIENT, False)
    assert cls("450 4.1.1 user unknown", "4.1.1") == (ReplyClass.INVALID_RECIPIENT, True)


def test_an_address_that_exim_cannot_route_has_no_domain_unless_it_is_its_own():
    def cls(sender):
        text = "could not be delivered. The following address(es) failed:\n\n  a@b.example\n    Unrouteable address\n"
        return bounced(notice(text, sender=sender))[0].meaning.cls

    assert cls("Mailer-Daemon@out.shop.example") is ReplyClass.BAD_DOMAIN
    assert cls("Mailer-Daemon@mx.b.example") is ReplyClass.INVALID_RECIPIENT


@pytest.mark.parametrize(
    ("subject", "sender", "text"),
    [
        ("Re: Undeliverable: spring", "Ana <ana@b.example>", "I got 550 5.1.1 user unknown for bert@b.example, why?"),
        ("[Ticket 12] Undelivered mail", "Mail Server Team <help@b.example>", "Your mail to ana@b.example is late."),
        ("Spam summary", "Quarantine <postmaster@b.example>", "These messages have been blocked:\n\nana@b.example\n"),
        (
            "Waarschuwing: bericht vertraagd",
            "MAILER-DAEMON@a.example",
            "vertraagd:\n\n<ana@b.example>: 451 4.4.1 later",
        ),
        ("Unread: spring", "MAILER-DAEMON@b.example", "Your message to ana@b.example was deleted without being read."),
    ],
    ids=["answer", "ticket", "quarantine", "delay", "unread"],
)
def test_what_only_speaks_of_failures_is_no_bounce(subject, sender, text):
    assert bounced(notice(text, subject=subject, sender=sender)) == ()


def test_mail_between_people_is_no_bounce():
    mail = notice(
        "My letter to a@b.example could not be delivered, says the post.", "lunch?", "Anna <anna@box.example>"
    )
    assert bounced(mail) == ()


def test_what_is_no_mail_is_no_bounce():
    assert bounced(read(b'{"event": "bounced", "reason": "550 user unknown a@b.example could not be delivered"}')) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 5.1.1 <a@b.example>: no", (550, "5.1.1")),
        ("host mx[192.0.2.550] said: 452-4.2.2 full", (452, "4.2.2")),
        ("5.1.0 - Unknown address error 550-'5.2.2 Mailbox Full'", (550, "5.2.2")),
        ("sorry (#5.1.1)", (0, "5.1.1")),
        ("see 10.5.1.1 and 192.0.2.1", (0, "")),
    ],
    ids=["plain", "later", "wrapped", "qmail", "none"],
)
def test_codes_of_a_reply(text, expected):
    assert codes(text) == expected


def test_of_two_codes_the_one_that_says_more_is_taken():
    assert prefer("5.0.0", "5.1.1") == "5.1.1"
    assert prefer("5.1.1", "5.0.0") == "5.1.1"
    assert prefer("4.4.7", "4.2.2") == "4.2.2"
    assert prefer("5.1.1", "2.0.0") == "5.1.1"
    assert prefer("", "") == ""


def test_the_stage_is_what_was_refused():
    assert phase_of("said: 550 no (in reply to end of DATA command)") == "data"
    assert phase_of("SMTP error after RCPT TO:<a@b.example>: 550") == "rcpt"
    assert phase_of("Remote host said: no") == ""


def test_html_is_read_as_text():
    mail = read(b"Content-Type: text/html\n\n<style>x@y{}</style><p>a&lt;b@c.example&gt;<br>two")
    assert plain(mail.parts[0]).split("\n") == ["", "a<b@c.example>", "two"]


def test_a_report_of_countless_recipients_is_cut():
    fields = "".join(f"Final-Recipient: rfc822; a{n}@b.example\nAction: failed\n\n" for n in range(2000))
    assert len(bounced(report_of("Reporting-MTA: dns; a\n\n" + fields))) == 1000


HEADERS = "From: MAILER-DAEMON@a.example\nSubject: failure notice\n\n"
WORDS = (
    "could not be delivered",
    "<a@b.example>",
    "550 5.1.1",
    ">>> RCPT",
    "<<<",
    "\n",
    ":",
    "@",
    "--- Below",
    "Final-Recipient:",
)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=20), max_size=30))
def test_no_prose_raises(pieces):
    raw = (HEADERS + " ".join(pieces)).encode("utf-8", "replace")
    mail = read(raw)
    outcomes(mail)
    clues(mail)
    said(prose(mail))
    report(mail)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(path.name for path in GOLDEN.glob("*.eml"))), st.data())
def test_no_mutation_raises(name, data):
    raw = bytearray((GOLDEN / name).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=8)):
        raw[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for content in (bytes(raw), bytes(raw[:cut])):
        mail = read(content)
        outcomes(mail)
        clues(mail)


def test_kinds_follow_from_what_is_told():
    assert outcomes(golden("delayed"))[0].kind is Kind.DEFERRED
