"""A process that attributes reports which wait for their messages, until it is killed; or, told so, to the end.

``python placing.py FOLDER COUNT``: offers COUNT reports as a source would that was not acknowledged, tells of their
messages, and hands over what is decided, over and over. With COUNT 0 it ends what is left and prints what counts.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from monitor.attribution import Attributor
from monitor.facts import schema
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger import unplaced
from monitor.ledger.db import open_ledger
from monitor.model import Batch, Clues
from monitor.pipeline import Applier, take
from monitor.settings import Attribution
from monitor.spool import Spool
from monitor.tracekeys import KeyFile

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AT = int(NOW.timestamp()) * 1_000_000


def reports(count: int) -> Batch:
    """Every second one about a message that is told of later; the others are about nobody's."""
    return Batch(
        {
            "kind": ["bounced"] * count,
            "at": [AT] * count,
            "recipient": [f"user{number}@example.net" for number in range(count)],
            "message_id": [f"{number}@shop.example" for number in range(count)],
        },
        clues=[Clues(message_id=f"{number}@shop.example") for number in range(count)],
    )


def sent(count: int) -> Batch:
    numbers = range(0, count, 2)
    return Batch(
        {
            "kind": ["sent" for _ in numbers],
            "at": [AT - 60_000_000 for _ in numbers],
            "recipient": [f"user{number}@example.net" for number in numbers],
            "message_id": [f"{number}@shop.example" for number in numbers],
            "tenant": ["s07" for _ in numbers],
        }
    )


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(folder: Path, count: int) -> None:
    facts = Facts.open(f"chdb://{folder / 'facts'}")
    schema.migrate(facts)
    keyring, spool, ledger = Keyring.open(folder / "keyring"), Spool(folder / "spool"), open_ledger(folder / "ledger")
    applier = Applier(spool, facts, ledger, keyring)
    attributor = Attributor(facts, ledger, keyring, Attribution(), KeyFile(folder / "keys"))

    def put(batch: Batch, source: str, *, moves: bool = True) -> None:
        take(batch, spool, keyring, source=source, node="n", now=NOW, bounds=None, moves=moves)

    def hand(now: datetime) -> None:
        attributor.retry(now)
        for source, batch, names in attributor.decided():
            put(batch, source, moves=False)
            say("spooled")
            attributor.handed(names)
            say("handed")

    if count:
        put(attributor.place("inbox", reports(count), NOW), "inbox")
        say("waits")
        put(sent(count), "log")
        applier.drain()
        while True:
            hand(NOW + timedelta(minutes=1))
            hand(NOW + timedelta(hours=1))
            applier.drain()
    hand(NOW + timedelta(hours=1))
    applier.drain()
    kinds = facts.query("SELECT toString(kind) AS kind, tenant, count() AS count FROM events GROUP BY kind, tenant")
    found = Counter({f"{row['kind']} {row['tenant']}".strip(): row["count"] for row in kinds.to_pylist()})
    with ledger.connect() as conn:
        say(json.dumps({**found, "waiting": unplaced.waiting(conn)}))
    facts.close()
    spool.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
