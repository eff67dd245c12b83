"""Appends to both logs of a ledger, one entry a transaction, and says each that is on disk."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from monitor.ledger import access_log, actions
from monitor.ledger.access_log import Entry
from monitor.ledger.db import open_ledger
from tests.builders import NOW, pause


def main(path: str, name: str, count: int) -> None:
    ledger = open_ledger(Path(path))
    for number in range(count):
        with ledger.begin() as conn:
            actions.append(conn, pause(id=f"{name}-{number}"))
            access_log.append(conn, Entry(NOW, name, "appended", str(number), "done"))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
