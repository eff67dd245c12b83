"""Bodies unpacked within a bound, whatever they say of themselves: gzip (RFC 1952) and zstd (RFC 8878, RFC 9659)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import zstandard

ENCODINGS = ("gzip", "zstd")
_MEMBERS = 1000  # of one body: each costs a fresh window
# Pieces are small, since a piece is unpacked whole: a block of 4 bytes may stand for 128 KiB of zstd.
_PIECE = {"gzip": 16 << 10, "zstd": 512}
_WINDOW = 8 << 20  # the most that a body in this coding may ask for (RFC 9659 section 3)
_GZIP = 31  # zlib: the widest window, with the head and the sum of gzip


class TooLarge(ValueError):  # noqa: N818  # a state, not a fault
    """It is longer than the bound when it is unpacked."""


class _Stream(Protocol):
    """One member of a body, as zlib and zstandard both unpack it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """The body unpacked, all its members one after the other; never much more than ``limit`` bytes are held meanwhile.

    Raises:
        TooLarge: it is more than ``limit`` bytes.
        ValueError: it is broken, cut short, or in an encoding other than ``ENCODINGS``.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"{encoding[:40]!r} is no encoding of {', '.join(ENCODINGS)}")
    parts: list[bytes] = []
    size = 0
    try:
        for part in _parts(body, encoding, limit):
            size += len(part)
            if size > limit:
                raise TooLarge(f"unpacked it is over {limit} bytes")
            parts.append(part)
    except (zlib.error, zstandard.ZstdError) as error:
        raise ValueError(f"it is no whole {encoding}") from error
    return b"".join(parts)


def _parts(body: bytes, encoding: str, limit: int) -> Iterator[bytes]:
    begin = (lambda: _Gzip(limit + 1)) if encoding == "gzip" else _zstd()
    stream: _Stream | None = None
    members = 0
    for start in range(0, len(body), _PIECE[encoding]):
        piece = body[start : start + _PIECE[encoding]]
        while piece:
            if stream is None:
                members += 1
                if members > _MEMBERS:
                    raise ValueError(f"it has over {_MEMBERS:,} members")
                stream = begin()
            yield stream.decompress(piece)
            piece = stream.unused_data
            if stream.eof:
                stream = None
    if stream is not None:
        raise ValueError(f"it ends before its {encoding} does")


class _Gzip:
    """zlib's object, which is told a bound with each piece."""

    def __init__(self, most: int) -> None:
        self._inner = zlib.decompressobj(wbits=_GZIP)
        self._most = most

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, /) -> bytes:
        return self._inner.decompress(data, self._most)


def _zstd() -> Callable[[], _Stream]:
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj
