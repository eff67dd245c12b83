"""Where a URL leads, and which addresses are the public internet's: others are reached only where they are allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

IPAddress: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

LONGEST = 8192  # characters of a URL
_PORTS = {"http": 80, "https": 443}
_PLAIN = re.compile(r"[\x21-\x5b\x5d-\x7e]+")  # no blanks, no controls, nothing beyond ASCII, no backslash
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,254}))(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

# The IANA special-purpose address registries (RFC 6890), but for what is reachable like any other address. Not by
# `is_global` of the standard library: it differs by the release of Python, and takes NAT64 for public in all of them.
_RESERVED = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network, and the unspecified address
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; a metadata service too (Alibaba)
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # looks public, and is the host beneath every machine at Azure
        "169.254.0.0/16",  # link-local, with most metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; a metadata service too (Oracle)
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_UNICAST = IPv6Network("2000::/3")  # the only part of IPv6 from which public addresses are given
_RESERVED_6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")  # IPv4 in the clothes of IPv6 (RFC 4291 section 2.5.5.2)
_NAT64 = IPv6Network("64:ff9b::/96")  # the translator's (RFC 6052); how all IPv4 looks in a network with IPv6 alone
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_COMPATIBLE = (IPv6Network("::/96"), IPv6Network("::ffff:0:0:0/96"))  # RFC 4291 section 2.5.5.1, RFC 2765
_ISATAP = {0x00005EFE, 0x02005EFE}  # how the lower half begins (RFC 5214 section 6.1)
_BITS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Place:
    """What a URL names. ``host`` is in lower case, with a final dot where it was written; an address stands in ``ip``.

    ``target`` may hold a key, so no repr shows it.
    """

    scheme: str
    host: str
    port: int
    target: str
    ip: IPAddress | None = None

    def __repr__(self) -> str:
        return f"Place({self})"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def name(self) -> str:
        """The host as a certificate and a person name it."""
        return self.host.removesuffix(".")

    @property
    def authority(self) -> str:
        """What the header Host says: no port where it is the usual one."""
        host = f"[{self.host}]" if isinstance(self.ip, IPv6Address) else self.name
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Who may be told what was meant for it (RFC 6454)."""
        return self.scheme, self.name, self.port


def place(url: str) -> Place:
    """Where the URL leads, if it is written plainly: so no two readers can take it for different places.

    Raises:
        ValueError: it is not; nothing of the URL is repeated, since a key may stand in it.
    """
    if len(url) > LONGEST or not _PLAIN.fullmatch(url):
        raise ValueError("the URL is too long, or holds blanks or letters beyond ASCII: write xn--… and %-signs")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the URL has no readable host") from None
    if parts.scheme not in _PORTS:
        raise ValueError("the URL is neither http nor https")
    if "@" in parts.netloc:
        raise ValueError("the URL holds credentials: they have settings of their own")
    if not (found := _AUTHORITY.fullmatch(parts.netloc)):
        raise ValueError("the URL has no readable host")
    bracketed, named, port = found.groups()
    number = int(port) if port else _PORTS[parts.scheme]
    if not 0 < number < 1 << 16:
        raise ValueError("the URL's port is none")
    ip = _literal(bracketed or "", (named or "").lower())
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme, str(ip) if ip else named.lower(), number, target, ip)


def _literal(bracketed: str, named: str) -> IPAddress | None:
    """The address that stands for a host; None for a name. Octal, hex, and short forms are no address and no name."""
    try:
        if bracketed:
            return IPv6Address(bracketed)
        labels = named.removesuffix(".").split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return IPv4Address(named)
    except ValueError:
        raise ValueError(
            "the URL's host is an address in an odd spelling: write it as 192.0.2.1 or [2001:db8::1]"
        ) from None
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the URL's host is no name")
    return None


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks out of texts such as 10.1.0.0/16 or fd00::/8.

    Raises:
        ValueError: one is none.
    """
    return tuple(ip_network(text, strict=False) for text in texts)


def loopback(url: str) -> tuple[str, ...]:
    """The loopback address that a URL spells out, as networks; none where it spells none.

    For URLs of the configuration: whoever writes 127.0.0.1 there means this machine. What a name leads to is not known.
    """
    try:
        there = place(url)
    except ValueError:
        return ()
    if there.ip and there.ip.is_loopback:
        return (str(there.ip),)
    return ("127.0.0.1", "::1") if there.name == "localhost" else ()


def is_public(address: IPAddress) -> bool:
    """Whether it is the public internet's, with every address that it carries."""
    return all(_is_public(one) for one in within(address))


def is_allowed(address: IPAddress, allow: Iterable[Network]) -> bool:
    """Whether it, with every address that it carries, lies in one of these networks."""
    nets = tuple(allow)
    return all(any(one in net for net in nets) for one in within(address))


def may(address: IPAddress, allow: Iterable[Network]) -> bool:
    """Whether it may be connected to: it and every address that it carries are public, or lie in ``allow``."""
    nets = tuple(allow)
    return all(_is_public(one) or any(one in net for net in nets) for one in within(address))


def within(address: IPAddress) -> Iterator[IPAddress]:
    """Where packets to it end up: itself, and IPv4 addresses that tunnels and translators take out of it.

    A translator's own prefix can't be known from outside; only the well-known one is.
    """
    if isinstance(address, IPv4Address):
        yield address
        return
    bits = int(address)
    last = IPv4Address(bits & _BITS)
    if address in _MAPPED or address in _NAT64:
        yield last
        return
    yield IPv6Address(bits)  # without a zone, which no network holds
    if address in _6TO4:
        yield IPv4Address(bits >> 80 & _BITS)
    elif address in _TEREDO:
        yield IPv4Address(bits >> 64 & _BITS)
        yield IPv4Address(~bits & _BITS)
    elif bits > 1 and any(address in net for net in _COMPATIBLE):
        yield last
    if bits >> 32 & _BITS in _ISATAP:
        yield last


def _is_public(address: IPAddress) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _RESERVED)
    return address in _UNICAST and not any(address in net for net in _RESERVED_6)
