"""Every route has its door: who may come in is asked of the running service, route by route, as OpenAPI tells it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitor.access import keys
from monitor.access.people import add
from monitor.api.doors import CORE, GATE, Door, Doors
from monitor.caller import RIGHTS, TENANTS, Right, Role
from monitor.ledger.db import open_ledger
from tests.servers.mailvane import Mailvane, mailvane

PASSWORD = "a long way to Tipperary"
# Written by hand from what a role is for, and not from the table that is tried here.
ANYBODY = {"/healthz", "/readyz", "/v1/session", "/v1/session/ways", "/login", "/v1/oidc/login", "/v1/oidc/callback"}
SEES = {
    "GET /v1/status", "GET /v1/incidents", "GET /v1/volume", "GET /v1/series", "GET /v1/top", "GET /v1/cohorts",
    "GET /v1/replies", "GET /v1/replies/classes", "GET /v1/replies/unknown", "GET /v1/facts", "GET /v1/attribution", "GET /v1/rejected", "GET /v1/actions", "GET /v1/me", "POST /v1/search",
    "GET /v1/leases", "GET /v1/check", "POST /v1/check", "GET /metrics", "GET /v1/leases/stream",
    "GET /v1/suppressions", "POST /v1/suppressions/check", "GET /v1/suppressions/outages",
}  # fmt: skip
TURNS = {
    "POST /v1/actions", "POST /v1/approvals/{approval}", "DELETE /v1/approvals/{approval}", "GET /v1/approvals",
    "POST /v1/suppressions", "POST /v1/suppressions/release", "POST /v1/suppressions/outages",
    "DELETE /v1/suppressions/outages/{outage}",
}  # fmt: skip


@dataclass
class One:
    """Somebody with what it sends to be known."""

    name: str
    rights: frozenset[Right]
    headers: Mapping[str, str]
    tenant: str = ""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailvane, list[One]]]:
    """The service with nothing granted to anybody, and one of each kind who asks."""
    folder = tmp_path_factory.mktemp("doors")
    ledger = open_ledger(folder / "data/ledger.sqlite")
    now, year = datetime.now(UTC), timedelta(days=365)
    callers = [One("anonymous", frozenset(), {})]
    with ledger.begin() as conn:
        for right in Right:
            text, _ = keys.make(conn, str(right), {right}, now=now, by="test", expires=year)
            callers.append(One(f"key {right}", frozenset({right}), bearer(text)))
        text, _ = keys.make(conn, "seller", TENANTS, tenant="s07", now=now, by="test", expires=year)
        callers.append(One("seller", TENANTS, bearer(text), "s07"))
        for role in Role:
            add(conn, f"{role}", role, PASSWORD, now=now, by="test")
    ledger.dispose()
    with mailvane(folder, '[access]\nkey_rate = "10000/second"\naddress_rate = "10000/second"\n') as service:
        callers.extend(One(f"person {role}", RIGHTS[role], signed_in(service, str(role))) for role in Role)
        token = (folder / "data/token").read_text().strip()
        callers.append(One("machine", frozenset(Right), bearer(token)))
        yield service, callers


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def signed_in(service: Mailvane, name: str) -> dict[str, str]:
    body = json.dumps({"name": name, "password": PASSWORD}).encode()
    request = urllib.request.Request(f"{service.url}/v1/session", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return {
            "Cookie": answer.headers["Set-Cookie"].partition(";")[0],
            "X-CSRF-Token": json.load(answer)["csrf"],
        }


def status(service: Mailvane, method: str, path: str, headers: Mapping[str, str]) -> int:
    """What is answered to a request that says nothing sensible, so that whoever is let in changes nothing."""
    asked = re.sub(r"\{[^}]+\}", "nothing", path) + ("?wait=x" if path == "/v1/leases" else "")
    body = b"{" if method in ("POST", "PUT", "PATCH") else None
    request = urllib.request.Request(service.url + asked, body, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def told(service: Mailvane, headers: Mapping[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(f"{service.url}/openapi.json", headers=dict(headers))
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def operations(service: Mailvane, callers: list[One]) -> list[tuple[str, str, dict[str, Any]]]:
    admin = next(one for one in callers if one.name == "person admin")
    return [
        (method.upper(), path, operation)
        for path, methods in told(service, admin.headers)["paths"].items()
        for method, operation in methods.items()
    ]


def tried(method: str, path: str) -> bool:
    """Whether it is asked here: who signs out is nobody afterwards."""
    return (method, path) != ("DELETE", "/v1/session")


def test_each_role_opens_just_the_routes_of_its_scopes(house: tuple[Mailvane, list[One]]):
    service, callers = house
    wrong = []
    for method, path, _ in operations(service, callers):
        door = CORE[method, path]
        for one in callers:
            allowed = door.right is None or expected(door, one)
            if not tried(method, path) or not ends(path, allowed):
                continue
            found = status(service, method, path, one.headers)
            refused = 401 if one.name == "anonymous" else 403
            if allowed == (found in (401, 403)) or (not allowed and found != refused):
                wrong.append(f"{one.name}: {method} {path} gives {found}")
    assert wrong == []


def ends(path: str, allowed: bool) -> bool:
    """Whether its answer ends: a stream that opens goes on."""
    return not (path == "/v1/leases/stream" and allowed)


def expected(door: Door, one: One) -> bool:
    may = one.rights & {door.right, door.instead} or Right.ADMIN in one.rights
    return bool(may) and (door.own or not one.tenant) and not (door.named and one.name == "anonymous")


def test_what_openapi_tells_of_a_route_is_its_door(house: tuple[Mailvane, list[One]]):
    service, callers = house
    for method, path, operation in operations(service, callers):
        door = CORE[method, path]
        assert operation.get("x-scope") == (str(door.right) if door.right else None), (method, path)
        assert (operation["security"] == []) == (door.right is None), (method, path)
        assert door.right is not None or path in ANYBODY, (method, path)


def test_a_viewer_sees_and_cannot_act(house: tuple[Mailvane, list[One]]):
    service, callers = house
    viewer = next(one for one in callers if one.name == "person viewer")
    operator = next(one for one in callers if one.name == "person operator")
    for method, path, _ in operations(service, callers):
        if path in ANYBODY or path == "/v1/leases/stream":
            continue
        name = f"{method} {path}"
        assert (status(service, method, path, viewer.headers) != 403) == (name in SEES or path == "/openapi.json"), name
        assert (status(service, method, path, operator.headers) != 403) == (
            name in SEES | TURNS or path == "/openapi.json"
        ), name


def test_every_route_of_the_application_has_a_door_and_every_door_a_route(house: tuple[Mailvane, list[One]]):
    service, callers = house
    shown = {(method, path) for method, path, _ in operations(service, callers)}
    hidden = {("GET", "/"), ("GET", "/login"), ("GET", "/static/{path:path}"), ("GET", "/openapi.json")}
    assert shown <= set(CORE)
    assert set(CORE) - shown <= hidden | {
        ("POST", "/v1/handover"),
        ("GET", "/v1/oidc/login"),
        ("GET", "/v1/oidc/callback"),
    }


def test_a_route_without_a_door_is_shut_to_everybody():
    doors = Doors(CORE)
    assert doors.find("GET", "/v1/new") is None
    assert doors.find("PUT", "/v1/actions") is None
    assert doors.find("GET", "/v1/keys/x") is None
    assert doors.methods("/v1/keys/x") == ["DELETE"]
    assert doors.find("HEAD", "/v1/status") == ("/v1/status", CORE["GET", "/v1/status"])
    assert doors.find("GET", "/static/vendor/chart.js") == ("/static/{path:path}", CORE["GET", "/static/{path:path}"])
    assert doors.find("GET", "/static/") is None
    assert set(GATE) <= set(CORE)
    assert all(GATE[pair] == CORE[pair] for pair in GATE)
