"""Secrets that were read, so that no text of ours holds one: the last line, behind types that don't print them.

What libraries say of a fault may quote what they were given, as it was or as they sent it on.
"""

from __future__ import annotations

import json
import re
import string
from base64 import b64encode
from collections.abc import Iterator

INSTEAD = "…"
# Characters; what is shorter, or a mere word, stands in any text by chance.
_SHORTEST, _WORD = 8, 12
_KEY = re.compile(r"\b(mv_[a-z0-9]{8})_[0-9A-Za-z]{8,}")  # of ours: its id may be shown
_HEADER = re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{16,}", re.IGNORECASE)  # RFC 7617, RFC 6750

_UNRESERVED = string.ascii_letters + string.digits + "-._~"  # RFC 3986 section 2.3

_forms: frozenset[str] = frozenset()
_pattern = re.compile(r"(?!)")  # nothing yet


def hide(secret: str) -> None:
    """Print this nowhere from now on: neither plain, nor as URLs, JSON or base64 write it."""
    global _forms, _pattern  # noqa: PLW0603  # as the log itself, there is one of it
    if len(secret) < (_WORD if secret.isalpha() else _SHORTEST) or secret in _forms:
        return
    _forms = _forms.union(_written(secret))
    # The longest first, so that nothing of it is left where a shorter one is a part of it.
    _pattern = re.compile("|".join(map(re.escape, sorted(_forms, key=len, reverse=True))))


def hidden(text: str) -> str:
    """The text without what is to be hidden, and without keys and credentials by their look."""
    text = _pattern.sub(INSTEAD, text)
    text = _KEY.sub(rf"\1_{INSTEAD}", text)
    return _HEADER.sub(rf"\1\2{INSTEAD}", text)


def _written(secret: str) -> Iterator[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    for kept in ("", "/"):  # in a query, and in a path
        for number in ("%{:02X}", "%{:02x}"):
            quoted = _quoted(raw, _UNRESERVED + kept, number)
            yield from (quoted, quoted.replace("%20", "+"))
    for before in range(3):  # whatever stands before it, such as a user and a colon, it is written in one of three ways
        coded = b64encode(bytes(before) + raw).decode("ascii")
        whole = coded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        yield from (whole, whole.replace("+", "-").replace("/", "_"))


def _quoted(raw: bytes, kept: str, number: str) -> str:
    """As a URL writes it; not by the standard library's own, since what is pure may not reach for it."""
    return "".join(chr(one) if chr(one) in kept else number.format(one) for one in raw)
