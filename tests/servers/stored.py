"""A store in a directory, made, asked and backed up by processes of their own: one process may have one store open.

``python stored.py fill DATA COUNT`` puts numbered events in, over three days, and a level.
``python stored.py totals DATA`` prints what is in, as JSON.
``python stored.py expire DATA`` drops raw events and leaves as if they were old.
``python stored.py backup DATA FOLDER`` backs up, and prints each step; so a test can kill it at one.
``python stored.py memory DATA FOLDER export|backup`` prints by how many MiB that made the process grow.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

BEGIN = datetime(2026, 11, 20, 22, tzinfo=UTC)
NOW = datetime(2026, 11, 24, tzinfo=UTC)
_STEP = 50_000
HERE = Path(__file__)


def call(*words: str | Path) -> str:
    """What this program prints."""
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "tests.servers.stored", *map(str, words)]


def totals(data: Path) -> dict[str, Any]:
    """Rows, keys, and counts of each grain; what the ledger says of the source; levels; the position."""
    return json.loads(call("totals", data))


def batch(first: int, last: int, count: int) -> Any:
    from monitor.model import Batch

    numbers = range(first, last)
    return Batch(
        {
            "kind": [("sent", "deferred", "bounced", "complaint")[number % 4] for number in numbers],
            "at": [int((BEGIN + timedelta(days=2) * number / count).timestamp() * 1e6) for number in numbers],
            "message_id": [f"<{number}@shop.example>" for number in numbers],
            "recipient": [f"user{number}@example.net" for number in numbers],
            "ip": [f"192.0.2.{number % 5}" for number in numbers],
            "provider": ["gmail" for _ in numbers],
            "tenant": [f"s{number % 11}" for number in numbers],
            "campaign": [f"c{number % 17}" for number in numbers],
            "reply": [f"550 5.1.1 no such user, says {number % 9}" for number in numbers],
        },
        cursor={"next": last},
    )


def fill(data: Path, count: str) -> None:
    from monitor.facts import levels
    from monitor.pipeline import take
    from monitor.stores import Stores

    with closing(Stores(data)) as stores:
        for first in range(0, int(count), _STEP):
            told = batch(first, min(first + _STEP, int(count)), int(count))
            take(told, stores.spool, stores.keyring, source="test", node="n", now=NOW, bounds=None)
        stores.applier.drain()
        for value in (1.0, 2.0):  # the second reading replaces the first
            at = BEGIN + timedelta(hours=1)
            levels.append(
                stores.facts, [levels.Level("listing", "zen", at, value, seen_at=at + timedelta(seconds=value))]
            )


def tell_totals(data: Path) -> None:
    from monitor.facts import levels, queries
    from monitor.ledger import journal
    from monitor.pipeline import memory
    from monitor.stores import Stores

    with closing(Stores(data)) as stores:
        stores.applier.drain()
        found = {
            **queries.totals(stores.facts),
            "cursor": memory(stores.spool, stores.ledger, "test", "n").cursor,
            "levels": [level.value for level in levels.latest(stores.facts, "listing", NOW)],
        }
        with stores.ledger.connect().execution_options(reads=True) as conn:
            found["committed"] = journal.position(conn)[0]
    say(found)


def expire(data: Path) -> None:
    from monitor.facts import retention
    from monitor.stores import Stores

    with closing(Stores(data)) as stores:
        retention.expire(stores.facts, NOW, {"events": timedelta(hours=30), "leaf": timedelta(hours=30)})


def back_up(data: Path, folder: Path) -> None:
    from monitor import backup
    from monitor.stores import Stores

    with closing(Stores(data)) as stores:
        for step in backup.make(stores, data, folder, NOW):
            say([step.what, step.done, step.total])


def grow(data: Path, folder: Path, what: str) -> None:
    from monitor import backup, export
    from monitor.stores import Stores

    with closing(Stores(data)) as stores:
        job = (
            backup.make(stores, data, folder, NOW)
            if what == "backup"
            else export.make(stores, folder, tables=export.TABLES)
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in job:
            pass
        say((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def say(told: object) -> None:
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


WORK: dict[str, Callable[..., None]] = {
    "fill": fill,
    "totals": tell_totals,
    "expire": expire,
    "backup": back_up,
    "memory": grow,
}


def main(what: str, data: str, *words: str) -> None:
    """Do what the first word says."""
    paths = [Path(word) if word.startswith("/") else word for word in words]
    WORK[what](Path(data), *paths)


if __name__ == "__main__":
    main(*sys.argv[1:])
