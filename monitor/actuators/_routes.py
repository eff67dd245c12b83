"""Where a message goes, as Postfix's maps ask it: one address at a time, never a whole message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from monitor.actuators._envelope import LONGEST, Envelope, Told
from monitor.actuators._fleet import Fleet, destination
from monitor.actuators._words import waiting
from monitor.model import Answer, Deed
from monitor.ports import Current


class Routes:
    """The two tables behind both map servers.

    ``find[table](address)`` is a destination such as ``smtp-ip3:`` or ``retry:…``, or empty: not found. A throttle
    passes: the policy service draws for it, and to draw a second time would hold what may pass.
    """

    def __init__(self, envelope: Envelope, fleet: Fleet, current: Current) -> None:
        self._envelope, self._fleet, self._current = envelope, fleet, current
        self.find: dict[str, Callable[[str], str]] = {"recipients": self.recipients, "senders": self.senders}

    def recipients(self, address: str) -> str:
        """For ``transport_maps``: held or another transport by the recipient's provider, else not found."""
        if not _whole(address):
            return ""
        told = self._envelope.recipient(address)
        # This map is asked for all mail, incoming and local too: it speaks of providers that we know, and of no other.
        return self._routed(told, address) if told.scope.provider else ""

    def senders(self, address: str) -> str:
        """For ``sender_dependent_default_transport_maps``: held, another pool, or the sender's own transport."""
        if not _whole(address):
            return ""
        home = self._envelope.home(address)
        return self._routed(self._envelope.sender(address), address) or (destination(home) if home else "")

    def _routed(self, told: Told, address: str) -> str:
        said = self._check(told)
        if said.lease is None or said.lease.deed is Deed.THROTTLE:
            return ""
        if said.held:
            return waiting(said.lease)
        return self._moved(told, said.lease.pool, address) if said.lease.deed is Deed.REROUTE else ""

    def _moved(self, told: Told, pool: str, address: str) -> str:
        """The pool's first transport whose own IP is not held; held where each one's is."""
        found = ""
        for transport in self._fleet.ranked(pool, address):
            ip = self._fleet.ip_of(transport)
            there = Told(replace(told.scope, ip=ip), told.knows | {"ip"})
            said = self._check(there) if ip else None
            if said is None or not said.held or said.lease is None:
                return destination(transport)
            found = found or waiting(said.lease)
        return found

    def _check(self, told: Told) -> Answer:
        return self._current.check(told.scope, knows=told.knows)


def _whole(address: str) -> bool:
    """Postfix asks for domains, "@domain" and "*" too; those name no recipient and no sender."""
    local, _, domain = address.rpartition("@")
    return bool(local and domain) and len(address) <= LONGEST
