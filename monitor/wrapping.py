"""A keyring at rest, encrypted: AES-256-GCM under a key that is kept elsewhere, opened into memory alone.

Layout: magic (32 bytes), mark of the wrapping key (16), nonce (12), zeros (4), the whole keyring encrypted, tag (16).
The tag vouches for all that stands before it.
"""

from __future__ import annotations

import binascii
import ctypes
import hmac
import mmap
import os
import struct
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from monitor.errors import UserError

MAGIC = b"mailvane wrapped keyring 1\n"
_HEAD = struct.Struct("32s16s12s4x")
_NONCE = 12  # bytes, drawn at random for each writing (NIST SP 800-38D section 8.2.2)
_TAG = 16
_SECRET = 32
_BLOCK = 1 << 20


class WrappingKey:
    """The 32 bytes that open a wrapped keyring; nothing shows them. ``name`` tells one key from another."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _SECRET or len(set(secret)) == 1:
            raise ValueError("a wrapping key has 32 random bytes")
        self.mark = blake2b(key=secret, person=b"mark", digest_size=16).digest()
        self._cipher = blake2b(key=secret, person=b"wrap", digest_size=32).digest()

    @classmethod
    def parse(cls, text: str) -> WrappingKey:
        """The key that a text says in base64 or hex.

        Raises:
            ValueError: it says none; the message shows nothing of it.
        """
        bare = text.strip()
        with suppress(binascii.Error, ValueError):
            if len(bare) == 2 * _SECRET:
                return cls(bytes.fromhex(bare))
            strict = bare.rstrip("=").replace("+", "-").replace("/", "_")
            if len(strict) == 43 and strict.isascii() and strict.replace("-", "").replace("_", "").isalnum():
                return cls(urlsafe_b64decode(strict + "="))
        raise ValueError("is no key of 32 random bytes in base64 or hex: make one with openssl rand -base64 32")

    @property
    def name(self) -> str:
        """Eight characters, of no use to who would open anything."""
        return self.mark[:4].hex()

    def __repr__(self) -> str:
        return f"WrappingKey({self.name})"

    def wrapped(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """What goes into the file, for ``parts`` that are the keyring."""
        nonce = os.urandom(_NONCE)
        head = _HEAD.pack(MAGIC, self.mark, nonce)
        sealing = Cipher(algorithms.AES256(self._cipher), modes.GCM(nonce)).encryptor()
        sealing.authenticate_additional_data(head)
        yield head
        for part in parts:
            yield sealing.update(part)
        yield sealing.finalize() + sealing.tag

    def unwrap(self, head: bytes, file: BinaryIO, memory: mmap.mmap) -> None:
        """Fill the memory with what follows the head in the file.

        Raises:
            ValueError: it is not what was wrapped; what stands in the memory then must not be used.
        """
        opening = Cipher(algorithms.AES256(self._cipher), modes.GCM(_HEAD.unpack(head)[2])).decryptor()
        opening.authenticate_additional_data(head)
        with memoryview(memory) as view:
            for at in range(0, len(view), _BLOCK):
                block = file.read(min(_BLOCK, len(view) - at))
                with view[at:] as place:
                    opening.update_into(block, place)
        try:
            opening.finalize_with_tag(file.read(_TAG))
        except (InvalidTag, ValueError) as error:
            raise ValueError("changed since it was wrapped, or cut off") from error
        if file.read(1):
            raise ValueError("something follows it")


def size(of: int) -> int:
    """How many bytes the file of a wrapped keyring has, that itself has ``of``."""
    return _HEAD.size + of + _TAG


def unwrapped(file: BinaryIO, keys: Sequence[WrappingKey], memory: mmap.mmap) -> WrappingKey:
    """Fill the memory with the keyring in ``file``; by which of the keys.

    Raises:
        UserError: by none of them, or the file is damaged.
    """
    head = file.read(_HEAD.size)
    mark = _HEAD.unpack(head)[1]
    key = next((one for one in keys if hmac.compare_digest(one.mark, mark)), None)
    if key is None:
        have = f", and this is {' or '.join(one.name for one in keys)}" if keys else ""
        raise UserError(
            f"{file.name} is wrapped with the key {mark[:4].hex()}{have}: give the right one by [keyring], "
            "or a former one by --old-key-file"
        )
    try:
        key.unwrap(head, file, memory)
    except ValueError as error:
        raise UserError(f"{file.name} is damaged ({error}): restore it from its backup") from error
    return key


def anonymous(length: int) -> mmap.mmap:
    """Memory that is in no file and in no core dump and, where the system lets us, never in the swap."""
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError, AttributeError):  # not everywhere
        memory.madvise(mmap.MADV_DONTDUMP)
    with suppress(OSError, AttributeError):
        # It answers -1 where LimitMEMLOCK= is less; that is for the operator to raise.
        ctypes.CDLL(None).mlock(ctypes.byref(ctypes.c_char.from_buffer(memory)), ctypes.c_size_t(length))
    return memory
