"""Transports in pools, each with its IP: which of them carries a sender's mail, told by the sender alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

HOME = "default"  # the pool of senders whose stream has none


class Fleet:
    """Pools of transports as Postfix knows them, such as ``smtp-ip1`` or ``smtp-ip3:[relay.example]:25``.

    ``addresses`` are IPs by transport, ``ip`` that of every other one. Within a pool a transport is chosen by
    rendezvous hash: adding or removing one moves only the mail that comes to it or leaves it.
    """

    def __init__(self, pools: Mapping[str, Sequence[str]], addresses: Mapping[str, str], ip: str) -> None:
        self._pools = pools
        self._ip = ip
        self._ips = {
            transport: addresses.get(transport) or addresses.get(name_of(transport)) or ip
            for pool in pools.values()
            for transport in pool
        }

    @property
    def told(self) -> bool:
        """Whether the IP of a message can be told at all."""
        return bool(self._ip) or any(self._ips.values())

    @property
    def single(self) -> str:
        """The IP of all mail, where it is but one whatever the sender."""
        return "" if self._pools else self._ip

    def home(self, sender: str, stream: str) -> str:
        """The transport of a sender whose mail is of ``stream``; empty where no pool is for it."""
        pool = self._pools.get(stream) or self._pools.get(HOME, ())
        return max(pool, key=lambda transport: _weight(transport, sender), default="")

    def ranked(self, pool: str, key: str) -> list[str]:
        """The transports of a pool, the one that ``key`` draws first; none if there is no such pool."""
        return sorted(self._pools.get(pool, ()), key=lambda transport: _weight(transport, key), reverse=True)

    def ip_of(self, transport: str) -> str:
        """The IP from which a transport sends, empty if unknown; without a transport the one of all others."""
        return self._ips.get(transport, self._ip)


def name_of(transport: str) -> str:
    """The transport's name in ``master.cf``, without a next hop."""
    return transport.partition(":")[0]


def destination(transport: str) -> str:
    """What a map answers: ``smtp-ip3:``, or as it is where it names a next hop."""
    return transport if ":" in transport else f"{transport}:"


def _weight(transport: str, key: str) -> bytes:
    return blake2b(f"{transport}\0{key.lower()}".encode(), digest_size=8).digest()
