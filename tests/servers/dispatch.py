"""A house that sends: Postfix set up word for word as docs/plugins/postfix.md says, applications before, receivers behind."""

from __future__ import annotations

import os
import re
import smtplib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.servers.postfix import Postfix, postfix
from tests.waiting import free_port, until

PAGE = Path(os.environ.get("MAILVANE_CHECKOUT", Path(__file__).parents[2])) / "docs/plugins/postfix.md"
SEGMENTS = ("buyers", "lapsed", "news")
DOMAINS = {"one.example": "onet", "two.example": "wp"}
IPS = {"smtp-ip1": "127.0.0.1", "smtp-ip2": "127.0.0.2", "smtp-ip3": "127.0.0.3"}
PATTERN = r"^b-(?P<tenant>[^-]+)-(?P<segment>[^-]+)-(?P<stream>[^-]+)-"


@dataclass
class Receiver:
    """Takes all mail; knows from which IP each message came."""

    port: int = field(default_factory=free_port)
    came: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # sender, recipient → IPs

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # its name
        for recipient in envelope.rcpt_tos:
            self.came.setdefault((envelope.mail_from or "", recipient), []).append(session.peer[0])
        return "250 2.0.0 Ok: queued"


@dataclass
class House:
    """``refusing`` is the port of mail that is refused while held, ``queueing`` of mail that then waits."""

    mta: Postfix
    receiver: Receiver
    refusing: int
    queueing: int
    numbers: Iterator[int] = field(default_factory=count)


@contextmanager
def house(policy: int, maps: int, kind: str = "memcache") -> Iterator[House]:
    """It runs; the tier listens at those ports, or not."""
    receiver = Receiver()
    controller = Controller(receiver, hostname="127.0.0.1", port=receiver.port)
    controller.start()
    refusing, queueing = free_port(), free_port()
    written = _page(
        {
            "127.0.0.1:8027": f"127.0.0.1:{policy}",
            "127.0.0.1:8028": f"127.0.0.1:{maps}",
            "submission ": f"127.0.0.1:{refusing} ",
            "2525 ": f"127.0.0.1:{queueing} ",
            **{f"198.51.100.{ip[-1]}": ip for ip in IPS.values()},
        }
    )
    if kind == "socketmap":
        written["main.cf"] = re.sub(
            r"memcache:\S+/mailvane-(\w+)\.cf", rf"socketmap:inet:127.0.0.1:{maps}:\1", written["main.cf"]
        )
    main, services = written.pop("main.cf"), written.pop("master.cf")
    try:
        with postfix(receiver.port, main.replace("/etc/postfix", "{etc}"), services, written) as mta:
            yield House(mta, receiver, refusing, queueing)
    finally:
        controller.stop()


def _page(changes: Mapping[str, str]) -> dict[str, str]:
    """The files that the page tells to write, by name, with other addresses."""
    found: dict[str, str] = {}
    page = PAGE.read_text("utf-8")
    for old, new in changes.items():
        page = page.replace(old, new)
    for name, text in re.findall(r"```\n# /etc/postfix/([\w.-]+)[^\n]*\n(.*?)```", page, re.DOTALL):
        found[name] = found.get(name, "") + text
    assert set(found) == {"main.cf", "master.cf", "mailvane-recipients.cf", "mailvane-senders.cf"}
    return found


Message = tuple[str, str]  # sender, recipient


@dataclass
class Application:
    """Sends at a pace, keeps what is refused for now, and tries it again, as a queue should."""

    house: House
    sent: dict[Message, int] = field(default_factory=dict)  # the port to which it was brought
    kept: set[Message] = field(default_factory=set)
    said: set[str] = field(default_factory=set)  # why it was refused
    _links: dict[int, smtplib.SMTP] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links.values():
            link.close()

    def send(self, messages: int, a_second: float = 50) -> None:
        """New mail over all segments and domains, to one port and the other."""
        mixed = cycle((segment, domain) for segment in SEGMENTS for domain in DOMAINS)
        ports = cycle((self.house.refusing, self.house.queueing, self.house.queueing, self.house.refusing))
        begun = time.monotonic()
        for number, (segment, domain), port in zip(range(messages), mixed, ports, strict=False):
            name = next(self.house.numbers)
            message = f"b-s07-{segment}-marketing-{name}@shop.example", f"u{name}@{domain}"
            self.sent[message] = port
            self._hand_over(message)
            if (early := begun + number / a_second - time.monotonic()) > 0:
                time.sleep(early)  # the pace, nothing that is waited for

    def again(self) -> None:
        """Try once more what was refused."""
        for message in tuple(self.kept):
            self.kept.remove(message)
            self._hand_over(message)

    def settled(self) -> set[Message]:
        """What has come, once each message has come, was refused, or waits with our words."""
        mta, came = self.house.mta, self.house.receiver.came

        def known() -> bool:
            waiting = mta.lines("relay=none", "status=deferred (paused by mailvane until ")
            waits = {line.partition(" to=<")[2].partition(">")[0] for line in waiting}
            return all(one in came or one in self.kept or one[1] in waits for one in self.sent)

        until(known, "each message to have come, or to be held", 30)
        return self.sent.keys() & came.keys()

    def _hand_over(self, message: Message) -> None:
        port = self.sent[message]
        if port not in self._links:
            self._links[port] = smtplib.SMTP("127.0.0.1", port, timeout=60)
        try:
            self._links[port].sendmail(message[0], message[1], "Subject: hello\n\nhello\n")
        except smtplib.SMTPRecipientsRefused as refused:
            ((code, reply),) = refused.recipients.values()
            assert code == 450, reply
            self.kept.add(message)
            self.said.add(reply.decode().partition(": Recipient address rejected: ")[2])
