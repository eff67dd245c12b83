"""Mail as strangers send it: any bytes become headers and parts, within bounds (RFC 5322, 2045 to 2047, 6522)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from collectors._charsets import decoded, unencoded
from collectors._headers import BLOCK, FIELDS, Headers, parsed
from collectors._quoted import quoted

__all__ = ("BLOCK", "FIELDS", "PARTS", "TEXTS", "Headers", "Mail", "Part", "parsed", "read")

DEPTH = 12  # multiparts within multiparts; real reports nest three deep
PARTS = 120  # leaves of one mail
TEXT = 256 * 1024  # bytes of a leaf that are read: what a report says stands at its beginning
TEXTS = 2 * 1024 * 1024  # bytes of all leaves
WHOLE = 64 * 1024 * 1024  # bytes of a mail

_FROM = re.compile(rb">?From ([^ \n]{0,320})[^\n]*\n")
_FIELD = re.compile(r"([!-9;-~]{1,100})[ \t]*:(.*)", re.DOTALL)
_PARAMETER = re.compile(r';[ \t]*([A-Za-z0-9*_-]{1,40})[ \t]*=[ \t]*(?:"([^"\n]{0,300})"?|([^;\s"]{0,300}))')
_KIND = re.compile(r"\s*([A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100})")
_DELIMITER = re.compile(rb"(?:^|\n)--(?=([^\s-][^\n]{0,199})\n(?:Content-|\n))", re.IGNORECASE)
_ORIGINALS = frozenset(
    ("message/rfc822", "message/global", "text/rfc822-headers", "text/rfc822-header", "message/rfc822-headers")
) | {"message/global-headers", "text/rfc822", "message/partial"}


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf of a message: its media type in lower case, such as text/plain, and its text, decoded as well as can be.

    ``quoted`` is where in the text the message begins that came back, -1 where it holds none. ``title`` is its
    Content-Description, or else its file name. Of a leaf that is no text (an image, an archive) the text is empty.
    ``cut``: there is more of it than was read.
    """

    kind: str
    text: str
    quoted: int = -1
    title: str = ""
    cut: bool = False

    @property
    def own(self) -> str:
        """The text without the message that is quoted in it."""
        return self.text if self.quoted < 0 else self.text[: self.quoted]


@dataclass(frozen=True, slots=True)
class Mail:
    """One message. ``parts`` are its leaves, without those of the message that came back inside of it.

    ``original`` are the headers of that message, whichever way they came: as message/rfc822, as text/rfc822-headers, or
    quoted in a text; None where none did. ``returned`` are its bytes, as many as were read. ``envelope`` is the sender
    of a From_ line, "" where there is none.
    """

    headers: Headers
    parts: tuple[Part, ...] = ()
    original: Headers | None = None
    envelope: str = ""
    size: int = 0
    report: str = field(default="")  # report-type of a multipart/report (RFC 6522), lower case
    kind: str = "text/plain"  # media type of the whole, lower case
    returned: bytes = field(default=b"", repr=False)


def read(raw: bytes) -> Mail:
    """The bytes as mail, however broken they are; never raises.

    Lines may end in CR, LF or both, and a From_ line may come first. What lies beyond the bounds of this module is
    left out; time and memory are linear in the bytes.
    """
    content = _lines(raw)
    envelope, start = _envelope(content)
    headers, body = _headers(content, start, len(content))
    reader = _Reader(content)
    kind, parameters = _kind(headers.get("content-type"))
    reader.walk(headers, body, len(content), DEPTH)
    if reader.original is None:
        reader.find_quoted()
    return Mail(
        headers,
        tuple(reader.parts),
        reader.original,
        envelope,
        len(raw),
        parameters.get("report-type", "").lower() if kind == "multipart/report" else "",
        kind or "text/plain",
        reader.returned,
    )


class _Reader:
    """What is found on a walk over a message's parts."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._left = PARTS  # leaves that are still read
        self._text = TEXTS
        self.parts: list[Part] = []
        self.original: Headers | None = None
        self.returned = b""

    def walk(self, headers: Headers, start: int, end: int, depth: int) -> None:
        kind, parameters = _kind(headers.get("content-type"))
        if depth and kind.startswith("multipart/"):
            delimiter = parameters.get("boundary", "").encode("utf-8", "replace")
            if self._multipart(delimiter, start, end, depth, digest=kind == "multipart/digest"):
                return
            kind = "text/plain"
        self._left -= 1
        self._leaf(kind or "text/plain", parameters, headers, start, end)

    def _multipart(self, boundary: bytes, start: int, end: int, depth: int, *, digest: bool) -> bool:
        content, beginning = self._content, start
        delimiter = b"--" + boundary
        place = self._delimiter(delimiter, start, end) if boundary else -1
        if place < 0:
            # No such boundary, or none at all: a delimiter is what stands above a part's own fields.
            found = _DELIMITER.search(content, max(start - 1, 0), min(end, start + TEXT))
            if found is None:
                return False
            delimiter = b"--" + found[1].rstrip()
            place = self._delimiter(delimiter, start, end)
            if place < 0:
                return False
        preamble = content[beginning:place].strip()
        if len(preamble) > 100 and b"@" in preamble:  # some write the reason above the first delimiter
            self.parts.append(Part("text/plain", decoded(preamble[:TEXT], "")))
        while place >= 0 and self._left > 0:
            first = content.find(b"\n", place, end) + 1
            if not first or content.startswith(b"--", place + len(delimiter)):
                break
            place = self._delimiter(delimiter, first - 1, end)
            last = place - 1 if place >= 0 else end
            headers, body = _headers(content, first, last)
            if digest and "content-type" not in headers:
                headers = Headers([*headers, ("content-type", "message/rfc822")])
            self.walk(headers, body, last, depth - 1)
        return True

    def _delimiter(self, delimiter: bytes, start: int, end: int) -> int:
        """Where the next line begins that is this delimiter; -1 where none is."""
        content, length = self._content, len(delimiter)
        place = start if content.startswith(delimiter, start) else content.find(b"\n" + delimiter, start, end) + 1
        for _ in range(16):
            if not content.startswith(delimiter, place) or place + length > end:
                return -1
            if content[place + length : place + length + 1] in b"- \t\n":
                return place
            place = content.find(b"\n" + delimiter, place, end) + 1
        found = re.compile(b"\n" + re.escape(delimiter) + rb"(?=[- \t\n]|\Z)").search(content, place - 1, end)
        return found.start() + 1 if found else -1

    def _leaf(self, kind: str, parameters: dict[str, str], headers: Headers, start: int, end: int) -> None:
        if kind.startswith(("image/", "audio/", "video/", "font/")):
            self.parts.append(Part(kind, ""))
            return
        coding = headers.get("content-transfer-encoding").lower()
        content = unencoded(self._content[start : min(end, start + 2 * TEXT)], coding)
        room = min(TEXT, self._text)
        cut, content = len(content) > room or end - start > 2 * TEXT, content[:room]
        self._text -= len(content)
        if kind in _ORIGINALS:
            if self.original is None:
                self.returned = content
                self.original = parsed(_top(decoded(content, parameters.get("charset", ""))))
            return
        title = headers.get("content-description") or parameters.get("name", "")
        binary = not kind.startswith(("text/", "message/")) and b"\0" in content[:1024]
        text = "" if binary else decoded(content, parameters.get("charset", ""))
        self.parts.append(Part(kind, text, title=title, cut=cut))

    def find_quoted(self) -> None:
        """Look for a message that came back within a text."""
        for number, part in enumerate(self.parts):
            if part.kind in ("text/plain", "text/html", "message/plain") and (found := quoted(part.text)):
                place, self.original = found
                self.returned = part.text[place:].encode("utf-8", "replace")
                self.parts[number] = Part(part.kind, part.text, place, part.title)
                return


def _lines(raw: bytes) -> bytes:
    """The same with LF as the end of each line, and without NUL."""
    content = raw if len(raw) <= WHOLE else raw[:WHOLE]
    content = content.replace(b"\0", b"") if b"\0" in content else content
    if b"\r" in content:
        content = content.replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n")
        content = content.replace(b"\r", b"" if b"\n" in content[:BLOCK] else b"\n")
    return content


def _envelope(content: bytes) -> tuple[str, int]:
    """The sender that a From_ line names, and where the headers begin."""
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    if content[start : start + 1] in (b"\n", b" ", b"\t"):
        start = len(content) - len(content[start:].lstrip(b"\n \t"))
    envelope = ""
    if found := _FROM.match(content, start):
        envelope, start = found[1].decode("utf-8", "replace").strip("<>"), found.end()
    return envelope, start


def _headers(content: bytes, start: int, end: int) -> tuple[Headers, int]:
    """The header block from ``start``, and where the body begins."""
    for _ in range(3):
        if found := _FROM.match(content, start, end):  # Yahoo's loop and some mailers put such lines above
            start = found.end()
    if content.startswith(b"\n", start):
        return Headers(), min(start + 1, end)
    close = content.find(b"\n\n", start, end)
    body = end if close < 0 else close + 2
    block = decoded(content[start : min(end if close < 0 else close, start + BLOCK)], "")
    first = block[:200].partition("\n")[0]
    if first and not _FIELD.match(first):
        return (
            (Headers(), start) if "\n" not in block or not _FIELD.match(block.split("\n", 2)[1]) else _past(block, body)
        )
    return parsed(block), body


def _past(block: str, body: int) -> tuple[Headers, int]:
    """The fields below a first line that is none."""
    return parsed(block.partition("\n")[2]), body


def _top(text: str) -> str:
    """A message that came back, without what some put above its headers: empty lines, From_ lines."""
    text = text.lstrip("\n")
    for _ in range(3):
        if text.startswith(("From ", ">From ")):
            text = text.partition("\n")[2]
    return text


def _kind(value: str) -> tuple[str, dict[str, str]]:
    """The media type in lower case, "" where there is none, and its parameters by name in lower case."""
    found = _KIND.match(value)
    if found is None:
        return "", {}
    parameters = {one[1].lower(): one[2] if one[2] is not None else one[3] for one in _PARAMETER.finditer(value)}
    return found[1].lower(), parameters
