"""Backups: facts, ledger and keyring as one set that fits together, made while the service runs.

All that was acknowledged before a backup begins is in it. The spool is not: what waits there is applied first, so
that no address, sealed as it may be there, ever comes into a backup.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

from monitor import expiring, manifest
from monitor.errors import UserError
from monitor.facts import schema
from monitor.facts.frozen import Content, Frozen, Partition, freezer
from monitor.facts.rows import decode
from monitor.files import sync_folder
from monitor.ledger import journal
from monitor.manifest import DEAD_LETTERS, KEYRING, LEDGER, File, Job, Manifest, Part, Step
from monitor.parquet import Sink
from monitor.quarantine import OURS, ROWS, Quarantine
from monitor.stores import Stores
from monitor.telemetry import VERSION

_DRAFT = ".draft-"
KEYRING_FOR = timedelta(days=30)


def make(
    stores: Stores,
    data: Path,
    folder: Path,
    now: datetime,
    *,
    keyring: bool = True,
    keyring_for: timedelta | None = KEYRING_FOR,
    keep: int = 0,
) -> Job:
    """A backup of the stores under ``data``, as a new directory in ``folder``; what did not change is linked there.

    Its keyring rests as that of the stores, and expires after ``keyring_for`` (None: never); those in ``folder`` that
    have are removed. With ``keep`` only so many backups are left there. The answer has ``path``, ``events``, ``files``,
    ``bytes``, ``written`` (bytes that are new), ``held_s`` (for how long nothing was applied), ``removed``, ``expired``
    (how many keyrings) and ``keyring_until``.

    Raises:
        UserError: the folder can't be written or is full, or another backup is being made there.
        FactsError: the facts take nothing in, or can't be read.
    """
    until = (now + keyring_for).isoformat() if keyring and keyring_for else ""
    with worded(folder), alone(folder):
        name = _name(folder, now)
        draft = folder / f"{_DRAFT}{name}"
        draft.mkdir(mode=0o700)
        try:
            answer = yield from _written(stores, data, draft, _before(folder), now, keyring=keyring, until=until)
            draft.rename(folder / name)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_folder(folder)
        gone = manifest.whole(folder)[:-keep] if keep else []
        for old in gone:
            expiring.shredded(old)
        expired = expiring.expire(folder, now)
        more = {"removed": len(gone), "expired": len(expired), "keyring_until": until}
        return {**answer, "path": str(folder / name), **more}


@contextlib.contextmanager
def worded(folder: Path) -> Iterator[None]:
    """What the disk of ``folder`` refuses, with what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk of {folder} is full: make room there, or name another one") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{folder} can't be written by the user that runs Mailvane: {error.strerror}. Give it that directory, "
                "or name another one; a unit of systemd needs it in ReadWritePaths= too"
            ) from error
        raise


def _written(
    stores: Stores,
    data: Path,
    draft: Path,
    before: tuple[Path, Manifest] | None,
    now: datetime,
    *,
    keyring: bool,
    until: str,
) -> Job:
    yield from _settled(stores)
    with freezer(stores.facts) as frozen:
        position, held = _frozen(stores, data, draft, frozen, keyring=keyring)
        columns = {table: frozen.columns(table) for table in frozen.tables}
        parts, written = yield from _parts(frozen, columns, draft, before)
    told = Manifest(
        format=manifest.FORMAT,
        mailvane=VERSION,
        schema=schema.VERSION,
        made_at=now.isoformat(),
        spool=stores.spool.name,
        committed=position,
        columns={table: list(types) for table, types in columns.items()},
        parts=parts,
        ledger=_file(draft, draft / LEDGER),
        identity=stores.keyring.identity,
        keyring=_file(draft, draft / KEYRING) if keyring else None,
        keyring_until=until,
        dead_letters=[_file(draft, path) for path in sorted((draft / DEAD_LETTERS).glob("*"))],
    )
    descriptor = os.open(_new(draft / manifest.NAME), os.O_WRONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(told.encoded())
    _sync(draft)
    size = sum(file.bytes for file in told.files)
    fresh = written + size - sum(part.file.bytes for part in parts)
    return {"events": told.events, "files": len(told.files), "bytes": size, "written": fresh, "held_s": held}


def _settled(stores: Stores) -> Iterator[Step]:
    """Apply what was acknowledged up to now; others may apply at the same time."""
    last = stores.spool.last
    stores.spool.hurry(last)
    while (committed := _position(stores)) < last:
        yield Step("frames to apply first", 0, last - committed)
        stores.applier.step()


def _position(stores: Stores) -> int:
    with stores.ledger.connect().execution_options(reads=True) as conn:
        return journal.position(conn)[0]


def _frozen(stores: Stores, data: Path, draft: Path, frozen: Frozen, *, keyring: bool) -> tuple[int, float]:
    """Take all that must fit together, while nothing is applied; the position, and how many seconds it took."""
    began = monotonic()
    with stores.applier.still() as position:
        frozen.take()
        copied = stores.ledger.raw_connection()
        with contextlib.closing(copied), contextlib.closing(sqlite3.connect(_new(draft / LEDGER))) as target:
            source = copied.driver_connection
            if not isinstance(source, sqlite3.Connection):
                raise TypeError("a ledger that is no SQLite file has a backup of its own")
            _copied(source, target)
        if keyring:
            shutil.copyfile(data / KEYRING, _new(draft / KEYRING))
        for name, content in _dead_letters(stores.quarantine):
            (draft / DEAD_LETTERS).mkdir(exist_ok=True, mode=0o700)
            _new(draft / DEAD_LETTERS / name).write_bytes(content)
    return position, round(monotonic() - began, 3)


def _copied(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """The ledger, copied; a disk that is full is told as by everything else."""
    try:
        source.backup(target)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, "no room for the ledger") from error
        raise


def _dead_letters(quarantine: Quarantine) -> Iterator[tuple[str, bytes]]:
    """What the store refused and tells nobody, of all that is in the quarantine: the rest holds people's addresses."""
    for item in quarantine.every():
        if item.kind in OURS:  # of one that is damaged no kind is known
            content = quarantine.open(item.id)
            if item.kind == ROWS:
                yield f"{item.id}.arrow", content
            elif _is_rows(content):
                yield f"{item.id}.frame", content


def _is_rows(frame: bytes) -> bool:
    """Whether a frame is rows: one of lines has addresses in it, sealed with the keyring that lies beside."""
    try:
        return decode(frame).rows is not None
    except ValueError:  # nobody knows what is in it
        return False


def _parts(
    frozen: Frozen, columns: Mapping[str, Mapping[str, str]], draft: Path, before: tuple[Path, Manifest] | None
) -> Generator[Step, None, tuple[list[Part], int]]:
    """All partitions, linked or written; and how many bytes are new."""
    partitions = frozen.partitions()
    total, done, written = sum(partition.rows for partition in partitions), 0, 0
    parts = []
    for partition in partitions:
        yield Step("rows", done, total)
        types = columns[partition.table]
        said = frozen.content(partition, list(types))
        part = _linked(partition, said, list(types), draft, before)
        if part is None:
            for step in (copying := _Copying(frozen, partition, types, draft)):
                yield Step("rows", done + step, total)
            part = copying.part(said)
            written += part.file.bytes
        parts.append(part)
        done += partition.rows
    yield Step("rows", done, total)
    return parts, written


def _linked(
    partition: Partition,
    said: Content,
    columns: Sequence[str],
    draft: Path,
    before: tuple[Path, Manifest] | None,
) -> Part | None:
    """The partition's file in the backup before, if it says the same and is whole."""
    if before is None or before[1].columns.get(partition.table) != columns:
        return None
    folder, old = before
    at = (partition.table, partition.id)
    same = next((part for part in old.parts if (part.table, part.partition) == at), None)
    if same is None or same.content != said or manifest.damage(folder, same.file):
        return None
    target = draft / same.file.path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        target.hardlink_to(folder / same.file.path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.copyfile(folder / same.file.path, _new(target))  # a file system without links
    return same


class _Copying:
    """Writes the file of a partition; iterating tells how many rows are in it."""

    def __init__(self, frozen: Frozen, partition: Partition, types: Mapping[str, str], draft: Path) -> None:
        self._frozen, self._partition, self._draft = frozen, partition, draft
        # Names of an Enum come out as numbers, and could not be told from them.
        self._shown = ", ".join(f"toString({name}) AS {name}" if "Enum" in types[name] else name for name in types)
        self._target = draft / "facts" / partition.table / f"{partition.id}.parquet"
        self._target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sink = Sink(self._target)

    def __iter__(self) -> Iterator[int]:
        where, table = "_partition_id = {id:String}", self._partition.table
        with self._sink as sink:
            for piece in self._frozen.rows(table, where, self._shown, id=self._partition.id):
                sink.write(piece)
                yield sink.rows

    def part(self, said: Content) -> Part:
        """What was written, which must be all that there was."""
        table, partition, rows = self._partition.table, self._partition.id, self._sink.rows
        if rows != self._partition.rows:
            raise UserError(f"{table} {partition}: {rows} of {self._partition.rows} rows could be read. Try again")
        path = str(self._target.relative_to(self._draft))
        return Part(table, partition, rows, said, File(path, self._sink.bytes, self._sink.sha256))


def _before(folder: Path) -> tuple[Path, Manifest] | None:
    """The newest backup that can be read."""
    for backup in reversed(manifest.whole(folder)):
        with contextlib.suppress(UserError):
            return backup, manifest.load(backup)
    return None


def _name(folder: Path, now: datetime) -> str:
    """After the moment; a second backup in the same second is told apart."""
    stamp = f"{now:%Y%m%dT%H%M%SZ}"
    taken = sum(1 for path in folder.iterdir() if path.name.startswith(stamp))
    return f"{stamp}-{taken + 1}" if taken else stamp


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else makes a backup in ``folder`` meanwhile; what one that died left there is removed.

    Raises:
        UserError: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in folder.glob(f"{_DRAFT}*"):
            shutil.rmtree(left)
        yield
    except BlockingIOError as error:
        raise UserError(f"another backup is being made in {folder}: wait until it has ended") from error
    finally:
        os.close(lock)


def _new(path: Path) -> Path:
    """A new empty file for its owner only."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return path


def _file(draft: Path, path: Path) -> File:
    with path.open("rb") as content:
        size, digest = manifest.summed(content)
        os.fsync(content.fileno())
    return File(str(path.relative_to(draft)), size, digest)


def _sync(draft: Path) -> None:
    """Put the manifest and all names on disk."""
    with (draft / manifest.NAME).open("rb") as file:
        os.fsync(file.fileno())
    for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
        sync_folder(folder)
