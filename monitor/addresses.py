"""Where mail addresses and the names beside them stand in a text (RFC 5321, 5322, 6531, and what people make of them).

An address is found at its @ and read backwards from there, since nothing tells before how it will end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from monitor.codings import BLANKS, WEAK
from monitor.persons import called, called_by_name, named, personal, pieces, shown_name

HIDDEN = "…"
_COMMENT = 300  # characters of one: it is searched backwards from its end, and that must not take long
_GAP = 20  # blanks between an address and its @

# What can't stand in a local part without quotes (RFC 5322 section 3.2.3) begins it; all else may belong to it.
_ENDS = BLANKS | frozenset('<>()[],;:"')
_LABEL = rf"[\w{HIDDEN}-]{{1,80}}"
_SIGNS = frozenset(("@", WEAK))
_GAP_STOPS = _ENDS - {'"'}
_DOT = r"(?:\.|[ \t]{1,3}\.[ \t]{1,3})"
# Of a server, so that it tells an address from "meet @ noon": with a dot, or an address literal.
_SERVER = re.compile(rf"(?:{_LABEL}{_DOT}){{1,20}}(?:xn--[\w-]+|[^\W\d_]{{2,}})|\[[^\]\s]{{2,100}}\]")
_DOMAIN = re.compile(rf"{_LABEL}(?:{_DOT}{_LABEL}){{0,20}}|\[[^\]\s]{{2,100}}\]")
_AFTER = re.compile(r"\s{0,20}")
_TAIL = re.compile(r">?\s{0,3}\(([^()]{2,80})\)")
_LEAD = re.compile(r"\(([^()]{2,80})\)")
_ACCOUNT = re.compile(r"(?<![\w.@])[^\W\d_][\w+-]{0,40}[._+][\w.+-]{0,40}:\Z")
_TAG = re.compile(r"<(?:/?[a-z][^<>@]{0,80}|!--[^<>@]{0,80})>", re.IGNORECASE)


class Span(NamedTuple):
    """A part of a text, from ``start`` until before ``end``, and what is to stand in its place."""

    start: int
    end: int
    instead: str


def spans(text: str) -> list[Span]:
    """What to hide in an undressed text, from its end to its beginning; parts may overlap."""
    found: list[Span] = []
    names: set[str] = set()
    until = len(text)
    while (at := _last_sign(text, until)) >= 0:
        until = at
        if (start := _start(text, at)) is None:
            continue
        until, local = start, text[start:at]
        if local.strip() not in (HIDDEN, "//" + HIDDEN):  # those of which nothing is left to hide
            names |= called(local)
            found += [Span(start, at + 1, HIDDEN + "@"), *_beside(text, start, at, local, names)]
    if names:
        found += _again(text, names)
    return found


def _last_sign(text: str, until: int) -> int:
    """Where the last @ before ``until`` stands; below zero where none does."""
    return max(text.rfind("@", 0, until), text.rfind(WEAK, 0, until))


def _start(text: str, at: int) -> int | None:
    """Where the local part before an @ begins; None where this is no address."""
    end = _before_gap(text, at)
    start = end if text[end - 1 : end] in _SIGNS else _own_part(text, end)
    while start < end and text[start] in _SIGNS:  # of an address before, whose own local part is further left
        start += 1
    if start == end and not any(map(str.isalnum, text[end:at])):
        return None
    if end < at or text[at] == WEAK:
        return start if _SERVER.match(text, _after_gap(text, at + 1)) else None
    return _account(text, start)


def _account(text: str, start: int) -> int:
    """Where "jo.doe:" before a password begins, which stands where a local part may; not "rcpt:"."""
    if text[start - 1 : start] != ":" or not (account := _ACCOUNT.search(text, max(0, start - 70), start)):
        return start
    return account.start()


def _own_part(text: str, end: int) -> int:
    """Where the words that end at ``end`` begin: atoms, quoted strings, dots, and comments between them."""
    start = end
    while True:
        here = start
        if start and text[start - 1] == '"':
            start = _quoted(text, start)
        while start and text[start - 1] not in _ENDS:
            start -= 1
        if start == here:
            return start
        before = _before_gap(text, start)
        if before == start:
            # A quoted word of the same local part, or the mark that opens a text such as "jo@example.com"?
            if text[start - 1 : start] != '"' or not (text[start] == "." or text[start - 2 : start - 1].isalnum()):
                return start
            opened = _quoted(text, start)
            if opened == start or (text[start] != "." and "@" in text[opened:start]):
                return start
        elif _goes_on(text, before, start):
            start = before
        else:
            return start


def _goes_on(text: str, before: int, start: int) -> bool:
    """Whether what is before a gap belongs to the same local part: "jo . doe", "jo(his)doe"."""
    gap = text[before:start]
    if not before or text[before - 1] in _GAP_STOPS:
        return False
    commented = gap.endswith(")") and gap.startswith("(")
    return text[start] == "." or commented or (text[before - 1] == "." and text[before - 2 : before - 1] in BLANKS)


def _quoted(text: str, end: int) -> int:
    """Where the quoted string begins whose closing mark is before ``end``; ``end`` where none does.

    In a text that is escaped as a whole its own marks are escaped, and so is the one that opens it.
    """
    escaped = _escaped(text, end - 1)
    start = text.rfind('"', 0, end - 1)
    while start >= 0 and _escaped(text, start) != escaped:
        start = text.rfind('"', 0, start)
    if start < 0:
        start = text.rfind('"', 0, end - 1)
    return end if start < 0 else start


def _escaped(text: str, place: int) -> bool:
    before = place
    while before and text[before - 1] == "\\":
        before -= 1
    return (place - before) % 2 == 1


def _before_gap(text: str, end: int) -> int:
    """Where blanks, comments and tags of HTML that end at ``end`` begin."""
    while True:
        start = end
        while start and text[start - 1] in BLANKS and end - start < _GAP:
            start -= 1
        if start and text[start - 1] == ")":
            start = _comment(text, start)
        elif start and text[start - 1] == ">":
            opened = text.rfind("<", max(0, start - 85), start)
            start = opened if opened >= 0 and _TAG.fullmatch(text, opened, start) else start
        if start == end:
            return start
        end = start


def _comment(text: str, end: int) -> int:
    """Where the comment, and those in it, begins that ends at ``end``; ``end`` where none does."""
    depth = 0
    for place in range(end - 1, max(-1, end - _COMMENT), -1):
        depth += (text[place] == ")") - (text[place] == "(")
        if not depth:
            return place
    return end


def _after_gap(text: str, start: int) -> int:
    while True:
        blanks = _AFTER.match(text, start)
        end = blanks.end() if blanks else start
        if text[end : end + 1] == "(":
            closed = text.find(")", end, end + _COMMENT)
            end = closed + 1 if closed > 0 else end
        elif tag := _TAG.match(text, end):
            end = tag.end()
        if end == start:
            return end
        start = end


def _beside(text: str, start: int, at: int, local: str, names: set[str]) -> Iterator[Span]:
    """The person's name around the address, and the domain where it tells the same; ``names`` learns the first."""
    words, end = pieces(local), at + 1
    if domain := _DOMAIN.match(text, _after_gap(text, end)):
        if "(" in text[end : domain.start()]:
            yield Span(end, domain.start(), HIDDEN)
        end = domain.end()
        if personal(domain[0].lower(), words, local):
            yield Span(domain.start(), end, HIDDEN)
    before = _LEAD.fullmatch(text, _comment(text, start), start) if text[start - 1 : start] == ")" else None
    for comment in filter(None, (before, _TAIL.match(text, end))):
        if named(comment[1], words, touches=comment[0].startswith("(")):
            yield Span(comment.start(1), comment.end(1), HIDDEN)
    if shown := shown_name(text, start, words):
        names |= called_by_name(text[slice(*shown)])
        yield Span(*shown, HIDDEN)


def _again(text: str, names: set[str]) -> Iterator[Span]:
    """The same people elsewhere in the text, as whole words."""
    lower = text.lower()
    if len(lower) != len(text):  # some letters become two
        lower = "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
    for name in names:
        place = lower.find(name)
        while place >= 0:
            end = place + len(name)
            if not (lower[place - 1 : place].isalnum() or lower[end : end + 1].isalnum()):
                yield Span(place, end, HIDDEN)
            place = lower.find(name, end)
