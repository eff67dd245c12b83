"""Whole lines out of a stream of bytes that is cut anywhere."""

from __future__ import annotations

LIMIT = 64 * 1024  # bytes: no log line that a mail server writes is longer; syslog daemons cut at 8 KiB or less
_BLOCK = LIMIT // 2  # a line over the limit holds at least one such block, counted from the start, without an end


class Lines:
    """Keeps what follows the last line end for the next time; drops lines over the limit, whose count is ``dropped``.

    The same bytes give the same lines however they are cut.
    """

    def __init__(self, *, skipping: bool = False) -> None:
        self.dropped = 0
        self.skipping = skipping  # the line now under way is over the limit
        self._rest = b""

    @property
    def pending(self) -> int:
        """Bytes of a line whose end is still to come."""
        return len(self._rest)

    def push(self, chunk: bytes) -> bytes:
        """The lines that ``chunk`` completes, each with its end."""
        if self.skipping:
            _, end, chunk = chunk.partition(b"\n")
            self.skipping = not end
        whole = self._rest + chunk if self._rest else chunk
        cut = whole.rfind(b"\n") + 1
        self._rest = whole[cut:]
        if len(self._rest) > LIMIT:
            self._rest, self.skipping = b"", True
            self.dropped += 1
        return self._short(whole[:cut])

    def rewind(self) -> None:
        """Forget the line under way: its bytes will be pushed again."""
        self._rest = b""

    def finish(self) -> bytes:
        """The last line of a file that does not end its last line, made whole; empty where there is none."""
        rest, self._rest, self.skipping = self._rest, b"", False
        return rest + b"\n" if rest else b""

    def _short(self, whole: bytes) -> bytes:
        if all(whole.find(b"\n", at, at + _BLOCK) >= 0 for at in range(0, len(whole) - _BLOCK, _BLOCK)):
            return whole
        lines = whole.split(b"\n")
        kept = [line for line in lines if len(line) <= LIMIT]
        self.dropped += len(lines) - len(kept)
        return b"\n".join(kept)
