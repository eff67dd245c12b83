"""Postfix: it asks for each message, by policy service and by map, and the gate answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from monitor.actuators._envelope import Envelope
from monitor.actuators._fleet import Fleet, name_of
from monitor.actuators._memcache import Memcache
from monitor.actuators._policy import Policy
from monitor.actuators._queue import Queue
from monitor.actuators._routes import Routes
from monitor.actuators._socketmap import Socketmap
from monitor.actuators._talk import Address, Language, serve
from monitor.model import OWNED, Deed, Lease, Scope, named
from monitor.naming import Pattern
from monitor.ports import Current, Listener


def _place(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{text!r} is no address: write host:port, such as 127.0.0.1:8027")
    return text


def _ip(text: str) -> str:
    try:
        return str(ip_address(text)) if text else ""
    except ValueError as error:
        raise ValueError(f"{text!r} is no IP address") from error


def _transport(text: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,100}(:[^\s:]\S{0,300})?", text, re.ASCII):
        raise ValueError(f"{text!r} is no transport: write its name in master.cf, or name:[relay.example]:25")
    return text


Place = Annotated[str, AfterValidator(_place)]
IP = Annotated[str, AfterValidator(_ip)]
Transport = Annotated[str, AfterValidator(_transport)]


class Postfix(Listener):
    """Serves the policy service and the maps of one or many Postfix machines."""

    policy: Place | None = Field(default=None, description="Address of the policy service, such as 127.0.0.1:8027.")
    memcache: Place | None = Field(
        default=None, description="Address of the maps for Postfix's memcache client, such as 127.0.0.1:8028."
    )
    socketmap: Place | None = Field(
        default=None, description="The same maps by socketmap; they defer all mail while nobody answers."
    )
    sender_pattern: Pattern | None = Field(
        default=None,
        description="Regular expression that is searched for in the envelope sender; its named groups are labels.",
    )
    sasl_pattern: Pattern | None = Field(default=None, description="The same for the SASL user name.")
    domain: str = Field(default="", description="Domain of mail whose sender tells none.")
    stream: str = Field(default="", description="Stream of mail that nothing else assigns to one.")
    tenant: str = Field(default="", description="Tenant of mail that nothing else assigns to one.")
    providers: Mapping[str, str] = Field(
        default_factory=dict, description="Mailbox provider by recipient domain, before what relays have taught."
    )
    pools: Mapping[str, tuple[Transport, ...]] = Field(
        default_factory=dict,
        description="Transports by pool; a sender's home is the pool called as its stream, else `default`.",
    )
    transports: Mapping[str, IP] = Field(default_factory=dict, description="IP by transport of the pools.")
    ip: IP = Field(default="", description="IP of every other transport.")
    hold_queued: bool = Field(
        default=False, description="Put mail that waits in the queue on hold too; `mailvane release` must run."
    )
    state: Annotated[Path, AfterValidator(Path.absolute)] | None = Field(
        default=None, description="File in which stands what is on hold; `mailvane release` works it off."
    )
    helper: tuple[str, ...] = Field(
        default=("sudo", "-n", "/usr/local/sbin/mailvane-postsuper"),
        min_length=1,
        description="Command that holds and releases, or `unix:` and the path of its socket.",
    )
    config_directory: str = Field(
        default="", description="Configuration of the Postfix whose queue it is, where it is not the default instance."
    )

    @model_validator(mode="after")
    def _served(self) -> Postfix:
        if not (self.policy or self.memcache or self.socketmap):
            raise ValueError("nothing is served: give `policy` or `memcache` an address")
        if self.pools and not (self.memcache or self.socketmap):
            raise ValueError("`pools` without a map: Postfix learns a sender's transport by `memcache` alone")
        return self

    @model_validator(mode="after")
    def _pooled(self) -> Postfix:
        if empty := [name for name, pool in self.pools.items() if not pool]:
            raise ValueError(f"pool {empty[0]} has no transport")
        known = {name for pool in self.pools.values() for one in pool for name in (one, name_of(one))}
        if strays := [name for name in self.transports if name not in known]:
            raise ValueError(f"transport {strays[0]} is in no pool")
        return self

    @model_validator(mode="after")
    def _owned(self) -> Postfix:
        told = {group for text in (self.sender_pattern, self.sasl_pattern) if text for group in _groups(text)}
        if not self.tenant and "tenant" not in told and (orphans := told & set(OWNED)):
            raise ValueError(f"{min(orphans)} without tenant: name one by a group, or by `tenant`")
        return self

    @model_validator(mode="after")
    def _kept(self) -> Postfix:
        if self.hold_queued and not self.state:
            raise ValueError("`hold_queued` without `state`: name a file, such as /var/lib/mailvane/postfix.held")
        return self

    def sync(self, leases: Sequence[Lease], current: Current, now: datetime) -> None:
        """Put what waits in the queue on hold, where that is wanted. Of all other mail Postfix asks for itself."""
        if not self.state:
            return
        envelope = self._envelope(self._fleet(), current.provider)

        def pause(sender: str, recipient: str) -> Lease | None:
            if "@" not in sender:
                return None  # a bounce, which tells nothing of whose mail it is
            told = envelope.queued(sender, recipient)
            said = current.check(told.scope, knows=told.knows)
            return said.lease if said.held and said.lease and said.lease.deed is Deed.PAUSE else None

        queue = Queue(self.helper, self.state, self.config_directory)
        queue.sync(leases if self.hold_queued else (), pause, now)

    def ways(self) -> Mapping[str, frozenset[str]]:
        """The labels that each way can tell: ``policy``, and of the maps ``senders`` and ``recipients``."""
        envelope = self._envelope(self._fleet(), lambda _domain: "")
        maps = {"senders": envelope.senders, "recipients": envelope.recipients}
        return {
            **({"policy": envelope.policy} if self.policy else {}),
            **(maps if self.memcache or self.socketmap else {}),
        }

    def expresses(self, scope: Scope) -> Scope | None:
        """The scope itself where one way can tell all of its labels; none is ever held more narrowly."""
        return scope if any(named(scope).keys() <= told for told in self.ways().values()) else None

    async def serve(self, current: Current) -> None:
        """Answer until cancelled.

        Raises:
            PluginError: addresses can't be listened on.
        """
        await serve(self.listening(current), current.refused)

    def listening(self, current: Current) -> list[tuple[Language, Address]]:
        """What is spoken on which address."""
        fleet = self._fleet()
        envelope = self._envelope(fleet, current.provider)
        routes = Routes(envelope, fleet, current)
        spoken: list[tuple[Language, str | None]] = [
            (Policy(envelope, current), self.policy),
            (Memcache(routes), self.memcache),
            (Socketmap(routes), self.socketmap),
        ]
        return [(language, _address(place)) for language, place in spoken if place]

    def _fleet(self) -> Fleet:
        return Fleet(self.pools, self.transports, self.ip)

    def _envelope(self, fleet: Fleet, learnt: Callable[[str], str]) -> Envelope:
        defaults = {"domain": self.domain, "stream": self.stream, "tenant": self.tenant}
        return Envelope(
            sender=re.compile(self.sender_pattern) if self.sender_pattern else None,
            user=re.compile(self.sasl_pattern) if self.sasl_pattern else None,
            defaults={label: value for label, value in defaults.items() if value},
            providers={domain.lower(): provider for domain, provider in self.providers.items()},
            fleet=fleet,
            learnt=learnt,
        )


def _groups(pattern: str) -> Mapping[str, int]:
    return re.compile(pattern).groupindex


def _address(place: str) -> Address:
    host, _, port = place.rpartition(":")
    return host.strip("[]"), int(port)
