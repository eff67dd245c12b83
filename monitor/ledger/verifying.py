"""Whether a linked log is still as it was written; and if not, in which rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DatabaseError

from monitor.ledger import chain
from monitor.ledger.chain import Head, Row

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHANGED = "was changed"
_UNSURE = "was changed, or its link was"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Where a log is not as it was written: at row ``seq`` of ``log``; 0 where no row can be named."""

    log: str
    seq: int
    what: str
    at: object = None

    def __str__(self) -> str:
        where = f"row {self.seq} " if self.seq else ""
        return f"{self.log}: {where}{self.what}{_when(self.at)}"


class _Ahead(Generic[T]):
    """An iterator whose next value can be looked at; None at its end."""

    def __init__(self, source: Iterator[T]) -> None:
        self._source = source
        self.next = next(source, None)

    def take(self) -> None:
        self.next = next(self._source, None)


@dataclass(slots=True)
class _Doubt:
    """A row that does not fit its link: the next one tells which of both was touched, by what it was made of."""

    row: Row
    link: bytes  # that fits the row
    changed: str  # what is wrong if the row was
    relinked: str  # what is wrong if its link was


def verify(conn: Connection, log: Table, kept: Sequence[Head] = (), dropped: int = 0) -> Iterator[Flaw | None]:
    """Go through a log from its beginning: None for each number that is right, and each flaw in its place.

    ``kept``: heads of this log that were kept elsewhere. ``dropped``: up to which row the log itself says that rows
    were dropped, their time being over. Memory does not follow the length.

    Raises:
        ValueError: a kept head is of a row that was dropped, so that it proves nothing.
    """
    walk = _Walk(log, kept)
    try:
        yield from walk.through(conn, dropped)
    except DatabaseError as error:
        yield walk.flaw(walk.seq + 1, f"or one after it can't be read, the file is damaged: {error.orig}")


def sound(conn: Connection, log: Table) -> Iterator[Flaw]:
    """What the database itself finds wrong in the log's table and its indexes, by which the log is asked."""
    try:
        for (told,) in conn.exec_driver_sql(f"PRAGMA integrity_check('{log.name}')"):
            if told != "ok":
                yield Flaw(log.name, 0, f"the file is damaged, or was changed: {told}")
    except DatabaseError as error:
        yield Flaw(log.name, 0, f"the file is damaged: {error.orig}")


class _Walk:
    def __init__(self, log: Table, kept: Sequence[Head]) -> None:
        self._log = log
        self._kept = {head.seq: head.link for head in kept}
        self._doubt: _Doubt | None = None
        self._link: bytes | None = None  # of the row before; None where it is not known any more
        self.seq = 0

    def flaw(self, seq: int, what: str, at: object = None) -> Flaw:
        return Flaw(self._log.name, seq, what, at)

    def through(self, conn: Connection, dropped: int) -> Iterator[Flaw | None]:
        links, rows = _Ahead(chain.linked(conn, self._log)), _Ahead(chain.rows(conn, self._log))
        if links.next is None:
            yield self.flaw(0, "all links were removed")
            return
        self.seq, self._link = links.next
        links.take()
        older = int.from_bytes(self._link, "big") if self.seq == 0 else 0
        if self.seq != dropped:
            yield self.flaw(self.seq, f"has the first link, which {dropped} had: those before were removed")
            while rows.next and rows.next.seq <= self.seq:
                rows.take()
        yield from self._known(dropped)
        yield from self._side_by_side(rows, links, older)
        yield from self._settled(last=True)
        yield from self._ended(chain.given(conn, self._log))

    def _side_by_side(self, rows: _Ahead[Row], links: _Ahead[tuple[int, bytes]], older: int) -> Iterator[Flaw | None]:
        """Rows and links in the order of their numbers, of which those up to ``older`` may be left out."""
        while rows.next or links.next:
            row, link = rows.next, links.next
            if row and (link is None or row.seq < link[0]):
                yield from self._unlinked(row)
                rows.take()
                continue
            assert link  # noqa: S101  # one of both is left
            if link[0] > max(self.seq + 1, older):
                yield from self._left_out(link[0])
            if row is None or row.seq > link[0]:
                yield from self._settled()
                yield self.flaw(link[0], "was removed")
            else:
                yield from self._fits(row, link[1])
                rows.take()
            self.seq, self._link = link
            links.take()
            yield from self._against(*link)

    def _known(self, dropped: int) -> Iterator[Flaw]:
        if self._kept and (oldest := min(self._kept)) < dropped:
            raise ValueError(
                f"the head {self._log.name}:{oldest} proves nothing more: rows up to {dropped} were dropped when their "
                "time was over. Take a newer one"
            )
        yield from self._against(self.seq, self._link or b"")

    def _against(self, seq: int, link: bytes) -> Iterator[Flaw]:
        if self._kept.get(seq, link) != link:
            yield self.flaw(seq, "or one before it was written anew: the head that was kept has another link")

    def _unlinked(self, row: Row) -> Iterator[Flaw]:
        yield from self._settled()
        if self._link is None:
            yield self.flaw(row.seq, "was put in, or its link was removed", row.at)
        else:
            self._doubt = _Doubt(row, chain.following(self._link, row), "was put in", "lost its link")
        self.seq = max(self.seq, row.seq)

    def _left_out(self, number: int) -> Iterator[Flaw]:
        yield from self._settled()
        first, last = self.seq + 1, number - 1
        which = f"and those up to {last} were" if last > first else "was"
        yield self.flaw(first, f"{which} removed with the link; row {number} can't be proven")
        self._link = None

    def _fits(self, row: Row, link: bytes) -> Iterator[Flaw | None]:
        """Compare a row with its link, and settle what was open about the row before."""
        if self._link is None:
            return
        made = chain.following(self._link, row)
        if made == link:
            yield from self._settled()
            yield None
            return
        if self._doubt and chain.following(self._doubt.link, row) == link:
            yield self.flaw(self._doubt.row.seq, self._doubt.relinked, self._doubt.row.at)
            self._doubt = None
            yield None
            return
        yield from self._settled()
        self._doubt = _Doubt(row, made, _CHANGED, "still fits the rows around it, but its link was changed")

    def _settled(self, *, last: bool = False) -> Iterator[Flaw]:
        if self._doubt:
            doubt, self._doubt = self._doubt, None
            what = _UNSURE if last and doubt.changed == _CHANGED else doubt.changed
            yield self.flaw(doubt.row.seq, what, doubt.row.at)

    def _ended(self, given: int) -> Iterator[Flaw]:
        if given > self.seq:
            upto = f"and those up to {given} were" if given > self.seq + 1 else "was"
            yield self.flaw(self.seq + 1, f"{upto} removed from the end, with the link")
        elif given < self.seq:
            yield self.flaw(self.seq, f"is the last one, but the database's count of rows was set to {given}")
        if self._kept and (newest := max(self._kept)) > max(self.seq, given):
            yield self.flaw(self.seq + 1, f"up to {newest} were removed from the end: a head that was kept knows them")


def _when(at: object) -> str:
    try:
        return f" (written {_EPOCH + timedelta(microseconds=at):%Y-%m-%d %H:%M:%S} UTC)" if isinstance(at, int) else ""
    except OverflowError:
        return ""
