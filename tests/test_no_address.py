"""No plain address rests anywhere, or is told by anything, after people came in by every door in every odd form.

The search is tried first on what was planted on purpose: in a file, in a row, in each coding.
"""

from __future__ import annotations

import base64
import json
import random
import re
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
from tests.planting import FORMS, Person, anybody, anybody_in_bytes, found_in, word
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
    """What the product told and kept: ``told`` by the name of where, ``data`` the folder, ``people`` were planted."""

    people: int
    told: dict[str, str]
    data: Path


def undressed(raw: bytes) -> Iterator[bytes]:
    """Bytes as they are, and with every coding undone that a file may have: wide, %41, =41, figures, base64."""
    yield raw
    yield raw.replace(b"\0", b"")
    yield re.sub(rb"[%=]([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), raw)
    for figures in re.findall(rb"[0-9A-Fa-f]{18,}", raw):
        for skipped in range(2):
            even = figures[skipped : len(figures) - (len(figures) - skipped) % 2]
            yield bytes.fromhex(even.decode())
    for run in re.findall(rb"[A-Za-z0-9+/_-]{12,}", raw):
        for skipped in range(4):
            whole = run[skipped : len(run) - (len(run) - skipped) % 4]
            yield base64.urlsafe_b64decode(whole.translate(bytes.maketrans(b"+/", b"-_")))


def files(folder: Path) -> dict[str, set[bytes]]:
    """The planted words found in each file below ``folder``, and in its name."""
    found = {
        str(path.relative_to(folder)): set().union(
            *map(anybody_in_bytes, undressed(str(path.relative_to(folder)).encode() + b" " + path.read_bytes()))
        )
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {name: words for name, words in found.items() if words}


def rows(facts: Facts) -> dict[str, str]:
    """All text of the facts, by table and column; its files are packed, so that bytes of them tell nothing."""
    columns = [(str(row["table"]), str(row["name"])) for row in facts.query(COLUMNS).to_pylist()]
    return {
        f"{table}.{name}": "\n".join(
            str(row["said"])
            for row in facts.query(
                f'SELECT DISTINCT toValidUTF8(toString("{name}")) AS said FROM "{table}"'
            ).to_pylist()
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
        self.people = 0

    def person(self, form: str) -> tuple[Person, str]:
        """Somebody new, and the text that holds them."""
        person = Person(self.luck)
        text = FORMS[form](person)
        assert found_in(text, (person.first, person.last)), form
        self.people += 1
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
            said = re.sub(r"[\x00-\x1f]", "?", self.person(form)[1])  # as Postfix does
            to, sender = self.person("plain")[1], self.person("prvs")[1]
            start, queue = f"{now.isoformat()} mail1 postfix", f"4XkQ{number:08X}"
            outcome = (
                f"{start}/smtp[14]: {queue}: to=<{to}>, orig_to=<{self.person('plain')[1]}>, relay=mx.example[192.0.2.1]:25, "
                "delay=1.2, delays=0.1/0/0.5/0.6, dsn=5.1.1, status=bounced "
                f"(host mx.example[192.0.2.1] said: 550 {said} (in reply to RCPT TO command))"
            )
            lines += [
                f"{start}/qmgr[13]: {queue}: from=<{sender}>, size=3000, nrcpt=1 (queue active)",
                outcome,
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
            yield f"search {form} {min(body)[:3]}", asked(service, "/v1/search", json.dumps(body).encode())
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
    return Left(planter.people, told, folder / "data")


def replies(service: Mailvane) -> list[dict[str, Any]]:
    return list(service.get("/v1/replies", limit=500)["replies"])


# the search finds what is there


def test_the_search_finds_an_address_in_a_file_in_any_dressing(tmp_path: Path):
    address = f"{word(random.Random(1))}@example.com"
    (tmp_path / "deep").mkdir()
    texts = [
        f"to <{address}>".encode(),
        address.upper().encode(),
        f"<{address}>".encode("utf-16"),
        f"<{address}>".encode("utf-16-be"),
        quote(address).encode(),
        b"".join(b"%%%02x" % byte for byte in address.encode()),
        b"".join(b"=%02X" % byte for byte in address.encode()),
        address.encode().hex().encode(),
        b"7" + address.encode().hex().upper().encode(),
        *(base64.b64encode(before + address.encode()) for before in (b"", b"x", b"to", b"to:")),
        base64.urlsafe_b64encode(f"???>>>{address}".encode()),
    ]
    for number, text in enumerate(texts):
        (tmp_path / "deep" / str(number)).write_bytes(b"\x1f\x00some bytes, " + text + b"\xff, and more")
    (tmp_path / address).write_bytes(b"")
    (tmp_path / "none").write_bytes(b"nobody@example.com")
    assert set(files(tmp_path)) == {f"deep/{number}" for number in range(len(texts))} | {address}


def test_the_search_finds_an_address_in_a_row_of_facts_and_of_the_ledger(tmp_path: Path):
    person = word(random.Random(2))
    with store(tmp_path / "facts") as facts:
        empty(facts)
        facts.command(
            f"INSERT INTO events (at, sent_at, seen_at, reply) SELECT now(), now(), now(), '550 <{person}@example.com>'"
        )
        found = {place for place, text in rows(facts).items() if anybody(text)}
        assert found == {"events.reply"}
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as conn:
        conn.execute("CREATE TABLE notes (said TEXT, raw BLOB)")
        conn.execute("INSERT INTO notes VALUES (?, ?)", ("nothing", f"{person}@example.com".encode()))
        conn.commit()
    assert [name for name, text in entries(tmp_path / "ledger.sqlite").items() if anybody(text)] == ["notes"]


# and finds nobody


def test_what_was_planted_came_in_by_every_door(left: Left):
    assert f'"accepted":{len(FORMS)}' in left.told["events"].replace(" ", "")
    assert '"rejected_count"' in left.told["bad events"].replace(" ", "")
    told = left.told["/v1/replies?limit=500"]
    assert "host mx.example[192.0.2.1] said" in told
    assert "5.1.1 …" in told
    assert "no line of a log" in left.told["/v1/rejected"]
    assert left.people > 10 * len(FORMS)


def test_no_answer_no_metric_and_no_line_of_the_log_names_anybody(left: Left):
    found = {place: anybody(text) for place, text in left.told.items()}
    assert {place: words for place, words in found.items() if words} == {}


def test_no_file_of_the_data_directory_holds_anybody_in_any_dressing(left: Left):
    assert len(list(left.data.rglob("*"))) > 10
    assert files(left.data) == {}


def test_no_row_of_the_facts_names_anybody(left: Left):
    facts = Facts.open(f"chdb://{left.data / 'facts'}")
    try:
        said = rows(facts)
    finally:
        facts.close()
    assert "…@" in said["events.reply"]
    assert "…@" in said["events.consent_ref"]
    assert {place: found for place, text in said.items() if (found := anybody(text))} == {}


def test_no_entry_of_the_ledger_names_anybody(left: Left):
    said = entries(left.data / "ledger.sqlite")
    assert len(said) > 3
    assert {place: found for place, text in said.items() if (found := anybody(text))} == {}


def test_no_block_of_the_spool_names_anybody(left: Left):
    with closing(Spool(left.data / "spool")) as spool:
        said = [str(decode(payload).rows) for _, payload in spool.read(0)]
    assert said
    assert [found for text in said if (found := anybody(text))] == []
