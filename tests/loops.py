"""Complaints of a feedback loop that anybody can check, with the name server that holds its key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from tests.servers.keydns import KeyDns
from tests.signing import key, signed

REPORTER = "arf.mail.yahoo.com"
_KEY = f"arf._domainkey.{REPORTER}"


def whom(number: int) -> str:
    return f"jane{number}@example.net"


def complaint(number: int, at: datetime) -> bytes:
    """A signed complaint of the recipient of that number, with LF at the end of lines, as it lies in a file."""
    body = (
        "--b1\nContent-Type: text/plain\n\nThis is an email abuse report.\n"
        "--b1\nContent-Type: message/feedback-report\n\n"
        f"Feedback-Type: abuse\nUser-Agent: Loop/2.0\nVersion: 1\nOriginal-Rcpt-To: {whom(number)}\n\n"
        f"--b1\nContent-Type: message/rfc822\n\nMessage-ID: <{number}@shop.example>\nFrom: shop@shop.example\n"
        "Subject: offer\n\nBuy.\n\n--b1--\n"
    )
    head = (
        f"From: Feedback <feedback@{REPORTER}>\nTo: fbl@shop.example\nSubject: FW: offer\n"
        "Date: Tue, 24 Nov 2026 09:00:00 +0000\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b1"\n\n'
    )
    return signed((head + body).encode(), REPORTER, at=at).replace(b"\r\n", b"\n")


@contextmanager
def keys() -> Iterator[KeyDns]:
    """The name server; put ``failing`` names into it, and it can't tell them for now."""
    with KeyDns() as server:
        server.texts[_KEY] = [key().record()]
        yield server


def fail(server: KeyDns) -> None:
    """No key is told from now on."""
    server.failing.add(_KEY)


def mend(server: KeyDns) -> None:
    """Keys are told again."""
    server.failing.clear()
