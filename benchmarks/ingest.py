"""The whole road of events beside a bare insert of the same rows, in the same engine.

``road``: NDJSON bodies of 1,000 lines in memory → checked, on disk, pseudonymised, deduplicated, stored, summed in
three grains; until the last is counted. ``bare``: the same rows as ready Arrow batches of 100,000 into a table like
``events``, with the engine's own settings for an insert and synced, but without looking for repeats and without grains.
In turn, a process each, medians. Then pandas and Parquet beside it, and the memory of a real core that is told more and
more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import clickhouse_connect
import numpy as np
import pyarrow as pa

from benchmarks import _events, _peers
from benchmarks._bar import bar
from benchmarks._core import cpu_seconds, resident, started
from collectors._decode import check, columns
from monitor import pipeline
from monitor.core_process import SWITCH
from monitor.facts import queries
from monitor.facts.blocks import whole
from monitor.facts.prepare import prepare
from monitor.keyring import Keyring
from monitor.model import Batch
from monitor.stores import Stores
from tests.waiting import until

QUICK = bool(os.environ.get("QUICK"))
EVENTS = 300_000 if QUICK else 1_000_000
ROUNDS = 1 if QUICK else 3
BODY = 1_000
BATCH = 100_000
PEERS = 16  # that tell at a time
LOADS: dict[str, dict[str, Any]] = {"dense": {}, "thin": {"thin": True}, "zipf": {"sellers": 40_000}}
MEMORY = (300_000, 900_000) if QUICK else (1_000_000, 20_000_000)
IDLE = 8 if QUICK else 45  # seconds
BOUNDS = (_events.UNTIL - timedelta(days=30), _events.UNTIL + timedelta(minutes=10))


def main() -> int:
    """The exit status: 1 when a bar is short."""
    holds = []
    for load in LOADS:
        took: dict[str, list[float]] = {"road": [], "bare": [], "plain": []}
        for _ in range(ROUNDS):
            for what, seconds in took.items():
                seconds.append(measured(what, load))
        rates = {what: EVENTS / median(seconds) for what, seconds in took.items()}
        told = ", ".join(f"{what} {rate:,.0f} events/s" for what, rate in rates.items())
        print(
            f"ingest: {load}: {told} (plain: into a table that collapses nothing, {rates['road'] / rates['plain']:.2f})"
        )
        holds.append(bar(f"ingest.{load}_vs_bare", rates["road"] / rates["bare"], "ratio", ">=0.4"))
        if load == "dense":
            holds.append(bar("ingest.vs_pandas", pandas() / median(took["road"]), "ratio", ">=2"))
    holds += memory()
    return 0 if all(holds) else 1


def measured(what: str, load: str) -> float:
    """Seconds of one run in a process of its own, after what it found was held against what there is."""
    with _peers.child(sys.executable, "-m", "benchmarks.ingest", what, load) as child:
        answer = child.ask()
    assert answer["right"], f"{what} {load}: {answer}"
    return float(answer["seconds"])


def road(load: str, stores: Stores) -> dict[str, Any]:
    """Events that come as fast as they are taken, while the applier applies them."""
    bodies = list(_events.chunks(events=EVENTS, per_chunk=BODY, **LOADS[load]))
    expected = _events.expected(events=EVENTS)
    stop = threading.Event()
    applying = threading.Thread(target=stores.applier.run, args=(stop,))

    def tell(body: bytes) -> int:
        checked = check(body, BOUNDS)
        return pipeline.take_lines(
            checked, stores.spool, stores.keyring, source="http", node="bench", now=_events.UNTIL
        )

    sys.setswitchinterval(SWITCH)
    began = time.perf_counter()
    applying.start()
    with ThreadPoolExecutor(PEERS) as peers:  # who wait for the disk together
        last = max(peers.map(tell, bodies))
    assert stores.applier.reached(last, stop)
    seconds = time.perf_counter() - began
    stop.set()
    applying.join()
    told = queries.totals(stores.facts)
    right = told["rows"] == told["keys"] == expected.events
    counted = Counter(expected.kinds)  # a kind that the load has none of is zero
    right = right and all(Counter(told[grain]) == counted for grain in ("events", "leaf", "minute", "hour"))
    return {"seconds": seconds, "right": right}


def bare(load: str, stores: Stores, *, plain: bool) -> dict[str, Any]:
    """The rows that the road would store, ready in memory, one block after the other."""
    tables = ready(load, stores.keyring)
    engine = " ENGINE = MergeTree PARTITION BY toDate(at) ORDER BY (toStartOfHour(at), ip, provider, key)"
    stores.facts.command(f"CREATE TABLE bare AS events{engine if plain else ''}")
    usual = clickhouse_connect.get_client(dsn=str(stores.facts.place), settings={"async_insert": 0})
    began = time.perf_counter()
    for number, table in enumerate(tables):
        usual.insert_arrow("bare", table, settings={"insert_deduplication_token": str(number)})
    seconds = time.perf_counter() - began
    usual.close()
    rows = stores.facts.query("SELECT count() AS n FROM bare")["n"][0].as_py()
    return {"seconds": seconds, "right": rows == _events.expected(events=EVENTS).events}


def ready(load: str, keyring: Keyring) -> list[pa.Table]:
    parts = []
    for chunk in _events.chunks(events=EVENTS, per_chunk=BATCH, **LOADS[load]):
        batch = Batch(columns(check(chunk, BOUNDS).lines))
        parts.append(prepare(batch, "http", keyring, _events.UNTIL, bounds=None)[0])
    table = pa.concat_tables(parts)
    first = np.unique(table["key"].to_numpy(), return_index=True)[1]
    table = table.take(pa.array(np.sort(first)))
    numbers = pa.array(np.arange(len(table), dtype=np.uint64) // BATCH)
    table = table.append_column("batch", numbers)
    return [whole(table.slice(start, BATCH)) for start in range(0, len(table), BATCH)]


def pandas() -> float:
    """Seconds of the peer for the dense load, the median of as many rounds."""
    peer = _peers.python()
    with tempfile.TemporaryDirectory(prefix="mailvane-bench-") as folder:
        lines = Path(folder) / "events.ndjson"
        with lines.open("wb") as file:
            file.writelines(_events.chunks(events=EVENTS))
        command = (peer, _peers.PEERS / "pandas_parquet.py", lines, Path(folder) / "out", BATCH)
        told = [subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True) for _ in range(ROUNDS)]
        took = [float(json.loads(each.stdout)["seconds"]) for each in told]
    print(f"ingest: pandas and Parquet {EVENTS / median(took):,.0f} events/s")
    return median(took)


def memory() -> Iterator[bool]:
    """The resident memory of a real core after few and after many events, and what it costs when nothing comes."""
    with tempfile.TemporaryDirectory(prefix="mailvane-bench-") as folder, started(Path(folder)) as core:
        found, told = [], 0
        bodies = _events.chunks(events=MEMORY[-1], per_chunk=5_000, until=core.now)
        for many in MEMORY:
            peak = tell(core.port, islice(bodies, (many - told) // 5_000), core.pid)
            told = many
            until(core.applied, "all to be counted", 300)
            found.append(max(peak, resident(core.pid)))
            print(f"ingest: core took {many:,} events, {found[-1]:.0f} MB at most", flush=True)
        began, used = time.monotonic(), cpu_seconds(core.pid)
        time.sleep(IDLE)
        idle = (cpu_seconds(core.pid) - used) / (time.monotonic() - began)
    yield bar("ingest.memory_growth", found[-1] / found[0], "ratio", "<=1.1")
    yield bar("ingest.core_rss", max(found), "MB", "<=1200")
    yield bar("ingest.idle_core", 100 * idle, "%", "<2")


def tell(port: int, bodies: Iterator[bytes], pid: int) -> float:
    """Post the bodies over four connections, again where the core asks for patience; the most memory seen meanwhile."""
    local = threading.local()
    peak = 0.0

    def post(body: bytes) -> None:
        nonlocal peak
        client = local.__dict__.setdefault("client", HTTPConnection("127.0.0.1", port, timeout=60))
        while True:
            client.request("POST", "/v1/events", body)
            answer = client.getresponse()
            said = answer.read()
            if answer.status == 202:
                break
            assert answer.status == 429, said
            time.sleep(float(answer.headers["Retry-After"]))
        peak = max(peak, resident(pid))

    with ThreadPoolExecutor(4) as threads:
        while some := list(islice(bodies, 40)):
            list(threads.map(post, some))
    return peak


def child(arguments: Sequence[str]) -> None:
    """Measure once, when asked for it."""
    what, load = arguments
    sys.stdin.readline()
    with tempfile.TemporaryDirectory(prefix="mailvane-bench-") as folder:
        stores = Stores(Path(folder) / "data")
        try:
            told = road(load, stores) if what == "road" else bare(load, stores, plain=what == "plain")
        finally:
            stores.close()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        child(sys.argv[1:])
    else:
        sys.exit(main())
