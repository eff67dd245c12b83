"""Bounces through real servers: what Postfix logs, and what it writes to the return path, is one outcome.

mta1 sends. ``gone`` is refused at once, so that mta1 both logs it and bounces it. ``later`` is taken by a second
Postfix, which finds out afterwards that nobody is there. All bounces come to one mailbox of a real Dovecot.
"""

from __future__ import annotations

import json
import smtplib
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import mailvane_client
from tests.servers.dovecot import PASSWORD, USER, Dovecot, dovecot
from tests.servers.mailvane import Mailvane, mailvane
from tests.servers.postfix import Postfix, postfix
from tests.servers.sink import sink
from tests.waiting import free_port, until

VERP = r"^bounce\+(?P<tenant>[^.]+)\.(?P<segment>[^.]+)\.(?P<campaign>[^.@]+)"
LMTP = "lmtp      unix  - - n - - lmtp flags=DORX\n"
MAIN = """
transport_maps = texthash:{etc}/transport
virtual_alias_maps = regexp:{etc}/virtual
virtual_alias_domains =
"""
FATES = ("ok", "gone", "later")
SELLERS = (("s01", "lapsed", "bf-vip"), ("s02", "news", "week48"), ("s02", "news", "week49"))


class Sent(NamedTuple):
    """One message."""

    recipient: str
    seller: tuple[str, str, str]
    fate: str
    marked: bool


def of_log(one: Sent) -> bool:
    """Refused while mta1 spoke with the server: its log tells it."""
    return one.fate == "gone"


def of_mail(one: Sent) -> bool:
    """Taken, and brought back afterwards with our mark."""
    return one.fate == "later" and one.marked


def servers(lmtp: int, later: int = 0) -> dict[str, str]:
    """The tables of a Postfix."""
    transport = f"bounce.shop.example lmtp:inet:127.0.0.1:{lmtp}\nshop.example lmtp:inet:127.0.0.1:{lmtp}\n"
    if later:
        transport += f"later.example smtp:[127.0.0.1]:{later}\n"
    return {"transport": transport, "virtual": rf"/^bounce\+.*@bounce\.shop\.example$/ {USER}" + "\n"}


@contextmanager
def sending(box: Dovecot) -> Iterator[Postfix]:
    """mta1, with a second Postfix behind which ``later`` lies."""
    with (
        sink("gone.example") as mx,
        sink("later.example") as behind,
        postfix(behind.port, MAIN + "myhostname = mx.later.example\n", LMTP, servers(box.lmtp_port)) as second,
        postfix(mx.port, MAIN, LMTP, servers(box.lmtp_port, second.port)) as mta1,
    ):
        yield mta1


def tables(box: Dovecot, log: Path, folder: Path) -> str:
    """The sources, and how the return path names whose mail it is."""
    secret = folder / "imap.password"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    return f"""
[collector.mta]
kind = "sendlog"
path = "{log}"
sender_pattern = '''{VERP}'''

[collector.reports]
kind = "imap"
host = "localhost"
port = {box.tls_port}
ca_file = "{box.ca_file}"
user = "{USER}"
password_file = "{secret}"
lock_dir = "{folder / "locks"}"
resolvers = ["127.0.0.1:{free_port()}"]

[attribution]
wait = "10s"
"""


def mail(many: int) -> list[Sent]:
    """Messages of all sellers and fates, every second one with our own mark."""
    return [
        Sent(f"r{n}@{FATES[n % 3]}.example", SELLERS[n // 3 % 3], FATES[n % 3], marked=n // 9 % 2 == 0)
        for n in range(many)
    ]


def hand_over(mta: Postfix, sent: list[Sent], key: str) -> None:
    """Through SMTP, each with a return path that names its seller and recipient."""
    with smtplib.SMTP("127.0.0.1", mta.port, timeout=30) as client:
        for number, one in enumerate(sent):
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = "news@shop.example", one.recipient, "Black Friday"
            message["Message-ID"] = f"<{number}.{one.seller[2]}@shop.example>"
            if one.marked:
                tenant, segment, campaign = one.seller
                message["X-Mailvane"] = mailvane_client.trace(
                    key,
                    recipient=one.recipient,
                    message_id=message["Message-ID"],
                    tenant=tenant,
                    segment=segment,
                    campaign=campaign,
                )
            message.set_content("Come and buy")
            sender = f"bounce+{'.'.join(one.seller)}.{number}@bounce.shop.example"
            client.send_message(message, sender, [one.recipient])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailvane, list[Sent], datetime]]:
    """Mail was sent, and all that there is to know of it is in the facts."""
    folder, sent = tmp_path_factory.mktemp("reports"), mail(54)
    bounces = sum(one.fate != "ok" for one in sent)
    began = datetime.now(UTC)
    with dovecot(lmtp=True) as box, sending(box) as mta, mailvane(folder, tables(box, mta.log, folder)) as service:
        service.command("trace", "key")
        hand_over(mta, sent, mailvane_client.trace_key(folder / "data" / "trace.keys"))
        until(lambda: box.count("Archive") == bounces, "all bounces to be read", 90)
        until(lambda: settled(service, sent), "all reports to be attributed", 60)
        yield service, sent, began


def settled(service: Mailvane, sent: list[Sent]) -> bool:
    """Whether the facts know as much as they will: nothing waits, and the log was read to its end."""
    facts = service.get("/v1/facts")
    later = sum(one.fate == "later" and one.marked for one in sent)
    gone, ok = sum(one.fate == "gone" for one in sent), sum(one.fate != "gone" for one in sent)
    counts, strange = facts["events"], sum(one.fate == "later" and not one.marked for one in sent)
    known = (ok, gone, later, ok + gone + later + strange)
    found = (counts["sent"], counts["bounced"], counts["returned"], facts["rows"])
    return not facts["waiting"] and found == known


def events(service: Mailvane, one: Sent) -> list[dict[str, Any]]:
    """What is known of the mail to one recipient."""
    return list(search(service, {"recipient": one.recipient})["events"])


def headers(service: Mailvane) -> dict[str, str]:
    """Of somebody who may search."""
    token = (service.config.parent / "data" / "token").read_text().strip()
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def search(service: Mailvane, body: Mapping[str, str]) -> Any:
    """The answer to a search."""
    request = urllib.request.Request(
        f"{service.url}/v1/search", json.dumps(body).encode(), headers(service), method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_an_outcome_that_log_and_bounce_both_tell_counts_once(told):
    service, sent, _ = told
    facts = service.get("/v1/facts")
    assert facts["rows"] == facts["keys"]
    assert facts["events"] == facts["leaf"] == facts["minute"] == facts["hour"]
    for one in sent:
        kinds = Counter(event["kind"] for event in events(service, one))
        late = {"returned" if one.marked else "unverified_bounce": 1}
        assert kinds == {"ok": {"sent": 1}, "gone": {"bounced": 1}, "later": {"sent": 1, **late}}[one.fate], one


def test_each_bounce_is_attributed_to_its_seller_and_campaign(told):
    service, sent, _ = told
    for kind, known in (("bounced", of_log), ("returned", of_mail)):
        found = service.get("/v1/top", by="tenant,segment,campaign", kind=kind, limit=50)["scopes"]
        counted = {tuple(one["scope"].values()): one["numerator"] for one in found}
        assert counted == Counter(one.seller for one in sent if known(one))


def test_each_bounce_counts_in_the_hour_of_its_send(told):
    service, sent, began = told
    for one in (one for one in sent if one.fate != "ok"):
        for event in events(service, one):
            at = datetime.fromisoformat(event["sent_at"])
            assert began.timestamp() - 2 <= at.timestamp() <= datetime.fromisoformat(event["at"]).timestamp()
    for kind, known in (("bounced", of_log), ("returned", of_mail)):
        hours = service.get("/v1/cohorts", by="tenant", kind=kind, limit=50)["cohorts"]
        assert sum(hour["numerator"] for hour in hours) == sum(map(known, sent))
        assert {hour["sent_at"][:13] for hour in hours} <= {began.isoformat()[:13], datetime.now(UTC).isoformat()[:13]}


def test_what_comes_back_late_is_set_against_the_mail_of_its_hour(told):
    service, sent, _ = told
    [hour, *more] = service.get("/v1/cohorts", rate="return", limit=50)["cohorts"]
    if not more:  # else the hour ended between two messages
        assert (hour["numerator"], hour["denominator"]) == (
            sum(map(of_mail, sent)),
            sum(one.fate != "gone" for one in sent),
        )


def test_what_a_bounce_says_is_understood(told):
    service, sent, _ = told
    for one in (one for one in sent if one.fate != "ok"):
        classes = {event["class"] for event in events(service, one) if event["kind"] != "sent"}
        assert classes == {"invalid_recipient"}, one
