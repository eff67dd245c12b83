"""No mail address survives in free text, however it is written; the rest of the text does."""

from __future__ import annotations

import csv
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.scrub import scrub

ATEXT = "abcXYZ019!#$%&'*+-/=?^_`{|}~é日"
LOCALS = st.text(ATEXT, min_size=1, max_size=64) | st.builds(
    ".".join, st.lists(st.text(ATEXT, min_size=1, max_size=10), min_size=2, max_size=5)
)
QUOTED = st.text("abc xyz@<>(),;:[]'.", min_size=1, max_size=30).map(lambda inside: f'"{inside}"')
DOMAINS = st.sampled_from(
    ["example.com", "mail.example.co.uk", "[192.0.2.1]", "xn--bcher-kva.example", "bücher.example", "localhost"]
)
SIGNS = st.sampled_from(
    [
        "@",
        "%40",
        "%2540",
        "&#64;",
        "&#x40;",
        "&commat;",
        "\\u0040",
        "(at)",
        " (at) ",
        "[at]",
        "(AT)",
        "\uff20",
        "\ufe6b",
    ]
)
BEFORE = st.sampled_from(
    ["", " ", "<", "to=<", "recipient <", "(", "'", "550 5.1.1 ", ":", "rcpt:", "[", ";", ",", '"', "\n", "\u200b"]
)
AFTER = st.sampled_from(["", " ", ">", ">: user unknown", ")", "'", ":", ", next", "]", ";", '"', "...", "\r\n", "?"])


def letters(local: str) -> str:
    """What of a local part must not be seen again, if it is long enough to be told from the text around it."""
    return max(re.findall(r"[a-zA-Z0-9é日]+", local) or [""], key=len)


@settings(max_examples=400, deadline=None)
@given(local=LOCALS, domain=DOMAINS, sign=SIGNS, before=BEFORE, after=AFTER)
def test_no_local_part_survives_in_any_dress(local: str, domain: str, sign: str, before: str, after: str) -> None:
    name = f"Zq7{local}Qz7"
    told = scrub(f"{before}{name}{sign.strip()}{domain}{after}")
    assert name not in told
    assert not re.search(r"[^\s…<>()\[\],;:\"]@", told)
    if sign == "@" and domain.isascii():
        assert f"…@{domain.rstrip(']')}" in told


@settings(max_examples=200, deadline=None)
@given(local=QUOTED, domain=DOMAINS, before=BEFORE.filter(lambda text: text != '"'))
def test_a_quoted_local_part_with_anything_in_it_does_not_survive(local: str, domain: str, before: str) -> None:
    secret = f'"Zq7 {local[1:-1]} Qz7"'
    told = scrub(f"{before}{secret}@{domain}: no such user")
    assert "Zq7" not in told
    assert "Qz7" not in told
    assert "no such user" in told


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_scrubbing_again_changes_nothing_and_the_outcome_is_printable_and_short(text: str) -> None:
    once = scrub(text, 50)
    assert len(once) <= 50
    assert once.isprintable()
    assert scrub(once, 50) == once


@settings(max_examples=200, deadline=None)
@given(st.text("abc XYZ.0-9:;<>[]()=+/_", max_size=200))
def test_text_without_an_address_stays_as_it_is(text: str) -> None:
    if not re.search(r"=40|[(\[]\s?at\s?[)\]]", text, re.IGNORECASE):
        assert scrub(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 5.1.1 <jo@example.com>: unknown", "550 5.1.1 <…@example.com>: unknown"),
        ("550 o'brien@example.com, not here", "550 …@example.com, not here"),
        ("bounce+jo=example.com@esp.example refused", "…@esp.example refused"),
        ("SRS0=HHH=TT=example.com=jo@fwd.example", "…@fwd.example"),
        ("see http://x.example/u?e=jo%40example.com", "see http:…@example.com"),
        ("<@relay.example:jo@example.com>", "<…@relay.example:…@example.com>"),
        ('"jo smith"@example.com; "b"@c.example', "…@example.com; …@c.example"),
        ('{\\"to\\": \\"jo\\"@example.com}', '{\\"to\\": …@example.com}'),
        ("jo @ example.com is full", "…@ example.com is full"),
        ("jo\n@example.com is full", "…@example.com is full"),
        ("jo@\r\n example.com", "…@   example.com"),
        ("jo=40example.com, size=4096 of 40960.5", "…@example.com, size=4096 of 40960.5"),
        ("a@b.example|c@d.example", "…@d.example"),
        ("450 4.2.0 meet @ 12:30", "450 4.2.0 meet …@ 12:30"),
        ("100%40 off, at home", "…@ off, at home"),
        (
            "250 2.0.0 OK  1763978400 d9443c01a7336-29b5b1 - gsmtp",
            "250 2.0.0 OK  1763978400 d9443c01a7336-29b5b1 - gsmtp",
        ),
        ("tab\there\x00", "tab here "),
    ],
)
def test_texts_as_servers_write_them(text: str, expected: str) -> None:
    assert scrub(text) == expected


@pytest.mark.parametrize("limit", [10, 40, 200])
def test_a_cut_never_leaves_an_address_half_hidden(limit: int) -> None:
    for length in range(0, 5 * limit, 7):
        told = scrub("x " * (length // 2) + "y@b.example " * 30 + "secretname@example.com", limit)
        assert "secretname" not in told
    assert scrub("s" * 5 * limit + "@example.com", limit) == ""


@pytest.mark.parametrize(
    "text", ["a" * 2000 + "@", "@" * 2000, '"' * 1999 + "@", "=40" * 700, "a " * 999 + "@", "(at" * 700, "x @" * 600]
)
def test_no_text_takes_long(text: str) -> None:
    began = time.perf_counter()
    scrub(text)
    assert time.perf_counter() - began < 0.5


def test_no_address_is_left_of_the_replies_that_were_gathered() -> None:
    path = Path(os.environ.get("MAILVANE_SHARED", Path(__file__).parents[2] / "shared")) / "facts" / "replies.csv"
    if not path.exists():
        pytest.skip("the gathered replies are not here")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            for cell in row:
                assert not re.search(r"[A-Za-z0-9]@[A-Za-z0-9]", scrub(cell)), cell
