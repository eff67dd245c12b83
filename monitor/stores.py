"""Keyring, spool, facts, ledger and quarantine of one data directory."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine

from monitor import settings
from monitor.dsn import Embedded
from monitor.errors import UserError
from monitor.facts import schema
from monitor.facts.store import Facts
from monitor.files import write
from monitor.keyring import Keyring
from monitor.ledger import journal
from monitor.ledger.db import open_ledger
from monitor.pipeline import Applier
from monitor.quarantine import Quarantine
from monitor.spool import Spool


class Stores:
    """Keyring, spool, facts, ledger and quarantine of one data directory, opened together.

    ``facts`` is a DSN where the facts stand on a server rather than here, ``password`` that of the server.

    Raises:
        UserError: the directory may not be written, or another process has it; the message says what to do.
        FactsError: the server of the facts does not answer.
    """

    def __init__(
        self,
        data: Path,
        spool_limit: int = 4 << 30,
        *,
        facts: str = "",
        password: str = "",
        quarantine: settings.Quarantine | None = None,
    ) -> None:
        data = data.absolute()
        _make_writable(data)
        with ExitStack() as opened:
            self.facts = Facts.open(facts or str(Embedded(str(data / "facts"))), password=password)
            opened.callback(self.facts.close)
            schema.migrate(self.facts)
            self.spool = Spool(data / "spool", max_bytes=spool_limit)
            opened.callback(self.spool.close)
            self.ledger: Engine = open_ledger(data / "ledger.sqlite")
            opened.callback(self.ledger.dispose)
            self.keyring = self._keyring(data / "keyring")
            opened.callback(self.keyring.close)
            kept = quarantine or settings.Quarantine()
            self.quarantine = Quarantine(data / "quarantine", self.keyring, kept.keep, kept.limit)
            self.quarantine.adopt(data / "dead-letters")
            self.applier = Applier(self.spool, self.facts, self.ledger, self.keyring, quarantine=self.quarantine)
            opened.callback(self.applier.close)
            self._opened = opened.pop_all()

    def _keyring(self, path: Path) -> Keyring:
        """The keyring; a new one only where no fact was ever told by an older one."""
        with self.ledger.connect().execution_options(reads=True) as conn:
            told = max(self.spool.last, *journal.position(conn))
        if told and not path.exists():
            raise UserError(
                f"{path} is gone, and with a new one nobody's history would be found, and all that is told again would "
                "count twice. Put it back from its backup; to do without, see mailvane restore --new-keyring"
            )
        keyring = Keyring.open(path)
        mark = path.with_name("keyring.id")
        if told and mark.exists() and mark.read_text("ascii").strip() != keyring.identity:
            keyring.close()
            raise UserError(
                f"{path} is another keyring than the facts here were written with, so what was told before would count "
                "again. Put the right one back from its backup; to do without, see mailvane restore --new-keyring"
            )
        if not mark.exists() or not told:
            write(mark, keyring.identity.encode() + b"\n")
        return keyring

    def close(self) -> None:
        """In the reverse order of opening."""
        self._opened.close()


def _make_writable(data: Path) -> None:
    """The directory, made and ours alone; the spool may lie on another disk, so both are tried."""
    here = data
    try:
        data.mkdir(parents=True, exist_ok=True)
        data.chmod(0o700)
        for here in filter(Path.is_dir, (data, data / "spool")):
            probe = here / ".writable"
            probe.touch()
            probe.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return  # what is there can be opened; all that comes waits for room
        raise UserError(
            f"{here} can't be written: {error.strerror}. Let the user that runs Mailvane write there, "
            "or name another directory (service.data, or --data)"
        ) from error
