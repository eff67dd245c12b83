"""Four eyes: whether what a person wants to hold goes beyond what is held, or known to be bad, already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from monitor.core.leases import granted
from monitor.model import Action, Deed, Scope

HOLDING = (Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE)
LATELY = timedelta(hours=1)  # so that ending a narrow pause first is no way around


def widens(scope: Scope, known: Iterable[Scope]) -> Scope | None:
    """The first of the ``known`` scopes that ``scope`` covers and is wider than; None if it widens none.

    A stream that only ``scope`` names makes it no narrower: most pauses spare transactional mail, and one that is
    widened from a segment to its whole tenant is so whether it spares that or not.
    """
    return next((one for one in known if _wider(scope if one.stream else replace(scope, stream=""), one)), None)


def held_lately(actions: Iterable[Action], now: datetime) -> tuple[Scope, ...]:
    """What people or automation hold at ``now`` or held within the last hour, oldest first; an ``allow`` holds nothing.

    ``actions`` are those whose leases were in force at some time since then, and what resumed them.
    """
    log = [action for action in actions if action.at <= now]
    resumed = {action.lease for action in log if action.deed is Deed.RESUME and action.at <= now - LATELY}
    leases = (granted(action) for action in log if action.deed in HOLDING)
    return tuple(lease.scope for lease in leases if lease and lease.until > now - LATELY and lease.id not in resumed)


def _wider(scope: Scope, known: Scope) -> bool:
    return scope != known and scope.covers(known)
