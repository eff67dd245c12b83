"""What people and Grafana ask: ``/v1/series``, ``/v1/top``, ``/v1/cohorts``, ``/v1/replies`` and ``/v1/search``."""

from __future__ import annotations

import asyncio
import csv
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from monitor.api import refusals
from monitor.api.asked import Unclear
from monitor.api.pages import cursor, page
from monitor.facts.errors import FactsBusy, FactsError
from tests.servers.mailvane import Mailvane, mailvane
from tests.waiting import until

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# Two minutes of an hour that is over, so that each cohort and each minute is whole.
THEN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 2 * HOUR


@dataclass
class Asked:
    """A service that was told some events, and how it is asked."""

    service: Mailvane
    token: str

    def __call__(self, path: str, **query: Any) -> Any:
        status, told = self.raw(path, **query)
        assert status == 200, told
        return json.loads(told)

    def refused(self, path: str, **query: Any) -> dict[str, Any]:
        status, told = self.raw(path, **query)
        assert status == 422, told
        said: dict[str, Any] = json.loads(told)
        assert set(said) == {"error", "remedy"}
        return said

    def raw(self, path: str, **query: Any) -> tuple[int, bytes]:
        named = {name.rstrip("_"): value for name, value in query.items()}
        return sent(urllib.request.Request(f"{self.service.url}{path}?{urlencode(named)}"))

    def search(self, token: str | None = None, **what: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        body = json.dumps({name.rstrip("_"): value for name, value in what.items()}).encode()
        status, told = sent(urllib.request.Request(f"{self.service.url}/v1/search", body, headers))
        return status, json.loads(told)


def sent(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def events() -> Iterator[dict[str, Any]]:
    """Tenant a: 3 of 10 bounce at 0:00 and 1 of 10 at 0:10; b: none of 40; c: 1 of 2. All drawn complaints are late."""
    number = 0

    def told(kind: str, tenant: str, minute: int, many: int, **more: Any) -> Iterator[dict[str, Any]]:
        nonlocal number
        for _ in range(many):
            number += 1
            at = (THEN + minute * MINUTE).isoformat()
            name = f"<{number}@shop.example>"
            yield {"kind": kind, "tenant": tenant, "at": at, "message_id": name, "provider": "yahoo", **more}

    why = {"code": 550, "dsn": "5.7.1", "reply": "550 5.7.1 not you, jo.bloggs@example.com"}
    yield from told("bounced", "a", 0, 3, **why)
    yield from told("sent", "a", 0, 7)
    yield from told("bounced", "a", 10, 1, **why, recipient="Jo.Bloggs@example.com")
    yield from told("sent", "a", 10, 9, recipient="jo.bloggs@example.com")
    yield from told("sent", "b", 5, 40, provider="gmail")
    yield from told("bounced", "c", 5, 1, code=552, dsn="5.2.2", reply="full")
    yield from told("sent", "c", 5, 1)
    yield from told("complaint", "a", 90, 2, sent_at=THEN.isoformat())


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with mailvane(tmp_path_factory.mktemp("series"), "") as service:
        body = "\n".join(json.dumps(event) for event in events()).encode()
        status, told = sent(urllib.request.Request(f"{service.url}/v1/events", body, method="POST"))
        assert (status, json.loads(told)["rejected_count"]) == (202, 0)
        until(lambda: service.get("/v1/facts")["waiting"] == 0, "the events to be counted")
        yield Asked(service, (service.config.parent / "data/token").read_text().strip())


def around(minutes: int = 15) -> dict[str, str]:
    return {"from_": stamp(THEN), "to": stamp(THEN + minutes * MINUTE)}


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def posix(minute: int) -> int:
    return int((THEN + minute * MINUTE).timestamp())


# series


def test_each_point_has_numerator_denominator_and_value_and_silence_is_not_zero(ask: Asked):
    told = ask("/v1/series", by="tenant", step="5m", **around())
    points = {one["name"]: one["points"] for one in told["series"]}
    assert points["tenant=a"] == [[posix(0), 3, 10, 0.3], [posix(5), 0, 0, None], [posix(10), 1, 10, 0.1]]
    assert points["tenant=b"] == [[posix(0), 0, 0, None], [posix(5), 0, 40, 0.0], [posix(10), 0, 0, None]]
    assert [one["name"] for one in told["series"]] == ["tenant=b", "tenant=a", "tenant=c"]
    assert (told["step"], told["rate"], told["other"]) == (300, "bounce", None)


def test_an_answer_says_what_was_asked_how_complete_it_is_and_who_told(ask: Asked):
    told = ask("/v1/series", by="segment,tenant", rate="deferral", provider="yahoo", **around())
    assert (told["by"], told["where"], told["time"]) == (["segment", "tenant"], {"provider": "yahoo"}, "at")
    assert (told["since"], told["until"]) == (f"{stamp(THEN)[:-1]}.000Z", f"{stamp(THEN + 15 * MINUTE)[:-1]}.000Z")
    assert told["complete_to"].startswith(stamp(THEN + 90 * MINUTE)[:-1])
    [source] = told["sources"]
    assert (source["name"], source["watermark"]) == ("http", told["complete_to"])
    assert source["age"] >= 30 * 60
    assert told["kept_since"] < told["since"]


def test_series_that_are_too_many_are_summed_as_other(ask: Asked):
    told = ask("/v1/series", by="tenant", step="15m", top=1, **around())
    assert [one["name"] for one in told["series"]] == ["tenant=b"]
    assert told["other"] == {"series": 2, "points": [[posix(0), 5, 22, 5 / 22]]}


def test_grafana_gets_rows_and_asks_by_milliseconds(ask: Asked):
    query = {"from_": posix(0) * 1000, "to": posix(15) * 1000 + 499, "step": "20000ms"}
    told = ask("/v1/series", by="tenant", format="rows", top=2, gaps="omit", **query)
    assert told["step"] == 60
    assert told["rows"][0] == {
        "time": stamp(THEN + 5 * MINUTE),
        "series": "tenant=b",
        "tenant": "b",
        "numerator": 0,
        "denominator": 40,
        "value": 0.0,
    }
    assert [row["series"] for row in told["rows"]] == ["tenant=b", "tenant=a", "tenant=a", "other"]
    assert (told["rows"][-1]["tenant"], told["other"]) == ("other", 1)


def test_a_sheet_holds_the_same_rows(ask: Asked):
    query = {"by": "tenant", "step": "5m", "top": 1, **around()}
    status, sheet = ask.raw("/v1/series", format="csv", **query)
    assert status == 200
    rows = ask("/v1/series", format="rows", **query)["rows"]
    assert list(csv.DictReader(sheet.decode().splitlines())) == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
    ]


def test_an_outcome_is_counted_and_nought_where_all_was_told(ask: Asked):
    told = ask("/v1/series", kind="bounced", step="5m", from_=stamp(THEN), to=stamp(THEN + 15 * MINUTE))
    assert [value for *_, value in told["series"][0]["points"]] == [3, 1, 1]
    later = ask("/v1/series", kind="bounced", step="30m", from_=stamp(THEN), to=stamp(THEN + 3 * HOUR))
    assert [value for *_, value in later["series"][0]["points"]] == [5, 0, 0, None, None, None]
    assert {point[2] for point in later["series"][0]["points"]} == {None}


def test_complaints_are_drawn_where_the_mail_was_sent(ask: Asked):
    for step in ("1h", "15m"):
        told = ask("/v1/series", rate="complaint", step=step, gaps="omit", from_=stamp(THEN), to=stamp(THEN + 2 * HOUR))
        # Gmail reports no complaints, so its 40 are no part of this.
        assert told["series"][0]["points"] == [[posix(0), 2, 17, 2 / 17]]
        assert told["time"] == "sent_at"
        assert "gmail" not in told["providers"]


def test_a_rule_is_drawn_as_it_is_judged(ask: Asked):
    told = ask("/v1/series", rule="bounce-seller", step="15m", **around())
    assert (told["rule"], told["rate"], told["by"]) == ("bounce-seller", "bounce", ["tenant", "segment"])
    assert ask("/v1/series", rule="bounce-seller", by="", step="15m", **around())["series"][0]["points"] == [
        [posix(0), 5, 62, 5 / 62]
    ]


@pytest.mark.parametrize(
    ("length", "points", "step"),
    [
        (timedelta(minutes=30), 1000, 60),
        (timedelta(days=1), 1000, 300),
        (timedelta(days=7), 1000, 900),
        (timedelta(days=7), 3000, 300),
        (timedelta(days=365), 100, 604800),
    ],
)
def test_the_step_follows_from_how_many_points_are_drawn(ask: Asked, length: timedelta, points: int, step: int):
    told = ask("/v1/series", points=points, from_=stamp(THEN - length), to=stamp(THEN))
    assert told["step"] == step


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"minuts": 5}, "minuts: no such parameter"),
        ({"rate": "lost"}, "rate"),
        ({"rate": "bounce", "kind": "sent"}, "more than one"),
        ({"rule": "nobodys"}, "no rule of that name"),
        ({"by": "colour"}, "unknown labels: colour"),
        ({"by": "segment"}, "only named together with tenant"),
        ({"segment": "x"}, "segment without tenant"),
        ({"from_": "yesterday"}, "from"),
        ({"from_": "2026-11-24T10:00:00"}, "without an offset"),
        ({"from_": "2026-11-24T10:00:00Z", "to": "2026-11-24T09:00:00Z"}, "empty"),
        ({"from_": "1999-01-01T00:00:00Z"}, "2000 and 2100"),
        ({"to": "999999999999999"}, "to"),
        ({"from_": "2026-11-24T10:00:00Z", "minutes": 5}, "both from and minutes"),
        ({"step": "soon"}, "step"),
        ({"step": "999999999w"}, "step"),
        ({"step": "1m", "from_": "2020-01-01T00:00:00Z"}, "steps"),
        ({"by": "tenant", "top": 200, "minutes": 5000, "step": "1m"}, "steps"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_a_remedy(ask: Asked, query: dict[str, Any], said: str):
    assert said in ask.refused("/v1/series", **query)["error"]


def test_a_parameter_that_there_is_not_is_told_with_those_that_there_are(ask: Asked):
    for path, some in (("/v1/series", "step, points"), ("/v1/top", "at_least, limit"), ("/v1/cohorts", "lags, limit")):
        said = ask.refused(path, foo="1")
        assert said["error"] == "foo: no such parameter"
        assert said["remedy"].startswith("there are from, to, minutes, ip, ")
        assert some in said["remedy"]


def test_what_is_not_here_is_told_as_all_errors_are(ask: Asked):
    for path, status in (("/v1/nothing", 404), ("/static/nothing.js", 404), ("/v1/events", 405)):
        answered, told = ask.raw(path)
        assert answered == status
        assert set(json.loads(told)) == {"error", "remedy"}


# the worst, and cohorts


def test_a_count_needs_no_more_than_one(ask: Asked):
    told = ask("/v1/top", kind="bounced", by="tenant", **around())
    assert told["at_least"] == 1
    assert [(one["name"], one["value"]) for one in told["scopes"]] == [("tenant=a", 4), ("tenant=c", 1)]
    assert ask("/v1/top", by="tenant", **around())["at_least"] == 100


def test_cohorts_lie_by_the_hour_of_sending_whatever_is_rated(ask: Asked):
    assert ask("/v1/cohorts", rate="bounce", **around())["time"] == "sent_at"


def test_the_worst_scopes_have_enough_mail_and_bounds(ask: Asked):
    told = ask("/v1/top", by="tenant", at_least=10, **around())
    assert [(one["name"], one["numerator"], one["denominator"], one["value"]) for one in told["scopes"]] == [
        ("tenant=a", 4, 20, 0.2),
        ("tenant=b", 0, 40, 0.0),
    ]
    assert told["scopes"][0]["lower"] < 0.2 < told["scopes"][0]["upper"]
    assert told["next"] is None


def test_an_answer_says_since_when_what_it_was_read_from_is_kept(ask: Asked):
    window = {"from_": stamp(THEN - 60 * 24 * HOUR), "to": stamp(THEN)}
    told = [
        ask("/v1/top", by="tenant", at_least=1, **window),
        ask("/v1/top", by="provider", at_least=1, **window),
        ask("/v1/replies", **window),
    ]
    ages = [datetime.now(UTC) - datetime.fromisoformat(one["kept_since"]) for one in told]
    assert [age.days for age in ages] == [7, 90, 30]


def test_cohorts_of_which_the_mail_is_not_kept_any_more_are_not_rated(ask: Asked):
    window = {"from_": stamp(THEN - 60 * 24 * HOUR), "to": stamp(THEN + HOUR)}
    told = ask("/v1/top", rate="complaint", by="region", at_least=1, **window)
    assert told["kept_since"] <= told["since"]
    assert datetime.fromisoformat(told["since"]) - datetime.fromisoformat(told["kept_since"]) <= HOUR
    told = ask("/v1/top", rate="complaint", by="tenant", at_least=1, **window)
    assert datetime.fromisoformat(told["since"]) == THEN - 60 * 24 * HOUR


def test_pages_follow_each_other_in_the_window_of_the_first(ask: Asked):
    names, query = [], {"cursor": ""}
    while query["cursor"] is not None:
        told = ask("/v1/top", by="tenant", at_least=1, limit=1, **(query if query["cursor"] else around()))
        assert told["since"].startswith(stamp(THEN)[:-1])
        names += [one["name"] for one in told["scopes"]]
        query["cursor"] = told["next"]
    assert names == ["tenant=c", "tenant=a", "tenant=b"]


def test_the_largest_counts_may_be_asked_for(ask: Asked):
    told = ask("/v1/top", by="tenant", kind="sent", at_least=2, **around())
    assert [(one["name"], one["value"], one["denominator"]) for one in told["scopes"]] == [
        ("tenant=b", 40, None),
        ("tenant=a", 16, None),
    ]


def test_a_cohort_tells_what_was_known_after_each_lag(ask: Asked):
    told = ask("/v1/cohorts", by="tenant,provider", lags="true", from_=stamp(THEN), to=stamp(THEN + HOUR))
    mine = next(one for one in told["cohorts"] if one["scope"]["tenant"] == "a")
    assert (mine["numerator"], mine["denominator"], mine["value"]) == (2, 16, 0.125)
    assert mine["sent_at"].startswith(stamp(THEN)[:-1])
    # Told two hours after it happened, of which the age of a cohort is counted from when we saw it.
    assert (mine["numerators"][-1], mine["numerators"][0], len(mine["numerators"])) == (2, 0, len(told["lags"]))
    first = ask("/v1/cohorts", by="tenant", limit=1, from_=stamp(THEN), to=stamp(THEN + HOUR))
    second = ask("/v1/cohorts", by="tenant", limit=1, cursor=first["next"])
    assert {one["cohorts"][0]["name"] for one in (first, second)} == {"tenant=a", "tenant=c"}
    assert second["next"] is None
    assert "region" in ask.refused("/v1/cohorts", by="region")["error"]


# single events


def test_replies_are_told_scrubbed_with_counts(ask: Asked):
    told = ask("/v1/replies", dsn="5.7", **around())
    [reply] = told["replies"]
    assert (reply["text"], reply["count"], reply["code"]) == ("550 5.7.1 not you, …@example.com", 4, 550)
    first = ask("/v1/replies", limit=1, **around())
    assert ask("/v1/replies", limit=1, cursor=first["next"])["replies"][0]["text"] == "full"
    assert ask.refused("/v1/replies", dsn="9")


def test_a_history_is_found_by_address_or_message_and_names_nobody(ask: Asked):
    status, told = ask.search(recipient=" <JO.BLOGGS@EXAMPLE.COM> ", limit=3)
    assert (status, len(told["events"]), told["events"][0]["kind"] in ("sent", "bounced")) == (200, 3, True)
    found = list(told["events"])
    while told["next"]:
        status, told = ask.search(recipient="jo.bloggs@example.com", limit=3, cursor=told["next"])
        found += told["events"]
    assert len(found) == 10
    assert "bloggs" not in json.dumps(found).lower()
    status, told = ask.search(message_id="1@shop.example")
    assert [(one["kind"], one["dsn"], one["scope"]["tenant"]) for one in told["events"]] == [("bounced", "5.7.1", "a")]
    assert "bloggs" not in ask.service.log.read_text().lower()


def test_a_search_needs_the_token_and_something_to_look_for(ask: Asked):
    assert ask.search(token="wrong", recipient="jo@example.com")[0] == 401
    for what in ({}, {"recipient": " <> "}, {"recipient": 3}, {"name": "jo@example.com"}, {"recipient": "x" * 1001}):
        status, told = ask.search(**what)
        assert status == 422
        assert "jo@" not in json.dumps(told)


# what all questions share


@given(st.lists(st.integers(0, (1 << 63) - 1), min_size=1, max_size=5), st.integers(0, (1 << 64) - 1))
def test_a_cursor_comes_back_as_it_went(numbers: list[int], last: int):
    assert page(cursor(*numbers, last), len(numbers) + 1) == (*numbers, last)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.hex()))
def test_a_cursor_of_somebody_else_is_refused(text: str):
    if text:
        with pytest.raises(Unclear):
            page(text, 3)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FactsBusy("all taken"), 503),
        (FactsError("secret", code=241, passing=True), 422),
        (FactsError("secret", code=159, passing=True), 422),
        (FactsError("secret", code=396, passing=False), 422),
        (FactsError("secret", code=210, passing=True), 503),
    ],
)
def test_what_the_engine_can_not_do_is_told_with_a_remedy(error: Exception, status: int):
    app = FastAPI()
    refusals.add_to(app)

    @app.get("/")
    def fail() -> None:
        raise error

    async def asked() -> httpx.Response:
        # The server's own error would come before the answer that it makes of it.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://core") as client:
            return await client.get("/")

    answer = asyncio.run(asked())
    assert answer.status_code == status
    assert answer.json()["remedy"]
    assert "secret" not in answer.text
    assert ("Retry-After" in answer.headers) == (status == 503)
