"""Attribution in the running service: reports taken, what waits handed over, and what people are told of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from collectors.sendlog import Sendlog
from monitor.cli import cli
from monitor.config import ConfigError, parse
from monitor.facts.raw import history
from monitor.model import Batch, Clues, Kind
from monitor.triage import Desk, Trouble
from tests.servers.sellers import NOW, Market, house

AT = int(NOW.timestamp()) * 1_000_000
PERSON, MESSAGE = "jane@example.net", "1@shop.example"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    with house(tmp_path_factory.mktemp("house"), '[attribution]\nfeedback_id = "(?P<tenant>[^:]+):"\n') as made:
        yield made


def batch(message_id: str = MESSAGE, **clues: str) -> Batch:
    row = {"kind": "bounced", "at": AT, "recipient": PERSON, "message_id": message_id}
    return Batch({name: [value] for name, value in row.items()}, clues=[Clues(message_id=message_id, **clues)])


def run(folder: Path, *words: str) -> Result:
    (folder / "mailvane.toml").write_text(f'[service]\ndata = "{folder}"\n', "utf-8")
    return CliRunner().invoke(cli, ["--config", str(folder / "mailvane.toml"), "trace", *words])


def test_the_service_hands_over_what_waited(market, monkeypatch):
    core = market.core
    assert core.take("inbox", batch()) == []
    market.tell([{"kind": "sent", "at": NOW, "recipient": PERSON, "message_id": MESSAGE, "tenant": "s07"}])
    monkeypatch.setattr(core, "clock", lambda: NOW + timedelta(minutes=1))
    core._place()
    core.stores.applier.drain()
    span = NOW - timedelta(days=1), NOW + timedelta(days=1)
    told = history(core.stores.facts, *span, recipient=core.stores.keyring.pseudonym(PERSON))
    assert {(event.kind, event.scope.tenant) for event in told} == {(Kind.SENT, "s07"), (Kind.RETURNED, "s07")}


def test_people_see_how_reports_find_their_messages(market):
    market.core.take("letters", batch("2@shop.example", feedback_id="s07:shop"))
    market.core.take("letters", batch("3@shop.example", token="1.00000000.x.yyyyyyyyyyyyyyyyyyyyyy"))
    told = market.ask("", "GET", "/v1/attribution").json()
    theirs = told["sources"]["letters"]
    assert told["waiting"] == 2
    assert theirs["reports"] == 2
    assert theirs["clues"]["feedback_id"] == {"reports": 1, "share": 0.5}
    assert theirs["marks_refused"] == {"unknown key": 1}
    assert market.ask("s07", "GET", "/v1/attribution").status_code == 403

    text = market.ask("", "GET", "/metrics").text
    assert 'mailvane_reports_total{source="letters"} 2.0' in text
    assert 'mailvane_report_clues_total{clue="feedback_id",source="letters"} 1.0' in text
    assert 'mailvane_marks_refused_total{reason="unknown key",source="letters"} 1.0' in text
    assert "mailvane_reports_waiting 2.0" in text


def test_a_report_out_of_the_quarantine_is_attributed_too(market):
    class Letters(Sendlog):
        def again(self, items: Any, now: Any) -> Batch:
            return batch("4@shop.example", feedback_id="s07:shop")

    stores = market.core.stores
    letters = {"letters": Letters(path=Path("x"))}
    span = NOW - timedelta(days=1), NOW + timedelta(days=1)
    before = market.core.attributor.tally.reports["letters"]
    item = stores.quarantine.put(b"x", source="letters", kind="message", where="1", why="broken", at=NOW)
    with pytest.raises(Trouble, match="where the service runs"):
        Desk(stores, letters).retry(item, "ann", NOW, span)
    done = Desk(stores, letters, market.core.attributor).retry(item, "ann", NOW, span)
    assert (done.taken, done.left) == (0, 0)  # it waits for its message
    assert market.core.attributor.tally.reports["letters"] == before + 1


def test_a_key_is_made_and_rotated(tmp_path):
    made = run(tmp_path, "key")
    assert made.exit_code == 0, made.output
    assert "senders sign with key" in made.output
    assert (tmp_path / "trace.keys").stat().st_mode & 0o777 == 0o600
    assert "--rotate" in run(tmp_path, "key").output
    assert run(tmp_path, "key", "--rotate").exit_code == 0
    assert len((tmp_path / "trace.keys").read_text().splitlines()) == 3
    assert "goes with --rotate" in run(tmp_path, "key", "--forget").output
    assert run(tmp_path, "key", "--rotate", "--forget").exit_code == 0
    assert len((tmp_path / "trace.keys").read_text().splitlines()) == 2


def test_a_mark_is_made_and_looked_at_by_hand(tmp_path):
    run(tmp_path, "key")
    named = ["--recipient", PERSON, "--message-id", MESSAGE]
    signed = run(tmp_path, "sign", *named, "--return-path", "bounces@mta.example", "tenant=s07", "campaign=spring")
    assert signed.exit_code == 0, signed.output
    header, envelope = signed.output.splitlines()

    told = run(tmp_path, "check", header, *named)
    assert told.exit_code == 0
    assert "labels  tenant=s07 campaign=spring" in told.output
    assert PERSON not in told.output
    told = run(tmp_path, "check", header, "--recipient", "joe@example.net")
    assert (told.exit_code, told.output.splitlines()[-1]) == (1, "Error: refused: another recipient")
    assert "another message" in run(tmp_path, "check", header, "--message-id", "2").output
    assert "wrong signature" in run(tmp_path, "check", header[:-1] + ("A" if header[-1] != "A" else "B")).output

    address = envelope.removeprefix("MAIL FROM:<").removesuffix(">")
    assert "as      bounces@mta.example" in run(tmp_path, "check", address, "--recipient", PERSON).output
    assert "no mark" in run(tmp_path, "check", "bounces@mta.example").output


def test_a_mistake_with_a_mark_is_told_with_what_to_do(tmp_path):
    assert "mailvane trace key" in run(tmp_path, "check", "x").output
    run(tmp_path, "key")
    told = run(tmp_path, "sign", "--recipient", PERSON, "--message-id", MESSAGE, "seller=s07")
    assert "'seller' is no label" in told.output


@pytest.mark.parametrize("name", ["feedback_id", "unsubscribe", "return_path"])
def test_a_pattern_that_names_a_campaign_without_its_seller_is_a_mistake(name):
    with pytest.raises(ConfigError, match="tells campaign without tenant"):
        parse({"attribution": {name: "(?P<campaign>.+)"}}, "test", {})
    with pytest.raises(ConfigError, match="name its groups"):
        parse({"attribution": {name: "(.+)"}}, "test", {})
