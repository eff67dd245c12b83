"""Who is signed in. A cookie is 256 random bits, so a plain SHA-256 of it is all that the ledger need keep."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from time import monotonic

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from monitor.caller import Role
from monitor.ledger import sessions
from monitor.ledger.sessions import Session

log = logging.getLogger(__name__)

COOKIE = "mailvane_session"
COOKIES = (f"__Host-{COOKIE}", COOKIE)  # the first where browsers come by HTTPS: no other host can set that one
IDLE = timedelta(hours=12)
LASTS = timedelta(days=7)
FRESH = 0.5  # seconds for which what was read of the ledger is believed: an ended session must be over within one
BLIND = 30.0  # seconds for which it is believed while the ledger can't be read: then nobody is signed in
MOST = 20  # sessions of one person; the oldest ends
_KEPT = timedelta(days=30)  # for which the ledger remembers an ended session
_LONGEST = 100
_MINUTE = timedelta(minutes=1)


class Sessions:
    """The sessions in the ledger; safe to use from many threads. One that was ended is over within a second."""

    def __init__(self, ledger: Engine, idle: timedelta = IDLE) -> None:
        self._ledger, self._idle = ledger, idle
        self._known: Mapping[bytes, Session] = {}
        self._read = self._tried = float("-inf")
        self._reading = threading.Lock()
        self._seen: dict[str, datetime] = {}

    def find(self, cookie: str, now: datetime) -> Session | None:
        """The session of that cookie, if it has not ended; it counts as used."""
        if not cookie or len(cookie) > _LONGEST:
            return None
        # Found by a digest: how long that takes tells nothing of any cookie.
        found = self._fresh(now).get(sha256(cookie.encode()).digest())
        if found is None or not self.going_on(found, now):
            return None
        if now - self._last(found) > _MINUTE:
            self._seen[found.id] = now
        return found

    def named(self, name: str, now: datetime) -> Session | None:
        """The session of that id, if it has not ended."""
        return next((one for one in self._fresh(now).values() if one.id == name and self.going_on(one, now)), None)

    def every(self, now: datetime) -> list[Session]:
        """All that have not ended, the oldest first."""
        return [one for one in self._fresh(now).values() if self.going_on(one, now)]

    def going_on(self, session: Session, now: datetime) -> bool:
        """Whether it is neither too old nor idle for too long."""
        return now < session.expires_at and now - self._last(session) <= self._idle

    def taken(self) -> dict[str, datetime]:
        """Which were used since the last call, by id."""
        noted, self._seen = self._seen, {}
        return noted

    def anew(self) -> None:
        """Read the ledger at the next question."""
        self._tried = float("-inf")

    def _last(self, session: Session) -> datetime:
        return max(session.seen_at, self._seen.get(session.id, session.seen_at))

    def _fresh(self, now: datetime) -> Mapping[bytes, Session]:
        with self._reading:
            began = monotonic()
            if began - self._tried > FRESH:
                self._tried = began
                try:
                    with self._ledger.connect().execution_options(reads=True) as conn:
                        self._known = sessions.known(conn, now)
                    self._read = began
                except SQLAlchemyError as error:
                    log.warning("sessions not readable", extra={"error": type(error).__name__})
            # Nobody can be signed out meanwhile, so in doubt nobody is signed in.
            return self._known if began - self._read < BLIND else {}


def begin(
    conn: Connection, person: str, role: Role, *, way: str, now: datetime, lasts: timedelta = LASTS, instead: str = ""
) -> tuple[str, Session]:
    """A new session's cookie, which stands nowhere else, and what is known of it.

    ``instead``: the id of a session in the same browser, which ends: who knew its cookie does not know the new one.
    """
    cookie = secrets.token_urlsafe(32)
    session = Session(secrets.token_hex(8), person, role, way, secrets.token_urlsafe(24), now, now, now + lasts)
    sessions.forget(conn, now - _KEPT)
    if instead:
        sessions.revoke(conn, now, session=instead)
    for old in list(sessions.known(conn, now, person).values())[: 1 - MOST]:
        sessions.revoke(conn, now, session=old.id)
    sessions.add(conn, session, sha256(cookie.encode()).digest())
    return cookie, session
