"""The facts' tables: raw events, for each of the three grains its counts and what its series are, and levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monitor.facts.cluster import Change, Columns, Nodes, Table, Types
from monitor.facts.grains import GRAINS, Grain
from monitor.facts.store import Facts
from monitor.keyring import CODES
from monitor.model import LABELS, Kind

_TEXT = "LowCardinality(String) CODEC(ZSTD)"
_STAMP = "DateTime64(3, 'UTC') CODEC(T64, ZSTD)"  # an hour's stamps in no order: their high bits are all that repeats
_SMALL = "CODEC(T64, ZSTD)"
# What the first release knew of, and so made: what came later is added below.
_FIRST_KINDS = ("sent", "deferred", "bounced", "expired", "complaint", "held")
_FIRST_COUNTERS = (*_FIRST_KINDS, "first", "first_deferred")


def _kinds(names: Sequence[str]) -> str:
    coded = ", ".join(f"'{name}' = {CODES[Kind(name)]}" for name in names)
    return f"kind Enum8({coded})"


def _counters(names: Sequence[str]) -> tuple[str, ...]:
    # Aggregating rather than Summing: the sums are the same, and merging takes half the time (26.9, 2026-11).
    return tuple(f"{name} SimpleAggregateFunction(sum, UInt64) {_SMALL}" for name in names)


def _labels(names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_TEXT}" for name in names)


# What is random can't be made smaller: trying costs, so recipient, message and key stand as they are.
_EVENTS = Table(
    "events",
    f"""
    at {_STAMP}, sent_at {_STAMP}, seen_at {_STAMP},
    {_kinds(_FIRST_KINDS)},
    attempt UInt16 {_SMALL},
    count UInt32 {_SMALL},
    {_labels(LABELS)},
    recipient FixedString(16) CODEC(NONE),
    message FixedString(16) CODEC(NONE),
    key UInt64 CODEC(NONE),
    code UInt16 {_SMALL},
    dsn {_TEXT},
    relay {_TEXT},
    reply String CODEC(ZSTD),
    source {_TEXT},
    batch UInt64 CODEC(Delta, ZSTD)
    """.strip(),
    "ReplacingMergeTree",
    "PARTITION BY toDate(at) ORDER BY (toStartOfHour(at), ip, provider, key)",
    shard="key",
)


def _grain(grain: Grain) -> tuple[Table, Table]:
    """The tables of a grain: its counts, and what its series are."""
    types = {
        "at": "DateTime('UTC') CODEC(Delta, ZSTD)",
        "sent_at": "DateTime('UTC') CODEC(Delta, ZSTD)",
        "lag": "UInt8 CODEC(ZSTD)",
    }
    first, *others = grain.keys
    columns = (
        *(f"{key} {types[key]}" for key in grain.keys),
        "series UInt64",
        *_counters(_FIRST_COUNTERS),
    )
    month, day = f"PARTITION BY toYYYYMM({first})", f"PARTITION BY toDate({first})"
    order = ("series", first, *others) if grain.by_series else (first, "series", *others)
    counts = Table(
        grain.name,
        ", ".join(columns),
        "AggregatingMergeTree",
        f"{month if grain.monthly else day} ORDER BY ({', '.join(order)})",
        shard="series",
    )
    series = Table(
        grain.series,
        f"day Date, series UInt64, {_labels(grain.labels)}",
        "ReplacingMergeTree",
        f"PARTITION BY {'toYYYYMM(day)' if grain.monthly else 'day'} ORDER BY (series, day)",
        shard="series",
    )
    return counts, series


# What stood at some height at a time: a listing, a score, a verdict. Told again it replaces what was told before.
_LEVELS = Table(
    "levels",
    f"""
    at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    seen_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    kind {_TEXT},
    {_labels(LABELS)},
    name {_TEXT},
    value Float64 CODEC(ZSTD),
    text String CODEC(ZSTD),
    source {_TEXT},
    key UInt64 CODEC(NONE)
    """.strip(),
    "ReplacingMergeTree(seen_at)",
    "PARTITION BY toYYYYMM(at) ORDER BY (kind, name, at, key)",
    shard="key",
)

_VERSIONS = Table("migrations", "version UInt32", "MergeTree", "ORDER BY version", shard="version")
# Applied in order, each once and for good: add, never change what was released.
MIGRATIONS: tuple[tuple[Change, ...], ...] = (
    (
        _EVENTS,
        *_grain(GRAINS["leaf"]),
        *_grain(GRAINS["minute"]),
        *_grain(GRAINS["hour"]),
    ),
    (
        # Consent by category and reference; reply_class is what a reply says, called its class everywhere else.
        Columns(
            "events",
            tuple(
                f"{column} {kind} DEFAULT '' CODEC(ZSTD)"
                for column, kind in (
                    ("consent", "LowCardinality(String)"),
                    ("consent_ref", "String"),
                    ("reply_class", "LowCardinality(String)"),
                )
            ),
        ),
        _LEVELS,
    ),
    (
        # What people say by other ways than a complaint, what nobody vouches for, and how a report was attributed.
        Types("events", (_kinds([kind.value for kind in CODES]),)),
        Columns("events", ("found_by LowCardinality(String) DEFAULT '' CODEC(ZSTD)",)),
        *(Columns(name, _counters(("unsubscribed", "returned", "not_spam"))) for name in GRAINS),
    ),
)
TABLES = (
    "events",
    *(name for grain in GRAINS.values() for name in (grain.name, grain.series)),
    "levels",
)  # all that retention and backups are about
VERSION = len(MIGRATIONS)


def steps(nodes: Nodes, done: int = 0, upto: int = VERSION) -> Iterator[str]:
    """The statements from version ``done`` to ``upto``, in order.

    Each may be run again to no effect. So a migration that a crash cut short is begun anew, two nodes may migrate at
    the same time, and rows go in meanwhile: a statement adds, and takes nothing away.
    """
    yield from nodes.statements(_VERSIONS)
    for version, changes in enumerate(MIGRATIONS[done:upto], start=done + 1):
        for change in changes:
            yield from nodes.statements(change)
        yield f"INSERT INTO migrations VALUES ({version})"  # noqa: S608  # a number of ours


def version(facts: Facts) -> int:
    """The version that the tables have; 0 where there are none.

    Raises:
        ValueError: a newer release wrote them.
    """
    for statement in facts.nodes.statements(_VERSIONS):
        facts.command(statement)
    done = int(facts.query("SELECT max(version) AS version FROM migrations")["version"][0].as_py())
    if done > VERSION:
        raise ValueError(f"the facts have schema {done}, this release knows {VERSION}: use the newer release")
    return done


def migrate(facts: Facts, *, upto: int = VERSION) -> None:
    """Bring the tables to version ``upto``; nothing where they are there.

    Raises:
        ValueError: the facts were written by a newer release.
        FactsError: the engine refused a statement; the next call begins where this one ended.
    """
    done = version(facts)
    if done < upto:
        for statement in steps(facts.nodes, done, upto):
            facts.command(statement)
