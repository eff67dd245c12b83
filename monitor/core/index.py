"""Leases compiled for questions: an answer costs the number of label shapes in use, not the number of leases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from monitor.core.leases import rank
from monitor.model import Deed, Lease, labels

Names = tuple[str, ...]  # a message's labels in the order of LABELS
REMEMBERED = 50_000  # questions whose answer is kept until the leases change: about 20 MB


class Index:
    """Leases by the labels that they name. One thread changes it, any may ask it.

    A change is seen lease by lease. ``holes`` are people's leases that let mail pass.
    """

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self.leases: dict[str, Lease] = {}  # by id, in the order in which they were granted
        self.holes: tuple[Lease, ...] = ()
        self._shapes: dict[tuple[int, ...], tuple[Callable[[Names], Any], dict[Any, dict[str, Lease]]]] = {}
        self._known: dict[Names, tuple[Lease, ...]] = {}
        self.change(leases, ())

    def change(self, granted: Iterable[Lease], over: Iterable[str]) -> None:
        """Take leases in and, by id, out."""
        changed = [*granted]
        for lease in changed:
            self._put(lease)
        for gone in [self.leases[name] for name in over if name in self.leases]:
            self._drop(gone)
            changed.append(gone)
        if any(_hole(lease) for lease in changed):
            self.holes = tuple(lease for lease in self.leases.values() if _hole(lease))
        # Another object rather than an emptied one: whoever is reading the old leases writes into the old memory.
        self._known = {}

    def covering(self, message: Names) -> tuple[Lease, ...]:
        """The leases whose scope covers the message, the deciding one first."""
        known = self._known
        if (found := known.get(message)) is None:
            if len(known) >= REMEMBERED:
                known.clear()
            found = known[message] = self._search(message)
        return found

    def _search(self, message: Names) -> tuple[Lease, ...]:
        found: list[Lease] = []
        for pick, held in tuple(self._shapes.values()):
            if leases := held.get(pick(message)):
                found += leases.values()
        return tuple(sorted(found, key=rank)) if found else ()

    def _put(self, lease: Lease) -> None:
        shape, values = _shape(lease)
        pick, held = self._shapes.setdefault(shape, (itemgetter(*shape) if shape else _nothing, {}))
        held.setdefault(pick(values), {})[lease.id] = lease
        self.leases[lease.id] = lease

    def _drop(self, lease: Lease) -> None:
        shape, values = _shape(lease)
        pick, held = self._shapes[shape]
        name = pick(values)
        del self.leases[lease.id], held[name][lease.id]
        if not held[name]:
            del held[name]
        if not held:
            del self._shapes[shape]


def _shape(lease: Lease) -> tuple[tuple[int, ...], Names]:
    values = labels(lease.scope)
    return tuple(place for place, value in enumerate(values) if value), values


def _nothing(_message: Names) -> tuple[()]:
    return ()


def _hole(lease: Lease) -> bool:
    return lease.by_person and lease.deed is not Deed.PAUSE
