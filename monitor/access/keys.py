"""Keys of machines: how they are made, known, rotated and ended.

A key's text is ``mv_ID_SECRET``. The id may be shown; the secret is 256 random bits and a check sum. Of the text its
plain SHA-256 is kept: a hash that is slow protects what people choose, which can be guessed. Nobody guesses 256 bits at
any speed, and this one is worked out before each answer to a sender.
"""

from __future__ import annotations

import logging
import re
import secrets
import string
import threading
import zlib
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

FRESH = 0.5  # seconds for which what was read of the ledger is believed, so that a revoked key ends within one
EXPIRES, LONGEST = timedelta(days=365), timedelta(days=3650)
OVERLAP, LONGEST_OVERLAP = timedelta(hours=24), timedelta(days=90)
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # of an id: none that looks like another
_DIGITS = string.digits + string.ascii_letters  # of a secret: a double click takes all of it
_SECRET, _CHECK = 43, 6  # digits: 43 hold 256 bits, 6 a CRC-32
SHAPE = re.compile(rf"mv_[{_LETTERS}]{{8}}_[0-9A-Za-z]{{{_SECRET + _CHECK}}}")
_MINUTE = timedelta(minutes=1)


class NoKeyError(UserError):
    """There is no key of that id in force."""


class Keys:
    """The keys in the ledger; safe to use from many threads, and with an engine that only reads.

    While the ledger can't be read, what was known goes on: a sender must not stand still for it.
    """

    def __init__(self, ledger: Engine) -> None:
        self._ledger = ledger
        self._known: Mapping[bytes, Key] = {}
        self._version: tuple[int, int] | None = None  # of what was read; None: nothing yet
        self._tried = float("-inf")
        self._readable = True
        self._reading = threading.Lock()
        self._used: dict[str, datetime] = {}
        self._new: dict[str, datetime] = {}

    def find(self, text: str, now: datetime) -> Key | None:
        """The key of that text, if it is in force."""
        if not SHAPE.fullmatch(text):
            return None
        # Found by a digest: how long that takes tells nothing of any text.
        key = self._fresh().get(digest(text))
        return key if key and key.in_force(now) else None

    def refresh(self) -> None:
        """Read what is new: for who does so often beside the questions, so that none of them waits for a disk."""
        with self._reading:
            self._read()

    def anew(self) -> None:
        """Read the ledger at the next question."""
        self._tried = float("-inf")

    def use(self, name: str, now: datetime) -> None:
        """Note that the key of that id was used; to the minute is enough."""
        before = self._used.get(name)
        if before is None or not timedelta() <= now - before < _MINUTE:
            self._used[name] = self._new[name] = now

    def taken(self) -> dict[str, datetime]:
        """What was noted since the last call, by id."""
        noted, self._new = self._new, {}
        return noted

    def _fresh(self) -> Mapping[bytes, Key]:
        # One reads, and others go on with what is known; the very first must wait for it.
        if self._stale() and self._reading.acquire(blocking=self._version is None):
            try:
                if self._stale():
                    self._read()
            finally:
                self._reading.release()
        return self._known

    def _stale(self) -> bool:
        return monotonic() - self._tried > FRESH

    def _read(self) -> None:
        try:
            with self._ledger.connect().execution_options(reads=True) as conn:
                version = keys.version(conn)
                if version != self._version:
                    self._known, self._version = keys.known(conn), version
            self._readable = True
        except SQLAlchemyError as error:
            if self._readable:  # once a change, not each time
                log.warning("keys not readable, those known go on", extra={"error": type(error).__name__})
            self._readable = False
        finally:
            self._tried = monotonic()  # only now: whoever asks meanwhile must not take nothing for the answer


def digest(text: str) -> bytes:
    """What is kept of a key's text."""
    return sha256(text.encode()).digest()


def mistyped(text: str) -> bool:
    """Whether no key was ever written so: another shape, or the check sum does not fit the rest."""
    return not SHAPE.fullmatch(text) or _checked(text[:-_CHECK]) != text


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
        UserError: a name, a right, a tenant or a time that makes no sense.
    """
    wanted = frozenset(rights)
    if not _worded(name, 100):
        raise UserError("a key needs a name of 1 to 100 characters: say who will hold it")
    if tenant and not _worded(tenant, 200):
        raise UserError("a tenant has 1 to 200 characters: write it as your events do")
    if not wanted:
        raise UserError(f"a key without scopes opens nothing: name some out of {', '.join(Right)}")
    if tenant and (beyond := wanted - TENANTS):
        raise UserError(f"a seller's key can't have {', '.join(sorted(beyond))}: only {', '.join(sorted(TENANTS))}")
    if expires is not None and not timedelta(0) < expires <= LONGEST:
        raise UserError(f"a key expires after {LONGEST.days} days at the latest, or never: choose a time until then")
    text, identity = _drawn()
    key = Key(identity, name.strip(), wanted, tenant, now, by, None if expires is None else now + expires)
    keys.add(conn, key, digest(text))
    _note(conn, now, by, "key made", key)
    return text, key


def rotate(
    conn: Connection, name: str, *, now: datetime, by: str, overlap: timedelta = OVERLAP
) -> tuple[str, Key, Key]:
    """A successor of the key of id ``name`` (its text, and what is known of it), and the old one as it is then.

    The successor has the same rights and lasts as long as the old one was to; that one ends after ``overlap``.

    Raises:
        NoKeyError: there is no such key in force.
        UserError: it has a successor, or the overlap is too long.
    """
    old = _in_force(conn, name, now)
    if old.successor:
        raise UserError(f"{old.id} was rotated already: rotate {old.successor}, or make a new key")
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise UserError(f"two keys stand beside each other for {LONGEST_OVERLAP.days} days at most")
    text, identity = _drawn()
    key = replace(
        old,
        id=identity,
        made_at=now,
        made_by=by,
        expires_at=now + (old.expires_at - old.made_at) if old.expires_at else None,
        last_used=None,
    )
    keys.add(conn, key, digest(text))
    ends = min(now + overlap, old.expires_at or now + overlap)
    keys.succeed(conn, old.id, key.id, ends)
    _note(conn, now, by, f"key rotated from {old.id}", key)
    return text, key, replace(old, successor=key.id, expires_at=ends)


def revoke(conn: Connection, name: str, *, now: datetime, by: str) -> Key:
    """End the key of id ``name``, now.

    Raises:
        NoKeyError: there is no such key in force.
    """
    key = _in_force(conn, name, now)
    keys.revoke(conn, key.id, now)
    _note(conn, now, by, "key revoked", key)
    return key


def _in_force(conn: Connection, name: str, now: datetime) -> Key:
    key = keys.one(conn, name)
    if key is None:
        raise NoKeyError(f"there is no key {name[:40]!r}: see mailvane keys list")
    if not key.in_force(now):
        raise NoKeyError(f"the key {key.id} has ended already: see mailvane keys list --all")
    return key


def _drawn() -> tuple[str, str]:
    identity = "".join(secrets.choice(_LETTERS) for _ in range(8))
    return _checked(f"mv_{identity}_{_written(secrets.randbits(256), _SECRET)}"), identity


def _checked(text: str) -> str:
    """With the check sum by which scanners and people see that it is whole."""
    return text + _written(zlib.crc32(text.encode()), _CHECK)


def _written(number: int, length: int) -> str:
    found = ""
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        found = _DIGITS[digit] + found
    return found


def _worded(text: str, most: int) -> bool:
    return bool(text.strip()) and len(text) <= most and text.isprintable()


def _note(conn: Connection, now: datetime, by: str, did: str, key: Key) -> None:
    details = {
        "name": key.name,
        "scopes": sorted(key.rights),
        "tenant": key.tenant,
        "expires": key.expires_at.isoformat() if key.expires_at else None,
    }
    access_log.append(conn, Entry(now, by, did, key.id, "done", details))
