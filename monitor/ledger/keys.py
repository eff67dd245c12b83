"""The keys by which machines are known: what each may do, and a digest of its text, which itself stands nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Connection, LargeBinary, Row, String, Table, func, select

from monitor.caller import Right
from monitor.ledger.columns import Stamp, metadata

_RIGHTS = frozenset(Right)
_keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("rights", JSON, nullable=False),
    Column("tenant", String, nullable=False),
    Column("made_at", Stamp, nullable=False),
    Column("made_by", String, nullable=False),
    Column("expires_at", Stamp),
    Column("revoked_at", Stamp),
    Column("last_used", Stamp),
    Column("successor", String, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its text. ``tenant``: whose mail alone it opens; empty: everybody's.

    ``successor`` is the key that takes its place, once it was rotated.
    """

    id: str
    name: str
    rights: frozenset[Right]
    tenant: str
    made_at: datetime
    made_by: str
    expires_at: datetime | None
    revoked_at: datetime | None = None
    last_used: datetime | None = None
    successor: str = ""

    @property
    def ended_at(self) -> datetime | None:
        """When it ends or has ended, whatever was first; None: it does not."""
        return min((at for at in (self.revoked_at, self.expires_at) if at), default=None)

    def in_force(self, now: datetime) -> bool:
        """Whether it opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def add(conn: Connection, key: Key, digest: bytes) -> None:
    """Put a new key down; ``digest`` is of its text."""
    conn.execute(
        _keys.insert().values(
            id=key.id,
            name=key.name,
            digest=digest,
            rights=sorted(key.rights),
            tenant=key.tenant,
            made_at=key.made_at,
            made_by=key.made_by,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            last_used=key.last_used,
            successor=key.successor,
        )
    )


def every(conn: Connection) -> list[Key]:
    """All keys, those that ended too, the oldest first."""
    return [*known(conn).values()]


def known(conn: Connection) -> dict[bytes, Key]:
    """All keys by their digest, the oldest first."""
    return {bytes(row.digest): _key(row) for row in conn.execute(select(_keys).order_by(_keys.c.made_at, _keys.c.id))}


def version(conn: Connection) -> tuple[int, int]:
    """What changes whenever another text comes into force or is revoked; cheap, however many keys there are.

    No row is ever taken away, and what is rotated gets a successor: so two counts tell it.
    """
    counts = conn.execute(select(func.count(_keys.c.id), func.count(_keys.c.revoked_at))).one()
    return int(counts[0]), int(counts[1])


def one(conn: Connection, name: str) -> Key | None:
    """The key of that id."""
    row = conn.execute(select(_keys).where(_keys.c.id == name)).first()
    return _key(row) if row else None


def revoke(conn: Connection, name: str, at: datetime) -> None:
    """End the key of that id."""
    conn.execute(_keys.update().where(_keys.c.id == name, _keys.c.revoked_at.is_(None)).values(revoked_at=at))


def succeed(conn: Connection, name: str, successor: str, ends: datetime) -> None:
    """Let a key end at that time at the latest, since another took its place."""
    conn.execute(_keys.update().where(_keys.c.id == name).values(successor=successor, expires_at=ends))


def used(conn: Connection, when: Mapping[str, datetime]) -> None:
    """Say when keys were last used, by id; an earlier time than is known changes nothing."""
    for name, at in when.items():
        later = (_keys.c.last_used.is_(None)) | (_keys.c.last_used < at)
        conn.execute(_keys.update().where(_keys.c.id == name, later).values(last_used=at))


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        # What a newer version may have granted opens nothing here.
        rights=frozenset(Right(name) for name in row.rights if name in _RIGHTS),
        tenant=row.tenant,
        made_at=row.made_at,
        made_by=row.made_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used=row.last_used,
        successor=row.successor,
    )
