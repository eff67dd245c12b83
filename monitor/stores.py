"""Keyring, spool, facts, ledger and quarantine of one data directory."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine

from monitor import keyfile, settings, shred
from monitor.custody import IN_FILE
from monitor.dsn import Embedded
from monitor.errors import UserError
from monitor.facts import schema
from monitor.facts.errors import DirectoryInUse
from monitor.facts.store import Facts
from monitor.keyring import Keyring
from monitor.ledger import journal
from monitor.ledger.db import open_ledger
from monitor.pipeline import Applier
from monitor.quarantine import Quarantine
from monitor.spool import Spool


class Stores:
    """Keyring, spool, facts, ledger and quarantine of one data directory, opened together.

    ``facts`` is a DSN where the facts stand on a server rather than here, ``password`` that of the server;
    ``custody`` says how the keyring rests.

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
        custody: settings.Custody = IN_FILE,
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
            self.keyring = self._keyring(data / "keyring", custody)
            opened.callback(self.keyring.close)
            kept = quarantine or settings.Quarantine()
            self.quarantine = Quarantine(data / "quarantine", self.keyring, kept.keep, kept.limit)
            self.quarantine.adopt(data / "dead-letters")
            self.applier = Applier(self.spool, self.facts, self.ledger, self.keyring, quarantine=self.quarantine)
            opened.callback(self.applier.close)
            self._opened = opened.pop_all()

    def _keyring(self, path: Path, custody: settings.Custody) -> Keyring:
        """The keyring; a new one only where no fact was ever told by an older one."""
        with self.ledger.connect().execution_options(reads=True) as conn:
            told = max(self.spool.last, *journal.position(conn))
        if told and not path.exists():
            raise UserError(
                f"{path} is gone, and with a new one nobody's history would be found, and all that is told again would "
                "count twice. Put it back from its backup; to do without, see mailvane restore --new-keyring"
            )
        shred.strays(path)
        keyring = Keyring.open(path, custody)
        mark = keyfile.mark(path)
        if told and mark.exists() and mark.read_text("ascii").strip() != keyring.identity:
            keyring.close()
            raise UserError(
                f"{path} is another keyring than the facts here were written with, so what was told before would count "
                "again. Put the right one back from its backup; to do without, see mailvane restore --new-keyring"
            )
        if not mark.exists() or not told:
            keyring.vouch(path)
        elif not keyfile.canary(path).exists():  # a release before this one made it
            with suppress(OSError):  # a full disk is no reason not to start
                keyring.vouch(path)
        return keyring

    def close(self) -> None:
        """In the reverse order of opening."""
        self._opened.close()


@contextmanager
def idle(data: Path) -> Iterator[None]:
    """Nobody has the stores of this directory open meanwhile.

    Raises:
        DirectoryInUse: somebody has.
    """
    lock = data / "spool" / "lock"
    if not lock.exists():
        yield
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryInUse(f"a service runs on {data}") from error
        yield


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
