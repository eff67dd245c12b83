"""What makes a log tell if somebody changed it: each row's link is a hash of the row and of the link before it.

Links stand in a table of their own, so that a ledger from before they were made goes on as it is: what it holds is
linked at its first opening. A row is hashed as the database has it, byte for byte and type by type, so that nothing in
it can be changed unseen, and the cut-off end of a log shows in the numbers that the database gave out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Column, Connection, Integer, LargeBinary, String, Table, func, select, text

from monitor.ledger.columns import metadata

START = bytes(32)
_PIECE = 5_000  # rows looked at in one go
# As bytes, a number with a fraction would be rounded to what people read.
_EXACT = """CASE typeof("{name}") WHEN 'real' THEN printf('%!.20g', "{name}") ELSE hex(CAST("{name}" AS BLOB)) END"""

_links = Table(
    "links",
    metadata,
    Column("log", String, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("link", LargeBinary, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log: its last row's number, and that row's link. Kept elsewhere, it proves all before it."""

    log: str
    seq: int
    link: bytes

    def __str__(self) -> str:
        return f"{self.log}:{self.seq}:{self.link.hex()}"

    @classmethod
    def parse(cls, told: str) -> Head:
        """The head that ``str`` has written.

        Raises:
            ValueError: it is none.
        """
        log, _, rest = told.strip().partition(":")
        seq, _, link = rest.partition(":")
        if not log.isidentifier() or not seq.isdigit() or len(link) != 2 * len(START):
            raise ValueError("a head looks like actions:17:6b86b2…, as mailvane audit head prints it")
        return cls(log, int(seq), bytes.fromhex(link))


@dataclass(frozen=True, slots=True)
class Flaw:
    """Where a log is not as it was written: in row ``seq`` of ``log``."""

    log: str
    seq: int
    what: str

    def __str__(self) -> str:
        return f"{self.log}: row {self.seq} {self.what}"


def begin(conn: Connection, log: Table) -> None:
    """Link what a log holds that has no link at all: it is from before there were any."""
    if not conn.execute(select(func.count()).select_from(_links).where(_links.c.log == log.name)).scalar_one():
        extend(conn, log, 1)


def extend(conn: Connection, log: Table, first: int) -> None:
    """Link the rows of ``log`` from ``first`` on, in the transaction that has appended them.

    A row before it that somebody else put in gets none, and so is found.
    """
    link = head(conn, log).link
    made = []
    for number, row in _rows(conn, log, first - 1):
        link = _next(link, row)
        made.append({"log": log.name, "seq": number, "link": link})
        if len(made) == _PIECE:
            conn.execute(_links.insert(), made)
            made = []
    if made:
        conn.execute(_links.insert(), made)


def head(conn: Connection, log: Table) -> Head:
    """The end of the log as it is linked."""
    last = conn.execute(
        select(_links.c.seq, _links.c.link).where(_links.c.log == log.name).order_by(_links.c.seq.desc()).limit(1)
    ).first()
    return Head(log.name, last.seq, bytes(last.link)) if last else Head(log.name, 0, START)


def length(conn: Connection, log: Table) -> int:
    """How many rows there are to verify."""
    return int(conn.execute(select(func.count()).select_from(log)).scalar_one())


def verify(conn: Connection, log: Table, known: Head | None = None) -> Iterator[Flaw | None]:
    """Go through a log from its beginning; None for each row that is right, and the first flaw, after which it ends.

    After a flaw nothing more can be said: every later link builds on it. ``known``: a head that was kept elsewhere.
    """
    link, seq = START, 0
    links = _linked(conn, log)
    for number, row in _rows(conn, log, 0):
        expected = next(links, None)
        if expected is None:
            yield Flaw(log.name, number, "was inserted: no link was made for it")
            return
        if expected[0] != number:
            gone = expected[0] < number
            what = "was removed" if gone else "was inserted: no link was made for it"
            yield Flaw(log.name, expected[0] if gone else number, what)
            return
        link, seq = _next(link, row), number
        if link != expected[1]:
            yield Flaw(log.name, number, "was changed, or its link was")
            return
        if known and known.seq == number and known.link != link:
            yield Flaw(log.name, number, "is not what the kept head was made of: the log was written anew up to it")
            return
        yield None
    if (left := next(links, None)) is not None:
        yield Flaw(log.name, left[0], "was removed")
    elif (given := _given(conn, log)) > seq:
        yield Flaw(log.name, seq + 1, f"and all up to {given} were removed with their links")
    elif known and known.seq > seq:
        yield Flaw(log.name, seq + 1, f"and all up to {known.seq} were removed: the kept head knows them")


def _rows(conn: Connection, log: Table, after: int) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each row after that one, read in pieces so that no log is too long."""
    names = [column.name for column in log.columns]
    # What the database has, and not what a driver makes of it: type and bytes of each value.
    shown = ", ".join(f'typeof("{name}"), {_EXACT.format(name=name)}' for name in names)
    asked = text(f"SELECT seq, {shown} FROM {log.name} WHERE seq > :after ORDER BY seq LIMIT {_PIECE}")  # noqa: S608  # names are ours
    while found := conn.execute(asked, {"after": after}).all():
        for row in found:
            yield row[0], _bytes(row[1:])
        after = found[-1][0]


def _bytes(values: Any) -> bytes:
    """Values one after the other; no two rows give the same, since neither a type nor a hex text holds these marks."""
    return "|".join(f"{kind}={value}" for kind, value in zip(values[::2], values[1::2], strict=True)).encode()


def _linked(conn: Connection, log: Table) -> Iterator[tuple[int, bytes]]:
    after = 0
    asked = select(_links.c.seq, _links.c.link).where(_links.c.log == log.name).order_by(_links.c.seq).limit(_PIECE)
    while found := conn.execute(asked.where(_links.c.seq > after)).all():
        for row in found:
            yield row.seq, bytes(row.link)
        after = found[-1].seq


def _given(conn: Connection, log: Table) -> int:
    """The highest number that the database ever gave to a row of the log."""
    found = conn.execute(text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": log.name}).scalar()
    return int(found or 0)


def _next(link: bytes, row: bytes) -> bytes:
    return sha256(link + row).digest()
