"""Signing in: from a password, or from who vouches for a person, to a session; each try is in the access log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine

from monitor.access import passwords, sessions
from monitor.access.limits import network
from monitor.access.lockout import Lockout
from monitor.access.passwords import Turns
from monitor.access.people import BREAK_GLASS_LASTS, named
from monitor.caller import Role
from monitor.ledger import access_log, people
from monitor.ledger import sessions as stored
from monitor.ledger.access_log import Entry
from monitor.ledger.people import Person
from monitor.ledger.sessions import Session
from monitor.settings import Access
from monitor.telemetry import SignInMetrics

log = logging.getLogger(__name__)

PASSWORD, PROVIDER = "password", "provider"  # ways, as metrics call them
_NOBODY = "nobody's name"
_ABROAD = ":provider"  # what is counted by address alone; no name has a colon


class Why(StrEnum):
    """Why nobody was signed in by the identity provider; the page has a sentence for each."""

    UNREACHABLE = "unreachable"  # it does not answer, or not as it should
    EXPIRED = "expired"  # the way took too long, began in another browser, or was gone before
    DENIED = "denied"  # it says that the person may not, or does not want to
    INVALID = "invalid"  # its token is not to be trusted
    ROLE = "role"  # the person is in no group with a role
    DOMAIN = "domain"  # the person's address is not verified, or of another domain
    NAME = "name"  # it does not say what the person is called
    TAKEN = "taken"  # somebody else is called so here
    DISABLED = "disabled"


class Refused(Exception):  # noqa: N818  # an answer, not a fault
    """Nobody is signed in by the identity provider; the detail holds no secret, and is for the log.

    ``of``: the person, where the provider's word for that was found good.
    """

    def __init__(self, why: Why, detail: str = "", *, of: str = "") -> None:
        super().__init__(detail or str(why))
        self.why, self.of = why, of


class Wrong(Exception):  # noqa: N818  # an answer, not a fault
    """No such name, or another password; which of them is not told."""


class Locked(Exception):  # noqa: N818  # an answer, not a fault
    """Too many wrong passwords came for this name from this address, or from the address at all."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"{seconds} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Vouched:
    """What an identity provider says of a person. ``subject``: issuer and ``sub``, which never change."""

    subject: str
    name: str
    role: Role


class SigningIn:
    """The door for people; safe to use from many threads. ``note`` counts what strangers may do often."""

    def __init__(
        self,
        ledger: Engine,
        settings: Access,
        clock: Callable[[], datetime],
        metrics: SignInMetrics,
        note: Callable[[str, str, str, str], None],
    ) -> None:
        self._ledger, self._settings, self._clock, self._metrics = ledger, settings, clock, metrics
        self._note = note
        self._lockout, self._turns = Lockout(clock), Turns()
        self._abroad = Turns(at_once=8, waiting=0)

    def by_password(self, name: str, password: str, address: str, instead: str = "") -> tuple[str, Session]:
        """A session for who knows the password; ``instead``: the session of this browser so far, which ends.

        Raises:
            Wrong, Locked: and for how long.
            passwords.Crowded: others sign in; again in a moment.
        """
        name = named(name)
        if seconds := self._lockout.wait(name, address):
            self._count(PASSWORD, "locked")
            raise Locked(seconds)
        place = network(address)
        try:
            with self._turns.of(place):
                kept, why = self._known(name, password)
        except passwords.Crowded:
            self._count(PASSWORD, "busy")
            raise
        if not why:
            with self._ledger.begin() as conn:
                again = people.one(conn, name)
                if again and again[1] == kept and again[0].disabled_at is None:
                    return self._let_in(conn, again[0], kept, password, place, instead)
            why = "changed meanwhile"
        self._turned_away(name, why, address)
        raise Wrong

    def by_provider(self, who: Vouched, address: str, instead: str = "") -> tuple[str, Session]:
        """A session for whom the identity provider vouches; an account is made at the first time.

        Raises:
            Refused: the name is somebody else's here, or the account is disabled.
        """
        assert self._settings.oidc is not None, "only where there is a provider"  # noqa: S101
        now, place = self._clock(), network(address)
        with self._ledger.begin() as conn:
            person = people.of_subject(conn, who.subject) or self._first_time(conn, who, now)
            if person.disabled_at is not None:
                raise Refused(Why.DISABLED, of=person.name)
            if person.role is not who.role:
                people.change(conn, person.name, role=str(who.role))
                stored.revoke(conn, now, person=person.name)
                details = {"role": str(who.role), "before": str(person.role)}
                access_log.append(conn, Entry(now, "oidc", "role changed", person.name, "done", details))
            lasts = min(self._settings.oidc.lasts, self._settings.lasts)
            done = sessions.begin(conn, person.name, who.role, way="oidc", now=now, lasts=lasts, instead=instead)
            self._in(conn, person, done[1], place)
        self._count(PROVIDER, "done")
        return done

    @contextmanager
    def abroad(self, address: str) -> Iterator[None]:
        """While somebody at that address is sent to the identity provider, or comes back from there.

        Raises:
            Locked: too much that came from there was no good.
            passwords.Crowded: others are on their way; again in a moment.
        """
        if seconds := self._lockout.wait(_ABROAD, address):
            self._count(PROVIDER, "locked")
            raise Locked(seconds)
        with self._abroad.of(network(address)):
            yield

    def refused(self, error: Refused, address: str) -> None:
        """Take down that somebody was turned away who came from the identity provider."""
        self._count(PROVIDER, str(error.why))
        result, place = f"refused: {error.why}", network(address)
        if error.why in (Why.DENIED, Why.INVALID):
            self._lockout.failed(_ABROAD, address)  # each costs the provider a question
        if str(error) != error.why:
            log.warning("sign-in refused", extra={"person": error.of, "why": str(error.why), "detail": str(error)})
        if not error.of:
            self._note("anonymous", "sign-in", place, result)
            return
        details = {"address": place, "detail": str(error)[:200]}
        with self._ledger.begin() as conn:
            access_log.append(conn, Entry(self._clock(), f"oidc:{error.of}", "sign-in", "oidc", result, details))

    def _known(self, name: str, password: str) -> tuple[str, str]:
        """The hash by which the password was found right, and why one may not sign in by it nonetheless."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            found = people.one(conn, name)
        person, kept = found or (None, "")
        right = passwords.right(kept or None, password)  # before anything else, so that all refusals take as long
        if person is None:
            return "", _NOBODY
        if not right:
            return "", "another password"
        if person.disabled_at is not None:
            return kept, "disabled"
        return kept, "" if self._settings.local or person.break_glass else "local = false"

    def _let_in(
        self, conn: Connection, person: Person, kept: str, password: str, place: str, instead: str
    ) -> tuple[str, Session]:
        now, lasts = self._clock(), self._settings.lasts
        if person.break_glass:
            lasts = min(lasts, BREAK_GLASS_LASTS)
            log.warning("break-glass account used", extra={"person": person.name, "address": place})
            self._metrics.break_glass.inc()
        if passwords.stale(kept):
            people.change(conn, person.name, password=passwords.hashed(passwords.plain(password)))
        done = sessions.begin(conn, person.name, person.role, way=person.way, now=now, lasts=lasts, instead=instead)
        self._in(conn, person, done[1], place)
        self._lockout.right(person.name, place)
        self._count(PASSWORD, "done")
        return done

    def _in(self, conn: Connection, person: Person, session: Session, place: str) -> None:
        now = self._clock()
        people.change(conn, person.name, last_seen=now)
        details = {"address": place, "session": session.id, "role": str(session.role)}
        access_log.append(conn, Entry(now, f"person:{person.name}", "sign-in", person.way, "done", details))

    def _turned_away(self, name: str, why: str, address: str) -> None:
        self._count(PASSWORD, "wrong")
        seconds = self._lockout.failed(name, address)
        # Somebody may have typed a password where the name goes: what is nobody's name is not written down.
        known = "" if why == _NOBODY else name
        if seconds:
            log.warning("sign-in locked", extra={"person": known, "address": network(address), "for_s": seconds})
        details = {"address": network(address), "locked_s": seconds}
        with self._ledger.begin() as conn:
            access_log.append(conn, Entry(self._clock(), "anonymous", "sign-in", known, f"refused: {why}", details))

    def _first_time(self, conn: Connection, who: Vouched, now: datetime) -> Person:
        if people.one(conn, who.name):
            raise Refused(Why.TAKEN, "somebody else is called so here", of=who.name)
        person = Person(who.name, who.role, now, subject=who.subject)
        people.add(conn, person)
        details = {"role": str(who.role), "way": "oidc"}
        access_log.append(conn, Entry(now, "oidc", "person added", who.name, "done", details))
        return person

    def _count(self, way: str, result: str) -> None:
        self._metrics.tries.labels(way, result).inc()
