"""What a caller may see: the one way of routes to facts and ledger. A seller's key is bound to its tenant here.

So a route can't forget whose mail it tells of: the facts that it gets answer for that tenant alone, whatever is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from monitor.api import pages, sellers, words
from monitor.api.access import caller_of
from monitor.api.asked import Windowed
from monitor.facts.store import Reader
from monitor.keyring import Keyring
from monitor.ledger import actions, incidents, journal
from monitor.ledger.suppressions import Entry
from monitor.model import Incident, Scope
from monitor.register import Standing
from monitor.service import Core

Heard = Mapping[tuple[str, str], tuple[datetime | None, datetime]]
_STAMP = 6  # bytes of what marks a seller's pages


@dataclass(frozen=True, slots=True)
class Seen:
    """What one caller may see; ``tenant`` is whose mail alone, empty: everybody's.

    ``facts`` answer for that mail alone. Ask ``keyring`` for pseudonyms.
    """

    tenant: str
    facts: Reader
    keyring: Keyring
    _core: Core

    def where(self, asked: Windowed) -> Scope:
        """The part of the mail that is asked about, within what may be seen; so the grain that tells it is chosen.

        Raises:
            Unclear: another tenant's, whether there is one or not.
        """
        return asked.where(self.tenant)

    @property
    def all_mail(self) -> Scope:
        """The whole of what may be seen."""
        return Scope(tenant=self.tenant)

    def incidents(self, limit: int, before: int = 0, *, only_open: bool) -> list[dict[str, Any]]:
        """Incidents with what was done about them, as they are told, the newest first."""
        with self._reading() as conn:
            found = incidents.newest(conn, limit, before, only_open=only_open, tenant=self.tenant)
            done = actions.of_incidents(conn, [one.id for one in found])
        tell = sellers.incident if self.tenant else words.incident
        return [tell(one, done[one.id]) for one in found]

    def open_incidents(self, most: int) -> tuple[Incident, ...]:
        """Those not resolved, the newest first."""
        with self._reading() as conn:
            return incidents.newest(conn, most, only_open=True, tenant=self.tenant)

    def incident(self, number: int) -> Incident | None:
        """The incident with that id, if there is one that may be seen."""
        with self._reading() as conn:
            found = incidents.by_id(conn, number)
        return None if found and self.tenant and found.scope.tenant != self.tenant else found

    def actions(self, limit: int, before: int = 0) -> list[dict[str, Any]]:
        """Entries of the brake's log, as they are told, the newest first."""
        with self._reading() as conn:
            found = actions.newest(conn, limit, before, tenant=self.tenant)
        tell = sellers.action if self.tenant else words.action
        return [tell(one) for one in found]

    def suppression_changes(self, since: int, limit: int) -> list[Entry]:
        """Changes of suppressions after that number, in their order."""
        return self._core.lists.register.changes(since, limit, self.tenant)

    def standings(self, addresses: Sequence[str], tenant: str, stream: str, now: datetime) -> list[Standing]:
        """Whether mail of that tenant and stream should go to each address."""
        return self._core.lists.register.check(addresses, tenant, stream, now, self.tenant)

    def heard(self) -> Heard:
        """How far each source has told what it knows."""
        with self._reading() as conn:
            return journal.watermarks(conn)

    def cursor(self, *numbers: int) -> str:
        """A page's end, for ``page`` to read when the same one asks."""
        return pages.cursor(*self._stamp(numbers), *numbers)

    def page(self, text: str, count: int) -> tuple[int, ...]:
        """The numbers of a cursor; empty for the first page.

        Raises:
            Unclear: it is none of ours, or was given to another.
        """
        if not self.tenant:
            return pages.page(text, count)
        found = pages.page(text, count + 1)
        if found[:1] != self._stamp(found[1:])[: len(found)]:
            pages.stray()
        return found[1:]

    def _stamp(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Whose page it is: a cursor that strays to another seller is of no use there. It keeps nothing secret."""
        if not self.tenant:
            return ()
        whose = blake2b(f"{self.tenant}\0{numbers}".encode("utf-8", "replace"), digest_size=_STAMP)
        return (int.from_bytes(whose.digest()),)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._core.stores.ledger.connect().execution_options(reads=True) as conn:
            yield conn


def seen(core: Core, request: Request) -> Seen:
    """What the one who asks may see."""
    stores, tenant = core.stores, caller_of(request).tenant
    return Seen(tenant, stores.facts.of(tenant) if tenant else stores.facts, stores.keyring, core)
