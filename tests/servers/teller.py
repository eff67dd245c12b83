"""Events told over HTTP to a running service, as a marketplace's system would."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.servers.mailvane import Mailvane


@dataclass
class Said:
    """An answer: ``body`` as JSON, ``headers`` in lower case."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


def event(number: int, at: datetime | str, **more: Any) -> dict[str, Any]:
    """An outcome of the numbered message."""
    return {
        "kind": ("sent", "deferred", "bounced", "complaint")[number % 4],
        "at": at if isinstance(at, str) else at.isoformat(),
        "message_id": f"<{number}@shop.example>",
        "recipient": f"user{number}@example.net",
        "attempt": 1,
        "ip": f"192.0.2.{number % 5}",
        "provider": "gmail",
        "stream": "marketing",
        "tenant": f"s{number % 11}",
        "segment": f"g{number % 3}",
        **more,
    }


def events(numbers: Iterable[int], at: datetime) -> bytes:
    """A body with an outcome of each."""
    return b"\n".join(json.dumps(event(number, at)).encode() for number in numbers)


def tell(service: Mailvane, body: bytes, seconds: float = 30) -> Said:
    """What ``POST /v1/events`` answers, whatever it is."""
    try:
        with urllib.request.urlopen(f"{service.url}/v1/events", body, timeout=seconds) as answer:
            return Said(answer.status, json.load(answer), _lower(answer.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Said(error.code, json.loads(error.read() or b"null"), _lower(error.headers))


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def settled(service: Mailvane) -> dict[str, Any] | None:
    """The totals, once nothing on disk waits to be counted."""
    totals = service.get("/v1/facts")
    return None if totals["waiting"] else totals


def exact(totals: dict[str, Any], count: int) -> None:
    """Raw events, their keys and each grain are so many."""
    found = {grain: sum(totals[grain].values()) for grain in ("events", "leaf", "minute", "hour")}
    assert {"rows": totals["rows"], "keys": totals["keys"], **found} == dict.fromkeys(
        ("rows", "keys", "events", "leaf", "minute", "hour"), count
    )
