"""Slack is told once, in place, within its limits, and nothing secret leaves in words."""

from __future__ import annotations

import logging
import re
import socket
import traceback
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from alerts._render import render
from alerts._slack_layout import mrkdwn, payload
from alerts._words import When
from alerts.slack import Slack
from monitor.model import AUTOMATION, Action, Deed, Grade, Incident, Scope, State, Verdict
from monitor.plugins import load
from monitor.ports import Notifier, PluginError
from tests.servers.slack import SlackServer, malformed

NOW = datetime(2026, 11, 24, 9, 42, tzinfo=UTC)
SEGMENT = Scope(tenant="3391", segment="lapsed-365d")


def incident(scope: Scope = SEGMENT, shares=(), rule="bounce-seller", **changes) -> Incident:
    found = Verdict(
        rule=rule,
        scope=scope,
        state=State.BAD,
        grade=Grade.PAUSE,
        numerator=120,
        denominator=500,
        expected=0.05,
        lower=0.205,
        upper=0.279,
        since=NOW - timedelta(minutes=7),
        until=NOW - timedelta(minutes=2),
        shares=shares,
    )
    usual = {"grade": Grade.PAUSE, "opened_at": NOW - timedelta(minutes=5), "updated_at": NOW, "evidence": found}
    return Incident(id=4127, rule=rule, scope=scope, **{**usual, **changes})


def pause(seq: int = 1, **changes) -> Action:
    usual = {
        "id": "4127@1795513200",
        "at": NOW - timedelta(minutes=1),
        "who": AUTOMATION,
        "deed": Deed.PAUSE,
        "scope": SEGMENT,
        "why": "bounce-seller: 120 of 500 in 5 min",
        "until": NOW + timedelta(minutes=39),
        "incident": 4127,
    }
    return Action(seq=seq, **{**usual, **changes})


RESOLVED = incident(resolved_at=NOW + timedelta(minutes=20), updated_at=NOW + timedelta(minutes=20))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def slack():
    with SlackServer() as server:
        yield server


@pytest.fixture
def bot(slack):
    return by_token(slack)


@pytest.fixture
def hook(slack):
    return Slack(webhook_url=SecretStr(slack.webhook_url), timeout="1s")


def by_token(slack: SlackServer, **changes) -> Slack:
    usual = {"token": SecretStr(slack.token), "channel": slack.channel, "base_url": slack.base_url, "timeout": "1s"}
    return Slack(**{**usual, **changes})


def refusal(notifier: Slack, handle: str = "") -> PluginError:
    with pytest.raises(PluginError) as caught:
        notifier.notify(incident(), [pause()], handle)
    return caught.value


def methods(slack: SlackServer) -> list[str]:
    return [call.method for call in slack.calls]


def said(slack: SlackServer) -> str:
    """All texts of the newest request's blocks."""
    blocks = slack.calls[-1].body["blocks"]
    texts = [b["text"] for b in blocks if "text" in b] + [
        f for b in blocks for f in b.get("fields", b.get("elements", []))
    ]
    return "\n".join(text["text"] for text in texts)


def test_the_kind_slack_is_found_by_its_folder():
    assert load("alerts", "slack", Notifier) is Slack


def test_the_first_telling_posts_one_message_with_the_facts(bot, slack):
    handle = bot.notify(incident(), [pause()], "")
    channel, ts = handle.split(":")
    assert (channel, ts) in slack.messages
    body = slack.calls[0].body
    assert methods(slack) == ["chat.postMessage"]
    assert body["text"].startswith("Seller 3391, segment lapsed-365d: bounces are 24\u202f%")
    assert body["blocks"][0]["text"]["text"].startswith("◆ Seller 3391, segment lapsed-365d: bounces are 24\u202f%")
    assert body["metadata"] == {"event_type": "mailvane_incident", "event_payload": {"incident": 4127}}
    assert body["unfurl_links"] is False
    for fact in ("120 of 500 in 5 min", "20\u201328\u202f%", "at most 5.0\u202f%", "`mailvane resume 4127@1795513200`"):
        assert fact in said(slack)


def test_times_are_each_readers_own(bot, slack):
    bot.notify(incident(), [pause()], "")
    assert "until <!date^1795515660^{time}|10:21 UTC>, ends by itself" in said(slack)


def test_later_tellings_change_that_message_in_place(bot, slack):
    handle = bot.notify(incident(), [], "")
    assert bot.notify(incident(), [pause()], handle) == handle
    assert bot.notify(RESOLVED, [pause()], handle) == handle
    assert methods(slack) == ["chat.postMessage", "chat.update", "chat.update"]
    (message,) = slack.messages.values()
    assert message["blocks"][0]["text"]["text"].startswith("✓ Seller 3391, segment lapsed-365d: resolved after 25 min")


def test_a_channel_by_name_can_be_changed_too(slack):
    bot = by_token(slack, channel="#deliverability")
    handle = bot.notify(incident(), [], "")
    bot.notify(incident(), [pause()], handle)
    assert len(slack.messages) == 1


def test_a_message_that_somebody_deleted_is_posted_anew(bot, slack):
    handle = bot.notify(incident(), [], "")
    slack.delete(handle)
    assert bot.notify(incident(), [pause()], handle) in {f"{channel}:{ts}" for channel, ts in slack.messages}
    assert methods(slack)[1:] == ["chat.update", "chat.postMessage"]


def test_a_handle_of_the_webhook_days_is_no_message_to_change(bot, slack):
    bot.notify(incident(), [], "webhook:3:open")
    assert methods(slack) == ["chat.postMessage"]


def test_the_page_is_linked_where_its_address_is_known(slack):
    by_token(slack, page_url="https://mailvane.example/?a=1&b=2").notify(incident(), [], "")
    assert "<https://mailvane.example/?a=1&amp;b=2|Open Mailvane>" in said(slack)


@pytest.mark.parametrize("mode", ["ratelimit", "500", "503", "504", "drop"])
def test_a_passing_failure_is_outlived_within_the_call(bot, slack, mode):
    slack.fail(mode)
    bot.notify(incident(), [], "")
    assert len(slack.calls) == 2
    assert len(slack.messages) == 1


@pytest.mark.parametrize("mode", ["ratelimit", "500", "drop"])
def test_a_webhook_outlives_the_same(hook, slack, mode):
    slack.fail(mode)
    hook.notify(incident(), [], "")
    assert len(slack.messages) == 1


@pytest.mark.parametrize("retry_after", ["3600", "99999999999", "soon"])
def test_a_long_wait_is_left_to_the_pipeline(bot, slack, retry_after):
    slack.fail("ratelimit", retry_after=retry_after)
    error = refusal(bot)
    assert error.retry
    assert str(error) == "Slack answered ratelimited"
    assert len(slack.calls) == 1


def test_lasting_trouble_ends_after_three_tries(bot, slack):
    slack.fail("500", times=9)
    error = refusal(bot)
    assert error.retry
    assert str(error) == "Slack answered with status 500"
    assert len(slack.calls) == 3


def test_silence_ends_at_the_time_out(bot, hook, slack):
    for notifier in (bot, hook):
        slack.fail("slow")
        error = refusal(notifier)
        assert error.retry
        assert str(error) == "Slack did not answer within 1 s"


def test_a_closed_port_is_told_as_such():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bot = Slack(token=SecretStr("xoxb-1"), channel="C1", base_url=f"http://127.0.0.1:{port}/api/")
    error = refusal(bot)
    assert error.retry
    assert str(error) == "Slack can't be reached: Connection refused"


def test_an_answer_that_is_not_slacks_is_worth_another_try(bot, hook, slack):
    slack.fail("html")
    assert refusal(bot).retry
    slack.fail("502", times=3)
    assert refusal(hook).retry


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("invalid_auth", "make a new bot token"),
        ("token_revoked", "make a new bot token"),
        ("missing_scope", "give the app the scope chat:write"),
        ("channel_not_found", "invite the app"),
        ("not_in_channel", "invite the app"),
        ("is_archived", "unarchive the channel"),
        ("some_new_code", "Slack answered some_new_code"),
    ],
)
def test_what_a_person_must_mend_is_not_retried_and_names_the_remedy(bot, slack, code, remedy):
    slack.fail(code)
    error = refusal(bot)
    assert not error.retry
    assert code in str(error)
    assert remedy in str(error)
    assert len(slack.calls) == 1


def test_the_server_knows_a_wrong_token_and_a_wrong_channel(slack):
    assert "invalid_auth" in str(refusal(by_token(slack, token=SecretStr("xoxb-wrong"))))
    assert "channel_not_found" in str(refusal(by_token(slack, channel="C0OTHER")))


def test_an_error_while_changing_is_not_taken_for_a_lost_message(bot, slack):
    handle = bot.notify(incident(), [], "")
    slack.fail("invalid_auth")
    assert not refusal(bot, handle).retry
    assert methods(slack) == ["chat.postMessage", "chat.update"]


@pytest.mark.parametrize("code", ["invalid_blocks", "msg_blocks_too_long"])
def test_if_slack_dislikes_the_blocks_the_words_arrive_without_them(bot, slack, code):
    slack.fail(code)
    handle = bot.notify(incident(), [pause()], "")
    (message,) = slack.messages.values()
    assert message["blocks"] == []
    assert "Undo: mailvane resume 4127@1795513200" in message["text"]
    slack.fail(code)
    bot.notify(RESOLVED, [pause()], handle)
    (message,) = slack.messages.values()
    assert "resolved after 25 min" in message["text"]


def test_a_webhook_whose_blocks_are_disliked_tells_the_words_too(hook, slack):
    slack.fail("invalid_blocks")
    hook.notify(incident(), [pause()], "")
    assert [message["blocks"] for message in slack.messages.values()] == [[]]


def test_a_webhook_posts_again_only_for_news(hook, slack):
    first = hook.notify(incident(), [], "")
    assert hook.notify(incident(), [], first) == first
    second = hook.notify(incident(), [pause(seq=7)], first)
    assert hook.notify(incident(), [pause(seq=7)], second) == second
    third = hook.notify(RESOLVED, [pause(seq=7)], second)
    assert hook.notify(RESOLVED, [pause(seq=7)], third) == third
    assert methods(slack) == ["webhook"] * 3


def test_a_webhook_that_failed_is_tried_with_the_old_handle(hook, slack):
    first = hook.notify(incident(), [], "")
    slack.fail("action_prohibited")
    with pytest.raises(PluginError):
        hook.notify(incident(), [pause()], first)
    hook.notify(incident(), [pause()], first)
    assert len(slack.messages) == 2


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("no_service", "make a new incoming webhook"),
        ("invalid_token", "make a new incoming webhook"),
        ("channel_is_archived", "unarchive the channel"),
        ("action_prohibited", "ask an administrator"),
    ],
)
def test_a_webhook_that_slack_refuses_is_not_retried_and_names_the_remedy(hook, slack, code, remedy):
    slack.fail(code)
    error = refusal(hook)
    assert not error.retry
    assert str(error).startswith(f"Slack answered {code}: ")
    assert remedy in str(error)


@pytest.mark.parametrize("mode", ["no_service", "500", "drop", "html", "ratelimit"])
def test_neither_token_nor_url_is_in_an_error_or_a_log(bot, hook, slack, caplog, mode):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("slack_sdk").setLevel(logging.DEBUG)
    for notifier in (bot, hook):
        slack.fail(mode, times=3, retry_after="60")
        try:
            notifier.notify(incident(), [pause()], "")
        except PluginError as error:
            told = "".join(traceback.format_exception(error)) + repr(error)
        else:
            told = ""  # a webhook takes any answer of 200 for yes
        for secret in (slack.token, "verysecret"):
            assert secret not in told
            assert secret not in caplog.text
        slack.clear()


def test_settings_show_no_secret(bot, hook, slack):
    assert slack.token not in repr(bot)
    assert "verysecret" not in repr(hook)


HOSTILE = "<!channel> @here & <@U123> *bold* `code` ~gone~ <https://evil.example|click> joe.bloggs@example.com\n> quote"


def test_names_call_nobody_and_mark_up_nothing(bot, slack):
    scope = Scope(tenant=HOSTILE, segment=HOSTILE[::-1], ip=HOSTILE, provider="<!here>")
    deeds = [pause(scope=scope, who=HOSTILE, why=HOSTILE), pause(2, deed=Deed.REFUSE, why=HOSTILE)]
    bot.notify(incident(scope, shares=((HOSTILE, 0.9),), rule=HOSTILE), deeds, "")
    text = said(slack) + "\n" + slack.calls[-1].body["text"]
    tags = re.findall(r"<[^>]*>", text)
    assert tags
    assert all(tag.startswith("<!date^") for tag in tags)
    assert not re.search(r"@(here|channel|everyone)", text)
    assert not re.search(r"\*bold|~gone|`code", text)
    assert "joe.bloggs" not in text


def test_names_of_3000_characters_arrive_shortened(bot, slack):
    long = Scope(tenant="&" * 3000, segment="<" * 3000, campaign="😀" * 3000, provider="p" * 3000)
    deeds = [pause(n, id=f"4127@{n}", scope=long, who="w" * 3000, why="*" * 3000) for n in range(9)]
    bot.notify(incident(long, shares=(("t" * 3000, 0.4), ("u" * 3000, 0.3)), rule="r" * 3000), deeds, "")
    (message,) = slack.messages.values()
    assert message["blocks"]
    assert "…" in message["blocks"][0]["text"]["text"]


def test_a_line_is_cut_between_pieces_never_inside_one():
    date = When(NOW, "09:42 UTC")
    assert mrkdwn(("a&&", date), 8) == "a&amp;…"
    assert mrkdwn(("a ", date, " b"), 60) == "a <!date^1795513320^{time}|09:42 UTC> b"
    assert mrkdwn(("ab ", date), 20) == "ab …"
    tomorrow = When(NOW, "25 Nov, 09:42 UTC")
    assert mrkdwn((tomorrow,), 99) == "<!date^1795513320^{date_short_pretty}, {time}|25 Nov, 09:42 UTC>"


words = st.text(st.characters(exclude_categories=[]), max_size=200) | st.sampled_from(
    ["<!channel>", "&" * 3000, "😀" * 3000, HOSTILE, "", " "]
)
scopes = st.builds(
    Scope, ip=words, domain=words, provider=words, stream=words, tenant=words.map(lambda w: w + "x"), campaign=words
)
deeds = st.lists(
    st.builds(
        pause,
        st.integers(0, 99),
        id=words,
        who=words,
        deed=st.sampled_from(Deed),
        scope=scopes,
        why=words,
        until=st.none() | st.just(NOW) | st.just(NOW + timedelta(days=400)),
        pool=words,
        share=st.floats(0, 1),
    ),
    max_size=9,
)
incidents = st.builds(
    incident,
    scopes,
    st.lists(st.tuples(words, st.floats(0, 1)), max_size=5).map(tuple),
    words,
    resolved_at=st.none() | st.just(NOW),
)


@given(incidents, deeds)
def test_any_incident_stays_within_slacks_limits(about, actions):
    body = payload(about.id, render(about, actions), "https://mailvane.example/" + "x" * 400)
    assert malformed(body) == ""
    assert "<!channel>" not in str(body)


def settings_refused(**settings) -> str:
    with pytest.raises(ValidationError) as caught:
        Slack(**settings)
    return str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"channel": "C1"},
        {"token": SecretStr("xoxb-1")},
        {"token": SecretStr("xoxb-1"), "channel": "C1", "webhook_url": SecretStr("https://hooks.example/s")},
        {"channel": "C1", "webhook_url": SecretStr("https://hooks.example/s")},
    ],
)
def test_there_is_exactly_one_way_to_slack(settings):
    why = settings_refused(**settings)
    assert "token_file" in why
    assert "webhook_url_file" in why


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"base_url": "https://slack.com/"}, "must end in /api/"),
        ({"base_url": "http://slack.example/api/"}, "must be an https:// URL"),
        ({"base_url": "ftp://127.0.0.1/api/"}, "must be an https:// URL"),
        ({"token": SecretStr("xoxb\nInjected: header")}, "must be one word"),
        ({"token": SecretStr("  ")}, "must be one word"),
        ({"page_url": "javascript:alert(1)"}, "page_url"),
        ({"page_url": "https://a|b"}, "page_url"),
        ({"timeout": "0s"}, "timeout"),
        ({"timeout": "5m"}, "timeout"),
        ({"chanel": "C1"}, "chanel"),
    ],
)
def test_a_wrong_setting_is_named(changed, why):
    assert why in settings_refused(**{"token": SecretStr("xoxb-1"), "channel": "C1", **changed})


@pytest.mark.parametrize("url", ["http://hooks.example/hush", "hooks/hush", "https://hooks.example/hu sh", ""])
def test_a_wrong_webhook_is_refused_without_repeating_it(url):
    why = settings_refused(webhook_url=SecretStr(url))
    assert "must be an https:// URL" in why
    assert "hu" not in why
