"""A process that applies numbered events to facts whose inserts are slow to end, so that a kill meets one half done.

``python halfway.py FOLDER FIRST LAST ROWS``: views on events and grains sleep over each row, so that raw events are in
while some of the grains are not. It prints, each as a JSON object a line, the counts that it found when it
opened the store, up to which number all is acknowledged, and ``{"half": true}`` while an insert is half done. With LAST
below FIRST it takes the view away, applies what is left, and prints the totals.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from monitor.facts import queries, schema
from monitor.facts.grains import GRAINS
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger import journal
from monitor.ledger.db import open_ledger
from monitor.pipeline import Applier, take
from monitor.spool import Spool
from tests.servers.applying import BATCH, BEGIN, batch, hurry

SLEEP = 0.2  # seconds that each insert of a block takes longer


def slow_down(facts: Facts, rows: int) -> None:
    """An insert of that many rows is slow; one of another length is so in proportion."""
    facts.command("CREATE TABLE IF NOT EXISTS slow (x UInt8) ENGINE = Null")
    for table in ("events", *GRAINS):
        facts.command(
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS slow_{table} TO slow AS"
            f" SELECT sleepEachRow({SLEEP / rows:.9f}) AS x FROM {table}"
        )


def speed_up(facts: Facts) -> None:
    """As the product makes them."""
    for table in ("events", *GRAINS):
        facts.command(f"DROP TABLE IF EXISTS slow_{table}")


def say(told: object) -> None:
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


def held(facts: Facts) -> dict[str, int]:
    """How many events are in raw and in each grain."""
    told: dict[str, Any] = queries.totals(facts)
    return {"keys": told["keys"], **{name: sum(told[name].values()) for name in ("events", *GRAINS)}}


def watch(facts: Facts, ledger: Any, stop: threading.Event) -> None:
    """Tell each time that a batch is in raw and not yet committed."""
    told = 0
    while not stop.wait(0.01):
        newest = facts.query("SELECT max(batch) AS batch FROM events")["batch"][0].as_py() or 0
        with ledger.connect().execution_options(reads=True) as conn:
            committed, _ = journal.position(conn)
        if newest > max(committed, told):
            told = newest
            say({"half": True})


def main(folder: Path, first: int, last: int, rows: int) -> None:
    facts = Facts.open(f"chdb://{folder / 'facts'}")
    schema.migrate(facts)
    keyring = Keyring.open(folder / "keyring")
    spool = Spool(folder / "spool", segment_bytes=200_000)
    ledger = open_ledger(folder / "ledger.sqlite")
    stop = threading.Event()
    say({"found": held(facts)})
    if first <= last:
        slow_down(facts, rows)
        applier = Applier(spool, facts, ledger, keyring, block_rows=rows)
        for work in (
            threading.Thread(target=hurry, args=(applier, spool, stop), daemon=True),
            threading.Thread(target=watch, args=(facts, ledger, stop), daemon=True),
        ):
            work.start()
        for number in range(first, last, BATCH):
            take(batch(number), spool, keyring, source="test", node="n", now=BEGIN, bounds=None)
            say({"acknowledged": number + BATCH})
        stop.wait()  # for the kill
    else:
        speed_up(facts)
        Applier(spool, facts, ledger, keyring).drain()
        say({"totals": queries.totals(facts)})
    facts.close()
    spool.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
