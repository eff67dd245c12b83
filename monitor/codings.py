"""Text as it was before machines and people dressed it: %40, &#64;, =40, (at), wide letters, encoded words.

Nothing here changes a text: it is read beside its plain form, and what must be hidden is hidden in the original.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64, a2b_qp
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from unicodedata import category, normalize

BLANKS = frozenset(" \t\n\r\f\v\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))
NEUTRAL = "\u00f8"  # stands for a character that ends no address and begins none
WEAK = "\uff20"  # an @ that may be none: "=40", " (at) "; a domain with a dot must follow

_NAMED = {
    "commat": "@", "period": ".", "lt": "<", "gt": ">", "quot": '"', "amp": "&", "num": "#", "percnt": "%", "lpar": "(",
    "rpar": ")", "lsqb": "[", "lbrack": "[", "rsqb": "]", "rbrack": "]", "plus": "+", "lowbar": "_", "equals": "=",
    "semi": ";", "bsol": "\\", "hyphen": "-", "dash": "-",
    "nbsp": NEUTRAL, "shy": NEUTRAL, "zwnj": NEUTRAL, "zwj": NEUTRAL,
}  # fmt: skip

# Each takes any depth of its own kind at once (%252540), so that rounds are few.
# A run of backslashes is tried at its first one only, as a text of nothing else would be read once for each.
_CODED = re.compile(
    r"""(?:[%&=+]|(?<!\\)\\)(?:
    (?<=[%=])(?P<wide>(?:25|3D)*EF[%=](?:25|3D)*(?:BC[%=](?:25|3D)*A0|B9[%=](?:25|3D)*AB))
    |(?<=%)(?:25)*(?:u(?P<point>[0-9a-f]{4})|(?P<percent>[0-9a-f]{2}))
    |(?<=&)(?:amp;|\#0*38;|\#x0*26;)*
        (?:\#0*(?P<number>[0-9]{1,7});?|\#x0*(?P<hex>[0-9a-f]{1,6});?|(?P<named>[a-z]{2,6});)
    |(?<=\\)\\*+(?:u(?:0000(?=[0-9a-f]{4}))?(?P<unicode>[0-9a-f]{4})|[ux]\{0*(?P<braced>[0-9a-f]{1,6})\}
        |x(?P<byte>[0-9a-f]{2})|0?(?P<octal>[01][0-7]{2})|(?P<blank>[ ])|(?P<line>[rnt]))
    |(?<==)(?:3D)*(?P<quoted>[0-9a-f]{2})
    |(?<==)(?P<soft>\r?\n|[ ]{1,3}(?=[\w.]))  # a line that goes on, and one that was joined since
    |(?<=\+)(?:(?P<seven>AEA|AC4)-|(?:2B)*(?P<xtext>[0-9a-f]{2})))""",
    re.IGNORECASE | re.VERBOSE,
)
# How people write @ and a dot so that machines do not see them.
_BRACKETED = re.compile(
    r"""[(\[{<]\s{0,3}(?:(?P<at>at|\xe4t|@|arroba|arobase|chiocciola|malpa|ma\u0142pa|klammeraffe)
    |(?P<dot>dot|punkt|punto|point|kropka|\.))\s{0,3}[)\]}>](?P<right>\s{0,3})""",
    re.IGNORECASE | re.VERBOSE,
)
_SPELT = re.compile(
    r"""(?<=\w)_(?:(?P<at_>at)|(?P<dot_>dot))_(?=\w)
    |(?<=[^\s])\s{1,3}(?:(?P<AT>(?-i:(?<=[a-z0-9]\s)AT|(?<=[a-z0-9]\s\s)AT))|(?P<DOT>dot)
    |(?P<spelt>at)(?=\s{1,3}[\w-]{1,63}\s{1,3}dot\s)|(?P<plain>at))\s{1,3}(?=[\w-])""",
    re.IGNORECASE | re.VERBOSE,
)
_DOTTED = re.compile(r"(?<![\w.])[^\W\d_][\w+-]{0,40}[._+][\w.+-]{0,40}\Z")
_WORD = re.compile(r"=\?([\w.:+-]{1,40})(?:\*[\w-]{0,40})?\?([bq])\?([^?\s]*)(?:\?=|(?=\s|\Z))", re.IGNORECASE)
_BETWEEN = re.compile(r"\?=\s+(?==\?)")
_CHARSETS = re.compile(r"utf|iso-|windows-|cp\d|koi8|us-ascii|gb|big5|euc|shift|ks_c|mac", re.IGNORECASE)


class Plain(NamedTuple):
    """A text undressed; ``places[i]`` is where its i-th character stands in the original (None: at i), with the end.

    ``coded`` are the indices of characters that would end an address if they stood there by themselves.
    """

    text: str
    places: Sequence[int] | None
    coded: Sequence[int]


def undressed(text: str) -> Plain:
    """``text`` with every coding undone, to any depth, and its letters narrow; as long as it takes, never longer."""
    plain = text if text.isascii() else "".join(map(_narrow, text))
    places: Sequence[int] | None = None
    coded: set[int] = set()
    while once := _once(plain):
        plain, inner, fresh = once
        coded = {place for place, at in enumerate(inner[:-1]) if at in coded} | fresh
        places = inner if places is None else [places[place] for place in inner]
    return Plain(plain, places, sorted(coded))


def _once(text: str) -> tuple[str, list[int], set[int]] | None:
    """One layer undone, with the places; None where there is none."""
    found = _found(text)
    if not found:
        return None
    parts: list[str] = []
    places: list[int] = []
    coded: set[int] = set()
    last = 0
    for start, end, meant in found:
        character = WEAK if meant == "@" and text[end : end + 1] in _ENDED else meant
        parts += (text[last:start], character)
        places += range(last, start)
        if character in _ENDS:
            coded.add(len(places))
        places += [start] * len(character)
        last = end
    places += range(last, len(text) + 1)
    return "".join((*parts, text[last:])), places, coded


def _found(text: str) -> list[tuple[int, int, str]]:
    """What is coded, of the first sort that there is: from where, until where, the character that is meant."""
    if _CODED.search(text):
        coded = ((match.start(), match.end(), _meant(match)) for match in _CODED.finditer(text))
        if found := [(start, end, meant) for start, end, meant in coded if meant is not None]:
            return found
    if _BRACKETED.search(text):
        return [_bracketed(text, match) for match in _BRACKETED.finditer(text)]
    if " at " in text or " dot " in text or "_at_" in text or " AT " in text:
        spelt = ((match.start(), match.end(), _spelt(text, match)) for match in _SPELT.finditer(text))
        return [(start, end, meant) for start, end, meant in spelt if meant]
    return []


_ENDS = frozenset('<>()[]" ')
_ENDED = BLANKS | {""}  # "100%40 off"


def _bracketed(text: str, found: re.Match[str]) -> tuple[int, int, str]:
    """An "(at)" or "[dot]" with the blanks around."""
    start = found.start()
    while start and text[start - 1] in BLANKS and found.start() - start < 3:
        start -= 1
    sign = "." if found["dot"] else WEAK if found["right"] or start < found.start() else "@"
    return start, found.end(), sign


def _spelt(text: str, found: re.Match[str]) -> str:
    if found.lastgroup == "plain":  # "jo.doe at example.com", and not "blocked at example.com"
        return WEAK if _DOTTED.search(text, max(0, found.start() - 70), found.start()) else ""
    return "." if found.lastgroup in ("dot_", "DOT") else WEAK


def _meant(found: re.Match[str]) -> str | None:
    """The character that was coded, an empty one for a line that goes on, None where no character is known."""
    kind = found.lastgroup or ""
    said = found[kind] if kind else ""
    if kind in _FIXED:
        return _FIXED[kind]
    if kind == "named":
        return _NAMED.get(said.lower())
    if kind == "seven":
        return "@" if said.upper() == "AEA" else "."
    if kind in _BYTES:  # of a character beyond ASCII, which is several, a part
        return WEAK if said == "40" and kind in ("quoted", "xtext") else _letter(min(int(said, 16), 0x80))
    return _letter(int(said, {"number": 10, "octal": 8}.get(kind, 16)))


_FIXED = {"wide": "@", "soft": "", "blank": NEUTRAL, "line": " "}
_BYTES = ("percent", "byte", "quoted", "xtext")


def _letter(code: int) -> str:
    """The character of a code: blanks and what is beyond ASCII say nothing about where an address ends."""
    character = _narrow(chr(code)) if 0x80 < code < 0x110000 else chr(min(code, 0x80))
    return character if character.isprintable() and character not in " ,;:" else NEUTRAL


@lru_cache(4096)
def _narrow(character: str) -> str:
    """An @, a dot or a letter in its plain form; format and control characters say nothing."""
    if character in BLANKS or character == "…":
        return character
    if character in "\u3002\ufe52\uff61":
        return "."
    if character == "\u24d0":  # an a in a circle
        return "@"
    plain = normalize("NFKC", character)
    if len(plain) != 1:
        return character
    return plain if plain.isascii() or not category(plain).startswith("C") else NEUTRAL


def words_decoded(text: str) -> str:
    """``text`` with its encoded words (RFC 2047) decoded, those inside of others too; a cut one as far as it goes."""
    while "=?" in text:
        decoded = _WORD.sub(_word, _BETWEEN.sub("?=", text))
        if decoded == text or len(decoded) > len(text):
            break
        text = decoded
    return text


def _word(found: re.Match[str]) -> str:
    charset, coding, payload = found.groups()
    if coding in "qQ":
        raw = a2b_qp(payload.replace(" ", "_").encode("utf-8", "replace"), header=True)
    else:
        raw = from_base64("".join(payload.split())) or b""
    try:
        return raw.decode(charset if _CHARSETS.match(charset) else "latin-1", "replace")
    except (LookupError, ValueError):
        return raw.decode("latin-1")


def from_base64(text: str) -> bytes | None:
    """What base64 of either alphabet says, without regard to its padding; None where it is none."""
    text = text.rstrip("=").translate(_URL_SAFE)
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return a2b_base64(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (NotBase64, UnicodeEncodeError):
        return None


_URL_SAFE = str.maketrans("-_", "+/")
