"""What makes a log tell if somebody changed it: each row's link is a hash of the row and of the link before it.

Links stand in a table of their own, so that a ledger from before they were made goes on as it is: what it holds is
linked at its first opening. A row is hashed as the database has it, type by type and byte by byte, so that nothing in
it can be changed unseen. Whoever may write the file can write a whole log anew, links and all: that shows by a head
that was kept elsewhere, and by nothing else.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Column, Connection, Integer, LargeBinary, String, Table, delete, func, select, text

from monitor.ledger.columns import metadata

SIZE = 32  # bytes of a link
_PIECE = 5_000  # links written in one go
_HEAD = re.compile(r"([a-z]+):(\d{1,18}):([0-9a-f]{64})")
_LENGTH = struct.Struct(">Q")
_FLOAT = struct.Struct(">d")

links = Table(
    "links",
    metadata,
    Column("log", String, primary_key=True),
    # 0: its link is the number of the last row that was there before there were links, which bounds numbers left out.
    Column("seq", Integer, primary_key=True),
    Column("link", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
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
        found = _HEAD.fullmatch(told.strip())
        if not found:
            raise ValueError("a head looks like actions:17:6b86b2…, as mailvane audit head prints it")
        return cls(found[1], int(found[2]), bytes.fromhex(found[3]))


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a log: its number, when it says it was written (POSIX microseconds), and what its link is made of."""

    seq: int
    at: object
    content: bytes


def begin(conn: Connection, logs: Sequence[Table]) -> None:
    """Begin the links of a ledger that has none, with what its logs hold already.

    Links that are gone are not made anew: whoever took them away would have what was changed confirmed.
    """
    if conn.execute(select(links.c.seq).limit(1)).first() or any(given(conn, log) for log in logs[1:]):
        return
    for log in logs:
        last = conn.execute(select(func.coalesce(func.max(log.c.seq), 0))).scalar_one()
        conn.execute(links.insert().values(log=log.name, seq=0, link=int(last).to_bytes(SIZE, "big")))
        extend(conn, log, 1)


def extend(conn: Connection, log: Table, first: int) -> None:
    """Link the rows of ``log`` from ``first`` on, in the transaction that has appended them.

    A row before it that somebody else put in gets none, and so is found.
    """
    link = head(conn, log).link
    made = []
    for row in rows(conn, log, first):
        link = following(link, row)
        made.append({"log": log.name, "seq": row.seq, "link": link})
        if len(made) == _PIECE:
            conn.execute(links.insert(), made)
            made = []
    if made:
        conn.execute(links.insert(), made)


def drop(conn: Connection, log: Table, last: int) -> None:
    """Remove the rows up to ``last``; its link stays, since the next row's is made of it."""
    conn.execute(delete(log).where(log.c.seq <= last))
    conn.execute(delete(links).where((links.c.log == log.name) & (links.c.seq < last)))


def head(conn: Connection, log: Table) -> Head:
    """The end of the log as it is linked."""
    mine = select(links.c.seq, links.c.link).where(links.c.log == log.name)
    last = conn.execute(mine.order_by(links.c.seq.desc()).limit(1)).first()
    return Head(log.name, last.seq, bytes(last.link)) if last else Head(log.name, 0, bytes(SIZE))


def length(conn: Connection, log: Table) -> int:
    """How many rows there are."""
    return int(conn.execute(select(func.count()).select_from(log)).scalar_one())


def given(conn: Connection, log: Table) -> int:
    """The highest number that the database ever gave to a row of the log."""
    found = conn.execute(text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": log.name}).scalar()
    return found if isinstance(found, int) else 0


def rows(conn: Connection, log: Table, first: int = -1 << 63) -> Iterator[Row]:
    """The rows from ``first`` on, as the database has them and not as a driver reads them; one at a time."""
    names = [column.name for column in log.columns]
    # Text comes as its bytes, and bytes as hex text, so that neither is taken for the other.
    shown = ", ".join(
        f"""CASE typeof("{name}") WHEN 'text' THEN CAST("{name}" AS BLOB) WHEN 'blob' THEN hex("{name}")"""
        f""" ELSE "{name}" END"""
        for name in names
    )
    asked = f"SELECT seq, at, {shown} FROM {log.name} WHERE seq >= ? ORDER BY seq"  # noqa: S608  # names are ours
    encode = _encoder(log.name, names)
    for seq, at, *values in conn.exec_driver_sql(asked, (first,)):
        yield Row(seq, at, encode(values))


def linked(conn: Connection, log: Table) -> Iterator[tuple[int, bytes]]:
    """The links of a log with their numbers, one at a time."""
    # Whoever writes the file may put anything anywhere: a number that is none belongs to no row.
    asked = """SELECT seq, coalesce(CAST(link AS BLOB), x'') FROM links
        WHERE "log" = ? AND typeof(seq) = 'integer' ORDER BY seq"""
    yield from map(tuple, conn.exec_driver_sql(asked, (log.name,)))


def following(link: bytes, row: Row) -> bytes:
    """The link of the row that follows the one with ``link``."""
    return sha256(link + row.content).digest()


def _encoder(log: str, names: Sequence[str]) -> Callable[[Sequence[Any]], bytes]:
    """What makes bytes of a row's values, other ones for every other row.

    What is NULL is left out, so that a column that comes later changes no link of before.
    """
    prefixes = [f"{name}\0".encode() for name in names]
    start = f"{log}\0".encode()

    def encode(values: Sequence[Any]) -> bytes:
        parts = [start]
        for prefix, value in zip(prefixes, values, strict=True):
            if value is not None:
                kind, content = _value(value)
                parts += (prefix, kind, _LENGTH.pack(len(content)), content)
        return b"".join(parts)

    return encode


def _value(value: bytes | str | float) -> tuple[bytes, bytes]:
    if isinstance(value, bytes):
        return b"t", value
    if isinstance(value, str):
        return b"b", value.encode()
    if isinstance(value, int):
        return b"i", b"%d" % value
    return b"f", _FLOAT.pack(value)
