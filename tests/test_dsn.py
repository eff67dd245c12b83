"""Where the facts stand, as text: read and written alike, and never with a password."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from monitor.cli import cli
from monitor.config import ConfigError
from monitor.config import parse as settings
from monitor.dsn import Embedded, Server, parse


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("chdb:///var/lib/mailvane/facts", Embedded("/var/lib/mailvane/facts")),
        ("chdb:///a%20b", Embedded("/a b")),
        ("clickhouse://facts.example", Server("facts.example", 8123)),
        ("clickhouse://facts.example?secure=1", Server("facts.example", 8443, secure=True)),
        (
            "clickhouse://mail@facts.example:9000/mail?cluster=prod&secure=yes&ca=/etc/ca.pem",
            Server("facts.example", 9000, "mail", "mail", secure=True, cluster="prod", ca="/etc/ca.pem"),
        ),
        ("clickhouse://u%40x@[2001:db8::1]:8123/m", Server("2001:db8::1", 8123, "u@x", "m")),
    ],
)
def test_a_dsn_names_a_place_and_is_written_as_it_is_read(text: str, place: Embedded | Server) -> None:
    assert parse(text) == place
    assert parse(str(place)) == place


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://facts.example", "no DSN of facts"),
        ("/var/lib/facts", "no DSN of facts"),
        ("clickhouse:///mail", "no DSN of facts"),
        ("chdb://relative", "chdb:///path"),
        ("chdb:///path?readonly=1", "chdb:///path"),
        ("clickhouse://h:99999/x", "can't be read"),
        ("clickhouse://h/x?secure=perhaps", "secure in the DSN is 0 or 1"),
        ("clickhouse://h/x?pool=9", "no option 'pool'"),
        ("clickhouse://h/x;y", "no name of a database"),
        ("clickhouse://h/x?cluster=a'b", "no name of a cluster"),
    ],
)
def test_what_is_no_dsn_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


@pytest.mark.parametrize(
    "text", ["clickhouse://mail:geheim@h/x", "clickhouse://mail:geheim@h:port/x", "chdb://u:geheim@h/x"]
)
def test_a_password_in_a_dsn_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(text)
    assert "geheim" not in str(refused.value)
    with pytest.raises(ConfigError) as reported:
        settings({"service": {"facts": text}}, "test", {})
    assert "service.facts" in str(reported.value)
    assert "geheim" not in str(reported.value)


def test_the_password_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")
    service = {"facts": "clickhouse://h/x"}
    told = settings({"service": {**service, "facts_password_file": str(file)}}, "test", {})
    assert told.service.facts_password.get_secret_value() == "geheim"
    told = settings({"service": service}, "test", {"MAILVANE_SERVICE_FACTS_PASSWORD": "anders"})
    assert told.service.facts_password.get_secret_value() == "anders"
    assert "anders" not in repr(told)
    assert told.service.facts == "clickhouse://default@h:8123/x"
    with pytest.raises(ConfigError, match="must not stand in this file"):
        settings({"service": {**service, "facts_password": "geheim"}}, "test", {})


def test_check_says_where_the_facts_are_and_no_password(tmp_path: Path) -> None:
    config = tmp_path / "mailvane.toml"
    config.write_text('[service]\nfacts = "clickhouse://mail@h/x?cluster=prod"\n')
    told = CliRunner().invoke(
        cli, ["--config", str(config), "check"], env={"MAILVANE_SERVICE_FACTS_PASSWORD": "geheim"}
    )
    assert "  facts in clickhouse://mail@h:8123/x?cluster=prod\n" in told.output
    assert "geheim" not in told.output
