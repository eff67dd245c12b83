"""What people and machines do with suppressions: ask by address, add, release, forget, and speak of outages.

Addresses become pseudonyms here, and go no further.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Engine

from monitor.core.suppressing import ORDER, Policy, Reason, covers
from monitor.errors import UserError
from monitor.hygiene import Moved, excuse
from monitor.keyring import PSEUDONYM_BYTES, Keyring
from monitor.ledger import evidence, outages, suppressions
from monitor.ledger.evidence import State
from monitor.ledger.outages import Outage
from monitor.ledger.suppressions import Change, Entry
from monitor.model import DRESS

MOST = 1000  # recipients at a time
LONGEST_OUTAGE = timedelta(days=31)
_LONGEST = 1000  # characters of an address
_SHOWN = 12  # digits of a pseudonym


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one address. ``entry`` keeps back the mail that was asked about, ``others`` other mail to it.

    ``error``: it is no address, and nothing was looked up.
    """

    pseudonym: bytes = b""
    entry: Entry | None = None
    others: tuple[Entry, ...] = ()
    error: str = ""


class Register:
    """Suppressions, by address or pseudonym. Safe to use from many threads."""

    def __init__(self, ledger: Engine, keyring: Keyring, policy: Policy) -> None:
        self._ledger, self._keyring, self._policy = ledger, keyring, policy

    def check(self, addresses: Sequence[str], tenant: str, stream: str, now: datetime, own: str = "") -> list[Standing]:
        """For each address, in order, whether mail of that tenant and stream should go there.

        ``own``: for a seller, who is told of what its own mail brought, and of what a person wants of everybody.
        """
        wrong = [unlike(address) for address in addresses]
        people = self.people([address for address, error in zip(addresses, wrong, strict=True) if not error])
        with self._ledger.connect().execution_options(reads=True) as conn:
            known = suppressions.of(conn, people)
            now_in_force = [
                one
                for some in known.values()
                for one in some
                if one.in_force and (one.until is None or one.until > now)
            ]
            if own:
                for_all = [one for one in now_in_force if one.reason is Reason.MANUAL and not one.tenant]
                now_in_force = [*suppressions.seen_by(conn, own, now_in_force), *for_all]
        by_person: dict[bytes, list[Entry]] = {}
        for entry in sorted(now_in_force, key=lambda one: ORDER.index(one.reason)):
            by_person.setdefault(entry.pseudonym, []).append(entry)
        each = iter(people)
        return [
            Standing(error=error) if error else self._standing(next(each), by_person, tenant, stream) for error in wrong
        ]

    def _standing(self, person: bytes, known: dict[bytes, list[Entry]], tenant: str, stream: str) -> Standing:
        entries = known.get(person, [])
        mine = [
            one
            for one in entries
            if covers(one.reason, (one.tenant, one.stream), tenant, stream, self._policy.protected)
        ]
        return Standing(person, mine[0] if mine else None, tuple(one for one in entries if one not in mine))

    def people(self, addresses: Sequence[str]) -> list[bytes]:
        """The pseudonym of each address."""
        joined = self._keyring.pseudonyms(addresses)
        return [joined[at : at + PSEUDONYM_BYTES] for at in range(0, len(joined), PSEUDONYM_BYTES)]

    def add(
        self,
        people: Iterable[bytes],
        *,
        tenant: str = "",
        stream: str = "",
        who: str,
        why: str,
        until: datetime | None,
        now: datetime,
    ) -> list[Entry]:
        """Suppress recipients by hand; what was written, which is nothing where it was so already.

        Raises:
            UserError: without a reason, or with an end that has come.
        """
        _reasoned(why)
        if until is not None and until <= now:
            raise UserError("the end has come already: name a later one, or none")
        done = []
        with self._ledger.begin() as conn:
            wanted = sorted(set(people))
            known = {one.name: one for some in suppressions.of(conn, wanted).values() for one in some}
            for person in wanted:
                made = Entry(person, Reason.MANUAL, tenant, stream, now, until, now, why, who)
                old = known.get(made.name)
                if old and old.in_force and (old.until, old.why) == (until, why):
                    continue
                if old and old.in_force:
                    made = replace(made, since=old.since, change=Change.RENEWED)
                done.append(suppressions.write(conn, made, now))
        return done

    def release(
        self, people: Iterable[bytes], *, who: str, why: str, now: datetime, reason: Reason | None = None
    ) -> list[Entry]:
        """Let recipients have mail again; what was released. Nothing that was told so far speaks against them any more.

        Raises:
            UserError: without a reason.
        """
        _reasoned(why)
        done = []
        with self._ledger.begin() as conn:
            wanted = sorted(set(people))
            known = suppressions.of(conn, wanted)
            for person in wanted:
                evidence.refute(conn, person, reason)
                for entry in known.get(person, ()):
                    if entry.in_force and reason in (None, entry.reason):
                        released = replace(entry, change=Change.RELEASED, who=who, why=why)
                        sellers = suppressions.sellers_of(conn, entry)
                        done.append(suppressions.write(conn, released, now, sellers))
        return done

    def forget(self, person: bytes) -> int:
        """Remove every row about a recipient, in the log too; how many that were. Nobody is told of it."""
        with self._ledger.begin() as conn:
            return suppressions.forget(conn, person) + evidence.forget(conn, person)

    def changes(self, since: int, limit: int, own: str = "") -> list[Entry]:
        """The changes after that number, in order; those that a seller may see."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            return suppressions.page(conn, since, limit, own)

    def outages(self, limit: int, before: int = 0) -> list[Outage]:
        """Outages, the newest first."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            return outages.newest(conn, limit, before)

    def declare(
        self, provider: str, since: datetime, until: datetime, *, who: str, why: str, now: datetime
    ) -> tuple[Outage, Moved]:
        """A person knows of an outage: whoever was suppressed for what the provider said then is released.

        Raises:
            UserError: no such time, or no reason.
        """
        _reasoned(why)
        if not since < until <= since + LONGEST_OUTAGE:
            raise UserError(f"an outage ends after it began, and within {LONGEST_OUTAGE.days} days")
        moved = Moved()
        return excuse(self._ledger, self._policy, Outage(0, provider, since, until, why, who, now), moved), moved

    def dismiss(self, number: int, *, who: str, now: datetime) -> Outage | None:
        """A person says that it was none: what the provider said then counts after all. None: no such outage."""
        with self._ledger.begin() as conn:
            outage = outages.one(conn, number)
            if outage is None or not outage.holds:
                return outage
            outages.dismiss(conn, number, who, now)
            since, until = outage.excused
            others = [one.excused for one in outages.during(conn, outage.provider, since, until) if one.holds]
            rows = evidence.at_provider(conn, outage.provider, since, until, (State.EXCUSED,))
            free = [one.seq for one in rows if not any(first <= one.at < last for first, last in others)]
            evidence.mark(conn, free, State.WAITING, now - self._policy.hold)
            return outages.one(conn, number)


def unlike(address: str) -> str:
    """What is wrong with a text that should be an address; empty: nothing that can be seen."""
    bare = address.strip(DRESS)
    name, _, host = bare.rpartition("@")
    if not name or not host or " " in bare or not bare.isprintable() or len(bare) > _LONGEST:
        return "no address: write it as name@example.com, without a name beside it"
    return ""


def shown(people: Iterable[bytes]) -> str:
    """Some recipients in few words, for the access log."""
    told = [person.hex()[:_SHOWN] for person in people]
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return f"recipient {', '.join(told[:3])}{more}"


def pseudonym(text: str) -> bytes:
    """A pseudonym as it is written, 32 digits.

    Raises:
        UserError: it is none.
    """
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != PSEUDONYM_BYTES:
        raise UserError("no pseudonym: it is 32 hexadecimal digits, as check and list tell it")
    return found


def _reasoned(why: str) -> None:
    if not why.strip():
        raise UserError("say why: a colleague will read it")
