"""Pseudonyms: who and which message, told by keys that never leave one file (ADR 9).

An address belongs to one of 2^20 buckets, each with a random key of its own. A new key for the bucket cuts the link
between the address and all that was ever written of it, in old backups too.
"""

from __future__ import annotations

import contextlib
import hmac
import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from monitor import shred, wrapping
from monitor.custody import IN_FILE
from monitor.custody import wrapping as key_of
from monitor.errors import UserError
from monitor.files import drafted, sync_folder, write
from monitor.model import DRESS, Kind
from monitor.settings import Custody
from monitor.wrapping import WrappingKey

PSEUDONYM_BYTES = 16
UNKNOWN = bytes(PSEUDONYM_BYTES)  # of an empty address or message id
# Part of every event's key, on disk for years: add, never change.
CODES = {Kind.SENT: 1, Kind.DEFERRED: 2, Kind.BOUNCED: 3, Kind.EXPIRED: 4, Kind.COMPLAINT: 5, Kind.HELD: 6}
# What can happen to a message at a recipient once only: it counts once, whichever attempt a source names.
FINAL = frozenset({Kind.SENT, Kind.BOUNCED, Kind.EXPIRED, Kind.COMPLAINT})

_MAGIC = b"mailvane keyring 1\n"
_HEAD = 4096  # magic, then the index key at 64, zeros to the first bucket
_KEY = 32
_BUCKETS = 1 << 20
_SIZE = _HEAD + _BUCKETS * _KEY
_BLOCK = 1 << 20
_FINAL_CODES = np.array([CODES[kind] for kind in FINAL], np.uint8)
# The finalizer of MurmurHash3 (Appleby, public domain): each bit of what goes in moves each bit of what comes out.
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)
_NONCE = 12  # bytes, drawn at random for each seal (NIST SP 800-38D section 8.2.2)


class Keyring:
    """The open keyring; safe to use from many threads. Whoever holds it can tell who was meant: keep it apart.

    ``wrapped_by``: the name of the key under which its file rests; empty where that is in plain.
    """

    def __init__(self, keys: mmap.mmap, wrapped_by: str = "") -> None:
        self._keys = keys
        self.wrapped_by = wrapped_by
        index = keys[64 : 64 + _KEY]
        self._bucket = blake2b(key=index, person=b"bucket", digest_size=8)
        self._message = blake2b(key=index, person=b"message", digest_size=PSEUDONYM_BYTES)
        self._event = np.frombuffer(blake2b(key=index, person=b"event", digest_size=8).digest(), "<u8")[0]
        self._id = blake2b(key=index, person=b"id", digest_size=8)
        self._canary = blake2b(key=index, person=b"canary", digest_size=32)
        self._seal = AESGCM(blake2b(key=index, person=b"seal", digest_size=32).digest())

    @classmethod
    def open(cls, path: Path, custody: Custody = IN_FILE) -> Keyring:
        """The keyring in the file ``path`` as it must rest by ``custody``, made at first (32 MiB, for its owner only).

        In plain the file is mapped; wrapped, it is opened into memory of ours.

        Raises:
            UserError: the file is no whole keyring, others may read it, it rests otherwise, or its key is missing.
        """
        key = key_of(custody)
        if not path.exists():
            _make(path, key)
        keyring = cls.load(path, *([key] if key else []))
        if key and not keyring.wrapped_by:
            keyring.close()
            raise UserError(
                f"{path} rests in plain, and [keyring] says custody = {custody.custody!r}: mailvane keys wrap"
            )
        return keyring

    @classmethod
    def load(cls, path: Path, *keys: WrappingKey) -> Keyring:
        """The keyring in a file that is there, in plain or wrapped by one of the keys.

        Raises:
            UserError: the file is no whole keyring, others may read it, or none of the keys opens it.
        """
        with _regular(path) as file:
            for flaw in guarded(path):
                raise UserError(flaw)
            length, begin = os.fstat(file.fileno()).st_size, file.read(len(wrapping.MAGIC))
            file.seek(0)
            if begin.startswith(_MAGIC) and length == _SIZE:
                return cls(mmap.mmap(file.fileno(), _SIZE, access=mmap.ACCESS_READ))
            if begin != wrapping.MAGIC or length != wrapping.size(_SIZE):
                raise UserError(f"{path} is no whole keyring: restore it from its backup")
            memory = wrapping.anonymous(_SIZE)
            try:
                key = wrapping.unwrapped(file, keys, memory)
                if memory[: len(_MAGIC)] != _MAGIC:
                    raise UserError(f"{path} holds something else than a keyring")
            except BaseException:
                memory.close()
                raise
            return cls(memory, key.name)

    def __repr__(self) -> str:
        return "Keyring()"

    def pseudonym(self, address: str) -> bytes:
        """16 bytes for an address, however it is dressed (case, angle brackets, blanks); zeros for none."""
        return self.pseudonyms((address,))

    def pseudonyms(self, addresses: Iterable[str]) -> bytes:
        """The pseudonyms of a column, one after the other."""
        asked = list(addresses)
        distinct = list(dict.fromkeys(asked))
        made = self._reveal(distinct)
        if len(distinct) == len(asked):
            return b"".join(made)
        known = dict(zip(distinct, made, strict=True))
        return b"".join([known[address] for address in asked])

    def _reveal(self, addresses: Sequence[str]) -> list[bytes]:
        plain = [address.strip(DRESS).lower().encode("utf-8", "surrogatepass") for address in addresses]
        fresh = self._bucket.copy
        macs = []
        for text in plain:
            mac = fresh()
            mac.update(text)
            macs.append(mac.digest())
        buckets = np.frombuffer(b"".join(macs), "<u8") % np.uint64(_BUCKETS)
        places = (buckets * np.uint64(_KEY) + np.uint64(_HEAD)).tolist()
        keys = self._keys
        return [
            blake2b(text, key=keys[at : at + _KEY], digest_size=PSEUDONYM_BYTES).digest() if text else UNKNOWN
            for text, at in zip(plain, places, strict=True)
        ]

    def message(self, message_id: str) -> bytes:
        """16 bytes for a message id, with or without its angle brackets; zeros for none."""
        return self.messages((message_id,))

    def messages(self, message_ids: Iterable[str]) -> bytes:
        """The pseudonyms of a column of message ids, one after the other."""
        fresh = self._message.copy
        found = []
        for message_id in message_ids:
            plain = message_id.strip(DRESS)
            if plain:
                mac = fresh()
                mac.update(plain.encode("utf-8", "surrogatepass"))
                found.append(mac.digest())
            else:
                found.append(UNKNOWN)
        return b"".join(found)

    def event_key(self, message: bytes, recipient: bytes, kind: Kind, tries: int = 0) -> int:
        """The key that makes an outcome count once, whichever road tells it; unsigned 64 bits.

        ``tries`` names the attempt, and matters only for what may happen more than once (deferred, held).
        """
        codes = np.array([CODES[kind]], np.uint8)
        return int(self.event_keys(message, recipient, codes, np.array([tries], np.int64))[0])

    def event_keys(
        self, messages: bytes, recipients: bytes, codes: npt.NDArray[np.uint8], tries: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint64]:
        """``event_key`` of each row: ``messages`` and ``recipients`` as the columns above give them, kinds by code."""
        keys = np.full(len(codes), self._event, np.uint64)
        # Pseudonyms are as good as random already, so what joins them need only be quick and lose nothing.
        for pair in (np.frombuffer(messages, "<u8"), np.frombuffer(recipients, "<u8")):
            for word in pair.reshape(-1, 2).T:
                _stir(keys, word)
        _stir(keys, codes.astype(np.uint64))
        _stir(keys, np.where(np.isin(codes, _FINAL_CODES), 0, tries).astype(np.int64).view(np.uint64))
        return keys

    def id_keys(self, source: str, ids: Iterable[str]) -> npt.NDArray[np.uint64]:
        """Keys of events that a source names itself: made of the source's name and its id alone."""
        named = self._id.copy()
        named.update(source.encode() + b"\0")
        found = []
        for name in ids:
            mac = named.copy()
            mac.update(name.encode("utf-8", "surrogatepass"))
            found.append(mac.digest())
        return np.frombuffer(b"".join(found), "<u8")

    def seal(self, content: bytes) -> bytes:
        """The content so that only who holds this keyring can read it, and nobody can change it (AES-256-GCM)."""
        nonce = os.urandom(_NONCE)
        return nonce + self._seal.encrypt(nonce, content, None)

    def unseal(self, sealed: bytes) -> bytes:
        """What was sealed.

        Raises:
            ValueError: it was sealed with another keyring, or was changed.
        """
        try:
            return self._seal.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except InvalidTag as error:
            raise ValueError("sealed with another keyring, or changed since") from error

    @property
    def identity(self) -> str:
        """What tells this keyring from another, and nothing else of it; it stays as keys of buckets are replaced."""
        return f"{int(self.id_keys('backup', ['identity'])[0]):016x}"

    def rest(self, path: Path, key: WrappingKey | None) -> None:
        """Put it into the new file ``path``, wrapped by the key, or in plain; whole or not there, whatever dies."""
        _draft(path, self._parts(), key).rename(path)
        sync_folder(path.parent)

    def vouch(self, path: Path) -> None:
        """Write beside its file ``path`` which keyring it is, and a canary by which a changed one is known.

        To be called again when a bucket got a new key.
        """
        write(mark(path), self.identity.encode() + b"\n")
        write(canary(path), self.seal(self._digest()))

    def doubts(self, sealed: bytes) -> str:
        """What the canary ``sealed`` has against it; empty where it is as it was."""
        try:
            told = self.unseal(sealed)
        except ValueError as error:
            return str(error)
        return "" if hmac.compare_digest(told, self._digest()) else "some keys are others than they were"

    def flaws(self) -> Iterator[str]:
        """What is wrong with the keys themselves: each must be random, and another."""
        keys = np.frombuffer(self._keys, "<u8", offset=_HEAD).reshape(-1, _KEY // 8)
        if zeros := int((~keys.any(axis=1)).sum()) + (not any(self._keys[64 : 64 + _KEY])):
            yield f"{zeros} keys are zero"
        # Two random keys begin with the same 8 bytes once in 30 million keyrings.
        if repeats := len(keys) - len(np.unique(keys[:, 0])) - max(0, zeros - 1):
            yield f"{repeats} keys are there twice"

    def _digest(self) -> bytes:
        mac = self._canary.copy()
        for part in self._parts():
            mac.update(part)
        return mac.digest()

    def _parts(self) -> Iterator[bytes]:
        return (self._keys[at : at + _BLOCK] for at in range(0, _SIZE, _BLOCK))

    def close(self) -> None:
        """Let go of it; no pseudonym can be made afterwards."""
        self._keys.close()


def rewrap(path: Path, keys: Sequence[WrappingKey], key: WrappingKey | None) -> bool:
    """Have the keyring in ``path``, which is in plain or opens by one of ``keys``, rest by ``key``, or in plain.

    Whether there was anything to do. Whoever dies meanwhile leaves the old file or the new. Nobody may have it open:
    what had rested there is overwritten.

    Raises:
        UserError: it can't be opened, or what was written can't be read again; then all is as it was.
    """
    path = path.resolve()
    shred.strays(path)
    with contextlib.closing(Keyring.load(path, *keys)) as before:
        if before.wrapped_by == (key.name if key else ""):
            return False
        draft = _draft(path, before._parts(), key)  # noqa: SLF001  # our own
        try:
            with contextlib.closing(Keyring.load(draft, *([key] if key else []))) as after:
                if after._digest() != before._digest():  # noqa: SLF001
                    raise UserError(f"{draft} is not what was written: is the disk failing?")
        except BaseException:
            shred.remove(draft)
            raise
    shred.supplant(draft, path)
    return True


def mark(path: Path) -> Path:
    """The file beside the keyring that says with which one the facts were written."""
    return path.with_name(f"{path.name}.id")


def canary(path: Path) -> Path:
    """The file beside the keyring by which a changed one is known."""
    return path.with_name(f"{path.name}.canary")


def guarded(path: Path) -> Iterator[str]:
    """What is wrong with who may read the keyring in ``path``, or put another in its place; each with the remedy."""
    file, folder = path.stat(), path.resolve().parent
    if file.st_mode & 0o077:
        yield f"others may read the keyring {path}: chmod 600"
    if file.st_uid != os.geteuid():
        yield f"the keyring {path} belongs to user {file.st_uid}: chown it to the user that runs Mailvane"
    around = folder.stat()
    if around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX:
        yield f"others may put another keyring into {folder}: chmod go-w"
    if around.st_uid not in (os.geteuid(), 0):
        yield f"the directory of the keyring, {folder}, belongs to user {around.st_uid}: chown it"


def _stir(keys: npt.NDArray[np.uint64], word: npt.NDArray[np.uint64]) -> None:
    """Mix a word of each row into its key, in place."""
    keys ^= word
    for factor in _MIX:
        keys ^= keys >> _SHIFT
        keys *= factor
    keys ^= keys >> _SHIFT


def _make(path: Path, key: WrappingKey | None) -> None:
    """Write a whole new keyring, and give it its name only if nobody was quicker."""
    head = (_MAGIC.ljust(64, b"\0") + os.urandom(_KEY)).ljust(_HEAD, b"\0")
    draft = _draft(path, (head, *(os.urandom(_BLOCK) for _ in range(_BUCKETS * _KEY // _BLOCK))), key)
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
    sync_folder(path.parent)


def _draft(path: Path, parts: Iterable[bytes], key: WrappingKey | None) -> Path:
    return drafted(path, key.wrapped(parts) if key else parts)


def _regular(path: Path) -> BinaryIO:
    """The open file; one that is no file is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"the keyring {path} can't be read: {error.strerror}") from error
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise UserError(f"{path} is no file")
    return file
