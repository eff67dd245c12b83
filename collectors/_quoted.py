"""A message that came back within a text."""

from __future__ import annotations

import re

from collectors._headers import Headers, parsed

_CANDIDATES = 40  # places in a text where a quoted message might begin
# A message that came back is told by fields that no prose has at the beginning of lines, one after the other.
_QUOTED = re.compile(
    r"^[>|]{0,2} ?(?:return-path|received|from|message-id|date|mime-version|to|subject|dkim-signature|delivered-to"
    r"|x-[a-z-]{1,40}|content-type|sender|reply-to):",
    re.IGNORECASE | re.MULTILINE,
)
_SURE = frozenset(("return-path", "received", "message-id", "mime-version", "dkim-signature", "delivered-to"))


def quoted(text: str) -> tuple[int, Headers] | None:
    """Where a message begins in a text, and its headers."""
    end = 0
    for number, found in enumerate(_QUOTED.finditer(text)):
        if number >= _CANDIDATES:
            break
        if found.start() < end:
            continue
        close = text.find("\n\n", found.start())
        block = text[found.start() : close if close >= 0 else len(text)]
        block = re.sub(r"^[>|]{1,2} ?", "", block, flags=re.MULTILINE) if block[0] in ">|" else block
        headers = parsed(block)
        end = found.start() + len(block)
        names = {name for name, _ in headers}
        if len(headers) >= 3 and names & _SURE and 2 * len(headers) >= re.sub(r"\n[ \t]", "", block).count("\n"):
            return found.start(), headers
    return None
