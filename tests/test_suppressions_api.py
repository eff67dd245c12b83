"""Suppressions as people, senders and sellers meet them: the API, the command, and the service as it runs."""

from __future__ import annotations

import csv
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from standardwebhooks.webhooks import Webhook as Verifier

from monitor.cli import cli
from monitor.config import ConfigError, parse
from monitor.ledger import access_log
from monitor.model import Batch
from tests.servers.mailvane import GRANTED, mailvane
from tests.servers.receiver import Receiver
from tests.servers.sellers import NOW, Market, house
from tests.test_webhooks import SECRET
from tests.waiting import until

MESSAGE = count(1)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
GONE = {"kind": "bounced", "code": 550, "dsn": "5.1.1", "reply": "550 5.1.1 user unknown"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    folder = tmp_path_factory.mktemp("suppressions")
    (folder / "secret").write_text(SECRET)
    with house(
        folder, f'[webhook.crm]\nurl = "https://crm.example/hooks"\nsecret_file = "{folder / "secret"}"\n'
    ) as market:
        yield market


@pytest.fixture
def market(opened: Market) -> Market:
    """Nobody is suppressed, and nothing speaks against anybody."""
    with opened.core.stores.ledger.begin() as conn:
        for table in (
            "suppressions",
            "suppression_log",
            "suppression_sellers",
            "suppression_evidence",
            "provider_outages",
        ):
            conn.exec_driver_sql(f"DELETE FROM {table}")
    return opened


def tell(market: Market, *events: dict[str, Any]) -> None:
    """By the real road, half an hour ago where nothing else is said; bounces are judged as if their hold were over."""
    usual = {"at": NOW - 90 * MINUTE, "provider": "gmail", "stream": "marketing"}
    full = [
        {"message_id": f"<{next(MESSAGE)}@shop.example>", **usual, **event, "at": event.get("at", usual["at"])}
        for event in events
    ]
    columns = {
        name: [
            int(value.timestamp() * 1e6) if isinstance(value := event.get(name, ""), datetime) else value
            for event in full
        ]
        for name in {name for event in full for name in event} - {"code"}
    }
    columns["code"] = [event.get("code", 0) for event in full]
    assert market.core.take("mta", Batch(columns)) == []
    market.core.stores.applier.drain()
    market.core.lists.hygiene.run(NOW)
    market.core.lists.hygiene.run(NOW + 61 * MINUTE)


def some(market: Market) -> None:
    """Ann is no more; Bob complained about alpha; and Cec is no more, as bravo's mail found."""
    tell(
        market,
        *({"kind": "sent", "recipient": f"r{number}@example.com", "tenant": "alpha"} for number in range(20)),
        {**GONE, "recipient": "ann@example.com", "tenant": "alpha"},
        {"kind": "complaint", "recipient": "bob@example.com", "tenant": "alpha"},
        {**GONE, "recipient": "cec@example.com", "tenant": "bravo"},
    )


def check(market: Market, who: str, *addresses: str, **mail: str) -> list[dict[str, Any]]:
    answer = market.ask(who, "POST", "/v1/suppressions/check", {"addresses": list(addresses), **mail})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def test_addresses_are_checked_place_by_place_and_none_is_told_again(market: Market):
    some(market)
    asked = ["dan@example.com", "ANN@Example.com", "nobody", "bob@example.com", "<bob@example.com>"]
    body = {"addresses": asked, "tenant": "alpha", "stream": "marketing"}
    answer = market.ask("", "POST", "/v1/suppressions/check", body)
    told = answer.json()["results"]
    assert [one.get("suppressed") for one in told] == [False, True, None, True, True]
    assert "no address" in told[2]["error"]
    assert told[1] == {
        "suppressed": True,
        "reason": "hard_bounce",
        "since": "2026-11-24T11:00:00.000Z",
        "until": "2027-05-23T11:00:00.000Z",
        "scope": {},
        "pseudonym": market.core.stores.keyring.pseudonym("ann@example.com").hex(),
        "others": [],
    }
    assert told[3]["reason"] == "complaint"
    assert told[3]["scope"] == {"tenant": "alpha", "stream": "marketing"}
    assert told[3]["until"] is None
    assert not any(name in answer.text.lower() for name in ("ann@", "bob@", "dan@", "nobody"))


def test_receipts_reach_whoever_complained(market: Market):
    some(market)
    for stream in ("transactional", ""):
        (bob, ann) = check(market, "", "bob@example.com", "ann@example.com", tenant="alpha", stream=stream)
        assert not bob["suppressed"]
        assert bob["others"] == [{"reason": "complaint", "scope": {"tenant": "alpha", "stream": "marketing"}}]
        assert ann["suppressed"]


def test_a_question_that_makes_no_sense_is_refused_without_repeating_an_address(market: Market):
    for body, status in (
        ({"addresses": []}, 422),
        ({"addresses": ["a@example.com"] * 1001}, 422),
        ({"addresses": ["a@example.com"], "list": "x"}, 422),
        ({"addresses": "secret.person@example.com"}, 422),
        (b"[1,", 422),
        (b" " * ((1 << 20) + 1), 413),
    ):
        answer = market.ask("", "POST", "/v1/suppressions/check", body)
        assert answer.status_code == status, answer.text
        assert "secret.person" not in answer.text
        assert answer.json()["remedy"]


def test_the_feed_is_read_in_pages_and_twice_the_same(market: Market):
    some(market)
    whole = market.ask("", "GET", "/v1/suppressions").json()
    assert [one["change"] for one in whole["changes"]] == ["added"] * 3
    assert (whole["more"], whole["next"]) == (False, whole["changes"][-1]["seq"])
    pages, since = [], 0
    while True:
        page = market.ask("", "GET", "/v1/suppressions", since=since, limit=2)
        assert page.text == market.ask("", "GET", "/v1/suppressions", since=since, limit=2).text
        pages += page.json()["changes"]
        since = page.json()["next"]
        if not page.json()["more"]:
            break
    assert pages == whole["changes"]
    assert market.ask("", "GET", "/v1/suppressions", since=since).json() == {
        "changes": [],
        "next": since,
        "more": False,
    }


def test_a_seller_is_told_of_what_its_own_mail_brought(market: Market):
    some(market)
    told = market.ask("alpha", "GET", "/v1/suppressions").json()["changes"]
    assert {one["reason"] for one in told} == {"hard_bounce", "complaint"}
    assert len(told) == 2
    ann, bob, cec = check(market, "alpha", "ann@example.com", "bob@example.com", "cec@example.com", stream="marketing")
    assert (ann["suppressed"], bob["suppressed"], cec["suppressed"]) == (True, True, False)
    assert not check(market, "bravo", "bob@example.com", stream="marketing")[0]["suppressed"]
    refused = market.ask("alpha", "POST", "/v1/suppressions/check", {"addresses": ["a@example.com"], "tenant": "bravo"})
    assert refused.status_code == 403
    for method, path in (("POST", ""), ("POST", "/release"), ("GET", "/outages"), ("DELETE", "/" + "0" * 32)):
        assert market.ask("alpha", method, f"/v1/suppressions{path}", {}).status_code == 403


def test_a_person_adds_and_releases_and_the_access_log_says_who_without_an_address(market: Market):
    some(market)
    wish = {"addresses": ["dan@example.com"], "tenant": "alpha", "why": "asked by phone", "for": "7d", "who": "marta"}
    added = market.ask("", "POST", "/v1/suppressions", wish)
    assert added.status_code == 201, added.text
    (one,) = added.json()["changes"]
    assert (one["change"], one["reason"], one["until"]) == ("added", "manual", "2026-12-01T12:30:00.000Z")
    assert "marta" in one["who"]
    assert market.ask("", "POST", "/v1/suppressions", wish).json()["changes"] == []
    seen = [
        one for one in market.ask("alpha", "GET", "/v1/suppressions").json()["changes"] if one["reason"] == "manual"
    ]
    assert [(one["who"], one["why"]) for one in seen] == [("a person", "a person of the marketplace decided this")]
    gone = {"addresses": ["ann@example.com"], "pseudonyms": [one["pseudonym"]], "why": "she called"}
    released = market.ask("", "POST", "/v1/suppressions/release", gone).json()["changes"]
    assert {(one["change"], one["reason"]) for one in released} == {("released", "hard_bounce"), ("released", "manual")}
    assert not check(market, "", "ann@example.com")[0]["suppressed"]
    market.core.notes.flush()
    with market.core.stores.ledger.connect() as conn:
        noted = [
            entry for entry in access_log.newest(conn, 100) if "suppressions" in entry.did and entry.result < "300"
        ]
    assert {"POST /v1/suppressions", "POST /v1/suppressions/release"} <= {entry.did for entry in noted}
    person = market.core.stores.keyring.pseudonym("dan@example.com").hex()
    assert any(person[:12] in entry.on for entry in noted)
    assert "example.com" not in "".join(f"{entry.on}{entry.details}" for entry in noted)


def test_nothing_is_changed_where_one_of_many_is_no_address(market: Market):
    wish = {"addresses": ["dan@example.com", "Dan <dan@example.com>"], "why": "x"}
    answer = market.ask("", "POST", "/v1/suppressions", wish)
    assert answer.status_code == 422
    assert "addresses.1" in answer.json()["error"]
    assert "dan" not in answer.text
    assert market.ask("", "GET", "/v1/suppressions").json()["changes"] == []
    for bad in ({"addresses": ["dan@example.com"], "why": " "}, {"why": "nobody named", "addresses": []}):
        assert market.ask("", "POST", "/v1/suppressions", bad).status_code == 422
    ended = {"addresses": ["dan@example.com"], "why": "x", "until": "2026-11-24T12:00:00Z"}
    assert "the end has come" in market.ask("", "POST", "/v1/suppressions", ended).json()["error"]
    assert market.ask("", "POST", "/v1/suppressions/release", {"pseudonyms": ["x"], "why": "x"}).status_code == 422


def test_who_is_forgotten_is_in_the_feed_no_more(market: Market):
    some(market)
    person = market.core.stores.keyring.pseudonym("ann@example.com").hex()
    assert market.ask("", "DELETE", f"/v1/suppressions/{person}").json() == {"removed": 3}
    assert person not in market.ask("", "GET", "/v1/suppressions").text
    assert market.ask("", "DELETE", "/v1/suppressions/ann@example.com").status_code == 422


def test_an_outage_is_told_of_listed_and_dismissed(market: Market):
    some(market)
    wish = {"provider": "gmail", "from": "2026-11-24T10:55:00Z", "to": "2026-11-24T11:30:00Z", "why": "status page"}
    told = market.ask("", "POST", "/v1/suppressions/outages", wish).json()
    assert told["released"] == 2
    assert not check(market, "", "ann@example.com")[0]["suppressed"]
    (listed,) = market.ask("", "GET", "/v1/suppressions/outages").json()["outages"]
    assert listed == told["outage"]
    dismissed = market.ask("", "DELETE", f"/v1/suppressions/outages/{listed['id']}").json()["outage"]
    assert dismissed["dismissed_by"]
    market.core.lists.hygiene.run(NOW + 2 * HOUR)
    assert check(market, "", "ann@example.com")[0]["suppressed"]
    assert market.ask("", "DELETE", "/v1/suppressions/outages/999").status_code == 404
    assert market.ask("", "POST", "/v1/suppressions/outages", {**wish, "to": wish["from"]}).status_code == 422


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ({"soft_bounces": -1}, "suppression.soft_bounces"),
        ({"soft_days": 31}, "suppression.soft_days"),
        ({"hold": "2d"}, "suppression.hold"),
        ({"hard": "180d"}, "suppression.hard: unknown key"),
    ],
    ids=["fewer than none", "longer than events are kept", "too long a hold", "unknown"],
)
def test_a_mistake_in_the_section_is_told_with_its_path(table: dict[str, Any], wrong: str):
    with pytest.raises(ConfigError) as caught:
        parse({"suppression": table}, "test", {})
    assert wrong in str(caught.value)


def test_what_is_configured_is_what_holds():
    told = {"soft_bounces": 3, "soft_days": 7, "hard_keep": 0, "soft_keep": "10d", "hold": "15m"}
    policy = parse({"suppression": told, "protected": {"stream": ["receipts"]}}, "test", {}).hygiene
    assert (policy.soft_bounces, policy.soft_within, policy.hard_keep) == (3, timedelta(days=7), timedelta(0))
    assert (policy.hold, policy.protected) == (15 * MINUTE, frozenset({"receipts"}))


# the command


@pytest.fixture
def data(market: Market) -> Path:
    """The configuration of a service on whose ledger the command works beside it."""
    some(market)
    return Path(market.core.settings.source)


def run(config: Path, *words: str, given: str | None = None, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["--config", str(config), "suppressions", *words], input=given)
    assert done.exit_code == code, done.output
    return done


def test_the_command_lists_checks_adds_and_removes(data: Path):
    listed = run(data, "list").stdout
    assert len(listed.splitlines()) == 3
    assert "complaint for tenant=alpha stream=marketing since 2026-11-24, for good" in listed
    checked = run(data, "check", "ann@example.com", "eve@example.com", code=1)
    assert "ann@example.com: hard_bounce for all mail" in checked.stdout
    assert "eve@example.com: not suppressed" in checked.stdout
    run(data, "check", "eve@example.com")
    one = json.loads(run(data, "check", "--json", "-", given="ann@example.com\n", code=1).stdout)
    assert (one["suppressed"], one["reason"]) == (True, "hard_bounce")
    added = run(data, "add", "eve@example.com", "--why", "asked", "--for", "7d", "--as", "marta").stdout
    assert "added: " in added
    assert "by marta: asked" in added
    removed = run(data, "remove", "--file", "-", "--why", "wants it again", given="eve@example.com\n").stdout
    assert "released: " in removed
    assert "nothing had to be changed" in run(data, "remove", "eve@example.com", "--why", "x").stdout
    assert "manual" not in run(data, "list").stdout
    assert "is no address" in run(data, "add", "eve", "--why", "x", code=1).output
    assert "no address: name some" in run(data, "add", "--why", "x", code=2).output


def test_the_command_exports_for_a_spreadsheet_and_as_json(data: Path, tmp_path: Path):
    rows = list(csv.DictReader(io.StringIO(run(data, "export").stdout)))
    assert {row["reason"] for row in rows} == {"hard_bounce", "complaint"}
    assert all(len(row["pseudonym"]) == 32 for row in rows)
    file = tmp_path / "all.json"
    assert (
        "go on with GET /v1/suppressions?since="
        in run(data, "export", "--format", "json", "--output", str(file)).stderr
    )
    assert [json.loads(line)["pseudonym"] for line in file.read_text().splitlines()] == [
        row["pseudonym"] for row in rows
    ]


def test_the_command_forgets_by_pseudonym(data: Path):
    run(data, "add", "gus@example.com", "--why", "x")
    (one,) = [line for line in run(data, "list", "--reason", "manual").stdout.splitlines() if "manual" in line]
    assert "2 rows are gone" in run(data, "forget", one.split()[0]).stdout
    assert "no pseudonym" in run(data, "forget", "gus@example.com", code=1).output


def test_the_command_tells_of_outages_and_dismisses_them(data: Path):
    assert "no provider had an outage" in run(data, "outages").stdout
    when = ("--from", "2026-11-01T10:00:00Z", "--to", "2026-11-01T11:00:00Z")
    told = run(data, "outage", "yahoo", *when, "--why", "status page", "--as", "marta").stdout
    assert "yahoo  2026-11-01 10:00 to 11:00 UTC, by marta: status page" in told
    number = told.split()[0]
    assert "dismissed by ole" in run(data, "dismiss", number, "--as", "ole").stdout
    assert "there is no outage" in run(data, "dismiss", "99", code=1).output


def test_a_file_as_a_spreadsheet_writes_it_suppresses_its_first_address_too(data: Path, tmp_path: Path):
    file = tmp_path / "list.txt"
    file.write_text("first@example.com\nsecond@example.com\n", "utf-8-sig")
    run(data, "add", "--file", str(file), "--why", "asked")
    run(data, "check", "first@example.com", code=1)
    run(data, "add", "-", "--why", "asked", given="\ufeffthird@example.com\n")
    run(data, "check", "third@example.com", code=1)


@pytest.mark.parametrize(
    "address",
    ["ann\u200b@example.com", "ann\x1b@example.com", "ann@", "@example.com"],
    ids=["unseen", "control", "no host", "no name"],
)
def test_what_nobody_could_see_in_an_address_or_miss_is_told(data: Path, address: str):
    assert "is no address" in run(data, "add", address, "--why", "x", code=1).output
    assert "no address" in run(data, "check", address, code=1).output


def test_a_file_of_another_encoding_is_refused_in_words(data: Path, tmp_path: Path):
    file = tmp_path / "list.txt"
    file.write_bytes("ann@example.com\nm\xfcller@example.com\n".encode("latin-1"))
    for words in (["add", "--why", "x"], ["check"]):
        assert "is not UTF-8" in run(data, *words, "--file", str(file), code=1).output


def test_a_number_that_no_outage_can_have_is_refused_in_words(data: Path):
    assert "is not in the range" in run(data, "dismiss", "9" * 30, code=2).output


def test_what_somebody_wrote_as_a_reason_makes_no_line_of_its_own(data: Path):
    run(data, "add", "hal@example.com", "--why", "asked\nnobody is suppressed\x1b[2J")
    assert len(run(data, "list", "--reason", "manual").stdout.splitlines()) == 1


def test_the_command_has_a_webhook_begin_again(data: Path):
    assert "crm is told what follows change 0 of" in run(data, "push", "crm", "--from", "0").stdout
    assert "there is no [webhook.other]: there are crm" in run(data, "push", "other", code=1).output


# the service as it runs


def post(url: str, body: Any) -> int:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_complaint_is_in_the_feed_and_at_the_crm_at_once_and_after_a_kill_it_is_the_same(tmp_path: Path):
    (tmp_path / "secret").write_text(SECRET)
    with Receiver(SECRET) as crm:
        tables = f'{GRANTED}\n[webhook.crm]\nurl = "{crm.url}"\nsecret_file = "{tmp_path / "secret"}"\n'
        with mailvane(tmp_path, tables) as service:
            service.command("suppressions", "push", "crm")
            at = datetime.now(UTC).isoformat()
            events = [
                {"kind": "complaint", "at": at, "message_id": f"<{one}@s.example>", "recipient": f"{one}@example.com",
                 "tenant": "alpha", "stream": "marketing", "provider": "yahoo"}
                for one in range(3)
            ]  # fmt: skip
            assert post(f"{service.url}/v1/events", events) == 202
            until(lambda: len(service.get("/v1/suppressions")["changes"]) == 3, "three suppressions", 20)
            until(lambda: crm.seqs() == [1, 2, 3], "the CRM to be told", 20)
            before = service.get("/v1/suppressions")
            service.kill_core()
            until(lambda: "core" in service.pids(), "another core", 20)
            service.wait()
            assert service.get("/v1/suppressions") == before
            assert post(f"{service.url}/v1/events", events) == 202
            assert "nothing changes" in service.command("suppressions", "rebuild")
            assert service.get("/v1/suppressions") == before
            crm.says = [500]
            events[0] |= {"message_id": "<4@s.example>", "recipient": "4@example.com"}
            assert post(f"{service.url}/v1/events", events[:1]) == 202
            until(
                lambda: unready(service.url).get("webhook.crm", "").startswith("it answered 500"), "trouble shown", 20
            )
            assert "example.com" not in service.log.read_text() + str(crm.asked)
        Verifier(SECRET).verify(crm.asked[0][1], crm.headers[0])


def unready(url: str) -> dict[str, str]:
    """What does not work, as /readyz tells it."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=20) as answer:
            return dict(json.load(answer)["errors"])
    except urllib.error.HTTPError as error:
        with error:
            return dict(json.load(error)["errors"])
