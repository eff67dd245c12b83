"""Who asks: a key, a person, a command of this machine, or nobody by name; and what that one may do (ADR 20)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Right(StrEnum):
    """What a caller may do: the scopes of a key. In code they are rights, since a scope is a part of the mail."""

    INGEST = "ingest"  # tell facts
    READ = "read"  # see what is known
    METRICS = "metrics"  # scrape our own state
    CHECK = "check"  # ask whether a message may go, and which leases are in force
    OPERATE = "operate"  # turn a person's key
    ADMIN = "admin"  # everything, and who may do what


class Role(StrEnum):
    """What a person is."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


ALL = frozenset(Right)
RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.VIEWER: frozenset({Right.READ, Right.METRICS, Right.CHECK}),
    Role.OPERATOR: frozenset({Right.READ, Right.METRICS, Right.CHECK, Right.OPERATE}),
    Role.ADMIN: ALL,
}
# A seller's key may tell and ask of its own mail; whoever holds it is a stranger, and turns nothing.
TENANTS = frozenset({Right.INGEST, Right.READ, Right.CHECK})


class Way(StrEnum):
    """How a caller was known."""

    KEY = "key"
    PERSON = "person"  # by a session
    MACHINE = "machine"  # by the token that lies beside the data
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """One who asks. ``name`` is what logs say: ``key:ID``, ``person:NAME``, ``machine`` or ``anonymous``.

    ``tenant``: whose mail alone it may see and tell of; empty: everybody's. ``session``: of a person.
    """

    name: str
    way: Way
    rights: frozenset[Right]
    tenant: str = ""
    session: str = ""

    @property
    def sees_all(self) -> bool:
        """Whether it may see what is known of everybody's mail."""
        return not self.tenant and self.may(Right.READ)

    def may(self, right: Right) -> bool:
        """Whether it has the right."""
        return right in self.rights or Right.ADMIN in self.rights
