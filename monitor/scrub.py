"""Free text without the people in it: replies, subjects, URLs, samples of what could not be read, error texts.

What is hidden and what is not is told in docs/privacy.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from monitor.addresses import HIDDEN, Span, spans
from monitor.codings import NEUTRAL, WEAK, undressed, words_decoded
from monitor.tokens import without_tokens

# No text without one of these holds an address or a token, but for a long random one.
_SUSPECT = re.compile(r"[@%&\\(\[{=/_!]")
_AT = re.compile(f"[@{WEAK}]")
_LONG = re.compile(r"(?:.{0,23}\s)*+\S{24}", re.DOTALL)
_ROUNDS = 5
_AHEAD = 1000  # characters that are read beyond what may be shown: an address may begin here and end there


def scrub(text: str, limit: int = 500) -> str:
    """``text`` with people and secrets hidden, cut to ``limit`` characters, without control ones.

    Of an address the local part goes, and the domain stays where it tells whose server spoke; of a URL its place stays.
    """
    if (
        len(text) > limit
        or _SUSPECT.search(text)
        or _LONG.match(text)
        or " at " in text
        or " AT " in text
        or (
            ":" in text
            and ("word:" in text or "oken:" in text or "ecret:" in text or "key:" in text or "ation:" in text)
        )
        or not text.isascii()
    ):
        text = _long(text, 4 * limit) if len(text) > 4 * limit + _AHEAD else _hidden(text)
        text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _hidden(text: str) -> str:
    """``text`` with spans hidden; again where something was coded, since what is left may say something new."""
    for _ in range(_ROUNDS):
        told, simple = _once(text)
        if simple or told == text:
            return told
        text = told
    return text


def _once(text: str) -> tuple[str, bool]:
    """``text`` with what can be seen hidden, and whether it stood there without any coding."""
    if "=?" in text and (decoded := words_decoded(text)) != text:
        told, _ = _bare(decoded)
        if told != decoded:
            return told, False
    return _bare(text)


def _bare(text: str) -> tuple[str, bool]:
    text = without_tokens(text)
    plain = undressed(text)
    if not _AT.search(plain.text):
        return text, True
    found = spans(plain.text)
    if plain.coded:  # a coded bracket may be one, or a letter of an address that is written so
        letters = list(plain.text)
        for place in plain.coded:
            letters[place] = NEUTRAL
        found += spans("".join(letters))
    return (_put(text, plain.places, found) if found else text), plain.places is None


def _put(text: str, places: Sequence[int] | None, found: Iterable[Span]) -> str:
    """``text`` with what stands for each span in its place; of spans that overlap, the one that ends last says it."""
    parts: list[str] = []
    done, instead = 0, ""
    for span in _merged(found):
        start, end, says = span if places is None else Span(places[span.start], places[span.end], span.instead)
        if start > done or not says == instead == HIDDEN:
            parts += (text[done:start], says)
        done, instead = end, says
    return "".join((*parts, text[done:]))


def _merged(found: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(found):
        last = merged[-1] if merged else None
        if last is None or span.start >= last.end:
            merged.append(span)
        elif span.end >= last.end:
            says = last.instead if span.end == last.end and last.instead > span.instead else span.instead
            merged[-1] = Span(last.start, span.end, says)
    return merged


def _long(text: str, limit: int) -> str:
    """The beginning of a long text, hidden: what is read ahead is not shown, since an address may end still further."""
    text, rest = text[: limit + _AHEAD], text[limit + _AHEAD :]
    if rest and not any(map(str.isspace, text[limit:])) and _SUSPECT.search(rest.split(maxsplit=1)[0]):
        return _hidden(text.rpartition(" ")[0])
    return _hidden(text)[:-_AHEAD]
