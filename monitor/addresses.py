"""Where mail addresses and the names beside them stand in a text (RFC 5321, 5322, 6531, and what people make of them).

An address is found at its @ and read backwards from there, since nothing tells before how it will end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from monitor.codings import BLANKS, NEUTRAL, WEAK

HIDDEN = "…"
_COMMENT = 300  # characters of one: it is searched backwards from its end, and that must not take long
_GAP = 20  # blanks between an address and its @

# What can't stand in a local part without quotes (RFC 5322 section 3.2.3) begins it; all else may belong to it.
_ENDS = BLANKS | frozenset('<>()[],;:"')
_LABEL = rf"[\w{HIDDEN}-]{{1,80}}"
_GAP_STOPS = _ENDS - {'"'}
_NAME_STOPS = _ENDS - {","}
_DOT = r"(?:\.|[ \t]{1,3}\.[ \t]{1,3})"
# Of a server, so that it tells an address from "meet @ noon": with a dot, or an address literal.
_SERVER = re.compile(rf"(?:{_LABEL}{_DOT}){{1,20}}(?:xn--[\w-]+|[^\W\d_]{{2,}})|\[[^\]\s]{{2,100}}\]")
_DOMAIN = re.compile(rf"{_LABEL}(?:{_DOT}{_LABEL}){{0,20}}|\[[^\]\s]{{2,100}}\]")
_AFTER = re.compile(r"\s{0,20}")
_PIECES = re.compile(r"[^\W_]+")
_TAIL = re.compile(r">?\s{0,3}\(([^()]{2,80})\)")
_LEAD = re.compile(r"\(([^()]{2,80})\)")
_SCHEME = re.compile(r"(?:mailto|smtp):\Z", re.IGNORECASE)
_OPENERS = frozenset("<([")
_NAME_ENDS = frozenset("\"'’.,0123456789\u200b" + NEUTRAL)
_IN_NAMES = frozenset("-'’." + NEUTRAL)
_PARTICLES = frozenset("al bin da de del den der di do dos du el la le ten ter van von y zu".split())

# Local parts that name a post, and words of replies: no person is known by them.
_POSTS = frozenset(
    """abuse account accounts address admin administrator apple aol amazon amazonses billing bounce bounces contact
    daemon delivery dmarc email error errors example facebook feedback gmail google help hostmaster hotmail icloud info
    list lists mail mailbox mailer mailman marketing message microsoft news newsletter nobody noreply notification
    notifications office order orders outlook owner postmaster prvs receipts recipient reply report reports request
    return returns root sales security sender server service shop smtp spam srs0 srs1 staff subscribe support team test
    unknown unsubscribe user users webmaster yahoo""".split()
)
# Words that stand before "<jo@…>" and are no name; in the languages in which receivers answer.
_WORDS = _POSTS | frozenset(
    """adres adresa adresse adressee and authenticated bad bcc blocked cannot cc client connection could data deferred
    denied destinataire dear delivered does domain email-adresse empfänger envelope expanded expéditeur failed failure
    final for forward forwarded from full hello helo host in inbox inactive indirizzo inexistant invalid invalide is
    l'adresse le local message-id my no non not of ok on one or original over path permanent please policy problem queue
    queued quota rcpt recipients refused rejected relay relaying reply-to return-path said sent size sorry smtp
    sorry, subject system temporary temporarily than that the this to too unable unavailable undeliverable unrouteable
    unroutable users usuario utente utilisateur utilizador via was with wrong your""".split()
)


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
            names |= _known_by(local)
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
    start = _local(text, end)
    if start == end:
        return None
    if end < at or text[at] == WEAK:
        return start if _SERVER.match(text, _after_gap(text, at + 1)) else None
    return start


def _local(text: str, end: int) -> int:
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
            closes = text[start - 1 : start] == '"' and (text[start] == "." or text[start - 2 : start - 1].isalnum())
            if not closes or _quoted(text, start) == start:
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
    """Where blanks and comments that end at ``end`` begin."""
    while True:
        start = end
        while start and text[start - 1] in BLANKS and end - start < _GAP:
            start -= 1
        if start and text[start - 1] == ")":
            start = _comment(text, start)
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
        if end == start:
            return end
        start = end


def _known_by(local: str) -> set[str]:
    """What names the person elsewhere in the same text: the local part without tags and without another domain."""
    local = local.strip(' "' + NEUTRAL).lower()
    names = {local}
    head, sign, tail = local.rpartition("=")
    if sign:  # prvs=TAG=jo, SRS0=HHH=TT=example.com=jo, bounce+jo=example.com
        sent_on = "." in tail and not local.startswith(("srs", "prvs"))
        names.add(re.split(r"[=+]", head)[-1] if sent_on else tail)
    else:
        names.add(local.partition("+")[0])
    return {name for name in names if _tells(name)}


def _tells(name: str) -> bool:
    return len(name) > 3 and name not in _POSTS and (len(name) > 5 or not name.isdigit())


def _beside(text: str, start: int, at: int, local: str, names: set[str]) -> Iterator[Span]:
    """The person's name around the address, and the domain where it tells the same."""
    words = {piece for piece in _PIECES.findall(local.lower()) if len(piece) > 1 and piece not in _POSTS}
    end = at + 1
    if domain := _DOMAIN.match(text, _after_gap(text, end)):
        if "(" in text[end : domain.start()]:
            yield Span(end, domain.start(), HIDDEN)
        end = domain.end()
        if _personal(domain[0].lower(), words, local):
            yield Span(domain.start(), end, HIDDEN)
    comments = [_TAIL.match(text, end)]
    if text[start - 1 : start] == ")":
        comments.append(_LEAD.fullmatch(text, _comment(text, start), start))
    for comment in filter(None, comments):
        if _named(comment[1].split(), words, alone=comment[0].startswith("(")):
            yield Span(comment.start(1), comment.end(1), HIDDEN)
    if shown := _shown_name(text, start, words):
        name = text[shown.start : shown.end].lower()
        names |= {name, *(word for word in _PIECES.findall(name) if len(word) > 3 and word not in _WORDS)}
        yield shown


def _personal(domain: str, words: set[str], local: str) -> bool:
    """Whether a domain says who somebody is: a name under .name, and jo.doe@doe.example."""
    labels = domain.split(".")
    if labels[-1] == "name" and len(labels) > 1:
        return True
    if "=" in local or domain.startswith("[") or len(_PIECES.findall(local)) > 3:
        return False
    sites = [piece for label in labels[:-1] or labels for piece in _PIECES.findall(label)]
    joined = "".join(sites)
    return any(
        word in joined if len(word) > 4 else word in sites for word in words if len(word) > 2 and word.isalpha()
    )


def _shown_name(text: str, start: int, words: set[str]) -> Span | None:
    """The name before "<jo@example.com>", in quotation marks or not."""
    end = start
    sure = False
    if text[end - 1 : end] == ":" and (scheme := _SCHEME.search(text, max(0, end - 7), end)):
        end, sure = scheme.start(), True
    opener = text[end - 1 : end]
    if opener not in _OPENERS:
        return None
    end = len(text[: end - 1].rstrip())
    if not end or not (text[end - 1].isalpha() or text[end - 1] in _NAME_ENDS):
        return None
    if text[end - 1] == '"':
        begin = text.rfind('"', max(0, end - 100), end - 1) + 1
        inside = text[begin : end - 1] if begin else ""
        letters = any(map(str.isalpha, inside))
        return Span(begin, end - 1, HIDDEN) if letters and inside.lower() not in _WORDS else None
    said = _words_before(text, end, words)
    while len(said) > 2 and said[0][1].isupper() and len(said[0][1]) < 6:  # "DNS", and then a name
        del said[0]
    if not said:
        return None
    begin = said[0][0]
    known = any(words.intersection(_PIECES.findall(word.lower())) for _, word in said)
    some = any(not word.isupper() for _, word in said) and (sure or opener == "<")
    alone = len(said) == 1 and text[:begin].rstrip()[-1:] != ":"  # "Malformed <jo@example.com>"
    return Span(begin, end, HIDDEN) if known or (some and not alone) else None


def _words_before(text: str, end: int, words: set[str]) -> list[tuple[int, str]]:
    """The words that may be a name and end at ``end``, with their places; particles begin none."""
    said: list[tuple[int, str]] = []
    while len(said) < 6:
        stop = end
        while stop and text[stop - 1] in BLANKS and end - stop < 3:
            stop -= 1
        begin = stop
        while begin and text[begin - 1] not in _NAME_STOPS and stop - begin < 40:
            begin -= 1
        if (said and stop == end) or not _name_like(text[begin:stop], words):
            break
        said.insert(0, (begin, text[begin:stop]))
        end = begin
    while said and said[0][1].lower() in _PARTICLES:
        del said[0]
    return said


def _named(said: list[str], words: set[str], *, alone: bool) -> bool:
    """Whether a comment is a name: of two words at least, or one that touches the address."""
    return (alone or len(said) > 1) and all(_name_like(word, words) for word in said)


def _name_like(word: str, words: set[str]) -> bool:
    """Whether a word may be part of a person's name: a capital, or letters that know none, or as in the address."""
    word = word.strip("'’.,")
    bare = word.lower()
    if not bare or bare in _WORDS:
        return False
    pieces = _PIECES.findall(bare)
    if bare in _PARTICLES or (pieces and words.issuperset(pieces)):
        return True
    if not all(letter.isalpha() or letter in _IN_NAMES or not letter.isascii() for letter in word):
        return False
    return word[0] != bare[0] or (not word[0].isascii() and word[0].upper() == bare[0])


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
