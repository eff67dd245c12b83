"""What strangers write into a mailbox of complaints never changes an incident; what a reporter signed does."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.servers.keydns import KeyDns
from tests.servers.mailvane import Mailvane, mailvane
from tests.signing import key, signed
from tests.waiting import until

YAHOO, FORGER = "arf.mail.yahoo.com", "evil.example"
SENT = 2_000
NAMES = count()


def report(number: int, sender: str = "feedback@arf.mail.yahoo.com") -> bytes:
    """A complaint about one of the messages, as Yahoo's loop writes it."""
    text = (
        f"From: Yahoo! Mail AntiSpam Feedback <{sender}>\nTo: fbl@shop.example\nSubject: FW: Black Friday\n"
        f"Date: {datetime.now(UTC):%a, %d %b %Y %H:%M:%S +0000}\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b1"\n\n'
        "--b1\nContent-Type: text/plain\n\nThis is an email abuse report.\n"
        "--b1\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: Yahoo!-Mail-Feedback/2.0\n"
        f"Version: 1\nOriginal-Rcpt-To: r{number}@yahoo.example\n\n"
        f"--b1\nContent-Type: message/rfc822\n\nMessage-ID: <{number}@shop.example>\nFrom: news@shop.example\n"
        "Subject: Black Friday\n\nCome and buy.\n\n--b1--\n"
    )
    return text.replace("\n", "\r\n").encode()


def bounce(number: int) -> bytes:
    """What a server writes that had accepted the message."""
    return (
        "From: MAILER-DAEMON@mx.yahoo.example\nTo: bounces@shop.example\nSubject: Undelivered Mail\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b1"\n\n'
        "--b1\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.yahoo.example\n\n"
        f"Final-Recipient: rfc822; r{number}@yahoo.example\nAction: failed\nStatus: 5.1.1\n"
        "Diagnostic-Code: smtp; 550 5.1.1 user unknown\n\n"
        f"--b1\nContent-Type: text/rfc822-headers\n\nMessage-ID: <{number}@shop.example>\n\n--b1--\n"
    ).encode()


def genuine(number: int) -> bytes:
    """Signed by the reporter a moment ago."""
    return signed(report(number), YAHOO, at=datetime.now(UTC))


def forged(number: int) -> Iterator[bytes]:
    """The same complaint in every way in which a stranger can write it."""
    yield report(number)
    yield signed(report(number), FORGER, at=datetime.now(UTC))
    yield signed(report(number, "feedback@evil.example"), FORGER, at=datetime.now(UTC))
    yield signed(report(number), YAHOO, key(seed=2), at=datetime.now(UTC))
    yield genuine(0).replace(b"<0@shop", f"<{number}@shop".encode()).replace(b"r0@", f"r{number}@".encode())
    yield signed(report(number), YAHOO, at=datetime.now(UTC), length=40)
    yield signed(report(number), YAHOO, at=datetime.now(UTC) - timedelta(days=70))


@dataclass
class Box:
    """A folder into which letters are dropped, and the service that reads it."""

    service: Mailvane
    folder: Path
    dropped: list[bytes] = field(default_factory=list)

    def drop(self, letters: Sequence[bytes]) -> None:
        """Returns when all are read, and whatever they told is in the facts and judged."""
        for letter in letters:
            name = f"{next(NAMES)}.test"
            (self.folder / "tmp" / name).write_bytes(letter)
            (self.folder / "tmp" / name).rename(self.folder / "new" / name)
        until(lambda: not any((self.folder / "new").iterdir()), "the letters to be read")
        until(lambda: not self.service.get("/v1/facts")["waiting"], "what they tell to be in the facts")
        self.judged()

    def judged(self) -> None:
        """Two cycles have passed."""
        for _ in range(2):
            before = self.cycles()
            until(lambda seen=before: self.cycles() > seen, "a cycle")

    def cycles(self) -> float:
        text = urllib.request.urlopen(f"{self.service.url}/metrics", timeout=10).read().decode()
        [line] = [line for line in text.splitlines() if line.startswith("mailvane_cycle_duration_seconds_count")]
        return float(line.split()[-1])

    def incidents(self) -> list[dict[str, Any]]:
        """What is open, without its times."""
        told = self.service.get("/v1/incidents")["incidents"]
        return [
            {"id": one["id"], "rule": one["rule"], "grade": one["grade"], "numerator": one["evidence"]["numerator"]}
            for one in told
        ]

    def rows(self) -> int:
        return int(self.service.get("/v1/facts")["rows"])


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """The service knows of mail of one seller to Yahoo, all of it delivered."""
    folder = tmp_path / "complaints"
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(parents=True)
    with KeyDns() as dns:
        dns.texts[f"arf._domainkey.{YAHOO}"] = [key().record()]
        dns.texts[f"arf._domainkey.{FORGER}"] = [key().record()]
        section = (
            f'[collector.fbl]\nkind = "maildir"\npath = "{folder}"\nresolvers = ["{dns.address}"]\nevery = "0.3s"\n'
        )
        with mailvane(tmp_path, f'[automation]\nmode = "enforce"\n{section}') as service:
            post(service, sent())
            yield Box(service, folder)


def sent() -> bytes:
    """The lines that tell of it."""
    at = datetime.now(UTC) - timedelta(minutes=2)
    labels = {"ip": "192.0.2.7", "domain": "shop.example", "provider": "yahoo", "stream": "marketing"}
    labels |= {"tenant": "s07", "segment": "lapsed", "campaign": "bf"}
    return b"".join(
        json.dumps(
            {
                "kind": "sent",
                "at": at.isoformat(),
                "message_id": f"<{number}@shop.example>",
                "recipient": f"r{number}@yahoo.example",
                **labels,
            }
        ).encode()
        + b"\n"
        for number in range(SENT)
    )


def post(service: Mailvane, lines: bytes) -> None:
    request = urllib.request.Request(f"{service.url}/v1/events", lines, {"Content-Type": "application/x-ndjson"})
    urllib.request.urlopen(request, timeout=30).close()
    until(lambda: service.get("/v1/facts")["events"]["sent"] == SENT, "the mail to be counted")


def test_a_forged_complaint_never_changes_an_incident(box: Box):
    box.drop([letter for number in range(1, 60) for letter in forged(number)])
    assert box.incidents() == []
    assert box.service.get("/v1/facts")["events"]["complaint"] == 0
    assert box.rows() == SENT + 59  # they are kept, each message once, and shown as what nobody vouches for
    box.drop([genuine(number) for number in range(100, 130)])
    [opened] = until(box.incidents, "the incident that true complaints open")
    assert opened["numerator"] == 30
    box.drop([letter for number in range(200, 260) for letter in forged(number)])
    assert box.incidents() == [opened]


def test_a_true_complaint_counts_once_however_often_it_is_sent_again(box: Box):
    letters = [genuine(number) for number in range(3)]
    changed = [b"Received: from anywhere by here\r\n" + letter for letter in letters]
    box.drop([*letters, *(letters + changed) * 20])
    assert box.service.get("/v1/facts")["events"]["complaint"] == 3
    assert box.incidents() == []
    box.drop([genuine(number) for number in range(10, 40)])
    [opened] = until(box.incidents, "the incident that true complaints open")
    assert opened["numerator"] == 33
    box.drop([*letters, *changed])
    assert box.incidents() == [opened]


def test_bounces_that_trickle_in_after_a_campaign_alert_and_pause_nothing(box: Box):
    box.drop([bounce(number) for number in range(400)])
    counts = box.service.get("/v1/facts")["events"]
    assert (counts["bounced"], counts["returned"]) == (0, 400)
    [opened] = until(box.incidents, "the incident of what came back")
    assert (opened["rule"], opened["numerator"]) == ("return-seller", 400)
    assert box.service.get("/v1/leases")["leases"] == []
