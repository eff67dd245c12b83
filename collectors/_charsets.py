"""Text out of the bytes of mail: transfer codings, charsets and encoded words, as far as they can be believed."""

from __future__ import annotations

import binascii
import codecs
import re
from functools import lru_cache

# What mailers call by the name of a smaller charset, and codecs that are no charset of a mail or take quadratic time.
_WIDER = {"shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "iso8859-1": "cp1252"}
_NO_CHARSETS = frozenset(("punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"))
_ENCODED = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]{0,2000})\?=(\s*)")
_HALVES = re.compile("[\ud800-\udfff]")
_ASCII = bytes(range(0x80))
_KANA = re.compile("[\u3040-\u30ff]")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def decoded(content: bytes, charset: str) -> str:
    """The bytes as text: in the charset that is declared if they are, else in whichever fits."""
    if content.isascii() and b"\x1b" not in content:
        # Each charset of a mail that says otherwise of such bytes is a shifted one, and has an escape in it.
        return content.decode("ascii")
    name = _codec(charset)
    if name and name != "ascii":
        text = content.decode(name, "replace")
        # UTF-7 and some others can spell halves of characters, which no file and no database takes.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _HALVES.search(text) else text
    if b"\x1b$" in content:
        return content.decode("iso2022_jp_ext", "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start > len(content) - 4:  # cut in the middle of a character
            return content.decode("utf-8", "replace")
    return content.decode(_guess(content), "replace")


def unencoded(content: bytes, coding: str) -> bytes:
    """The bytes without a Content-Transfer-Encoding; what is broken is left out."""
    coding = coding.strip()
    if coding.startswith("quoted"):
        return binascii.a2b_qp(content)
    if coding.startswith("base64"):
        return _base64(content)
    return content


def words(value: str) -> str:
    """A header's value with its encoded words decoded (RFC 2047); those that can't be stay as they are."""
    told: list[str] = []
    end, charset, gathered = 0, "", bytearray()
    gap = ""
    for found in _ENCODED.finditer(value):
        between = value[end : found.start()]
        content = _base64(found[3].encode("ascii", "replace")) if found[2] in "bB" else _q(found[3])
        if gathered and (between or found[1].lower() != charset):
            told.append(decoded(bytes(gathered), charset))
            gathered.clear()
        if between:
            told.append(gap + between)
        charset = found[1].partition("*")[0].lower()
        gathered += content
        end, gap = found.end(), found[4]
    if gathered:
        told.append(decoded(bytes(gathered), charset))
    return "".join(told) + (gap if end < len(value) else "") + value[end:] if end else value


def _q(text: str) -> bytes:
    return binascii.a2b_qp(text.encode("utf-8", "replace"), header=True)


def _base64(content: bytes) -> bytes:
    text = _NOT_BASE64.sub(b"", content)
    return binascii.a2b_base64(text[: len(text) - (len(text) % 4 == 1)] + b"==")


@lru_cache(maxsize=512)
def _codec(charset: str) -> str:
    """Python's name of a charset, "" if it is none."""
    name = charset.strip().strip("\"'").lower()
    if not name or not name.isascii() or not name.isprintable() or len(name) > 40:
        return ""
    try:
        info = codecs.lookup(name)
    except (LookupError, ValueError):
        return ""
    if info.name in _NO_CHARSETS or not getattr(info, "_is_text_encoding", True):
        return ""
    return _WIDER.get(info.name, info.name)


def _guess(content: bytes) -> str:
    """A charset of bytes that declare none and are no UTF-8."""
    sample = content[:20_000]
    high = len(sample.translate(None, _ASCII))
    for name in ("cp932", "euc_jp"):
        try:
            text = sample.decode(name)
        except UnicodeDecodeError:
            continue
        if 6 * len(_KANA.findall(text)) > high:
            return name
    return "cp1252"
