"""``mailvane quarantine``: what could not be read. The service that runs is asked; where none does, its files are."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

import click

if TYPE_CHECKING:
    from monitor.settings import Settings

_ROUTE = "/v1/quarantine"
_PAGE = 500
_WIDE = 60  # characters of a reason in a list


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


def group(
    read: Callable[[Path | None], Settings],
    worded: Callable[[], AbstractContextManager[None]],
    now: Callable[[], datetime],
    login: Callable[[], str],
    moment: click.ParamType[datetime],
) -> click.Group:
    """The group, around how a configuration is read, how errors are told, a clock, and who sits here."""
    of_source = click.option("--source", default="", help="Only what this collector told.")
    everything = click.option("--all", "everything", is_flag=True, help="All items, instead of one.")

    @contextmanager
    def opened(config: Path | None) -> Iterator[Desk]:
        with worded(), _desk(read(config), now, f"cli:{login()}") as desk:
            yield desk

    @click.group()
    def quarantine() -> None:
        """What could not be read: kept for a while, encrypted.

        See what it is, mend the configuration or the sender, and have it read again. Each look, retry and drop is in
        the access log.
        """

    @quarantine.command("list")
    @of_source
    @click.option("--since", type=moment, help="Only what came since then.")
    @click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
    @click.option("--json", "as_json", is_flag=True, help="As JSON.")
    @click.pass_obj
    def list_(config: Path | None, source: str, since: datetime | None, limit: int, *, as_json: bool) -> None:
        """List the items, the newest first, without what they hold."""
        with opened(config) as desk:
            found, more = _some(desk, source, since, limit)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            _tell_list(found, limit, more=more)

    @quarantine.command()
    @click.argument("item", metavar="ID")
    @click.option("--raw", is_flag=True, help="The bytes as they came, with the addresses in them.")
    @click.pass_obj
    def show(config: Path | None, item: str, *, raw: bool) -> None:
        """Show an item and what it holds, without addresses."""
        with opened(config) as desk:
            if raw:
                sys.stdout.buffer.write(desk.raw(item))
                sys.stdout.buffer.flush()
            else:
                _tell(desk.shown(item))

    @quarantine.command()
    @click.argument("item", metavar="ID", required=False)
    @everything
    @of_source
    @click.pass_obj
    def retry(config: Path | None, item: str | None, source: str, *, everything: bool) -> None:
        """Read an item again with the configuration of today; what is good counts once, and leaves it.

        Exit status 1 where something is left.
        """
        from monitor.errors import UserError

        stays = False
        with opened(config) as desk:
            for name in _named(desk, item, source, everything=everything):
                try:
                    done = desk.retry(name)
                except UserError as error:
                    if item:
                        raise
                    click.echo(f"{name}: {error}", err=True)
                    stays = True
                else:
                    click.echo(f"{name}: {_outcome(done)}")
                    stays |= done["left"] > 0
        if stays:
            sys.exit(1)

    @quarantine.command()
    @click.argument("item", metavar="ID", required=False)
    @everything
    @of_source
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def drop(config: Path | None, item: str | None, source: str, *, everything: bool, yes: bool) -> None:
        """Remove an item for good."""
        with opened(config) as desk:
            names = _named(desk, item, source, everything=everything)
            if everything and names and not yes:
                click.confirm(f"Remove {len(names):,} items for good?", abort=True)
            for name in names:
                desk.drop(name)
        click.echo(f"{len(names):,} removed")

    return quarantine


def _named(desk: Desk, item: str | None, source: str, *, everything: bool) -> list[str]:
    if bool(item) == everything or (item and source):
        raise click.UsageError("name one ID, or --all, to which --source may be added")
    if item:
        return [item]
    return [found["id"] for found in _some(desk, source, None, sys.maxsize)[0]]


def _some(desk: Desk, source: str, since: datetime | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page, after = desk.page(source, since, min(_PAGE, limit - len(found)), after)
        found += page
        if not after or len(found) >= limit:
            return found, bool(after)


def _tell_list(found: list[dict[str, Any]], limit: int, *, more: bool) -> None:
    if not found:
        click.echo("nothing is in quarantine")
        return
    width = max(6, *(len(item["source"]) for item in found))
    click.echo(f"{'ID':<20}  {'AT (UTC)':<19}  {'SOURCE':<{width}}  {'WHAT':<14}  {'SIZE':>9}  WHY")
    for item in found:
        at = item["at"][:19].replace("T", " ")
        why = item["why"] if len(item["why"]) <= _WIDE else item["why"][: _WIDE - 1] + "…"
        click.echo(f"{item['id']:<20}  {at}  {item['source']:<{width}}  {_what(item):<14}  {item['size']:>9,}  {why}")
    if more:
        click.echo(f"there are more: --limit is {limit}")


def _tell(item: dict[str, Any]) -> None:
    for name in ("id", "at", "source", "where", "why"):
        click.echo(f"{name:<7} {item[name]}")
    click.echo(f"what    {_what(item)}, {item['size']:,} bytes on disk")
    for thing in item["things"]:
        click.echo("")
        click.echo(f"{thing['where']}: {thing['why']} ({thing['size']:,} bytes)")
        click.echo(f"  {thing['text']}")
    if item["more"]:
        click.echo(f"\n{item['more']:,} more are not shown: --raw has them all")


def _what(item: dict[str, Any]) -> str:
    if item["damaged"]:
        return "damaged"
    plural = "" if item["count"] == 1 or item["kind"] == "rows" else "s"
    return f"{item['count']:,} {item['kind']}{plural}" if item["count"] > 1 else str(item["kind"])


def _outcome(done: dict[str, Any]) -> str:
    taken = f"{done['taken']:,} facts taken" if done["taken"] else "nothing of it counts"
    return f"{taken}, {done['left']:,} left: {done['why']}" if done["left"] else f"{taken}, nothing left"


@contextmanager
def _desk(settings: Settings, now: Callable[[], datetime], who: str) -> Iterator[Desk]:
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
        )
    except (FactsError, FactsBusy, SpoolCorrupt) as error:
        raise click.ClickException(str(error)[:2000]) from error
    with closing(stores):
        yield _Here(settings, stores, now, who)


class _Here:
    """This process does it, with stores that nobody else has open."""

    def __init__(self, settings: Settings, stores: Any, now: Callable[[], datetime], who: str) -> None:
        from monitor.triage import Desk

        self._settings, self._now, self._who = settings, now, who
        self._desk = Desk(stores, settings.collectors)

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
