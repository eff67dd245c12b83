"""Whose mail it is: labels out of the envelope sender, the authenticated user and logged headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from monitor.model import OWNED
from monitor.once import Once

PARTS = ("domain", "stream", "tenant", "segment", "campaign", "variant", "region")
Names = tuple[str, ...]  # the values of PARTS; empty where unknown
UNKNOWN: Names = ("",) * len(PARTS)
_TENANT = PARTS.index("tenant")
_LONGEST = 200


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groupindex
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    if not groups or set(groups) - set(PARTS):
        raise ValueError(f"name its groups, such as (?P<tenant>…), out of {', '.join(PARTS)}")
    return text


# A setting: a regular expression whose named groups are labels.
Pattern = Annotated[str, AfterValidator(_pattern)]


class Labels:
    """Values of ``PARTS`` as far as each source tells them, and the defaults for the rest.

    ``sender`` and ``user`` are searched for in the envelope sender and in the SASL user name; their named groups are
    out of ``PARTS``. ``headers``: header name → label. Without a pattern the sender still tells its domain.

    ``of_sender[address]`` is what an envelope sender tells, ``whole[names]`` is names with defaults in the gaps and
    without a segment, campaign or variant whose tenant is unknown. Up to ``remembered`` of each are kept.
    """

    def __init__(
        self,
        sender: re.Pattern[str] | None = None,
        user: re.Pattern[str] | None = None,
        headers: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
        remembered: int = 65_536,
    ) -> None:
        self._sender = sender
        self._user = user
        self._headers = {name.lower(): PARTS.index(label) for name, label in (headers or {}).items()}
        self._defaults = tuple((defaults or {}).get(part, "") for part in PARTS)
        self.of_sender = Once(self._of_sender, remembered)
        self.whole = Once(self._whole, remembered)

    def of_user(self, name: str) -> Names:
        """What the authenticated user's name tells."""
        return _groups(self._user, name)

    def of_header(self, name: str, value: str) -> Names:
        """What a logged header tells; ``name`` in any case."""
        at = self._headers.get(name.lower())
        return UNKNOWN if at is None else (*UNKNOWN[:at], _clean(value), *UNKNOWN[at + 1 :])

    def _of_sender(self, address: str) -> Names:
        told = _groups(self._sender, address)
        return told if told[0] else (_clean(domain_of(address)), *told[1:])

    def _whole(self, names: Names) -> Names:
        filled = tuple(map(_first, names, self._defaults))
        return filled if filled[_TENANT] else tuple(map(_unowned, PARTS, filled))


def domain_of(address: str) -> str:
    """The domain of a mail address in lower case; empty where it has none."""
    return address.rpartition("@")[2].lower().rstrip(".") if "@" in address else ""


def merged(known: Names, more: Names) -> Names:
    """What is known stays; ``more`` fills gaps."""
    return tuple(map(_first, known, more))


def _unowned(part: str, value: str) -> str:
    return "" if part in OWNED else value


def _first(known: str, other: str) -> str:
    return known or other


def _groups(pattern: re.Pattern[str] | None, text: str) -> Names:
    found = pattern.search(text) if pattern else None
    if not found:
        return UNKNOWN
    told = found.groupdict("")
    names = [_clean(told.get(part, "")) for part in PARTS]
    return (names[0].lower(), *names[1:])


def _clean(value: str) -> str:
    value = value.strip()[:_LONGEST]
    return value if value.isprintable() else "".join(c if c.isprintable() else " " for c in value)
