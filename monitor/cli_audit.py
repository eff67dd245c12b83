"""``mailvane audit``: who read or changed what, and whether that is still what was written."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import cli_kit as kit

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from monitor.ledger.access_log import Entry
    from monitor.ledger.verifying import Flaw

_EVERY = 1000  # rows between two looks of the bar
_MOST = 100  # flaws that are told one by one
_COUNTED = 100_000


@click.group()
def audit() -> None:
    """The access log, and the proof that neither it nor the log of the brake was changed."""


@audit.command()
@click.option("--head", "heads", multiple=True, help="What mailvane audit head said before, kept elsewhere.")
@click.option(
    "--ledger",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Another ledger, such as a backup's.",
)
@click.pass_obj
def verify(config: Path | None, heads: tuple[str, ...], file: Path | None) -> None:
    """Go through both logs. Exit status 1, and the rows, where something was changed, put in or taken out."""
    from monitor.ledger import audit, chain

    flawed = False
    with kit.worded():
        kept = [chain.Head.parse(one) for one in heads]
        with _reading(config, file) as conn:
            for log in audit.LOGS:
                flaws = _followed(audit.verify(conn, log, kept), chain.length(conn, log), log.name)
                for flaw in flaws[:_MOST]:
                    click.echo(str(flaw), err=True)
                if flaws:
                    flawed = True
                    click.echo(f"{log.name}: NOT as it was written: {_places(len(flaws))}", err=True)
                else:
                    rows = chain.length(conn, log)
                    click.echo(f"{log.name}: {rows:,} rows, all as they were written, up to {chain.head(conn, log)}")
    if flawed:
        sys.exit(1)


@audit.command()
@click.pass_obj
def head(config: Path | None) -> None:
    """Print where both logs stand. Kept elsewhere, it proves later that nothing before it was written anew."""
    from monitor.ledger import audit, chain

    with kit.worded(), _reading(config, None) as conn:
        for log in audit.LOGS:
            click.echo(str(chain.head(conn, log)))


@audit.command("list")
@click.option("--who", default="", help="Such as person:marta, key:ab12cd34 or cli:root.")
@click.option("--did", default="", help="How what was done begins, such as POST or key.")
@click.option("--result", default="", help="Such as done, refused, 200 or 403.")
@click.option("--since", type=kit.Moment(), help="The first moment, in UTC where it has no offset.")
@click.option("--until", type=kit.Moment(), help="The first moment that is too late.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--before", type=click.IntRange(0), default=0, help="A number, for the page before it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def show(
    config: Path | None,
    who: str,
    did: str,
    result: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    before: int,
    *,
    as_json: bool,
) -> None:
    """List who read or changed what, the newest first. Times are UTC."""
    from monitor.ledger import access_log

    with kit.worded(), _reading(config, None) as conn:
        found = access_log.newest(conn, limit, before, who=who, did=did, result=result, since=since, until=until)
    for one in found:
        if as_json:
            told = {"seq": one.seq, "at": one.at.isoformat(), "who": one.who, "did": one.did, "on": one.on}
            click.echo(json.dumps({**told, "result": one.result, "details": one.details}, ensure_ascii=False))
        else:
            _show(one)
    if not found:
        click.echo("no entry is like that" if who or did or result or since or until else "no entry is there", err=True)
    elif len(found) == limit and not as_json:
        click.echo(f"there may be older ones: --before {found[-1].seq}", err=True)


def _show(one: Entry) -> None:
    """An entry in a line, and the lines of a diff below it."""
    rest = {name: value for name, value in one.details.items() if name not in ("diff", "lines")}
    on = f" {one.on}" if one.on else ""
    more = "".join(f"  {name}: {value}" for name, value in rest.items())
    click.echo(f"{one.seq:>6}  {one.at:%Y-%m-%d %H:%M:%S}  {one.who}  {one.did}{on}: {one.result}{more}")
    for line in one.details.get("diff", ()):
        click.echo(f"        {line}")


def _followed(found: Iterator[Flaw | None], rows: int, name: str) -> list[Flaw]:
    """The flaws; meanwhile a bar where somebody watches."""
    flaws: list[Flaw] = []
    bar: Any = click.progressbar(length=rows, label=f"{name:8}", file=sys.stderr, hidden=not sys.stderr.isatty())
    with bar:
        for number, flaw in enumerate(found, 1):
            if flaw and len(flaws) < _COUNTED:
                flaws.append(flaw)
            if number % _EVERY == 0:
                bar.update(_EVERY)
        bar.update(max(0, rows - bar.pos))
    return flaws


def _places(count: int) -> str:
    told = "one place" if count == 1 else f"{count:,} places" if count < _COUNTED else f"{count:,} places or more"
    return f"{told}, of which {_MOST} are told" if count > _MOST else told


@contextmanager
def _reading(config: Path | None, file: Path | None) -> Iterator[Connection]:
    """The service's ledger, or that file, read beside whoever writes it."""
    from sqlalchemy import inspect
    from sqlalchemy.exc import DatabaseError

    from monitor.errors import UserError
    from monitor.ledger.db import open_ledger, open_still

    place = file or kit.configured(config).ledger
    if not place.exists():
        raise UserError(f"there is no ledger at {place}: has the service ever run with this configuration?")
    still = file and not Path(f"{file}-wal").exists()
    engine = open_still(place) if still else open_ledger(place, reads=True)
    try:
        with engine.connect().execution_options(reads=True) as conn:
            if not inspect(conn).has_table("links"):
                raise UserError(f"{place} has no links: it is from before they were made, or no ledger at all")
            yield conn
    except DatabaseError as error:
        raise UserError(f"{place} can't be read: {error.orig}") from error
    finally:
        engine.dispose()
