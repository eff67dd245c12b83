"""Batches of 1,000 events over HTTP, until they are checked and synced, beside the same server that does nothing.

In most batches a line or two are no events, as ``_events`` has it. Server and load have a processor each, where there
are two. In turn, medians.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import _events, _http
from benchmarks._bar import bar
from benchmarks._core import now, started

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 4 if QUICK else 9
SECONDS = 2.0 if QUICK else 4.0
LINES = 1_000
BODIES = 200
CONNECTIONS = 16
SERVER = "import sys; from benchmarks.peers import receiver; receiver.serve('{what}', sys.argv[1])"


def main() -> int:
    """The exit status: 1 when the bar is short."""
    bodies = _events.chunks(events=BODIES * LINES, per_chunk=LINES, until=now())
    asked = [_http.post("/v1/events", body) for body in bodies]
    processors = sorted(os.sched_getaffinity(0))
    rates: dict[str, list[float]] = {"noop": [], "take": []}
    with ExitStack() as opened:
        ports = {}
        for what in rates:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailvane-bench-")))
            ports[what] = opened.enter_context(started(folder, SERVER.format(what=what))).port
        os.sched_setaffinity(0, {processors[-1]})
        for _ in range(ROUNDS):
            for what, port in ports.items():
                rates[what].append(LINES * _http.run(_http.flood(port, asked, SECONDS, CONNECTIONS)))
        os.sched_setaffinity(0, processors)
    print(f"http_ingest: no-op {median(rates['noop']):,.0f} events/s, taken {median(rates['take']):,.0f} events/s")
    ratios = [mine / other for mine, other in zip(rates["take"], rates["noop"], strict=True)]
    return 0 if bar("http_ingest.vs_noop", median(ratios), "ratio", ">=0.5") else 1


if __name__ == "__main__":
    sys.exit(main())
