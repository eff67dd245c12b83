"""What syslog daemons send (RFC 5424, RFC 3164; framed by RFC 6587), as the lines that they would write to a file."""

from __future__ import annotations

import re

from collectors._lines import LIMIT, Lines
from collectors._stamps import STAMP

_STAMP = STAMP.encode()
_COUNT = re.compile(rb"([1-9]\d{0,9}) ")
_BEGIN = re.compile(rb"[1-9]\d{0,9}(?: <?)?")
_DATA = rb'(?:-|(?:\[(?:[^\]"\\\n]|"(?:[^"\\\n]|\\.)*+")*+\])++)'
_NEW = re.compile(
    rb"^<\d{1,3}>1 (\S++) (\S++) (\S++) (\S++) \S++ " + _DATA + rb"(?:\ {0,3}(?:\xef\xbb\xbf)?\ {0,3})?",
    re.MULTILINE,
)
_PRIORITY = re.compile(rb"^<\d{1,3}>", re.MULTILINE)
_NIL_HOST = re.compile(rb"^(" + _STAMP + rb") - ", re.MULTILINE)
_NO_HOST = re.compile(rb"^(" + _STAMP + rb") (?=[^\s\[:]++(?:\[[^\]\n]*+\])?+: )", re.MULTILINE)
_ENDS = b"\r\n\0"


class Stream:
    """One connection's bytes, cut anywhere, as whole log lines; longer messages than ``LIMIT`` are ``dropped``.

    Counted or ended by line: the first bytes tell which, for the whole connection. ``unframed``: a count was to come,
    and there is none, so where the next message begins can't be known.
    """

    def __init__(self, peer: str) -> None:
        self.unframed = False
        self._peer = peer.encode()
        self._lines = Lines()
        self._counted: bool | None = None
        self._rest = bytearray()
        self._skip = 0  # bytes still to come of a message that is too long
        self._dropped = 0

    @property
    def pending(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._rest or self._skip or self._lines.pending or self._lines.skipping)

    def dropped(self) -> int:
        """Messages that were too long, since the last call."""
        found, self._dropped, self._lines.dropped = self._dropped + self._lines.dropped, 0, 0
        return found

    def push(self, data: bytes) -> bytes:
        """The lines that ``data`` completes, each with its end."""
        if self._counted is None:
            self._rest += data
            if (counted := _is_counted(self._rest)) is None:
                return b""
            self._counted, data = counted, bytes(self._rest)
            self._rest.clear()
        return logged(self._messages(data) if self._counted else self._lines.push(data), self._peer)

    def _messages(self, data: bytes) -> bytes:
        rest = self._rest
        rest += data
        found = []
        at = 0
        while at < len(rest):
            if self._skip:
                gone = min(self._skip, len(rest) - at)
                at, self._skip = at + gone, self._skip - gone
                continue
            count = _COUNT.match(rest, at)
            if not count:
                self.unframed = len(rest) - at > 10 or not rest[at:].isdigit()
                break
            size = int(count[1])
            if size > LIMIT:
                self._dropped += 1
                at, self._skip = count.end(), size
                continue
            end = count.end() + size
            if end > len(rest):
                break
            found.append(one(rest[count.end() : end]))
            at = end
        del rest[:at]
        return b"".join(found)


def one(message: bytes | bytearray) -> bytes:
    """A message whose end is known, as one line: a break within it would be a line that nobody logged."""
    return bytes(message).rstrip(_ENDS).replace(b"\n", b" ") + b"\n"


def logged(lines: bytes, peer: bytes) -> bytes:
    """Syslog's lines as a file would have them; ``peer`` stands in where a line names no host."""
    if b">1 " in lines:
        lines = _NEW.sub(rb"\1 \2 \3[\4]: ", lines)
        lines = _NIL_HOST.sub(rb"\g<1> " + peer + b" ", lines)
    lines = _PRIORITY.sub(b"", lines)
    return _NO_HOST.sub(rb"\g<1> " + peer + b" ", lines)


def _is_counted(start: bytearray) -> bool | None:
    """Whether messages come with their lengths before them; None while that can't be told."""
    begin = _BEGIN.match(start)
    if not begin:
        return False
    if begin[0].endswith(b"<"):
        return True
    return None if begin.end() == len(start) else False
