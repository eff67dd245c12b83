"""The page where people sign in, in a real browser against the service itself, and with a provider that others wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest

from monitor.access import people as accounts
from monitor.caller import Role
from monitor.ledger.db import open_ledger
from tests.servers.api import PAGE
from tests.servers.mailvane import Mailvane, mailvane
from tests.test_oidc import SECRET, mock
from tests.test_page import CHROMIUM, FLAGS
from tests.waiting import free_port, until

PASSWORD = "four words are better"
FILES = [PAGE / name for name in ("login.html", "login.js", "login.css")]


# ── Laws of the files, without a browser


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_of_the_page_holds_inline_code_or_leads_outside(path):
    text = path.read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    assert not re.search(r"https?://", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", text)


def test_every_file_that_the_page_names_is_there():
    named = re.findall(r'(?:href|src)="static/([^"]+)"', FILES[0].read_text("utf-8"))
    assert named
    assert [name for name in named if not (PAGE / name).is_file()] == []


# ── In the browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: the page is not looked at")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailvane]:
    """People have passwords here."""
    folder = tmp_path_factory.mktemp("login")
    ledger = open_ledger(folder / "data/ledger.sqlite")
    with ledger.begin() as conn:
        for name in ("anna", "zoe"):
            accounts.add(conn, name, Role.OPERATOR, PASSWORD, now=datetime.now(UTC), by="test")
    ledger.dispose()
    with mailvane(folder, "[access]\n") as service:
        yield service


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailvane, Any]]:
    """People come from a provider, which can be ended; there is a break-glass account."""
    if find_spec("oidc_provider_mock") is None:
        pytest.skip("no identity provider is installed")
    folder, port = tmp_path_factory.mktemp("abroad"), free_port()
    (folder / "secret").write_text(SECRET)
    ledger = open_ledger(folder / "data/ledger.sqlite")
    with ledger.begin() as conn:
        accounts.add(conn, "glass", Role.ADMIN, PASSWORD, now=datetime.now(UTC), by="test", break_glass=True)
    ledger.dispose()
    own = free_port()
    tables = (
        '[outgoing]\nallow = ["127.0.0.0/8"]\n[access]\nlocal = false\n[access.oidc]\nlabel = "Example accounts"\n'
        f'issuer = "http://127.0.0.1:{port}"\nclient_id = "mailvane"\nclient_secret_file = "{folder / "secret"}"\n'
        f'url = "http://127.0.0.1:{own}"\n[access.oidc.roles]\noperator = ["ops"]\n'
    )
    person = {"sub": "1", "preferred_username": "Anna", "groups": ["ops"]}
    with ExitStack() as provider:
        provider.enter_context(mock(port, person, {"sub": "2", "preferred_username": "Zoe"}))
        with mailvane(folder, tables, port=own) as service:
            yield service, provider


class Tab:
    """One browser window on the page, with all that it complained about."""

    def __init__(self, browser: Any, service: Mailvane, path: str = "/login", **options: Any) -> None:
        shape = {
            "viewport": {"width": 1280, "height": 900},
            "timezone_id": "Europe/Warsaw",
            "locale": "en-GB",
            **options,
        }
        self.context = browser.new_context(**shape)
        # The provider's own page wants a style from elsewhere.
        self.context.route(lambda url: not url.startswith("http://127.0.0.1:"), lambda route: route.abort())
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.complaints: list[str] = []
        self.url = service.url
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(service.url + path)

    def _hear(self, message: Any) -> None:
        # The browser itself writes down an answer of 401 or 429; the page is not to blame.
        ours = message.location["url"].startswith(self.url)
        told = "the server responded with a status of" in message.text
        if message.type in ("error", "warning") and ours and not told:
            self.complaints.append(message.text)

    def ready(self) -> None:
        self.page.locator("#main[aria-busy=false]").wait_for()

    def fill(self, name: str, password: str) -> None:
        self.page.get_by_label("Name", exact=True).fill(name)
        self.page.get_by_label("Password", exact=True).fill(password)

    def alert(self, text: str) -> str:
        """What the page says is wrong, once that holds the text."""
        found = self.page.get_by_role("alert").filter(has_text=text)
        found.wait_for()
        return str(found.inner_text())

    def at(self, path: str) -> None:
        self.page.wait_for_url(self.url + path, wait_until="commit")


@pytest.fixture
def tab(browser, local) -> Iterator[Any]:
    opened: list[Tab] = []

    def at(path: str = "/login", service: Mailvane | None = None, **options: Any) -> Tab:
        opened.append(Tab(browser, service or local, path, **options))
        opened[-1].ready()
        return opened[-1]

    yield at
    for one in opened:
        one.context.close()
    assert [one.complaints for one in opened if one.complaints] == []


def test_who_is_not_signed_in_is_led_to_sign_in_and_back_to_the_page_that_was_wanted(tab):
    one = tab("/?rate=deferral")
    assert one.page.url == f"{one.url}/login?next=%2F%3Frate%3Ddeferral"
    one.fill("Anna", PASSWORD)
    one.page.get_by_role("button", name="Sign in", exact=True).click()
    one.at("/?rate=deferral")
    one.page.get_by_text("Signed in: anna").wait_for()


def test_by_keyboard_alone_one_signs_in_and_out(tab):
    one = tab()
    assert one.page.evaluate("document.activeElement.id") == "name"
    one.page.keyboard.type("anna")
    one.page.keyboard.press("Tab")
    one.page.keyboard.type(PASSWORD)
    one.page.keyboard.press("Enter")
    one.at("/")
    leave = one.page.get_by_role("button", name="Sign out")
    leave.wait_for()
    leave.press("Enter")
    one.at("/login")
    one.ready()
    one.page.goto(one.url + "/")
    assert one.page.url.startswith(f"{one.url}/login?next=")


def test_a_wrong_password_is_told_the_field_is_marked_and_ready_for_the_next_try(tab):
    one = tab()
    one.fill("zoe", "a wrong one")
    one.page.keyboard.press("Enter")
    assert one.alert("No such name, or another password.")
    field = one.page.locator("#password")
    assert field.get_attribute("aria-invalid") == "true"
    assert one.page.evaluate("document.activeElement.id") == "password"
    one.page.keyboard.type(PASSWORD)  # over the wrong one, which is selected
    one.page.keyboard.press("Enter")
    one.at("/")


def test_nothing_is_sent_while_a_field_is_empty(tab):
    one = tab()
    sent: list[str] = []
    one.page.on("request", lambda request: sent.append(request.url))
    one.page.keyboard.press("Enter")
    assert one.alert("Write your name.")
    one.page.get_by_label("Name", exact=True).fill("anna")
    one.page.keyboard.press("Enter")
    assert one.alert("Write your password.")
    assert sent == []


def test_who_must_wait_is_told_until_when(tab):
    one = tab()
    for turn in range(6):
        one.fill("guessed", f"wrong {turn}")
        with one.page.expect_response("**/v1/session"):
            one.page.keyboard.press("Enter")
        one.page.locator("#go[aria-disabled=false]").wait_for()
    told = one.alert("Too many tries from here.")
    assert re.search(r"Try again at \d\d:\d\d, in 60 s\. From elsewhere you can sign in now\.", told)


def test_a_password_can_be_shown_and_hidden_again(tab):
    one = tab()
    one.fill("anna", "what I typed")
    one.page.get_by_role("button", name="Show password").click()
    assert one.page.locator("#password").get_attribute("type") == "text"
    one.page.get_by_role("button", name="Hide password").click()
    assert one.page.locator("#password").get_attribute("type") == "password"


def test_who_is_signed_in_already_goes_straight_on(tab):
    one = tab()
    one.fill("anna", PASSWORD)
    one.page.keyboard.press("Enter")
    one.at("/")
    one.page.goto(one.url + "/login?next=%2F%3Fa%3D1")
    one.at("/?a=1")


def test_when_the_session_ends_the_page_leads_to_sign_in(tab, local):
    one = tab()
    one.fill("zoe", PASSWORD)
    one.page.keyboard.press("Enter")
    one.at("/")
    local.command("people", "sign-out", "zoe")
    one.page.wait_for_url("**/login?next=%2F", wait_until="commit")


def test_no_link_leads_from_the_page_to_another_site(tab):
    one = tab("/login?next=" + quote("//evil.example", safe=""))
    one.fill("anna", PASSWORD)
    one.page.keyboard.press("Enter")
    one.at("/")
    # Who is signed in is led on at once.
    for there in ("/\\evil.example", "/.//evil.example/", "https://evil.example", "javascript:alert(1)", "/login"):
        one.page.goto(one.url + "/login?next=" + quote(there, safe=""))
        one.page.wait_for_url(lambda url: url.partition("?")[0] != f"{one.url}/login", wait_until="commit")
        assert one.page.url.startswith(one.url + "/"), there


def test_a_service_that_does_not_answer_is_told_as_such(tab):
    one = tab()
    one.page.route("**/v1/session", lambda route: route.abort())
    one.fill("anna", PASSWORD)
    one.page.keyboard.press("Enter")
    assert one.alert("Mailvane does not answer.")
    one.complaints.clear()


def test_the_page_fits_and_reads_in_both_themes(tab):
    one = tab("/login?why=role", reduced_motion="reduce")  # colours are at once what they will be
    for width, scheme in product([320, 375, 1280], ["light", "dark"]):
        one.page.set_viewport_size({"width": width, "height": 740})
        one.page.emulate_media(color_scheme=scheme)
        assert one.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        for selector in ("h1", "label", "#forgot", ".trouble span", "#go", "#reveal"):
            assert contrast(one, selector) >= 4.5, (selector, width, scheme)
        if width < 720:
            for field in ("#name", "#password", "#go"):
                assert one.page.locator(field).bounding_box()["height"] >= 44


def contrast(one: Tab, selector: str) -> float:
    """Of a text with what it stands on (WCAG 2.2)."""
    pair = one.page.locator(selector).first.evaluate(
        """(node) => {
          const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          const rgb = (color) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; };
          let ground = node;
          while (rgb(getComputedStyle(ground).backgroundColor)[3] < 255) ground = ground.parentElement;
          return [rgb(getComputedStyle(node).color), rgb(getComputedStyle(ground).backgroundColor)];
        }"""
    )
    light, dark = sorted((_luminance(color) for color in pair), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: list[int]) -> float:
    parts = [one / 255 for one in color[:3]]
    lines = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * lines[0] + 0.7152 * lines[1] + 0.0722 * lines[2]


# ── By a provider


def test_at_a_provider_one_signs_in_with_one_key_and_the_cookie_is_there_at_once(tab, abroad):
    one = tab("/?a=1", service=abroad[0])
    assert one.page.get_by_label("Name", exact=True).is_hidden()
    assert one.page.evaluate("document.activeElement.id") == "abroad"
    one.page.keyboard.press("Enter")
    one.page.locator("button", has_text="1").first.click()
    one.at("/?a=1")
    one.page.get_by_text("Signed in: anna").wait_for()
    cookies = {cookie["name"]: cookie for cookie in one.context.cookies()}
    assert cookies["mailvane_session"]["sameSite"] == "Strict"
    assert cookies["mailvane_session"]["httpOnly"]
    assert "mailvane_signing_in" not in cookies


def test_who_has_no_role_reads_whom_to_ask(tab, abroad):
    one = tab(service=abroad[0])
    one.page.get_by_role("link", name="Sign in with Example accounts").click()
    one.page.locator("button", has_text="2").first.click()
    assert one.alert("You are in no group that has a role here. Ask an admin which group that is.")


def test_when_the_provider_is_down_the_page_says_so_and_the_break_glass_account_is_at_hand(tab, abroad):
    service, provider = abroad
    provider.close()
    service.kill_core()  # which knows where the provider was
    service.wait()
    one = tab("/?a=1", service=service)
    one.page.get_by_role("link", name="Sign in with Example accounts").click()
    assert one.alert("The identity provider does not answer.")
    one.page.get_by_text("Only a break-glass account has a password here.").wait_for()
    one.fill("glass", PASSWORD)
    one.page.keyboard.press("Enter")
    one.at("/?a=1")
    one.page.get_by_text("Signed in: glass").wait_for()
    until(lambda: "break-glass account used" in service.log.read_text(), "the warning")
    assert "glass as admin by break-glass" in service.command("people", "sessions")
