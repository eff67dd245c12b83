"""A process that migrates a store and is killed after some statements: ``python migrating.py FOLDER STATEMENTS``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from monitor.facts import schema
from monitor.facts.store import Facts


def main(folder: Path, statements: int) -> None:
    facts = Facts.open(f"chdb://{folder}")
    for done, statement in enumerate(schema.steps(facts.nodes, schema.version(facts)), start=1):
        facts.command(statement)
        if done == statements:
            os.kill(os.getpid(), signal.SIGKILL)
    facts.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
