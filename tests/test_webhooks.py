"""What changes is pushed: signed so that a receiver can tell, in order, at least once, and with no address in it."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from monitor.config import ConfigError, parse
from monitor.core.suppressing import Reason
from monitor.ledger import suppressions, webhooks
from monitor.ledger.db import open_ledger
from monitor.ledger.suppressions import Entry
from monitor.settings import Webhook
from monitor.webhooks import BATCH, Pusher
from tests.servers.receiver import Receiver

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four b").decode()
OTHER = "whsec_" + base64.b64encode(b"another one, of its own kind").decode()
SECOND = timedelta(seconds=1)


class Clock:
    """The time of day, moved on by hand: receivers refuse what is older than five minutes."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Engine]:
    engine = open_ledger(tmp_path / "ledger.sqlite")
    yield engine
    engine.dispose()


@pytest.fixture
def crm() -> Iterator[Receiver]:
    with Receiver(SECRET) as opened:
        yield opened


def pusher(ledger: Engine, url: str, secret: str = SECRET) -> Pusher:
    return Pusher("crm", Webhook(url=url, secret=SecretStr(secret)), ledger)


def change(ledger: Engine, count: int = 1) -> int:
    """So many changes more; the number of the last."""
    now = datetime.now(UTC)
    with ledger.begin() as conn:
        first = suppressions.head(conn)
        for number in range(first, first + count):
            person = number.to_bytes(16)
            entry = Entry(person, Reason.COMPLAINT, "s1", "marketing", now, None, now, "complaint")
            suppressions.write(conn, entry, now)
        return suppressions.head(conn)


def stand(ledger: Engine) -> webhooks.Stand:
    with ledger.connect() as conn:
        found = webhooks.stand(conn, "crm")
    assert found
    return found


def test_changes_are_pushed_signed_in_order_and_each_once(ledger: Engine, crm: Receiver):
    push, clock = pusher(ledger, crm.url), Clock()
    change(ledger, 3)
    assert push.run(clock) == ""
    assert crm.asked == []  # what was before it came is in the feed
    last = change(ledger, BATCH + 7)
    assert push.run(clock) == ""
    assert push.run(clock) == ""
    assert crm.refused == []
    assert crm.seqs() == list(range(4, last + 1))
    first, second = crm.taken
    assert first["type"] == "suppression.changed"
    assert (first["data"]["after"], first["data"]["first"], first["data"]["last"]) == (3, 4, 3 + BATCH)
    assert second["data"]["after"] == first["data"]["last"]
    told = first["data"]["changes"][0]
    assert told["pseudonym"] == (3).to_bytes(16).hex()
    assert (told["change"], told["reason"]) == ("added", "complaint")
    assert told["scope"] == {"tenant": "s1", "stream": "marketing"}
    assert push.behind() == 0


def test_what_was_not_taken_is_sent_again_with_the_same_id_and_body_and_nothing_overtakes_it(
    ledger: Engine, crm: Receiver
):
    push, clock = pusher(ledger, crm.url), Clock()
    push.run(clock)
    change(ledger, 2)
    crm.says = [500, 503, 302, 204]
    for tries, wait in enumerate((5, 10, 20), 1):
        assert "it answered" in push.run(clock)
        change(ledger)
        assert "it answered" in push.run(clock)  # nothing is sent before its time
        assert len(crm.asked) == tries
        clock.ahead += timedelta(seconds=wait + 1)
    assert push.behind() == 5
    assert push.run(clock) == ""
    assert len(set(crm.asked[:4])) == 1
    assert crm.seqs() == [1, 2, 3, 4, 5]
    assert push.behind() == 0


def test_what_was_taken_while_we_died_comes_again_under_the_same_id(
    ledger: Engine, crm: Receiver, monkeypatch: pytest.MonkeyPatch
):
    push, clock = pusher(ledger, crm.url), Clock()
    push.run(clock)
    change(ledger, 2)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(webhooks, "delivered", dies)
        with pytest.raises(KeyboardInterrupt):
            push.run(clock)
    change(ledger)
    assert pusher(ledger, crm.url).run(clock) == ""
    assert crm.asked[0][0] == crm.asked[1][0]
    assert crm.seqs() == [1, 2, 3]


def test_a_receiver_refuses_another_secret_a_changed_body_and_an_old_time(ledger: Engine, crm: Receiver):
    clock = Clock()
    wrong = pusher(ledger, crm.url, OTHER)
    wrong.run(clock)
    change(ledger)
    assert "it answered 401" in wrong.run(clock)
    assert crm.refused == ["No matching signature found"]
    clock.ahead = timedelta(minutes=-6)  # a sender whose clock is slow
    with ledger.begin() as conn:
        webhooks.begin(conn, "crm", 0, clock())
    assert "it answered 401" in pusher(ledger, crm.url).run(clock)
    assert crm.refused[-1] == "Message timestamp too old"
    clock.ahead = timedelta()
    with ledger.begin() as conn:
        webhooks.begin(conn, "crm", 0, clock())
    assert pusher(ledger, crm.url).run(clock) == ""
    (_, body), headers = crm.asked[-1], crm.headers[-1]
    Verifier(SECRET).verify(body, headers)
    for changed in (body.replace(b"added", b"ended"), body + b" "):
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(changed, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body, {**headers, "webhook-id": "suppression_0"})


def test_while_a_secret_is_changed_both_verify(ledger: Engine, crm: Receiver):
    push, clock = pusher(ledger, crm.url, f"{OTHER} {SECRET}"), Clock()
    push.run(clock)
    change(ledger)
    assert push.run(clock) == ""
    (_, body), headers = crm.asked[-1], crm.headers[-1]
    Verifier(OTHER).verify(body, headers)
    assert crm.seqs() == [1]


def test_a_receiver_that_is_gone_is_asked_no_more_until_somebody_has_it_begin_again(ledger: Engine, crm: Receiver):
    push, clock = pusher(ledger, crm.url), Clock()
    push.run(clock)
    change(ledger)
    crm.says = [410, 204]
    assert "410" in push.run(clock)
    change(ledger)
    clock.ahead = timedelta(days=1)
    assert "410" in push.run(clock)
    assert len(crm.asked) == 1
    assert stand(ledger).disabled
    clock.ahead = timedelta()
    with ledger.begin() as conn:
        webhooks.begin(conn, "crm", 0, clock())
    assert push.run(clock) == ""
    assert crm.seqs() == [1, 2]
    assert crm.asked[0][0] != crm.asked[1][0]


def test_a_receiver_that_wants_to_be_left_alone_is(ledger: Engine, crm: Receiver):
    push, clock = pusher(ledger, crm.url), Clock()
    push.run(clock)
    change(ledger)
    crm.says, crm.more = [429, 204], {"Retry-After": "120"}
    push.run(clock)
    clock.ahead = timedelta(seconds=100)
    assert push.run(clock)
    assert len(crm.asked) == 1
    clock.ahead = timedelta(seconds=125)
    assert push.run(clock) == ""
    assert crm.seqs() == [1]


def test_an_error_names_the_host_and_neither_secret_nor_path(ledger: Engine, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    push, clock = pusher(ledger, "https://10.0.0.7/hooks/keyed-path?key=hidden"), Clock()
    push.run(clock)
    change(ledger)
    error = push.run(clock)
    assert "10.0.0.7 is no public address: if it is yours, add it to allow in [outgoing]" in error
    told = error + caplog.text + repr(push) + str(stand(ledger)) + repr(push._settings)
    for hidden in ("keyed-path", SECRET, SECRET.removeprefix("whsec_")):
        assert hidden not in told
    assert "tried again" in error


def test_the_wait_between_two_tries_has_a_bound(ledger: Engine, crm: Receiver):
    push, clock = pusher(ledger, crm.url), Clock()
    push.run(clock)
    change(ledger)
    crm.says = [500]
    for _ in range(14):
        push.run(clock)
        clock.ahead = stand(ledger).not_before - datetime.now(UTC) + SECOND
    assert len(crm.asked) == 14
    push.run(clock)
    assert stand(ledger).not_before - clock() <= timedelta(hours=1)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ({"url": "https://crm.example/hooks"}, "webhook.crm.secret: is missing"),
        ({"url": "ftp://crm.example/"}, "webhook.crm.url: the URL is neither http nor https"),
        ({"url": "https://crm.example/", "secret": SECRET}, "webhook.crm.secret: a secret must not stand in this file"),
        ({"url": "https://crm.example/", "events": ["lease.granted"]}, "webhook.crm.events"),
        ({"url": "https://crm.example/", "secret_file": "{weak}"}, "no secret of a webhook: make one with"),
        ({"url": "https://crm.example/", "secret_file": "{empty}"}, "an empty secret"),
    ],
    ids=["no secret", "no url", "secret in the file", "unknown event", "weak secret", "empty secret"],
)
def test_a_mistake_in_a_webhooks_section_is_told_with_its_path(table: dict[str, Any], wrong: str, tmp_path: Path):
    (tmp_path / "weak").write_text("whsec_c2hvcnQ=\n")
    (tmp_path / "empty").write_text("\n")
    named = json.loads(
        json.dumps(table).replace("{weak}", str(tmp_path / "weak")).replace("{empty}", str(tmp_path / "empty"))
    )
    with pytest.raises(ConfigError) as caught:
        parse({"webhook": {"crm": named}}, "test", {})
    assert wrong in str(caught.value)
    assert "c2hvcnQ" not in str(caught.value)


def test_a_webhook_is_read_with_its_secret_from_a_file_or_the_environment(tmp_path: Path):
    (tmp_path / "secret").write_text(f"{SECRET}\n{OTHER}\n")
    tables = {"webhook": {"crm": {"url": "https://crm.example/hooks", "secret_file": str(tmp_path / "secret")}}}
    assert len(parse(tables, "test", {}).webhooks["crm"].secret.get_secret_value().split()) == 2
    plain = {"webhook": {"crm-2": {"url": "https://crm.example/hooks"}}}
    assert parse(plain, "test", {"MAILVANE_WEBHOOK_CRM_2_SECRET": SECRET}).webhooks["crm-2"].secret
