"""Letters out of an mbox (RFC 4155), whose bytes come in pieces.

A letter begins with a From_ line, that is "From ", a sender and a date, at the start of the file or after an empty
line. Lines of a letter that would look like one were escaped by whoever wrote it (mboxo, mboxrd, mboxcl).
A Content-Length is not believed, as the sender of a letter may write one that hides the letters behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_START = b"From "
_DAYS = b"Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_MONTHS = b"Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
# The sender may be in quotes, with blanks, or missing; what follows the minutes differs from writer to writer.
_FROM = re.compile(
    rb"From [^\n]{0,1000}?(?<= )(?:" + _DAYS + rb"),? {1,3}(?:" + _MONTHS + rb") {1,3}\d\d? {1,3}\d\d:\d\d"
)
_LONGEST = 2_000  # bytes of a From_ line
_BEFORE = 4  # bytes that tell whether it comes after an empty line
_ESCAPED = re.compile(rb"^>(>{0,100}From )", re.MULTILINE)


def is_start(line: bytes) -> bool:
    """Whether a line (or what follows it too) is a From_ line."""
    return _FROM.match(line) is not None


class Splitter:
    """Keeps the letter that is under way. ``dropped`` counts those over ``largest`` bytes, which are not kept.

    The same bytes give the same letters however they are cut.
    """

    def __init__(self, largest: int, *, skipping: bool = False) -> None:
        self.dropped = 0
        self.skipping = skipping  # the letter under way is too large
        self._largest = largest
        self._rest = bytearray()
        self._looked = 0  # bytes of the rest that hold no From_ line but the first

    @property
    def pending(self) -> int:
        """Bytes of a letter whose end is still to come, and which must be pushed again to go on from here."""
        return len(self._rest)

    def push(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Letters that ``data`` ends, and how many bytes of what was pushed lie behind the start of each."""
        self._rest += data
        while (end := self._end()) is not None:
            yield from self._cut(end)
        if self._looked > self._largest and not self.skipping:
            self.skipping = True
            self.dropped += 1
        if self.skipping:  # all but what may be a From_ line, and the line end before it
            self._drop(max(0, self._looked - _BEFORE))

    def finish(self) -> Iterator[tuple[bytes, int]]:
        """The last letter, as nothing more belongs to it."""
        yield from self._cut(len(self._rest))

    def _end(self) -> int | None:
        """Where the next letter begins."""
        rest = self._rest
        while (at := rest.find(_START, max(self._looked, 1))) >= 0:
            line_end = rest.find(b"\n", at, at + _LONGEST)
            if line_end < 0 and len(rest) - at < _LONGEST:
                self._looked = at
                return None
            if self._may_start(at) and is_start(bytes(rest[at : max(line_end, 0)])):
                return at
            self._looked = at + 1
        self._looked = max(self._looked, len(rest) - len(_START) + 1)
        return None

    def _may_start(self, at: int) -> bool:
        """Whether this is after an empty line, or only empty lines are before it."""
        before = bytes(self._rest[max(0, at - _BEFORE) : at])
        return before.endswith((b"\n\n", b"\n\r\n")) or (not self.skipping and before in (b"\n", b"\r\n"))

    def _cut(self, end: int) -> Iterator[tuple[bytes, int]]:
        letter, behind = bytes(self._rest[:end]), len(self._rest)
        self._drop(end)
        self._looked = 0
        skipped, self.skipping = self.skipping, False
        if skipped or not letter.strip():
            return
        if len(letter) > self._largest:
            self.dropped += 1
            return
        yield _plain(letter), behind

    def _drop(self, count: int) -> None:
        del self._rest[:count]
        self._looked = max(0, self._looked - count)


def _plain(letter: bytes) -> bytes:
    """The letter as it was before it was put into the mbox."""
    if not is_start(letter[:_LONGEST]):  # a file with one letter, which nobody escaped
        return letter
    return _ESCAPED.sub(rb"\1", letter) if b">From " in letter else letter
