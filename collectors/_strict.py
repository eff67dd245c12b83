"""A letter read with one meaning or not at all, so that what a signature covers is what is read of it later."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from collectors._instants import instant

SIZE = 16 << 20  # bytes of a letter; reports bring the whole message at worst
BLOCK = 256 << 10  # bytes of its header block
FIELDS = 500  # of it; readers stop somewhere
# Readers differ on which one counts where there are several, and forgers know (RFC 6376 section 8.15).
_ONCE = (b"from", b"to", b"subject", b"date", b"sender", b"reply-to", b"content-type", b"content-transfer-encoding")
# What some readers take for the end of a line: a bare CR and other controls, NEL, and Unicode's two separators.
_OTHER_ENDS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2\x85|\xe2\x80[\xa8\xa9]")
_FIELD = re.compile(rb"([!-9;-~]{1,100}):(.*)", re.DOTALL)
_ADDRESS = r"[^\s@<>\",;:()\\\[\]]{1,128}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_ONE = re.compile(
    rf'(?:(?:"(?:[^"\\]|\\.){{0,300}}"|[^"<>@,;:\\()]{{0,300}})\s{{0,9}}<({_ADDRESS})>|({_ADDRESS}))\s{{0,9}}'
)
_EVERY = re.compile(_ADDRESS)
_BOUNDARY = re.compile(r';\s{0,20}boundary\s{0,20}=\s{0,20}(?:"([^"\r\n]{1,200})"|([^\s;"()<>]{1,200}))', re.IGNORECASE)
_DELIMITER = re.compile(rb"^--([^\r\n]{0,300})", re.MULTILINE)
_PARTED = re.compile(rb"^--[^\s-]", re.MULTILINE)
_AS_IS = frozenset(("", "7bit", "8bit", "binary"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Unclear(ValueError):  # noqa: N818 - an answer
    """A letter that may be read in more than one way; says why."""


@dataclass(frozen=True, slots=True)
class Strict:
    """Header fields in their order as (name, value with its folds), the body with CRLF, and who From says it is of."""

    fields: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(repr=False)
    local: str = field(repr=False)
    domain: str

    def value(self, name: bytes) -> str:
        """A header that stands once, unfolded; "" where it does not stand."""
        found = next((value for one, value in self.fields if one.lower() == name), b"")
        return " ".join(found.decode("utf-8", "replace").split())

    @property
    def date(self) -> datetime | None:
        """Of the Date header."""
        at = instant(self.value(b"date"))
        return _EPOCH + timedelta(microseconds=at) if at else None

    def addressed(self, whom: Sequence[str]) -> bool:
        """Whether To names one of the addresses, or a mailbox of one of the domains ("@example.com")."""
        told = [one.lower() for one in _EVERY.findall(self.value(b"to")[:4_000])]
        return any(one == to or (to.startswith("@") and one.endswith(to)) for one in told for to in whom)

    @property
    def coded(self) -> bool:
        """Whether a Content-Transfer-Encoding changes the body."""
        return self.value(b"content-transfer-encoding").lower() not in _AS_IS

    @property
    def plain(self) -> bool:
        """Whether the body alone tells how it is to be read, so that a forged Content-Type changes nothing.

        The first line of a body of parts is a delimiter, or prose of the reporter and then one; with another boundary,
        parts of the message that came back, written by whoever sent it, would stand for parts of the report.
        """
        kind = self.value(b"content-type")
        if not kind.lower().startswith(("multipart/report", "multipart/mixed")):
            return (kind == "" or kind.lower().startswith("text/plain")) and not _PARTED.search(self.body)
        found, first = _BOUNDARY.findall(kind), _DELIMITER.search(self.body)
        if len(found) != 1 or kind.lower().count("boundary") != 1 or first is None:
            return False
        return first[1].rstrip() == "".join(found[0]).encode()


def opened(raw: bytes) -> Strict:
    """A letter's header fields and body.

    Raises:
        Unclear: it is too large, or a header is such that readers would differ on it.
    """
    if len(raw) > SIZE:
        raise Unclear(f"it is larger than {SIZE >> 20} MiB")
    start = raw.find(b"\n") + 1 if raw.startswith(b"From ") else 0  # of an mbox
    block, end, body = _halves(raw, start)
    if len(block) > BLOCK or not end:
        raise Unclear("its headers do not end")
    fields = _fields(block)
    names = [name.lower() for name, _ in fields]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Unclear(f"it has more than one {name.decode().title()}")
    local, domain = _sender(fields)
    return Strict(fields, re.sub(rb"\r?\n", b"\r\n", body), local, domain)


def _halves(raw: bytes, start: int) -> tuple[bytes, bytes, bytes]:
    """Headers, what ends them, and the body."""
    found = re.compile(rb"\r?\n\r?\n").search(raw, start, start + BLOCK + 4)
    if found is None:
        return raw[start : start + BLOCK + 1], b"", b""
    return raw[start : found.start()], found[0], raw[found.end() :]


def _fields(block: bytes) -> tuple[tuple[bytes, bytes], ...]:
    lines = re.split(rb"\r?\n", block)
    fields: list[tuple[bytes, list[bytes]]] = []
    for line in lines:
        if _OTHER_ENDS.search(line):
            raise Unclear("a line of its headers may be read as two")
        if line[:1] in (b" ", b"\t"):
            if not fields or not line.strip():
                raise Unclear("a line of its headers belongs to none")
            fields[-1][1].append(line)
        elif found := _FIELD.fullmatch(line):
            fields.append((found[1], [found[2]]))
        else:
            raise Unclear("a line of its headers is no header")
    if len(fields) > FIELDS:
        raise Unclear(f"it has more than {FIELDS} headers")
    return tuple((name, b"\r\n".join(told) + b"\r\n") for name, told in fields)


def _sender(fields: Sequence[tuple[bytes, bytes]]) -> tuple[str, str]:
    value = next((value for name, value in fields if name.lower() == b"from"), None)
    if value is None:
        raise Unclear("it has no From")
    found = _ONE.fullmatch(" ".join(value.decode("utf-8", "replace").split()))
    if found is None:
        raise Unclear("its From is not one address")
    local, _, domain = (found[1] or found[2]).rpartition("@")
    return local, domain.lower()
