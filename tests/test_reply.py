"""What replies mean: the table, our goldens, and what holds for any text."""

from __future__ import annotations

import csv
import os
import re
import time
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hatchling.builders.wheel import WheelBuilder
from hypothesis import given
from hypothesis import strategies as st

from collectors import _reply, _reply_asked, _reply_phrases, _templates
from collectors._provider import provider_of
from collectors._reply import classify
from collectors._reply_codes import by_code, by_enhanced, fault_of
from collectors._reply_phrases import families
from collectors._reply_table import GRAM, SERVERS, folded, rows
from collectors._templates import LONGEST, template
from monitor.cli import cli
from monitor.meaning import Fault, Identity, Meaning, Permanence, ReplyClass
from monitor.model import MARKER

ROOT = Path(os.environ.get("MAILVANE_CHECKOUT", Path(__file__).parent.parent)).resolve()
SHARED = Path(os.environ.get("MAILVANE_SHARED") or ROOT.parent / "shared")
FACTS = SHARED / "facts" / "replies.csv"
GOLDEN = list(csv.DictReader((ROOT / "tests/golden/replies/replies.csv").read_text(encoding="utf-8").splitlines()))
# The facts' names of providers that this code calls otherwise; empty where they are no provider.
NAMES = {
    "microsoft_consumer": "outlook",
    "microsoft_365": "microsoft365",
    "yahoo_aol": "yahoo",
    "aol_legacy": "yahoo",
    "apple_icloud": "apple",
    "gmx_webde_mailcom": "gmx",
    "t_online": "t-online",
    "orange_fr": "orange",
    "la_poste": "laposte",
    "free_fr": "free",
    "libero_virgilio": "libero",
    "tim_tin": "tim",
    "mail_ru": "mail.ru",
    "qq_tencent": "qq",
    "netease_163_126": "netease",
    "daum_kakao": "kakao",
    "interia_pl": "interia",
    "wp_o2_pl": "wp.pl",
    "onet_pl": "onet",
    "seznam_cz": "seznam",
    "centrum_atlas_cz": "centrum",
    "godaddy_secureserver": "godaddy",
    "charter_spectrum": "charter",
    "roadrunner": "charter",
    "symantec_messagelabs": "broadcom",
    "trend_micro": "trendmicro",
    "cisco_ironport": "cisco",
    "amazon_ses": "amazon",
    "protonmail": "proton",
    "uol_br": "uol",
    "spamassassin_rspamd": "spamassassin",
    "courier_opensmtpd_dragonfly": "courier",
    "esp_internal": "esp",
}
NO_PROVIDER = {"generic", "blocklist_citation", "polish_generic", "czech_slovak_other", "zimbra_exchange_other"}


def told(meaning: Meaning) -> tuple[str, str, str]:
    return meaning.name, str(meaning.permanence), str(meaning.fault)


@pytest.mark.parametrize("golden", GOLDEN, ids=[f"{at}-{row['meaning']}" for at, row in enumerate(GOLDEN)])
def test_a_reply_means_what_its_golden_says(golden: dict[str, str]) -> None:
    meaning = classify(golden["reply"], provider=golden["provider"], phase=golden["phase"])
    assert told(meaning) == (golden["meaning"], golden["permanence"], golden["fault"]), meaning.decided_by


@pytest.mark.parametrize("known", [True, False], ids=["provider known", "provider unknown"])
@pytest.mark.parametrize("whole", [True, False], ids=["codes in the text", "codes beside it"])
def test_every_fact_that_is_sure_gets_its_class(known: bool, whole: bool) -> None:
    if not FACTS.exists():
        pytest.skip("facts/replies.csv of the shared material is not there")
    wrong = []
    for fact in csv.DictReader(FACTS.read_text(encoding="utf-8").splitlines()):
        if fact["confidence"] not in {"doc", "seen_in_corpus"}:
            continue
        provider = "" if fact["provider"] in NO_PROVIDER else NAMES.get(fact["provider"], fact["provider"])
        text = fact["literal_phrase"]
        if whole:
            text = f"{fact['smtp_code']} {fact['enhanced_code']} {text}".strip()
        meaning = classify(
            text,
            code=int(fact["smtp_code"] or 0),
            dsn=fact["enhanced_code"],
            provider=provider if known else "",
        )
        expected = (fact["class"], fact["permanence"], fact["at_fault"])
        if told(meaning) != expected:
            wrong.append((text, expected, told(meaning), meaning.decided_by))
    assert not wrong


def test_it_says_which_words_decided() -> None:
    decided = classify(
        "550-5.1.1 The email account that you tried to reach does not exist", provider="gmail"
    ).decided_by
    assert decided == "gmail: the email account that you tried to reach does not exist"
    assert classify("550 5.7.26 glorp", provider="gmail").decided_by == "5.7.26"
    assert classify("554 glorp").decided_by == "554"
    assert classify("glorp").decided_by == ""


def test_words_are_trusted_before_the_enhanced_code_and_that_before_the_digits() -> None:
    assert classify("550 5.1.1 mailbox is full").cls is ReplyClass.QUOTA
    assert classify("550 5.2.2 glorp").cls is ReplyClass.QUOTA
    assert classify("552 glorp").cls is ReplyClass.QUOTA


def test_a_token_decides_whoever_answers() -> None:
    for provider in ("", "gmail", "yahoo", "comcast"):
        meaning = classify("554 mail refused, #BL000010", provider=provider)
        assert (meaning.name, meaning.rule, meaning.provider) == ("listed:cloudmark_csi", "BL000010", "comcast")


def test_a_token_is_no_part_of_a_longer_word() -> None:
    assert classify("550 5.1.1 no such user (queue id 4XIB1050Z)").cls is ReplyClass.INVALID_RECIPIENT


def test_a_providers_own_words_come_before_what_others_mean_by_them() -> None:
    reply = "550 Mailbox unavailable or access denied"
    assert classify(reply, provider="qq").cls is ReplyClass.RATE_LIMITED
    assert classify(reply).cls is ReplyClass.INVALID_RECIPIENT
    denied = "Recipient address rejected: Access denied"
    assert classify(f"550 5.4.1 {denied}").cls is ReplyClass.INVALID_RECIPIENT
    assert classify(f"554 5.7.1 <kim@corp.example>: {denied}").cls is ReplyClass.POLICY


def test_brands_behind_one_providers_servers_share_its_words() -> None:
    assert classify("550 5.1.1 nie ma takiego konta", provider="o2") == classify(
        "550 5.1.1 nie ma takiego konta", provider="wp.pl"
    )


def test_given_up_yields_to_any_reason_in_the_same_text() -> None:
    assert classify("retry timeout exceeded").cls is ReplyClass.EXPIRED
    assert classify("retry timeout exceeded; last reply was 552 mailbox full").cls is ReplyClass.QUOTA


def test_a_fault_of_the_recipients_resolver_is_no_listing() -> None:
    meaning = classify(
        "554 blocked using zen.spamhaus.org; Error: open resolver; https://www.spamhaus.org/returnc/pub/"
    )
    assert (meaning.cls, meaning.fault) == (ReplyClass.OTHER, Fault.PROVIDER)


def test_a_reply_of_our_own_pause_is_held() -> None:
    meaning = classify(f"450 4.7.1 <kim@corp.example>: {MARKER}: user unknown", provider="gmail")
    assert told(meaning) == ("held", "soft", "none")


def test_a_refusal_for_now_is_soft_and_does_not_suppress() -> None:
    assert classify("550 5.1.1 user unknown").suppresses
    assert not classify("450 4.1.1 user unknown").suppresses


def test_words_that_nobody_knows_never_suppress_by_three_digits_alone() -> None:
    for code in range(400, 600):
        assert not classify("glorp", code=code, phase="rcpt").suppresses or code in {525, 556}


def test_the_codes_of_every_line_are_read_as_one() -> None:
    reply = "550-5.7.26 This email has been blocked because\r\n550-5.7.26 the sender is unauthenticated."
    assert classify(reply, provider="gmail").cls is ReplyClass.AUTHENTICATION


def test_the_quoted_reply_counts_and_not_the_codes_around_it() -> None:
    reply = "550 5.1.351 Remote server returned unknown recipient -> 552 5.2.2 quota exceeded"
    assert classify(reply, code=550, dsn="5.1.351").cls is ReplyClass.QUOTA


def test_a_listed_name_is_told_and_an_unknown_list_is_unnamed() -> None:
    assert classify("550 listed at pbl.spamhaus.org").listed == "spamhaus_pbl"
    assert classify("550 your IP is on our blacklist").listed == "unnamed"
    assert classify("550 listed at zen.spamhaus.org").identity is Identity.IP


def test_every_answer_says_what_to_do() -> None:
    assert all(classify(row["reply"]).action for row in GOLDEN)


def test_every_row_can_be_found_by_its_own_fragment() -> None:
    for row in rows():
        assert len(row.fragment) >= GRAM
        assert template(row.fragment) == row.fragment == folded(row.fragment)
        assert row in _reply._finder.found(row.fragment)


def test_providers_of_the_table_are_those_of_the_relays() -> None:
    unknown = {row.provider for row in rows()} - SERVERS - {"", "domino", "exchange"}
    esps = {"facebook", "forpsi", "fastmail"}
    relays = {"outlook": "x.olc.protection.outlook.com", "gmail": "aspmx.l.google.com", "wp.pl": "mx.wp.pl"}
    assert {provider_of(host) for host in relays.values()} == set(relays)
    from collectors import _provider

    assert unknown - esps <= set(_provider._TABLE)


def test_enhanced_codes_of_the_registry_are_known_or_say_nothing() -> None:
    assert by_enhanced("5.1.1", "", "") is not None
    assert by_enhanced("5.0.0", "", "") is None
    assert by_enhanced("nonsense", "", "") is None
    assert by_code(0, "", alone=True).cls is ReplyClass.OTHER
    assert {fault_of(cls) for cls in ReplyClass}


WORD = st.sampled_from(
    [
        "550",
        "554",
        "5.1.1",
        "5.7.1",
        "user",
        "unknown",
        "mailbox",
        "full",
        "spam",
        "blocked",
        "using",
        "zen.spamhaus.org",
        "->",
        "said:",
        "[TSS04]",
        "not",
        "found",
        "rejected",
        "quota",
        "exceeded",
        "retry",
        "SPF",
        "fail",
        "192.0.2.1",
        "kim@corp.example",
        "https://x.example/a?b=1",
        "paused",
        "-",
    ]
)
TEXT = st.one_of(st.text(max_size=300), st.lists(WORD, max_size=40).map(" ".join))


@given(TEXT, st.integers(0, 999), st.text(max_size=8), st.sampled_from(["", "gmail", "qq", "nobody.example"]))
def test_any_text_has_one_meaning(text: str, code: int, dsn: str, provider: str) -> None:
    meaning = classify(text, code=code, dsn=dsn, provider=provider)
    _reply._classified.cache_clear()
    assert classify(text, code=code, dsn=dsn, provider=provider) == meaning
    assert isinstance(meaning.permanence, Permanence)
    assert bool(meaning.listed) == (meaning.cls is ReplyClass.LISTED)


@given(TEXT)
def test_a_template_means_what_its_reply_means(text: str) -> None:
    assert classify(template(text)) == classify(text)


@given(st.sampled_from(GOLDEN), st.from_regex(r"\A[a-z]{1,12}[0-9]{1,6}\Z"), st.ip_addresses(v=4))
def test_who_is_written_to_and_from_where_changes_nothing(golden: dict[str, str], name: str, ip: object) -> None:
    reply, provider, phase = golden["reply"], golden["provider"], golden["phase"]
    other = re.sub(r"\bkim@", f"{name}@", reply.replace("198.51.100.4", str(ip)))
    assert classify(other, provider=provider, phase=phase) == classify(reply, provider=provider, phase=phase)


def patterns() -> dict[str, re.Pattern[str]]:
    of_modules = {
        f"{module.__name__}.{name}": value
        for module in (_templates, _reply_asked, _reply_phrases)
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    }
    return of_modules | {family.name: family.pattern for family in families()}


HOSTILE = (
    "a",
    "a ",
    "1.",
    "1:",
    "user ",
    "user unknown ",
    "no such ",
    "not ",
    "a@",
    "a-b.",
    "550-",
    "550 5.7.1 ",
    "blocked ",
    "spf ",
    "in reply to ",
    "rcpt to",
    "https://a",
    "mailbox full of ",
    "(",
    " ",
)


@pytest.mark.parametrize("name", sorted(patterns()))
def test_a_pattern_takes_time_in_proportion_to_the_text(name: str) -> None:
    pattern = patterns()[name]
    for seed in HOSTILE:
        # A longer reply is cut before any pattern sees it.
        short, long = (took(pattern, (seed * LONGEST)[:length]) for length in (LONGEST // 4, LONGEST))
        # Four times the text may take four times as long; quadratic would be sixteen, and a clock is not exact.
        assert long < max(10 * short, 0.02), (seed, short, long)


def took(pattern: re.Pattern[str], text: str) -> float:
    """Seconds of the best of three searches over the whole text."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _match in pattern.finditer(text):
            pass
        best = min(best, time.perf_counter() - began)
    return best


@pytest.mark.parametrize("seed", HOSTILE)
def test_a_hostile_reply_is_read_in_a_moment(seed: str) -> None:
    began = time.perf_counter()
    classify(seed * 200_000)
    assert time.perf_counter() - began < 0.5


def test_the_command_explains_a_reply() -> None:
    run = CliRunner().invoke(cli, ["reply", "550 5.1.1 <kim@corp.example> No such user", "--provider", "gmail"])
    assert run.exit_code == 0
    assert "invalid_recipient" in run.output
    assert "decided by:   no such user" in run.output


def test_the_command_speaks_json() -> None:
    run = CliRunner().invoke(cli, ["reply", "glorp", "--code", "550", "--json"])
    assert run.exit_code == 0
    assert '"class": "other"' in run.output


def test_the_wheel_has_the_table() -> None:
    builder = WheelBuilder(str(ROOT))
    packed = {file.distribution_path for file in builder.recurse_included_files()}
    assert {"collectors/_replies.csv", "collectors/_phrases.toml"} <= packed


def test_every_gap_of_the_phrases_is_written_as_one() -> None:
    for family in tomllib.loads((ROOT / "collectors/_phrases.toml").read_text(encoding="utf-8"))["family"]:
        for line in family["like"]:
            assert not re.search(r"(?<! )\.\.\d? | \.\.\d?(?![ \d])", line), line
