"""Free text without the addresses that it may hold: replies, samples of what could not be read, error texts."""

from __future__ import annotations

import re

# Receivers quote the recipient back in many dresses: <a@b>, a@b, "a b"@c, VERP (bounce+a=b.c@d), URL-escaped (a%40b),
# and as an xtext-like a=b.c inside a local part. The domain stays: it tells whose server spoke and names no person.
_ADDRESS = re.compile(
    r"""(?:"[^"\s@]{1,64}"|[^\s<>()\[\]{},;:"'@|=/\\]{1,64}(?:=[^\s<>()\[\]{},;:"'@|/\\]{1,128})?)"""
    r"""(?:@|%40|&\#64;|\(at\))([A-Za-z0-9\[][A-Za-z0-9.\-_\]:]{0,253})""",
    re.ASCII | re.IGNORECASE,
)
_HIDDEN = "…@"


def scrub(text: str, limit: int = 500) -> str:
    """``text`` with every mail address's local part hidden, cut to ``limit`` characters, without control ones."""
    if "@" in text or "%40" in text or "&#64;" in text or "(at)" in text.lower():
        text = _ADDRESS.sub(lambda found: _HIDDEN + found[1], text[: limit * 4])
    text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
