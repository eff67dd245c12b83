"""The law of the facts: counts are those of a plain set of outcomes.

Whatever is told, on whichever roads, how often, in which order, and whatever breaks meanwhile.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from collectors.events import Events
from collectors.sendlog import Sendlog
from monitor.facts import queries, schema
from monitor.facts.errors import FactsError
from monitor.facts.schema import TABLES
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger.db import open_ledger
from monitor.model import Batch, Kind
from monitor.pipeline import Applier, take
from monitor.spool import Spool

FULL = os.environ.get("MAILVANE_SCALE") == "full"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Outcome:
    """What became of a message at a recipient; ``again``: at which of its deferrals, 0 for what happens once."""

    kind: Kind
    message: int
    recipient: int
    again: int = 0

    @property
    def name(self) -> str:
        """Of the message, as the log knows it and as a report of that mail server's tells it: host and queue id."""
        return f"mx1/4Zq3Lm0Rs2z1b{self.message}"

    @property
    def at(self) -> datetime:
        """In two months, some of it near midnight."""
        day = timedelta(days=20 * (self.message % 2), hours=11 * self.recipient)
        return NOON + day + timedelta(minutes=7 * self.again, seconds=list(Kind).index(self.kind))


# roads: the same outcome, told by different peers with different clues


def log(outcomes: Sequence[Outcome]) -> Batch:
    """As the mail server wrote it down; it knows nothing of complaints."""
    status = {Kind.SENT: "sent (250 OK)", Kind.DEFERRED: "deferred (451 4.7.1 later)", Kind.BOUNCED: "bounced (550 no)"}
    code = {Kind.SENT: "2.0.0", Kind.DEFERRED: "4.7.1", Kind.BOUNCED: "5.1.1"}
    lines = [
        f"{one.at.isoformat()} mx1 postfix/smtp[8]: {one.name.removeprefix('mx1/')}: to=<user{one.recipient}@example.net>,"
        f" relay=mx.example.net[192.0.2.9]:25, delay=1, delays=0/0/0/1, dsn={code[one.kind]}, status={status[one.kind]}"
        for one in outcomes
    ]
    parser = Sendlog(path=Path("mail.log")).parser(NOON + timedelta(days=90))
    batch = parser.feed("".join(f"{line}\n" for line in lines).encode())
    assert (len(batch), list(batch.rejected)) == (len(outcomes), [])
    return batch


def over_http(outcomes: Sequence[Outcome], later: timedelta, *, dated: bool = False, **clues: object) -> Batch:
    """As a peer's system posts it. A deferral is named by its moment, all else may be heard of ``later``.

    ``dated``: with the time of sending.
    """
    lines = []
    for one in outcomes:
        at = one.at if one.kind is Kind.DEFERRED else one.at + later
        told = {"kind": one.kind, "at": at.isoformat(), "message_id": f"<{one.name}>", **clues}
        if dated:
            told["sent_at"] = one.at.isoformat()
        lines.append(json.dumps({**told, "recipient": f" <User{one.recipient}@EXAMPLE.net>"}))
    batch = Events().decode("\n".join(lines).encode())
    assert (len(batch), list(batch.rejected)) == (len(outcomes), [])
    return batch


def dsn(outcomes: Sequence[Outcome]) -> Batch:
    """As the report says that came back by mail, some minutes later."""
    return over_http(outcomes, timedelta(minutes=3), dsn="5.1.1", code=550, reply="550 5.1.1 no such user here")


def webhook(outcomes: Sequence[Outcome]) -> Batch:
    """As a provider's webhook calls, with its own id and labels, perhaps on the next day."""
    return over_http(outcomes, timedelta(hours=13), id="4711", provider="gmail", tenant="s1", segment="g2")


def backfill(outcomes: Sequence[Outcome]) -> Batch:
    """As a peer tells who heard of it after days, and stamps it so; he knows when the message was sent."""
    return over_http(outcomes, timedelta(days=5), dated=True, ip="192.0.2.1")


ROADS: dict[str, Callable[[Sequence[Outcome]], Batch]] = {
    "log": log,
    "dsn": dsn,
    "webhook": webhook,
    "backfill": backfill,
}


# what may happen


@dataclass(frozen=True)
class Tell:
    """By the road of that name."""

    road: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Apply:
    """One batch of the applier's."""


@dataclass(frozen=True)
class Restart:
    """All stores are closed and opened again."""


@dataclass(frozen=True)
class Break:
    """The applier is stopped in the middle of its next batch; it goes on, or the whole process is started again."""

    how: str
    restarts: bool
    table: str = "events"  # whose insert fails


Step = Tell | Apply | Restart | Break


@dataclass
class House:
    """All stores of one process, on which nothing went so far."""

    facts_at: Path
    folder: Path
    block: int
    facts: Facts = field(init=False)
    keyring: Keyring = field(init=False)
    spool: Spool = field(init=False)
    ledger: Engine = field(init=False)
    applier: Applier = field(init=False)

    def open(self) -> None:
        self.facts = Facts.open(f"chdb://{self.facts_at}")
        schema.migrate(self.facts)
        self.keyring = Keyring.open(self.facts_at.parent / "keyring")
        self.spool = Spool(self.folder / "spool", segment_bytes=4000)
        self.ledger = open_ledger(self.folder / "ledger.sqlite")
        self.applier = Applier(self.spool, self.facts, self.ledger, self.keyring, block_rows=self.block)

    def empty(self) -> None:
        for table in TABLES:
            self.facts.command(f"TRUNCATE TABLE {table}")

    def close(self) -> None:
        self.applier.close()
        self.facts.close()
        self.keyring.close()
        self.spool.close()
        self.ledger.dispose()

    def do(self, step: Step) -> None:
        match step:
            case Tell():
                batch = ROADS[step.road](step.outcomes)
                take(batch, self.spool, self.keyring, source=step.road, node="n", now=NOON, bounds=None)
            case Apply():
                self.applier.step()
            case Restart():
                self.close()
                self.open()
            case Break():
                getattr(self, f"_{step.how}")(step.table)
                if step.restarts or step.how == "closed":
                    self.do(Restart())

    def _closed(self, _table: str) -> None:
        """The facts are closed before the insert, and the batch was begun."""
        self.facts.close()
        if self._waits:
            with pytest.raises(RuntimeError, match="closed"):
                self.applier.step()

    def _half(self, table: str) -> None:
        """A view on that table fails after its rows went in: raw events are there, and some of the grains."""
        self.facts.command("CREATE TABLE IF NOT EXISTS void (x UInt8) ENGINE = Null")
        assert self.facts._writer
        self.facts._writer.set_client_setting("allow_custom_error_code_in_throwif", 1)
        self.facts.command(
            "CREATE MATERIALIZED VIEW broken_feed TO void AS"
            f" SELECT throwIf(1, 'broken for a test', toInt16(394)) AS x FROM {table}"
        )
        with suppress(FactsError):  # none where all of the batch is known already, so that nothing is inserted
            self.applier.step()
        self.facts.command("DROP TABLE broken_feed")

    def _uncommitted(self, _table: str) -> None:
        """All is inserted, and the ledger refuses to write it down."""
        with self.ledger.begin() as conn:
            conn.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE UPDATE ON applied WHEN new.committed > old.committed"
                " BEGIN SELECT RAISE(ABORT, 'refused for a test'); END"
            )
        if self._waits:
            with pytest.raises(IntegrityError, match="refused for a test"):
                self.applier.step()
        with self.ledger.begin() as conn:
            conn.exec_driver_sql("DROP TRIGGER refuse")

    @property
    def _waits(self) -> bool:
        return self.applier._position()[0] < self.spool.last

    def counts(self) -> dict[str, int]:
        """By kind, once all is applied; raw, keys and each grain agree."""
        self.applier.drain()
        assert self.applier.tally.dead_letters == 0
        told = queries.totals(self.facts)
        assert told["events"] == told["leaf"] == told["minute"] == told["hour"]
        assert told["rows"] == told["keys"] == sum(told["events"].values())
        return {kind: number for kind, number in told["events"].items() if number}


def by_hand(history: Sequence[Step]) -> dict[str, int]:
    """The counts of a plain set."""
    outcomes = {outcome for step in history if isinstance(step, Tell) for outcome in step.outcomes}
    return dict(Counter(str(outcome.kind) for outcome in outcomes))


LOGGED = [Kind.SENT, Kind.DEFERRED, Kind.BOUNCED]


@st.composite
def tellings(draw: st.DrawFn, roads: Sequence[str] = tuple(ROADS)) -> Tell:
    road = draw(st.sampled_from(roads))
    kinds = st.sampled_from(LOGGED if road == "log" else [*LOGGED, Kind.EXPIRED, Kind.COMPLAINT])
    found = []
    for kind, message, recipient, again in draw(
        st.lists(st.tuples(kinds, st.integers(0, 3), st.integers(0, 2), st.integers(1, 2)), min_size=1, max_size=6)
    ):
        found.append(Outcome(kind, message, recipient, again if kind is Kind.DEFERRED else 0))
    return Tell(road, tuple(found))


FILLED = tuple(table for table in TABLES if table != "levels")
BREAKS = st.builds(
    Break, st.sampled_from(["closed", "half", "half", "uncommitted"]), st.booleans(), st.sampled_from(FILLED)
)
STEPS = st.one_of(tellings(), tellings(), tellings(), BREAKS, st.just(Apply()), st.just(Restart()))
HISTORIES = st.lists(STEPS, min_size=2, max_size=12 if FULL else 7)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory of facts for all: a process may have one open, so that it is emptied each time."""
    return tmp_path_factory.mktemp("interleavings")


RUNS = count()


def told(root: Path, history: Sequence[Step], block: int) -> dict[str, int]:
    """What the product counts."""
    house = House(root / "facts", root / str(next(RUNS)), block)
    house.open()
    try:
        house.empty()
        for step in history:
            house.do(step)
        return house.counts()
    finally:
        house.close()


@pytest.mark.scale(order=3)
@settings(
    max_examples=60 if FULL else 6,  # the engine leaves some threads behind each time that it is opened anew
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(history=HISTORIES, block=st.integers(1, 12))
def test_any_history_gives_the_counts_of_a_plain_set(root: Path, history: list[Step], block: int) -> None:
    assert told(root, history, block) == by_hand(history)


HOWS = ("closed", "uncommitted", *(FILLED if FULL else ("events", "hour")))


@pytest.mark.scale(order=3)
@pytest.mark.parametrize(
    ("how", "restarts"), [(how, bool((place + more) % 2)) for place, how in enumerate(HOWS) for more in range(1 + FULL)]
)
def test_each_way_of_breaking_is_met_and_healed(root: Path, how: str, restarts: bool) -> None:
    first = tuple(Outcome(Kind.SENT, message, 0) for message in range(4))
    more = tuple(Outcome(Kind.BOUNCED, message, 1) for message in range(4))
    broken = Break("half", restarts, how) if how in FILLED else Break(how, restarts)
    history = [Tell("log", first), broken, Tell("dsn", first), Tell("webhook", more), broken, Tell("log", more)]
    assert told(root, history, 3) == {"sent": 4, "bounced": 4}


@pytest.mark.parametrize("kind", [Kind.SENT, Kind.BOUNCED, Kind.COMPLAINT])
def test_an_outcome_told_days_apart_counts_once(root: Path, kind: Kind) -> None:
    """Two roads may stamp it on days that are not neighbours."""
    outcomes = (Outcome(kind, 1, 1), Outcome(kind, 1, 2))
    history = [
        Tell("dsn", outcomes),
        Apply(),
        Tell("backfill", outcomes),
        Apply(),
        Restart(),
        Tell("webhook", outcomes),
    ]
    assert told(root, history, 10) == {kind: 2}
    assert told(root, history[::-1], 10) == {kind: 2}
