"""What an SMTP reply means: its class, how long it lasts, whose fault it is, and which of its words decided.

Words are trusted before the enhanced code, and that before the three digits: see docs/replies.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from functools import lru_cache

from collectors._reply_actions import action_of
from collectors._reply_asked import Asked, asked, unwrapped
from collectors._reply_codes import PASSING, by_code, by_enhanced, plain
from collectors._reply_phrases import composed
from collectors._reply_table import SERVERS, Finder, Row, rows
from collectors._templates import template
from monitor.meaning import SUPPRESSING, Meaning, Permanence, ReplyClass
from monitor.model import MARKER

_TEXTS = 16_384  # replies that are remembered letter by letter
_TEMPLATES = 65_536  # and by their template
_REPEATED = "delivery temporarily suspended"  # and the reply of an hour ago after it: no news
# Japan's mobile providers say after DATA that a user is unknown whose filter refuses the sender.
_FILTERING = frozenset(("docomo", "au", "softbank"))
_MAY_PASS = frozenset((ReplyClass.INACTIVE_MAILBOX, ReplyClass.INVALID_RECIPIENT))
_OF_ADDRESS = frozenset((ReplyClass.INVALID_RECIPIENT, ReplyClass.BAD_DOMAIN))


class _Rank(IntEnum):
    """How firmly something decides, firmest first."""

    TOKEN = 0  # a provider's own, whoever answers
    LIST = 1  # a blocklist that is named
    OWN = 2  # words of the provider that answers
    THEIRS = 3  # words of another provider, a mail server or a filter
    WORDS = 4  # words of anybody
    COMPOSED = 5  # a family of words
    EXACT = 6  # weak words under the very code with which they mean something
    LATE = 7  # given up, for whatever reason
    NET = 8  # no reply came
    STATUS = 9  # an enhanced code
    WEAK = 10
    WRAPPER = 11  # what stands around another server's reply
    VAGUE = 12  # an enhanced code that is used for anything
    NOTHING = 13  # three digits


_KINDS = {
    "token": _Rank.TOKEN,
    "list": _Rank.LIST,
    "late": _Rank.LATE,
    "net": _Rank.NET,
    "wrapper": _Rank.WRAPPER,
}
_FAMILIES = {"expired": _Rank.LATE, "connection": _Rank.NET, "policy": _Rank.WEAK, "refused": _Rank.WEAK}
# Rows whose words must not count again as words of a family.
_SAID = frozenset(("late", "net", "wrapper"))
# What the words around a reply that says nothing may add to it.
_HEARSAY = frozenset((*range(_Rank.EXACT), _Rank.WRAPPER))
_HELD = plain(ReplyClass.HELD, soft=True, decided_by=MARKER)

_finder = Finder(tuple(rows()))
_unvaried: dict[str, str] = {}  # replies in which nothing varies come again letter by letter


def classify(text: str, *, code: int = 0, dsn: str = "", provider: str = "", phase: str = "") -> Meaning:
    """What a reply means; ``other`` where nothing of it is known. No text makes it raise.

    ``code`` and ``dsn`` are looked for in the text where they are not given. ``provider`` is a name of
    ``provider_of`` or empty: its phrases come before others', while anybody's tokens decide whoever answers, since
    mail is forwarded. ``phase`` is the command that was answered: connect, helo, mail, rcpt or data.
    """
    masked = _unvaried.get(text)
    if masked is None:
        masked = template(text)
        if "{" not in masked:
            if len(_unvaried) >= _TEXTS:
                _unvaried.clear()
            _unvaried[text] = masked
    return _classified(masked, code, dsn, provider, phase)


@lru_cache(maxsize=_TEMPLATES)
def _classified(text: str, code: int, dsn: str, provider: str, phase: str) -> Meaning:
    if MARKER in text:
        return replace(_HELD, action=action_of(_HELD))
    if text.startswith(_REPEATED):
        text = _REPEATED
    whole = asked(text, code, dsn, provider, phase)
    rank, meaning = _decided(whole)
    inner = unwrapped(text)
    if inner != text:
        # The codes of the wrapper lie: Microsoft's 5.1.351 stands around anything.
        quoted, told = _decided(asked(inner, 0, "", provider, whole.phase))
        given_up = rank == _Rank.LATE and quoted == _Rank.NET
        if not given_up and (quoted <= rank or quoted < _Rank.VAGUE or rank not in _HEARSAY):
            meaning = told
    return replace(meaning, action=action_of(meaning))


def _decided(reply: Asked) -> tuple[int, Meaning]:
    """How firmly a reply says what it means, and that."""
    rank, meaning = min(_told(reply), key=lambda told: told[0])
    if meaning.cls in _OF_ADDRESS and rank >= _Rank.WORDS and reply.of_sender:
        soft = meaning.permanence is Permanence.SOFT
        meaning = plain(ReplyClass.SENDER_INVALID, soft=soft, decided_by=meaning.decided_by)
    return rank, meaning


def _told(reply: Asked) -> Iterator[tuple[int, Meaning]]:
    """What the words say, then what the codes say, each with how firmly."""
    found = [row for row in _finder.found(reply.searched) if _applies(row, reply)]
    firmest: int = _Rank.NOTHING
    if found:
        row = min(found, key=lambda row: (_rank(row, reply), -len(row.fragment), -_agreement(row, reply), row.fragment))
        firmest = _rank(row, reply)
        yield firmest, _of_row(row, reply, firmest)
    if firmest > _Rank.COMPOSED:
        yield from _by_families(reply, [row.fragment for row in found if row.kind in _SAID])
    if told := by_enhanced(reply.dsn, reply.provider, reply.phase):
        yield (_Rank.VAGUE if reply.vague else _Rank.STATUS), told
    yield _Rank.NOTHING, by_code(reply.code, reply.phase, alone=reply.wordless)


def _by_families(reply: Asked, said: list[str]) -> Iterator[tuple[int, Meaning]]:
    for family, words in composed(reply.without(said)):
        meaning = replace(family.meaning, decided_by=words[:120])
        if meaning.cls in _MAY_PASS and reply.for_now:
            meaning = replace(meaning, permanence=Permanence.SOFT)
        rank = _FAMILIES.get(family.name, _Rank.COMPOSED)
        yield rank, _there(_lasting(meaning, 0, reply), reply)
        if rank == _Rank.COMPOSED:
            return


def _of_row(row: Row, reply: Asked, rank: int) -> Meaning:
    meaning = _lasting(row.meaning, row.code, reply)
    known = rank == _Rank.TOKEN or (row.dsn and row.dsn == reply.dsn)
    known = known or (_own(row, reply) and reply.provider not in _FILTERING)
    return meaning if known else _there(meaning, reply)


def _there(meaning: Meaning, reply: Asked) -> Meaning:
    """What "user unknown" means, where the table does not know it of this server and code: is somebody there after all?

    Filters of recipients say so of mail that they do not want. They must see the mail first, so that a refusal at RCPT
    is none of theirs, and nor is one with a status of addresses (5.1.x). A 5.2.x says that the mailbox exists.
    """
    if meaning.cls is not ReplyClass.INVALID_RECIPIENT or (reply.phase == "rcpt" and reply.dsn[1:] != ".1.2"):
        return meaning
    if reply.phase == "data" and reply.provider in _FILTERING:
        return replace(meaning, cls=ReplyClass.SPAM_BLOCK)
    detail = reply.dsn[1:]
    if detail == ".2.1":
        return replace(meaning, cls=ReplyClass.INACTIVE_MAILBOX)
    if detail == ".1.2" and reply.of_domain:
        return replace(meaning, cls=ReplyClass.BAD_DOMAIN)
    if not detail.startswith(".1.") and (reply.phase == "data" or detail.startswith((".2.", ".7."))):
        return replace(meaning, cls=ReplyClass.POLICY)
    return meaning


def _rank(row: Row, reply: Asked) -> int:
    own = _own(row, reply)
    if row.kind == "weak" and not own:
        fits = row.dsn == reply.dsn or (not row.dsn and reply.vague)
        return _Rank.EXACT if row.code and row.code == reply.code and fits else _Rank.WEAK
    if row.kind in _KINDS:
        return _KINDS[row.kind]
    if own:
        return _Rank.OWN
    return _Rank.THEIRS if row.provider else _Rank.WORDS


def _applies(row: Row, reply: Asked) -> bool:
    """Whether words that mean one thing here and another there mean this row's."""
    if row.kind not in {"coded", "weak"} or _own(row, reply):
        return True
    if row.dsn and row.dsn == reply.dsn:
        return True
    if row.kind == "coded":
        return row.code == reply.code and not row.dsn
    if (row.provider and row.provider not in SERVERS) or (row.dsn and reply.dsn):
        return False
    return not row.code or not reply.code or row.code // 100 == reply.code // 100


def _own(row: Row, reply: Asked) -> bool:
    return bool(row.provider) and row.provider == reply.provider


def _agreement(row: Row, reply: Asked) -> int:
    """Of rows with the same words: how much of the rest fits."""
    same = 8 * _own(row, reply)
    if row.dsn:
        same += 4 * (row.dsn == reply.dsn)
    if row.code:
        same += 2 * (row.code == reply.code) + (row.code // 100 == reply.code // 100)
    return same


def _lasting(meaning: Meaning, code: int, reply: Asked) -> Meaning:
    """The meaning under the code that came: a server may refuse for now what others refuse for good.

    ``code`` is the one that goes with the words; under it they mean what the table says.
    """
    came = reply.digit
    if came in {0, code // 100} or meaning.cls in PASSING or meaning.cls is ReplyClass.EXPIRED:
        return meaning
    permanence = Permanence.SOFT if came == 4 else Permanence.HARD
    # "Suspended for now" stays so, whatever the code.
    if permanence is meaning.permanence or (came == 5 and meaning.cls in SUPPRESSING):
        return meaning
    return replace(meaning, permanence=permanence)
