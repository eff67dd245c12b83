"""Letters out of a folder of a real Dovecot, beside the bare library, in turn, medians.

``fetch_ratio``: the collector's whole way, which connects, lists, looks for large ones, fetches and marks as seen,
against a loop of the library that connects, lists and fetches. ``drain_ratio``: both move what they have fetched.
What letters mean is read by neither. ``renewals``: IDLE begun anew 2,000 times; nothing must grow.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks._bar import bar
from collectors._letters import Raw, Read
from collectors.imap import Imap
from monitor.model import Batch
from monitor.ports import Memory
from tests.letters import mixed
from tests.servers.dovecot import PASSWORD, Dovecot, dovecot

QUICK = bool(os.environ.get("QUICK"))
LETTERS = 2_000 if QUICK else 10_000
ROUNDS = 3 if QUICK else 5
RENEWALS = 2_000
AT_ONCE = 100  # letters that the bare library fetches fastest, or nearly


class Unread(Imap):
    """Hands letters over as they are."""

    def read(self, letters: Sequence[Raw], now: datetime) -> Read:  # noqa: ARG002  # as the port has it
        return Read(Batch({"content": [letter.content for letter in letters]}))


def main() -> int:
    """The exit status: 1 when a bar is short."""
    if os.geteuid() != 0 or not shutil.which("dovecot", path="/usr/sbin"):
        print("imap: skipped, it needs root and the Debian package dovecot-imapd")
        return 0
    with dovecot() as server:
        server.fill([letter.content for letter in mixed(LETTERS, datetime.now(UTC))])
        holds = [
            _ratio(server, "fetch_ratio", move=False),
            _ratio(server, "drain_ratio", move=True),
            *_renewals(server),
        ]
    return 0 if all(holds) else 1


def _ratio(server: Dovecot, figure: str, *, move: bool) -> bool:
    """Print a bar: rates of the collector over those of the bare library, one after the other."""
    rates: dict[str, list[float]] = {"imapclient": [], "collector": []}
    here, there = "INBOX", "Archive"
    for turn in range(2 * ROUNDS):
        name, way = (("imapclient", bare), ("collector", collected))[turn % 2]
        began = time.perf_counter()
        found = way(server, here, there if move else "")
        rates[name].append(found / (time.perf_counter() - began))
        if found != LETTERS:
            raise AssertionError(f"{name} found {found} letters of {LETTERS}")
        if move:
            here, there = there, here  # they go to and fro
    for name, found_rates in rates.items():
        print(f"imap: {figure}: {name} {median(found_rates):,.0f} letters/s, {LETTERS} letters")
    ratios = [mine / other for mine, other in zip(rates["collector"], rates["imapclient"], strict=True)]
    return bar(f"imap.{figure}", median(ratios), "ratio", ">=0.5")


def bare(server: Dovecot, here: str, to: str) -> int:
    """Letters that the library alone has fetched, and moved if there is a folder for them."""
    count = 0
    with server.client() as client:
        if to and not client.folder_exists(to):
            client.create_folder(to)
        client.select_folder(here)
        uids = client.search("ALL")
        for start in range(0, len(uids), AT_ONCE):
            some = uids[start : start + AT_ONCE]
            count += len(client.fetch(some, ["BODY.PEEK[]"]))
            if to:
                client.move(some, to)
    return count


def collected(server: Dovecot, here: str, to: str) -> int:
    """Letters that the collector has handed over, and moved if there is a folder for them."""
    with _source(server, folder=here, done={"move": to} if to else "seen") as source:
        return sum(len(batch) for batch in _until_empty(source))


def _until_empty(source: Imap) -> Iterator[Batch]:
    for batch in source.collect(Memory(), datetime.now(UTC)):
        yield batch
        if not batch.columns:
            return


def _renewals(server: Dovecot) -> list[bool]:
    with _source(server, folder="Quiet", idle="0.01s") as source:
        server.fill([], "Quiet")
        cursor = _waited(source, RENEWALS // 10, {})
        before = _held()
        _waited(source, RENEWALS, cursor)
        after = _held()
    print(f"imap: {RENEWALS} renewals, memory {before[1] >> 10:,} → {after[1] >> 10:,} KiB")
    return [
        bar("imap.renewals_descriptors", after[0] - before[0], "descriptors", "<=0"),
        bar("imap.renewals_memory", (after[1] - before[1]) / 1024, "KiB", "<=1024"),
    ]


def _waited(source: Imap, times: int, cursor: object) -> object:
    for _ in range(times):
        for batch in source.collect(Memory(cursor), datetime.now(UTC)):
            cursor = batch.cursor
    return cursor


def _held() -> tuple[int, int]:
    """Open descriptors, and bytes of memory of this process's own."""
    gc.collect()
    status = Path("/proc/self/status").read_text("ascii")
    own = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return len(list(Path("/proc/self/fd").iterdir())), int(own.split()[1]) << 10


@contextmanager
def _source(server: Dovecot, **settings: object) -> Iterator[Imap]:
    source = Unread(**server.settings(password=PASSWORD, **settings))
    try:
        yield source
    finally:
        source.close()


if __name__ == "__main__":
    sys.exit(main())
