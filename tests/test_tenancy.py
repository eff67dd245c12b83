"""A seller's key sees that seller's mail alone: what it is told is what would be told if there were no other seller."""

from __future__ import annotations

import ast
import base64
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.api.doors import CORE
from monitor.core.rates import Rate
from monitor.facts import own, schema
from monitor.facts.cluster import Nodes
from monitor.facts.store import Facts
from monitor.model import COUNTED
from tests.servers.sellers import NOW, Market, house

FULL = os.environ.get("MAILVANE_SCALE") == "full"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# Names that would break out of a text in which they were not expected.
SELLERS = ("alpha", "it's \\' OR 1 = 1 --", "{tenant:String}", "名前 ß", "alpha2")
API = Path(__file__).parent.parent / "monitor/api"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    with house(tmp_path_factory.mktemp("tenancy")) as opened:
        yield opened


@pytest.fixture
def facts(market: Market) -> Facts:
    """The store with four events of each seller."""
    market.forget()
    market.tell(event(number, tenant) for number in range(4) for tenant in SELLERS)
    return market.core.stores.facts


def event(number: int, tenant: str, **more: Any) -> dict[str, Any]:
    """One of a seller's: odd ones bounced."""
    return {
        "kind": ("sent", "bounced")[number % 2],
        "at": NOW - 5 * MINUTE,
        "message_id": f"<{number}.{SELLERS.index(tenant) if tenant in SELLERS else 9}@shop.example>",
        "recipient": f"r{number}@example.com",
        "tenant": tenant,
        "campaign": "spring",
        "ip": "192.0.2.1",
        "provider": "gmail",
        **more,
    }


# the law

EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from([kind.value for kind in COUNTED]),
            "at": st.integers(0, 170).map(lambda minutes: NOW - minutes * MINUTE),
            "message_id": st.integers(0, 12).map("<{}@shop.example>".format),
            "recipient": st.integers(0, 6).map("r{}@example.com".format),
            "attempt": st.integers(0, 2),
            "tries": st.integers(1, 3),
            "count": st.integers(1, 3),
            "tenant": st.sampled_from(SELLERS[:4]),
            "ip": st.sampled_from(["192.0.2.1", "192.0.2.2", ""]),
            "provider": st.sampled_from(["gmail", "yahoo", "outlook"]),
            "stream": st.sampled_from(["marketing", "transactional", ""]),
            "campaign": st.sampled_from(["spring", "autumn", ""]),
            "variant": st.sampled_from(["b", ""]),
            "code": st.sampled_from([0, 421, 550]),
            "dsn": st.sampled_from(["", "4.7.0", "5.1.1"]),
            "reply": st.sampled_from(["", "no such user", "slow down"]),
        }
    ).map(lambda one: {**one, "sent_at": one["at"] - one["tries"] * 7 * MINUTE}),
    min_size=1,
    max_size=60,
    unique_by=lambda one: (one["tenant"], one["message_id"], one["recipient"], one["kind"], one["tries"]),
)
BY = st.lists(st.sampled_from(["ip", "provider", "stream", "tenant", "campaign"]), max_size=3, unique=True).map(
    lambda names: [*names, "tenant"] if "campaign" in names and "tenant" not in names else names
)
PART = st.fixed_dictionaries(
    {},
    optional={
        "provider": st.sampled_from(["gmail", "yahoo"]),
        "stream": st.just("marketing"),
        "campaign": st.sampled_from(["spring", "winter"]),
        "tenant": st.just("its own"),
    },
)
MEASURE = st.one_of(
    st.sampled_from(list(Rate)).map(lambda rate: {"rate": rate.value}),
    st.sampled_from(COUNTED).map(lambda kind: {"kind": kind.value}),
)
WINDOW = st.sampled_from([{}, {"minutes": 60}, {"minutes": 180}])


def asked(path: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    parts = st.tuples(
        PART, WINDOW, *(value.map(lambda drawn, name=name: {name: drawn}) for name, value in more.items())
    )
    return parts.map(lambda drawn: (path, {name: value for one in drawn for name, value in one.items()}))


def merged(of: st.SearchStrategy[tuple[str, dict[str, Any]]]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """With a measure, and labels joined by commas."""
    return st.tuples(of, MEASURE).map(
        lambda drawn: (drawn[0][0], {**drawn[0][1], **drawn[1], "by": ",".join(drawn[0][1]["by"])})
    )


QUESTIONS = st.one_of(
    merged(
        asked(
            "/v1/series",
            by=BY,
            step=st.sampled_from(["1m", "15m", "60m"]),
            top=st.integers(1, 3),
            format=st.sampled_from(["json", "rows", "csv"]),
        )
    ),
    merged(asked("/v1/top", by=BY, at_least=st.integers(1, 3), limit=st.integers(1, 3))),
    merged(asked("/v1/cohorts", by=BY, limit=st.integers(1, 4), lags=st.booleans())),
    asked("/v1/replies", limit=st.integers(1, 3)),
    asked("/v1/replies/classes", limit=st.integers(1, 3)),
    asked("/v1/replies/unknown", limit=st.integers(1, 3)),
    st.integers(1, 200).map(lambda minutes: ("/v1/volume", {"minutes": minutes})),
    st.integers(0, 12).map(lambda number: ("/v1/search", {"message_id": f"<{number}@shop.example>", "limit": 2})),
    st.integers(0, 6).map(lambda number: ("/v1/search", {"recipient": f"R{number}@example.com", "limit": 2})),
)


@pytest.mark.scale(order=4)
@settings(max_examples=200 if FULL else 12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, tenant=st.sampled_from(SELLERS[:4]), questions=st.lists(QUESTIONS, min_size=6, max_size=10))
def test_what_a_seller_is_told_is_what_its_facts_alone_would_tell(market: Market, events, tenant, questions):
    market.forget()
    market.tell(events)
    told = [pages(market, tenant, tenant, path, query) for path, query in questions]
    market.forget()
    market.tell(one for one in events if one["tenant"] == tenant)
    for (path, query), mine in zip(questions, told, strict=True):
        assert mine == pages(market, "", tenant, path, query), (path, query)


def pages(market: Market, who: str, tenant: str, path: str, query: dict[str, Any]) -> list[Any]:
    """The whole answer, page by page, without what belongs to the one who asks."""
    query = dict(query)
    if query.pop("tenant", "") or (not who and "campaign" in query):
        query["tenant"] = tenant
    found: list[Any] = []
    while True:
        answer = market.ask(who, "POST", path, query) if path == "/v1/search" else market.ask(who, "GET", path, **query)
        assert answer.status_code == 200, answer.text
        if query.get("format") == "csv":
            return [answer.text, answer.headers["Mailvane-Complete-To"]]
        told = answer.json()
        following = told.pop("next", None)
        found.append(compared(path, told, tenant))
        if following is None:
            return found
        found.append(base64.urlsafe_b64decode(following + "==").decode().strip("[]").split(",")[1 if who else 0 :])
        query["cursor"] = following


def compared(path: str, told: dict[str, Any], tenant: str) -> dict[str, Any]:
    """What must be the same. A seller is told of no sources, and reads finer counts, which are kept for less long."""
    if "where" in told:
        told["where"] = {**told["where"], "tenant": tenant}
    told.pop("sources", None)
    if not path.startswith("/v1/replies"):
        told.pop("kept_since", None)
    return told


# the predicate


def test_no_question_of_any_text_sees_the_rows_of_another(facts: Facts):
    for tenant in SELLERS:
        mine = facts.of(tenant)
        for sql in (
            "SELECT tenant, count() AS n FROM events GROUP BY tenant",
            "SELECT tenant, count() AS n FROM default.events AS e GROUP BY tenant",
            "SELECT tenant, count() AS n FROM events FINAL PREWHERE kind IN ('sent', 'bounced') GROUP BY tenant",
            "SELECT tenant, sum(n) AS n FROM (SELECT tenant, count AS n FROM events) GROUP BY tenant",
            "WITH every AS (SELECT * FROM events) SELECT tenant, count() AS n FROM every GROUP BY tenant",
            "SELECT tenant, count() AS n FROM events WHERE key GLOBAL IN (SELECT key FROM events) GROUP BY tenant",
            "SELECT e.tenant, count() AS n FROM events AS e GLOBAL ANY LEFT JOIN events AS o USING (key) GROUP BY tenant",
            "SELECT tenant, count() AS n FROM events WHERE tenant = {tenant:String} OR 1 GROUP BY tenant",
        ):
            values = {"tenant": SELLERS[0]} if "{tenant" in sql else {}
            assert mine.query(sql, **values).to_pylist() == [{"tenant": tenant, "n": 4}], sql
        for table in ("leaf", "hour"):
            counted = mine.query(f"SELECT toInt64(sum(sent)) AS sent, toInt64(sum(bounced)) AS bounced FROM {table}")
            assert counted.to_pylist() == [{"sent": 2, "bounced": 2}]
            named = mine.query(f"SELECT DISTINCT tenant FROM {table}_series")["tenant"].to_pylist()
            assert named == [tenant]
        assert [int(number) for piece in mine.stream("SELECT count() FROM events") for number in piece] == [4]


def test_a_table_without_tenants_shows_a_seller_nothing(facts: Facts):
    for table in ("minute", "minute_series", "migrations"):
        assert facts.of("alpha").query(f"SELECT count() AS n FROM {table}")["n"].to_pylist() == [0]
        assert facts.query(f"SELECT count() AS n FROM {table}")["n"].to_pylist() != [0]


def test_every_table_of_the_facts_is_cut():
    assert set(own.filters("alpha", Nodes())) == {*schema.TABLES, "migrations"}
    assert own.filters("alpha", Nodes("db", "big"))["leaf"].startswith("series IN (SELECT series FROM db.leaf_series_l")


def test_a_bound_question_leaves_nothing_behind_for_the_next(facts: Facts):
    sql = "SELECT count() AS n FROM events WHERE kind = 'bounced'"
    for _ in range(2):
        assert facts.of("nobody").query(sql)["n"].to_pylist() == [0]
        assert facts.of("alpha").query(sql)["n"].to_pylist() == [2]
        assert facts.query(sql)["n"].to_pylist() == [2 * len(SELLERS)]


def test_nobody_is_bound_to_mail_without_a_tenant(facts: Facts):
    with pytest.raises(ValueError, match="no tenant"):
        facts.of("")


# the routes


def test_only_one_file_of_the_routes_that_sellers_may_ask_touches_the_stores():
    """The others get what they know from it, bound; what is named here shows nothing of anybody's mail."""
    own_state = {"session.py": "its own session", "health.py": "whether we are well"}
    opened: dict[str, list[str]] = {}
    for path in sorted(API.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        touches = any(isinstance(node, ast.Attribute) and node.attr == "stores" for node in ast.walk(tree))
        routes = [pair for pair in _routes(tree) if pair in CORE and CORE[pair].own]
        if touches and routes:
            opened[path.name] = [" ".join(pair) for pair in routes]
    opened.pop("hand.py")  # see below
    assert opened.keys() == own_state.keys()


def test_the_route_of_the_log_that_sellers_may_ask_does_not_touch_the_stores():
    tree = ast.parse((API / "hand.py").read_text("utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert "stores" not in ast.unparse(functions["log"])
    assert "seen(core, request)" in ast.unparse(functions["log"])


def _routes(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Method and path of each route that a module makes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for made in node.decorator_list:
                if isinstance(made, ast.Call) and isinstance(made.func, ast.Attribute) and made.args:
                    path = made.args[0]
                    if isinstance(path, ast.Constant) and isinstance(path.value, str):
                        yield made.func.attr.upper(), path.value


def test_another_sellers_name_is_refused_whether_there_is_one_or_not(market: Market, facts: Facts):
    for path in ("/v1/series", "/v1/top", "/v1/cohorts", "/v1/replies", "/v1/check"):
        there, nowhere = (market.ask("alpha", "GET", path, tenant=tenant) for tenant in ("alpha2", "nobody"))
        assert (there.status_code, there.text) == (403, nowhere.text)
        assert "alpha2" not in there.text
        assert market.ask("alpha", "GET", path, tenant="alpha").status_code == 200


def test_a_seller_names_its_campaigns_without_naming_itself(market: Market, facts: Facts):
    told = market.ask("alpha", "GET", "/v1/top", by="campaign", campaign="spring", at_least=1).json()
    assert told["where"] == {"tenant": "alpha", "campaign": "spring"}
    assert [one["scope"] for one in told["scopes"]] == [{"tenant": "alpha", "campaign": "spring"}]


def test_a_cursor_is_of_no_use_to_another(market: Market, facts: Facts):
    query = {"by": "ip,tenant,campaign", "at_least": 1, "limit": 1}
    market.tell(event(number, "alpha", campaign=f"c{number}", ip="192.0.2.9") for number in range(10, 14))
    following = {who: market.ask(who, "GET", "/v1/top", **query).json()["next"] for who in ("alpha", "")}
    assert all(following.values())
    for who, of in (("alpha2", "alpha"), ("alpha", ""), ("", "alpha")):
        refused = market.ask(who, "GET", "/v1/top", **query, cursor=following[of])
        assert (refused.status_code, "none of ours" in refused.text) == (422, True)
    assert market.ask("alpha", "GET", "/v1/top", **query, cursor=following["alpha"]).status_code == 200


def test_a_rule_that_there_is_not_is_told_without_the_names_of_others(market: Market):
    assert "bounce-seller" in market.ask("", "GET", "/v1/top", rule="nothing").text
    told = market.ask("alpha", "GET", "/v1/top", rule="nothing")
    assert (told.status_code, "bounce-seller" in told.text) == (422, False)


def test_volume_is_of_ones_own_mail(market: Market, facts: Facts):
    assert market.ask("", "GET", "/v1/volume", minutes=10).json()["points"][0][1:4] == [10, 0, 10]
    assert market.ask("alpha", "GET", "/v1/volume", minutes=10).json()["points"][0][1:4] == [2, 0, 2]
    assert market.ask("nobody", "GET", "/v1/volume", minutes=10).json()["points"] == []


def test_the_machines_of_the_operator_are_not_named_to_sellers(market: Market, facts: Facts):
    assert "mx-internal-1" in market.ask("", "GET", "/v1/series").text
    for path in ("/v1/series", "/v1/top", "/v1/cohorts"):
        told = market.ask("alpha", "GET", path)
        assert (told.json()["sources"], "mx-internal" in told.text) == ([], False)


def test_mail_without_a_tenant_is_nobodys(market: Market):
    market.forget()
    market.tell([event(number, "") | {"campaign": ""} for number in range(4)])
    assert market.ask("", "GET", "/v1/volume", minutes=10).json()["points"] != []
    assert market.ask("alpha", "GET", "/v1/volume", minutes=10).json()["points"] == []
    assert (
        json.loads(market.ask("alpha", "POST", "/v1/search", {"message_id": "<1.9@shop.example>"}).text)["events"] == []
    )


def test_a_seller_is_bound_by_its_whole_name(facts: Facts):
    for tenant, events in (("alph", 0), ("alpha", 4), ("ALPHA", 0), ("alpha ", 0)):
        assert facts.of(tenant).query("SELECT count() AS n FROM events")["n"].to_pylist() == [events]
