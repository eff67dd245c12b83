"""Many messages as one body of events, and the rows and rejects of that body back at their messages."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import msgspec

from collectors._decode import decode
from collectors._unpack import unpack
from monitor.model import Batch, Rejected
from monitor.scrub import scrub

MESSAGE_BYTES = 16 << 20  # of one message, unpacked: as POST /v1/events takes
MESSAGE_LINES = 100_000
_MESSAGE = "message"
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_PLAIN = ("", "identity", "utf-8")  # some publishers write the character set here
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class _Part:
    """The lines of one message; ``unit`` is what its sender would call one of them."""

    place: str
    text: bytes
    unit: str

    @property
    def filled(self) -> int:
        """Lines that are not blank."""
        return sum(1 for line in self.text.split(b"\n") if line and not line.isspace())


class Bodies:
    """Gathers messages until they make a batch; one decode for all, since messages may hold a single event each."""

    def __init__(self) -> None:
        self.lines = 0
        self.size = 0
        self._parts: list[_Part] = []
        self._starts: list[int] = []  # the line before each part's first
        self._rejected: list[Rejected] = []

    def add(self, place: str, body: bytes, encoding: str = "") -> None:
        """One message; one that is nonsense as a whole is rejected once. ``encoding``: as its header says, if any."""
        try:
            text, unit = _lines(_plain(body, encoding.strip().lower()))
        except ValueError as error:
            sample = scrub(body[:8000].decode("utf-8", "replace"), 200)
            self._rejected.append(Rejected(f"message: {error}", place, sample, raw=body, kind=_MESSAGE))
            self.size += len(body)  # it is held as long as the others
            return
        self._starts.append(self.lines)
        self._parts.append(_Part(place, text, unit))
        self.lines += text.count(b"\n") + 1
        self.size += len(text)

    def batch(self) -> Batch:
        """All of them decoded; ``watermark`` is the newest ``at``, as the decoder gives it."""
        told = decode(b"\n".join(part.text for part in self._parts)) if self._parts else Batch({})
        bad = {item.where: self._found(_number(item.where)) for item in told.rejected}
        rejected = [*self._rejected, *self._placed(told.rejected, bad)]
        return replace(told, rejected=rejected, places=_Places(self, len(told), {_number(where) for where in bad}))

    def place(self, number: int) -> str:
        """A line of the whole as the line of its message."""
        index, line = self._found(number)
        return f"{self._parts[index].place} {self._parts[index].unit} {line}"

    def numbers(self) -> Iterator[int]:
        """The lines of the whole that are not blank."""
        lines = (line for part in self._parts for line in part.text.split(b"\n"))
        return (number for number, line in enumerate(lines, start=1) if line and not line.isspace())

    def _found(self, number: int) -> tuple[int, int]:
        index = bisect_right(self._starts, number - 1) - 1
        return index, number - self._starts[index]

    def _placed(self, rejected: Sequence[Rejected], found: Mapping[str, tuple[int, int]]) -> Iterator[Rejected]:
        by_part: dict[int, list[Rejected]] = defaultdict(list)
        for item in rejected:
            by_part[found[item.where][0]].append(item)
        for index, items in by_part.items():
            text = self._parts[index].text
            lines = text.split(b"\n")
            placed = [
                replace(item, where=self.place(_number(item.where)), raw=lines[found[item.where][1] - 1])
                for item in items
            ]
            if len(items) > 1 and len(items) == self._parts[index].filled:
                why = f"message: none of its {len(items)} lines is an event, the first for this: {items[0].why}"
                yield replace(placed[0], why=why[:300], raw=text, kind=_MESSAGE)
            else:
                yield from placed


def again(items: Sequence[Rejected]) -> Batch:
    """What was rejected, decoded once more; what is packed is known by its first bytes."""
    bodies = Bodies()
    for item in items:
        bodies.add(item.where, item.raw)
    return bodies.batch()


class _Places(Sequence[str]):
    """Where each row stood; worked out only when somebody asks about one."""

    def __init__(self, bodies: Bodies, count: int, bad: AbstractSet[int]) -> None:
        self._bodies, self._count, self._bad = bodies, count, bad

    @cached_property
    def _lines(self) -> Sequence[int]:
        return [number for number in self._bodies.numbers() if number not in self._bad]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...

    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return [self._bodies.place(number) for number in self._lines[row]]
        return self._bodies.place(self._lines[row])


def _number(where: str) -> int:
    """The number in the decoder's "line 7"."""
    return int(where.removeprefix("line "))


def _plain(body: bytes, encoding: str) -> bytes:
    """The body unpacked, as its header or else its first bytes say.

    Raises:
        ValueError: too large, broken, or packed in another way.
    """
    if encoding in _PLAIN:
        encoding = next((name for magic, name in _MAGIC if body.startswith(magic)), "")
    if encoding:
        return unpack(body, encoding, MESSAGE_BYTES)
    if len(body) > MESSAGE_BYTES:
        raise ValueError(f"over {MESSAGE_BYTES} bytes: publish fewer events in one")
    return body


def _lines(body: bytes) -> tuple[bytes, str]:
    """One object a line, and what to call a line.

    Raises:
        ValueError: nothing in it, too many lines, or an array that is none.
    """
    text = body.rstrip()
    first = text.lstrip()[:1]
    if not first:
        raise ValueError("empty")
    if first == b"[":
        # Whatever the outcome, no such text may stand first in the whole, which would be taken for one array.
        text = _unrolled(text)
    if text.count(b"\n") >= MESSAGE_LINES:
        raise ValueError(f"over {MESSAGE_LINES} lines: publish fewer events in one")
    return text, "item" if first == b"[" else "line"


def _unrolled(array: bytes) -> bytes:
    """The items of a JSON array, one a line."""
    try:
        items = _ARRAY.decode(array)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"no JSON array: {scrub(str(error), 100)}") from error
    if not items:
        raise ValueError("empty")
    # A line break can only stand between the tokens of an item: within a string JSON writes it as \n.
    return b"\n".join(bytes(item).translate(_BREAKS) for item in items)


_BREAKS = bytes.maketrans(b"\r\n", b"  ")
