"""What people are told of an incident, whatever the channel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts._render import HEADLINE, Message, render, text
from alerts._words import clip, interval, lasting, name, part, plain, provider, rate, size, where
from monitor.model import AUTOMATION, Action, Deed, Grade, Incident, Scope, State, Verdict

NOW = datetime(2026, 11, 24, 9, 42, tzinfo=UTC)
SEGMENT = Scope(tenant="3391", segment="lapsed-365d")
HELD = Scope(tenant="3391", segment="lapsed-365d", stream="marketing")
GMAIL = Scope(ip="198.51.100.21", provider="gmail")


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


def verdict(**changes) -> Verdict:
    usual = {
        "rule": "bounce-seller",
        "scope": SEGMENT,
        "state": State.BAD,
        "grade": Grade.PAUSE,
        "numerator": 1212,
        "denominator": 25240,
        "expected": 0.011,
        "lower": 0.0454,
        "upper": 0.0507,
        "since": NOW - minutes(62),
        "until": NOW - minutes(2),
    }
    return Verdict(**{**usual, **changes})


def incident(found: Verdict | None = None, **changes) -> Incident:
    found = found or verdict()
    usual = {
        "id": 4127,
        "rule": found.rule,
        "scope": found.scope,
        "grade": found.grade,
        "opened_at": NOW - minutes(46),
        "updated_at": NOW,
        "evidence": found,
    }
    return Incident(**{**usual, **changes})


def action(deed: Deed = Deed.PAUSE, ago: float = 21, **changes) -> Action:
    usual = {
        "id": "4127@1795513200",
        "at": NOW - minutes(ago),
        "who": AUTOMATION,
        "deed": deed,
        "scope": SEGMENT,
        "why": "bounce-seller: 1,212 of 25,240",
        "until": None if deed in (Deed.REFUSE, Deed.RESUME) else NOW + minutes(39),
        "incident": 4127,
    }
    return Action(**{**usual, **changes})


def resumed(ago: float = 5) -> Action:
    return action(Deed.RESUME, ago, id="r1", who="marta", why="the list is fine", lease="4127@1795513200")


def field(message: Message, title: str) -> str:
    return plain(dict(message.fields)[title])


def test_the_first_line_tells_where_what_how_bad_and_what_was_done():
    told = render(incident(), [action()])
    assert told.headline == (
        "Seller 3391, segment lapsed-365d: bounces are 4.8\u202f%, expected at most 1.1\u202f%. Paused until 10:21 UTC."
    )
    assert told.mark == "◆"


def test_the_numbers_never_stand_alone():
    told = render(incident(), [])
    assert field(told, "Bounced") == "1,212 of 25,240 in 1 h"
    assert field(told, "Rate") == "4.8\u202f% (4.5\u20135.1\u202f% with 95\u202f% confidence)"
    assert field(told, "Expected") == "at most 1.1\u202f%"
    assert field(told, "Since") == "08:56 UTC, for 46 min"


def test_a_pause_shows_its_end_and_how_to_undo_it():
    told = render(incident(), [action()])
    assert field(told, "Done") == "Paused until 10:21 UTC, ends by itself"
    assert told.undo == ("mailvane resume 4127@1795513200",)


def test_a_pause_of_a_part_names_the_part():
    told = render(incident(), [action(scope=HELD)])
    assert told.headline.endswith("Marketing is paused until 10:21 UTC.")


def test_a_pause_on_another_scope_names_that_scope():
    told = render(incident(verdict(rule="bounce-ip", scope=GMAIL)), [action(scope=Scope(tenant="7"))])
    assert told.headline.endswith("Seller 7 is paused until 10:21 UTC.")


def test_an_end_on_another_day_is_told_with_its_day():
    told = render(incident(), [action(until=NOW + timedelta(days=1))])
    assert told.headline.endswith("Paused until 25 Nov, 09:42 UTC.")


def test_a_refusal_tells_its_reason():
    told = render(incident(), [action(Deed.REFUSE, why="the evidence is 17 min old, over 15 min")])
    assert told.headline.endswith("Not paused: the evidence is 17 min old, over 15 min.")
    assert told.undo == ()


def test_a_dry_run_says_that_it_only_would_have_paused():
    told = render(incident(), [action(Deed.REFUSE, why="dry run: would have paused tenant=3391 for 1 h", scope=HELD)])
    assert told.headline.endswith("Dry run: would have paused.")
    assert plain(told.deeds[0]) == "09:21 UTC Dry run: would have paused marketing, seller 3391, segment lapsed-365d."


def test_without_a_deed_it_says_that_nothing_was_paused():
    told = render(incident(verdict(grade=Grade.ALERT)), [])
    assert told.mark == "△"
    assert told.headline.endswith("Nothing was paused.")


def test_a_resumed_pause_is_not_offered_for_undoing():
    told = render(incident(), [action(), resumed()])
    assert told.headline.endswith("Resumed by marta at 09:37 UTC.")
    assert told.undo == ()


def test_a_resume_and_its_allow_are_told_as_one():
    allow = action(Deed.ALLOW, 5, id="a1", who="marta", until=NOW + timedelta(hours=12))
    told = render(incident(), [action(), resumed(), allow])
    assert told.headline.endswith("Resumed and allowed by marta until 21:42 UTC.")


def test_a_pause_that_a_person_overrides_is_not_told_as_in_force():
    told = render(incident(), [action(), action(Deed.ALLOW, 5, id="a1", who="marta", scope=Scope(tenant="3391"))])
    assert told.headline.endswith("Allowed by marta until 10:21 UTC.")


def test_a_pause_that_is_over_says_when_it_ended():
    told = render(incident(), [action(until=NOW - minutes(1))])
    assert told.headline.endswith("The pause ended at 09:41 UTC.")
    assert told.undo == ()


def test_a_refused_renewal_does_not_hide_the_pause_in_force():
    told = render(incident(), [action(), action(Deed.REFUSE, 1, id="4127!too_many", why="6 pauses in the last hour")])
    assert told.headline.endswith("Paused until 10:21 UTC.")
    assert plain(told.deeds[1]) == "09:41 UTC Not paused: 6 pauses in the last hour."


def test_every_restraint_in_force_can_be_undone():
    told = render(incident(), [action(id="1@1"), action(id="1@2", until=NOW + minutes(50))])
    assert told.headline.endswith("Paused until 10:32 UTC, and 1 more.")
    assert told.undo == ("mailvane resume 1@2", "mailvane resume 1@1")


def test_a_throttle_and_a_reroute_say_how_much_and_where_to():
    throttled = render(incident(), [action(Deed.THROTTLE, share=0.05)])
    assert throttled.headline.endswith("Throttled to 5.0\u202f% until 10:21 UTC.")
    rerouted = render(incident(), [action(Deed.REROUTE, pool="cold")])
    assert rerouted.headline.endswith("Rerouted to pool cold until 10:21 UTC.")


def test_a_command_quotes_what_a_shell_would_read_otherwise():
    assert render(incident(), [action(id="a b;c")]).undo == ("mailvane resume 'a b;c'",)
    assert render(incident(), [action(id="a`b")]).undo == ()


def test_a_resolved_incident_says_so_and_for_how_long_it_lasted():
    told = render(incident(resolved_at=NOW + minutes(32), updated_at=NOW + minutes(32)), [action()])
    assert told.mark == "✓"
    assert told.headline == (
        "Seller 3391, segment lapsed-365d: resolved after 1 h 18 min; bounces were 4.8\u202f%. Paused until 10:21 UTC."
    )


def test_calm_that_does_not_last_long_enough_yet_is_shown():
    told = render(incident(calm_since=NOW - minutes(3)), [])
    assert field(told, "Since") == "08:56 UTC, for 46 min, calm since 09:39 UTC"


def test_the_seller_who_explains_the_excess_is_named():
    told = render(incident(verdict(shares=(("3391", 0.71), ("12", 0.14), ("9", 0.1), ("8", 0.05)))), [])
    assert [plain(line) for line in told.sentences] == [
        "Seller 3391 explains 71\u202f% of the excess, seller 12 14\u202f%, seller 9 10\u202f%."
    ]


def test_an_excess_that_nobody_explains_is_told_as_everybodys():
    told = render(incident(verdict(rule="bounce-ip", scope=GMAIL, shares=(("7", 0.4), ("8", 0.35)))), [])
    assert told.headline.startswith("Gmail, 198.51.100.21: bounces are ")
    assert plain(told.sentences[0]) == "No seller explains half of the excess: seller 7 40\u202f%, seller 8 35\u202f%."


def test_an_own_rule_is_told_by_its_name():
    told = render(incident(verdict(rule="odd", scope=Scope(), expected=float("nan"))), [])
    assert told.headline == "All mail: the rate of rule odd is 4.8\u202f%. Nothing was paused."


def test_only_the_newest_deeds_are_told():
    told = render(incident(), [action(Deed.REFUSE, 30 - n, why=f"reason {n}") for n in range(8)])
    assert [plain(line) for line in told.deeds][:2] == ["3 earlier entries.", "09:15 UTC Not paused: reason 3."]
    assert len(told.deeds) == 6


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.048, "4.8"),
        (0.0034, "0.34"),
        (0.24, "24"),
        (0.0996, "10"),
        (1.0, "100"),
        (0.0, "0"),
        (0.000996, "0.10"),
        (1e-7, "under 0.001"),
    ],
)
def test_a_rate_has_two_significant_digits(share, shown):
    assert rate(share) == f"{shown}\u202f%"


def test_an_unknown_rate_is_no_number():
    assert rate(float("nan")) == "unknown"
    assert interval(float("nan"), 0.1) == ""
    assert part(float("nan")) == "unknown"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(90, "90 s"), (2340, "39 min"), (3600, "1 h"), (4680, "1 h 18 min"), (273600, "3 d 4 h"), (-5, "0 s")],
)
def test_a_span_has_its_two_largest_units(seconds, shown):
    assert lasting(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("gmail", "Gmail"),
        ("mailru", "Mail.ru"),
        ("att", "AT&T"),
        ("seznam.cz", "seznam.cz"),
        ("x y", "“x y”"),
    ],
)
def test_a_provider_is_written_as_people_write_it(value, shown):
    assert provider(value) == shown


def test_a_name_that_reads_like_our_words_stands_in_quotation_marks():
    assert name("3391. Resolved: all is well") == "“3391. Resolved: all is well”"
    assert name("a ”. Nothing is paused. “b") == '“a ". Nothing is paused. "b”'
    assert name("") == "“”"


def test_a_scope_names_its_labels_in_a_fixed_order():
    scope = Scope(stream="marketing", tenant="3391", campaign="bf-early-2", ip="192.0.2.1", provider="yahoo")
    assert where(scope) == "Yahoo, 192.0.2.1, marketing, seller 3391, campaign bf-early-2"


def test_long_names_grow_shorter_so_that_each_is_seen():
    scope = Scope(tenant="t" * 3000, segment="s" * 3000)
    told = render(incident(verdict(scope=scope)), [action(scope=scope)])
    assert told.headline == (
        "Seller ttttttttttttttttttttttt…, segment sssssssssssssssssssssss…: "
        "bounces are 4.8\u202f%, expected at most 1.1\u202f%. Paused until 10:21 UTC."
    )


words = st.text(st.characters(exclude_categories=[]), max_size=300) | st.sampled_from(
    ["<!channel>", "@here", "joe.bloggs@example.com", "x" * 3000, "😀" * 300, "{}", "a\n> b", "\u202e", "*a* `b`"]
)
scopes = st.builds(Scope, ip=words, provider=words, stream=words, tenant=words.map(lambda w: w + "x"), segment=words)
rates = st.floats(0, 1) | st.just(float("nan"))
times = st.integers(0, 15 * 365 * 86400).map(lambda s: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=s))
verdicts = st.builds(
    verdict,
    rule=words,
    scope=scopes,
    numerator=st.integers(0, 10**9),
    denominator=st.integers(0, 10**9),
    expected=rates,
    lower=rates,
    upper=rates,
    since=times,
    until=times,
    reason=words,
    shares=st.lists(st.tuples(words, rates), max_size=4).map(tuple),
)
incidents = st.builds(
    incident, verdicts, opened_at=times, updated_at=times, calm_since=st.none() | times, resolved_at=st.none() | times
)
actions = st.lists(
    st.builds(
        action,
        st.sampled_from(Deed),
        id=words,
        who=words,
        scope=scopes,
        why=words,
        until=st.none() | times,
        pool=words,
        share=rates,
        seq=st.integers(0, 1000),
    ),
    max_size=8,
)


@given(incidents, actions)
def test_any_incident_has_a_headline_that_fits_and_names_no_recipient(about, deeds):
    told = render(about, deeds)
    assert size(told.headline) <= HEADLINE
    assert told.headline.replace("\u202f", "").isprintable()
    assert "joe.bloggs" not in text(told).replace("mailvane resume joe.bloggs@example.com", "")


@given(words, st.integers(3, 200))
def test_what_is_clipped_is_not_longer_than_the_limit(value, limit):
    assert size(clip(value, limit)) <= limit
    assert size(name(value, limit)) <= limit
    assert size(where(Scope(tenant=value, segment=value), limit)) <= limit
