"""A process that spools numbered events and applies them meanwhile, until it is killed; or, told so, to the end.

``python applying.py FOLDER FIRST LAST``: prints each number up to which all is acknowledged. With LAST below FIRST it
applies what is left and prints the totals.
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from monitor.facts import queries, schema
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger.db import open_ledger
from monitor.model import Batch
from monitor.pipeline import Applier, memory, take
from monitor.spool import Spool

BEGIN = datetime(2026, 10, 31, 23, 0, tzinfo=UTC)  # the events straddle two months
BATCH = 500


def batch(first: int) -> Batch:
    """Events ``first`` to ``first + BATCH``; a fifth of them tells outcomes of the batch before once more."""
    numbers = [
        number - BATCH if number % 5 == 0 and number >= BATCH else number for number in range(first, first + BATCH)
    ]
    at = [BEGIN + timedelta(seconds=number % 7200) for number in numbers]
    return Batch(
        {
            "kind": [("sent", "deferred", "bounced", "complaint")[number % 7 % 4] for number in numbers],
            "at": [int(when.timestamp() * 1_000_000) for when in at],
            "message_id": [f"<{number}@shop.example>" for number in numbers],
            "recipient": [f"user{number}@example.net" for number in numbers],
            "ip": [f"192.0.2.{number % 5}" for number in numbers],
            "tenant": [f"s{number % 11}" for number in numbers],
            "segment": [f"g{number % 3}" for number in numbers],
        },
        cursor={"next": first + BATCH},
    )


def hurry(applier: Applier, spool: Spool, stop: threading.Event) -> None:
    """Apply without waiting for others to share an insert, so that a kill meets one under way."""
    while not stop.is_set():
        if not applier.step():
            spool.wait(spool.last, 0.01)


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(folder: Path, first: int, last: int) -> None:
    facts = Facts.open(f"chdb://{folder / 'facts'}")
    schema.migrate(facts)
    keyring = Keyring.open(folder / "keyring")
    spool = Spool(folder / "spool", segment_bytes=200_000)
    ledger = open_ledger(folder / "ledger.sqlite")
    stop = threading.Event()
    if first <= last:
        applier = Applier(spool, facts, ledger, keyring, block_rows=3 * BATCH)
        applying = threading.Thread(target=hurry, args=(applier, spool, stop))
        applying.start()
        for number in range(first, last, BATCH):
            take(batch(number), spool, keyring, source="test", node="n", now=BEGIN, bounds=None)
            say(number + BATCH)
        stop.set()
        applying.join()
    else:
        Applier(spool, facts, ledger, keyring).drain()
        told = {**queries.totals(facts), "cursor": memory(spool, ledger, "test", "n").cursor}
        say(json.dumps(told))
    facts.close()
    spool.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
