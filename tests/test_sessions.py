"""Who is signed in: for how long, from which page, and how soon it is over once somebody says so."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from monitor.access import people as accounts
from monitor.access.sessions import COOKIE, COOKIES, MOST, Sessions, begin
from monitor.caller import Role
from monitor.ledger import sessions
from monitor.ledger.db import open_ledger
from tests.servers.mailvane import Mailvane, mailvane
from tests.waiting import until

NOW = datetime(2026, 11, 24, 9, 42, tzinfo=UTC)
PASSWORD = "four words are better"
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Engine]:
    made = open_ledger(tmp_path / "ledger.sqlite")
    yield made
    made.dispose()


def signed_in(ledger: Engine, person: str = "anna", now: datetime = NOW, **more: Any) -> tuple[str, sessions.Session]:
    with ledger.begin() as conn:
        return begin(conn, person, Role.OPERATOR, way="local", now=now, **more)


# ── For how long


def test_a_session_is_found_by_its_cookie_and_by_no_other(ledger: Engine):
    cookie, session = signed_in(ledger)
    known = Sessions(ledger)
    assert known.find(cookie, NOW) == session
    assert known.named(session.id, NOW) == session
    for other in ("", cookie[:-1], cookie + "x", session.id, session.csrf, "x" * 5000, "ż"):
        assert known.find(other, NOW) is None


def test_the_ledger_has_no_cookie_only_its_digest(ledger: Engine, tmp_path: Path):
    cookie, session = signed_in(ledger)
    ledger.dispose()
    held = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.sqlite*"))
    assert session.id.encode() in held
    assert sha256(cookie.encode()).digest() in held
    assert cookie.encode() not in held


def test_a_session_ends_after_seven_days_and_after_twelve_hours_of_doing_nothing(ledger: Engine):
    cookie, _ = signed_in(ledger)
    known = Sessions(ledger)
    for hours in range(0, 7 * 24, 8):
        assert known.find(cookie, NOW + hours * HOUR)
    assert known.find(cookie, NOW + timedelta(days=7)) is None
    idle, _ = signed_in(ledger)
    assert Sessions(ledger).find(idle, NOW + 12 * HOUR)
    assert Sessions(ledger).find(idle, NOW + 12 * HOUR + timedelta(seconds=1)) is None


@given(st.lists(st.integers(0, 30), max_size=20))
def test_a_session_goes_on_just_as_long_as_no_pause_is_over_the_limit(pauses: list[int]):
    session = sessions.Session("id", "anna", Role.VIEWER, "local", "csrf", NOW, NOW, NOW + timedelta(days=7))
    known = Sessions(None)  # type: ignore[arg-type]  # what it knows is given here
    known._known, known._tried, known._read = {sha256(b"cookie").digest(): session}, float("inf"), float("inf")
    now, alive = NOW, True
    for hours in pauses:
        now += timedelta(hours=hours)
        alive = alive and hours <= 12 and now < session.expires_at
        assert (known.find("cookie", now) is not None) == alive
        if not alive:
            break


def test_when_a_session_was_last_used_outlives_the_process(ledger: Engine):
    cookie, session = signed_in(ledger)
    first = Sessions(ledger)
    first.find(cookie, NOW + 10 * HOUR)
    with ledger.begin() as conn:
        sessions.seen(conn, first.taken())
    assert first.taken() == {}
    assert Sessions(ledger).find(cookie, NOW + 20 * HOUR)
    assert session.seen_at == NOW


def test_one_person_has_twenty_sessions_at_most_and_the_oldest_ends(ledger: Engine):
    cookies = [signed_in(ledger, now=NOW + turn * timedelta(seconds=1))[0] for turn in range(MOST + 3)]
    other, _ = signed_in(ledger, "zoe")
    known, later = Sessions(ledger), NOW + HOUR
    assert [known.find(cookie, later) is not None for cookie in cookies] == [False] * 3 + [True] * MOST
    assert known.find(other, later)


def test_sessions_that_ended_a_month_ago_are_forgotten(ledger: Engine):
    signed_in(ledger)
    signed_in(ledger, now=NOW + timedelta(days=38))
    with ledger.connect() as conn:
        assert conn.exec_driver_sql("select count(*) from sessions").scalar_one() == 1


def test_while_the_ledger_can_t_be_read_sessions_go_on_for_half_a_minute_and_then_nobody_is_signed_in(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
):
    cookie, session = signed_in(ledger)
    known = Sessions(ledger)
    assert known.find(cookie, NOW) == session
    with ledger.begin() as conn:
        conn.exec_driver_sql("alter table sessions rename to gone")
    known.anew()
    assert known.find(cookie, NOW) == session
    known._read -= 31
    assert known.find(cookie, NOW) is None
    with ledger.begin() as conn:
        conn.exec_driver_sql("alter table gone rename to sessions")
    known.anew()
    assert known.find(cookie, NOW) == session


# ── The service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailvane]:
    folder = tmp_path_factory.mktemp("sessions")
    ledger = open_ledger(folder / "data/ledger.sqlite")
    with ledger.begin() as conn:
        for role in Role:
            accounts.add(conn, str(role), role, PASSWORD, now=datetime.now(UTC), by="test")
    ledger.dispose()
    with mailvane(folder, "[access]\n") as running:
        yield running


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def told(self) -> Any:
        return json.loads(self.body)


def ask(service: Mailvane, method: str, path: str, told: Any = None, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = None
    if told is not None:
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        sent.setdefault("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(
            urllib.request.Request(service.url + path, body, sent, method=method), timeout=20
        ) as got:
            return Answer(got.status, got.headers, got.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def enter(service: Mailvane, name: str = "admin", password: str = PASSWORD, **headers: str) -> Answer:
    return ask(service, "POST", "/v1/session", {"name": name, "password": password}, **headers)


def carried(answer: Answer) -> Mapping[str, str]:
    """What a page of ours sends along from then on."""
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0], "X_CSRF_Token": answer.told["csrf"]}


def test_who_signs_in_gets_a_cookie_that_no_script_reads_and_no_other_page_sends(service: Mailvane):
    answer = enter(service, "operator")
    assert answer.status == 200
    assert (answer.told["person"], answer.told["role"]) == ("operator", "operator")
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    assert name == COOKIE
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= {part.strip() for part in rest.split(";")}
    assert "Domain" not in rest
    assert answer.headers["Cache-Control"] == "no-store"
    me = ask(service, "GET", "/v1/me", **carried(answer)).told
    assert (me["name"], me["csrf"]) == ("person:operator", answer.told["csrf"])


def test_by_https_the_cookie_is_secure_and_of_this_host_alone(service: Mailvane):
    answer = enter(service, "operator", X_Forwarded_Proto="https")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIES[0]}=")
    assert "; Secure" in cookie


def test_a_wrong_password_and_an_unknown_name_are_told_alike(service: Mailvane):
    answers = [enter(service, "viewer", "wrong"), enter(service, "nobody-at-all", "wrong")]
    assert [one.status for one in answers] == [401, 401]
    assert answers[0].body == answers[1].body
    assert answers[0].headers.get("Set-Cookie") is None


def test_a_sixth_wrong_password_must_wait_and_is_told_for_how_long(service: Mailvane):
    for _ in range(5):
        assert enter(service, "somebody-locked", "wrong").status == 401
    answer = enter(service, "somebody-locked", "wrong")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "60")
    assert enter(service).status == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"name=admin&password=x", "application/x-www-form-urlencoded", 415),
        (b'{"name": "admin", "password": "x"}', "text/plain", 415),
        (b"{", "application/json", 422),
        (b'{"name": "admin"}', "application/json", 422),
        (b'{"name": "admin", "password": "x", "role": "admin"}', "application/json", 422),
        (b'{"name": ["admin"], "password": "x"}', "application/json", 422),
        (b'{"name": "admin", "password": "' + b"x" * 5000 + b'"}', "application/json", 413),
        (b"[" * 4000, "application/json", 422),
    ],
    ids=["form", "text", "no JSON", "no password", "more", "a list", "too large", "deep"],
)
def test_what_is_no_sign_in_is_refused_without_telling_what_was_sent(
    service: Mailvane, body: bytes, kind: str, status: int
):
    answer = ask(service, "POST", "/v1/session", body, Content_Type=kind)
    assert answer.status == status
    assert {"error", "remedy"} == set(answer.told)
    assert "admin" not in answer.told["error"]


@pytest.mark.parametrize(
    "headers", [{"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
    ids=["another site", "a sibling", "another origin", "no origin"],
)  # fmt: skip
def test_no_other_page_signs_anybody_in_or_does_anything_for_who_is(service: Mailvane, headers: dict[str, str]):
    assert enter(service, **headers).status == 403
    known = carried(enter(service))
    assert ask(service, "DELETE", "/v1/session", **known, **headers).status == 403
    assert ask(service, "GET", "/v1/me", **known).status == 200


def test_whatever_changes_something_needs_the_token_of_that_very_session(service: Mailvane):
    known, other = carried(enter(service)), carried(enter(service))
    wish = {"deed": "pause", "scope": {"tenant": "x"}, "why": "a test"}
    assert ask(service, "POST", "/v1/actions", wish, Cookie=known["Cookie"]).status == 403
    mixed = {"Cookie": known["Cookie"], "X_CSRF_Token": other["X_CSRF_Token"]}
    assert ask(service, "POST", "/v1/actions", wish, **mixed).status == 403
    assert ask(service, "POST", "/v1/actions", wish, **known).status == 201


def test_who_signs_in_again_gets_another_session_and_the_old_one_is_over(service: Mailvane):
    first = carried(enter(service))
    second = carried(enter(service, **first))
    assert first["Cookie"] != second["Cookie"]
    assert ask(service, "GET", "/v1/me", Cookie=first["Cookie"]).status == 401
    assert ask(service, "GET", "/v1/me", Cookie=second["Cookie"]).status == 200


def test_a_cookie_that_somebody_else_chose_is_never_a_session(service: Mailvane):
    chosen = f"{COOKIE}=" + "a" * 43
    answer = enter(service, Cookie=chosen)
    assert answer.status == 200
    assert "a" * 43 not in answer.headers["Set-Cookie"]
    assert ask(service, "GET", "/v1/me", Cookie=chosen).status == 401


def test_who_signs_out_is_out_at_once(service: Mailvane):
    known = carried(enter(service))
    answer = ask(service, "DELETE", "/v1/session", **known)
    assert answer.status == 204
    assert {cookie.partition("=")[0] for cookie in answer.headers.get_all("Set-Cookie")} == set(COOKIES)
    assert ask(service, "GET", "/v1/me", Cookie=known["Cookie"]).status == 401


def test_an_admin_sees_who_is_signed_in_and_signs_them_out(service: Mailvane):
    admin, viewer = carried(enter(service)), carried(enter(service, "viewer"))
    told = ask(service, "GET", "/v1/sessions", **admin).told["sessions"]
    assert [one["person"] for one in told if one["this"]] == ["admin"]
    theirs = next(one for one in reversed(told) if one["person"] == "viewer")
    people = ask(service, "GET", "/v1/people", **admin).told["people"]
    assert {one["name"]: one["way"] for one in people} == {"admin": "local", "operator": "local", "viewer": "local"}
    assert next(one for one in people if one["name"] == "viewer")["sessions"] >= 1
    assert ask(service, "GET", "/v1/sessions", **viewer).status == 403
    assert ask(service, "DELETE", f"/v1/sessions/{theirs['id']}", **admin).status == 204
    assert ask(service, "GET", "/v1/me", **viewer).status == 401
    assert ask(service, "DELETE", f"/v1/sessions/{theirs['id']}", **admin).status == 404


@pytest.mark.parametrize(
    "words", [("sign-out", "operator"), ("role", "operator", "viewer")], ids=["signed out", "role"]
)
def test_by_the_command_a_session_is_over_within_a_second(service: Mailvane, words: tuple[str, ...]):
    known = carried(enter(service, "operator"))
    service.command("people", *words)
    began = time.monotonic()
    until(lambda: ask(service, "GET", "/v1/me", **known).status == 401, "the session to end", 5)
    assert time.monotonic() - began < 1


def test_no_password_and_no_cookie_is_in_any_file_or_in_the_log(service: Mailvane):
    known = carried(enter(service))
    enter(service, "viewer", "a-wrong-one-4711")
    cookie = known["Cookie"].partition("=")[2]
    places = [*service.config.parent.joinpath("data").rglob("*"), service.log]
    held = [(path, path.read_bytes()) for path in places if path.is_file()]
    assert any(b"/v1/session" in text or b"sign-in" in text for _, text in held)
    for secret in (PASSWORD, cookie, known["X_CSRF_Token"], "a-wrong-one-4711"):
        found = [path.name for path, text in held if secret.encode() in text]
        # The token that goes with a session is the ledger's to know: without the cookie it opens nothing.
        assert [name for name in found if secret != known["X_CSRF_Token"] or "ledger" not in name] == []
