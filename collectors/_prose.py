"""Bounces in prose: whom they name, and what they say of each; the half that isn't multipart/report.

No make of server has a grammar of its own here. All of them announce a failure, then name recipients in few ways: alone
on a line, at the beginning of one, or within the sentence that announces; a reply stands below, beside or above.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from collectors._addresses import ADDRESS, address, tidy
from collectors._mail import Mail, Part
from collectors._phrases import ALIASED, ALONE, ASIDE, END, FAILED, LEADING, X400
from collectors._session import HEARD, SENT, Session, joined, session

_TEXT = 48 * 1024  # characters of prose that are looked at
_LINES = 2_500
_LIMIT = 500  # recipients of one mail
_BREAKS = re.compile(r"<(?:br|/?p|/?div|/?tr|/?li|/?h\d|/?table)\b[^<>]{0,2000}>", re.IGNORECASE)
_HIDDEN = ("style", "script", "head", "title")
_TAG = re.compile(r"<[!/A-Za-z][^<>]{0,4000}>")
_RULE = re.compile(r"^[\s>|]{0,9}[-=*_~#+.|]{3,}\s*$")
_HEADING = re.compile(r"^\s{0,9}[-=*|]{2,}+\s{0,9}[^-=*]{0,100}[-=*|]{2,}+\s*+$")  # a line of nothing else is a rule
# A sign of notices that their writers have in dozens of languages, and what all of them say. As of 2026-11.
_NOTICES = (("groups.google.com/support", "this group may not exist, or you do not have permission to post to it"),)
# Punctuation of the far east, which stands at an address without a blank.
_WIDE = {at: f" {chr(at - 0xFEE0)} " for at in (0xFF08, 0xFF09, 0xFF0C, 0xFF1A, 0xFF1B, 0xFF1C, 0xFF1E)}
_WIDE |= {0x3001: ", ", 0x3002: ". "}
# Ends of lines after which somebody else is named.
_NOT_FAILED = ("sent by", "from:", "sender:", "please contact", "to:<", "from", "to the address")
_LOCAL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._+-]{1,63})(?: \(([^()]{3,200})\))?")
_SAID_TO = re.compile(
    r"\b(?:to|addressed,?|for|recipients?|users?|userid|address|size|full|account|mailbox|violation for)[\s:]{1,9}"
    r"[<\[(\"']{0,3}(?:smtp:|mailto:)?$",
    re.IGNORECASE,
)
_SAID_FROM = re.compile(r"\b(?:from|by|contact|not accepting mail from)[\s:]{1,9}[<\"']?$", re.IGNORECASE)


@dataclass(slots=True)
class Said:
    """What prose says of one recipient: ``reply`` below or beside the name, ``above`` what led to it.

    ``command`` is the one of the SMTP session that was refused, such as rcpt, where the prose has the session.
    """

    recipient: str
    reply: str = ""
    above: str = ""
    command: str = ""
    alias: str = ""  # the address that was mailed to, where it was expanded into the recipient
    means: str = ""  # the same in words that are understood, where a notice comes in many languages


def prose(mail: Mail) -> str:
    """What a mail says to people, without what came back, in at most 48 K characters."""
    texts = [part for part in mail.parts if part.kind in ("text/plain", "text", "message/plain")]
    texts = [part for part in texts if part.own.strip()] or [part for part in mail.parts if part.kind == "text/html"]
    told = "\n".join(map(plain, texts[:3]))[:_TEXT]
    if not told.isascii():
        told = told.translate(_WIDE)
    end = END.search(told)
    return told[: end.start()] if end else told


def plain(part: Part) -> str:
    """A part's own text, of HTML without its tags."""
    text = part.own[: 4 * _TEXT]
    if part.kind != "text/html" and not text.lstrip()[:9].lower().startswith(("<html", "<!doctype")):
        return text
    text = " ".join(text.split())
    for element in _HIDDEN:
        text = _without(text, element)
    text = _BREAKS.sub("\n", text)
    return "\n".join(" ".join(line.split()) for line in html.unescape(_TAG.sub("", text)).split("\n"))


def _without(text: str, element: str) -> str:
    """HTML without elements of that name."""
    lower, kept, end = text.lower(), list[str](), 0
    while (place := lower.find(f"<{element}", end)) >= 0 and (close := lower.find(f"</{element}", place)) >= 0:
        kept.append(text[end:place])
        end = close
    return "".join(kept) + text[end:] if kept else text


def said(text: str, failed: Iterable[str] = (), domain: str = "") -> list[Said]:
    """The recipients that a prose names as failed; ``failed`` are those of a header, which decides where it is there.

    In the order of the text, each once. ``domain`` is that of who writes: some name their own users without it.
    """
    lines = text.split("\n", _LINES)[:_LINES]
    spoken = session(lines)
    named = {one.lower(): one for one in islice(failed, _LIMIT)}
    found = _listed(text, lines, frozenset(named))
    if named:
        missing = [one for key, one in named.items() if key not in {each.recipient.lower() for each in found}]
        found = [each for each in found if each.recipient.lower() in named]
        found += [Said(one, above=above) for above in (joined(lines),) for one in missing]
    else:
        known = {each.recipient.lower() for each in found}
        found += [Said(one) for one in spoken.by_recipient if one not in known]
        found = found or _local(lines, domain) or _in_sentences(lines)
    means = next((words for sign, words in _NOTICES if sign in text), "")
    for one in found[:_LIMIT]:
        _with(spoken, one, alone=len(found) == 1)
        one.means = means
    return found[:_LIMIT]


def _listed(text: str, lines: list[str], named: frozenset[str]) -> list[Said]:
    """Recipients that stand alone on a line or begin one, once a failure was announced."""
    list_ = _List()
    announced = _announced(text)
    first = announced[0] if announced and not named else 0
    for number, line in enumerate(lines):
        one = None
        if "@" in line and (number > first or any(number < each < number + 5 for each in announced)):
            one = _recipient(line, lines[number - 1] if number else "", named)
        if one and not list_.continues(one, line):
            list_.name(one, line)
            first = min(first, number)
        elif list_.open and (alias := ALIASED.search(line)):
            list_.open[-1].alias = address(line[alias.end() :])
        elif _RULE.match(line) or _HEADING.match(line):
            list_.rule()
        elif line and not line.isspace():
            list_.text(line.strip())
    list_.close()
    return list_.found


def _announced(text: str) -> list[int]:
    """The lines in which a failure is announced, at most the first hundred."""
    lower, found, line, place = text.lower(), list[int](), 0, 0
    for one in FAILED.places(lower):
        line += lower.count("\n", place, one)
        place = one
        if not found or found[-1] != line:
            found.append(line)
    return found[:100]


class _List:
    """Recipients as they are named, and the lines above and below each."""

    def __init__(self) -> None:
        self.found: list[Said] = []
        self.open: list[Said] = []  # those named last, of whom the lines below speak
        self._seen: dict[str, Said] = {}
        self._above: list[str] = []
        self._below: list[str] = []
        self._depth = 0  # blanks before the last one

    def continues(self, one: Said, line: str) -> bool:
        """Whether a line that names somebody only goes on with what is said of the last one."""
        if not self.open:
            return False
        deeper = bool(self._below) and _indent(line) > self._depth
        return deeper or one.recipient.lower() == self.open[-1].recipient.lower()

    def name(self, one: Said, line: str) -> None:
        self._depth = _indent(line)
        if sum(map(len, self._below)) >= 4:
            self.close()
        known = self._seen.setdefault(one.recipient.lower(), one)
        if known is one:
            one.above = joined(self._above)
            self.found.append(one)
        self.open.append(known)
        if one.reply:
            self._below.append(one.reply)
            one.reply = ""

    def text(self, line: str) -> None:
        (self._below if self.open else self._above).append(line)

    def rule(self) -> None:
        """A line that parts what is above from what is below."""
        if sum(map(len, self._below)) >= 4:
            self.close()

    def close(self) -> None:
        """What stands below the last ones is said of all of them."""
        reply = joined(self._below)
        for one in self.open:
            one.reply = one.reply or reply
        self.open, self._below = [], []


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _recipient(line: str, before: str, named: frozenset[str]) -> Said | None:
    """The recipient whom a line names by standing alone or first."""
    if "@" not in line or SENT.match(line) or HEARD.match(line):
        return None
    if found := ALONE.match(line):
        one = tidy(found[2] or found[1])
        if before.rstrip().lower().endswith(_NOT_FAILED):
            return None
        return Said(one) if one.lower() in named or not ASIDE.search(line) else None
    if found := LEADING.match(line):
        one = tidy(found[1])
        if one.lower() in named or not ASIDE.search(line[: found.start(2)]):
            return Said(one, found[2].strip())
    if found := X400.match(line):
        return Said(tidy(found[1]))
    return None


def _in_sentences(lines: list[str]) -> list[Said]:
    """Recipients within the sentences that announce, where none is listed.

    Those that a sentence names as such ("… to someone@example.com") are all, if there are any.
    """
    found: dict[str, Said] = {}
    sure: set[str] = set()
    announced = FAILED.among("\n".join(lines).lower())
    for number, line in enumerate(lines):
        if "@" not in line or SENT.match(line) or HEARD.match(line):
            continue
        context = " ".join(lines[max(number - 2, 0) : number + 4]).lower()
        if announced and not FAILED.among(context):
            continue
        for one in islice(ADDRESS.finditer(line), 50):
            before = line[max(one.start() - 60, 0) : one.start()]
            if _SAID_FROM.search(before) or ASIDE.search(line[max(one.start() - 40, 0) : one.end()]):
                continue
            name = tidy(one[0])
            found.setdefault(name.lower(), Said(name, joined(lines[number : number + 12]), joined(lines[:number])))
            if _SAID_TO.search(before):
                sure.add(name.lower())
    return [one for name, one in found.items() if not sure or name in sure]


def _local(lines: list[str], domain: str) -> list[Said]:
    """Users of the writer's own domain, each on a line below the announcement."""
    found: list[Said] = []
    open_ = False
    for line in lines:
        word = line.strip()
        if word.endswith(":") and FAILED.among(line.lower()):
            open_ = True
        elif open_ and domain and (named := _LOCAL.fullmatch(word)):
            found.append(Said(f"{named[1]}@{domain}", named[2] or "", joined(lines)))
        elif word:
            open_ = False
    return found


def _with(spoken: Session, one: Said, *, alone: bool) -> None:
    """With what the session says of a recipient, or of the only one."""
    command, reply = spoken.by_recipient.get(one.recipient.lower()) or (
        spoken.replies[-1] if alone and spoken.replies else ("", "")
    )
    if reply and not _has_code(one.reply):
        one.command, one.reply = command, f"{reply} {one.reply}".strip()


def _has_code(reply: str) -> bool:
    return re.search(r"\b[45]\d\d[ -]|\b[45]\.\d\.\d", reply) is not None
