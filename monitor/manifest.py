"""What a backup says of itself: which files it has, what is in them, and to which moment they belong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import msgspec

from monitor.errors import UserError
from monitor.facts.frozen import Content

NAME = "manifest.json"
FORMAT = 2  # 1: before keyrings expired
LEDGER, KEYRING, DEAD_LETTERS = "ledger.sqlite", "keyring", "dead-letters"
_STAMPED = re.compile(r"\d{8}T\d{6}Z(-\d+)?")
_LARGEST = 64 << 20  # of a manifest: a part of it is some 500 bytes
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """How far long work has come: ``done`` of ``total``, of what ``what`` says."""

    what: str
    done: int = 0
    total: int = 0


# Work that tells how far it is and answers in plain values; to close it is to give it up, and leaves nothing half done.
Job = Generator[Step, None, dict[str, Any]]


class File(msgspec.Struct, frozen=True):
    """One file of a backup, by its path in it."""

    path: str
    bytes: int
    sha256: str


class Part(msgspec.Struct, frozen=True):
    """A partition of a table: the file that holds it, the rows in that file, and what they say together."""

    table: str
    partition: str
    rows: int
    content: Content
    file: File


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The whole. ``columns``: those of each table. ``committed``: the last frame of ``spool`` that is in the facts.

    ``identity`` tells keyrings apart and says nothing of them; ``keyring`` is None where it was left out, or is removed
    since it had expired. ``keyring_until``: ISO 8601, or empty for ever.
    """

    format: int
    mailvane: str
    schema: int
    made_at: str
    spool: str
    committed: int
    columns: dict[str, list[str]]
    parts: list[Part]
    ledger: File
    identity: str
    keyring: File | None = None
    keyring_until: str | msgspec.UnsetType = msgspec.UNSET  # in format 1, whose checksum is without it
    dead_letters: list[File] = []
    checksum: str = ""

    @property
    def files(self) -> list[File]:
        """All of them but the manifest itself."""
        keyring = [self.keyring] if self.keyring else []
        return [*(part.file for part in self.parts), self.ledger, *keyring, *self.dead_letters]

    @property
    def events(self) -> int:
        """How many events it holds."""
        return sum(part.content.rows for part in self.parts if part.table == "events")

    @property
    def until(self) -> datetime | None:
        """When its keyring expires, or has; None: never."""
        until = self.keyring_until
        return datetime.fromisoformat(until) if until is not msgspec.UNSET and until else None

    def expired(self, now: datetime) -> bool:
        """Whether the keyring that it has, or had, is expired."""
        return self.until is not None and self.until <= now

    def keyring_told(self, now: datetime) -> str:
        """What people should know of its keyring."""
        day = f"{self.until:%Y-%m-%d}" if self.until else ""
        if not self.expired(now):
            until = f"may be restored until {day}" if day else "never expires"
            return f"its keyring {until}" if self.keyring else "without its keyring: restore needs it (--keyring)"
        removed = "" if self.keyring else " and was removed"
        return f"its keyring expired on {day}{removed}: restore with the present one (--keyring)"

    def encoded(self) -> bytes:
        """Its text, with the checksum of the rest in it."""
        bare = msgspec.structs.replace(self, checksum="")
        sealed = msgspec.structs.replace(bare, checksum=hashlib.sha256(msgspec.json.encode(bare)).hexdigest())
        return msgspec.json.format(msgspec.json.encode(sealed), indent=1)


def whole(folder: Path) -> list[Path]:
    """The backups in a folder, oldest first; drafts and what is no backup are left out."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _STAMPED.fullmatch(path.name) and (path / NAME).is_file())


def found(place: Path) -> Path:
    """The backup at ``place``: itself, or the newest in it.

    Raises:
        UserError: there is none.
    """
    if (place / NAME).is_file():
        return place
    if backups := whole(place):
        return backups[-1]
    raise UserError(f"{place} is no backup, and holds none: name the directory that `mailvane backup` was given")


def load(backup: Path) -> Manifest:
    """The manifest of the backup.

    Raises:
        UserError: it is damaged, or was made by a newer release.
    """
    path = backup / NAME
    damaged = UserError(f"{path} is damaged: take an older backup")
    raw = path.read_bytes() if path.stat().st_size <= _LARGEST else b""
    try:
        # Of another format only this much is known.
        if (there := msgspec.json.decode(raw, type=_Head).format) > FORMAT:
            raise UserError(f"{path} has format {there}, this release reads {FORMAT}: use the newer release")
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError:
        raise damaged from None
    if msgspec.json.decode(manifest.encoded(), type=Manifest).checksum != manifest.checksum:
        raise damaged
    if any(_strays(file.path) for file in manifest.files):
        raise damaged
    return manifest


def verify(backup: Path, manifest: Manifest) -> Iterator[Step]:
    """Read every file again.

    Raises:
        UserError: some are damaged or missing; each is named.
    """
    total, done = sum(file.bytes for file in manifest.files), 0
    wrong: list[str] = []
    for file in manifest.files:
        yield Step("verifying, bytes", done, total)
        if why := damage(backup, file):
            wrong.append(f"{backup / file.path} {why}")
        done += file.bytes
    if wrong:
        shown = "\n  ".join(wrong[:20])
        more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise UserError(f"the backup is damaged, take another one:\n  {shown}{more}")
    yield Step("verifying, bytes", total, total)


def damage(backup: Path, file: File) -> str:
    """What is wrong with the file; empty where it is as it was written."""
    try:
        with (backup / file.path).open("rb") as content:
            size, digest = summed(content)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    if size != file.bytes:
        return f"has {size} bytes, and had {file.bytes}"
    return "" if digest == file.sha256 else "has another checksum than when it was written"


def summed(content: BinaryIO) -> tuple[int, str]:
    """(bytes, SHA-256) of what is left of the file."""
    size, hashed = 0, hashlib.sha256()
    while block := content.read(_BLOCK):
        size += len(block)
        hashed.update(block)
    return size, hashed.hexdigest()


class _Head(msgspec.Struct):
    format: int


def _strays(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts
