"""No regular expression of ours takes time that grows faster than the text, as texts are strangers'."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from collectors._grammar import grammar
from collectors.sendlog import Sendlog
from monitor.scrub import scrub
from tests.regexes import Found, held, patterns, slow

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it reads patterns by a module that Python has renamed
    from regexploit.ast.sre import SreOpParser
    from regexploit.redos import find

FULL = os.environ.get("MAILVANE_SCALE") == "full"
ATTACKS = 2_000 if FULL else 60  # on one pattern
# What regexploit can't read: it is older than these.
NEW = ("*+", "++", "?+", "}+", "(?>")
# Patterns that are slow for long texts, and how long theirs may be.
BOUNDED: Mapping[str, tuple[int, str]] = {
    "monitor.configured:_KEY_OF_URL": (2_000, "URLs that the operator configures"),
    "monitor.codings:_DOTTED": (70, "the end of what stands before an at"),
}
# Patterns that are made while the product runs: of what, and what is tried in their place.
MADE: Mapping[str, str] = {
    "collectors._grammar": "below: what configuration adds are names of headers, escaped",
    "collectors._mail": "a boundary, escaped, between two line ends",
    "collectors._maillog": "the operator's own",
    "collectors._reply": "digits of a code and a status; families of phrases, which are found in the module once it is loaded",
    "monitor.actuators.postfix": "the operator's own",
    "monitor.api.doors": "paths of ours",
    "monitor.naming": "the operator's own",
    "monitor.settings": "the operator's own",
    "monitor.shred": "a name of a file of ours, escaped",
    "monitor.witnesses": "the operator's own",
}
BAD = {
    "nested": r"^(\w+\s?)*$",
    "alternatives that overlap": r"(?:a|a)*b",
    "one after the other": r"\d+\.?\d+\.?\d+x",
    "from any place": r"\s+$",
    "behind a word": r"status=(?:[a-z]+[0-9]?)+;",
    "cubic": r"a*a*a*b",
    "in a lookahead": r"(?=(?:x+x+)+y)",
    "bytes": rb"<(?:[^>]*,?)*>",
}
GOOD = {
    "possessive": (r"(?:a++b?)*+c", True),
    "atomic": (r"(?>\w+)@", True),
    "bounded": (r"\s{0,9}\d{1,9}:", False),
    "apart": (r"[a-z]+=[0-9]+(?:,[0-9]+){0,9};", True),
    "a run from its start": (r"(?<!\d)\d+x", False),
}


@cache
def ours() -> tuple[list[Found], list[str]]:
    found, unknown = patterns()
    made = grammar(users=True, headers=["X-Segment", "X-Campaign"])
    return [*found, Found("collectors._grammar:grammar", made, anchored=True)], unknown


def of_package(name: str) -> list[Found]:
    return [one for one in ours()[0] if one.where.startswith(name)]


def suspected(pattern: re.Pattern[Any]) -> list[Any]:
    """What regexploit holds against it, from cubic on; quadratic ones are seen by trying."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    return [one for one in find(SreOpParser().parse_sre(text, pattern.flags & ~re.DEBUG)) if one.starriness > 2]


def readable(pattern: re.Pattern[Any]) -> bool:
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    return not any(sign in text for sign in NEW)


@pytest.mark.scale(order=5)
@pytest.mark.parametrize("package", ["collectors", "monitor", "alerts", "dashboards", "detectors", "mailvane_client"])
def test_no_pattern_is_slow_under_attack(package: str):
    found = [one for one in of_package(package) if one.where not in BOUNDED]
    harmed = {one.where: told for one in found if (told := slow(one, ATTACKS))}
    assert harmed == {}


@pytest.mark.parametrize("where", BOUNDED)
def test_what_is_slow_for_long_texts_is_quick_for_its_own(where: str):
    (found,) = (one for one in ours()[0] if one.where == where)
    longest, _ = BOUNDED[where]
    assert slow(found, 200, sizes=(28, longest), enough=0.2) == ""


def test_no_pattern_is_held_to_be_bad_by_another_tool():
    told = {
        one.where: [str(each) for each in suspected(one.pattern)]
        for one in ours()[0]
        if one.where not in BOUNDED and readable(one.pattern)
    }
    assert {where: why for where, why in told.items() if why} == {}
    assert len(told) > 100


def test_every_pattern_is_found():
    found, unknown = ours()
    assert len(found) > 200
    assert {"collectors._mail:_FROM", "monitor.codings:_CODED"} <= {one.where for one in found}
    assert [place for place in unknown if not place.startswith(tuple(MADE))] == []
    assert [where for where in MADE if not any(place.startswith(where) for place in unknown)] == []


def test_patterns_are_found_wherever_a_module_keeps_them():
    class Kept:
        __slots__ = ("inner",)

        def __init__(self) -> None:
            self.inner = [re.compile("slot")]

    Kept.__module__ = "collectors.kept"
    names = {"A": re.compile("plain"), "B": {"x": (re.compile("table"), 1)}, "c": Kept(), "__d__": re.compile("hidden")}
    assert {pattern.pattern for _, pattern in held(names, "collectors.kept")} == {"plain", "table", "slot"}


@pytest.mark.parametrize("sign", ["\\", "%", "&amp;", "=3D", "http://x.example/.", "=?utf-8?q?", "a@", ".", "( at )"])
def test_a_reply_of_nothing_but_signs_is_scrubbed_in_no_time(sign: str):
    text = sign * (2_900 // len(sign))
    assert scrub(text) is not None
    assert min(timed(lambda: scrub(text)) for _ in range(3)) < 0.1


@pytest.mark.parametrize("sign", [" ", "a: ", " from x;", "<", "a"])
def test_a_logged_header_of_nothing_but_signs_is_read_in_no_time(sign: str):
    text = sign * (60_000 // len(sign))
    line = f"Jun 10 06:27:30 mx postfix/cleanup[1]: 4R1ABCDE: info: header X-Segment:{text}\n".encode()
    log = Sendlog(path="mail.log", headers={"X-Segment": "segment"}, tenant="s1")

    def read() -> None:
        log.parser(datetime(2026, 6, 11, tzinfo=UTC)).feed(line, "mail.log")

    assert min(timed(read) for _ in range(3)) < 0.3


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.parametrize("name", BAD)
def test_a_bad_pattern_is_seen(name: str):
    assert slow(Found(name, re.compile(BAD[name])), ATTACKS)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_pattern_is_let_pass(name: str):
    pattern, anchored = GOOD[name]
    assert slow(Found(name, re.compile(pattern), anchored), ATTACKS) == ""


@pytest.mark.parametrize("name", ["nested", "cubic", "behind a word"])
def test_the_other_tool_sees_bad_patterns_too(name: str):
    assert suspected(re.compile(BAD[name]))
