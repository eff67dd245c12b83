"""Questions to a store of 10 and of 50 million events of seven days: to its grains, to its raw events, and to DuckDB.

The grains answer by the product's own functions, the raw events by the same question in SQL; both answers must be
alike. Warm and in turn, the quickest of some askings in each round and the median of the rounds. What is timed is the
engine, until the answer is there as Arrow. DuckDB has the same raw rows in a table of its own, in the same order.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import _events, _peers, _stored
from benchmarks._bar import bar
from benchmarks._questions import COMPLAINTS, DAY, ENOUGH, IP, Timed, questions
from monitor.dsn import Embedded
from monitor.facts.grains import GRAINS
from monitor.facts.store import Facts
from monitor.model import LABELS

QUICK = bool(os.environ.get("QUICK"))
SIZES = (400_000, 2_000_000) if QUICK else (10_000_000, 50_000_000)
ROUNDS = 3 if QUICK else 5
LEAST, MOST, SHORT = 3, 15, 0.15  # askings in a round, and seconds of them that are enough
SPAN = timedelta(hours=6) if QUICK else _stored.DAYS  # about as many events a minute either way
COLUMNS = ["at", "sent_at", "seen_at", "kind", "count", *LABELS]  # all that is asked for
KNOWN = {
    "since": int((_events.UNTIL - SPAN).timestamp()),
    "until": int(_events.UNTIL.timestamp()),
    "day": int((_events.UNTIL - min(SPAN, DAY)).timestamp()),
    "ip": IP,
    "enough": ENOUGH,
    "providers": list(COMPLAINTS.providers),
}
# More mail fills more keys of these, lags of an hour and a leaf's minutes of sending: their growth is told by the row.
FILLING = {"cohorts": "hour", "cause": "leaf"}
WAYS = ("grains", "raw", "duckdb")
Took = dict[tuple[str, str, int], float]  # seconds by question, way and size


def main() -> int:
    """The exit status: 1 when a bar is short."""
    with tempfile.TemporaryDirectory(prefix="mailvane-bench-") as folder, ExitStack() as opened:
        asked = {size: _filled(opened, Path(folder) / str(size), size) for size in SIZES}
        small, large = (asked[size]["ours"].ask(count=True)["rows"] for size in SIZES)
        took = measured(asked)
    for name in questions(SPAN):
        for size in SIZES:
            told = ", ".join(f"{way} {took[name, way, size] * 1e3:.1f} ms" for way in WAYS)
            print(f"queries: {name} of {size:,} events: {told}")
    grown = ", ".join(f"{grain} {large[grain] / small[grain]:.2f}" for grain in GRAINS)
    print(f"queries: {SIZES[1] / SIZES[0]:.0f} times the events made so many times the rows: {grown}")
    if QUICK:
        print("queries: one IP has too few of two million events for its time to be one of rows: no bar against raw")
    filled = {name: large[grain] / small[grain] for name, grain in FILLING.items()}
    return 0 if all(list(_bars(took, filled))) else 1


def _bars(took: Took, filled: dict[str, float]) -> Iterator[bool]:
    small, large = SIZES
    for name in questions(SPAN):
        if not QUICK or name != "one_ip":
            ratio = min(took[name, "raw", size] / took[name, "grains", size] for size in ((large,) if QUICK else SIZES))
            yield bar(f"queries.{name}.rollup_vs_raw", ratio, "ratio", ">=3")
        grown = took[name, "grains", large] / took[name, "grains", small] / filled.get(name, 1)
        yield bar(f"queries.{name}.growth", grown, "ratio", "<=1.5")
    beside = took["one_ip", "grains", large] / took["one_ip", "duckdb", large]
    yield bar("queries.one_ip.vs_duckdb", beside, "ratio", "<=5")


def _filled(opened: ExitStack, folder: Path, size: int) -> dict[str, _peers.Child]:
    """A store of ours and DuckDB's with so many events, each in a process that answers."""
    rows = folder / "rows"
    rows.mkdir(parents=True)
    ours = opened.enter_context(_peers.child(sys.executable, "-m", "benchmarks.queries", folder, size))
    ours.ask(fill=str(rows))
    peer = opened.enter_context(_peers.child(_peers.python(), _peers.PEERS / "duckdb_raw.py", folder / "events.duckdb"))
    told = peer.ask(load=str(rows / "*.parquet"))
    assert told["rows"] == size, told
    print(f"queries: {size:,} events stored; DuckDB read them in {told['seconds']:.0f} s", flush=True)
    for file in rows.iterdir():
        file.unlink()
    return {"ours": ours, "duckdb": peer}


def measured(asked: dict[int, dict[str, _peers.Child]]) -> Took:
    """Each question in each way to each store, in turn."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for turn in range(ROUNDS + 1):
        print(f"queries: round {turn} of {ROUNDS}", file=sys.stderr, flush=True)
        for name in questions(SPAN):
            for size, stores in asked.items():
                said = {}
                for way in WAYS:
                    seconds, said[way] = _quickest(stores, name, way)
                    if turn:  # the first warms, and is not counted
                        found.setdefault((name, way, size), []).append(seconds)
                assert said["grains"] == said["raw"], f"{name} of {size}: the answers differ"
    return {key: median(times) for key, times in found.items()}


def _quickest(stores: dict[str, _peers.Child], name: str, way: str) -> tuple[float, Any]:
    """The least seconds of some askings, more of what is quick, and what was said."""
    took: list[float] = []
    while len(took) < LEAST or (sum(took) < SHORT and len(took) < MOST):
        answer = stores["duckdb"].ask(ask=name, **KNOWN) if way == "duckdb" else stores["ours"].ask(name=name, way=way)
        took.append(answer["seconds"])
    return min(took), answer.get("said")


def serve(folder: Path, size: int) -> None:
    """Fill a store when asked to, then answer questions to it."""
    facts = Facts.open(str(Embedded(str(folder / "facts"))))
    known = questions(SPAN)
    for line in sys.stdin:
        asked = json.loads(line)
        if "fill" in asked:
            _fill(facts, size, Path(asked["fill"]))
            told: dict[str, Any] = {}
        elif "count" in asked:
            counts = {grain: facts.query(f"SELECT count() AS n FROM {grain}")["n"][0].as_py() for grain in GRAINS}
            told = {"rows": counts}
        else:
            question, timed = known[asked["name"]], Timed(facts)
            found = question.grains(timed) if asked["way"] == "grains" else question.raw(timed)
            told = {"seconds": timed.seconds, "said": hash(str(question.plain(found)))}
        print(json.dumps(told), flush=True)
    facts.close()


def _fill(facts: Facts, size: int, rows: Path) -> None:
    # Without a zone: DuckDB knows zones by an extension that it would download.
    stamps = dict.fromkeys(("at", "sent_at", "seen_at"), pa.timestamp("ms"))
    kinds = {"count": pa.uint32(), **stamps}
    naive = pa.schema([(name, kinds.get(name, _stored.NAME)) for name in COLUMNS])

    def beside(block: int, table: pa.Table) -> None:
        pq.write_table(table.select(COLUMNS).cast(naive), rows / f"{block:04}.parquet", compression="lz4")

    _stored.fill(facts, size, _events.UNTIL, SPAN, told="queries", beside=beside)


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        sys.exit(main())
