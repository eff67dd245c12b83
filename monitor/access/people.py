"""Accounts: how they are made and changed. Each change is in the access log, in the same transaction."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta

from sqlalchemy import Connection

from monitor.access import passwords
from monitor.caller import Role
from monitor.errors import UserError
from monitor.ledger import access_log, people, sessions
from monitor.ledger.access_log import Entry
from monitor.ledger.people import Person
from monitor.model import AUTOMATION

BREAK_GLASS_LASTS = timedelta(hours=1)
LONGEST_NAME = 100
# They would read in a log as if something else had acted.
_TAKEN = frozenset({AUTOMATION, "anonymous", "api", "machine", "mailvane", "nobody", "system"})
_SIGNS = "._-+@"


def named(text: str) -> str:
    """A name as it is kept: Anna is anna, whoever writes it."""
    return unicodedata.normalize("NFKC", text[: 2 * LONGEST_NAME]).strip().casefold()


def new_name(text: str) -> str:
    """The name of a new account as it is kept.

    Raises:
        UserError: nobody can be called so.
    """
    name = named(text)
    plain = name and len(name) <= LONGEST_NAME and all(char.isalnum() or char in _SIGNS for char in name)
    if not plain or not name[0].isalnum():
        raise UserError(
            f"a name has 1 to {LONGEST_NAME} letters, digits and {' '.join(_SIGNS)}, a letter or digit first"
        )
    if name in _TAKEN:
        raise UserError(f"nobody can be called {name}: in a log it would read as something else")
    return name


def add(
    conn: Connection, name: str, role: Role, password: str, *, now: datetime, by: str, break_glass: bool = False
) -> Person:
    """A new account with a password of ours.

    Raises:
        UserError: the name is taken or none, or the password is too weak.
    """
    name = new_name(name)
    if people.one(conn, name):
        raise UserError(f"there is somebody called {name} already: see mailvane people list")
    person = Person(name, role, now, break_glass)
    people.add(conn, person, passwords.hashed(passwords.checked(name, password)))
    _note(conn, now, by, "person added", name, role=str(role), way=person.way)
    return person


def change_role(conn: Connection, name: str, role: Role, *, now: datetime, by: str) -> None:
    """Another role; the person signs in anew.

    Raises:
        UserError: there is nobody of that name, or the identity provider's groups say the role.
    """
    person = found(conn, name)
    if person.subject:
        raise UserError(f"what {person.name} may do follows from groups of the identity provider: change those")
    people.change(conn, person.name, role=str(role))
    sessions.revoke(conn, now, person=person.name)
    _note(conn, now, by, "role changed", person.name, role=str(role), before=str(person.role))


def change_password(conn: Connection, name: str, password: str, *, now: datetime, by: str) -> None:
    """Another password; the person signs in anew.

    Raises:
        UserError: there is nobody of that name, it has no password of ours, or the new one is too weak.
    """
    person = found(conn, name)
    if person.subject:
        raise UserError(f"{person.name} has no password here: the identity provider has it")
    people.change(conn, person.name, password=passwords.hashed(passwords.checked(person.name, password)))
    sessions.revoke(conn, now, person=person.name)
    _note(conn, now, by, "password changed", person.name)


def disable(conn: Connection, name: str, *, now: datetime, by: str, disabled: bool = True) -> None:
    """Let an account sign in no more, or again.

    Raises:
        UserError: there is nobody of that name.
    """
    person = found(conn, name)
    people.change(conn, person.name, disabled_at=now if disabled else None)
    sessions.revoke(conn, now, person=person.name)
    _note(conn, now, by, "person disabled" if disabled else "person enabled", person.name)


def remove(conn: Connection, name: str, *, now: datetime, by: str) -> None:
    """Take an account away.

    Raises:
        UserError: there is nobody of that name.
    """
    person = found(conn, name)
    sessions.revoke(conn, now, person=person.name)
    people.remove(conn, person.name)
    _note(conn, now, by, "person removed", person.name, role=str(person.role), way=person.way)


def sign_out(conn: Connection, name: str, *, now: datetime, by: str) -> int:
    """End all sessions of a person; how many.

    Raises:
        UserError: there is nobody of that name.
    """
    person = found(conn, name)
    count = sessions.revoke(conn, now, person=person.name)
    _note(conn, now, by, "person signed out", person.name, sessions=count)
    return count


def found(conn: Connection, name: str) -> Person:
    """The account of that name.

    Raises:
        UserError: there is none.
    """
    one = people.one(conn, named(name))
    if one is None:
        raise UserError(f"there is nobody called {name[:LONGEST_NAME]!r}: see mailvane people list")
    return one[0]


def _note(conn: Connection, now: datetime, by: str, did: str, name: str, **details: object) -> None:
    access_log.append(conn, Entry(now, by, did, name, "done", details))
