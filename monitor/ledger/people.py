"""People who may sign in: their role, and a hash of the password or who vouches for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Connection, String, Table, select

from monitor.caller import Role
from monitor.ledger.columns import Stamp, metadata

_people = Table(
    "people",
    metadata,
    Column("name", String, primary_key=True),
    Column("role", String, nullable=False),
    Column("password", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("break_glass", Boolean, nullable=False),
    Column("made_at", Stamp, nullable=False),
    Column("disabled_at", Stamp),
    Column("last_seen", Stamp),
)


@dataclass(frozen=True, slots=True)
class Person:
    """An account. ``break_glass``: it works although people come from elsewhere, or can't.

    ``subject``: what the identity provider that vouches for the person calls it for good (issuer and ``sub``); empty
    where the password is ours.
    """

    name: str
    role: Role
    made_at: datetime
    break_glass: bool = False
    disabled_at: datetime | None = None
    last_seen: datetime | None = None
    subject: str = ""

    @property
    def way(self) -> str:
        """How the person signs in: local, oidc or break-glass."""
        return "break-glass" if self.break_glass else "oidc" if self.subject else "local"


def add(conn: Connection, person: Person, password: str = "") -> None:
    """Put a new account down; ``password`` is the hash, none where somebody else vouches."""
    conn.execute(
        _people.insert().values(
            name=person.name,
            role=str(person.role),
            password=password,
            subject=person.subject,
            break_glass=person.break_glass,
            made_at=person.made_at,
            disabled_at=person.disabled_at,
            last_seen=person.last_seen,
        )
    )


def every(conn: Connection) -> list[Person]:
    """All accounts by name."""
    return [_person(row) for row in conn.execute(select(_people).order_by(_people.c.name))]


def one(conn: Connection, name: str) -> tuple[Person, str] | None:
    """The account of that name with the hash of its password."""
    row = conn.execute(select(_people).where(_people.c.name == name)).first()
    return (_person(row), row.password) if row else None


def of_subject(conn: Connection, subject: str) -> Person | None:
    """The account of whom the identity provider calls so."""
    row = conn.execute(select(_people).where(_people.c.subject == subject)).first()
    return _person(row) if row else None


def change(conn: Connection, name: str, **values: Any) -> None:
    """Change fields of an account: role, password (a hash), disabled_at, last_seen."""
    conn.execute(_people.update().where(_people.c.name == name).values(**values))


def remove(conn: Connection, name: str) -> None:
    """Take an account away."""
    conn.execute(_people.delete().where(_people.c.name == name))


def _person(row: Any) -> Person:
    return Person(row.name, Role(row.role), row.made_at, row.break_glass, row.disabled_at, row.last_seen, row.subject)
