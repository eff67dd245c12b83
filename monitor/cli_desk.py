"""Who looks after the quarantine for a command: the service that runs, or the command itself where none does."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

import click

if TYPE_CHECKING:
    from monitor.settings import Settings

_ROUTE = "/v1/quarantine"


class Desk(Protocol):
    """Who does it."""

    def page(self, source: str, since: datetime | None, limit: int, after: str) -> tuple[list[dict[str, Any]], str]:
        """Items, and what to ask for the next ones by."""

    def shown(self, item: str) -> dict[str, Any]:
        """An item with what it holds, scrubbed."""

    def raw(self, item: str) -> bytes:
        """Its bytes."""

    def retry(self, item: str) -> dict[str, Any]:
        """What became of it."""

    def drop(self, item: str) -> None:
        """Remove it."""


@contextmanager
def opened(settings: Settings, now: Callable[[], datetime], who: str) -> Iterator[Desk]:
    """The service that runs, or the stores themselves where none does."""
    from monitor import handover
    from monitor.errors import UserError

    service = settings.service
    handover.owner_only(service.data)
    if not settings.ledger.exists():
        raise UserError(f"there is no store in {service.data}: has the service ever run with this configuration?")
    connection = handover.connected(service.listen, service.tls_cert) if settings.token_file.exists() else None
    if connection is not None:
        token = settings.token_file.read_text("utf-8").strip()
        with closing(connection):
            yield _There(connection, token)
    else:
        with _here(settings, now, who) as desk:
            yield desk


class _There:
    """The running service does it."""

    def __init__(self, connection: http.client.HTTPConnection, token: str) -> None:
        self._connection = connection
        self._headers = {"Authorization": f"Bearer {token}"}

    def page(self, source: str, since: datetime | None, limit: int, after: str) -> tuple[list[dict[str, Any]], str]:
        wish = {"source": source, "since": since.isoformat() if since else "", "limit": str(limit), "after": after}
        query = urlencode({name: value for name, value in wish.items() if value})
        told = json.loads(self._ask("GET", f"{_ROUTE}?{query}"))
        return told["items"], told["next"] or ""

    def shown(self, item: str) -> dict[str, Any]:
        return dict(json.loads(self._ask("GET", _path(item))))

    def raw(self, item: str) -> bytes:
        return self._ask("GET", f"{_path(item)}?raw=true")

    def retry(self, item: str) -> dict[str, Any]:
        return dict(json.loads(self._ask("POST", f"{_path(item)}/retry")))

    def drop(self, item: str) -> None:
        self._ask("DELETE", _path(item))

    def _ask(self, method: str, path: str) -> bytes:
        from monitor.errors import UserError
        from monitor.handover import refusal

        try:
            self._connection.request(method, path, headers=self._headers)
            answer = self._connection.getresponse()
            if answer.status != 200:
                raise UserError(refusal(answer))
            return answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError("the service ended, or was cut off: see its log") from error


def _path(item: str) -> str:
    return f"{_ROUTE}/{quote(item, safe='')}"


@contextmanager
def _here(settings: Settings, now: Callable[[], datetime], who: str) -> Iterator[Desk]:
    from monitor.facts.errors import FactsBusy, FactsError
    from monitor.segments import SpoolCorrupt
    from monitor.stores import Stores

    service = settings.service
    try:
        stores = Stores(
            service.data,
            service.spool_limit,
            facts=service.facts,
            password=service.facts_password.get_secret_value(),
            quarantine=settings.quarantine,
            custody=settings.keyring,
        )
    except (FactsError, FactsBusy, SpoolCorrupt) as error:
        raise click.ClickException(str(error)[:2000]) from error
    with closing(stores):
        yield _Here(settings, stores, now, who)


class _Here:
    """Done in this process, with stores that nobody else has open."""

    def __init__(self, settings: Settings, stores: Any, now: Callable[[], datetime], who: str) -> None:
        from monitor.attribution import Attributor
        from monitor.triage import Desk

        self._settings, self._now, self._who = settings, now, who
        attributor = Attributor.of(stores.facts, stores.ledger, stores.keyring, settings)
        self._desk = Desk(stores, settings.collectors, attributor)

    def page(self, source: str, since: datetime | None, limit: int, after: str) -> tuple[list[dict[str, Any]], str]:
        from monitor import triage

        kept = self._desk.stores.quarantine
        items, following = triage.page(kept, source=source, since=since, limit=limit, after=after)
        return [triage.described(item) for item in items], following

    def shown(self, item: str) -> dict[str, Any]:
        from monitor import triage

        return triage.shown(*self._desk.read(item, self._who, self._now(), raw=False))

    def raw(self, item: str) -> bytes:
        from monitor.quarantine import joined

        return joined(self._desk.read(item, self._who, self._now(), raw=True)[1])

    def retry(self, item: str) -> dict[str, Any]:
        from dataclasses import asdict

        from monitor.service import bounds

        now = self._now()
        return asdict(self._desk.retry(item, self._who, now, bounds(self._settings, now)))

    def drop(self, item: str) -> None:
        self._desk.drop(item, self._who, self._now())
