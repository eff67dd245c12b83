"""A million events more where 50 million are stored, beside the same million into an empty store; and what they weigh.

Both take the whole road: NDJSON in memory → checked, on disk, applied, until the last is counted. In turn, each in a
process of its own that opens its store anew. A few events go first: what they take is told apart, since the keys of the
days that they touch are read back then, once after each start. The 50 million are the seven days before, stored in
bulk.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import _events, _peers, _stored
from benchmarks._bar import bar
from collectors._decode import check
from monitor import pipeline
from monitor.facts import schema
from monitor.facts.grains import GRAINS
from monitor.facts.store import Facts
from monitor.stores import Stores

QUICK = bool(os.environ.get("QUICK"))
STORED = 1_000_000 if QUICK else 50_000_000
MORE = 250_000 if QUICK else 1_000_000
PAIRS = 3 if QUICK else 5
BODY = 1_000
SPAN = _stored.DAYS * STORED / 50_000_000  # as many a minute, however many there are
FIRST = 50_000  # after which a service has all days in its window
MORE_TAKES = timedelta(minutes=MORE / _events.DENSE)


def main() -> int:
    """The exit status: 1 when a bar is short."""
    with tempfile.TemporaryDirectory(prefix="mailvane-bench-") as folder:
        grown, empty = Path(folder) / "grown", Path(folder) / "empty"
        asked("fill", grown)
        ratios = []
        for pair in range(1, PAIRS + 1):
            took, woke, used = {}, {}, {}
            for store in (empty, grown) if pair % 2 else (grown, empty):
                told = asked("more", store, pair)
                took[store.name], woke[store.name], used[store.name] = told["seconds"], told["first"], told["used"]
                shutil.rmtree(empty, ignore_errors=True)
            ratios.append(took["empty"] / took["grown"])
            rates = ", ".join(
                f"{name} {MORE / seconds:,.0f} events/s, {used[name]:.1f} s of processors"
                for name, seconds in took.items()
            )
            print(f"growth: {MORE:,} more, pair {pair} of {PAIRS}: {rates}", flush=True)
            first = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in woke.items())
            print(f"growth: the {FIRST:,} before them, with the keys of their days: {first}", flush=True)
        weights = asked("weigh", grown)
    events = next(table["rows"] for table in weights["tables"] if table["name"] == "events")
    weigh(weights, events)
    whole = sum(table["bytes"] for table in weights["tables"])
    holds = [
        bar("growth.ratio", median(ratios), "ratio", ">=0.8"),
        bar("growth.bytes_per_event", whole / events, "bytes", "<=90"),
    ]
    return 0 if all(holds) else 1


def weigh(weights: dict[str, Any], events: int) -> None:
    """Print what each table takes, and each column that takes a hundredth of a byte an event or more."""
    for table in weights["tables"]:
        print(f"growth: {table['name']}: {table['rows']:,} rows, {table['bytes'] / events:.2f} bytes an event")
        columns = [column for column in weights["columns"] if column["of"] == table["name"]]
        shown = [f"{each['name']} {each['bytes'] / events:.2f}" for each in columns if each["bytes"] >= events / 100]
        if shown:
            print(f"growth:   {', '.join(shown)}")


def asked(what: str, folder: Path, number: int = 0) -> dict[str, Any]:
    """The answer of a process of its own."""
    with _peers.child(sys.executable, "-m", "benchmarks.growth", what, folder, number) as child:
        return child.ask()


def serve(what: str, folder: Path, number: int) -> None:
    """Answer once: as told on the command line."""
    sys.stdin.readline()
    stores = Stores(folder)
    try:
        if what == "fill":
            _stored.fill(stores.facts, STORED, _events.UNTIL, SPAN, told="growth")
            told: dict[str, Any] = {}
        else:
            told = more(stores, number) if what == "more" else _weights(stores.facts)
    finally:
        stores.close()
    print(json.dumps(told), flush=True)


def more(stores: Stores, number: int) -> dict[str, float]:
    """Seconds that the next events take, while they are applied as they come; and the ``first`` of all before them."""
    until = _events.UNTIL + number * MORE_TAKES
    loads = ((FIRST, 1000 + number), (MORE, number))
    before = counted(stores.facts)
    (first, _), (seconds, used) = (
        road(stores, list(_events.chunks(events=events, seed=seed, per_chunk=BODY, until=until)), until)
        for events, seed in loads
    )
    expected = Counter[str]()
    for events, seed in loads:
        expected.update(_events.expected(events=events, seed=seed).kinds)
    after = counted(stores.facts)
    for table, counts in after.items():
        assert {kind: n - before[table][kind] for kind, n in counts.items()} == expected, (table, before, after)
    return {"seconds": seconds, "used": used, "first": first}


def road(stores: Stores, bodies: list[bytes], now: datetime) -> tuple[float, float]:
    """Seconds from the first body to the last count, and those that the process had of its processors meanwhile."""
    bounds = (now - timedelta(days=30), now + timedelta(minutes=10))
    stop = threading.Event()
    applying = threading.Thread(target=stores.applier.run, args=(stop,))
    began, used = time.perf_counter(), time.process_time()
    applying.start()
    last = 0
    for body in bodies:
        checked = check(body, bounds)
        last = pipeline.take_lines(checked, stores.spool, stores.keyring, source="http", node="bench", now=now)
    assert stores.applier.reached(last, stop)
    took = time.perf_counter() - began, time.process_time() - used
    stop.set()
    applying.join()
    return took


def counted(facts: Facts) -> dict[str, dict[str, int]]:
    """How many of each kind there are, by table."""
    raw = ", ".join(f"sumIf(count, kind = '{kind}') AS {kind}" for kind in _events.KINDS)
    sums = ", ".join(f"sum({kind}) AS {kind}" for kind in _events.KINDS)
    asked = {"events": raw} | dict.fromkeys(GRAINS, sums)
    return {table: facts.query(f"SELECT {made} FROM {table}").to_pylist()[0] for table, made in asked.items()}


def _weights(facts: Facts) -> dict[str, Any]:
    """Bytes on disk by table, marks and indices included, and by column, the largest first."""
    values = {"tables": [facts.nodes.local(table) for table in schema.TABLES]}
    where = "WHERE active AND concat(database, '.', table) IN {tables:Array(String)}"
    tables = "SELECT table AS name, sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts"
    columns = "SELECT table AS of, column AS name, sum(column_bytes_on_disk) AS bytes FROM system.parts_columns"
    return {
        "tables": facts.query(f"{tables} {where} GROUP BY name ORDER BY bytes DESC", **values).to_pylist(),
        "columns": facts.query(f"{columns} {where} GROUP BY of, name ORDER BY bytes DESC", **values).to_pylist(),
    }


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(main())
