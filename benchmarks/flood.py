"""One key asks ten times as often as it may; what the others notice of it.

Ten others ask at an even pace all the time. In turn the greedy key asks as often as it may (the control) and ten times
as often, five times each. The loads share one processor and the core has the other, where there are two.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles

from benchmarks import _http
from benchmarks._bar import bar
from benchmarks._core import ROOT, started
from monitor.access import keys
from monitor.caller import Right
from monitor.ledger.db import open_ledger

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 5
SECONDS = 3.0 if QUICK else 10.0
MAY = 200  # requests a second of a key
TIMES = 10
OTHERS = 10
EACH = 5.0  # requests a second


def main() -> int:
    """The exit status: 1 when a bar is short."""
    processors = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="mailvane-bench-") as name:
        folder = Path(name)
        made = made_keys(folder, OTHERS + 1)
        with started(folder, access=f'key_rate = "{MAY}/second"\n') as core:
            os.sched_setaffinity(0, {processors[-1]})
            asked = [asking(key) for key in made[1:]]
            tails: dict[int, list[float]] = {1: [], TIMES: []}
            shed: list[float] = []
            for _ in range(ROUNDS):
                for times, tail in tails.items():
                    with greedy(core.port, made[0], MAY * 0.9 if times == 1 else MAY * times) as told:
                        took = _http.run(_http.paced(core.port, asked, OTHERS * EACH, SECONDS, OTHERS))
                    tail.append(quantiles(took, n=100)[98])
                    if times == TIMES:
                        shed.append(refused(told))
    for times, found in tails.items():
        print(f"flood: others' p99 at {times:2d} x: " + ", ".join(f"{1000 * one:.1f}" for one in found) + " ms")
    ratios = [flooded / control for flooded, control in zip(tails[TIMES], tails[1], strict=True)]
    print(f"flood: of the greedy key's requests {median(shed):.0%} were turned away")
    return 0 if bar("flood.others_p99", median(ratios), "ratio", "<=1.5") else 1


def made_keys(folder: Path, count: int) -> list[str]:
    """Keys that may read, in the ledger before the core begins."""
    ledger = open_ledger(folder / "data/ledger.sqlite")
    now = datetime.now(UTC)
    try:
        with ledger.begin() as conn:
            return [
                keys.make(conn, f"key {number}", {Right.READ}, now=now, by="bench", expires=timedelta(days=1))[0]
                for number in range(count)
            ]
    finally:
        ledger.dispose()


def asking(key: str) -> bytes:
    return f"GET /v1/incidents HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


@contextmanager
def greedy(port: int, key: str, rate: float) -> Iterator[list[str]]:
    """A process that asks so often; its lines are there when the block has ended."""
    told: list[str] = []
    command = [sys.executable, "-m", "benchmarks._flood", str(port), key, str(rate)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()  # it is at its pace
        try:
            yield told
        finally:
            process.terminate()
            told.extend(process.stdout.read().splitlines())


def refused(told: list[str]) -> float:
    """The share of its requests that were turned away."""
    first, last = (list(map(int, line.split())) for line in (told[0], told[-1]))
    away, let_in = last[0] - first[0], last[1] - first[1]
    return away / (away + let_in)


if __name__ == "__main__":
    sys.exit(main())
