"""Whatever a stranger asks, as OpenAPI describes it and otherwise: no route answers with a fault of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.servers.mailvane import Mailvane, mailvane

FULL = os.environ.get("MAILVANE_SCALE") == "full"
EXAMPLES = 1000 if FULL else 15  # of each route and mode
SLOWEST = 30  # seconds
ASKED = {
    "/v1/events",
    "/v1/events/schema",
    "/v1/series",
    "/v1/top",
    "/v1/cohorts",
    "/v1/replies",
    "/v1/replies/classes",
    "/v1/replies/unknown",
    "/v1/search",
    "/v1/status",
    "/v1/incidents",
    "/v1/volume",
    "/v1/actions",
    "/v1/rejected",
    "/v1/facts",
}


ENDLESS = {"/v1/leases/stream"}  # it goes on for as long as one listens


@schemathesis.serializer("application/x-ndjson", "application/vnd.mailvane.batches")
def _lines(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailvane]:
    with mailvane(tmp_path_factory.mktemp("asked"), "") as running:
        yield running


def operations(service: Mailvane) -> list[Any]:
    told = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    found = [result.ok() for result in told.get_all_operations()]
    return [operation for operation in found if operation.path not in ENDLESS]


def test_every_route_of_ours_is_told(service: Mailvane):
    assert {operation.path for operation in operations(service)} >= ASKED


@pytest.mark.scale(order=3)
@pytest.mark.parametrize("mode", GenerationMode, ids=str)
def test_no_route_answers_with_a_fault(service: Mailvane, mode: GenerationMode):
    token = (service.config.parent / "data/token").read_text().strip()
    for operation in operations(service):
        if mode is GenerationMode.NEGATIVE and not (operation.body or list(operation.iter_parameters())):
            continue  # nothing is asked, so nothing can be asked wrongly
        try:
            check(operation, mode, {"Authorization": f"Bearer {token}"})
        except Unsatisfiable:  # any bytes are a body there, so none are wrong
            assert operation.path not in ASKED, operation.path
    assert "Traceback" not in service.log.read_text()
    assert service.get("/readyz")["errors"] == {}


def check(operation: Any, mode: GenerationMode, headers: dict[str, str]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not FULL,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if operation.path == "/v1/leases":
            case.query.pop("wait", None)  # who knows the set waits for the next one, a minute at most
        answer = case.call(headers=headers, timeout=SLOWEST)
        assert answer.status_code < 500, f"{case.as_curl_command()}: {answer.text[:500]}"

    ask()
