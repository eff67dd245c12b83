"""Which right opens which route: the whole list, so that one page says who may do what. What is not here is shut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from monitor.caller import Caller, Right


@dataclass(frozen=True, slots=True)
class Door:
    """Of one route. ``right`` None: everybody may come in, since it shows nothing of what we know.

    ``instead``: another right that does as well. ``own``: a seller's key may come in, for the route answers of that
    seller's mail alone; else it is refused. ``named``: never anonymous, whatever was granted. ``noted``: each use
    stands in the access log by itself, since it changes something or shows a person's mail; others are counted there.
    """

    right: Right | None
    instead: Right | None = None
    own: bool = False
    named: bool = False
    noted: bool = False

    def opens(self, caller: Caller) -> bool:
        """Whether the caller has the right."""
        return any(caller.may(right) for right in (self.right, self.instead) if right) or self.right is None

    @property
    def quick(self) -> bool:
        """Whether senders ask here, before each mail."""
        return Right.CHECK in (self.right, self.instead)


_OPEN = Door(None, own=True)
_READ = Door(Right.READ)
_OWN = Door(Right.READ, own=True)
_CHECK = Door(Right.CHECK, own=True)
_LEASES = Door(Right.READ, Right.CHECK, own=True)
_STREAM = Door(Right.READ, Right.CHECK)
_INGEST = Door(Right.INGEST, own=True)
_OPERATE = Door(Right.OPERATE, named=True, noted=True)
_ADMIN = Door(Right.ADMIN, named=True, noted=True)

CORE: Mapping[tuple[str, str], Door] = {
    # our own state
    ("GET", "/healthz"): _OPEN,
    ("GET", "/readyz"): _OPEN,
    ("GET", "/metrics"): Door(Right.METRICS),
    ("GET", "/openapi.json"): _READ,
    # the page
    ("GET", "/"): _READ,
    ("GET", "/login"): _OPEN,
    ("GET", "/static/{path:path}"): _OPEN,
    # people
    ("GET", "/v1/me"): _OWN,
    ("POST", "/v1/session"): _OPEN,
    ("DELETE", "/v1/session"): _OPEN,
    ("GET", "/v1/session/ways"): _OPEN,
    ("GET", "/v1/oidc/login"): _OPEN,
    ("GET", "/v1/oidc/callback"): _OPEN,
    ("GET", "/v1/people"): _ADMIN,
    ("GET", "/v1/sessions"): _ADMIN,
    ("DELETE", "/v1/sessions/{session}"): _ADMIN,
    ("GET", "/v1/keys"): _ADMIN,
    ("POST", "/v1/keys"): _ADMIN,
    ("POST", "/v1/keys/{key}/rotate"): _ADMIN,
    ("DELETE", "/v1/keys/{key}"): _ADMIN,
    ("GET", "/v1/access"): _ADMIN,
    # facts in
    ("POST", "/v1/events"): _INGEST,
    ("GET", "/v1/events/schema"): _INGEST,
    ("POST", "/v1/batches"): Door(Right.INGEST),
    # what is known
    ("GET", "/v1/status"): _READ,
    ("GET", "/v1/incidents"): _OWN,
    ("GET", "/v1/volume"): _OWN,
    ("GET", "/v1/series"): _OWN,
    ("GET", "/v1/top"): _OWN,
    ("GET", "/v1/cohorts"): _OWN,
    ("GET", "/v1/replies"): _OWN,
    ("GET", "/v1/replies/classes"): _OWN,
    ("GET", "/v1/replies/unknown"): _OWN,
    ("POST", "/v1/search"): Door(Right.READ, own=True, named=True, noted=True),
    ("GET", "/v1/facts"): _READ,
    ("GET", "/v1/rejected"): _READ,
    ("GET", "/v1/attribution"): _READ,
    # the brake
    ("GET", "/v1/check"): _CHECK,
    ("POST", "/v1/check"): _CHECK,
    ("GET", "/v1/leases"): _LEASES,
    ("GET", "/v1/leases/stream"): _STREAM,
    ("GET", "/v1/actions"): _OWN,
    ("POST", "/v1/actions"): _OPERATE,
    ("GET", "/v1/approvals"): Door(Right.OPERATE, named=True),
    ("POST", "/v1/approvals/{approval}"): _OPERATE,
    ("DELETE", "/v1/approvals/{approval}"): _OPERATE,
    # who should get no more mail
    ("GET", "/v1/suppressions"): _OWN,
    ("POST", "/v1/suppressions/check"): Door(Right.READ, own=True, named=True),
    ("POST", "/v1/suppressions"): _OPERATE,
    ("POST", "/v1/suppressions/release"): _OPERATE,
    ("GET", "/v1/suppressions/outages"): _READ,
    ("POST", "/v1/suppressions/outages"): _OPERATE,
    ("DELETE", "/v1/suppressions/outages/{outage}"): _OPERATE,
    ("DELETE", "/v1/suppressions/{person}"): _ADMIN,
    # what could not be read
    ("GET", "/v1/quarantine"): _ADMIN,
    ("GET", "/v1/quarantine/{item}"): _ADMIN,
    ("POST", "/v1/quarantine/{item}/retry"): _ADMIN,
    ("DELETE", "/v1/quarantine/{item}"): _ADMIN,
    # commands of this machine
    ("POST", "/v1/handover"): _ADMIN,
}
GATE: Mapping[tuple[str, str], Door] = {
    ("GET", "/healthz"): _OPEN,
    ("GET", "/readyz"): _OPEN,
    ("GET", "/metrics"): Door(Right.METRICS),
    ("GET", "/v1/check"): _CHECK,
    ("POST", "/v1/check"): _CHECK,
    ("GET", "/v1/leases"): _LEASES,
    ("GET", "/v1/leases/stream"): _STREAM,
}


class Doors:
    """The doors of one application, found by method and path."""

    def __init__(self, doors: Mapping[tuple[str, str], Door]) -> None:
        self._plain = {pair: (pair[1], door) for pair, door in doors.items() if "{" not in pair[1]}
        self._shaped = [(method, _shape(path), path, door) for (method, path), door in doors.items() if "{" in path]

    def find(self, method: str, path: str) -> tuple[str, Door] | None:
        """The route's path as it is written above, and its door; None where there is no such route."""
        method = "GET" if method == "HEAD" else method
        if found := self._plain.get((method, path)):
            return found
        return next(
            (
                (shown, door)
                for wanted, shape, shown, door in self._shaped
                if method == wanted and shape.fullmatch(path)
            ),
            None,
        )

    def methods(self, path: str) -> list[str]:
        """By which methods a path can be asked."""
        every = {method for method, _ in self._plain} | {method for method, *_ in self._shaped}
        return sorted(method for method in every if self.find(method, path))


def _shape(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(:path)?\}", path)  # text, name, kind, text, …
    made = "".join(
        re.escape(part) if at % 3 == 0 else "" if at % 3 == 1 else (".+" if part else "[^/]+")
        for at, part in enumerate(parts)
    )
    return re.compile(made)
