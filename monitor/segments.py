"""Segment files: frames one after the other, each whole or known not to be.

A segment is named after its first frame's sequence, so that numbering goes on when all older segments are gone. A
frame is its payload's length, a CRC-32 of its sequence and payload, its sequence, and the payload.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

_HEAD = struct.Struct("<IIQ")
_SEQUENCE = struct.Struct("<Q")
_MARK_EVERY = 1 << 20  # bytes between two places in a segment from which reading may start
HEAD_BYTES = _HEAD.size
LONGEST = 1 << 28  # of one payload


class SpoolCorrupt(Exception):  # noqa: N818  # a state, not a fault
    """A frame that was acknowledged can't be read: a person must look before anything goes on."""


@dataclass(slots=True)
class Segment:
    """One file, as far as it is on disk."""

    path: Path
    first: int
    size: int
    marks: list[tuple[int, int]] = field(init=False)  # (sequence, offset), ascending

    def __post_init__(self) -> None:
        self.marks = [(self.first, 0)]

    def mark(self, sequence: int, offset: int) -> None:
        """Remember where a frame begins, if no place near it is known."""
        if offset - self.marks[-1][1] >= _MARK_EVERY:
            self.marks.append((sequence, offset))

    def place(self, sequence: int) -> tuple[int, int]:
        """(sequence, offset) of the last mark that is not past ``sequence``."""
        return self.marks[max(0, bisect_right(self.marks, (sequence, 1 << 62)) - 1)]


def head_of(sequence: int, payload: bytes) -> bytes:
    """What stands before the payload of frame ``sequence``."""
    return _HEAD.pack(len(payload), crc32(payload, crc32(_SEQUENCE.pack(sequence))), sequence)


def payload_of(file: BinaryIO, head: bytes, sequence: int) -> bytes | None:
    """The payload that follows ``head``; None if it isn't whole or isn't frame ``sequence``."""
    if len(head) < _HEAD.size:
        return None
    length, _, found = _HEAD.unpack(head)
    if found != sequence or length > LONGEST:
        return None
    payload = file.read(length)
    return payload if len(payload) == length and head_of(sequence, payload) == head else None


def mend(segment: Segment) -> int:
    """Cut what a crash left half written at the end; the sequence of the last whole frame."""
    sequence, offset = segment.first, 0
    with segment.path.open("r+b", buffering=1 << 20) as file:
        while head := file.read(_HEAD.size):
            payload = payload_of(file, head, sequence)
            if payload is None:
                file.seek(offset)
                if _follows(file.read(), sequence + 1):
                    raise SpoolCorrupt(f"{segment.path}: broken frame {sequence} at offset {offset}")
                file.truncate(offset)
                os.fsync(file.fileno())
                break
            segment.mark(sequence, offset)
            offset += _HEAD.size + len(payload)
            sequence += 1
    segment.size = offset
    return sequence - 1


def _follows(tail: bytes, sequence: int) -> bool:
    """Whether a whole frame ``sequence`` stands anywhere in ``tail``: then what is before it was no torn end."""
    name = _SEQUENCE.pack(sequence)
    at = tail.find(name)
    while at >= 0:
        start = at + _SEQUENCE.size - _HEAD.size
        if start >= 0:
            length = _HEAD.unpack_from(tail, start)[0]
            payload = tail[start + _HEAD.size : start + _HEAD.size + length]
            if len(payload) == length and tail.startswith(head_of(sequence, payload), start):
                return True
        at = tail.find(name, at + 1)
    return False


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it; a disk that fills takes a part and refuses the next."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
