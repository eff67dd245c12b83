"""Replies as templates: what varies is masked, so that equal replies fall together and can be counted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from collectors._reply_table import folded, rows

LONGEST = 4_096  # of a text that is looked at; replies have at most a few lines of 512 (RFC 5321 section 4.5.3.1.5)
_WORD = 400  # letters of a word that are looked at
_WORDS = 50_000  # words that are remembered
_ALIKE = 120  # a longer word is a value: it is not remembered

_RUN = r"[a-z0-9_]+(?:[-.][a-z0-9_]+)*+"
_ADDRESS = re.compile(r"[^\s<>()\[\]\"',;:|=@{}]{0,64}@[^\s<>()\[\]\"',;:|@{}]{1,255}")
_DIGIT = re.compile(r"\d")
_URL = re.compile(r"(?:https?://|www\.)([^\s/?#<>()\[\]\"']{1,255})([^\s<>()\[\]\"']*+)")
_ODD = re.compile(
    r"(?P<time>\d{1,4}[:/]\d[\d:/.+]*+[tz]?)"
    r"|(?P<ip>(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w])|(?<![\w:])[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7}(?!\w))"
    r"|(?P<code>(?<![\w.])[245][0-5]\d(?![\w.]))"
    r"|(?P<status>(?<![\w.])[245]\.\d{1,2}\.\d{1,3}(?![\w]|\.\d))"
    r"|(?P<run>" + _RUN + ")"
)
_ANY = "{any}"  # stands in a cluster's template where its replies differ
_DISTINCT = 20_000  # templates that are told apart in one call
_NEAR = 200  # clusters of one shape with which a template is compared
_EXAMPLES = 3
_SHOWN = 300  # letters of an example
_CODE = 3  # digits of a code
_CLOSED = {end: "<{address}" + end for end in (">", ">:", ">,", ">;", ">.", ">...", ">)", ">):")}
_MASKS = {"time": "{n}", "ip": "{ip}"}
# Last labels of host names, so that "denied.see" is no host.
_TOPS = (
    "com net org edu gov info biz mil int arpa cloud online shop io dev app local localdomain lan invalid test example"
    " email mail xyz top site club store tech pro name mobi asia cat gmbh live network systems solutions group world"
    " media digital internal home corp"
)
_TOP = frozenset(_TOPS.split())


def template(text: str) -> str:
    """A reply in lower case with addresses, hosts, IPs, ids and numbers masked, accents and line breaks taken off.

    Codes and tokens that the table knows stay, so a template means what its reply means. A template of a template is
    itself.
    """
    return " ".join(map(_seen.__getitem__, text[:LONGEST].split()))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Replies alike: their template, how many there were, and some of them as they came."""

    template: str
    count: int
    examples: tuple[str, ...]


def clusters(counted: Iterable[tuple[str, int]], most: int = 100) -> list[Cluster]:
    """Replies and how often each came, as clusters, largest first; at most ``most`` of them.

    Templates of one length and beginning that differ in a word or two become one, with {any} for what differs.
    Examples are the replies as handed over: let them be without addresses before.
    """
    by_template: dict[str, _Counted] = {}
    for text, count in counted:
        masked = template(text)
        if masked not in by_template and len(by_template) >= _DISTINCT:
            continue
        by_template.setdefault(masked, _Counted(masked.split())).add(text, count)
    shapes: dict[tuple[int, str], list[_Counted]] = {}
    for one in sorted(by_template.values(), key=lambda one: (-one.count, one.words)):
        alike = shapes.setdefault((len(one.words), _beginning(one.words)), [])
        into = next((other for other in alike[:_NEAR] if _near(other.words, one.words)), None)
        if into is None:
            alike.append(one)
        else:
            into.take(one)
    ranked = sorted((one for alike in shapes.values() for one in alike), key=lambda one: (-one.count, one.words))
    return [Cluster(" ".join(one.words), one.count, tuple(one.examples)) for one in ranked[:most]]


class _Counted:
    """A cluster in the making."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.count = 0
        self.examples: list[str] = []

    def add(self, text: str, count: int) -> None:
        self.count += count
        if len(self.examples) < _EXAMPLES and text[:_SHOWN] not in self.examples:
            self.examples.append(text[:_SHOWN])

    def take(self, other: _Counted) -> None:
        pairs = zip(self.words, other.words, strict=True)
        self.words = [mine if mine == theirs else _ANY for mine, theirs in pairs]
        self.count += other.count
        self.examples += other.examples[: _EXAMPLES - len(self.examples)]


def _beginning(words: Sequence[str]) -> str:
    """Code and status, without which two replies are never one."""
    return " ".join(word for word in words[:2] if word[:1].isdigit())


def _near(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two templates of one length differ in no more than a word out of four, and in two at most."""
    left = min(2, len(some) // 4)
    for mine, theirs in zip(some, others, strict=True):
        left -= mine not in {theirs, _ANY}
        if left < 0:
            return False
    return True


class _Seen(dict[str, str]):
    """Words as templates show them; remembered where nothing in them varies."""

    def __missing__(self, word: str) -> str:
        # The two commonest, an address in angles and a bare id, are told without a regular expression.
        if "@" in word and word[0] == "<" and (end := _CLOSED.get(word[word.rfind(">") :])):
            return end
        low = folded(word)
        if not word.isascii():
            low = "".join(low.split()) or "-"  # an accent that stands alone is a blank and nothing
            if low != word:
                return self[low]
        if low.isalpha():
            masked, varies = low, len(low) > _ALIKE
        elif low.isalnum() and low.isascii() and len(low) > _CODE and low not in _KEPT:
            return "{n}" if low.isdigit() else "{id}"
        else:
            masked = _masked(low)
            # Hosts and IPs come again, addresses and ids do not.
            varies = "@" in low or len(low) > _ALIKE or "{id}" in masked or "{n}" in masked
        if not varies:
            if len(self) >= _WORDS:
                self.clear()
            self[word] = masked
        return masked


def _masked(word: str) -> str:
    if len(word) > _WORD:
        word = word[:_WORD]
    if "@" in word:
        word = _ADDRESS.sub("{address}", word)
    if "://" in word or "www." in word:
        return _URL.sub(_url, word)
    return _ODD.sub(_odd, word)


def _url(match: re.Match[str]) -> str:
    tail = match[2]
    if _known(match[1]):
        return match[0][: match.end(1) - match.start()] + _ODD.sub(_odd, tail)
    # A provider's own token may be the end of a link to anywhere.
    return "{url}" + _ODD.sub(_odd, tail) if any(run[0] in _TOKENS for run in _ODD.finditer(tail)) else "{url}"


def _odd(match: re.Match[str]) -> str:
    kind, word = match.lastgroup, match[0]
    if kind != "run":
        return _MASKS.get(kind or "", word)
    if word in _KEPT:
        return word
    if "." in word and _is_host(word):
        known = _known(word)
        return "{ip}." + known if known else "{host}"
    if _DIGIT.search(word) is None:
        return word
    return "{n}" if word.isdigit() else "{id}"


def _is_host(word: str) -> bool:
    top = word[word.rfind(".") + 1 :]
    return top in _TOP or (len(top) == 2 and top.isalpha())


@lru_cache(maxsize=4_096)
def _known(host: str) -> str:
    """The longest name that the table has at the end of the host; empty for a stranger's."""
    while host and host not in _HOSTS:
        host = host.partition(".")[2]
    return host


def _kept() -> Iterator[str]:
    for row in rows():
        for word in row.fragment.split():
            for match in _ODD.finditer(word):
                if match.lastgroup == "run" and ("." in match[0] or any(map(str.isdigit, match[0]))):
                    yield match[0]


_KEPT = frozenset(_kept())
_TOKENS = frozenset(word for word in _KEPT if _DIGIT.search(word))
# Two letters: countries; "php" and what else follows a dot is no host.
_HOSTS = frozenset(word for word in _KEPT if "." in word and (_is_host(word) or word == "support.forpsi"))
_seen = _Seen()
