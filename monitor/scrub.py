"""Free text without the addresses that it may hold: replies, samples of what could not be read, error texts."""

from __future__ import annotations

import re

# What receivers write for @: in URLs (twice encoded too), HTML, JSON and mail bodies, for people, and in wide letters.
# "=40" is told from a number by the domain that follows it.
_AT = re.compile(
    r"%(?:25)*40|&\#(?:0*64|x0*40);|&commat;|\\u0040|\\x40|[(\[{]\s?at\s?[)\]}]|[\uff20\ufe6b]"
    r"|=40(?=[\w.-]*\.[A-Za-z]{2})",
    re.IGNORECASE,
)
_SUSPECT = re.compile(r"[@%&\\(\[{\uff20\ufe6b]|=40")
# A local part may be quoted and hold anything: with its own escapes, or in a text that is escaped as a whole.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.){0,200}"\s{0,9}@', re.DOTALL)
_QUOTED_ONCE = re.compile(r'"[^"]{0,200}"\s{0,9}@')
_APART = re.compile(r"[^\s<>()\[\],;:\"@]{1,200}\s{1,9}@(?=\s{0,9}[\w-][\w.-]*\.\w)")
_BLANK_AT = re.compile(r"\s@")
# What can't stand in a local part without quotes (RFC 5322 section 3.2.3) begins it; all else may belong to it. Tried
# only where it can begin, so that no text takes long.
_LOCAL = re.compile(r"(?<![^\s<>()\[\],;:\"])[^\s<>()\[\],;:\"]*@")
_HIDDEN = "…@"


def scrub(text: str, limit: int = 500) -> str:
    """``text`` with every mail address's local part hidden, cut to ``limit`` characters, without control ones.

    The domain stays: it tells whose server spoke and names no person. An address in words ("jo at example dot com")
    is not found.
    """
    if len(text) > 4 * limit:
        text = _cut(text, 4 * limit)
    if _SUSPECT.search(text):
        text = _AT.sub("@", text)
        if "@" in text:
            if '"' in text:
                text = _QUOTED_ONCE.sub(_HIDDEN, _QUOTED.sub(_HIDDEN, text))
            if _BLANK_AT.search(text):
                text = _APART.sub(_HIDDEN, text)
            text = _LOCAL.sub(_HIDDEN, text)
    text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _cut(text: str, limit: int) -> str:
    """The first characters, and not half an address, which would not be known for one."""
    rest = text[limit:].split(maxsplit=1)
    if rest and _SUSPECT.search(rest[0]):
        return text[:limit].rpartition(" ")[0]
    return text[:limit]
