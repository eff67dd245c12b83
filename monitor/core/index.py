"""Leases compiled for questions: what an answer costs does not depend on how many leases there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from monitor.core.leases import rank
from monitor.model import LABELS, OWNED, Deed, Lease, labels

Names = tuple[str, ...]  # a message's labels in the order of LABELS
REMEMBERED = 20_000  # questions of each kind whose answer is kept until the leases change
_TENANT = LABELS.index("tenant")
_ANYBODYS = [place for place, name in enumerate(LABELS) if name not in ("tenant", *OWNED)]
_anybodys = itemgetter(*_ANYBODYS)


class Index:
    """Leases by the labels that they name. One thread changes it, any may ask it.

    Leases that name a tenant stand under him: of most messages the tenant has none, and then only the few labels that
    do not depend on tenants matter. A change is seen lease by lease. ``holes`` are people's leases that let mail pass.
    """

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self.leases: dict[str, Lease] = {}  # by id, in the order in which they were granted
        self.holes: tuple[Lease, ...] = ()
        self._tenants: dict[str, _Shapes] = {}
        self._rest = _Shapes()
        self._known: tuple[dict[Any, tuple[Lease, ...]], dict[Names, tuple[Lease, ...]]] = {}, {}
        self.change(leases, ())

    def change(self, granted: Iterable[Lease], over: Iterable[str]) -> None:
        """Take leases in and, by id, out."""
        changed = [*granted]
        for lease in changed:
            self.leases[lease.id] = lease
            self._shapes(lease).put(lease)
        for gone in [self.leases[name] for name in over if name in self.leases]:
            del self.leases[gone.id]
            self._shapes(gone).drop(gone)
            changed.append(gone)
        if any(_hole(lease) for lease in changed):
            self.holes = tuple(lease for lease in self.leases.values() if _hole(lease))
        for tenant in {lease.scope.tenant for lease in changed}:
            if tenant and self._tenants[tenant].empty:
                del self._tenants[tenant]
        # Other objects rather than emptied ones: whoever is reading the old leases writes into the old memory.
        self._known = {}, {}

    def covering(self, message: Names) -> tuple[Lease, ...]:
        """The leases whose scope covers the message, the deciding one first."""
        of_rest, of_all = self._known
        shapes = self._tenants.get(message[_TENANT])
        if shapes is None:
            name = _anybodys(message)
            if (found := of_rest.get(name)) is None:
                found = _keep(of_rest, name, self._rest.covering(message))
        elif (found := of_all.get(message)) is None:
            found = _keep(of_all, message, [*self._rest.covering(message), *shapes.covering(message)])
        return found

    def _shapes(self, lease: Lease) -> _Shapes:
        tenant = lease.scope.tenant
        if not tenant:
            return self._rest
        if tenant not in self._tenants:
            self._tenants[tenant] = _Shapes()
        return self._tenants[tenant]


class _Shapes:
    """Leases by which labels they name, then by the values of those."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, ...], tuple[Callable[[Names], Any], dict[Any, dict[str, Lease]]]] = {}

    @property
    def empty(self) -> bool:
        return not self._held

    def covering(self, message: Names) -> list[Lease]:
        found: list[Lease] = []
        for pick, held in tuple(self._held.values()):
            if leases := held.get(pick(message)):
                found += leases.values()
        return found

    def put(self, lease: Lease) -> None:
        shape, values = _shape(lease)
        if shape not in self._held:
            self._held[shape] = (itemgetter(*shape) if shape else _nothing), {}
        pick, held = self._held[shape]
        held.setdefault(pick(values), {})[lease.id] = lease

    def drop(self, lease: Lease) -> None:
        shape, values = _shape(lease)
        pick, held = self._held[shape]
        name = pick(values)
        del held[name][lease.id]
        if not held[name]:
            del held[name]
        if not held:
            del self._held[shape]


def _keep(known: dict[Any, tuple[Lease, ...]], name: Any, found: list[Lease]) -> tuple[Lease, ...]:
    if len(known) >= REMEMBERED:
        known.clear()
    kept = known[name] = tuple(sorted(found, key=rank) if len(found) > 1 else found)
    return kept


def _shape(lease: Lease) -> tuple[tuple[int, ...], Names]:
    values = labels(lease.scope)
    return tuple(place for place, value in enumerate(values) if value), values


def _nothing(_message: Names) -> tuple[()]:
    return ()


def _hole(lease: Lease) -> bool:
    return lease.by_person and lease.deed is not Deed.PAUSE
