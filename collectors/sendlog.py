"""What became of each message, from Postfix's log: sent, deferred, bounced, expired, or held by a pause of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from collectors._joins import Joins
from collectors._postfix import Parser
from collectors._provider import learnt, provider_of
from collectors._relays import Programs, Relays
from collectors._stamps import Stamps
from collectors._tail import Piece, Position, follow
from monitor.model import OWNED, Batch, Rejected
from monitor.naming import Labels, Pattern
from monitor.ports import Collector, Duration, Memory, PluginError

__all__ = ["LOST", "Parser", "Sendlog", "learnt", "provider_of"]

LOST = "rotated away before it was read"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


class Sendlog(Collector):
    """Follows one log file of one or many Postfix machines."""

    path: Path = Field(description="The log file; its rotated files are looked for beside it.")
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
    _live: tuple[Mapping[str, Any], Parser] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _owned(self) -> Sendlog:
        patterns = [re.compile(text) for text in (self.sender_pattern, self.sasl_pattern) if text]
        told = {*self.headers.values(), *(group for pattern in patterns for group in pattern.groupindex)}
        if not self.tenant and "tenant" not in told and (orphans := told & set(OWNED)):
            raise ValueError(f"{min(orphans)} without tenant: name one by a group, a header, or `tenant`")
        return self

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

    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        """The lines since ``memory.cursor``, a batch for each chunk; at least one batch, maybe without rows."""
        parser = self._resumed(memory, now)
        cursor = memory.cursor
        try:
            for piece in follow(self.path, Position.of(cursor)):
                batch = self._batch(parser, piece)
                cursor = {**piece.position(parser.pending).dumped(), "skipping": parser.skipping, "last": parser.last}
                yield replace(batch, cursor=cursor, watermark=self._watermark(parser, piece, now))
        except OSError as error:
            raise PluginError(f"{self.path} can't be read: {error.strerror or error}", retry=True) from error
        self._live = (cursor, parser)

    def _resumed(self, memory: Memory, now: datetime) -> Parser:
        # The parser of the last call is as good as one built from what was committed, if that is where it stood.
        live, self._live = self._live, None
        if live and live[0] == memory.cursor:
            live[1].resume(now)
            return live[1]
        return self.parser(now, memory)

    def _batch(self, parser: Parser, piece: Piece) -> Batch:
        where = str(self.path)
        lost = [Rejected(LOST, where)] if piece.lost else []
        if lost:
            parser.gap()
        batch = parser.feed(piece.data, where)
        if not piece.complete:
            return replace(batch, rejected=[*lost, *batch.rejected]) if lost else batch
        rest = parser.finish(where)
        return Batch(
            {name: (*values, *rest.columns[name]) for name, values in batch.columns.items()},
            remember={**batch.remember, **rest.remember},
            rejected=[*lost, *batch.rejected, *rest.rejected],
        )

    def _watermark(self, parser: Parser, piece: Piece, now: datetime) -> datetime | None:
        if not parser.last:
            return None
        last = min(_EPOCH + timedelta(microseconds=parser.last), now)
        # A log that is read to its end and quiet says that nothing happened. A writer that has died looks the same,
        # so after some silence the log vouches for nothing more.
        quiet = piece.at_end and not parser.pending and now - last <= self.silence
        return max(last, now - self.lag) if quiet else last


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None
