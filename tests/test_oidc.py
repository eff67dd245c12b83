"""People from an identity provider: whom we let in, and each way in which somebody could lie to us."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.cookiejar import CookieJar
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.access import tokens
from monitor.access.idp import metadata
from monitor.access.oidc import Provider
from monitor.access.signing_in import Refused, SigningIn, Vouched, Why
from monitor.api.oidc import here
from monitor.caller import Role
from monitor.config import ConfigError, parse
from monitor.http import Http
from monitor.ledger import access_log, people, sessions
from monitor.ledger.db import open_ledger
from monitor.settings import Access, Oidc
from monitor.telemetry import Telemetry
from tests.servers.idp import CLIENT, KEYS, OTHERS, SECRET, Claims, Idp, raw_token
from tests.servers.mailvane import Mailvane, mailvane
from tests.waiting import answers, free_port, until

URL = "http://127.0.0.1:8025"
NOW = datetime(2026, 11, 24, 9, 42, tzinfo=UTC)


class Clock:
    """Stands until it is set on; the provider's own goes by the machine's."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def idp() -> Iterator[Idp]:
    with Idp() as running:
        yield running


def settings(idp: Idp, **more: Any) -> Oidc:
    told = {"issuer": idp.issuer, "client_id": CLIENT, "client_secret": SECRET, "url": URL}
    return Oidc(**{**told, "roles": {"operator": ["ops"], "admin": ["chiefs"]}, **more})


def provider(idp: Idp, clock: Callable[[], datetime] | None = None, **more: Any) -> Provider:
    return Provider(settings(idp, **more), Http(["127.0.0.0/8"]), clock or Clock())


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def led(url: str) -> str:
    """Where a browser that asks for ``url`` is sent."""
    try:
        urllib.request.build_opener(_Stay).open(url, timeout=10)
    except urllib.error.HTTPError as error:
        with error:
            return str(error.headers["Location"])
    raise AssertionError(f"{url} leads nowhere")


def back(url: str) -> dict[str, str]:
    """What the browser brings back from the provider."""
    return dict(parse_qsl(urlsplit(led(url)).query))


def gone(one: Provider) -> Vouched:
    """The whole way."""
    url, cookie = one.begin("/")
    return one.end(back(url), cookie)


def why(act: Callable[[], object]) -> Why:
    with pytest.raises(Refused) as refused:
        act()
    assert SECRET not in str(refused.value)
    return refused.value.why


# ── The way, and what may be believed of it


@pytest.mark.parametrize("alg", sorted(KEYS))
def test_who_comes_back_with_a_good_token_is_vouched_for(idp: Idp, alg: str):
    idp.alg = alg
    assert gone(provider(idp)) == Vouched(f"{idp.issuer} u-1", "anna", Role.OPERATOR)
    assert idp.refused == []


def test_the_provider_is_told_where_to_lead_back_to_and_what_only_this_browser_knows(idp: Idp):
    url, cookie = provider(idp).begin("/?rate=bounce")
    query = dict(parse_qsl(urlsplit(url).query))
    assert url.startswith(f"{idp.issuer}/authorize?")
    assert query["redirect_uri"] == f"{URL}/v1/oidc/callback"
    assert len({query["state"], query["nonce"], query["code_challenge"]}) == 3
    assert all(len(query[name]) >= 43 for name in ("state", "nonce", "code_challenge"))
    assert not any(query[name] in cookie for name in ("state", "nonce"))  # sealed


def _hs256(header: Claims, claims: Claims) -> str:
    """Signed with the provider's public key, as if that were a secret."""
    unsigned = raw_token({**header, "alg": "HS256"}, claims).rstrip(".")
    key = KEYS["RS256"].as_pem(private=False)
    return (
        unsigned
        + "."
        + base64.urlsafe_b64encode(hmac.digest(key, unsigned.encode(), hashlib.sha256)).decode().rstrip("=")
    )


def _by_another(header: Claims, claims: Claims) -> str:
    from joserfc import jwt

    return jwt.encode(header, claims, OTHERS)


def _changed(header: Claims, claims: Claims) -> str:
    """Signed well, then made an admin."""
    from joserfc import jwt

    head, _, signature = jwt.encode(header, claims, KEYS["RS256"]).split(".")
    return ".".join([head, raw_token(header, {**claims, "groups": ["chiefs"]}).split(".")[1], signature])


TWISTS: dict[str, Callable[[Claims, Claims], object]] = {
    "another nonce": lambda _, claims: claims.update(nonce="an old one"),
    "no nonce": lambda _, claims: claims.pop("nonce"),
    "for another client": lambda _, claims: claims.update(aud="another"),
    "for us among others, for the use of another": lambda _, claims: claims.update(aud=[CLIENT, "another"], azp="another"),
    "for us among others, for the use of nobody": lambda _, claims: claims.update(aud=[CLIENT, "another"]),
    "of another issuer": lambda _, claims: claims.update(iss="https://elsewhere.example"),
    "of our issuer with a slash": lambda _, claims: claims.update(iss=claims["iss"] + "/"),
    "over": lambda _, claims: claims.update(exp=int(time.time()) - 120),
    "without an end": lambda _, claims: claims.pop("exp"),
    "with an end that is none": lambda _, claims: claims.update(exp="tomorrow"),
    "from the future": lambda _, claims: claims.update(iat=int(time.time()) + 3600),
    "not yet": lambda _, claims: claims.update(nbf=int(time.time()) + 3600),
    "of nobody": lambda _, claims: claims.pop("sub"),
    "of nobody by name": lambda _, claims: claims.update(sub=""),
    "beside another access token": lambda _, claims: claims.update(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "of an unknown key": lambda header, _: header.update(kid="unknown"),
}  # fmt: skip
SIGNS: dict[str, Callable[[Claims, Claims], str]] = {
    "by nobody": lambda header, claims: raw_token({**header, "alg": "none"}, claims),
    "by nobody, in other letters": lambda header, claims: raw_token({**header, "alg": "nOnE"}, claims),
    "without the signature": raw_token,
    "by the public key": _hs256,
    "by another key of that name": _by_another,
    "changed afterwards": _changed,
    "with a key of its own": lambda header, claims: raw_token({**header, "jwk": OTHERS.as_dict(private=False)}, claims),
    "no token": lambda _header, _claims: "what is this",
    "too long": lambda header, claims: raw_token(header, {**claims, "more": "x" * 40_000}),
}


@pytest.mark.parametrize("twist", TWISTS)
def test_a_token_that_says_something_else_than_it_must_lets_nobody_in(idp: Idp, twist: str):
    idp.twist = TWISTS[twist]
    if "unknown key" in twist:
        idp.sign = _by_another
    assert why(lambda: gone(provider(idp))) is Why.INVALID


@pytest.mark.parametrize("sign", SIGNS)
def test_a_token_that_is_not_signed_by_the_provider_lets_nobody_in(idp: Idp, sign: str):
    idp.sign = SIGNS[sign]
    assert why(lambda: gone(provider(idp))) is Why.INVALID


def test_a_token_with_the_right_hash_of_the_access_token_and_our_azp_is_good(idp: Idp):
    half = hashlib.sha256(b"an-access-token").digest()[:16]
    hashed = base64.urlsafe_b64encode(half).decode().rstrip("=")
    idp.twist = lambda _, claims: claims.update(at_hash=hashed, aud=[CLIENT, "another"], azp=CLIENT)
    assert gone(provider(idp)).name == "anna"


@given(st.text() | st.from_regex(r"[\w-]{0,40}(\.[\w-]{0,40}){1,6}", fullmatch=True) | st.binary().map(
    lambda raw: ".".join([base64.urlsafe_b64encode(raw).decode()] * 3)
))  # fmt: skip
def test_no_text_is_a_token_and_none_is_more_than_refused(text: str):
    keys = tokens.key_set({"keys": [key.as_dict(private=False) for key in KEYS.values()]})
    with pytest.raises(Refused):
        tokens.trusted(text, keys, tokens.Expected("https://id.example", CLIENT, "nonce"), NOW)


def test_a_state_is_good_once(idp: Idp):
    one = provider(idp)
    url, cookie = one.begin("/")
    query = back(url)
    assert one.end(query, cookie).name == "anna"
    assert why(lambda: one.end({**query, "code": back(url)["code"]}, cookie)) is Why.EXPIRED


def test_the_state_of_another_browser_is_no_good(idp: Idp):
    one = provider(idp)
    url, _ = one.begin("/")
    _, of_another = one.begin("/")
    assert why(lambda: one.end(back(url), of_another)) is Why.EXPIRED
    assert why(lambda: one.end(back(url), "")) is Why.EXPIRED
    assert why(lambda: one.end({}, of_another)) is Why.EXPIRED
    assert "POST /token" not in idp.asked


def test_a_way_is_over_after_ten_minutes_and_with_the_process(idp: Idp):
    clock = Clock()
    one = provider(idp, clock)
    url, cookie = one.begin("/")
    assert why(lambda: provider(idp).end(back(url), cookie)) is Why.EXPIRED
    clock.ahead = timedelta(minutes=11)
    assert why(lambda: one.end(back(url), cookie)) is Why.EXPIRED


def test_an_answer_of_another_provider_is_no_good(idp: Idp):
    idp.answer = {"iss": "https://elsewhere.example"}
    assert why(lambda: gone(provider(idp))) is Why.INVALID
    idp.answer, idp.about = {}, {"authorization_response_iss_parameter_supported": True}
    assert why(lambda: gone(provider(idp))) is Why.INVALID
    idp.answer = {"iss": idp.issuer}
    assert gone(provider(idp)).name == "anna"


def test_who_is_not_let_in_by_the_provider_or_turns_back_is_told_so(idp: Idp):
    idp.answer = {"code": "", "error": "access_denied", "error_description": "<b>no</b>"}
    with pytest.raises(Refused, match="access_denied") as refused:
        gone(provider(idp))
    assert refused.value.why is Why.DENIED
    idp.answer = {"code": "", "error": "<script>"}
    with pytest.raises(Refused, match="something else"):
        gone(provider(idp))


def test_a_code_that_is_none_lets_nobody_in(idp: Idp):
    idp.answer = {"code": "a guess"}
    assert why(lambda: gone(provider(idp))) is Why.INVALID
    assert idp.refused == ["invalid_grant"]


# ── What the provider says of itself


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "*"])
def test_a_provider_that_does_not_answer_as_it_should_is_told_as_such(idp: Idp, path: str):
    idp.failing[path] = 503
    assert why(lambda: gone(provider(idp))) is Why.UNREACHABLE


def test_a_provider_that_is_not_there_is_told_as_such():
    with Idp() as gone_by_then:
        pass
    assert why(lambda: provider(gone_by_then).begin("/")) is Why.UNREACHABLE


def test_after_a_while_a_provider_that_was_down_is_asked_again(idp: Idp):
    clock = Clock()
    one = provider(idp, clock)
    idp.failing["*"] = 500
    for _ in range(5):
        assert why(lambda: one.begin("/")) is Why.UNREACHABLE
    assert len(idp.asked) == 1
    idp.failing.clear()
    clock.ahead += timedelta(seconds=11)
    assert gone(one).name == "anna"


def test_what_a_provider_says_of_itself_is_asked_once_an_hour(idp: Idp):
    clock = Clock()
    one = provider(idp, clock)
    gone(one), gone(one)
    assert [idp.asked.count(f"GET {path}") for path in ("/.well-known/openid-configuration", "/keys")] == [1, 1]
    clock.ahead += timedelta(minutes=61)
    one.begin("/")
    assert idp.asked.count("GET /.well-known/openid-configuration") == 2


def test_a_new_key_of_the_provider_is_looked_for_but_not_for_every_unknown_one(idp: Idp):
    clock = Clock()
    one, idp.published = provider(idp, clock), [KEYS["ES256"].as_dict(private=False)]
    assert why(lambda: gone(one)) is Why.INVALID
    assert why(lambda: gone(one)) is Why.INVALID
    assert idp.asked.count("GET /keys") == 1
    idp.published = [KEYS["RS256"].as_dict(private=False)]
    clock.ahead += timedelta(seconds=31)
    assert gone(one).name == "anna"
    assert idp.asked.count("GET /keys") == 2


def test_keys_that_are_no_public_keys_for_signatures_are_left_out():
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}
    encrypting = {**KEYS["RS256"].as_dict(private=False), "use": "enc"}
    found = tokens.key_set({"keys": [secret, encrypting, 7, {"kty": "RSA"}, KEYS["EdDSA"].as_dict(private=False)]})
    assert [key.kid for key in found.keys] == ["ed"]
    assert why(lambda: tokens.key_set({"keys": [secret]})) is Why.UNREACHABLE
    assert why(lambda: tokens.key_set({"keys": "none"})) is Why.UNREACHABLE


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "https://elsewhere.example"},
        {"token_endpoint": None},
        {"authorization_endpoint": "http://elsewhere.example/authorize"},
        {"jwks_uri": "file:///etc/passwd"},
        {"userinfo_endpoint": "javascript:alert(1)"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_description_that_leads_elsewhere_is_not_followed(wrong: dict[str, Any]):
    issuer = "https://id.example"
    told = {
        "issuer": issuer,
        **dict.fromkeys(("authorization_endpoint", "token_endpoint", "jwks_uri"), f"{issuer}/x"),
    }
    assert metadata(told, issuer).userinfo == ""
    with pytest.raises(ValueError, match=r"issuer|URL|read on the way"):
        metadata({**told, **wrong}, issuer)


def test_a_provider_in_a_private_network_is_asked_only_where_that_is_allowed(idp: Idp):
    one = Provider(settings(idp), Http(), Clock())
    assert why(lambda: one.begin("/")) is Why.UNREACHABLE
    assert idp.asked == []


# ── Who the person is, and what it may do


def claimed(**claims: Any) -> dict[str, Any]:
    return {"sub": "u-1", "preferred_username": "anna", "groups": ["ops"], **claims}


def oidc(**more: Any) -> Oidc:
    told = {"issuer": "https://id.example", "client_id": "c", "url": "https://mailvane.example"}
    return Oidc(**{**told, "roles": {"viewer": ["all"], "operator": ["ops"], "admin": ["chiefs"]}, **more})


@pytest.mark.parametrize(
    ("groups", "role"),
    [(["all", "ops"], Role.OPERATOR), (["chiefs", "ops", "all"], Role.ADMIN), ("ops", Role.OPERATOR), (["all", 7], Role.VIEWER)],
    ids=["two", "three", "one as text", "one beside nonsense"],
)  # fmt: skip
def test_the_strongest_of_ones_groups_says_the_role(groups: object, role: Role):
    assert tokens.vouched(claimed(groups=groups), oidc()).role is role


@pytest.mark.parametrize("groups", [[], ["sales"], None, "Ops", {"ops": True}, [["ops"]]], ids=repr)
def test_who_is_in_no_group_with_a_role_does_not_come_in(groups: object):
    with pytest.raises(Refused) as refused:
        tokens.vouched(claimed(groups=groups), oidc())
    assert (refused.value.why, refused.value.of) == (Why.ROLE, "anna")
    assert tokens.vouched(claimed(groups=groups), oidc(everybody="viewer")).role is Role.VIEWER


def test_groups_may_stand_deeper_or_under_a_name_with_dots():
    deep = {"realm_access": {"roles": ["chiefs"]}, "groups": []}
    assert tokens.vouched(claimed(**deep), oidc(groups="realm_access.roles")).role is Role.ADMIN
    dotted = {"https://mailvane.example/roles": ["chiefs"]}
    assert tokens.vouched(claimed(**dotted), oidc(groups="https://mailvane.example/roles")).role is Role.ADMIN


@pytest.mark.parametrize(
    ("claims", "fine"),
    [
        ({"email": "anna@example.com", "email_verified": True}, True),
        ({"email": "anna@EXAMPLE.com", "email_verified": "true"}, True),
        ({"email": "anna@example.com", "email_verified": False}, False),
        ({"email": "anna@example.com"}, False),
        ({"email": "anna@example.com.evil.example", "email_verified": True}, False),
        ({"email": "anna@evilexample.com", "email_verified": True}, False),
        ({"email": "example.com@evil.example", "email_verified": True}, False),
        ({"email": ["anna@example.com"], "email_verified": True}, False),
    ],
    ids=["verified", "other case", "not verified", "nobody says", "a longer one", "another", "as a name", "a list"],
)
def test_only_verified_addresses_of_the_domains_come_in(claims: dict[str, Any], *, fine: bool):
    one = oidc(domains=["example.com"])
    if fine:
        assert tokens.vouched(claimed(**claims), one).name == "anna"
    else:
        assert why(lambda: tokens.vouched(claimed(**claims), one)) is Why.DOMAIN


@pytest.mark.parametrize("name", [None, "", "automation", "a:b", "anna\nroot", "x" * 101, 7], ids=repr)
def test_who_can_t_be_called_anything_does_not_come_in(name: object):
    assert why(lambda: tokens.vouched(claimed(preferred_username=name), oidc())) is Why.NAME


def test_what_the_token_does_not_say_is_asked_of_the_provider_and_must_be_of_the_same_person(idp: Idp):
    idp.claims = {"sub": "u-1", "preferred_username": "anna"}
    idp.userinfo = {"groups": ["chiefs"], "preferred_username": "somebody-else"}
    assert gone(provider(idp)) == Vouched(f"{idp.issuer} u-1", "anna", Role.ADMIN)
    idp.userinfo = {"groups": ["chiefs"], "sub": "u-2"}
    assert why(lambda: gone(provider(idp))) is Why.INVALID


# ── Accounts


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[SigningIn, Any]]:
    ledger = open_ledger(tmp_path / "ledger.sqlite")
    notes: list[tuple[str, str, str, str]] = []
    made = SigningIn(ledger, Access(oidc=oidc()), Clock(), Telemetry("1").sign_ins, lambda *note: notes.append(note))
    yield made, ledger
    ledger.dispose()


def test_the_first_sign_in_makes_an_account_and_the_next_ones_follow_the_groups(door: tuple[SigningIn, Any]):
    signing, ledger = door
    _, first = signing.by_provider(Vouched("i u-1", "anna", Role.OPERATOR), "192.0.2.1")
    _, second = signing.by_provider(Vouched("i u-1", "anna", Role.VIEWER), "192.0.2.1", first.id)
    assert (first.role, second.role, second.way) == (Role.OPERATOR, Role.VIEWER, "oidc")
    assert second.expires_at - second.made_at == timedelta(hours=24)
    with ledger.connect() as conn:
        assert [(one.name, one.role, one.way) for one in people.every(conn)] == [("anna", Role.VIEWER, "oidc")]
        assert [one.id for one in sessions.known(conn, Clock()()).values()] == [second.id]
        noted = [(entry.did, entry.on, entry.result) for entry in access_log.newest(conn, 9)]
    assert noted == [
        ("sign-in", "oidc", "done"),
        ("role changed", "anna", "done"),
        ("sign-in", "oidc", "done"),
        ("person added", "anna", "done"),
    ]


def test_nobody_gets_anothers_account_by_its_name_nor_a_disabled_one_by_a_new_name(door: tuple[SigningIn, Any]):
    signing, ledger = door
    signing.by_provider(Vouched("i u-1", "anna", Role.OPERATOR), "192.0.2.1")
    assert why(lambda: signing.by_provider(Vouched("i u-2", "anna", Role.ADMIN), "192.0.2.1")) is Why.TAKEN
    with ledger.begin() as conn:
        people.change(conn, "anna", disabled_at=NOW)
    renamed = Vouched("i u-1", "hanna", Role.OPERATOR)
    assert why(lambda: signing.by_provider(renamed, "192.0.2.1")) is Why.DISABLED


def test_the_role_that_a_person_no_longer_has_ends_with_the_sessions_that_had_it(door: tuple[SigningIn, Any]):
    signing, ledger = door
    signing.by_provider(Vouched("i u-1", "anna", Role.ADMIN), "192.0.2.1")
    _, second = signing.by_provider(Vouched("i u-1", "anna", Role.VIEWER), "192.0.2.9")
    with ledger.connect() as conn:
        assert [one.id for one in sessions.known(conn, Clock()()).values()] == [second.id]


# ── Links


@given(st.text(alphabet="/\\.:@?#%aeilvx\t\n ", max_size=12) | st.text())
def test_nobody_is_led_elsewhere_by_a_link_to_us(text: str):
    there = here(text)
    assert there.startswith("/")
    assert urlsplit(urljoin("https://mailvane.example/v1/oidc/callback", there)).netloc == "mailvane.example"
    assert "\\" not in there
    assert not there.startswith("//")


def test_a_path_of_ours_is_kept_as_it_is():
    assert here("/?rate=bounce#series") == "/?rate=bounce#series"
    assert [here(text) for text in ("", "//e.example", "/\\e.example", "https://e.example", "/\te", "/a b")] == [
        "/"
    ] * 6


# ── Settings


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"issuer": "http://id.example"}, "access.oidc.issuer: 'http://id.example' could be read on the way"),
        ({"url": "https://user:pw@m.example"}, "access.oidc.url"),
        ({"roles": {}}, "no role for anybody"),
        ({"roles": {"chief": ["x"]}}, "access.oidc.roles.chief"),
        ({"client_secret": "x"}, "access.oidc.client_secret: a secret must not stand in this file"),
        ({"isuer": "x"}, "did you mean issuer?"),
    ],
    ids=["plain", "credentials", "no role", "unknown role", "secret", "unknown key"],
)
def test_a_mistake_in_the_section_is_told_with_its_path(more: dict[str, Any], told: str):
    table = {"issuer": "https://id.example", "client_id": "c", "url": "https://m.example", "roles": {"admin": ["a"]}}
    assert parse({"access": {"oidc": table, "local": False}}, "test").access.oidc is not None
    with pytest.raises(ConfigError) as error:
        parse({"access": {"oidc": {**table, **more}}}, "test")
    assert told in str(error.value)
    assert "pw" not in str(error.value)


def test_a_service_in_which_nobody_could_sign_in_is_a_mistake():
    with pytest.raises(ConfigError, match=r"local = false without \[access.oidc\]"):
        parse({"access": {"local": False}}, "test")


# ── The whole, against somebody else's reading of the standard


@contextmanager
def mock(port: int, *claims: dict[str, Any]) -> Iterator[str]:
    """An identity provider that others wrote; its issuer."""
    words = [part for one in claims for part in ("--user-claims", json.dumps(one))]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "-p", str(port), "-n", "true", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port) or process.poll() is not None, "the provider to answer")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailvane, str]]:
    if find_spec("oidc_provider_mock") is None:
        pytest.skip("no identity provider is installed")
    folder, port = tmp_path_factory.mktemp("oidc"), free_port()
    (folder / "secret").write_text(SECRET)
    everybody = [
        {"sub": "1", "preferred_username": "Anna", "groups": ["ops"], "email": "anna@example.com"},
        {"sub": "2", "preferred_username": "Zoe", "groups": ["sales"]},
    ]
    tables = (
        f'[outgoing]\nallow = ["127.0.0.0/8"]\n[access]\nlocal = false\n[access.oidc]\n'
        f'issuer = "http://127.0.0.1:{port}"\nclient_id = "mailvane"\nclient_secret_file = "{folder / "secret"}"\n'
        f'url = "{URL}"\n[access.oidc.roles]\noperator = ["ops"]\n'
    )
    with mock(port, *everybody) as issuer, mailvane(folder, tables) as service:
        yield service, issuer


class Browser:
    """Keeps cookies, and goes only where it is told to."""

    def __init__(self, service: Mailvane) -> None:
        self.url, self.jar = service.url, CookieJar()
        self._opener = urllib.request.build_opener(_Stay, urllib.request.HTTPCookieProcessor(self.jar))

    def ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, Any, str]:
        """Status, headers, body."""
        url = path if path.startswith("http") else self.url + path
        body = urlencode(form).encode() if form else None
        try:
            with self._opener.open(urllib.request.Request(url, body), timeout=20) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    def through(self, sub: str, there: str = "/") -> tuple[int, Any, str]:
        """To the provider, its form filled in, and back."""
        _, headers, _ = self.ask("/v1/oidc/login?next=" + quote(there, safe=""))
        _, headers, _ = self.ask(headers["Location"], {"sub": sub})
        return self.ask(headers["Location"].replace(URL, self.url))


def test_a_person_signs_in_at_a_provider_that_others_wrote(house: tuple[Mailvane, str]):
    service, _ = house
    browser = Browser(service)
    status, headers, page = browser.through("1", "/?rate=bounce&x=1")
    assert (status, 'content="0;url=/?rate=bounce&amp;x=1"' in page) == (200, True)
    given = "\n".join(headers.get_all("Set-Cookie"))
    assert "mailvane_session=" in given
    assert "HttpOnly; Path=/; SameSite=strict" in given
    assert json.loads(browser.ask("/v1/me")[2])["name"] == "person:anna"
    assert json.loads(browser.ask("/v1/session/ways")[2])["person"] == "anna"
    listed = service.command("people", "list")
    assert "anna: operator, oidc, last signed in" in listed
    service.command("people", "disable", "anna")
    until(lambda: browser.ask("/v1/me")[0] == 401, "the session to end", 2)
    assert "why=disabled" in browser.through("1")[1]["Location"]
    service.command("people", "enable", "anna")


def test_who_has_no_role_is_told_so_and_who_comes_with_a_state_of_nobody_s_too(house: tuple[Mailvane, str]):
    service, _ = house
    browser = Browser(service)
    status, headers, _ = browser.through("2", "/?a")
    assert (status, headers["Location"]) == (303, "/login?why=role&next=%2F%3Fa")
    assert "mailvane_session" not in str(headers)
    status, headers, _ = browser.ask("/v1/oidc/callback?code=x&state=y")
    assert (status, headers["Location"]) == (303, "/login?why=expired&next=%2F")
    noted = service.command("audit", "list")
    assert "refused: role" in noted


def test_the_cookie_of_the_way_is_only_for_it(house: tuple[Mailvane, str]):
    service, _ = house
    _, headers, _ = Browser(service).ask("/v1/oidc/login?next=//elsewhere.example")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly; Max-Age=600; Path=/; SameSite=lax" in cookie
    assert headers["Location"].startswith(house[1])


def test_who_guesses_codes_is_kept_from_asking_the_provider_through_us(house: tuple[Mailvane, str]):
    service, _ = house
    browser = Browser(service)
    places = []
    for _ in range(7):
        _, headers, _ = browser.ask("/v1/oidc/login")
        state = dict(parse_qsl(urlsplit(headers["Location"]).query)).get("state", "")
        places.append(browser.ask(f"/v1/oidc/callback?code=guess&state={state}")[1]["Location"])
    assert "why=invalid" in places[0]
    assert "why=locked&seconds=60" in places[-1]
