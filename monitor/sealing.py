"""A file of the quarantine: what it is and what it holds, each sealed; the first can be read without the second."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import BinaryIO

import msgspec
from msgspec import Struct

from monitor.errors import UserError
from monitor.keyring import Keyring
from monitor.model import Rejected
from monitor.scrub import scrub

_MAGIC = b"mvq1"
_LENGTH = struct.Struct("<I")
_LONGEST_HEAD = 1 << 20


class Trouble(UserError):  # noqa: N818  # a state, not a fault
    """What stands in the way of a wish, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what, self.remedy = what, remedy


class Damaged(Trouble):
    """A file is not what we wrote."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"item {name} can't be opened, {why}", "drop it, or put the right keyring back")


class Head(Struct, frozen=True):
    """What is known of an item; ``marks`` tell its things from others, ``content`` is the digest of what it holds."""

    id: str
    at: datetime | None  # None: when its file was written
    source: str
    kind: str
    where: str
    why: str
    count: int
    marks: list[bytes]
    content: bytes = b""


class _Thing(Struct, array_like=True):
    raw: bytes
    where: str
    why: str
    kind: str


_heads, _things = msgspec.msgpack.Decoder(Head), msgspec.msgpack.Decoder(list[_Thing])


def sealed(keyring: Keyring, head: Head, things: Sequence[Rejected]) -> bytes:
    """The bytes of a file."""
    told = [_Thing(thing.raw, scrub(thing.where, 300), scrub(thing.why, 300), thing.kind) for thing in things]
    content = keyring.seal(msgspec.msgpack.encode(told))
    # The head vouches for what follows it, so that a file can't be put together of two.
    start = keyring.seal(msgspec.msgpack.encode(msgspec.structs.replace(head, content=_digest(content))))
    return _MAGIC + _LENGTH.pack(len(start)) + start + content


def head(keyring: Keyring, name: str, file: BinaryIO) -> Head:
    """What the file ``name`` says of itself; what it holds follows in ``file``.

    Raises:
        Damaged: it is no such file, was changed, renamed, or sealed with another keyring.
    """
    begin = file.read(len(_MAGIC) + _LENGTH.size)
    if len(begin) < len(_MAGIC) + _LENGTH.size or not begin.startswith(_MAGIC):
        raise Damaged(name, "it is no file of the quarantine")
    length = _LENGTH.unpack_from(begin, len(_MAGIC))[0]
    try:
        told = _heads.decode(keyring.unseal(file.read(min(length, _LONGEST_HEAD))))
    except (ValueError, msgspec.MsgspecError) as error:
        raise Damaged(name, _why(error)) from error
    if told.id != name:
        raise Damaged(name, "it was renamed")
    return told


def things(keyring: Keyring, name: str, content: BinaryIO) -> list[Rejected]:
    """What the file ``name`` holds.

    Raises:
        Damaged: as for ``head``.
    """
    told = head(keyring, name, content)
    rest = content.read()
    if _digest(rest) != told.content:
        raise Damaged(name, "changed since it was sealed")
    try:
        found = _things.decode(keyring.unseal(rest))
    except (ValueError, msgspec.MsgspecError) as error:
        raise Damaged(name, _why(error)) from error
    return [Rejected(thing.why, thing.where, raw=thing.raw, kind=thing.kind) for thing in found]


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _why(error: Exception) -> str:
    return "it holds something else" if isinstance(error, msgspec.MsgspecError) else str(error)
