"""Whether the keyring is whole, ours, and in the right hands: what ``mailvane keys verify`` goes through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from monitor import custody, keyfile, manifest
from monitor.errors import UserError
from monitor.keyring import Keyring
from monitor.manifest import KEYRING
from monitor.settings import Custody
from monitor.wrapping import WrappingKey

_SOMEBODY = "somebody@example.com"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what is wrong with it; empty where it is well."""

    what: str
    flaw: str = ""


def checks(
    data: Path, how: Custody, now: datetime, *, backups: Path | None = None, former: Sequence[WrappingKey] = ()
) -> Iterator[Check]:
    """One after the other, none of which changes anything; the service may run. What depends on a flaw is left out.

    ``backups``: a backup or a folder of them; ``former``: keys that may wrap their keyrings, beside the present one.
    """
    path = data / KEYRING
    if not path.exists():
        yield Check(f"keyring {path}", "is not there: has the service ever run, or must it be restored?")
        return
    unguarded = list(keyfile.guarded(path))
    yield Check(f"{path} is for its owner only", "; ".join(unguarded))
    try:
        key = custody.wrapping(how)
        yield Check(f"custody is {how.custody}" + (f", wrapping key {key.name}" if key else ""))
        if unguarded:
            return
        keys = [key] if key else []
        with closing(_opened(path, how, keys)) as keyring:
            yield Check(f"it opens, {'wrapped' if key else 'in plain'}, with its magic and {keyfile.BUCKETS:,} keys")
            yield from _of(keyring, path, keys)
            if backups:
                yield from _kept(backups, keyring, [*keys, *former], now)
    except UserError as error:
        yield Check("it opens by its custody", str(error))


def _opened(path: Path, how: Custody, keys: Sequence[WrappingKey]) -> Keyring:
    keyring = Keyring.load(path, *keys)
    if keys and not keyring.wrapped_by:
        keyring.close()
        raise UserError(f"it rests in plain, and custody is {how.custody}: mailvane keys wrap")
    return keyring


def _of(keyring: Keyring, path: Path, keys: Sequence[WrappingKey]) -> Iterator[Check]:
    yield Check("its keys are random and distinct", "; ".join(keyring.flaws()))
    with closing(Keyring.load(path, *keys)) as again:
        same = again.pseudonym(_SOMEBODY) == keyring.pseudonym(_SOMEBODY)
    yield Check("the same address has the same pseudonym", "" if same else "it had another on a second opening")
    yield Check(f"it is the one that the facts were written with, {keyring.identity}", _strange(keyring, path))
    canary = keyfile.canary(path)
    missing = f"{canary} is missing: the next start writes it"
    doubts = keyring.doubts(canary.read_bytes()) if canary.exists() else missing
    yield Check("what was sealed with it opens, and no key has changed", doubts)


def _strange(keyring: Keyring, path: Path) -> str:
    mark = keyfile.mark(path)
    if not mark.exists():
        return f"{mark} is missing: the next start writes it, if this is the right keyring"
    if mark.read_text("ascii", "replace").strip() == keyring.identity:
        return ""
    return "they were written with another: put the right one back from its backup"


def _kept(folder: Path, keyring: Keyring, keys: Sequence[WrappingKey], now: datetime) -> Iterator[Check]:
    backups = [folder] if (folder / manifest.NAME).is_file() else manifest.whole(folder)
    if not backups:
        yield Check(f"backups in {folder}", "there is none")
    for backup in backups:
        try:
            told = manifest.load(backup)
            yield Check(f"{backup}: {told.keyring_told(now)}", _flaw(backup, told, keyring, keys, now))
        except UserError as error:
            yield Check(str(backup), str(error))


def _flaw(backup: Path, told: manifest.Manifest, keyring: Keyring, keys: Sequence[WrappingKey], now: datetime) -> str:
    if told.identity != keyring.identity:
        return "its facts were written with another keyring"
    if told.keyring is None:
        return f"there is a {KEYRING} nevertheless: mailvane keys expire" if (backup / KEYRING).exists() else ""
    if told.expired(now):
        return "remove it: mailvane keys expire"
    with closing(Keyring.load(backup / KEYRING, *keys)) as kept:
        return "" if kept.identity == told.identity else "the keyring in it is another"
