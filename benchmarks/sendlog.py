"""A Postfix log beside pflogsumm: the same file in the same run, in turn, median of three.

``parse``: bytes to columns, within this process. ``import``: the whole of ``mailvane import sendlog``, from the start
of the process to counted rows in a store. The log is the real one of the shared corpus, rewritten to the stamps that
pflogsumm knows and repeated; without the corpus one of our own making.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks._bar import bar
from collectors.sendlog import Sendlog

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("MAILVANE_SHARED") or ROOT.parent / "shared")
REAL = "corpus/mta_logs/FgForrest*/**/mail.log.2.lines00001-30000.gz"
LINES = 600_000
CHUNK = 256 * 1024
ROUNDS = 3
ZONE = "Europe/Prague"


def main() -> int:
    """The exit status: 1 when a bar is short."""
    if not shutil.which("pflogsumm"):
        print("sendlog: skipped, pflogsumm is not installed (Debian package pflogsumm)")
        return 0
    with tempfile.TemporaryDirectory(prefix="mailvane-bench-") as folder:
        log = Path(folder) / "mail.log"
        count = write(log)
        runs: dict[str, Callable[[], object]] = {"parse": lambda: parse(log), "pflogsumm": lambda: pflogsumm(log)}
        command = Path(sys.executable).with_name("mailvane")
        if command.exists():
            runs["import"] = lambda: whole(command, log, Path(folder))
        else:
            print("sendlog: import skipped, the command mailvane is not installed beside this Python")
        took = {name: median(times) for name, times in timed(runs).items()}
    for name, seconds in took.items():
        print(f"sendlog: {name} {seconds:.2f} s, {count / seconds:,.0f} lines/s")
    holds = [
        bar(f"sendlog.{name}_vs_pflogsumm", took["pflogsumm"] / took[name], "ratio", ">1")
        for name in runs
        if name != "pflogsumm"
    ]
    return 0 if all(holds) else 1


def timed(runs: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each, in turn, so that a busy minute is everybody's."""
    took: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            took[name].append(time.perf_counter() - began)
    return took


def parse(log: Path) -> int:
    """Outcomes found."""
    parser = Sendlog(path=log, timezone=ZONE).parser(datetime.now(UTC))
    with log.open("rb", buffering=0) as file:
        found = sum(len(parser.feed(chunk)) for chunk in iter(lambda: file.read(CHUNK), b""))
    return found + len(parser.finish())


def pflogsumm(log: Path) -> None:
    """Its whole report."""
    subprocess.run(["pflogsumm", log], check=True, stdout=subprocess.DEVNULL)


def whole(command: Path, log: Path, folder: Path) -> None:
    """An import into a store of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        told = ["import", "sendlog", str(log), "--timezone", ZONE, "--data", data]
        subprocess.run([str(command), *told], check=True, cwd=folder, stdout=subprocess.DEVNULL)


def write(log: Path) -> int:
    """The log that is read; its lines."""
    found = sorted(SHARED.glob(REAL))
    if not found:
        print("sendlog: the shared corpus is not here, so the log is one of our own making")
        with log.open("w") as file:
            file.writelines(made())
    else:
        with gzip.open(found[0], "rt", errors="replace") as file:
            # "2013 Jun 10 06:27:30.123" → "Jun 10 06:27:30"
            once = re.sub(r"^\d{4} (\w{3}) 0?(\d{1,2}) ([\d:]{8})\.\d+", r"\1 \2 \3", file.read(), flags=re.MULTILINE)
        log.write_text(once * (LINES // once.count("\n")))
    with log.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(CHUNK), b""))


def made(lines: int = LINES, seed: int = 1) -> Iterator[str]:
    """Messages with the lines that Postfix writes about each, a good tenth of them deferred or bounced."""
    luck, at = random.Random(seed), datetime(2001, 6, 10, 6, 0, 0, tzinfo=UTC)
    relays = [f"mx{n}.provider{n % 40}.example[192.0.2.{n % 250}]:25" for n in range(200)]
    for number in range(lines // 7):
        at += timedelta(milliseconds=luck.randrange(60))
        stamp, qid = f"{at:%b %e %H:%M:%S} mail1 postfix", f"{number:010X}"
        status = luck.choices(("sent", "deferred", "bounced"), (85, 10, 5))[0]
        reply = {"sent": "250 2.0.0 Ok: queued", "deferred": "host x said: 450 later", "bounced": "host x said: 550 no"}
        yield f"{stamp}/smtpd[11]: connect from app[10.0.0.1]\n"
        yield f"{stamp}/smtpd[11]: {qid}: client=app[10.0.0.1]\n"
        yield f"{stamp}/cleanup[12]: {qid}: message-id=<{number}@shop.example>\n"
        yield f"{stamp}/qmgr[13]: {qid}: from=<news@shop.example>, size=3000, nrcpt=1 (queue active)\n"
        yield (
            f"{stamp}/smtp[14]: {qid}: to=<r{luck.randrange(10**6)}@box.example>, relay={luck.choice(relays)}, "
            f"delay=1.2, delays=0.1/0/0.5/0.6, dsn=2.0.0, status={status} ({reply[status]} {number})\n"
        )
        yield f"{stamp}/smtpd[11]: disconnect from app[10.0.0.1]\n"
        yield f"{stamp}/qmgr[13]: {qid}: removed\n"


if __name__ == "__main__":
    sys.exit(main())
