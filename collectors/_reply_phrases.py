"""Replies by the words that servers compose them of (``_phrases.toml``), for all that no row of the table holds."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collectors._reply_codes import PASSING, fault_of
from monitor.meaning import Fault, Identity, Meaning, Permanence, ReplyClass

_FILE = Path(__file__).with_name("_phrases.toml")
_BETWEEN = re.compile(r" (\.\.|<>)(\d?)(?= )")
_NAMED = re.compile(r"<(\w+)>")
_MOST = 4  # words between, where a pattern does not say


@dataclass(frozen=True, slots=True)
class Family:
    """A class and the patterns that tell it; a text without any of ``stems`` fits none of them."""

    name: str
    pattern: re.Pattern[str]
    stems: tuple[str, ...]
    meaning: Meaning


def families() -> Iterator[Family]:
    """Every family, in the order in which they are tried."""
    read = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    words = {name: f"(?:{told.replace(chr(10), '')})" for name, told in read["words"].items()}
    for family in read["family"]:
        patterns = (_pattern(line, words) for line in family["like"])
        yield Family(family["name"], re.compile("|".join(patterns)), tuple(family["stems"]), _meaning(family))


def _meaning(family: Mapping[str, Any]) -> Meaning:
    cls = ReplyClass(family["class"])
    return Meaning(
        cls=cls,
        permanence=Permanence.SOFT if cls in PASSING else Permanence.HARD,
        fault=Fault(family["fault"]) if "fault" in family else fault_of(cls),
        identity=Identity(family.get("identity", "none")),
        listed="unnamed" if cls is ReplyClass.LISTED else "",
    )


def _pattern(line: str, words: Mapping[str, str]) -> str:
    """A line of the file as a regular expression; every gap and every rest of a word in it is bounded."""
    line = _NAMED.sub(lambda match: words.get(match[1], match[0]), line)
    line = line.replace(r"\S*", r"[^ ]{0,60}").replace(r"\S+", r"[^ ]{1,60}").replace(r"\w*", r"\w{0,20}")
    line = line.replace(r"\w+", r"\w{1,20}").replace("{address}", r"\{address\}")
    line = re.sub(r"(?<!\\)\{(ip|host|n|id|url)\}", r"\\{\1\\}", line)
    parts = _BETWEEN.split(line)
    turned = parts[1] == "<>" if len(parts) == 4 else False
    told = _joined(parts)
    return f"(?:{told}|{_joined([parts[3].strip(), *parts[1:3], ' ' + parts[0]])})" if turned else f"(?:{told})"


def _joined(parts: list[str]) -> str:
    told = parts[0] if parts[0].startswith(("^", "\\b")) else rf"(?<![\w{{]){parts[0]}"
    for number, rest in zip(parts[2::3], parts[3::3], strict=True):
        most = number or _MOST
        told += rf"(?!\w)[^ ]{{0,60}} (?:[^ ]{{1,60}} ){{0,{most}}}?[^ \w{{]{{0,4}}{rest.strip()}"
    return told


_FAMILIES = tuple(families())


def composed(text: str) -> Iterator[tuple[Family, str]]:
    """The families that a template fits, firmest first, each with the words that told."""
    for family in _FAMILIES:
        if any(stem in text for stem in family.stems) and (match := family.pattern.search(text)):
            yield family, match[0]
