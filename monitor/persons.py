"""Who is known by what stands beside a mail address: display names, names in comments, domains that are a name.

No dictionary of names is asked. A name is told by its capitals and by what it shares with the local part; words that
replies use are none.
"""

from __future__ import annotations

import re

from monitor.codings import BLANKS, NEUTRAL

_PIECES = re.compile(r"[^\W_]+")
_SCHEME = re.compile(r"(?:mailto|smtp):\Z", re.IGNORECASE)
_OPENERS = frozenset("<([")
_MARKS = "'\u2019."
_LAST = frozenset(_MARKS + ',"0123456789' + NEUTRAL)  # what a name may end with, beside letters
_WITHIN = frozenset("-" + _MARKS + NEUTRAL)
_LONGEST = 100  # characters of a name in quotation marks


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PARTICLES = _set("al bin da de del den der di do dos du el la le ten ter van von y zu")
# Local parts that name a post or a server's part: no person is known by them.
_POSTS = _set(
    """abuse account accounts address admin administrator amazon amazonses aol apple billing bounce bounces contact
    daemon delivery dmarc email error errors example facebook feedback gmail google help hostmaster hotmail icloud
    info list lists mail mailbox mailer mailman marketing message microsoft news newsletter nobody noreply
    notification notifications office order orders outlook owner postmaster prvs receipts recipient reply report
    reports request return returns root sales security sender server service shop smtp spam srs0 srs1 staff
    subscribe support team test unknown unsubscribe user users webmaster yahoo"""
)
# Words that stand before "<jo@…>" and are no name; in the languages in which receivers answer.
_WORDS = _POSTS | _set(
    """adres adresa adresse adressee and authenticated bad bcc blocked cannot cc client connection could data dear
    deferred delivered denied destinataire does domain email-adresse empfänger envelope expanded expéditeur failed
    failure final for forward forwarded from full hello helo host in inactive inbox indirizzo inexistant invalid
    invalide is l'adresse le local message-id my no non not of ok on one or original over path permanent please
    policy problem queue queued quota rcpt recipients refused rejected relay relaying reply-to return-path said sent
    size smtp sorry subject system temporarily temporary than that the this to too unable unavailable undeliverable
    unroutable unrouteable users usuario utente utilisateur utilizador via was with wrong your"""
)


def pieces(local: str) -> set[str]:
    """The words of a local part by which a person can be known, in small letters."""
    return {piece for piece in _PIECES.findall(local.lower()) if len(piece) > 1 and piece not in _POSTS}


def called(local: str) -> set[str]:
    """What names the person elsewhere in the same text: the local part without tags and without another domain."""
    local = local.strip(' "' + NEUTRAL).lower()
    names = {local}
    head, sign, tail = local.rpartition("=")
    if sign:  # prvs=TAG=jo, SRS0=HHH=TT=example.com=jo, bounce+jo=example.com
        sent_on = "." in tail and not local.startswith(("srs", "prvs"))
        names.add(re.split(r"[=+]", head)[-1] if sent_on else tail)
    else:
        names.add(local.partition("+")[0])
    return {name for name in names if len(name) > 3 and name not in _POSTS and (len(name) > 5 or not name.isdigit())}


def called_by_name(name: str) -> set[str]:
    """The same of a display name: the whole of it, and its longer words."""
    name = name.lower()
    return {name, *(word for word in _PIECES.findall(name) if len(word) > 3 and word not in _WORDS)}


def personal(domain: str, words: set[str], local: str) -> bool:
    """Whether a domain says who somebody is: a name under .name, and jo.doe@doe.example."""
    labels = domain.split(".")
    if labels[-1] == "name" and len(labels) > 1:
        return True
    if "=" in local or domain.startswith("[") or len(_PIECES.findall(local)) > 3:
        return False
    sites = [piece for label in labels[:-1] or labels for piece in _PIECES.findall(label)]
    joined = "".join(sites)
    return any(word in joined if len(word) > 4 else word in sites for word in words if len(word) > 2 and word.isalpha())


def named(comment: str, words: set[str], *, touches: bool) -> bool:
    """Whether a comment beside an address is a name: of two words at least, or one that touches the address."""
    said = comment.split()
    return (touches or len(said) > 1) and all(_name_like(word, words) for word in said)


def shown_name(text: str, start: int, words: set[str]) -> tuple[int, int] | None:
    """Where the name before "<jo@example.com>" stands, whose local part begins at ``start``; without its quotes."""
    end, sure = start, False
    if text[end - 1 : end] == ":" and (scheme := _SCHEME.search(text, max(0, end - 7), end)):
        end, sure = scheme.start(), True
    opener = text[end - 1 : end]
    if opener not in _OPENERS:
        return None
    end = len(text[: end - 1].rstrip())
    if not end or not (text[end - 1].isalpha() or text[end - 1] in _LAST):
        return None
    if text[end - 1] == '"':
        return _in_quotes(text, end - 1)
    said = _words_before(text, end, words)
    if not said:
        return None
    begin, first = said[0]
    known = any(words.intersection(_PIECES.findall(word.lower())) for _, word in said)
    some = any(not word.isupper() for _, word in said) and (sure or opener == "<")
    # "Malformed <jo@example.com>"; letters without capitals say nothing
    alone = len(said) == 1 and text[:begin].rstrip()[-1:] != ":" and first[0].upper() != first[0].lower()
    return (begin, end) if known or (some and not alone) else None


def _in_quotes(text: str, end: int) -> tuple[int, int] | None:
    begin = text.rfind('"', max(0, end - _LONGEST), end) + 1
    inside = text[begin:end] if begin else ""
    return (begin, end) if any(map(str.isalpha, inside)) and inside.lower() not in _WORDS else None


def _words_before(text: str, end: int, words: set[str]) -> list[tuple[int, str]]:
    """The words that may be a name and end at ``end``, with their places; particles begin none."""
    said: list[tuple[int, str]] = []
    while len(said) < 6:
        stop = end
        while stop and text[stop - 1] in BLANKS and end - stop < 3:
            stop -= 1
        begin = stop - (text[stop - 1 : stop] == ",")
        while begin and (text[begin - 1].isalnum() or text[begin - 1] in _WITHIN) and stop - begin < 40:
            begin -= 1
        while begin < stop and not text[begin].isalpha():  # what it is glued to
            begin += 1
        if (said and stop == end) or not _name_like(text[begin:stop], words):
            break
        said.insert(0, (begin, text[begin:stop]))
        end = begin
    while said and said[0][1].lower() in _PARTICLES:
        del said[0]
    while len(said) > 2 and said[0][1].isupper() and len(said[0][1]) < 6:  # "DNS", and then a name
        del said[0]
    return said


def _name_like(word: str, words: set[str]) -> bool:
    """Whether a word may be part of a person's name: a capital, or letters that know none, or as in the address."""
    word = word.strip(_MARKS + ",")
    bare = word.lower()
    if not bare or bare in _WORDS:
        return False
    parts = _PIECES.findall(bare)
    if bare in _PARTICLES or (parts and words.issuperset(parts)):
        return True
    if not all(letter.isalpha() or letter in _WITHIN or not letter.isascii() for letter in word):
        return False
    return word[0] != bare[0] or (not word[0].isascii() and word[0].upper() == bare[0])
