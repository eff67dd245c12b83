"""Public keys of signing domains, asked from name servers and kept as long as these say (RFC 6376 section 3.6)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from threading import Lock

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdataclass
import dns.rdatatype
import dns.resolver

TIMEOUT = timedelta(seconds=3)  # one name server
LIFETIME = timedelta(seconds=6)  # one question, to however many
KEPT = 1_000  # names
RECORD = 4_096  # bytes of a key's record; RSA of 8,192 bits has 1,500
_LEAST, _LONGEST, _ABSENT = timedelta(minutes=1), timedelta(days=1), timedelta(hours=1)
_AGAIN = timedelta(seconds=30)  # after a failure: a name server that is away is not waited for at each letter
_RECORDS = 20  # TXT records at one name
_WHILE = timedelta(minutes=1)
_QUICK = 0.1  # seconds that an answer may take, and cost nothing


class Unreachable(Exception):  # noqa: N818 - it passes, and is no error
    """No name server tells at the moment whether there is such a key."""


@dataclass(frozen=True, slots=True)
class _Known:
    records: tuple[bytes, ...] | None
    until: datetime


class Keys:
    """Key records by name. ``resolvers`` are "host" or "host:port" of name servers; none: those of the system.

    Hosts are addresses, in brackets where a port follows an IPv6 one. ``patience`` is how long slow name servers, all
    together, are waited for in a minute; after that nobody is asked until it is over. One object may be used by many
    threads.

    Raises:
        ValueError: a resolver is no address, or its port no port.
    """

    def __init__(
        self, resolvers: Sequence[str] = (), timeout: timedelta = TIMEOUT, patience: timedelta | None = None
    ) -> None:
        self._servers = [dns.nameserver.Do53Nameserver(*endpoint(text)) for text in resolvers]
        self._timeout = timeout.total_seconds()
        self._lifetime = max(timeout, min(timeout * 2, LIFETIME)).total_seconds()
        self._patience = patience.total_seconds() if patience else None
        self._waited, self._since = 0.0, datetime.min.replace(tzinfo=UTC)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = Lock()

    def at(self, name: str, now: datetime) -> tuple[bytes, ...]:
        """The TXT records of a name, () where it has none.

        Raises:
            Unreachable: the name servers fail, don't answer in time, or did so too often of late.
        """
        name = name.lower().rstrip(".")
        with self._lock:
            known = self._known.get(name)
            if not self._since <= now < self._since + _WHILE:
                self._since, self._waited = now, 0.0
            tired = self._patience is not None and self._waited >= self._patience
        if known is None or known.until <= now:
            if tired:
                raise Unreachable
            known = self._ask(name, now)
            with self._lock:
                self._known[name] = known
                self._known.move_to_end(name)
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
        if known.records is None:
            raise Unreachable
        return known.records

    def _ask(self, name: str, now: datetime) -> _Known:
        try:
            answer = self._resolver().resolve(
                dns.name.from_text(name),
                dns.rdatatype.TXT,
                search=False,
                raise_on_no_answer=False,
                lifetime=self._lifetime,
            )
        except dns.resolver.NXDOMAIN as absent:
            self._wait(sum(one.time for one in _responses(absent)))
            return _Known((), now + _kept(_shortest(absent), _ABSENT))
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel, dns.name.BadEscape, UnicodeError):
            return _Known((), now + _ABSENT)  # no name at all
        except (dns.exception.DNSException, OSError, ValueError):
            self._wait(self._lifetime)
            return _Known(None, now + _AGAIN)
        self._wait(answer.response.time)
        ttl = int(answer.chaining_result.minimum_ttl)
        if answer.rrset is None:
            return _Known((), now + _kept(ttl, _ABSENT))
        texts = tuple(b"".join(record.strings)[: RECORD + 1] for record in list(answer.rrset)[:_RECORDS])
        return _Known(texts, now + _kept(ttl, _LONGEST))

    def _wait(self, seconds: float) -> None:
        with self._lock:
            self._waited += seconds if seconds > _QUICK else 0.0

    def _resolver(self) -> dns.resolver.Resolver:
        resolver = dns.resolver.Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = list(self._servers)
        resolver.timeout = self._timeout
        resolver.use_edns(0, 0, 1232)
        return resolver


def endpoint(text: str) -> tuple[str, int]:
    """Address and port of a name server written "192.0.2.53", "192.0.2.53:5353" or "[2001:db8::53]:53".

    Raises:
        ValueError: it is none of these.
    """
    host, port = text.strip(), "53"
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        port = port.removeprefix(":") or "53"
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    try:
        host = str(ip_address(host))
        number = int(port)
    except ValueError:
        raise ValueError(
            f"{text!r} is no name server: write its address, such as 192.0.2.53 or 192.0.2.53:5353"
        ) from None
    if not 0 < number < 65_536:
        raise ValueError(f"{text!r} has no port: it is a number from 1 to 65535")
    return host, number


def _shortest(absent: dns.resolver.NXDOMAIN) -> int:
    """For how many seconds a name is known not to be there (RFC 2308 section 5)."""
    return min((response.resolve_chaining().minimum_ttl for response in _responses(absent)), default=0)


def _responses(absent: dns.resolver.NXDOMAIN) -> list[dns.message.QueryMessage]:
    return [response for response in absent.kwargs.get("responses", {}).values() if response is not None]


def _kept(ttl: int, most: timedelta) -> timedelta:
    return min(max(timedelta(seconds=min(max(ttl, 0), 86_400)), _LEAST), most)
