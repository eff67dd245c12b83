"""Suppressions folded anew from raw events, with the reply table of this release and the policy of today.

What an event speaks for may change when the table learns: evidence is brought in line with the events that are still
there, entries that rest on nothing more are released, and what is new is judged as if it had just come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from sqlalchemy import Connection, Engine

from collectors._reply import classify
from monitor.core.suppressing import Policy, Reason, reason
from monitor.facts.prepare import SELLERS
from monitor.facts.recipients import Told, told
from monitor.facts.store import Facts
from monitor.hygiene import EVIDENCE_KEPT, Moved, reconsider
from monitor.ledger import evidence
from monitor.ledger.evidence import Evidence, Raw, State
from monitor.ledger.suppressions import Change
from monitor.manifest import Job, Step
from monitor.meaning import ReplyClass
from monitor.model import Kind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NOTHING = "nothing"
_SIGNED = 1 << 63


@dataclass(slots=True)
class Plan:
    """What would change: ``by`` counts events by what they speak for, (now, then)."""

    fresh: list[Raw] = field(default_factory=list)
    changed: list[tuple[Evidence, Reason, str]] = field(default_factory=list)
    gone: list[Evidence] = field(default_factory=list)
    by: Counter[tuple[str, str]] = field(default_factory=Counter)


def rebuild(facts: Facts, ledger: Engine, policy: Policy, now: datetime, *, apply: bool) -> Job:
    """Do it, or say what would be done; the result tells events by what they spoke for, and entries that go."""
    plan, since, seen = Plan(), now - EVIDENCE_KEPT, 0
    for piece in told(facts, since, now + timedelta(days=1)):
        with ledger.connect().execution_options(reads=True) as conn:
            _compare(conn, piece, plan)
        seen += len(piece)
        yield Step("events", seen, 0)
    moved = Moved()
    with ledger.connect() as conn, conn.begin() as turn:
        _apply(conn, policy, plan, now, moved)
        if not apply:
            turn.rollback()
    return {
        "events": seen,
        "applied": apply,
        "changes": [
            {"from": before, "to": after, "events": count} for (before, after), count in sorted(plan.by.items())
        ],
        "released": sum(count for (change, _), count in moved.changes.items() if change is Change.RELEASED),
        "to_judge": len(plan.fresh) + len(plan.changed),
    }


def _compare(conn: Connection, events: Sequence[Told], plan: Plan) -> None:
    known = evidence.known(conn, [_signed(one.key) for one in events])
    for one in events:
        cls = _class(one)
        own = one.source == SELLERS
        why = reason(one.kind, cls) if one.tenant or not own else None
        old = known.get(_signed(one.key))
        if old is None and why:
            plan.fresh.append(_raw(one, why, cls, own=own))
        elif old and why is None:
            plan.gone.append(old)
        elif old and why and why is not old.reason:
            plan.changed.append((old, why, cls))
        else:
            continue
        before = f"{old.reason} ({old.reply_class or 'no class'})" if old else _NOTHING
        plan.by[before, f"{why} ({cls or 'no class'})" if why else f"{_NOTHING} ({cls or 'no class'})"] += 1


def _apply(conn: Connection, policy: Policy, plan: Plan, now: datetime, moved: Moved) -> None:
    lost = [old for old, _, _ in plan.changed] + plan.gone
    for old, why, cls in plan.changed:
        evidence.change(conn, old.seq, why, cls, old.at)
    evidence.remove(conn, [old.seq for old in plan.gone])
    counted = [old for old in lost if old.state is State.COUNTED]
    reconsider(conn, policy, counted, "what was said of it is understood otherwise now", now, moved)
    evidence.add(conn, plan.fresh)


def _class(one: Told) -> str:
    """What the event says by the table of this release; as its source told it where the table knows nothing."""
    if one.kind not in (Kind.BOUNCED, Kind.EXPIRED, Kind.RETURNED) or not (one.reply or one.code or one.dsn):
        return one.reply_class
    found = _classified(one.reply, one.code, one.dsn, one.provider)
    return one.reply_class if found == ReplyClass.OTHER and one.reply_class else found


@lru_cache(1 << 16)
def _classified(reply: str, code: int, dsn: str, provider: str) -> str:
    return classify(reply, code=code, dsn=dsn, provider=provider).stored


def _raw(one: Told, why: Reason, cls: str, *, own: bool) -> Raw:
    at, seen = ((time - _EPOCH) // _MICROSECOND for time in (one.at, one.seen_at))
    where = (one.provider, one.tenant, one.stream, one.campaign)
    return (_signed(one.key), max(at, seen), str(why), cls, at, one.recipient, one.message, *where, own)


def _signed(key: int) -> int:
    return key - 2 * _SIGNED if key >= _SIGNED else key


def lines(result: dict[str, object]) -> Iterator[str]:
    """The result in words."""
    did = "changed" if result["applied"] else "would change"
    yield f"{result['events']:,} events were read"
    changes = result["changes"]
    if not isinstance(changes, list) or not changes:
        yield "each speaks for what it did: nothing changes"
        return
    for one in changes:
        yield f"  {one['events']:>10,}  {one['from']} → {one['to']}"
    yield f"{did}: {result['released']:,} entries released, {result['to_judge']:,} bounces judged anew"
