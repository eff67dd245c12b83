"""Keyring, spool, facts and ledger of one data directory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine

from monitor.facts import schema
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger.db import open_ledger
from monitor.pipeline import Applier
from monitor.spool import Spool


class Stores:
    """Keyring, spool, facts and ledger of one data directory, opened together."""

    def __init__(self, data: Path, spool_limit: int = 4 << 30) -> None:
        data = data.absolute()
        data.mkdir(parents=True, exist_ok=True)
        data.chmod(0o700)
        with ExitStack() as opened:
            self.facts = Facts.open(f"chdb://{data / 'facts'}")
            opened.callback(self.facts.close)
            schema.migrate(self.facts)
            self.keyring = Keyring.open(data / "keyring")
            opened.callback(self.keyring.close)
            self.spool = Spool(data / "spool", max_bytes=spool_limit)
            opened.callback(self.spool.close)
            self.ledger: Engine = open_ledger(data / "ledger.sqlite")
            opened.callback(self.ledger.dispose)
            self.applier = Applier(self.spool, self.facts, self.ledger, dead_letters=data / "dead-letters")
            self._opened = opened.pop_all()

    def close(self) -> None:
        """In the reverse order of opening."""
        self._opened.close()
