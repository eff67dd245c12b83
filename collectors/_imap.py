"""A folder of an IMAP server: what is in it, and what becomes of that (RFC 9051, RFC 3501).

Every method may raise what ``_imap_client`` tells of.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from imaplib import IMAP4
from typing import Any

from collectors._bell import Bell
from collectors._imap_client import Client, understood
from collectors._uids import LAST, packed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A line of answer may have a million bytes in imaplib, and a UID has ten digits and a blank.
_LISTED = 50_000
_NAMED = 500  # letters named in one command: even far apart they fit into the 8,192 bytes that RFC 7162 section 4 tells
KEYWORD = "$MailvaneRead"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A letter as the server gave it; when it arrived there (POSIX µs, 0 unknown)."""

    content: bytes
    received: int


class Folder:
    """A folder that is open on a connection of its own."""

    def __init__(self, client: Client, name: str, *, change: bool = True) -> None:
        self._client, self.name = client, name
        with understood():
            told = client.select_folder(name, readonly=not change)
        self.validity = _whole(told.get(b"UIDVALIDITY"))
        self._exists = _whole(told.get(b"EXISTS"))
        self._next = _whole(told.get(b"UIDNEXT")) or LAST
        kept = told.get(b"PERMANENTFLAGS") or ()
        self.keeps_keywords = rb"\*" in kept or KEYWORD.encode() in kept
        self.idles = bool(client.has_capability("IDLE"))
        # Whether more was announced since the last listing began, and whether a second look was worth nothing.
        self._grown, self._in_vain = False, False

    def listed(self, low: int) -> Iterator[list[int]]:
        """UIDs of the letters from ``low`` on, ascending, in lists that are bounded; none that are deleted."""
        self._grown = False
        if self._exists > _LISTED:
            low = max(low, self._first())
            while low < self._next:
                yield self._search(low, low + _LISTED - 1)
                low += _LISTED
            self._exists = 0  # what comes from now on comes by and by
        yield self._search(low, None)

    def present(self, uids: Collection[int]) -> set[int]:
        """Those of the letters that are still there."""
        found: set[int] = set()
        for some in _portions(uids):
            with understood():
                found |= set(self._client.search(["UID", some, "UNDELETED"])) & set(uids)
        self._client.forget()
        return found

    def sizes(self, uids: Sequence[int], small: int) -> dict[int, int]:
        """Bytes of each letter; of those that have no more than ``small``, just that: it is quicker."""
        large: list[int] = []
        for some in _portions(uids):
            with understood():
                large += self._client.search(["UID", some, "LARGER", small])
        with understood():
            found = self._client.fetch(large, ["RFC822.SIZE"])
        self._client.forget()
        return dict.fromkeys(uids, small) | {uid: _whole(parts.get(b"RFC822.SIZE")) for uid, parts in found.items()}

    def fetched(self, uids: Sequence[int], largest: int) -> dict[int, Fetched | None]:
        """The letters that are still there; None where the server has one and gives no content.

        Of each letter so much comes that one that is larger than ``largest`` can be told, whatever its size was said
        to be.
        """
        with understood():
            found = self._client.fetch(uids, [f"BODY.PEEK[]<0.{largest + 1}>", "INTERNALDATE"])
        self._forget()
        return {uid: _letter(parts) for uid, parts in found.items()}

    def wait(self, seconds: float, bell: Bell) -> None:
        """IDLE until the server tells something, so many seconds have passed, or the bell rings (RFC 2177).

        What came between the last listing and now was announced with some other answer, and is not announced again.
        """
        until = time.monotonic() + seconds
        with understood():
            self._client.idle()
            self._forget()
            again, self._in_vain = self._grown and not self._in_vain, self._grown
            if not again and not self._client.has_more():
                bell.wait(self._client.socket(), until - time.monotonic())
            self._client.idle_done()
        self._forget()

    def ask(self) -> None:
        """Have the server tell what is new; the next list has it."""
        with understood():
            self._client.noop()
        self._forget()

    def mark(self, uids: Sequence[int], flag: str) -> None:
        """Set a flag or keyword on these letters."""
        for some in _portions(uids):
            with understood():
                self._client.add_flags(some, flag, silent=True)
        self._forget()

    def move(self, uids: Sequence[int], to: str) -> None:
        """Move these letters to the folder ``to``, which is made where there is none.

        Without MOVE (RFC 6851) they are copied, then deleted.
        """
        moves = self._client.has_capability("MOVE")
        carry = self._client.move if moves else self._client.copy
        for some in _portions(uids):
            with understood():
                try:
                    carry(some, to)
                except IMAP4.abort:
                    raise
                except IMAP4.error:
                    if self._client.folder_exists(to):
                        raise
                    self._client.create_folder(to)
                    with suppress(IMAP4.error):
                        self._client.subscribe_folder(to)  # so that people see it
                    carry(some, to)
            self._forget()
        if not moves:
            self.delete(uids)

    def delete(self, uids: Sequence[int]) -> None:
        """Delete these letters; without UIDPLUS (RFC 4315) they stay, marked as deleted.

        A plain EXPUNGE would also take what others have marked and may still want.
        """
        self.mark(uids, r"\Deleted")
        if self._client.has_capability("UIDPLUS"):
            for some in _portions(uids):
                with understood():
                    self._client.uid_expunge(some)
            self._forget()

    def _forget(self) -> None:
        self._grown |= self._client.forget()

    def _first(self) -> int:
        self._client.use_uid = False
        try:
            with understood():
                found = self._client.fetch([1], ["UID"])
        finally:
            self._client.use_uid = True
        return max(1, _whole(found.get(1, {}).get(b"UID")))

    def _search(self, low: int, high: int | None) -> list[int]:
        if low > LAST:
            return []
        with understood():
            found = self._client.search(["UID", f"{low}:{high or '*'}", "UNDELETED"])
        self._forget()
        # A range that ends in * has the last letter in it, even if that is below `low`.
        uids = sorted(uid for uid in set(found) if low <= uid <= (high or LAST))
        self._in_vain &= not uids
        return uids


def _portions(uids: Collection[int]) -> Iterator[str]:
    ordered = sorted(uids)
    for start in range(0, len(ordered), _NAMED):
        yield packed(ordered[start : start + _NAMED])


def _letter(parts: dict[bytes, Any]) -> Fetched | None:
    content = next((value for name, value in parts.items() if name.startswith(b"BODY[]")), None)
    return Fetched(content, _micros(parts.get(b"INTERNALDATE"))) if isinstance(content, bytes) else None


def _micros(at: object) -> int:
    try:
        return max(0, (at - _EPOCH) // _MICROSECOND) if isinstance(at, datetime) else 0
    except (TypeError, OverflowError):
        return 0


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
