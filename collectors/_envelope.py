"""To whom a letter was delivered, as the last server wrote it above the letter's own headers."""

from __future__ import annotations

import re

_HEAD = 64 << 10  # bytes in which it must stand
_LONGEST = 320  # characters of an address, as RFC 3696 (with its erratum) counts them
# The address before aliases first: a bounce comes to it, and it may name the message (VERP).
_NAMES = ("x-original-to", "envelope-to", "x-envelope-to", "delivered-to", "x-delivered-to")
_LINE = re.compile(rb"^([A-Za-z-]{1,40}):[ \t]*([^\r\n]{0,400})", re.MULTILINE)


def recipient(content: bytes) -> str:
    """The address of the envelope; empty where no server tells it.

    Only what stands above the second ``Received`` is believed: a sender can write such a header too, but not there.
    """
    head = content[:_HEAD]
    ends = [at for at in (head.find(b"\r\n\r\n"), head.find(b"\n\n")) if at >= 0]
    found: dict[str, str] = {}
    received = 0
    for line in _LINE.finditer(head, 0, min(ends, default=len(head)) + 1):
        name = line[1].decode("ascii").lower()
        received += name == "received"
        if received > 1:
            break
        if name in _NAMES:
            found.setdefault(name, line[2].decode("utf-8", "replace").strip(" \t<>"))
    return next((found[name] for name in _NAMES if 0 < len(found.get(name, "")) <= _LONGEST), "")
