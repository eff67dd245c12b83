"""Another seller's names, numbers and pages open nothing: tried for every route and each thing that it takes.

What is tried is generated: the routes out of OpenAPI, the names out of what the other seller is told of its own mail.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest

from monitor.api.doors import CORE
from monitor.model import LABELS, Deed, Scope
from tests.builders import incident, pause, verdict
from tests.servers.sellers import NOW, Market, asked, house

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
MINE, THEIRS = "alpha", "bravo-house"
AT = "2026-11-24T12:20:00Z"
# A seller's key has no session; to sign in and out is another thing.
LEFT_OUT = {"/v1/session", "/v1/oidc/login", "/v1/oidc/callback"}
WINDOW = {"minutes": 180}
# What a seller is asked so that it tells of itself whatever it can.
TELLING: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/v1/me", {}),
    ("GET", "/v1/incidents", {"state": "all"}),
    ("GET", "/v1/actions", {}),
    ("GET", "/v1/leases", {}),
    ("GET", "/v1/series", {"by": "ip,domain,provider,stream,tenant,segment,campaign,variant,region", **WINDOW}),
    ("GET", "/v1/top", {"by": "ip,domain,provider,stream,tenant,segment", "at_least": 1, "limit": 1, **WINDOW}),
    ("GET", "/v1/cohorts", {"by": "ip,provider,tenant,campaign", "kind": "bounced", "limit": 1}),
    ("GET", "/v1/replies", {"limit": 1, **WINDOW}),
    ("GET", "/v1/replies/classes", {"limit": 1, **WINDOW}),
    ("GET", "/v1/replies/unknown", {"limit": 1, **WINDOW}),
)
# The least that a request of some routes must say.
REQUIRED: Mapping[str, Any] = {"kind": "sent", "at": AT, "message_id": "<new@alpha.example>"}


@dataclass
class Known:
    """What a seller was told of itself."""

    strings: set[str] = field(default_factory=set)
    numbers: set[int] = field(default_factory=set)
    cursors: set[str] = field(default_factory=set)

    def learn(self, told: Any, name: str = "") -> None:
        if isinstance(told, dict):
            for key, value in told.items():
                self.learn(value, key)
        elif isinstance(told, list):
            for value in told:
                self.learn(value, name)
        elif isinstance(told, str) and name == "next":
            self.cursors.add(told)
        elif isinstance(told, str):
            self.strings.add(told)
        elif isinstance(told, int) and name in ("id", "seq", "incident"):
            self.numbers.add(told)


@dataclass
class House:
    """The service, what the other seller knows, and what of that is to be found nowhere else."""

    market: Market
    theirs: Known
    secret: set[str]
    operations: list[tuple[str, str, dict[str, Any]]]


def mail(tenant: str, at: int) -> Iterator[dict[str, Any]]:
    """Nine labels, a message id, a recipient and a reply that no other seller has."""
    for number in range(3):
        yield {
            "kind": "bounced",
            "at": NOW - at * MINUTE - timedelta(seconds=number + 7),
            "message_id": f"<{number}@{tenant}.example>",
            "recipient": f"customer{number // 2}@{tenant}.example",
            **{label: f"{tenant}-{label}-{number}" for label in LABELS},
            "tenant": tenant,
            "code": 550,
            "dsn": f"5.7.{at}",
            "relay": f"mx.{tenant}.example",
            "reply": f"550 go away, says {tenant} {number}",
        }


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("idor")) as market:
        for place, tenant in enumerate((MINE, THEIRS)):  # so that all numbers of ours are lower
            market.tell(mail(tenant, 10 + place))
            scope = Scope(tenant=tenant, segment=f"{tenant}-segment-1")
            bad = verdict(scope=scope, since=NOW - 5 * MINUTE, until=NOW, shares=((tenant, 0.7),))
            known = market.open(incident(id=0, scope=scope, opened_at=NOW, updated_at=NOW, evidence=bad))
            each = {"scope": scope, "at": NOW - MINUTE, "until": NOW + HOUR}
            market.log(
                pause(id=f"{tenant}@1", incident=known.id, **each),
                pause(
                    id=f"{tenant}@2",
                    who=f"{tenant}-manager",
                    why=f"{tenant} asked",
                    deed=Deed.THROTTLE,
                    **{**each, "incident": 0},
                ),
                pause(id=f"{tenant}@3", **{**each, "incident": 0, "scope": Scope(tenant=tenant)}),
            )
            told = json.dumps([REQUIRED]).encode()
            market.ask_with(tenant, {"Idempotency-Key": f"{tenant}-batch"}, told)
        shared = Scope(ip=f"{MINE}-ip-0")
        market.log(pause(id="9@1", scope=shared, why=f"{THEIRS} and others", at=NOW - MINUTE, until=NOW + HOUR))
        market.core.stores.applier.drain()
        theirs, ours = learnt(market, THEIRS), learnt(market, MINE)
        theirs.numbers = {number for number in theirs.numbers if number > max(ours.numbers)}
        theirs.strings |= {f"<0@{THEIRS}.example>", f"customer0@{THEIRS}.example", f"{THEIRS}-batch"}
        secret = {text for text in theirs.strings - ours.strings if len(text) > 3} | {THEIRS}
        told = market.ask("", "GET", "/openapi.json").json()["paths"]
        operations = [
            (method.upper(), path, operation)
            for path, operations in told.items()
            for method, operation in operations.items()
        ]
        yield House(market, theirs, secret, operations)


def learnt(market: Market, who: str) -> Known:
    found = Known()
    for method, path, query in TELLING:
        answer = market.ask(who, method, path, **query)
        assert answer.status_code == 200, answer.text
        found.learn(answer.json())
    body = {"message_id": f"<0@{who}.example>"}
    found.learn(market.ask(who, "POST", "/v1/search", body).json())
    found.learn(market.ask(who, "POST", "/v1/search", {"recipient": f"customer0@{who}.example", "limit": 1}).json())
    return found


# the generator


@dataclass(frozen=True)
class Hole:
    """A place of a request where a name may stand; ``fill`` makes the request: path, query, headers and body."""

    method: str
    path: str
    name: str
    number: bool
    fill: Callable[[Any], tuple[str, dict[str, Any], dict[str, str], Any]]


def holes(operations: list[tuple[str, str, dict[str, Any]]]) -> Iterator[Hole]:
    for method, path, operation in operations:
        if not CORE[method, path].own or path in LEFT_OUT:
            continue
        for one in operation.get("parameters", ()):
            yield Hole(method, path, one["name"], _number(one["schema"]), _by(path, one["in"], one["name"]))
        for kind in operation.get("requestBody", {}).get("content", {}).values():
            for name, number, fill in _of(kind["schema"]):
                yield Hole(method, path, name, number, lambda value, path=path, fill=fill: (path, {}, {}, fill(value)))


def _by(path: str, place: str, name: str) -> Callable[[Any], tuple[str, dict[str, Any], dict[str, str], Any]]:
    def fill(value: Any) -> tuple[str, dict[str, Any], dict[str, str], Any]:
        if place == "path":
            return path.replace(f"{{{name}}}", str(value)), {}, {}, None
        if place == "header":
            return path, {}, {name: str(value)}, [REQUIRED]
        return path, {name: value, **({"tenant": MINE} if name in LABELS and name != "tenant" else {})}, {}, None

    return fill


def _of(schema: dict[str, Any]) -> Iterator[tuple[str, bool, Callable[[Any], Any]]]:
    """Each property that a body may have, however deep, with what makes a body with it."""
    for one in schema.get("oneOf", schema.get("anyOf", ())):
        yield from _of(one)
    required = {name: REQUIRED[name] for name in schema.get("required", ()) if name in REQUIRED}
    base = {**required, **({"message_id": REQUIRED["message_id"]} if required else {})}
    for name, inner in schema.get("properties", {}).items():
        if inner.get("type") == "array":
            for deep, number, fill in _of(inner["items"]):
                yield deep, number, lambda value, name=name, fill=fill: {**base, name: [fill(value)]}
        else:
            yield name, _number(inner), lambda value, name=name: {**base, name: value}
    if schema.get("type") == "array":
        for name, number, fill in _of(schema["items"]):
            yield name, number, lambda value, fill=fill: [fill(value)]


def _number(schema: dict[str, Any]) -> bool:
    kinds = {schema.get("type"), *(one.get("type") for one in schema.get("anyOf", ()))}
    return bool(kinds & {"integer", "number"})


def values(hole: Hole, theirs: Known) -> Iterator[Any]:
    """What the other seller has that fits there."""
    if hole.number:
        yield from sorted(theirs.numbers)
    elif hole.name == "cursor":
        yield from sorted(theirs.cursors)
    elif hole.name in LABELS:
        yield THEIRS if hole.name == "tenant" else f"{THEIRS}-{hole.name}-0"
    else:
        yield THEIRS
        wanted = {"message_id": "<0@", "recipient": "customer0@", "Idempotency-Key": "-batch"}.get(hole.name, "@1")
        yield from sorted(text for text in theirs.strings if wanted in text and " " not in text)


def absent(value: Any) -> Any:
    """Another of the same kind, which nobody has."""
    if isinstance(value, int):
        return 10**9 + value
    if re.fullmatch(r"[\w-]{12,}", value) and "bravo" not in value:
        return base64.urlsafe_b64encode(b"[1,2,3,4,5,6]").decode()
    return value.replace(THEIRS, "nobodys-one")


# the trial


def test_nothing_of_another_seller_opens_by_its_names_numbers_or_pages(opened: House):
    wrong: list[str] = []
    tried = set()
    for hole in holes(opened.operations):
        for value in values(hole, opened.theirs):
            tried.add((hole.method, hole.path))
            there = answered(opened, hole, value)
            # Of numbers these alone name something; others are measures, such as how many.
            names = not hole.number or hole.name == "before"
            nowhere = answered(opened, hole, absent(value)) if names else there
            if there != nowhere:
                wrong.append(f"{hole.method} {hole.path} {hole.name}={value!r}: {there} is not {nowhere}"[:600])
            wrong += [
                f"{hole.method} {hole.path} {hole.name}={value!r} tells {text!r}"
                for text in opened.secret
                if text in there[1]
            ]
    assert wrong == []
    own = {(method, path) for method, path, _ in opened.operations if CORE[method, path].own} - {
        (method, path) for method, path, _ in opened.operations if path in LEFT_OUT
    }
    assert own - tried <= {(method, path) for method, path in own if not _takes(opened, method, path)}


def _takes(opened: House, method: str, path: str) -> bool:
    """Whether the route takes anything at all."""
    return any((hole.method, hole.path) == (method, path) for hole in holes(opened.operations))


def answered(opened: House, hole: Hole, value: Any) -> tuple[int, str, str | None]:
    path, query, headers, body = hole.fill(value)
    answer = send(opened.market, hole.method, path, query, headers, body)
    # A name that was asked for may stand in the answer: it is known already.
    said = answer.text.replace(value, "?") if isinstance(value, str) else answer.text
    return answer.status_code, said, answer.headers.get("Idempotent-Replayed")


def send(
    market: Market, method: str, path: str, query: dict[str, Any], headers: dict[str, str], body: Any
) -> httpx.Response:
    known = {"Authorization": f"Bearer {market.key(MINE)}", **headers}
    return asked(market.app, method, path, None if method == "GET" else body, query, known)


def test_the_other_seller_is_told_what_is_kept_from_this_one(opened: House):
    """The positive control: what is looked for above is there to be found."""
    for method, path, query in TELLING:
        told = opened.market.ask(THEIRS, method, path, **query).text
        assert any(text in told for text in opened.secret), path
    assert len(opened.secret) > 30
    assert len(opened.theirs.cursors) >= 4
    assert len(opened.theirs.numbers) >= 2


def test_whatever_this_seller_asks_the_other_one_is_told_what_it_was_before(opened: House):
    before = [opened.market.ask(THEIRS, method, path, **query).text for method, path, query in TELLING]
    for hole in holes(opened.operations):
        if hole.method != "GET":
            answered(opened, hole, THEIRS)
    opened.market.core.stores.applier.drain()
    assert [opened.market.ask(THEIRS, method, path, **query).text for method, path, query in TELLING] == before


def test_without_any_names_a_seller_is_told_nothing_of_another(opened: House):
    for method, path, query in TELLING:
        told = opened.market.ask(MINE, method, path, **query)
        assert told.status_code == 200
        assert [text for text in opened.secret if text in told.text] == [], path


def test_routes_that_are_not_for_sellers_are_shut(opened: House):
    shut = [(method, path) for method, path, _ in opened.operations if not CORE[method, path].own]
    assert len(shut) > 10
    for method, path in shut:
        answer = send(opened.market, method, re.sub(r"\{\w+\}", THEIRS, path), {}, {}, {})
        assert answer.status_code == 403, (method, path, answer.text)
        assert THEIRS not in answer.text
