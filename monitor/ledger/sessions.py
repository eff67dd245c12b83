"""Who is signed in: a digest of the cookie, so that no copy of the ledger signs anybody in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, LargeBinary, String, Table, select

from monitor.caller import Role
from monitor.ledger.columns import Stamp, metadata

_sessions = Table(
    "sessions",
    metadata,
    Column("id", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("person", String, nullable=False, index=True),
    Column("role", String, nullable=False),
    Column("way", String, nullable=False),
    Column("csrf", String, nullable=False),
    Column("made_at", Stamp, nullable=False),
    Column("seen_at", Stamp, nullable=False),
    Column("expires_at", Stamp, nullable=False),
    Column("revoked_at", Stamp),
)
_live = _sessions.c.revoked_at.is_(None)


@dataclass(frozen=True, slots=True)
class Session:
    """A person who is signed in. ``way``: local, oidc or break-glass. ``csrf`` goes with whatever changes something."""

    id: str
    person: str
    role: Role
    way: str
    csrf: str = field(repr=False)
    made_at: datetime
    seen_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


def add(conn: Connection, session: Session, digest: bytes) -> None:
    """Put a new session down; ``digest`` is of its cookie."""
    conn.execute(
        _sessions.insert().values(
            id=session.id,
            digest=digest,
            person=session.person,
            role=str(session.role),
            way=session.way,
            csrf=session.csrf,
            made_at=session.made_at,
            seen_at=session.seen_at,
            expires_at=session.expires_at,
            revoked_at=None,
        )
    )


def known(conn: Connection, now: datetime, person: str = "") -> dict[bytes, Session]:
    """The sessions that have not ended, all or a person's, by the digest of their cookie, the oldest first."""
    asked = select(_sessions).where(_live, _sessions.c.expires_at > now).order_by(_sessions.c.made_at, _sessions.c.id)
    if person:
        asked = asked.where(_sessions.c.person == person)
    return {bytes(row.digest): _session(row) for row in conn.execute(asked)}


def revoke(conn: Connection, at: datetime, *, session: str = "", person: str = "") -> int:
    """End one session, or all of a person; how many."""
    which = _sessions.c.id == session if session else _sessions.c.person == person
    done = conn.execute(_sessions.update().where(which, _live).values(revoked_at=at))
    return int(done.rowcount)


def seen(conn: Connection, when: Mapping[str, datetime]) -> None:
    """Say when sessions were last used, by id."""
    for name, at in when.items():
        conn.execute(_sessions.update().where(_sessions.c.id == name).values(seen_at=at))


def forget(conn: Connection, before: datetime) -> None:
    """Take away those that ended before that time."""
    conn.execute(_sessions.delete().where((_sessions.c.expires_at < before) | (_sessions.c.revoked_at < before)))


def _session(row: Any) -> Session:
    return Session(
        row.id, row.person, Role(row.role), row.way, row.csrf, row.made_at, row.seen_at, row.expires_at, row.revoked_at
    )
