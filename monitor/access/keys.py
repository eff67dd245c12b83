"""Keys of machines: how they are made, known, rotated and ended.

A key's text is ``mv_ID_SECRET``. The id may be shown; the secret is 256 random bits, so that a plain SHA-256 of the
text is all that need be kept: there is nothing that one could guess, and so nothing that a slow hash would make dearer.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from time import monotonic

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from monitor.caller import TENANTS, Right
from monitor.errors import UserError
from monitor.ledger import access_log, keys
from monitor.ledger.access_log import Entry
from monitor.ledger.keys import Key

log = logging.getLogger(__name__)

PREFIX = "mv_"
LONGEST = 100  # characters of a key
FRESH = 1.0  # seconds for which what was read of the ledger is believed
EXPIRES = timedelta(days=365)
OVERLAP = timedelta(hours=24)
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that looks like another
_MINUTE = timedelta(minutes=1)


class Keys:
    """The keys in the ledger; safe to use from many threads, and with an engine that only reads.

    While the ledger can't be read, what was known goes on: a sender must not stand still for it.
    """

    def __init__(self, ledger: Engine) -> None:
        self._ledger = ledger
        self._known: Mapping[bytes, Key] = {}
        self._until = -1.0
        self._reading = threading.Lock()
        self._used: dict[str, datetime] = {}

    def find(self, text: str, now: datetime) -> Key | None:
        """The key of that text, if it is in force."""
        if not text.startswith(PREFIX) or len(text) > LONGEST:
            return None
        # Found by a digest: how long that takes tells nothing of any text.
        key = self._fresh().get(sha256(text.encode()).digest())
        return key if key and key.in_force(now) else None

    def use(self, name: str, now: datetime) -> None:
        """Note that the key of that id was used; to the minute is enough."""
        before = self._used.get(name)
        if before is None or now - before >= _MINUTE:
            self._used[name] = now

    def taken(self) -> dict[str, datetime]:
        """What was noted since the last call, by id."""
        noted, self._used = self._used, {}
        return noted

    def _fresh(self) -> Mapping[bytes, Key]:
        if monotonic() > self._until and self._reading.acquire(blocking=not self._known):
            try:
                with self._ledger.connect().execution_options(reads=True) as conn:
                    self._known = keys.known(conn)
            except SQLAlchemyError as error:
                log.warning("keys not readable, those known go on", extra={"error": type(error).__name__})
            finally:
                self._until = monotonic() + FRESH
                self._reading.release()
        return self._known


def make(
    conn: Connection,
    name: str,
    rights: Collection[Right],
    *,
    tenant: str = "",
    now: datetime,
    by: str,
    expires: timedelta | None = EXPIRES,
) -> tuple[str, Key]:
    """A new key's text, which stands nowhere else, and what is known of it. ``expires`` None: never.

    Raises:
        UserError: a name, a right or a tenant that makes no sense.
    """
    wanted = frozenset(rights)
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise UserError("a key needs a name of 1 to 100 characters: say who will hold it")
    if not wanted:
        raise UserError(f"a key without scopes opens nothing: name some out of {', '.join(Right)}")
    if tenant and (beyond := wanted - TENANTS):
        raise UserError(f"a seller's key can't have {', '.join(sorted(beyond))}: only {', '.join(sorted(TENANTS))}")
    if expires is not None and expires <= timedelta(0):
        raise UserError("the key would have ended before it began: let it expire later")
    text, identity = _drawn()
    key = Key(identity, name.strip(), wanted, tenant, now, by, None if expires is None else now + expires)
    keys.add(conn, key, sha256(text.encode()).digest())
    _note(conn, now, by, "key made", key)
    return text, key


def rotate(
    conn: Connection, name: str, *, now: datetime, by: str, overlap: timedelta = OVERLAP, expires: timedelta = EXPIRES
) -> tuple[str, Key]:
    """A successor of the key of id ``name``, with the same rights; the old one ends after ``overlap``.

    Raises:
        UserError: there is no such key in force.
    """
    old = _in_force(conn, name, now)
    text, identity = _drawn()
    key = replace(
        old,
        id=identity,
        made_at=now,
        made_by=by,
        expires_at=now + expires,
        last_used=None,
        successor="",
        revoked_at=None,
    )
    keys.add(conn, key, sha256(text.encode()).digest())
    ends = now + max(overlap, timedelta(0))
    keys.succeed(conn, old.id, key.id, min(ends, old.expires_at) if old.expires_at else ends)
    _note(conn, now, by, f"key rotated from {old.id}", key)
    return text, key


def revoke(conn: Connection, name: str, *, now: datetime, by: str) -> Key:
    """End the key of id ``name``, now.

    Raises:
        UserError: there is no such key in force.
    """
    key = _in_force(conn, name, now)
    keys.revoke(conn, key.id, now)
    _note(conn, now, by, "key revoked", key)
    return key


def _in_force(conn: Connection, name: str, now: datetime) -> Key:
    key = keys.one(conn, name)
    if key is None:
        raise UserError(f"there is no key {name[:40]!r}: see mailvane keys list")
    if not key.in_force(now):
        raise UserError(f"the key {key.id} has ended already")
    return key


def _drawn() -> tuple[str, str]:
    identity = "".join(secrets.choice(_LETTERS) for _ in range(8))
    return f"{PREFIX}{identity}_{secrets.token_urlsafe(32)}", identity


def _note(conn: Connection, now: datetime, by: str, did: str, key: Key) -> None:
    details = {
        "name": key.name,
        "scopes": sorted(key.rights),
        "tenant": key.tenant,
        "expires": key.expires_at.isoformat() if key.expires_at else None,
    }
    access_log.append(conn, Entry(now, by, did, key.id, "done", details))
