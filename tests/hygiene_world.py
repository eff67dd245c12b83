"""A marketplace for the tests of suppression: mail that goes to providers minute by minute, by the real road.

with world(folder) as house:
    house.mail(at, "s1", "gmail", ["ann", "bob"])               # taken
    house.mail(at, "s1", "gmail", ["nobody"], GONE)             # refused
    house.pass_to(at)                                           # applied, and judged at that time
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from monitor.core.suppressing import Policy, Reason
from monitor.facts.store import Facts
from monitor.hygiene import Hygiene, Moved
from monitor.keyring import Keyring
from monitor.ledger import suppressions
from monitor.ledger.db import open_ledger
from monitor.ledger.suppressions import Entry
from monitor.model import COLUMNS, Batch
from monitor.pipeline import Applier, take
from monitor.register import Register
from monitor.spool import Spool

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TAKEN: dict[str, Any] = {"kind": "sent", "code": 250, "reply": "250 2.0.0 OK"}
GONE: dict[str, Any] = {"kind": "bounced", "code": 550, "dsn": "5.1.1", "reply": "550 5.1.1 user unknown"}
FULL: dict[str, Any] = {"kind": "bounced", "code": 552, "dsn": "5.2.2", "reply": "552 5.2.2 mailbox full"}
BLOCKED: dict[str, Any] = {"kind": "bounced", "code": 550, "dsn": "5.7.1", "reply": "550 5.7.1 rejected by policy"}
_MESSAGE = count(1)


@dataclass
class House:
    """The stores and the stage; ``told`` waits until time passes."""

    facts: Facts
    keyring: Keyring
    spool: Spool
    ledger: Engine
    applier: Applier
    policy: Policy = field(default_factory=Policy)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def hygiene(self) -> Hygiene:
        return Hygiene(self.policy, self.facts, self.ledger)

    @property
    def register(self) -> Register:
        return Register(self.ledger, self.keyring, self.policy)

    def mail(
        self,
        at: datetime,
        tenant: str,
        provider: str,
        people: Iterable[str],
        outcome: dict[str, Any] = TAKEN,
        **more: Any,
    ) -> None:
        """One message to each of these people, spread over the minute of ``at``."""
        source = more.pop("source", "log")
        for place, person in enumerate(people):
            event = {
                "at": int((at + timedelta(milliseconds=37 * place % 60_000)).timestamp() * 1e6),
                "message_id": f"<{next(_MESSAGE)}@shop.example>",
                "recipient": address(person, provider),
                "tenant": tenant,
                "provider": provider,
                "stream": "marketing",
                "campaign": f"{tenant}-1" if tenant else "",
                "ip": "192.0.2.1",
            }
            self.told.append((source, event | outcome | more))

    def pass_to(self, now: datetime) -> Moved:
        """What was told is applied as seen ``now``, and the stage runs."""
        for source in dict.fromkeys(source for source, _ in self.told):
            mine = [event for where, event in self.told if where == source]
            names = [name for name in COLUMNS if any(name in event for event in mine)]
            columns = {name: [event.get(name, COLUMNS[name]) for event in mine] for name in names}
            take(Batch(columns), self.spool, self.keyring, source=source, node="n", now=now, bounds=None)
        self.told.clear()
        self.applier.drain()
        return self.hygiene.run(now)

    def person(self, name: str, provider: str) -> bytes:
        return self.keyring.pseudonym(address(name, provider))

    def entries(self, *people: str, provider: str = "gmail") -> list[Entry]:
        """Those in force, of these people or of all."""
        with self.ledger.connect().execution_options(reads=True) as conn:
            found = list(suppressions.every(conn))
        wanted = {self.person(name, provider) for name in people}
        return [one for one in found if not people or one.pseudonym in wanted]

    def suppressed(self, names: Sequence[str], provider: str, why: Reason = Reason.HARD) -> int:
        """How many of these people are, for that reason."""
        mine = {self.person(name, provider) for name in names}
        return len({one.pseudonym for one in self.entries() if one.reason is why} & mine)

    def feed(self, since: int = 0, limit: int = 1_000_000, tenant: str = "") -> list[Entry]:
        return self.register.changes(since, limit, tenant)


def address(person: str, provider: str) -> str:
    return f"{person}@{provider}.example"


@contextmanager
def world(facts: Facts, folder: Path, policy: Policy | None = None) -> Iterator[House]:
    """A house on these facts, with spool, ledger and keyring of its own in ``folder``."""
    keyring = Keyring.open(folder / "keyring")
    spool = Spool(folder / "spool")
    ledger = open_ledger(folder / "ledger.sqlite")
    applier = Applier(spool, facts, ledger, keyring)
    try:
        yield House(facts, keyring, spool, ledger, applier, policy or Policy())
    finally:
        applier.close()
        spool.close()
        ledger.dispose()
        keyring.close()
