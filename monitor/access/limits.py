"""How much one caller may ask for: requests a time, requests at once, and wrong keys before its address must wait."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import limits
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from monitor.settings import Access

CHECKS = "20000/second"  # of one sender: a question costs a hundredth of a millisecond, and stands before each mail
WRONG = "10/minute"  # keys that are none, of one address
_NET6 = 64  # bits: who has one address of IPv6 has its whole network


class Limits:
    """The counters, in memory: what a restart forgets is less than a minute old."""

    def __init__(self, settings: Access) -> None:
        memory = MemoryStorage()
        self._windows, self._seconds = SlidingWindowCounterRateLimiter(memory), FixedWindowRateLimiter(memory)
        self._key, self._address = limits.parse(settings.key_rate), limits.parse(settings.address_rate)
        self._checks, self._wrong = limits.parse(CHECKS), limits.parse(WRONG)
        self._at_once = settings.at_once
        self._under_way: dict[str, int] = {}

    def asked(self, who: str, *, known: bool, check: bool) -> int:
        """Count a request; the seconds to wait if it is one too many, else 0."""
        if check:  # counted by whole seconds, which takes a third of the time; so many are far from any edge
            return 0 if self._seconds.hit(self._checks, "asked", who) else self._checks.get_expiry()
        item = self._key if known else self._address
        return 0 if self._windows.hit(item, "asked", who) else item.get_expiry()

    def wrong(self, address: str) -> None:
        """Count a key that is none."""
        self._windows.hit(self._wrong, "wrong", address)

    def locked(self, address: str) -> int:
        """The seconds that an address must wait which showed too many wrong keys, else 0."""
        return 0 if self._windows.test(self._wrong, "wrong", address) else self._wrong.get_expiry()

    @contextmanager
    def under_way(self, who: str) -> Iterator[bool]:
        """Whether one more request of ``who`` may be under way until the block ends."""
        count = self._under_way.get(who, 0)
        if count >= self._at_once:
            yield False
            return
        self._under_way[who] = count + 1
        try:
            yield True
        finally:
            left = self._under_way[who] - 1
            if left:
                self._under_way[who] = left
            else:
                del self._under_way[who]


@lru_cache(4096)
def network(address: str) -> str:
    """What of an address is counted as one: it itself, or its network in IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _NET6), strict=False))
    return str(found)
