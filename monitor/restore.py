"""Restoring a backup: into a data directory, and into another store of facts where one is named."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from monitor import keyfile, manifest
from monitor.backup import worded
from monitor.custody import IN_FILE, wrapping
from monitor.dsn import Embedded
from monitor.errors import UserError
from monitor.facts import frozen, schema
from monitor.facts.frozen import PIECE, Partition
from monitor.facts.store import Facts
from monitor.files import sync_folder
from monitor.keyring import Keyring
from monitor.ledger import access_log, journal, keys, sessions
from monitor.ledger.db import open_ledger
from monitor.manifest import DEAD_LETTERS, KEYRING, LEDGER, Job, Manifest, Part, Step
from monitor.settings import Custody
from monitor.stores import idle
from monitor.wrapping import WrappingKey

# The ledger last: without it nothing counts as restored.
_NAMES = (
    DEAD_LETTERS,
    "quarantine",
    KEYRING,
    f"{KEYRING}.id",
    f"{KEYRING}.canary",
    "facts",
    "spool",
    f"{LEDGER}-wal",
    f"{LEDGER}-shm",
    LEDGER,
)


def restore(
    place: Path,
    data: Path,
    now: datetime,
    *,
    facts: str = "",
    password: str = "",
    keyring: Path | None = None,
    new_keyring: bool = False,
    expired: bool = False,
    custody: Custody = IN_FILE,
    former: Sequence[WrappingKey] = (),
    who: str = "cli",
    replace: bool = False,
) -> Job:
    """Put the backup at ``place`` (or the newest in it) into the directory ``data``, and check that all is there.

    ``facts``: the DSN of a server for the facts. ``keyring``: the keyring's file, rather than the backup's;
    ``new_keyring`` does without, ``expired`` takes the backup's though it has. It rests by ``custody`` then, however it
    did before; ``former`` are keys that may wrap it. ``replace``: what is in ``data`` is set aside, what is on the
    server removed. ``who`` is what the access log says. Whoever was signed in must do so again.

    The answer has ``backup``, ``made_at``, ``events``, ``rows`` (by table), ``keys`` (of the API, in force) and
    ``replaced`` (a path, or empty).

    Raises:
        UserError: the backup is damaged or newer than this release, the target is not empty or in use, or the
            keyring is missing, expired, another one or can't be opened.
        FactsError: the engine refused.
    """
    backup = manifest.found(place)
    told = manifest.load(backup)
    if told.schema > schema.VERSION:
        raise UserError(f"{backup} has facts of schema {told.schema}, this release knows {schema.VERSION}: update it")
    yield from manifest.verify(backup, told)
    key = wrapping(custody)
    kept = keyring or _kept(backup, told, now, new=new_keyring, expired=expired)
    with contextlib.ExitStack() as opened:
        ring = opened.enter_context(_fitting(kept, [*([key] if key else []), *former], told)) if kept else None
        opened.enter_context(worded(data))
        opened.enter_context(_free(data, replace=replace))
        draft = data / f".restore-{secrets.token_hex(8)}"
        draft.mkdir(mode=0o700)
        try:
            rows = yield from _stored(
                backup, told, facts or str(Embedded(str(draft / "facts"))), password, replace=replace
            )
            _put(ring, draft / KEYRING, key)
            keys_in_force = _copied(backup, told, draft, now, who)
            replaced = _moved(draft, data, now)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return {
        "backup": str(backup),
        "made_at": told.made_at,
        "events": told.events,
        "rows": rows,
        "keys": keys_in_force,
        "replaced": str(replaced or ""),
    }


def _kept(backup: Path, told: Manifest, now: datetime, *, new: bool, expired: bool) -> Path | None:
    """The file of the backup's keyring; None for a new one."""
    if told.keyring and (expired or not told.expired(now)):
        return backup / KEYRING
    if new:
        return None
    without = "With a new one (--new-keyring) nobody's history can be found again, and what is told again counts twice"
    if not told.until or not told.expired(now):
        raise UserError(f"{backup} was made without its keyring: name the file by --keyring. {without}")
    removed = "" if told.keyring else ", and was removed"
    anyhow = ", or say --expired" if told.keyring else ""
    raise UserError(
        f"the keyring in {backup} expired on {told.until:%Y-%m-%d}{removed}: whoever was erased since could be found "
        f"by it again. Name the present one by --keyring{anyhow}. {without}"
    )


@contextlib.contextmanager
def _fitting(path: Path, keys: Sequence[WrappingKey], told: Manifest) -> Iterator[Keyring]:
    """The open keyring in the file, which is the one that the backup's facts were written with."""
    with contextlib.closing(Keyring.load(path, *keys)) as keyring:
        if keyring.identity != told.identity:
            raise UserError(f"{path} is the keyring of another installation: it does not fit this backup")
        yield keyring


def _put(keyring: Keyring | None, path: Path, key: WrappingKey | None) -> None:
    """Have the keyring rest in its new place as is configured; without one a new one is made."""
    if keyring:
        keyring.rest(path, key)
    else:
        keyfile.make(path, key)
    with contextlib.closing(Keyring.load(path, *([key] if key else []))) as there:
        there.vouch(path)


@contextlib.contextmanager
def _free(data: Path, *, replace: bool) -> Iterator[None]:
    """The directory, which nobody uses meanwhile.

    Raises:
        UserError: it holds a store, and ``replace`` was not said.
        DirectoryInUse: a service runs there.
    """
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    taken = [name for name in _NAMES if (data / name).exists()]
    if taken and not replace:
        raise UserError(f"{data} holds a store already ({', '.join(taken)}): name another --data, or say --replace")
    for left in data.glob(".restore-*"):  # of one that died
        shutil.rmtree(left)
    with idle(data):
        yield


def _stored(backup: Path, told: Manifest, dsn: str, password: str, *, replace: bool) -> Job:
    """Insert all rows and compare what they say together; rows by table."""
    rows = dict.fromkeys(schema.TABLES, 0)
    total, done = sum(part.rows for part in told.parts), 0
    with contextlib.closing(Facts.open(dsn, password=password)) as facts:
        schema.migrate(facts)
        _emptied(facts, replace=replace)
        run = secrets.token_hex(8)  # a block of an earlier try must not be taken for one of this
        for number, part in enumerate(told.parts):
            with pq.ParquetFile(backup / part.file.path) as file:
                for count, batch in enumerate(file.iter_batches(batch_size=PIECE)):
                    yield Step("rows", done, total)
                    facts.append(part.table, pa.Table.from_batches([batch]), f"restore:{run}:{number}:{count}")
                    done += batch.num_rows
            rows[part.table] += part.rows
        yield Step("rows", done, total)
        yield from _compared(facts, told)
    return rows


def _emptied(facts: Facts, *, replace: bool) -> None:
    for table in schema.TABLES:
        if int(facts.query(f"SELECT count() AS n FROM {table}")["n"][0].as_py()):  # noqa: S608  # ours
            if not replace:
                raise UserError(f"{facts.place} holds facts already: name another --into, or say --replace")
            facts.command(facts.nodes.truncate(table))


def _compared(facts: Facts, told: Manifest) -> Iterator[Step]:
    wrong = []
    for number, part in enumerate(told.parts):
        yield Step("comparing, partitions", number, len(told.parts))
        if why := _differs(facts, told, part):
            wrong.append(f"{part.table} {part.partition}: {why}")
    if wrong:
        listed = "\n  ".join(wrong[:20])
        raise UserError(f"what was restored is not what was backed up, and was not put in place:\n  {listed}")
    yield Step("comparing, partitions", len(told.parts), len(told.parts))


def _differs(facts: Facts, told: Manifest, part: Part) -> str:
    there = Partition(part.table, part.partition, part.rows)
    found = frozen.content(facts, part.table, there, told.columns[part.table], merged=part.content.merged)
    if found.rows != part.content.rows:
        return f"{found.rows} rows instead of {part.content.rows}"
    if found.counts != part.content.counts:
        return f"counts {found.counts} instead of {part.content.counts}"
    return "" if found.digest == part.content.digest else "some value is another"


def _copied(backup: Path, told: Manifest, draft: Path, now: datetime, who: str) -> int:
    """Ledger and dead letters. The spool begins anew: what waited in the old one is in the facts.

    Nobody is signed in, so that no session comes back that was ended since; how many keys of the API are in force.
    """
    for source, name in (
        (backup / told.ledger.path, LEDGER),
        *((backup / file.path, file.path) for file in told.dead_letters),
    ):
        target = draft / name
        target.parent.mkdir(exist_ok=True, mode=0o700)
        with source.open("rb") as old, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())
    ledger = open_ledger(draft / LEDGER)
    try:
        with ledger.begin() as conn:
            position = journal.position(conn)
            for session in sessions.known(conn, now).values():
                sessions.revoke(conn, now, session=session.id)
            access_log.append(conn, access_log.Entry(now, who, "restored", backup.name, "done"))
            in_force = sum(one.in_force(now) for one in keys.every(conn))
    finally:
        ledger.dispose()
    if position != (told.committed, told.committed):
        raise UserError(f"{backup}: its ledger is of another moment than its facts")
    return in_force


def _moved(draft: Path, data: Path, now: datetime) -> Path | None:
    """Put what was restored in its place; where it was, what was there before."""
    old = [name for name in _NAMES if (data / name).exists()]
    aside = data / f"replaced-{now:%Y%m%dT%H%M%SZ}" if old else None
    if aside:
        aside.mkdir(mode=0o700)
        for name in reversed(old):
            (data / name).rename(aside / name)
    for name in _NAMES:
        if (draft / name).exists():
            (draft / name).rename(data / name)
    sync_folder(data)
    return aside
