"""The live page, in a real browser against a canned API: what it says, and what it must never do."""

from __future__ import annotations

import re
import shutil
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.servers.api import CSP, PAGE, CannedApi

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-default-browser-check",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
]
HOME = "Europe/Warsaw"
SOURCES = sorted([*PAGE.glob("*.js"), *PAGE.glob("*.css"), PAGE / "index.html"])


# ── Laws of the files, without a browser


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_file_of_the_page_holds_inline_code_or_leads_outside(path):
    text = path.read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\")", text)
    if path.suffix == ".html":
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", text)


def test_every_file_that_the_page_names_is_there():
    named = re.findall(r'(?:href|src)="static/([^"]+)"', (PAGE / "index.html").read_text("utf-8"))
    named += re.findall(r'url\("([^"]+)"\)', (PAGE / "tokens.css").read_text("utf-8"))
    named += [
        found for path in PAGE.glob("*.js") for found in re.findall(r'from "\./([^"]+)"', path.read_text("utf-8"))
    ]
    assert named
    assert [name for name in named if not (PAGE / name).is_file()] == []


def test_what_others_made_lies_beside_its_licence():
    assert {path.name for path in PAGE.glob("vendor/*/LICENSE*")} == {"LICENSE", "LICENSE-mono", "LICENSE-sans"}


def test_the_canned_api_sends_the_policy_that_the_page_is_made_for():
    with CannedApi() as api, urllib.request.urlopen(api.url) as answer:
        assert answer.headers["Content-Security-Policy"] == CSP


# ── In the browser


class Tab:
    """One page that is open, with all that it complained about."""

    def __init__(self, browser: Any, api: CannedApi, **options: Any) -> None:
        shape = {"viewport": {"width": 1280, "height": 900}, "timezone_id": HOME, "locale": "en-GB", **options}
        self.context = browser.new_context(**shape)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.complaints: list[str] = []
        self.api = api
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(api.url)
        self.page.locator("#sellers [data-slot=body] > *").first.wait_for()
        self.page.locator("#rate-chart canvas").wait_for()

    def _hear(self, message: Any) -> None:
        # An answer of 503 is written to the console by the browser itself; the page is not to blame.
        if message.type in ("error", "warning") and "status of 503" not in message.text:
            self.complaints.append(message.text)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text()).replace("\u202f", " ").replace("\u00a0", " ")

    def wait(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Until a shown element that matches has the text."""
        self.page.locator(selector).filter(has_text=text).first.wait_for()

    def again(self, times: int = 1) -> None:
        """Comes back to the tab so many times: at each the page asks anew, without the wait of two seconds."""
        for _ in range(times):
            with self.page.expect_response("**/v1/status"):
                self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def wide(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


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
def tabs(browser) -> Iterator[dict[str, Tab]]:
    """Tabs that stay open for the tests that only read."""
    opened: dict[str, Tab] = {}
    yield opened
    for tab in opened.values():
        tab.context.close()
        tab.api.__exit__()


@pytest.fixture
def look(browser, tabs) -> Iterator[Any]:
    """A tab on a scene that others read too: a test that clicks or breaks something opens its own by ``show``."""

    def at(scene: str) -> Tab:
        if scene not in tabs:
            tabs[scene] = Tab(browser, CannedApi(scene).__enter__())
        return tabs[scene]

    yield at
    assert [tab.complaints for tab in tabs.values() if tab.complaints] == []


@pytest.fixture
def show(browser, request) -> Iterator[Any]:
    """Opens the page on a scene; whatever else a test looks at, the page must not complain."""
    opened: list[Tab] = []

    def on(scene: str, **options: Any) -> Tab:
        api = CannedApi(scene)
        request.addfinalizer(api.__exit__)
        opened.append(Tab(browser, api.__enter__(), **options))
        return opened[-1]

    yield on
    for tab in opened:
        tab.context.close()
        assert tab.complaints == []


def local(at: datetime) -> str:
    """As the page says it: with its day, where that is not today there."""
    there, now = (one.astimezone(ZoneInfo(HOME)) for one in (at, datetime.now(UTC)))
    return f"{there:%H:%M}" if there.date() == now.date() else f"{there:%a} {there.day} {there:%b, %H:%M}"


def test_the_headline_is_the_one_sentence_that_answers(look):
    tab = look("fire")
    until = local(tab.api.scene.start + timedelta(minutes=7))
    assert tab.text("h1") == f"Seller s07's segment lapsed bounces 31 %, tolerated 10 %; paused until {until}."
    assert tab.page.title() == "Seller s07's segment lapsed bounces 31\u202f%, tolerated 10\u202f% · Mailvane"
    assert [tab.text(f".stat:nth-child({n}) .v") for n in (1, 2, 3)] == ["2", "2", "0"]


def test_an_incident_shows_its_numbers_its_lease_and_its_end(look):
    tab = look("fire")
    told = tab.text('[data-key="incident-12"]')
    until = local(tab.api.scene.start + timedelta(minutes=7))
    for part in (
        "310 of 1,002",
        "tolerated 10 %",
        "95 % sure: 28\u201334 %",
        f"paused until {until}",
        "#12",
        "bounce-seller",
        "93 %",
    ):
        assert part in told
    assert tab.page.locator("#fire .fires > li").count() == 2
    assert "resolved #9" in tab.text("#fire footer")


def test_a_lease_names_the_command_that_undoes_it_and_the_time_left_runs_down(look):
    tab = look("fire")
    row = '[data-key="lease-12@1795492945"]'
    assert "mailvane resume 12@1795492945" in tab.text(row)
    before = tab.text(f"{row} [data-left]")
    assert re.fullmatch(r"\d min \d\d s", before)
    tab.page.locator(f"{row} [data-left]", has_not_text=before).wait_for()
    assert tab.text(f"{row} [data-left]") < before


def test_times_are_local_with_utc_in_the_title(look):
    tab = look("fire")
    shown = tab.page.locator('[data-key="incident-12"] time').first
    at = datetime.fromisoformat(shown.get_attribute("datetime"))
    assert shown.inner_text() == local(at)
    assert f"{at.astimezone(UTC):%H:%M:%S} UTC" in shown.get_attribute("title")


def test_refusals_are_shown_with_their_reason_and_how_often(look):
    told = look("fire").text("#did")
    assert "Did not pause seller s07's segment lapsed, 2 times since" in told
    assert "too little mail: 162 of the 200 that it takes" in told
    assert "Marta Zielińska resumed seller s11's segment active" in told


def test_what_refusals_mean_is_shown_with_the_replies_that_nobody_knows(show):
    tab = show("refused")
    rows = tab.page.locator("#refusals tbody tr").all_inner_texts()
    assert [" ".join(row.split()) for row in rows] == [
        "Mailbox full gmail 900, orange 20 920 92 %",
        "On a blocklist: pbl outlook 80 80 8.0 %",
        "No reply told unknown provider 1 1 0.10 %",
    ]
    tab.page.locator("#refusals summary").click()
    assert "7 refusals of the last day not understood, in 1 form" in tab.text("#refusals details")
    assert "<img src=x onerror=alert(1)> the moon is full" in tab.text("#refusals details")


def test_a_pause_of_one_stream_holds_the_segment_that_it_names(look):
    tab = look("fire")
    row = tab.text("#sellers tbody tr:first-child")
    assert re.search(r"s07\s+lapsed", row)
    assert f"paused until {local(tab.api.scene.start + timedelta(minutes=7))}" in row
    assert "paused" in tab.text("#series footer")


def test_an_ended_pause_is_said_and_old_evidence_is_told_as_past(look):
    tab = look("ended")
    ended = local(tab.api.scene.start - timedelta(seconds=30))
    assert tab.text("h1") == f"Seller s07's segment lapsed bounced 31 %, tolerated 10 %; its pause ended at {ended}."
    assert "a new one takes new evidence" in tab.text('[data-key="incident-12"]')
    assert "Nothing is paused." in tab.text("#paused")


def test_a_dry_run_is_said_plainly(look):
    tab = look("dry-run")
    assert "Dry run: nothing is paused by itself" in tab.text("#bar")
    assert tab.text("h1").endswith("tolerated 10 %; nothing is paused.")
    assert "Not paused: dry run: would pause for 60 min" in tab.text('[data-key="incident-12"]')
    assert "Nothing is paused." in tab.text("#paused")


def test_calm_is_said_with_its_numbers(look):
    tab = look("calm")
    assert re.fullmatch(r"All calm: 1\.\d % bounced in the last 5 minutes\.", tab.text("h1"))
    assert "Nothing is on fire" in tab.text("#fire")


def test_no_data_is_never_a_nought(look):
    tab = look("empty")
    assert tab.text("h1") == "No data yet: no source is connected."
    assert "mailvane check" in tab.text("#answer")
    assert [tab.text(f".stat:nth-child({n}) .v") for n in (1, 3)] == ["no data", "no data"]
    assert "no data" in tab.text("#rate-legend")
    assert re.findall(r"\d", tab.text("#volume-legend").replace("5 min", "")) == []
    assert "kind = " in tab.text("#sources")


def test_a_silent_source_is_not_calm(look):
    tab = look("stale")
    since = local(tab.api.scene.start - timedelta(minutes=9))
    assert tab.text("h1") == f"No data since {since}: 2 sources of 2 are not fresh."
    assert f"complete to {since}" in tab.text('[data-key="source-postfix-mx-out-1"]')
    assert "no data" in tab.text('[data-key="source-http-mx-out-1"]')
    assert tab.text(".stat:nth-child(1) .n") == "as far as is known"


def test_without_an_answer_the_content_stays_and_says_how_old_it_is(show):
    tab = show("fire")
    sentence = tab.text("h1")
    tab.api.failing["*"] = 503
    tab.again()
    tab.wait("#trouble", re.compile(r"Mailvane does not answer since \d\d:\d\d; data shown is from \d\d:\d\d"))
    assert tab.text("h1") == sentence
    assert tab.page.locator("main").get_attribute("aria-busy") == "true"
    assert "Not live" in tab.text("#bar")
    tab.api.failing.clear()
    tab.page.get_by_role("button", name="Try again").click()
    tab.page.locator("#trouble p").wait_for(state="detached")
    assert tab.page.locator("main").get_attribute("aria-busy") == "false"


def test_one_address_that_fails_is_said_where_it_belongs(show):
    tab = show("fire")
    tab.api.failing["/v1/actions"] = 503
    tab.again()
    tab.wait("#did header", "not answered since")
    assert "Paused seller s07" in tab.text("#did")
    assert tab.page.locator("#did").get_attribute("aria-busy") == "true"
    assert tab.page.locator("#trouble p").count() == 0


def test_a_page_that_never_got_an_answer_says_so(browser):
    with CannedApi("fire") as api:
        api.failing["*"] = 503
        page = browser.new_page()
        page.goto(api.url)
        page.get_by_role("heading", name="Mailvane does not answer.").wait_for()
        page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_names_stay_text(show, width):
    tab = show("hostile", viewport={"width": width, "height": 844})
    assert "<img src=x" in tab.text("h1")
    assert '<img src=x onerror="window.pwned=1">' in tab.text('[data-key="incident-12"]')
    assert "<b onclick=window.pwned=3>Mallory</b>" in tab.text("#did")
    assert tab.page.evaluate("window.pwned") is None
    assert tab.page.locator("main :is(img, script, style, iframe)").count() == 0
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", tab.page.locator("main").inner_text() + tab.page.title())
    assert tab.page.locator("#sellers bdi", has_text="שלום").count() == 1
    assert tab.wide() == 0


def test_the_command_is_safe_to_paste(look):
    told = look("hostile").text("#paused")
    assert r"mailvane resume 'x'\''; touch pwned; '\'''" in told


def test_the_policy_is_obeyed_and_in_force(show):
    tab = show("fire")
    tab.page.evaluate("document.addEventListener('securitypolicyviolation', () => { window.broken = 1 })")
    tab.page.get_by_role("button", name="Theme").click()
    tab.again(2)
    assert tab.page.evaluate("window.broken") is None
    assert tab.complaints == []
    tab.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert tab.page.evaluate("window.ran") is None
    assert tab.complaints.pop().startswith(("Refused to execute", "Executing inline script"))


def test_new_answers_take_neither_focus_nor_scroll_nor_what_was_opened(show):
    tab = show("fire")
    tab.page.locator("#did summary").click()
    tab.page.locator('[data-key="lease-p-7f3a"] button').focus()
    tab.page.evaluate("scrollTo(0, 300)")
    tab.page.evaluate("window.before = document.activeElement")
    tab.again(3)
    assert tab.page.evaluate("document.activeElement === window.before && window.before.isConnected") is True
    assert tab.page.evaluate("scrollY") == 300
    assert tab.page.locator("#did details[open]").count() == 1


def test_it_asks_again_by_itself(look):
    tab = look("calm")
    with tab.page.expect_response("**/v1/volume*"), tab.page.expect_response("**/v1/status"):
        pass


def test_the_chart_shows_numbers_and_follows_what_is_pressed(show):
    tab = show("fire")
    assert "Seller s07's segment lapsed" in tab.text("#rate-legend")
    tab.page.get_by_role("button", name="s23", exact=True).click()
    tab.wait("#rate-legend", "Seller s23's segment active")
    tab.page.locator("#rate-chart .u-over").hover()
    assert re.search(r"Seller s23's segment active\s+\d[\d.]* % \(\d+ of \d+\)", tab.text("#rate-chart .tip"))
    assert re.search(r"All mail\s+\d\.\d % \(\d+ of [\d,]+\)", tab.text("#rate-chart .tip"))
    tab.page.get_by_role("button", name="Back to the worst").click()
    tab.wait("#rate-legend", "Seller s07's segment lapsed")


def test_another_rate_is_asked_for_and_shown(show):
    tab = show("fire")
    tab.page.get_by_role("button", name="Deferrals").click()
    tab.wait("#sellers header", "deferred of first attempts")
    assert any("rate=deferral" in path for path in tab.api.asked)
    assert tab.page.get_by_role("button", name="Deferrals").get_attribute("aria-pressed") == "true"


def test_the_map_is_one_stop_for_the_keyboard_and_says_each_cell(show):
    tab = show("fire")
    assert tab.page.locator('.heat button[tabindex="0"]').count() == 1
    tab.page.locator('.heat button[tabindex="0"]').focus()
    tab.page.keyboard.press("ArrowDown")
    tab.wait("#heat-line", re.compile(r"^198\.51\.100\.21 at Gmail: [\d.]+\u202f%, \d+ of \d+ bounced"))
    assert tab.page.locator(".heat .h2").inner_text() == tab.page.locator(".heat .h2 button").inner_text()


def test_nobody_looking_means_nobody_asking(show):
    tab = show("calm")
    tab.page.clock.install()
    tab.page.reload()
    tab.page.locator("#rate-chart canvas").wait_for()
    tab.page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true})")
    tab.page.evaluate("window.away = true; document.dispatchEvent(new Event('visibilitychange'))")
    asked = len(tab.api.asked)
    tab.page.clock.run_for(60_000)
    assert len(tab.api.asked) == asked
    with tab.page.expect_response("**/v1/status"):
        tab.page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")


def test_a_phone_shows_it_all_without_scrolling_sideways(show):
    for width in (390, 320):
        tab = show("fire", viewport={"width": width, "height": 844})
        assert tab.wide() == 0
        assert tab.page.locator(".tabbar a").count() == 4
        assert tab.page.locator("#bar").inner_text().count("Enforcing") == 1


def test_the_theme_is_chosen_and_kept(show):
    tab = show("calm", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = tab.page.evaluate(ground)
    tab.page.get_by_role("button", name="Theme").click()
    light = tab.page.evaluate(ground)
    assert light != dark
    tab.page.reload()
    tab.page.locator("html[data-theme=light]").wait_for()
    assert tab.page.evaluate(ground) == light
