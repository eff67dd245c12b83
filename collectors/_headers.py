"""Header fields of a message, as tolerant as strangers need it (RFC 5322 section 2.2, RFC 2047)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from collectors._charsets import words

FIELDS = 1_500  # header fields of one block
BLOCK = 512 * 1024  # bytes of one header block

_FIELDS = re.compile(r"^([!-9;-~]{1,100}) {0,9}: {0,99}((?:.*\S)?)", re.MULTILINE)
_UNFOLDED = re.compile(r";\n(?![!-9;-~]{1,100} {0,9}:)(?=\S)")  # folded without the blank that folding needs


class Headers:
    """Headers of one message, in their order; names in any case, values unfolded and decoded (RFC 2047)."""

    __slots__ = ("_block", "_fields", "_values")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._block = ""  # what is still to be parsed: most messages that come back are never asked for theirs
        self._fields = [(name.lower(), value) for name, value in fields]
        self._values: dict[str, list[str]] = {}
        for name, value in self._fields:
            self._values.setdefault(name, []).append(value)

    @classmethod
    def of(cls, block: str) -> Headers:
        """Those of a header block as it stands in a message; what is no field is left out."""
        headers = cls()
        headers._block = block
        return headers

    def _parsed(self) -> dict[str, list[str]]:
        if not self._block:
            return self._values
        block, self._block = self._block.replace("\n ", " ").replace("\n\t", " ").replace("\t", " "), ""
        if ";\n" in block:
            block = _UNFOLDED.sub("; ", block)
        fields, values = self._fields, self._values
        for written, told in _FIELDS.findall(block)[:FIELDS]:
            name, value = written.lower(), " ".join(told.split()) if "  " in told else told
            if "=?" in value:
                value = words(value)
            fields.append((name, value))
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]
        return values

    def get(self, name: str, default: str = "") -> str:
        """The first value of that name."""
        found = self._parsed().get(name.lower())
        return found[0] if found else default

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of that name."""
        return tuple(self._parsed().get(name.lower(), ()))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._parsed()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self._parsed()
        return iter(self._fields)

    def __len__(self) -> int:
        self._parsed()
        return len(self._fields)


def parsed(text: str) -> Headers:
    """The header fields at the beginning of a text, up to its first empty line; what is no field is left out."""
    return Headers.of(text[:BLOCK].partition("\n\n")[0])
