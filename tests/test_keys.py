"""Keys of machines: made, known, rotated and ended; and who they are to core, gate and the command line."""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from monitor import gate_process
from monitor.access import keys, uses
from monitor.access.keys import SHAPE, Keys, NoKeyError, mistyped
from monitor.api.keys_told import state, warning
from monitor.caller import TENANTS, Right
from monitor.errors import UserError
from monitor.ledger import access_log
from monitor.ledger import keys as stored
from monitor.ledger.db import open_ledger
from monitor.ledger.keys import Key
from tests.builders import NOW, minutes
from tests.servers.mailvane import Mailvane, mailvane, program
from tests.waiting import until

DAY = timedelta(days=1)
LOADED = 20  # seconds that a busy machine may take for what takes less than one


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Engine]:
    engine = open_ledger(tmp_path / "ledger.sqlite")
    yield engine
    engine.dispose()


def made(ledger: Engine, name: str = "shipper", **changes: Any) -> tuple[str, Key]:
    wish: dict[str, Any] = {"rights": {Right.INGEST}, "now": NOW, "by": "marta"} | changes
    with ledger.begin() as conn:
        return keys.make(conn, name, wish.pop("rights"), **wish)


def rotated(ledger: Engine, name: str, **changes: Any) -> tuple[str, Key, Key]:
    with ledger.begin() as conn:
        return keys.rotate(conn, name, **{"now": NOW, "by": "marta", **changes})


def listed(ledger: Engine) -> list[Key]:
    with ledger.begin() as conn:
        return stored.every(conn)


def test_a_key_is_known_by_its_text_alone(ledger: Engine):
    text, key = made(ledger, rights={Right.READ, Right.CHECK})
    known = Keys(ledger)
    assert known.find(text, NOW) == key
    assert key.rights == {Right.READ, Right.CHECK}
    for wrong in ("", "mv_", text[:-1], f"{text}x", text.swapcase(), f"mv_{key.id}_", text + "\n", f" {text}"):
        assert known.find(wrong, NOW) is None, wrong


def test_of_a_key_its_text_stands_nowhere(ledger: Engine, tmp_path: Path):
    text, key = made(ledger)
    secret = text.rpartition("_")[2]
    ledger.dispose()
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert key.id.encode() in everything
    assert secret.encode() not in everything
    assert secret not in repr(key)


def test_a_key_has_256_bits_and_a_shape_that_scanners_find(ledger: Engine):
    texts = [made(ledger, f"key {number}")[0] for number in range(20)]
    assert all(re.fullmatch(r"mv_[a-z2-9]{8}_[0-9A-Za-z]{49}", text) and SHAPE.fullmatch(text) for text in texts)
    assert len({text[12:20] for text in texts}) == len(texts)


@given(st.integers(0, 60), st.characters(min_codepoint=33, max_codepoint=126))
def test_one_wrong_letter_is_seen_by_the_check_sum(place: int, letter: str):
    text, _ = keys._drawn()
    place %= len(text)
    other = text[:place] + letter + text[place + 1 :]
    assert mistyped(other) == (other != text)


def test_an_expired_key_opens_nothing_from_that_moment_on(ledger: Engine):
    text, _ = made(ledger, expires=DAY)
    known = Keys(ledger)
    assert known.find(text, NOW + DAY - minutes(1))
    assert known.find(text, NOW + DAY) is None


def test_a_key_lasts_a_year_unless_it_is_said_otherwise(ledger: Engine):
    assert made(ledger)[1].expires_at == NOW + 365 * DAY
    assert made(ledger, expires=None)[1].expires_at is None


def test_a_revoked_key_opens_nothing_within_a_second(ledger: Engine):
    text, key = made(ledger)
    known = Keys(ledger)
    assert known.find(text, NOW)
    with ledger.begin() as conn:
        keys.revoke(conn, key.id, now=NOW, by="marta")
    until(lambda: known.find(text, NOW) is None, "the key to end", LOADED)
    assert keys.FRESH + gate_process.EVERY < 1, "what is promised, on a machine that is not busy"


def test_a_new_key_is_known_at_once_to_the_process_that_made_it(ledger: Engine):
    known = Keys(ledger)
    assert known.find(made(ledger)[0], NOW)
    text, _ = made(ledger, "another")
    known.anew()
    assert known.find(text, NOW)


def test_a_rotated_key_goes_on_beside_its_successor_for_the_overlap(ledger: Engine):
    old, key = made(ledger, rights=TENANTS, tenant="s07", expires=90 * DAY)
    new, successor, before = rotated(ledger, key.id, now=NOW + 10 * DAY, overlap=minutes(60))
    assert (successor.rights, successor.tenant, successor.name) == (key.rights, "s07", key.name)
    assert successor.expires_at == NOW + 100 * DAY, "it lasts as long as the old one was to"
    known, then = Keys(ledger), NOW + 10 * DAY
    assert known.find(old, then + minutes(59)) == before
    assert known.find(old, then + minutes(60)) is None
    assert known.find(new, then + minutes(60)) == successor
    assert [one.successor for one in listed(ledger)] == [successor.id, ""]


def test_an_overlap_makes_no_key_last_longer(ledger: Engine):
    _, key = made(ledger, expires=DAY)
    assert rotated(ledger, key.id, overlap=7 * DAY)[2].expires_at == NOW + DAY
    _, key = made(ledger, expires=None)
    _, successor, before = rotated(ledger, key.id)
    assert (successor.expires_at, before.expires_at) == (None, NOW + DAY)


def test_a_key_is_rotated_once(ledger: Engine):
    _, key = made(ledger)
    _, successor, _ = rotated(ledger, key.id)
    with pytest.raises(UserError, match=f"rotate {successor.id}"):
        rotated(ledger, key.id)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"name": " "}, "a name"),
        ({"name": "x" * 101}, "a name"),
        ({"name": "a\x1b[31m"}, "a name"),
        ({"rights": set()}, "opens nothing"),
        ({"rights": {Right.READ, Right.OPERATE}, "tenant": "s07"}, "can't have operate"),
        ({"rights": {Right.METRICS}, "tenant": "s07"}, "can't have metrics"),
        ({"rights": {Right.ADMIN}, "tenant": "s07"}, "can't have admin"),
        ({"tenant": "s\n7"}, "a tenant"),
        ({"expires": timedelta()}, "a time"),
        ({"expires": timedelta(days=999_999_999)}, "a time"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_a_key_that_makes_no_sense_is_not_made(ledger: Engine, wish: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        made(ledger, **wish)
    assert listed(ledger) == []


def test_what_is_not_there_or_has_ended_can_be_neither_rotated_nor_revoked(ledger: Engine):
    _, key = made(ledger)
    with ledger.begin() as conn:
        keys.revoke(conn, key.id, now=NOW, by="marta")
    for name, why in (("nothing", "there is no key"), (key.id, "has ended")):
        with pytest.raises(NoKeyError, match=why):
            rotated(ledger, name)
        with pytest.raises(NoKeyError, match=why), ledger.begin() as conn:
            keys.revoke(conn, name, now=NOW, by="marta")
    with pytest.raises(UserError, match="90 days"):
        rotated(ledger, made(ledger)[1].id, overlap=91 * DAY)


def test_each_change_stands_in_the_access_log_with_who_made_it(ledger: Engine):
    _, key = made(ledger, by="person:marta")
    rotated(ledger, key.id, by="key:abcdefgh")
    with ledger.begin() as conn:
        keys.revoke(conn, key.id, now=NOW, by="cli:root")
        log = access_log.newest(conn, 10)
    assert [(one.who, one.did) for one in log] == [
        ("cli:root", "key revoked"),
        ("key:abcdefgh", f"key rotated from {key.id}"),
        ("person:marta", "key made"),
    ]
    assert log[-1].details["scopes"] == ["ingest"]


def test_a_ledger_that_is_locked_or_gone_lets_known_keys_go_on(ledger: Engine, tmp_path: Path):
    text, _ = made(ledger)
    looks = open_ledger(tmp_path / "ledger.sqlite", reads=True)
    try:
        known = Keys(looks)
        assert known.find(text, NOW)
        looks.dispose()
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as other:
            ledger.dispose()
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            known.refresh()
            assert known.find(text, NOW)
        (tmp_path / "ledger.sqlite").rename(tmp_path / "away")
        looks.dispose()
        known.refresh()
        assert known.find(text, NOW)
    finally:
        looks.dispose()


def test_before_there_is_a_ledger_no_key_is_known(tmp_path: Path):
    looks = open_ledger(tmp_path / "ledger.sqlite", reads=True)
    known = Keys(looks)
    assert known.find(keys._drawn()[0], NOW) is None
    ledger = open_ledger(tmp_path / "ledger.sqlite")
    text, _ = made(ledger)
    known.refresh()
    assert known.find(text, NOW)
    looks.dispose()
    ledger.dispose()


def test_many_threads_may_ask_at_once(ledger: Engine):
    text, key = made(ledger)
    known, found = Keys(ledger), []

    def ask() -> None:
        found.extend(known.find(text, NOW) for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [key] * 400


def test_a_right_of_a_newer_version_opens_nothing_here(ledger: Engine):
    text, key = made(ledger)
    with ledger.begin() as conn:
        conn.exec_driver_sql('UPDATE keys SET rights = \'["ingest", "teleport"]\'')
    assert Keys(ledger).find(text, NOW) == key


def test_last_use_is_noted_to_the_minute_and_never_goes_back(ledger: Engine):
    _, key = made(ledger)
    known = Keys(ledger)
    known.use(key.id, NOW)
    assert known.taken() == {key.id: NOW}
    known.use(key.id, NOW + minutes(0.5))
    assert known.taken() == {}
    known.use(key.id, NOW + minutes(1))
    with ledger.begin() as conn:
        stored.used(conn, known.taken())
        stored.used(conn, {key.id: NOW, "nothing": NOW})
    assert listed(ledger)[0].last_used == NOW + minutes(1)


def last_used(ledger: Engine, data: Path) -> dict[str, Any]:
    with ledger.begin() as conn:
        return {one.id: one.last_used for one in uses.every(conn, data)}


def test_what_the_gate_saw_last_is_told_beside_the_ledger(ledger: Engine, tmp_path: Path):
    _, key = made(ledger)
    _, other = made(ledger, "other")
    known = Keys(ledger)
    gate = uses.Uses(known, uses.file(tmp_path))
    known.use(key.id, NOW + minutes(5))
    gate.keep()
    known.use(other.id, NOW + minutes(6))
    gate.keep()
    with ledger.begin() as conn:
        stored.used(conn, {other.id: NOW})
    assert last_used(ledger, tmp_path) == {key.id: NOW + minutes(5), other.id: NOW}, "written ten seconds apart"
    gate.keep(ending=True)
    assert last_used(ledger, tmp_path) == {key.id: NOW + minutes(5), other.id: NOW + minutes(6)}
    assert stat.S_IMODE(uses.file(tmp_path).stat().st_mode) == 0o600
    again = uses.Uses(known, uses.file(tmp_path))
    known.use(other.id, NOW + minutes(9))
    again.keep()
    assert dict(uses.read(uses.file(tmp_path))) == {key.id: NOW + minutes(5), other.id: NOW + minutes(9)}


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"a": 1}', '{"a": "2026-11-24T10:00:00"}', '{"a": "soon"}', "\xff"]
)
def test_a_file_of_last_uses_that_is_none_is_nothing(tmp_path: Path, content: str):
    uses.file(tmp_path).write_text(content, "latin-1")
    assert uses.read(uses.file(tmp_path)) == {}


def test_the_list_says_what_should_be_done(ledger: Engine):
    _, key = made(ledger)
    assert (state(key, NOW), warning(key, NOW)) == ("in force", "")
    assert warning(key, NOW + 91 * DAY) == "not used for 90 days: revoke it"
    assert warning(key, NOW + 352 * DAY) == "expires soon: rotate it"
    assert (state(key, NOW + 365 * DAY), warning(key, NOW + 365 * DAY)) == ("expired", "")
    _, _, old = rotated(ledger, key.id)
    assert (state(old, NOW), warning(old, NOW)) == ("rotated", "")


# The service, and the command beside it.


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailvane]:
    with mailvane(tmp_path_factory.mktemp("keys"), "[access]\n") as running:
        yield running


_addresses = (f"127.1.{high}.{low}" for high in range(256) for low in range(1, 255))


def asked(
    service: Mailvane, method: str, path: str, text: str, body: Any = None, *, gate: bool = False
) -> tuple[int, Any]:
    """Each time from another address: one that shows ten keys that are none must wait."""
    sent = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    port = service.gate_port if gate else service.port
    peer = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(next(_addresses), 0))
    with closing(peer):
        peer.request(method, path, sent, {"Authorization": f"Bearer {text}"})
        answer = peer.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


def token(service: Mailvane) -> str:
    return (service.config.parent / "data/token").read_text().strip()


def command(service: Mailvane, *words: str, given: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        [*program(), "--config", str(service.config), "keys", *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def opens(service: Mailvane, text: str, *, gate: bool) -> bool:
    return asked(service, "GET", "/v1/check?tenant=s07", text, gate=gate)[0] == 200


def test_a_key_is_made_rotated_and_ended_by_the_api(service: Mailvane):
    machine = token(service)
    status, key = asked(service, "POST", "/v1/keys", machine, {"name": "mta", "scopes": ["check"], "expires": "30d"})
    assert (status, key["state"], key["made_by"], key["scopes"]) == (201, "in force", "machine", ["check"])
    text = key["text"]
    assert opens(service, text, gate=False), "at once, in the process that made it"
    until(lambda: opens(service, text, gate=True), "the gate to know it", LOADED)
    status, new = asked(service, "POST", f"/v1/keys/{key['id']}/rotate", machine, {"overlap": "0s"})
    assert status == 201
    assert not opens(service, text, gate=False)
    until(lambda: not opens(service, text, gate=True), "the gate to know no more of it", LOADED)
    assert opens(service, new["text"], gate=False)
    assert asked(service, "DELETE", f"/v1/keys/{new['id']}", machine)[0] == 204
    assert not opens(service, new["text"], gate=False)
    until(lambda: not opens(service, new["text"], gate=True), "the gate to know no more of it", LOADED)
    found = {one["id"]: one for one in asked(service, "GET", "/v1/keys", machine)[1]["keys"]}
    assert (found[key["id"]]["state"], found[new["id"]]["state"]) == ("expired", "revoked")
    assert "text" not in found[key["id"]]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("", {}, 422),
        ("", {"name": "x", "scopes": ["all"]}, 422),
        ("", {"name": "x", "scopes": ["admin"], "tenant": "s07"}, 422),
        ("", {"name": "x", "scopes": ["read"], "colour": "red"}, 422),
        ("", {"name": "x", "scopes": ["read"], "expires": "soon"}, 422),
        ("", b" " * 5000, 413),
        ("/nothing/rotate", {}, 404),
        ("/nothing/rotate", {"overlap": "long"}, 422),
        ("/nothing/rotate", b"[]", 422),
    ],
)
def test_a_wish_for_a_key_that_can_not_be_met_says_why(service: Mailvane, path: str, body: Any, status: int):
    found, said = asked(service, "POST", f"/v1/keys{path}", token(service), body)
    assert found == status
    assert said["error"]
    assert said["remedy"]


def test_the_gate_tells_when_a_key_was_used_there(service: Mailvane):
    _, key = asked(service, "POST", "/v1/keys", token(service), {"name": "gate alone", "scopes": ["check"]})
    until(lambda: opens(service, key["text"], gate=True), "the gate to know it", LOADED)

    def used() -> str | None:
        found = asked(service, "GET", "/v1/keys", token(service))[1]["keys"]
        return next(one["last_used"] for one in found if one["id"] == key["id"])

    assert until(used, "the gate to write it down", 40)


def test_a_key_is_made_shown_once_listed_and_ended_by_command(service: Mailvane):
    status, out, err = command(
        service, "add", "ship of mail-1", "--scope", "ingest", "--tenant", "s07", "--expires", "5d"
    )
    assert status == 0
    text = out.strip()
    assert SHAPE.fullmatch(text), "nothing else on standard output, so that it can be piped"
    name = text.split("_")[1]
    assert "ship of mail-1 of s07: ingest; expires" in err
    assert "rotate it" in command(service, "list")[1]
    status, out, _ = command(service, "test", given=f"{text}\n")
    assert status == 0
    assert "ingest" in out
    found = {one["id"]: one for one in json.loads(command(service, "list", "--json")[1])["keys"]}
    assert (found[name]["tenant"], found[name]["warning"]) == ("s07", "expires soon: rotate it")
    assert command(service, "revoke", name)[0] == 0
    status, out, err = command(service, "test", given=text)
    assert status == 1
    assert "REVOKED" in out
    assert "opens nothing" in err
    assert "REVOKED" in command(service, "list")[1], "marked for a month"
    assert command(service, "revoke", name)[0] == 1


def test_a_key_goes_into_a_file_of_its_owner_and_its_successor_in_its_place(service: Mailvane, tmp_path: Path):
    file = tmp_path / "key"
    status, out, _ = command(service, "add", "grafana", "--scope", "read", "--expires", "never", "--out", str(file))
    assert (status, out) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    old = file.read_text().strip()
    status, _, err = command(service, "add", "another", "--scope", "read", "--out", str(file))
    assert status == 1
    assert "is there already" in err
    file.chmod(0o640)
    assert command(service, "rotate", old.split("_")[1], "--overlap", "2h", "--out", str(file))[0] == 0
    assert file.read_text().strip() != old
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    until(lambda: asked(service, "GET", "/v1/status", file.read_text().strip())[0] == 200, "core to know it", LOADED)
    assert asked(service, "GET", "/v1/status", old)[0] == 200
    said = command(service, "test", given=file.read_text())[1]
    assert "never expires" in said


def test_a_mistyped_key_is_told_from_one_that_is_not_known(service: Mailvane):
    text = keys._drawn()[0]
    assert "no such key here" in command(service, "test", given=text)[2]
    assert "mistyped" in command(service, "test", given=text[:-1])[2]
    assert "mistyped" in command(service, "test", given="")[2]
    assert text not in command(service, "test", given=text)[2]


def test_nobody_but_automation_turns_automations_key(service: Mailvane):
    machine = token(service)
    _, key = asked(service, "POST", "/v1/keys", machine, {"name": "chat", "scopes": ["operate"]})
    wish = {"deed": "pause", "scope": {"tenant": "s99"}, "why": "trying", "who": "automation", "for": "1m"}
    for text in (machine, key["text"]):
        status, said = asked(service, "POST", "/v1/actions", text, wish)
        assert status == 201
        assert said["actions"][0]["who"] != "automation"
    long = {**wish, "who": "x" * 200}
    assert asked(service, "POST", "/v1/actions", key["text"], long)[1]["actions"][0]["who"].endswith(f"key:{key['id']}")
