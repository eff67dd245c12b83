"""A secret is in no log, metric, answer, repr or traceback, whatever fails and whoever says it again."""

from __future__ import annotations

import ast
import http.client
import json
import logging
import os
import socket
import subprocess
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from monitor import hiding, logs
from monitor.access import keys
from monitor.access.people import add
from monitor.caller import ALL, Role
from monitor.config import ConfigError, load, load_ship
from monitor.hiding import hidden, hide
from monitor.ledger import incidents
from monitor.ledger.db import open_ledger
from monitor.ports import PluginError
from tests.builders import incident
from tests.servers.mailvane import Mailvane, mailvane, program
from tests.servers.out_echo import Echo
from tests.servers.out_http import Site, said
from tests.waiting import free_port, until

ROOT = Path(__file__).resolve().parent.parent
# With letters that URLs, JSON and base64 write otherwise.
SECRETS = {
    "token": "pl4nted/api+token=&1a",
    "slack": "xoxb-pl4nted/slack+2b",
    "hook": "T0/B0/pl4nted-hook-3c",
    "facts": 'pl4nted"facts\\pass/4d',
    "nats": "pl4nted nats+pass/5e",
    "nats token": "pl4nted/nats+token=6f",
    "rabbit": "pl4nted@rabbit:pass/7a",
    "kafka": "pl4nted&kafka?pass/8b",
    "oidc": "pl4nted/oidc+secret%9c",
    "ship": "pl4nted/ship+token=0d",
    "person": "pl4nted horse battery/1e",
}
WRAPPING = b64encode(b"pl4nted+wrapping/key0000" + bytes(range(8))).decode()


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """What a test hides is hidden from no other."""
    monkeypatch.setattr(hiding, "_forms", hiding._forms)
    monkeypatch.setattr(hiding, "_pattern", hiding._pattern)


def forms(secret: str) -> set[bytes]:
    """How it may stand in a text: as it is, in URLs, in JSON, and in base64 after anything."""
    found = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    for before in ("", "u", "us"):
        for coded in (b64encode, urlsafe_b64encode):
            # What stands before and after changes the letters at its ends.
            found.add(coded((before + secret).encode()).decode().rstrip("=")[4:-4])
    return {form.encode() for form in found}


def leaks(told: bytes | str, secrets: dict[str, str]) -> list[str]:
    """The names of the secrets that stand in a text, in any form."""
    raw = told if isinstance(told, bytes) else told.encode("utf-8", "replace")
    return [name for name, secret in secrets.items() if any(form in raw for form in forms(secret))]


@pytest.mark.parametrize("name", SECRETS)
def test_the_search_finds_a_secret_in_every_form(name):
    secret = SECRETS[name]
    written = [
        secret,
        f"https://host/x?key={quote(secret, safe='')}&b",
        f"https://host/{quote(secret)}",
        json.dumps({"at": [secret]}),
        "Basic " + b64encode(f"mailvane:{secret}".encode()).decode(),
        "Basic " + b64encode(f"u:{secret}:more".encode()).decode(),
        urlsafe_b64encode(f"ab{secret}".encode()).decode(),
    ]
    for text in written:
        assert name in leaks(text, SECRETS)
    assert leaks("nothing of the kind, pl4nted", SECRETS) == []


@dataclass
class House:
    """The service with planted secrets, and all who know one: ``secrets`` has those too that were drawn there."""

    service: Mailvane
    folder: Path
    secrets: dict[str, str]
    slack: Site
    hook: Site
    nats: Echo
    rabbit: Echo
    kafka: Echo
    provider: Site

    @property
    def log(self) -> str:
        return self.service.log.read_text("utf-8")

    def ask(
        self,
        path: str,
        *,
        whence: str = "127.0.0.1",
        gate: bool = False,
        method: str = "GET",
        body: bytes | None = None,
        **headers: str,
    ) -> tuple[int, bytes]:
        """Status and the whole of an answer, with its head."""
        port = self.service.gate_port if gate else self.service.port
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(whence, 0))
        with closing(line):
            line.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = line.getresponse()
            return answer.status, str(answer.headers).encode() + answer.read()


TABLES = """
token_file = "{folder}/token"
facts_password_file = "{folder}/facts"
[access.oidc]
issuer = "http://127.0.0.1:{provider}"
client_id = "mailvane"
client_secret_file = "{folder}/oidc"
url = "http://127.0.0.1:1"
everybody = "viewer"
[outgoing]
allow = ["127.0.0.1/32"]
[keyring]
custody = "environment"
key_file = "{folder}/wrapping"
[ship]
to = "https://127.0.0.1:1"
token_file = "{folder}/ship"
node = "here"
[alert.team]
kind = "slack"
token_file = "{folder}/slack"
channel = "C1"
base_url = "http://127.0.0.1:{slack}/api/"
timeout = "2s"
[alert.hook]
kind = "slack"
webhook_url_file = "{folder}/hook"
timeout = "2s"
[collector.nats]
kind = "nats"
servers = ["nats://127.0.0.1:{nats}"]
stream = "EVENTS"
user = "mailvane"
password_file = "{folder}/nats"
[collector.natstoken]
kind = "nats"
servers = ["nats://127.0.0.1:{nats}"]
stream = "EVENTS"
token_file = "{folder}/nats token"
[collector.rabbit]
kind = "rabbitmq"
url = "amqp://127.0.0.1:{rabbit}/"
queue = "events"
user = "mailvane"
password_file = "{folder}/rabbit"
[collector.kafka]
kind = "kafka"
servers = ["127.0.0.1:{kafka}"]
topics = ["events"]
user = "mailvane"
password_file = "{folder}/kafka"
mechanism = "PLAIN"
"""
SOURCES = ("nats", "natstoken", "rabbit", "kafka")
_INFO = b'INFO {"server_id":"N","version":"2.10.0","proto":1,"max_payload":1048576,"auth_required":true}\r\n'


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    """Everything fails, and every peer says again what it was told."""
    folder = tmp_path_factory.mktemp("secrets")
    with ExitStack() as opened:
        slack, hook, provider = (opened.enter_context(Site()) for _ in range(3))
        nats = opened.enter_context(Echo(_INFO, b"-ERR '", b"'\r\n"))
        rabbit, kafka = opened.enter_context(Echo()), opened.enter_context(Echo())
        secrets = {**SECRETS, "wrapping": WRAPPING}
        for name, secret in secrets.items():
            (folder / name).write_text(secret + "\n")
        (folder / "hook").write_text(hook.url(f"/services/{SECRETS['hook']}"))
        secrets |= _drawn(folder)
        _echoing(slack, hook, provider)
        tables = TABLES.format(
            folder=folder,
            provider=provider.port,
            slack=slack.port,
            nats=nats.port,
            rabbit=rabbit.port,
            kafka=kafka.port,
        )
        with mailvane(folder, tables) as service:
            made = House(service, folder, secrets, slack, hook, nats, rabbit, kafka, provider)
            _provoke(made)
            yield made


def _drawn(folder: Path) -> dict[str, str]:
    """Keys, a person and an incident that is to be told, in the ledger before it starts."""
    now = datetime.now(UTC)
    ledger = open_ledger(folder / "data/ledger.sqlite")
    with ledger.begin() as conn:
        key, _ = keys.make(conn, "all", ALL, now=now, by="test", expires=timedelta(days=9))
        gone, made = keys.make(conn, "gone", ALL, now=now, by="test", expires=timedelta(days=9))
        keys.revoke(conn, made.id, now=now, by="test")
        add(conn, "marta", Role.ADMIN, SECRETS["person"], now=now, by="test")
        incidents.save(conn, incident(id=0, opened_at=now, updated_at=now))
    ledger.dispose()
    return {"key": key, "revoked key": gone}


def _echoing(slack: Site, hook: Site, provider: Site) -> None:
    token, path = SECRETS["slack"], SECRETS["hook"]
    slack.says["/api/chat.postMessage"] = [
        f"HTTP/1.1 {token}\r\n\r\n".encode(),
        said(500, token.encode()),
        said(200, json.dumps({"ok": False, "error": token}).encode()),
    ]
    hook.says[f"/services/{path}"] = [
        f"HTTP/1.1 {path}\r\n\r\n".encode(),
        said(500, path.encode(), X=path),
        said(403, path.encode()),
    ]
    provider.says["/.well-known/openid-configuration"] = said(200, SECRETS["oidc"].encode())


def _provoke(house: House) -> None:
    """Bad questions of all kinds, until each part has failed and said so."""
    secrets = house.secrets
    for gate in (False, True):
        for number, text in enumerate(secrets.values(), 2):
            whence = f"127.0.0.{number}"  # each of its own: who shows many wrong keys is heard no more
            for shown in (f"Bearer {text}", f"Token {text}", "Basic " + b64encode(f"a:{text}".encode()).decode()):
                house.ask("/v1/series", gate=gate, whence=whence, Authorization=shown)
            house.ask(f"/v1/check?tenant=a&key={quote(text)}", gate=gate)
            house.ask(f"/v1/{quote(text, safe='')}", gate=gate, Authorization=f"Bearer {secrets['key']}")
            house.ask("/v1/leases", gate=gate, Cookie=f"mailvane_session={quote(text)}; x={quote(text)}")
        _raw(house, gate=gate)
    for body in (b"{", b"[1]", json.dumps({"name": "marta", "password": [secrets["person"]]}).encode()):
        house.ask("/v1/session", method="POST", body=body, Content_Type="application/json")
    for name in ("marta", "nobody"):
        wrong = json.dumps({"name": name, "password": secrets["person"] + "x"}).encode()
        house.ask("/v1/session", method="POST", body=wrong, Content_Type="application/json")
    right = json.dumps({"name": "marta", "password": secrets["person"]}).encode()
    status, answer = house.ask("/v1/session", method="POST", body=right, Content_Type="application/json")
    assert status == 200, answer
    head = answer.decode()
    secrets["cookie"] = head.partition("mailvane_session=")[2].partition(";")[0]
    secrets["csrf"] = json.loads(head[head.index("{") :])["csrf"]
    house.ask(f"/v1/events?key={secrets['key']}", method="POST", body=b"{", Authorization=f"Bearer {secrets['key']}")
    house.ask("/v1/oidc/login")
    house.ask(f"/v1/oidc/callback?code={secrets['key']}&state={quote(secrets['oidc'])}")
    until(lambda: all(f'"source": "{source}"' in house.log for source in SOURCES), "all sources to have failed")
    until(lambda: all(f'"channel": "{name}"' in house.log for name in ("team", "hook")), "both channels to have failed")


def _raw(house: House, *, gate: bool) -> None:
    """What is no HTTP."""
    port = house.service.gate_port if gate else house.service.port
    for text in house.secrets.values():
        for sent in (
            f"{text}\r\n\r\n",
            f"GET /{text} HTTP/9\r\n\r\n",
            f"GET / HTTP/1.1\r\n{text}\r\n\r\n",
            f"\0{text}",
        ):
            with socket.create_connection(("127.0.0.1", port)) as line, suppress(OSError):
                line.settimeout(5)
                line.sendall(sent.encode())
                line.shutdown(socket.SHUT_WR)
                line.recv(4096)


def test_each_secret_went_to_whom_it_belongs(house):
    assert {seen.headers["authorization"] for seen in house.slack.seen} == {f"Bearer {SECRETS['slack']}"}
    assert {seen.target for seen in house.hook.seen} == {f"/services/{SECRETS['hook']}"}
    assert min(len(house.slack.seen), len(house.hook.seen)) >= 3  # each word of theirs was heard
    assert SECRETS["nats"].encode() in house.nats.heard
    assert SECRETS["nats token"].encode() in house.nats.heard
    assert house.rabbit.heard
    assert house.kafka.heard
    assert house.provider.seen
    assert house.ask("/v1/keys", Authorization=f"Bearer {SECRETS['token']}")[0] == 200
    assert house.ask("/v1/keys", Authorization=f"Bearer {house.secrets['key']}")[0] == 200


def test_no_log_line_holds_one(house):
    assert "source not readable" in house.log
    assert "told later" in house.log
    assert "not told" in house.log
    assert leaks(house.log, house.secrets) == []


def test_no_answer_to_a_get_holds_one(house):
    admin = {"Authorization": f"Bearer {SECRETS['token']}"}
    status, told = house.ask("/openapi.json", **admin)
    assert status == 200
    described = json.loads(told[told.index(b"{") :])["paths"]
    paths = [path for path, ways in described.items() if "get" in ways]
    assert len(paths) > 20
    fill = {"{item}": "0" * 26, "{path}": "page.css", "{path:path}": "page.css"}
    for path in [*paths, "/openapi.json", "/"]:
        if path == "/v1/leases/stream":
            continue  # never ends, and tells the leases that /v1/leases does
        shown = path
        for name, value in fill.items():
            shown = shown.replace(name, value)
        for gate in (False, True):
            answer = house.ask(shown, gate=gate, **admin)[1]
            assert leaks(answer, house.secrets) == [], path
    errors = json.loads(house.ask("/readyz", **admin)[1].decode().partition("\n\n")[2])["errors"]
    assert {f"collector.{source}" for source in SOURCES} <= errors.keys()


def test_no_command_prints_one(house):
    for words in (
        ["check"],
        ["keys", "list", "--json", "--all"],
        ["people", "list", "--json"],
        ["audit", "list"],
        ["ship", "--check"],
    ):
        done = subprocess.run(
            [*program(), "--config", str(house.service.config), *words], capture_output=True, check=False, timeout=60
        )
        assert done.stdout or done.stderr
        assert b"Traceback" not in done.stderr
        assert leaks(done.stdout + done.stderr, house.secrets) == [], words


def test_no_file_of_the_data_directory_holds_one(house):
    kept = {name: secret for name, secret in house.secrets.items() if name != "csrf"}  # a page must be told it again
    for path in (house.folder / "data").rglob("*"):
        if path.is_file():
            assert leaks(path.read_bytes(), kept) == [], path


def test_no_process_shows_one_in_its_command_or_its_environment(house):
    for pid in house.service.pids().values():
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert leaks(shown, house.secrets) == []


def test_an_unreachable_store_and_a_shipper_without_a_core_say_no_password(tmp_path):
    (tmp_path / "facts").write_text(SECRETS["facts"])
    (tmp_path / "ship").write_text(SECRETS["ship"])
    config = tmp_path / "mailvane.toml"
    config.write_text(
        f'[service]\ndata = "{tmp_path}/data"\nfacts = "clickhouse://user@127.0.0.1:{free_port()}/mailvane"\n'
        f'facts_password_file = "{tmp_path}/facts"\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[ship]\nto = "http://127.0.0.1:{free_port()}"\ntoken_file = "{tmp_path}/ship"\ndata = "{tmp_path}/shipped"\n'
        f'node = "here"\n[collector.log]\nkind = "sendlog"\npath = "{tmp_path}/log"\n'
    )
    for words in (["run", "--core-only"], ["check"], ["ship", "--check"], ["ship", "--once"]):
        done = subprocess.run(
            [*program(), "--config", str(config), *words], capture_output=True, check=False, timeout=60
        )
        assert words == ["check"] or done.returncode
        assert done.stdout or done.stderr
        assert leaks(done.stdout + done.stderr, SECRETS) == []


# values of ours


def parts(thing: object) -> Iterator[object]:
    """A value with all that is in it."""
    yield thing
    inner: Any = ()
    if isinstance(thing, BaseModel):
        inner = [getattr(thing, name) for name in type(thing).model_fields]
    elif is_dataclass(thing):
        inner = [getattr(thing, one.name) for one in fields(thing)]
    elif isinstance(thing, dict):
        inner = thing.values()
    elif isinstance(thing, list | tuple):
        inner = thing
    for one in inner:
        yield from parts(one)


def test_settings_and_plugins_show_none_however_they_are_written(house):
    settings = load(house.service.config)
    ship = load_ship(house.service.config)
    held = {one.get_secret_value() for one in [*parts(settings), *parts(ship)] if isinstance(one, SecretStr)}
    webhook = house.hook.url(f"/services/{SECRETS['hook']}")
    wanted = {secret for name, secret in SECRETS.items() if name not in ("person", "hook", "token")} | {
        WRAPPING,
        webhook,
    }
    assert wanted <= held  # the control: they are all there
    every = [*parts(settings), *parts(ship)]
    assert len(every) > 100
    for one in every:
        told = [repr(one), str(one), f"{one}", f"{one!r}"]
        if isinstance(one, BaseModel):
            told += [str(one.model_dump()), one.model_dump_json(), str(one.__rich_repr__), str(dict(one))]
        for text in told:
            assert leaks(text, house.secrets) == [], type(one)


def test_a_mistake_beside_a_secret_does_not_quote_it(tmp_path):
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(secret)
    hush = "hush-pl4nted-9z"
    config = tmp_path / "mailvane.toml"
    config.write_text(
        f'[service]\nfacts_password = "{hush}"\nfacts = "clickhouse://u:{hush}@host/x"\n'
        f'[access.oidc]\nclient_secret = "{hush}"\nissuer = "https://u:{hush}@host"\nclient_id = "x"\nurl = "https:{hush}@h"\n'
        f'[keyring]\nkey = "{hush}"\n'
        f'[ship]\nto = "https://u:{hush}@host"\ntoken = "{hush}"\n'
        f'[alert.a]\nkind = "slack"\ntoken = "{hush}"\nchanel = "{hush}x"\n'
        f'[alert.b]\nkind = "slack"\nwebhook_url = "https://hooks/{hush}"\n'
        f'[alert.c]\nkind = "slack"\ntoken_file = "{tmp_path}/slack"\nchannel = "C"\nbase_url = "https://u:{hush}@h/api/"\n'
        f'[collector.n]\nkind = "nats"\nstream = "x"\npassword = "{hush}"\nservers = ["nats://u:{hush}@h", "nats:u:{hush}@h"]\n'
        f'[collector.r]\nkind = "rabbitmq"\nqueue = "x"\nurl = "amqp://u:{hush}/x@h"\n'
        f'[collector.k]\nkind = "kafka"\ntopics = ["x"]\nservers = ["u:{hush}@h:1", "kafka://u:{hush}@h"]\n'
    )
    for read in (load, load_ship):
        with pytest.raises(ConfigError) as caught:
            read(config)
        assert len(caught.value.problems) >= 5
        assert hush not in str(caught.value)
        assert hush not in "".join(traceback.format_exception(caught.value))
    done = subprocess.run([*program(), "--config", str(config), "check"], capture_output=True, check=False, timeout=60)
    assert done.returncode
    assert hush.encode() not in done.stdout + done.stderr


def test_a_secret_from_the_environment_is_not_printed_either(tmp_path):
    config = tmp_path / "mailvane.toml"
    config.write_text('[alert.team]\nkind = "slack"\nchannel = "C"\nbase_url = "http://127.0.0.1:1/api/"\n')
    env = {**os.environ, "MAILVANE_ALERT_TEAM_TOKEN": SECRETS["slack"]}
    done = subprocess.run(
        [*program(), "--config", str(config), "check"], capture_output=True, check=False, env=env, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert leaks(done.stdout + done.stderr, SECRETS) == []


# What a name says is a secret, and what only sounds so.
WORDS = {"token", "secret", "password", "passwd", "cookie", "csrf", "authorization", "nonce", "access", "verifier"}
NONE = {
    ("Metadata", "token"),  # where a provider gives them
    ("Retention", "access"),  # how long the log of it is kept
    ("GateSettings", "access"),  # who may do what
    ("_Road", "put_cookie"),  # what puts one
    ("Clues", "token"),  # of clues nothing at all is shown
    ("Account", "token_url"),  # where tokens are given
    ("Letterbox", "_verifier"),  # knows others' public keys
}


def test_no_class_of_ours_has_a_secret_that_its_repr_would_show():
    shown = []
    for package in ("alerts", "collectors", "dashboards", "monitor"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for made in [
                node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)
            ]:
                for line in made.body:
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                        name, whole = line.target.id, ast.unparse(line)
                        safe = "SecretStr" in whole or "repr=False" in whole or "ClassVar" in whole
                        if WORDS & set(name.split("_")) and not safe and not name.endswith(("_file", "_files")):
                            shown.append((made.name, name))
    assert set(shown) <= NONE


# the last line


def formatted(error: Exception, **extra: object) -> list[str]:
    """As both kinds of log write it."""
    try:
        raise error
    except type(error) as caught:
        found = (type(caught), caught, caught.__traceback__)
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, f"went wrong: {caught}", (), found)
    vars(record).update(extra)
    assert str(error) in logging.Formatter().format(record)  # the control
    record.exc_text = None
    return [logs.Json().format(record), logs.Plain().format(record)]


@pytest.mark.parametrize("name", SECRETS)
def test_what_a_library_quotes_of_a_secret_is_not_printed(name):
    secret = SECRETS[name]
    hide(secret)
    for text in (
        f"no answer from https://mailvane:{quote(secret, safe='')}@host/x",
        f"bad header b'Authorization: Bearer {secret}'",
        f"sent Basic {b64encode(f'mailvane:{secret}'.encode()).decode()}",
        f"in {json.dumps({'password': secret})}",
        f"in { {'password': secret}!r}",
    ):
        for told in formatted(RuntimeError(text), url=text, parts=[text]):
            assert leaks(told, {name: secret}) == []
        assert leaks(str(PluginError(text, retry=True)), {name: secret}) == []


def test_a_key_of_ours_and_credentials_are_known_by_their_look():
    text = "mv_abcdefgh_" + "aB3" * 16 + "c"
    shown = hidden(
        f"GET /x?key={text} Authorization: Bearer abcdefghijklmnopqrstuv== and Basic YWxhZGRpbjpvcGVuc2VzYW1l"
    )
    assert text[:11] in shown
    for secret in (text[12:], "abcdefghijklmnop", "YWxhZGRpbjpvcGVu"):
        assert secret not in shown
    assert hidden("basic settings of the bearer") == "basic settings of the bearer"


@given(st.text(min_size=12, max_size=30), st.text(max_size=9), st.text(max_size=9))
def test_a_hidden_secret_stands_in_no_text_around_it(secret, before, after):
    hide(secret)
    for text in (before + secret + after, quote(before + secret + after, safe="")):
        assert secret not in hidden(text).replace("…", "")
        assert quote(secret, safe="") not in hidden(text)


def test_what_is_short_or_a_mere_word_is_no_secret_to_be_hidden():
    for text in ("guest", "mailvane", ""):
        hide(text)
    assert hidden("a guest came to mailvane") == "a guest came to mailvane"
