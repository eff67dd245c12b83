"""Letters as they lie in a mailbox for bounces: reports of several forms, and what else comes to such an address.

All of it is of our making. ``mixed(10_000, at)`` are so many, in a mixture; each report is of another message to
another recipient, so that what was counted twice or not at all is seen by the numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime

BOX = "bounces@shop.example"
BOUNCE, COMPLAINT, VACATION, SPAM, BROKEN = "bounce", "complaint", "vacation", "spam", "broken"
_SHARES = {BOUNCE: 60, COMPLAINT: 15, VACATION: 10, SPAM: 10, BROKEN: 5}


@dataclass(frozen=True, slots=True)
class Letter:
    """What a letter is, and of which message and recipient it reports, where it does."""

    kind: str
    content: bytes
    message_id: str = ""
    recipient: str = ""


def mixed(count: int, at: datetime, *, seed: int = 1, first: int = 0) -> list[Letter]:
    """So many letters that came in the hour before ``at``; ``first`` is the number of the first, for further ones."""
    luck = random.Random(f"{seed} {first}")
    kinds = luck.choices(list(_SHARES), list(_SHARES.values()), k=count)
    return [
        letter(kind, number, at - timedelta(seconds=luck.randrange(60, 3600)))
        for number, kind in enumerate(kinds, first)
    ]


def letter(kind: str, number: int, at: datetime, form: int | None = None) -> Letter:
    """The letter of that number; ``form`` chooses among those of its kind, by default the number does."""
    makers = _MAKERS[kind]
    made = makers[(number if form is None else form) % len(makers)](number, at)
    reports = kind in (BOUNCE, COMPLAINT)
    return Letter(kind, made.encode("latin-1"), *((f"<{message(number)}>", recipient(number)) if reports else ("", "")))


def forms(kind: str) -> int:
    """How many forms of a kind there are."""
    return len(_MAKERS[kind])


def recipient(number: int) -> str:
    return f"customer{number}@mail{number % 7}.example"


def message(number: int) -> str:
    return f"news.{number}@shop.example"


def _dated(at: datetime) -> str:
    return format_datetime(at)


def _lines(*lines: str) -> str:
    return "\r\n".join(lines) + "\r\n"


def _original(number: int, at: datetime) -> Sequence[str]:
    return (
        "From: The shop <news@shop.example>",
        f"To: {recipient(number)}",
        "Subject: Spring offers",
        f"Message-ID: <{message(number)}>",
        f"Date: {_dated(at - timedelta(minutes=3))}",
        f"Feedback-ID: spring:s{number % 5}:marketing:shop",
        "",
        "Everything must go.",
    )


def _report(number: int, at: datetime, sender: str, words: Sequence[str], status: Sequence[str]) -> str:
    edge = f"=_{number:08x}"
    return _lines(
        f"From: {sender}",
        f"To: {BOX}",
        "Subject: Undelivered Mail Returned to Sender",
        f"Message-ID: <report.{number}@mx.example>",
        f"Date: {_dated(at)}",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{edge}"',
        "",
        f"--{edge}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        *words,
        "",
        f"--{edge}",
        "Content-Type: message/delivery-status",
        "",
        *status,
        "",
        f"--{edge}",
        "Content-Type: message/rfc822",
        "",
        *_original(number, at),
        f"--{edge}--",
    )


def _postfix(number: int, at: datetime) -> str:
    to = recipient(number)
    said = f"550 5.1.1 <{to}>: Recipient address rejected: User unknown"
    return _report(
        number,
        at,
        "MAILER-DAEMON@mta1.shop.example (Mail Delivery System)",
        ("This is the mail system at host mta1.shop.example.", "", f"<{to}>: host mx.example said: {said}"),
        (
            "Reporting-MTA: dns; mta1.shop.example",
            f"X-Postfix-Queue-ID: 4R{number:08X}",
            f"Arrival-Date: {_dated(at)}",
            "",
            f"Final-Recipient: rfc822; {to}",
            "Action: failed",
            "Status: 5.1.1",
            "Remote-MTA: dns; mx.example",
            f"Diagnostic-Code: smtp; {said}",
        ),
    )


def _full(number: int, at: datetime) -> str:
    to = recipient(number)
    return _report(
        number,
        at,
        f"<postmaster@mail{number % 7}.example>",
        ("Delivery has failed to these recipients:", to, "The recipient's mailbox is full."),
        (
            f"Reporting-MTA: dns;mail{number % 7}.example",
            "",
            f"Original-Recipient: rfc822;{to}",
            f"Final-Recipient: rfc822;{to}",
            "Action: failed",
            "Status: 5.2.2",
            "Diagnostic-Code: smtp;552 5.2.2 Mailbox full",
        ),
    )


def _exim(number: int, at: datetime) -> str:
    to = recipient(number)
    return _lines(
        f"X-Failed-Recipients: {to}",
        "Auto-Submitted: auto-replied",
        f"From: Mail Delivery System <Mailer-Daemon@mail{number % 7}.example>",
        f"To: {BOX}",
        "Subject: Mail delivery failed: returning message to sender",
        f"Message-Id: <E{number}@mail.example>",
        f"Date: {_dated(at)}",
        "",
        "This message was created automatically by mail delivery software.",
        "",
        "A message that you sent could not be delivered to one or more of its",
        "recipients. This is a permanent error. The following address(es) failed:",
        "",
        f"  {to}",
        "    host mx.example [192.0.2.25]",
        "    SMTP error from remote mail server after RCPT TO:",
        "    550 5.1.1 no such user here",
        "",
        "------ This is a copy of the message, including all the headers. ------",
        "",
        *_original(number, at),
    )


def _qmail(number: int, at: datetime) -> str:
    return _lines(
        f"From: MAILER-DAEMON@mail{number % 7}.example",
        f"To: {BOX}",
        "Subject: failure notice",
        f"Message-ID: <qmail.{number}@mail.example>",
        f"Date: {_dated(at)}",
        "",
        f"Hi. This is the qmail-send program at mail{number % 7}.example.",
        "I'm afraid I wasn't able to deliver your message to the following addresses.",
        "This is a permanent error; I've given up. Sorry it didn't work out.",
        "",
        f"<{recipient(number)}>:",
        "Sorry, no mailbox here by that name. (#5.1.1)",
        "",
        "--- Below this line is a copy of the message.",
        "",
        f"Return-Path: <{BOX}>",
        *_original(number, at),
    )


def _abuse(number: int, at: datetime) -> str:
    edge = f"--arf{number:08x}"
    return _lines(
        "From: <feedback@loop.example>",
        f"To: {BOX}",
        "Subject: complaint about message from 192.0.2.10",
        f"Message-ID: <arf.{number}@loop.example>",
        f"Date: {_dated(at)}",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=feedback-report; boundary="{edge}"',
        "",
        f"--{edge}",
        'Content-Type: text/plain; charset="US-ASCII"',
        "",
        "This is an email abuse report for a message received from 192.0.2.10.",
        "",
        f"--{edge}",
        "Content-Type: message/feedback-report",
        "",
        "Feedback-Type: abuse",
        "User-Agent: Loop/1.0",
        "Version: 1",
        "Original-Mail-From: <news@shop.example>",
        f"Original-Rcpt-To: <{recipient(number)}>",
        f"Arrival-Date: {_dated(at)}",
        "Source-IP: 192.0.2.10",
        "",
        f"--{edge}",
        "Content-Type: message/rfc822",
        "",
        *_original(number, at),
        f"--{edge}--",
    )


def _away(number: int, at: datetime) -> str:
    return _lines(
        f"From: {recipient(number)}",
        f"To: {BOX}",
        "Subject: Out of office: Spring offers",
        f"Message-ID: <away.{number}@mail.example>",
        f"In-Reply-To: <{message(number)}>",
        f"Date: {_dated(at)}",
        "Auto-Submitted: auto-replied",
        "Precedence: bulk",
        "",
        "I am on holiday until Monday and read no mail.",
    )


def _spam(number: int, at: datetime) -> str:
    return _lines(
        f"From: Riches <winner{number}@luck.example>",
        f"To: {BOX}",
        f"Subject: You have won {number + 1} times",
        f"Message-ID: <spam.{number}@luck.example>",
        f"Date: {_dated(at)}",
        "Content-Type: text/html; charset=utf-8",
        "",
        f"<html><body><p>Claim it today at <a href='http://luck.example/{number}'>our page</a>.</p></body></html>",
        *("<p>Nobody else must know of it, and time is short.</p>",) * (number % 40),
    )


def _cut(number: int, at: datetime) -> str:
    return _lines(
        f"From: MAILER-DAEMON@mail{number % 7}.example",
        f"Date: {_dated(at)}",
        'Content-Type: multipart/mixed; boundary="never',
        "Content-Transfer-Encoding: no-such",
        "",
        "--never",
        f"Content-Type: image/{number}",
    )


def _noise(number: int, _at: datetime) -> str:
    # No bare line ends: a server would not take them as they are, and the letters could not be compared.
    luck = random.Random(number)
    return "".join(chr(luck.choice((*range(1, 10), *range(14, 256)))) for _ in range(300)) + "\r\n"


def _headless(number: int, _at: datetime) -> str:
    return f"\r\nnothing but a body, number {number}\r\n"


_MAKERS: Mapping[str, Sequence[Callable[[int, datetime], str]]] = {
    BOUNCE: (_postfix, _full, _exim, _qmail),
    COMPLAINT: (_abuse,),
    VACATION: (_away,),
    SPAM: (_spam,),
    BROKEN: (_cut, _noise, _headless),
}
