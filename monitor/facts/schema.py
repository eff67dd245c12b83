"""The facts' tables: raw events, and the three grains of counts that follow each insert by materialised view.

Every grain is keyed by a hash of its labels, which is quicker than by the labels themselves, and holds them beside it.
What a cluster needs otherwise (``Replicated…``, ``ON CLUSTER``) has its one place here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from monitor.facts.store import Facts
from monitor.keyring import CODES
from monitor.model import LABELS, Kind

MINUTE_LABELS = ("ip", "domain", "provider", "stream")
HOUR_LABELS = (*MINUTE_LABELS, "tenant", "segment", "campaign")
FIRST_OUTCOMES = (Kind.SENT, Kind.DEFERRED, Kind.BOUNCED, Kind.EXPIRED)
# Per kind, then first attempts and those that were deferred, for the rate of deferral.
COUNTERS = (*(kind.value for kind in Kind), "first", "first_deferred")
# Lag class k of the hour grain: seen_at - sent_at is at least edge k-1 and below edge k.
LAG_EDGES = (
    *(timedelta(minutes=minutes) for minutes in (1, 5, 15)),
    *(timedelta(hours=hours) for hours in (1, 3, 6, 12)),
    *(timedelta(days=days) for days in (1, 2, 4, 7)),
)

# Tokens are remembered for this many inserts: days of them at one a second or so, hours at least.
_TABLE = (
    "SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1,"
    " cleanup_delay_period = 10, max_cleanup_delay_period = 30"
)
_KINDS = ", ".join(f"'{kind}' = {code}" for kind, code in CODES.items())
_EVENTS = f"""
CREATE TABLE events (
    at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    sent_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    seen_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    kind Enum8({_KINDS}),
    attempt UInt16,
    count UInt32,
    {{labels}},
    recipient FixedString(16),
    message FixedString(16),
    key UInt64 CODEC(NONE),
    code UInt16,
    dsn LowCardinality(String),
    relay LowCardinality(String),
    reply String CODEC(ZSTD),
    source LowCardinality(String),
    batch UInt64 CODEC(Delta, ZSTD)
) ENGINE = ReplacingMergeTree
PARTITION BY toDate(at) ORDER BY (toStartOfHour(at), ip, provider, key) {_TABLE}
"""


def _labels(names: Sequence[str]) -> str:
    return ", ".join(f"{name} LowCardinality(String)" for name in names)


def _grain(name: str, times: Sequence[tuple[str, str]], names: Sequence[str], partition: str) -> tuple[str, str]:
    """The table of a grain and the view that fills it. ``times``: the column and what it is made of.

    Each column of the source is named with its table: the grain's own columns bear the same names.
    """
    kind = "events.kind"
    firsts = ", ".join(f"'{outcome}'" for outcome in FIRST_OUTCOMES)
    of = {
        **{each.value: f"{kind} = '{each}'" for each in Kind},
        "first": f"events.attempt = 1 AND {kind} IN ({firsts})",
        "first_deferred": f"events.attempt = 1 AND {kind} = '{Kind.DEFERRED}'",
    }
    types = {"at": "DateTime('UTC')", "sent_at": "DateTime('UTC')", "lag": "UInt8"}
    keys = [column for column, _ in times]
    table = (
        f"CREATE TABLE {name} ({', '.join(f'{key} {types[key]}' for key in keys)}, series UInt64, {_labels(names)},"
        f" {', '.join(f'{counter} UInt64' for counter in COUNTERS)})"
        f" ENGINE = SummingMergeTree(({', '.join(COUNTERS)})) PARTITION BY {partition}"
        f" ORDER BY ({keys[0]}, series{''.join(f', {key}' for key in keys[1:])}) {_TABLE}"
    )
    series = f"cityHash64({', '.join(f'events.{label}' for label in names)})"
    # One row an event: the table sums rows of one key as they come in, and quicker than a GROUP BY here would.
    view = (
        f"CREATE MATERIALIZED VIEW {name}_feed TO {name} AS"  # noqa: S608  # all names are ours
        f" SELECT {', '.join(f'{made} AS {column}' for column, made in times)}, {series} AS series,"
        f" {', '.join(f'events.{label} AS {label}' for label in names)},"
        f" {', '.join(f'if({of[counter]}, events.count, 0) AS {counter}' for counter in COUNTERS)}"
        " FROM events"
    )
    return table, view


def _lag() -> str:
    lag = "events.seen_at - events.sent_at"
    return " + ".join(f"({lag} >= {edge // timedelta(seconds=1)})" for edge in LAG_EDGES)


_MINUTE = ("at", "toStartOfMinute(events.at)")
_SENT_MINUTE = ("sent_at", "toStartOfMinute(events.sent_at)")
_SENT_HOUR = ("sent_at", "toStartOfHour(events.sent_at)")
# Applied in order, each once and for good: add, never change. One statement may have run before a crash, hence the
# IF NOT EXISTS that `migrate` puts in.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        _EVENTS.replace("{labels}", _labels(LABELS)),
        # The minute of sent_at is part of a leaf, so that a pause can be renewed by later messages alone.
        *_grain("leaf", (_MINUTE, _SENT_MINUTE), LABELS, "toDate(at)"),
        *_grain("minute", (_MINUTE,), MINUTE_LABELS, "toDate(at)"),
        *_grain("hour", (_SENT_HOUR, ("lag", _lag())), HOUR_LABELS, "toYYYYMM(sent_at)"),
    ),
)
GRAINS = ("leaf", "minute", "hour")
VERSION = len(_MIGRATIONS)


def migrate(facts: Facts) -> None:
    """Bring the tables to ``VERSION``.

    Raises:
        ValueError: the facts were written by a newer release.
    """
    facts.command("CREATE TABLE IF NOT EXISTS migrations (version UInt32) ENGINE = MergeTree ORDER BY version")
    done = facts.query("SELECT max(version) AS version FROM migrations")["version"][0].as_py()
    if done > VERSION:
        raise ValueError(f"the facts have schema {done}, this release knows {VERSION}: use the newer release")
    for version, statements in enumerate(_MIGRATIONS[done:], start=done + 1):
        for statement in statements:
            facts.command(_repeatable(statement))
        facts.command("INSERT INTO migrations VALUES ({version:UInt32})", version=version)


def _repeatable(statement: str) -> str:
    for made in ("CREATE TABLE ", "CREATE MATERIALIZED VIEW "):
        if statement.lstrip().startswith(made):
            return statement.replace(made, f"{made}IF NOT EXISTS ", 1)
    return statement
