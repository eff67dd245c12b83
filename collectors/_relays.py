"""Where a delivery went: what the ``relay=`` of a log line and the program's name tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from collectors._provider import provider_of
from monitor.once import Once

_RELAY = re.compile(r"([^\[]*)\[([^\]]*)\](?::(\d+))?")
# No relay is named where no session came about, or where an earlier failure is repeated; the reply then names the host.
_TRIED = re.compile(
    r"(?:delivery temporarily suspended: )?(?:connect to|lost connection with|conversation with|host) "
    r"([^\s\[]+\[[^\]\s]+\](?::\d+)?)"
)
# Agents that deliver within the house: what they say is no answer of a mailbox provider's.
_HOUSE = frozenset(("local", "virtual", "pipe", "lmtp", "discard"))
# Agents that open no session, so no address of ours was used: they repeat what happened, or what we told them to say.
_REPEATS = frozenset(("error", "retry", "bounce", "defer"))
Network = IPv4Network | IPv6Network


class Relay(NamedTuple):
    """The host that a message was handed to, its provider, and whether it is the house's own."""

    host: str
    provider: str
    internal: bool


class Relays:
    """Relays by their text in the log: ``of[text]`` is what ``relay=text`` means.

    ``internal`` are the house's own: host names, addresses (both with or without :port) and networks.
    """

    def __init__(self, internal: Iterable[str] = ()) -> None:
        named = {name.lower().replace("[", "").replace("]", "") for name in internal}
        self._networks = tuple(network for name in named if (network := _network(name)))
        self._names = frozenset(named)
        self.of = Once(self._relay)

    def tried(self, reply: str) -> Relay:
        """The host that a reply without a relay speaks of."""
        found = _TRIED.match(reply)
        return self.of[found[1]] if found else NOWHERE

    def _relay(self, text: str) -> Relay:
        found = _RELAY.fullmatch(text)
        if not found or "/" in found[2]:  # "local", a pipe's service, a socket
            return NOWHERE if text == "none" else Relay(text, "", internal=True)
        host, address, port = found[1].lower(), found[2].lower(), found[3]
        internal = not self._names.isdisjoint((host, address, f"{host}:{port}", f"{address}:{port}"))
        return Relay(host, provider_of(host), internal or self._within(address))

    def _within(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


NOWHERE = Relay("", "", internal=False)


class Program(NamedTuple):
    """What logged an outcome: which ``address`` of ours it uses, whether it delivers in the house, or only repeats."""

    address: str
    house: bool
    repeats: bool


class Programs:
    """Programs by their name in the log: ``of[name]`` is the one called so.

    ``by_transport`` maps transports as ``syslog_name`` shows them to addresses. Of "postfix-out/smtp-ip1/smtp" the
    longest and last part that is there decides: the whole, then "smtp-ip1/smtp", "smtp", "postfix-out/smtp-ip1",
    "smtp-ip1", and so on.
    """

    def __init__(self, by_transport: Mapping[str, str], default: str = "") -> None:
        self._by_transport = by_transport
        self._default = default
        self.of = Once(self._of)

    def _of(self, program: str) -> Program:
        parts = program.split("/")
        paths = ("/".join(parts[first:last]) for last in range(len(parts), 0, -1) for first in range(last))
        address = next((self._by_transport[path] for path in paths if path in self._by_transport), self._default)
        return Program(address, parts[-1] in _HOUSE, parts[-1] in _REPEATS)


def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
