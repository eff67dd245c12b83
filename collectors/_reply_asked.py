"""A reply taken apart: codes, the command that was answered, the reply that another server's text quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from collectors._reply_table import SAME

# What stands before the reply of another server; a code must follow, and the last one counts.
_QUOTES = re.compile(
    r"(?:->|said:|refused to talk to me:|returned was:|remote server was:|response was:|address error"
    r"|responded(?: with)?:?|remote server returned|(?:mail|rcpt) (?:from|to)[^ ]{0,300}:|end of data:|\]:)"
    r"[ '\"(<]{0,4}(?=(?:smtp; ?)?[245]\d\d\b)"
)
_CODE = re.compile(r"(?:^|[ '\"(\[:;>#])([245][0-5]\d)(?=[ \-:;,.]|$)(?!\.\d)")
_ENHANCED = re.compile(r"(?<![\w.])([245]\.\d{1,2}\.\d{1,3})(?![\w]|\.\d)")
_FIRST = re.compile(r"[^\d]{0,12}([245]\d\d)[ -](?:([245]\.\d{1,2}\.\d{1,3})\b)?")
# Codes that servers use for anything.
_UNTOLD = re.compile(r"[245]\.(?:[0-7]\.0|0\.1|7\.1)")
_PHASES = re.compile(
    r"(?:in (?:reply|response) to|after|following|while sending|to) (?:the )?(?:end of |sending |pipelined |initial )?"
    r"(mail from|rcpt to|rcpt|data|helo|ehlo|message body|mail command)\b"
)
_COMMANDS = {"mail": "mail", "rcpt": "rcpt", "data": "data", "mess": "data", "helo": "helo", "ehlo": "helo"}
_ASIDE = re.compile(r"\(?in (?:reply|response) to [^)]{0,80}(?:command\)?|\)|$)")
# What Postfix puts before the reason of any restriction.
_RESTRICTION = re.compile(r"(?:recipient address|data command|end-of-data) rejected: (?=[a-z])")
_OF_SENDER = re.compile(
    r"sender (?:e?-?mail )?address (?:rejected|refused|verif)|sender (?:rejected|refused|denied|verif)"
)
_FOR_NOW = re.compile(r"temporar|try(?:ing)? (?:again|later)|\bfor now\b|later\b")
_WORDS = re.compile(r"[a-z]{2}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A reply with all that is known of it, in the form of a template; ``line`` is it without repeated codes."""

    text: str
    line: str
    code: int
    dsn: str
    provider: str
    phase: str

    @property
    def searched(self) -> str:
        """Where fragments are looked for: sentences go over the ends of lines, and some hold a code."""
        return self.text if self.text == self.line else f"{self.text} \n{self.line}"

    @property
    def vague(self) -> bool:
        """Whether the enhanced code is one that servers use for anything."""
        return _UNTOLD.fullmatch(self.dsn) is not None

    @property
    def digit(self) -> int:
        """4 or 5, as the code begins, or 0."""
        digit = self.code // 100 or (int(self.dsn[0]) if self.dsn[:1].isdecimal() else 0)
        return digit if digit in {4, 5} else 0

    @property
    def of_sender(self) -> bool:
        """Whether it is the sender's address that is refused."""
        return self.phase == "mail" or _OF_SENDER.search(self.line) is not None

    @property
    def of_domain(self) -> bool:
        """Whether the words are of a domain or host."""
        return "domain" in self.line or "host " in self.line

    @property
    def for_now(self) -> bool:
        """Whether the words promise that it passes."""
        return _FOR_NOW.search(self.line) is not None

    @property
    def wordless(self) -> bool:
        """Whether nothing but codes came."""
        return _WORDS.search(self.text) is None

    def without(self, said: list[str]) -> str:
        """The line without what the table knows already and without what the reporting server adds."""
        line = _RESTRICTION.sub("", self.line)
        for fragment in said:
            line = line.replace(fragment, "")
        return _ASIDE.sub("", line)


def asked(text: str, code: int, dsn: str, provider: str, phase: str) -> Asked:
    """The reply ``text``, a template; what is not given is looked for in it."""
    line = _one_line(text)
    if not code and (match := _CODE.search(line)):
        code = int(match[1])
    if (not dsn or _UNTOLD.fullmatch(dsn)) and (match := _ENHANCED.search(line)):
        dsn = match[1]
    return Asked(text, line, code, dsn, SAME.get(provider, provider), phase or phase_of(text))


def phase_of(text: str) -> str:
    """The command after which the text says that the reply came: mail, rcpt, data, helo, or empty."""
    found = ""
    for match in _PHASES.finditer(text):
        found = _COMMANDS.get(match[1][:4], "")
    return found


def unwrapped(text: str) -> str:
    """The last reply that is quoted in a text; the text, where none is."""
    end = 0
    for match in _QUOTES.finditer(text):
        end = match.end()
    return text[end:].removeprefix("smtp;").strip(" '\"") if end else text


def _one_line(text: str) -> str:
    """A reply of several lines as one sentence: each of them repeats the code, and mostly the status."""
    first = _FIRST.match(text)
    if first is None:
        return text
    status = re.escape(first[2]) if first[2] else r"[245]\.\d{1,2}\.\d{1,3}"
    return text[: first.end()] + re.sub(rf"(?<= ){first[1]}(?:[- ]{status} |-)", "", text[first.end() :])
