"""Recipients whom a reporter left out of its report, and how one knows (RFC 6590)."""

from __future__ import annotations

import re

from collectors._addresses import address

_WORDS = re.compile(
    r"(?:x{3,}|redacted|hashed|hidden|removed|anonymous|anonymi[sz]ed|masked|obfuscated|undisclosed|withheld"
    r"|(?:undisclosed|hidden|redacted)[ _.-]?(?:recipients?|address|user))",
    re.IGNORECASE,
)
# A digest in hexadecimal from MD5 (Validity's loops) to SHA-512, or in base64 from SHA-1 on (RFC 6590 section 2).
_HEX = re.compile(r"[0-9a-f]{32,128}", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{27,90}={0,2}")
_MASK = re.compile(r"[*#?.…]{2,}|[\w.+-]{0,3}[*#…]{2,}[\w.+-]{0,3}")


def recipient(text: str) -> str:
    """The address that a field names, in its own spelling; "" where it is none, or one put in the place of another."""
    found = address(text)
    return "" if not found or redacted(found) else found


def redacted(found: str) -> bool:
    """Whether an address is only what a reporter put in the place of one: a word, a mask, or a digest."""
    local = found.rpartition("@")[0].strip("<>[]()\" '")
    if not local or _WORDS.fullmatch(local) or _MASK.fullmatch(local):
        return True
    if _HEX.fullmatch(local):
        return len(local) in (32, 40, 56, 64, 96, 128)
    # A person's long name has no capitals amid small letters and digits.
    mixed = any(c.isupper() for c in local) and any(c.islower() for c in local) and any(c.isdigit() for c in local)
    return bool(_BASE64.fullmatch(local)) and (local.endswith("=") or mixed)
