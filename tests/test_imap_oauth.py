"""Logging in with tokens: a real Dovecot believes those of a provider, and refuses those that hold no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from collectors import _oauth
from monitor.ports import PluginError
from tests.servers.dovecot import USER, Dovecot, dovecot
from tests.servers.letterbox import Counting, Service
from tests.servers.tokens import Tokens

REFRESH = "a refresh token"
LETTER = b"Subject: hello\r\n\r\na letter\r\n"


@pytest.fixture(scope="module")
def house() -> Iterator[tuple[Tokens, Dovecot]]:
    with Tokens(USER, REFRESH) as provider, dovecot(introspection=provider.introspection) as server:
        yield provider, server


@pytest.fixture
def provider() -> Iterator[Tokens]:
    with Tokens(USER, REFRESH) as made:
        yield made


def tokens(provider: Tokens, **more: object) -> _oauth.Tokens:
    return _oauth.Tokens(provider.url, "an application", SecretStr("its secret"), SecretStr(REFRESH), **more)


def test_a_mailbox_is_read_by_token_and_a_withdrawn_one_is_replaced(house):
    provider, server = house
    told = {"token_url": provider.url, "client_id": "app", "client_secret": "secret", "refresh_token": REFRESH}
    service = Service(Counting(**server.settings(**told)))
    server.fill([LETTER])
    service.emptied()
    assert service.letters == [LETTER]
    provider.withdraw()
    server.kick()
    server.fill([LETTER])
    service.emptied()
    assert service.letters == [LETTER, LETTER]
    assert len(provider.given) == 2
    assert not any("refuses" in error for error in service.errors)
    service.source.close()


def test_a_token_that_was_given_just_now_and_is_refused_is_told(house):
    provider, server = house
    told = {"token_url": provider.url, "client_id": "app", "refresh_token": REFRESH, "user": "else@shop.example"}
    service = Service(Counting(**server.settings(**told)))
    asked = len(provider.asked)
    with pytest.raises(PluginError, match="refuses the login") as caught:
        service.read()
    assert "else@" not in str(caught.value)
    assert len(provider.asked) == asked + 1
    service.source.close()


def test_a_token_is_used_until_shortly_before_its_end(provider):
    mine = tokens(provider)
    assert mine.token() == mine.token() == provider.given[0]
    assert provider.asked == [
        {"grant_type": "refresh_token", "client_id": "an application", "client_secret": "its secret", "refresh_token": REFRESH}
    ]  # fmt: skip
    provider.life = 30.0
    other = tokens(provider)
    assert other.token() != other.token()


def test_a_replaced_refresh_token_is_kept_for_its_owner_alone(provider, tmp_path: Path):
    kept = tmp_path / "kept"
    provider.rotates = True
    mine = tokens(provider, kept=kept)
    mine.token()
    mine.forget()
    mine.token()
    assert provider.refresh not in (REFRESH, provider.asked[1]["refresh_token"])
    assert json.loads(kept.read_text())["token"] == provider.refresh
    assert kept.stat().st_mode & 0o777 == 0o600
    tokens(provider, kept=kept).token()  # as after a restart
    assert len(provider.given) == 3
    # A token that was configured anew counts, and not what came from the one before.
    provider.refresh = "another one"
    fresh = _oauth.Tokens(provider.url, "an application", None, SecretStr("another one"), kept=kept)
    assert fresh.token() == provider.given[3]


def test_a_replaced_refresh_token_without_a_place_is_used_and_the_log_warns(provider, caplog):
    provider.rotates = True
    mine = tokens(provider)
    mine.token()
    mine.forget()
    mine.token()
    assert "rotated_file names no place" in caplog.text
    assert provider.refresh not in caplog.text


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ((400, {"error": "invalid_grant"}), "put the new token into refresh_token_file"),
        ((401, {"error": "invalid_client"}), "client_id or client_secret is wrong"),
        ((400, {"error": "made up", "error_description": REFRESH}), "answers 400"),
        ((503, b"<html>"), "answers 503"),
        ((200, b"<html>"), "answers without a token"),
        ((200, {"token_type": "Bearer"}), "answers without a token"),
        ((200, {"access_token": "two\nlines"}), "no token that can be sent"),
        ((200, {"access_token": ["x"]}), "answers without a token"),
        ((200, b"[" * 100_000), "answers without a token"),
    ],
    ids=["grant", "client", "unknown", "down", "page", "none", "lines", "list", "deep"],
)
def test_an_answer_without_a_token_is_told_with_a_remedy_and_without_secrets(provider, said, told):
    provider.said = said
    with pytest.raises(PluginError) as caught:
        tokens(provider).token()
    assert told in str(caught.value)
    assert REFRESH not in str(caught.value)
    assert "its secret" not in str(caught.value)


def test_a_provider_that_is_not_there_is_told():
    with pytest.raises(PluginError, match=r"no token for the mail server: 127\.0\.0\.1 can't be reached"):
        _oauth.Tokens("http://127.0.0.1:1/token", "a", None, SecretStr(REFRESH)).token()
