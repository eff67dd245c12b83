"""A key as it is shown, by the API and by the command line alike: all but its text, which stands nowhere."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from monitor.api.words import stamp
from monitor.ledger.keys import Key

SOON, UNUSED = timedelta(days=14), timedelta(days=90)


def told(key: Key, now: datetime) -> dict[str, Any]:
    """The JSON of a key."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.rights),
        "tenant": key.tenant or None,
        "made": stamp(key.made_at),
        "made_by": key.made_by,
        "expires": stamp(key.expires_at),
        "revoked": stamp(key.revoked_at),
        "last_used": stamp(key.last_used),
        "successor": key.successor or None,
        "in_force": key.in_force(now),
        "state": state(key, now),
        "warning": warning(key, now) or None,
    }


def state(key: Key, now: datetime) -> str:
    """In force, rotated (in force until its end), expired or revoked."""
    if key.revoked_at:
        return "revoked"
    if not key.in_force(now):
        return "expired"
    return "rotated" if key.successor else "in force"


def warning(key: Key, now: datetime) -> str:
    """What somebody should do about it; nothing where all is well."""
    if not key.in_force(now):
        return ""
    if key.expires_at and key.expires_at - now < SOON and not key.successor:
        return "expires soon: rotate it"
    if now - (key.last_used or key.made_at) > UNUSED:
        return f"not used for {UNUSED.days} days: revoke it"
    return ""
