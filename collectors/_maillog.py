"""What all have in common who read a mail log: settings that name the mail in it, and the parser with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from collectors._joins import Joins
from collectors._postfix import Parser
from collectors._relays import Programs, Relays
from collectors._stamps import Stamps
from monitor.model import OWNED, Batch, Rejected
from monitor.naming import Labels, Pattern
from monitor.ports import Collector, Duration, Memory


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone: write a name such as Europe/Prague, or UTC") from error
    return name


def _address(text: str) -> str:
    try:
        return str(ip_address(text)) if text else ""
    except ValueError as error:
        raise ValueError(f"{text!r} is no IP address") from error


Zone = Annotated[str, AfterValidator(_zone)]
Address = Annotated[str, AfterValidator(_address)]
Part = Literal["domain", "stream", "tenant", "segment", "campaign", "variant", "region"]


class MailLog(Collector):
    """Makes outcomes of the log lines of one or many Postfix machines."""

    timezone: Zone = Field(default="UTC", description="Zone of stamps without an offset, such as classic syslog's.")
    host: str = Field(default="", description="Name of the machine, in place of the one that its log lines give.")
    addresses: Mapping[str, Address] = Field(
        default_factory=dict, description="IP by transport, as `syslog_name` or `smtp_bind_address` set it apart."
    )
    ip: Address = Field(default="", description="IP of every other transport.")
    sender_pattern: Pattern | None = Field(
        default=None,
        description="Regular expression that is searched for in the envelope sender; its named groups are labels.",
    )
    sasl_pattern: Pattern | None = Field(default=None, description="The same for the SASL user name.")
    headers: Mapping[str, Part] = Field(
        default_factory=dict, description="Label by the name of a header that `header_checks` logs."
    )
    domain: str = Field(default="", description="Domain of mail whose sender tells none.")
    stream: str = Field(default="", description="Stream of mail that nothing else assigns to one.")
    tenant: str = Field(default="", description="Tenant of mail that nothing else assigns to one.")
    internal_relays: tuple[str, ...] = Field(
        default=(),
        description="Hops within the house: host names and addresses (with :port or not), networks.",
    )
    lag: Duration = Field(
        default=timedelta(seconds=5), description="The longest time from a line's stamp to its arrival here."
    )
    silence: Duration = Field(
        default=timedelta(minutes=15), description="A log quiet for longer vouches for nothing until its next line."
    )

    @model_validator(mode="after")
    def _owned(self) -> MailLog:
        patterns = [re.compile(text) for text in (self.sender_pattern, self.sasl_pattern) if text]
        told = {*self.headers.values(), *(group for pattern in patterns for group in pattern.groupindex)}
        if not self.tenant and "tenant" not in told and (orphans := told & set(OWNED)):
            raise ValueError(f"{min(orphans)} without tenant: name one by a group, a header, or `tenant`")
        return self

    def again(self, items: Sequence[Rejected], now: datetime) -> Batch:
        """Lines by themselves: what lines before them told of their messages, such as the sender, is not known."""
        return self.parser(now).gather((item.where, item.raw + b"\n") for item in items)

    def parser(self, now: datetime, memory: Memory | None = None) -> Parser:
        """A parser with these settings: ``feed`` it the bytes of a log, oldest first, then ``finish``.

        Without ``memory`` it starts afresh and its batches say nothing of what to remember, as an import needs it.
        """
        cursor = memory.cursor if memory else {}
        defaults = {"domain": self.domain, "stream": self.stream, "tenant": self.tenant}
        return Parser(
            stamps=Stamps(self.timezone, now),
            labels=Labels(_compiled(self.sender_pattern), _compiled(self.sasl_pattern), self.headers, defaults),
            programs=Programs(self.addresses, self.ip),
            relays=Relays(self.internal_relays),
            joins=Joins(memory.remembers if memory else None),
            users=self.sasl_pattern is not None,
            headers=self.headers,
            host=self.host,
            remembering=memory is not None,
            skipping=cursor.get("skipping", False),
            last=cursor.get("last", 0),
        )


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None
