"""No plain address rests anywhere, or is told by anything, after people came in by every door in every odd form.

The search is tried first on what was planted on purpose: in a file, in a row, in each coding.
"""

from __future__ import annotations

import base64
import json
import random
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from monitor.facts.store import Facts
from monitor.pipeline import decode
from monitor.spool import Spool
from tests.planting import FORMS, Person, found_in, word
from tests.servers.mailvane import Mailvane, mailvane
from tests.storing import empty, store
from tests.waiting import until

TABLES = """
[collector.mail]
kind = "sendlog"
path = "{log}"
every = "0.1s"
sender_pattern = '^b-(?P<tenant>[^-@]+)-(?P<stream>[^-@]+)@'
[collector.mail.addresses]
"smtp-ip1" = "198.51.100.1"
"""
COLUMNS = (
    "SELECT table, name FROM system.columns WHERE database = currentDatabase() "
    "AND (type LIKE '%String%' OR type LIKE '%JSON%') ORDER BY table, name"
)


@dataclass
class Left:
    """What the product told and kept: ``told`` by the name of where, ``data`` the folder, ``words`` what was planted."""

    words: tuple[str, ...]
    told: dict[str, str]
    data: Path


def dressings(person: str) -> Iterator[bytes]:
    """A word as it may stand in a file: as it is, wide, percent-coded, in hexadecimal figures, and in base64."""
    for case in (person, person.title(), person.upper()):
        raw = case.encode()
        yield from (raw, case.encode("utf-16-le"), case.encode("utf-16-be"))
        yield raw.hex().encode()
        yield from (b"".join(b"%%%02X" % byte for byte in raw), b"".join(b"=%02X" % byte for byte in raw))
        for skipped in range(3):  # base64 depends on what stands before; the ends that depend on neighbours are cut
            coded = base64.b64encode(b"\0" * skipped + raw)
            yield coded[4 if skipped else 0 : len(coded) // 4 * 4 - 4]


def hits(raw: bytes, words: tuple[str, ...]) -> set[str]:
    """The words that stand in the bytes in any dressing."""
    return {person for person in words if any(dressed in raw for dressed in dressings(person))}


def files(folder: Path, words: tuple[str, ...]) -> dict[str, set[str]]:
    """The words found in each file below ``folder``; names of files count."""
    found = {
        str(path.relative_to(folder)): hits(path.read_bytes() + str(path.relative_to(folder)).encode(), words)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {name: words for name, words in found.items() if words}


def rows(facts: Facts) -> dict[str, str]:
    """All text of the facts, by table and column; its files are packed, so that bytes of them tell nothing."""
    columns = [(str(row["table"]), str(row["name"])) for row in facts.query(COLUMNS).to_pylist()]
    return {
        f"{table}.{name}": "\n".join(
            str(row["said"]) for row in facts.query(f'SELECT DISTINCT toString("{name}") AS said FROM "{table}"').to_pylist()
        )
        for table, name in columns
    }


def entries(ledger: Path) -> dict[str, str]:
    """All text of the ledger by table."""
    with closing(sqlite3.connect(ledger)) as conn:
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: str(conn.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables}


# what is planted


class Planter:
    """People, each by one form, who are sent in by one door."""

    def __init__(self) -> None:
        self.luck = random.Random(20261124)
        self.words: list[str] = []

    def person(self, form: str) -> tuple[Person, str]:
        """Somebody new, and the text that holds them."""
        person = Person(self.luck)
        text = FORMS[form](person)
        self.words += found_in(text, (person.first, person.last))
        return person, text

    def events(self, now: datetime) -> Iterator[bytes]:
        """Good events with somebody in each field that is free text or a person."""
        for number, form in enumerate(FORMS):
            reply, relay, consent, recipient = (self.person(one)[1] for one in (form, "%40", "name", "plain"))
            yield json.dumps(
                {
                    "kind": "bounced", "at": now.isoformat(), "tenant": "s07", "stream": "marketing", "ip": "192.0.2.7",
                    "message_id": f"<{number}.{recipient}>", "recipient": recipient, "reply": f"550 5.1.1 {reply} refused",
                    "relay": relay[:250], "consent_ref": consent[:200], "dsn": "5.1.1",
                }
            ).encode()  # fmt: skip

    def bad(self, now: datetime) -> Iterator[bytes]:
        """Lines that can't be read, and those that are set aside later."""
        yield f"no event at all: {self.person('plain')[1]}".encode()
        yield f'{{"kind": "{self.person("plain")[1]}", "at": "{now.isoformat()}"}}'.encode()
        yield json.dumps({"kind": "sent", "at": self.person("angle")[1]}).encode()
        yield json.dumps({self.person("plain")[1]: 1, "kind": "sent", "at": now.isoformat()}).encode()
        yield json.dumps({"kind": "sent", "at": "1999-01-01T00:00:00Z", "id": self.person("plain")[1]}).encode()
        yield json.dumps({"kind": "sent", "at": now.isoformat(), "recipient": self.person("quoted")[1]}).encode()
        for form in FORMS:
            yield f'{{"kind": "sent", "at": "today", "reply": {json.dumps(self.person(form)[1])}'.encode()

    def log(self, now: datetime) -> str:
        """Postfix's lines: outcomes, and what nobody can read."""
        lines: list[str] = []
        for number, form in enumerate(FORMS):
            said = " ".join(self.person(form)[1].split())
            to, sender = self.person("plain")[1], self.person("prvs")[1]
            start, queue = f"{now.isoformat()} mail1 postfix", f"4XkQ{number:08X}"
            lines += [
                f"{start}/qmgr[13]: {queue}: from=<{sender}>, size=3000, nrcpt=1 (queue active)",
                f"{start}/smtp[14]: {queue}: to=<{to}>, orig_to=<{self.person('plain')[1]}>, relay=mx.example[192.0.2.1]:25, "
                f"delay=1.2, delays=0.1/0/0.5/0.6, dsn=5.1.1, status=bounced (host mx.example[192.0.2.1] said: 550 {said} "
                "(in reply to RCPT TO command))",
                f"{start}/smtpd[15]: NOQUEUE: reject: RCPT from x[192.0.2.9]: 550 5.1.1 <{to}>: refused; from=<{sender}>",
                f"{self.person(form)[1]!r} is no line of a log",
                f"{start}/smtp[14]: {queue}9: to=<{self.person('plain')[1]}>, status=bounced",
                f"{start}/qmgr[13]: {queue}: removed",
            ]
        return "\n".join(lines) + "\n"

    def strange(self) -> Iterator[str]:
        """Paths and questions with somebody in them."""
        for form in ("plain", "name", "quoted"):
            text = quote(self.person(form)[1], safe="")
            yield f"/v1/series?{text}=1"
            yield f"/v1/series?measure={text}"
            yield f"/v1/replies?cursor={text}"
            yield f"/v1/check?{text}={text}"
            yield f"/v1/nowhere/{text}"
            yield f"/v1/quarantine/{text}"


def asked(service: Mailvane, path: str, body: bytes | None = None) -> str:
    """The answer, with its headers, whatever its status."""
    request = urllib.request.Request(service.url + path, data=body, headers={"Content-Type": "application/x-ndjson"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.headers) + answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return str(error.headers) + error.read().decode("utf-8", "replace")


def looked_for(service: Mailvane, planter: Planter) -> Iterator[tuple[str, str]]:
    """Answers to questions about people."""
    for form in ("plain", "quoted", "UTF-8"):
        recipient = planter.person(form)[1]
        for body in ({"recipient": recipient}, {"message_id": f"<{recipient}>"}, {"who": recipient}, {recipient: 1}):
            yield f"search {form} {sorted(body)[0][:3]}", asked(service, "/v1/search", json.dumps(body).encode())
    for number, path in enumerate(planter.strange()):
        yield f"question {number}", asked(service, path)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp("no-address")
    planter, now, log = Planter(), datetime.now(UTC) - timedelta(minutes=1), folder / "mail.log"
    log.write_text("")
    told: dict[str, str] = {}
    with mailvane(folder, TABLES.format(log=log)) as service:
        for name, lines in (("events", planter.events(now)), ("bad events", planter.bad(now))):
            told[name] = asked(service, "/v1/events", b"\n".join(lines))
        told["array"] = asked(service, "/v1/events", f'[{{"kind": "{planter.person("plain")[1]}"'.encode())
        log.write_text(planter.log(now))
        told |= looked_for(service, planter)
        until(lambda: len(replies(service)) > len(FORMS), "the replies to be counted", 60)
        until(lambda: service.get("/v1/rejected"), "the rejected to be shown", 20)
        for path in ("/v1/rejected", "/v1/replies?limit=500", "/v1/status", "/metrics", "/v1/facts", "/readyz"):
            told[path] = asked(service, path)
        told["gate's /metrics"] = urllib.request.urlopen(f"{service.gate_url}/metrics", timeout=10).read().decode()
        told["check"] = service.command("check")
    told["log"] = service.log.read_text("utf-8")
    return Left(tuple(planter.words), told, folder / "data")


def replies(service: Mailvane) -> list[dict[str, Any]]:
    return list(service.get("/v1/replies", limit=500)["replies"])


# the search finds what is there


def test_the_search_finds_an_address_in_a_file_in_any_dressing(tmp_path: Path):
    person = word(random.Random(1))
    (tmp_path / "deep").mkdir()
    for number, dressed in enumerate(dressings(person)):
        (tmp_path / "deep" / str(number)).write_bytes(b"\x1f\x00some bytes" + dressed + b"\xffand more")
    texts = (
        f"x{person}@y".encode(),
        f"<{person}@y>".encode("utf-16"),
        base64.b64encode(f"to <{person}@example.com>".encode()),
        base64.b64encode(f"to: {person}@example.com".encode()),
        base64.b64encode(f"for {person}@example.com".encode()),
        quote(f"{person}@example.com").encode(),
    )
    for number, text in enumerate(texts):
        (tmp_path / f"text {number}").write_bytes(text)
    (tmp_path / f"{person}@example.com").write_bytes(b"")
    (tmp_path / "none").write_bytes(b"nobody@example.com")
    found = files(tmp_path, (person, "quazixwov"))
    assert set(found) == {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} - {"none"}
    assert all(words == {person} for words in found.values())


def test_the_search_finds_an_address_in_a_row_of_facts_and_of_the_ledger(tmp_path: Path):
    person = word(random.Random(2))
    with store(tmp_path / "facts") as facts:
        empty(facts)
        facts.command(
            f"INSERT INTO events (at, sent_at, seen_at, reply) SELECT now(), now(), now(), '550 <{person}@example.com>'"
        )
        found = {place for place, text in rows(facts).items() if found_in(text, (person,))}
        assert found == {"events.reply"}
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as conn:
        conn.execute("CREATE TABLE notes (said TEXT, raw BLOB)")
        conn.execute("INSERT INTO notes VALUES (?, ?)", ("nothing", f"{person}@example.com".encode()))
        conn.commit()
    assert [name for name, text in entries(tmp_path / "ledger.sqlite").items() if found_in(text, (person,))] == ["notes"]


# and finds nobody


def test_what_was_planted_came_in_by_every_door(left: Left):
    assert f'"accepted":{len(FORMS)}' in left.told["events"].replace(" ", "")
    assert '"rejected_count"' in left.told["bad events"].replace(" ", "")
    told = left.told["/v1/replies?limit=500"]
    assert "host mx.example[192.0.2.1] said" in told
    assert "5.1.1 …" in told
    assert "no line of a log" in left.told["/v1/rejected"]
    assert len(left.words) > 10 * len(FORMS)


def test_no_answer_no_metric_and_no_line_of_the_log_names_anybody(left: Left):
    found = {place: found_in(text, left.words) for place, text in left.told.items()}
    assert {place: words for place, words in found.items() if words} == {}


def test_no_file_of_the_data_directory_holds_anybody_in_any_dressing(left: Left):
    assert len(list(left.data.rglob("*"))) > 10
    assert files(left.data, left.words) == {}


def test_no_row_of_the_facts_names_anybody(left: Left):
    facts = Facts.open(f"chdb://{left.data / 'facts'}")
    try:
        said = rows(facts)
    finally:
        facts.close()
    assert "…@" in said["events.reply"]
    assert "…@" in said["events.consent_ref"]
    assert {place: found for place, text in said.items() if (found := found_in(text, left.words))} == {}


def test_no_entry_of_the_ledger_names_anybody(left: Left):
    said = entries(left.data / "ledger.sqlite")
    assert len(said) > 3
    assert {place: found for place, text in said.items() if (found := found_in(text, left.words))} == {}


def test_no_block_of_the_spool_names_anybody(left: Left):
    with closing(Spool(left.data / "spool")) as spool:
        said = [str(decode(payload).rows) for _, payload in spool.read(0)]
    assert said
    assert [found for text in said if (found := found_in(text, left.words))] == []
