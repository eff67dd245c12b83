"""No mail address survives in free text, however it is written; the rest of the text does."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.scrub import scrub
from tests.planting import FORMS, Person, found_in, gathered, planted

SHARED = Path(os.environ.get("MAILVANE_SHARED") or Path(__file__).resolve().parents[2] / "shared")
FULL = os.environ.get("MAILVANE_SCALE") == "full"

# As receivers write them, in our words.
REPLIES = [
    "550 5.1.1 Recipient rejected: no such mailbox here",
    "host mx.example.net[192.0.2.4] said: 452 4.2.2 over quota (in reply to RCPT TO command)",
    "421 4.7.0 [TS-17] too many messages from 192.0.2.9; see https://postmaster.example.net/codes?ip=192.0.2.9#ts17",
    "250 2.0.0 Ok: queued as 4XkQ2r1b7Nz3",
    "554 delivery error: dd Not our Customer. mta4123.example.org",
    "smtp; 550-5.7.26 this mail is unauthenticated\n550 5.7.26 and was refused. d9443c01a7336-29b5b1",
    "conversation with mx.example.net[2001:db8::4] timed out while receiving the initial server greeting",
]

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
    if sign == "@" and domain.isascii() and not re.search(r"[/?]", local):  # then it may look like a URL
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
        ("see http://x.example/u?e=jo%40example.com", "see http://x.example/u?e=…"),
        ("<@relay.example:jo@example.com>", "<@relay.example:…@example.com>"),
        ('"jo smith"@example.com; "b"@c.example', "…@example.com; …@c.example"),
        ('{\\"to\\": \\"jo\\"@example.com}', '{\\"to\\": …@example.com}'),
        ("jo @ example.com is full", "…@ example.com is full"),
        ("jo\n@example.com is full", "…@example.com is full"),
        ("jo@\r\n example.com", "…@   example.com"),
        ("jo=40example.com, size=4096 of 40960.5", "…@example.com, size=4096 of 40960.5"),
        ("a@b.example|c@d.example", "…@d.example"),
        ("450 4.2.0 meet @ 12:30", "450 4.2.0 meet @ 12:30"),
        ("100%40 off, at home", "100%40 off, at home"),
        ("sold (at) noon, [dot] com", "sold (at) noon, [dot] com"),
        ('"Doe, Jo" <jo@example.com>', '"…" <…@example.com>'),
        ("Jo Doe <jo.doe@doe.example>: jo.doe is full", "… <…@…>: … is full"),
        ("550 User Unknown <jo@example.com>", "550 User Unknown <…@example.com>"),
        ("jo@example.com (Mailbox Full)", "…@example.com (Mailbox Full)"),
        ("jo@example.com (Jo Doe)", "…@example.com (…)"),
        ("mail@jo.doe.name", "…@…"),
        ("postmaster@postmaster.example.com", "…@postmaster.example.com"),
        ("jo(my (own) box)@example.com", "…@example.com"),
        ("=?utf-8?Q?jo=40example=2Ecom?= =?utf-8?B?IGxlZnQ=?=", "…@example.com left"),
        ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "=?utf-8?Q?Gr=C3=BC=C3=9Fe?="),
        ("https://jo:x/y@example.com/inbox", "https://…@example.com/inbox"),
        ("https://support.google.com/mail/?p=NoSuchUser", "https://support.google.com/mail/?p=NoSuchUser"),
        ("http://x.example/r?ip=192.0.2.7&c=rdns&token=ab", "http://x.example/r?ip=192.0.2.7&c=rdns&token=…"),
        ("https://x.example/error-codes-40685", "https://x.example/error-codes-40685"),
        ("https://x.example/~jo/, later", "https://x.example/…/, later"),
        ("password: required; password=hunter", "password: required; password=…"),
        ("AUTH PLAIN AGpvQGV4YW1wbGUuY29tAHNlY3JldA==", "AUTH PLAIN …"),
        ("jo.doe at example dot com, seen at home", "…@example dot com, seen at home"),
        ("blocked at mx.example.com", "blocked at mx.example.com"),
        ("header.d=abc.example smtp.helo=40.example", "header.d=abc.example smtp.helo=40.example"),
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
    for length in range(4 * limit - 100, 4 * limit + 1200, 41):
        told = scrub("y@b.example " * (length // 12) + '"secret name"@example.com' + " x" * 1000, limit)
        assert "secret" not in told
    assert "sss" not in scrub("s" * 5 * limit + "@example.com", limit)
    assert scrub("s" * 5000 + "@example.com", limit) == ""


HOSTILE = [
    "a" * 2000 + "@",
    "@" * 2000,
    '"' * 1999 + "@",
    '\\"' * 999 + "@",
    '"@' * 999,
    ")@" * 999,
    "(" * 999 + ")" * 999 + "@",
    "=40" * 700,
    "%25" * 700 + "40",
    "%26%2364%3B" * 180,
    "&amp;" * 400,
    "a " * 999 + "@",
    "(at" * 700,
    " at a.b" * 280,
    "x @" * 600,
    "x@y.z " * 330,
    "<a>" * 600 + "@",
    "=?utf-8?B?" * 200,
    "=?a?q?" + "=?a?q?x?=" * 200,
    "a." * 1000 + "/?",
    "a=b&" * 500,
    "x://" * 500,
    "Aa0" * 660,
    "/cn=a" * 400,
    "bounce+" + "=a" * 990,
    "password=" * 220,
    "\u0130@b.example " * 120,
]


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_no_text_takes_long(place: int) -> None:
    began = time.process_time()
    scrub(HOSTILE[place])
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_a_text_without_end_takes_no_longer(place: int) -> None:
    text = HOSTILE[place] * 500
    began = time.process_time()
    scrub(text)
    assert time.process_time() - began < 0.25


def test_every_planted_address_is_found_by_the_search_before_and_by_none_after() -> None:
    for planted_one in planted(1_000, 4, REPLIES):
        assert planted_one.words, planted_one.form
        assert found_in(planted_one.text, planted_one.words) == sorted(planted_one.words), planted_one.form
        told = scrub(planted_one.text, 2_000)
        assert not found_in(told, planted_one.words), (planted_one.form, planted_one.text, told)
        assert scrub(told, 2_000) == told


def test_the_domain_of_an_address_stays_where_it_names_no_person() -> None:
    luck = random.Random(11)
    for form in ("plain", "angle", "quoted", "VERP", "%40", "all entities", "=40", " (at) ", "name", "SRS0", "spaces"):
        person = Person(luck)
        told = scrub(f"550 {FORMS[form](person)} refused")
        assert any(domain in told for domain in (person.domain, "esp.example", "forward.example", "&#46;")), told


def test_what_the_page_says_is_hidden_is_hidden() -> None:
    page = Path(os.environ.get("MAILVANE_CHECKOUT") or Path(__file__).resolve().parents[1]) / "docs" / "privacy.md"
    if not page.exists():
        pytest.skip("the documents are not here")
    table = page.read_text("utf-8").partition("| before | after |")[2].partition("\n\n")[0]
    rows = [[re.findall(r"`([^`]+)`", cell) for cell in line.split(" | ")] for line in table.splitlines()[2:]]
    pairs = [pair for before, after in rows for pair in zip(before, after, strict=True)]
    assert len(pairs) > 10
    for before, after in pairs:
        assert scrub(before) == after


@pytest.fixture(scope="module")
def replies() -> list[str]:
    found = gathered(SHARED / "corpus")
    if not found:
        pytest.skip("the gathered replies are not here")
    return found


@pytest.mark.scale(order=4)
def test_a_thousand_addresses_planted_into_gathered_replies_are_gone_and_their_words_stay(replies: list[str]) -> None:
    short = [reply for reply in replies if len(reply) < 900 and scrub(reply, 2_000) == reply]
    left, cost = [], 0
    number = 50_000 if FULL else 1_000
    for one in planted(number, 5, short):
        assert found_in(one.text, one.words) == sorted(one.words), one.form
        told = scrub(one.text, 3_000)
        left += [(one.form, one.text, told)] if found_in(told, one.words) else []
        cost += bool(one.lost(told))
    assert left == []
    assert cost / number <= 0.005


def test_gathered_replies_without_anybody_in_them_stay_as_they_are(replies: list[str]) -> None:
    nobody = [reply for reply in replies if "@" not in reply and reply.isprintable()]
    changed = [reply for reply in nobody if scrub(reply, 5_000) != reply]
    assert len(nobody) > 1_000
    assert len(changed) / len(nobody) <= 0.005, changed


def test_no_address_is_left_of_the_replies_that_were_gathered(replies: list[str]) -> None:
    for reply in replies:
        assert not re.search(r"[A-Za-z0-9]@[A-Za-z0-9]", scrub(reply)), reply
