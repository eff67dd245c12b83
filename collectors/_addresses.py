"""Addresses and hosts as reports write them: dressed, commented, cut and mistyped."""

from __future__ import annotations

import re

# Wide on purpose: reports name what was mailed to, right or wrong. Quoted local parts are RFC 5321 section 4.1.2.
LOCAL = r"(?:\"[^\"\s]{1,64}\"|[^\s<>()\[\]:;,@\"'=|\\]{1,1}[^\s<>()\[\]:;,@\"|\\]{0,120})"
DOMAIN = r"(?:[^\s<>()\[\]:;,@\"'!?=|\\/]{1,200}|\[[0-9A-Fa-f.:IPv]{3,45}\])"
ADDRESS = re.compile(rf"{LOCAL}@{DOMAIN}")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,250}[A-Za-z0-9])?")


def address(text: str) -> str:
    """The address in a field's value, "" where there is none with a domain."""
    if "@" not in text or len(text) > 2_000:
        return ""
    text = text.replace("&lt;", "<").replace("&gt;", ">")
    if "<" in text and (found := ADDRESS.search(text, text.index("<") + 1)):
        return tidy(found[0])
    found = ADDRESS.search(text)
    return tidy(found[0]) if found else ""


def tidy(found: str) -> str:
    """An address without what prose leaves at its ends."""
    return found.strip("*`'.,\u2019\u201d").removeprefix("mailto:").removeprefix("SMTP:").removeprefix("smtp:")


def host(text: str) -> str:
    """The host that a value begins with, in lower case: "mx.example.com (192.0.2.1, …)"; its address if that is all."""
    text = text.strip().strip("[<\"'")
    found = _HOST.match(text[:300])
    return found[0].lower() if found else ""
