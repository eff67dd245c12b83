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
_SUSPECT = re.compile(r"[@%&\\(\[{=/:_]")
_AT = re.compile(f"[@{WEAK}]")
_LONG = re.compile(r"(?:.{0,23}\s)*+\S{24}", re.DOTALL)
_AHEAD = 1000  # characters that are read beyond what may be shown: an address may begin here and end there


def scrub(text: str, limit: int = 500) -> str:
    """``text`` with people and secrets hidden, cut to ``limit`` characters, without control ones.

    Of an address the local part goes, and the domain stays where it tells whose server spoke; of a URL its place stays.
    """
    ahead = _AHEAD if len(text) > 4 * limit + _AHEAD else 0
    if ahead:
        text = _cut(text, 4 * limit)
    if _SUSPECT.search(text) or _LONG.match(text) or not text.isascii() or " dot " in text or " AT " in text:
        text = _hidden(text)
    text = text[: min(limit, len(text) - ahead)] if ahead else text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _hidden(text: str) -> str:
    if "=?" in text and (decoded := words_decoded(text)) != text:
        told = _bare(decoded)
        if told != decoded:
            return told
    return _bare(text)


def _bare(text: str) -> str:
    text = without_tokens(text)
    plain = undressed(text)
    if not _AT.search(plain.text):
        return text
    found = spans(plain.text)
    if plain.coded:  # a coded bracket may be one, or a letter of an address that is written so
        letters = list(plain.text)
        for place in plain.coded:
            letters[place] = NEUTRAL
        found += spans("".join(letters))
    return _put(text, plain.places, found) if found else text


def _put(text: str, places: Sequence[int] | None, found: Iterable[Span]) -> str:
    """``text`` with what stands for each span in its place; of spans that overlap, the one that ends last says it."""
    parts: list[str] = []
    done, instead = 0, ""
    for start, end, says in _merged(found):
        start, end = (start, end) if places is None else (places[start], places[end])
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


def _cut(text: str, limit: int) -> str:
    """The first characters and those read ahead; not half an address of which the rest is still further on."""
    shown, ahead = text[: limit + _AHEAD], text[limit : limit + _AHEAD]
    if len(ahead.split(maxsplit=1)) < 2 and _SUSPECT.search(text[limit:].split(maxsplit=1)[0]):
        return shown.rpartition(" ")[0] + " " * _AHEAD
    return shown
