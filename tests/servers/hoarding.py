"""Puts things into a quarantine without end, for who kills it: a line of output for each one that is kept."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from monitor.keyring import Keyring
from monitor.quarantine import Quarantine

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def content(number: int) -> bytes:
    return f"{number}:".encode() + bytes([number % 251]) * (1000 * (number % 90))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    kept = Quarantine(folder / "quarantine", Keyring.open(folder / "keyring"))
    for number in count(int(sys.argv[2])):
        at = NOON + timedelta(minutes=number)
        kept.put(content(number), source="mq", kind="message", where="somewhere", why="no good", at=at)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
