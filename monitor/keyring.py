"""Pseudonyms: who and which message, told by keys that never leave one file (ADR 9).

An address belongs to one of 2^20 buckets, each with a random key of its own. A new key for the bucket cuts the link
between the address and all that was ever written of it, in old backups too.
"""

from __future__ import annotations

import hmac
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from monitor import keyfile
from monitor.custody import IN_FILE, wrapping
from monitor.errors import UserError
from monitor.files import write
from monitor.keyfile import BUCKETS, HEAD, KEY
from monitor.model import DRESS, Kind
from monitor.settings import Custody
from monitor.wrapping import WrappingKey

PSEUDONYM_BYTES = 16
UNKNOWN = bytes(PSEUDONYM_BYTES)  # of an empty address or message id
# Part of every event's key, on disk for years: add, never change.
CODES = {
    Kind.SENT: 1,
    Kind.DEFERRED: 2,
    Kind.BOUNCED: 3,
    Kind.EXPIRED: 4,
    Kind.COMPLAINT: 5,
    Kind.HELD: 6,
    Kind.UNSUBSCRIBED: 7,
    Kind.NOT_SPAM: 8,
    Kind.UNVERIFIED_COMPLAINT: 9,
    Kind.UNVERIFIED_BOUNCE: 10,
    Kind.RETURNED: 11,
}
# What can happen to a message at a recipient once only: it counts once, whichever attempt a source names.
FINAL = frozenset(CODES) - {Kind.DEFERRED, Kind.HELD}

_FINAL_CODES = np.array([CODES[kind] for kind in FINAL], np.uint8)
# The finalizer of MurmurHash3 (Appleby, public domain): each bit of what goes in moves each bit of what comes out.
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)
_NONCE = 12  # bytes, drawn at random for each seal (NIST SP 800-38D section 8.2.2)


class Pseudonym(str):
    """A message id of which only the pseudonym is known, in hexadecimal: it stands in a column beside plain ones."""

    __slots__ = ()


class Keyring:
    """The open keyring; safe to use from many threads. Whoever holds it can tell who was meant: keep it apart.

    ``wrapped_by``: the name of the key under which its file rests; empty where that is in plain.
    """

    def __init__(self, keys: mmap.mmap, wrapped_by: str = "") -> None:
        self._keys = keys
        self.wrapped_by = wrapped_by
        index = keyfile.index_key(keys)
        self._bucket = blake2b(key=index, person=b"bucket", digest_size=8)
        self._message = blake2b(key=index, person=b"message", digest_size=PSEUDONYM_BYTES)
        self._event = np.frombuffer(blake2b(key=index, person=b"event", digest_size=8).digest(), "<u8")[0]
        self._id = blake2b(key=index, person=b"id", digest_size=8)
        self._canary = blake2b(key=index, person=b"canary", digest_size=32)
        self._seal = AESGCM(blake2b(key=index, person=b"seal", digest_size=32).digest())

    @classmethod
    def open(cls, path: Path, custody: Custody = IN_FILE) -> Keyring:
        """The keyring in the file ``path`` as it must rest by ``custody``, made at first (32 MiB, for its owner only).

        Raises:
            UserError: the file is no whole keyring, others may read it, it rests otherwise, or its key is missing.
        """
        key = wrapping(custody)
        if not path.exists():
            keyfile.make(path, key)
        keyring = cls.load(path, *([key] if key else []))
        if key and not keyring.wrapped_by:
            keyring.close()
            raise UserError(
                f'{path} rests in plain, and [keyring] says custody = "{custody.custody}": mailvane keys wrap'
            )
        return keyring

    @classmethod
    def load(cls, path: Path, *keys: WrappingKey) -> Keyring:
        """The keyring in a file that is there, in plain or wrapped by one of the keys.

        Raises:
            UserError: the file is no whole keyring, others may read it, or none of the keys opens it.
        """
        return cls(*keyfile.opened(path, keys))

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
        buckets = np.frombuffer(b"".join(macs), "<u8") % np.uint64(BUCKETS)
        places = (buckets * np.uint64(KEY) + np.uint64(HEAD)).tolist()
        keys = self._keys
        return [
            blake2b(text, key=keys[at : at + KEY], digest_size=PSEUDONYM_BYTES).digest() if text else UNKNOWN
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
            if type(message_id) is Pseudonym:
                found.append(bytes.fromhex(message_id))
            elif plain:
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
        """Put it into the new file ``path``, wrapped by the key, or in plain."""
        keyfile.put(self._keys, path, key)

    def vouch(self, path: Path) -> None:
        """Write beside its file ``path`` which keyring it is, and a canary by which a changed one is known.

        To be called again when a bucket got a new key.
        """
        write(keyfile.mark(path), self.identity.encode() + b"\n")
        write(keyfile.canary(path), self.seal(self._digest()))

    def doubts(self, sealed: bytes) -> str:
        """What the canary ``sealed`` has against it; empty where it is as it was."""
        try:
            told = self.unseal(sealed)
        except ValueError as error:
            return str(error)
        return "" if hmac.compare_digest(told, self._digest()) else "some keys are others than they were"

    def flaws(self) -> Iterator[str]:
        """What is wrong with the keys themselves: each must be random, and another."""
        if not any(keyfile.index_key(self._keys)):
            yield "the index key is zero"
        keys = np.frombuffer(self._keys, "<u8", offset=HEAD).reshape(-1, KEY // 8)
        random = keys[keys.any(axis=1)]
        if zeros := len(keys) - len(random):
            yield f"{zeros} keys are zero"
        # Two random keys begin with the same 8 bytes once in 30 million keyrings.
        if repeats := len(random) - len(np.unique(random[:, 0])):
            yield f"{repeats} keys are there twice"

    def _digest(self) -> bytes:
        mac = self._canary.copy()
        for part in keyfile.parts(self._keys):
            mac.update(part)
        return mac.digest()

    def close(self) -> None:
        """Let go of it; no pseudonym can be made afterwards."""
        self._keys.close()


def _stir(keys: npt.NDArray[np.uint64], word: npt.NDArray[np.uint64]) -> None:
    """Mix a word of each row into its key, in place."""
    keys ^= word
    for factor in _MIX:
        keys ^= keys >> _SHIFT
        keys *= factor
    keys ^= keys >> _SHIFT
