"""Which leases are in force, and what they say of a message: a pure fold over the audit log (ADR 2, 3, 9)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from monitor.model import Action, Deed, Lease, Scope, labels

GRANTING = (Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE, Deed.ALLOW)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender of one message is told; ``lease`` is what decided it, None when no lease applies."""

    held: bool
    lease: Lease | None = None


SEND = Answer(held=False)


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


def generation(last_seq: int, over: int) -> int:
    """A number that moves with every entry of the log (``last_seq``) and every end of a lease (``over``)."""
    return last_seq + over


def answer(leases: Sequence[Lease], message: Scope, key: str = "") -> Answer:
    """What the leases in force say of a message with the labels ``message``.

    A person's lease comes first, of several the narrowest, among equals the newer. Then automation's pause, then its
    lowest share, then a reroute. ``key`` names the message: the same key gets the same answer under a throttle. A
    message without a key may pass a throttle: its sender is told the share and can draw for itself.
    """
    mine = [lease for lease in leases if lease.scope.covers(message)]
    if not mine:
        return SEND
    people = [lease for lease in mine if lease.by_person]
    lease = max(people, key=_narrow) if people else min(mine, key=_severe)
    match lease.deed:
        case Deed.PAUSE:
            return Answer(held=True, lease=lease)
        case Deed.THROTTLE:
            return Answer(held=_draw(lease.id, key) >= lease.share, lease=lease)
        case _:
            return Answer(held=False, lease=lease)


def _narrow(lease: Lease) -> tuple[int, int]:
    return sum(1 for label in labels(lease.scope) if label), lease.seq


def _severe(lease: Lease) -> tuple[int, float, int]:
    order = {Deed.PAUSE: 0, Deed.THROTTLE: 1, Deed.REROUTE: 2, Deed.ALLOW: 3}
    return order[lease.deed], lease.share, -lease.seq


def _draw(lease: str, key: str) -> float:
    """A number in [0, 1) that depends on the lease and the message alone."""
    if not key:
        return 0.0
    digest = hashlib.blake2b(f"{lease}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
