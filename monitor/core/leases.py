"""Which leases are in force, and what they say of a message: a pure fold over the audit log (ADR 2, 3, 9)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime

from monitor.model import SEND, Action, Answer, Deed, Lease, Scope, named

GRANTING = (Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE, Deed.ALLOW)
_SEVERITY = {deed: place for place, deed in enumerate(GRANTING)}
Rank = tuple[int, int, float, int]


def granted(action: Action) -> Lease | None:
    """The lease that an action grants; None if it grants none (a resume or a refusal)."""
    if action.deed not in GRANTING or action.until is None:
        return None
    return Lease(
        id=action.id,
        deed=action.deed,
        scope=action.scope,
        since=action.at,
        until=action.until,
        who=action.who,
        why=action.why,
        share=action.share,
        pool=action.pool,
        incident=action.incident,
        seq=action.seq,
    )


def active(actions: Iterable[Action], now: datetime) -> tuple[Lease, ...]:
    """The leases in force at ``now``, oldest first: granted, begun, not at their end, not resumed."""
    log = [action for action in actions if action.at <= now]
    resumed = {action.lease for action in log if action.deed is Deed.RESUME}
    found = (granted(action) for action in log)
    return tuple(lease for lease in found if lease and lease.until > now and lease.id not in resumed)


def ended(actions: Iterable[Action], now: datetime) -> int:
    """How many of the leases ever granted are over at ``now``; it never falls as time goes on or the log grows."""
    log = [action for action in actions if action.at <= now]
    return sum(granted(action) is not None for action in log) - len(active(log, now))


def generation(entries: int, over: int) -> int:
    """A number that moves with every entry of the log and every end of a lease (``over``), and never falls."""
    return entries + over


def rank(lease: Lease) -> Rank:
    """Of the leases that cover a message the one of the lowest rank decides (ADR 9).

    A person's lease comes first, of several the narrowest, among equals the newer. Then automation's pause, then its
    lowest share, then a reroute.
    """
    if lease.by_person:
        return 0, -len(named(lease.scope)), 0.0, -lease.seq
    return 1, _SEVERITY[lease.deed], lease.share, -lease.seq


def decided(lease: Lease | None, key: str = "") -> Answer:
    """What the deciding lease says of the message that ``key`` names: the same key gets the same answer.

    A message without a key may pass a throttle: its sender is told the share and can draw for itself.
    """
    if lease is None:
        return SEND
    if lease.deed is Deed.THROTTLE:
        return Answer(held=_draw(lease.id, key) >= lease.share, lease=lease)
    return Answer(held=lease.deed is Deed.PAUSE, lease=lease)


def answer(leases: Iterable[Lease], message: Scope, key: str = "") -> Answer:
    """What the leases in force say of a message with the labels ``message``."""
    return decided(min((lease for lease in leases if lease.scope.covers(message)), key=rank, default=None), key)


def spares(holes: Sequence[Lease], holding: Lease, message: Scope, knows: frozenset[str]) -> bool:
    """Whether a hole might let a message pass that ``holding`` holds, for all that can be told by labels in ``knows``.

    ``holes`` are people's leases that let mail pass. One that names a label beyond ``knows`` might cover the message.
    """
    return any(rank(hole) < rank(holding) and _could_cover(hole.scope, message, knows) for hole in holes)


def _could_cover(scope: Scope, message: Scope, knows: frozenset[str]) -> bool:
    names = named(scope)
    beyond = names.keys() - knows
    return bool(beyond) and all(getattr(message, name) == value for name, value in names.items() if name not in beyond)


def _draw(lease: str, key: str) -> float:
    """A number in [0, 1) that depends on the lease and the message alone."""
    if not key:
        return 0.0
    digest = hashlib.blake2b(f"{lease}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
