"""A receiving mail server that refuses some recipients, by aiosmtpd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.waiting import free_port


@dataclass
class Sink:
    """Takes mail; a recipient whose domain is in ``unknown`` is refused for good."""

    port: int
    unknown: set[str] = field(default_factory=set)
    taken: list[str] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address.rpartition("@")[2] in self.unknown:
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # as above
        self.taken.extend(envelope.rcpt_tos)
        return "250 2.0.0 Ok: queued"


@contextmanager
def sink(*unknown: str, port: int = 0) -> Iterator[Sink]:
    """A sink that runs, on that port or on a free one."""
    here = Sink(port or free_port(), set(unknown))
    controller = Controller(here, hostname="127.0.0.1", port=here.port)
    controller.start()
    try:
        yield here
    finally:
        controller.stop()
