"""Configuration: every mistake at once, each with its path; secrets never in the file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from monitor.config import ConfigError, find, load, parse
from monitor.ports import Duration, Plugin, duration
from monitor.settings import Settings


def problems(tables: dict[str, Any], env: dict[str, str] | None = None) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse(tables, "test", env or {})
    return {problem.path: str(problem) for problem in caught.value.problems}


def test_no_file_means_the_defaults():
    settings = load(None, {})
    assert settings.service.listen == ("127.0.0.1", 8025)
    assert settings.service.gate == ("127.0.0.1", 8026)
    assert settings.service.data == Path("/var/lib/mailvane")
    assert settings.guards.dry_run
    assert settings.guards.held_share == 0.2
    assert settings.guards.evidence_age == timedelta(minutes=15)
    assert settings.guards.protected == {"stream": ("transactional",)}
    assert [rule.name for rule in settings.rules] == ["bounce-seller", "bounce-ip", "complaint-seller", "return-seller"]


def test_every_mistake_is_reported_at_once_with_its_path():
    found = problems(
        {
            "servce": {},
            "service": {"listen": "nowhere", "cycle": "5 parsecs", "dta": "/x"},
            "automation": {"mode": "enforc"},
            "guards": {"held_share": 2},
            "rule": {"bounce-seller": {"min_volum": 3}, "mine": {"kind": "threshold", "by": ["segmant"]}},
            "collector": {"a": {}, "b": {"kind": "carrier-pigeon"}, "c": 3},
        }
    )
    assert {
        "servce",
        "service.listen",
        "service.cycle",
        "service.dta",
        "automation.mode",
        "guards.held_share",
        "rule.bounce-seller.min_volum",
        "rule.mine.by",
        "rule.mine.rate",
        "rule.mine.window",
        "collector.a.kind",
        "collector.b.kind",
        "collector.c",
    } <= set(found)
    assert "did you mean data?" in found["service.dta"]
    assert "did you mean min_volume?" in found["rule.bounce-seller.min_volum"]


def test_a_rule_may_change_a_default_or_switch_it_off():
    settings = parse({"rule": {"bounce-seller": {"min_volume": 50}, "bounce-ip": {"enabled": False}}}, "test", {})
    assert [rule.name for rule in settings.rules] == ["bounce-seller", "complaint-seller", "return-seller"]
    assert settings.rules[0].detector.model_dump()["min_volume"] == 50


def test_a_segment_without_its_tenant_is_no_grouping():
    rule = {"kind": "threshold", "rate": "bounce", "by": ["segment"], "window": "5m", "alert": 0.05, "pause": 0.1}
    assert "add tenant" in problems({"rule": {"mine": rule}})["rule.mine.by"]


def test_a_secret_in_the_file_is_refused_and_never_repeated():
    found = problems({"alert": {"ops": {"kind": "slack", "token": "xoxb-secret", "channel": "C1"}}})
    assert "token_file" in found["alert.ops.token"]
    assert "xoxb-secret" not in "".join(found.values())


def test_a_secret_comes_from_its_file_or_the_environment(tmp_path: Path):
    (tmp_path / "token").write_text("xoxb-1\n")
    table = {"kind": "slack", "channel": "C1"}
    by_file = parse({"alert": {"ops": {**table, "token_file": str(tmp_path / "token")}}}, "test", {})
    by_env = parse({"alert": {"ops": table}}, "test", {"MAILVANE_ALERT_OPS_TOKEN": "xoxb-1"})
    for settings in (by_file, by_env):
        assert settings.alerts["ops"].model_dump()["token"].get_secret_value() == "xoxb-1"
        assert "xoxb-1" not in repr(settings)


def test_an_unreadable_secret_file_is_one_of_the_mistakes(tmp_path: Path):
    table = {"kind": "slack", "channel": "C1", "token_file": str(tmp_path / "none")}
    assert "can't be read" in problems({"alert": {"ops": table}})["alert.ops.token_file"]


def test_an_unreadable_or_broken_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "broken.toml").write_text("[service\n")
    with pytest.raises(ConfigError, match="is no TOML"):
        load(tmp_path / "broken.toml", {})


def test_the_file_is_found_by_option_then_environment(tmp_path: Path):
    assert find(tmp_path / "a", {"MAILVANE_CONFIG": "b"}) == tmp_path / "a"
    assert find(None, {"MAILVANE_CONFIG": "b"}) == Path("b")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1.5h", timedelta(minutes=90)),
        ("7d", timedelta(7)),
    ],
)
def test_durations_are_a_number_and_a_unit(text: str, span: timedelta):
    assert duration(text) == span


@pytest.mark.parametrize("text", ["", "15", "m", "-5m", "1y", "99999999999s"])
def test_other_texts_are_no_durations(text: str):
    class Sample(Plugin):
        span: Duration

    with pytest.raises(ValidationError, match="is no duration"):
        Sample.model_validate({"span": text})


def test_settings_are_a_value():
    assert load(None, {}) == Settings(source=load(None, {}).source, rules=load(None, {}).rules)


def test_the_choice_of_keys_names_a_secret_by_its_file():
    told = problems({"service": {"foo": 1, "facts_pasword_file": "x"}})
    assert "facts_password_file" in told["service.foo"]
    assert "facts_password," not in told["service.foo"]
    assert "did you mean facts_password_file?" in told["service.facts_pasword_file"]


def test_an_address_in_parts_is_told_how_it_is_written():
    collector = {"kind": "syslog", "listen": ["127.0.0.1:6514"]}
    (told,) = problems({"collector": {"postfix": collector}}).values()
    assert "collector.postfix.listen: " in told
    assert 'such as "127.0.0.1:6514"' in told
