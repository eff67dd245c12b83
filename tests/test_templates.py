"""Templates of replies, and what is mined from them."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from collectors._templates import LONGEST, Cluster, clusters, template

LINES = st.lists(
    st.sampled_from(
        [
            "550",
            "5.1.1",
            "<kim@corp.example>:",
            "mx1.corp.example[192.0.2.7]:25",
            "id=4XbQz1",
            "said:",
            "12:30:01",
            "2001:db8::1",
            "(1)",
            "unknown",
            "https://corp.example/a?b=1",
            "https://www.spamhaus.org/query/ip/192.0.2.7",
            "Größe",
            "łódź",
            "kim@[192.0.2.1]",
            "{id}",
            "v1.2-3",
        ]
    ),
    max_size=30,
).map(" ".join)


def test_replies_that_differ_in_who_where_and_when_have_one_template() -> None:
    some = "550 5.1.1 <kim@corp.example> unknown at mx1.corp.example[192.0.2.7] 12:30:01 id=4XbQz1"
    others = "550  5.1.1 <lee.b@shop.example>  unknown\r\n at mx22.shop.example[203.0.113.99] 09:01:59 id=77aQ"
    assert template(some) == template(others)
    assert template(some) == "550 5.1.1 <{address}> unknown at {host}[{ip}] {n} id={id}"


def test_codes_and_tokens_of_providers_stay() -> None:
    kept = template("421 4.7.0 [TSS04] refused, OFR_417 and http://anybody.example/codes.php#BL000010")
    assert kept == "421 4.7.0 [tss04] refused, ofr_417 and {url}/codes.php#bl000010"


def test_a_list_that_is_known_stays_behind_the_address_that_was_looked_up() -> None:
    assert template("7.2.0.192.zen.spamhaus.org") == "{ip}.zen.spamhaus.org"


def test_accents_make_no_difference() -> None:
    assert template("Utilisateur inconnu, réessayez") == template("utilisateur INCONNU, reessayez")


@given(st.one_of(LINES, st.text(max_size=400)))
def test_a_template_of_a_template_is_itself(text: str) -> None:
    once = template(text)
    assert template(once) == once or len(once) >= LONGEST


@given(
    st.from_regex(r"\A[a-z]{2,10}[.][a-z]{2,10}[0-9]{0,3}\Z"), st.sampled_from(["<{}>", "{}:", "({})", "to={},", "{}"])
)
def test_no_template_holds_an_address(name: str, dress: str) -> None:
    assert name not in template(f"550 5.1.1 {dress.format(name + '@corp.example')} user unknown")


def test_a_long_text_is_cut_and_a_long_word_too() -> None:
    began = time.perf_counter()
    assert len(template("a" * 1_000_000)) <= LONGEST
    assert len(template("a1-" * 1_000_000)) <= LONGEST
    assert time.perf_counter() - began < 0.5


def test_clusters_are_counted_and_come_largest_first() -> None:
    found = clusters([("450 odd <a@corp.example>", 3), ("554 strange", 9), ("450 odd <b@corp.example>", 4)])
    assert [(one.template, one.count) for one in found] == [("554 strange", 9), ("450 odd <{address}>", 7)]
    assert found[0] == Cluster("554 strange", 9, ("554 strange",))


def test_templates_that_differ_in_a_word_become_one() -> None:
    moods = ["sad", "cross", "tired"]
    (found,) = clusters([(f"550 5.7.1 the server is {mood} and takes no mail today", 2) for mood in moods])
    assert found.template == "550 5.7.1 the server is {any} and takes no mail today"
    assert (found.count, len(found.examples)) == (6, 3)


def test_replies_of_different_codes_never_become_one() -> None:
    reply = "the server is sad and takes no mail today"
    assert len(clusters([(f"550 5.7.1 {reply}", 1), (f"450 4.7.1 {reply}", 1)])) == 2


def test_short_replies_are_told_apart_by_every_word() -> None:
    assert len(clusters([("user disabled", 1), ("user unknown", 1)])) == 2


def test_at_most_so_many_clusters_come_back_with_few_examples() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    found = clusters(((f"{one}{two} {two}{one} said no", 1) for one in letters for two in letters), most=10)
    assert len(found) == 10
    many = clusters((f"550 glorp to {one}{two}@corp.example", 1) for one in letters for two in letters)
    assert [len(one.examples) for one in many] == [3]


@given(st.lists(st.tuples(LINES, st.integers(1, 50)), max_size=30))
def test_nothing_is_lost_and_order_changes_nothing(counted: list[tuple[str, int]]) -> None:
    found = clusters(counted, most=1_000)
    assert sum(one.count for one in found) == sum(count for _, count in counted)
    turned = clusters(reversed(counted), most=1_000)
    assert [(one.template, one.count) for one in turned] == [(one.template, one.count) for one in found]


def test_ten_thousand_templates_are_mined_in_a_moment() -> None:
    letters = "abcdefghijklmnopqrstuv"
    words = [f"{a}{b}{c} glorp {b}{a} in {c}{c}{a} today" for a in letters for b in letters for c in letters]
    began = time.perf_counter()
    clusters((word, 1) for word in words[:10_000])
    assert time.perf_counter() - began < 10
    assert re.match(r"\w+", words[0])
