"""``mailvane audit``: who read or changed what, and whether that is still what was written."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from monitor import cli_kit as kit

_EVERY = 1000  # rows between two looks of the bar


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
    """Go through both logs. Exit status 1, and the row, where something was changed, put in or taken out."""
    from monitor.ledger import access_log, actions, chain

    with kit.worded():
        kept = {one.log: one for one in map(chain.Head.parse, heads)}
        flaws = []
        with _reading(config, file) as engine, engine.connect().execution_options(reads=True) as conn:
            for log in (actions.log, access_log.access):
                count = chain.length(conn, log)
                flaw = None
                with click.progressbar(length=count, label=f"{log.name:8}", file=sys.stderr) as bar:
                    for number, found in enumerate(chain.verify(conn, log, kept.get(log.name)), 1):
                        flaw = found
                        if number % _EVERY == 0:
                            bar.update(_EVERY)
                if flaw:
                    flaws.append(flaw)
                else:
                    click.echo(f"{log.name}: {count:,} rows, as they were written, to {chain.head(conn, log)}")
    for flaw in flaws:
        click.echo(str(flaw), err=True)
    if flaws:
        sys.exit(1)


@audit.command()
@click.pass_obj
def head(config: Path | None) -> None:
    """Print where both logs stand. Kept elsewhere, it proves later that nothing before it was written anew."""
    from monitor.ledger import access_log, actions, chain

    with kit.worded(), kit.ledger(config) as engine, engine.connect().execution_options(reads=True) as conn:
        for log in (actions.log, access_log.access):
            click.echo(str(chain.head(conn, log)))


@audit.command("list")
@click.option("--who", default="", help="Such as person:marta, key:ab12cd34 or cli:root.")
@click.option("--did", default="", help="How what was done begins, such as POST or key.")
@click.option("--since", type=kit.Moment())
@click.option("--until", type=kit.Moment())
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--before", type=click.IntRange(0), default=0, help="A number, for the page before it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def show(
    config: Path | None,
    who: str,
    did: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    before: int,
    *,
    as_json: bool,
) -> None:
    """List who read or changed what, the newest first. Times are UTC."""
    from monitor.ledger import access_log

    with kit.worded(), kit.ledger(config) as engine, engine.connect().execution_options(reads=True) as conn:
        found = access_log.newest(conn, limit, before, who=who, did=did, since=since, until=until)
    for one in found:
        if as_json:
            told = {"seq": one.seq, "at": one.at.isoformat(), "who": one.who, "did": one.did, "on": one.on}
            click.echo(json.dumps({**told, "result": one.result, "details": one.details}, ensure_ascii=False))
        else:
            on = f" {one.on}" if one.on else ""
            more = f"  {json.dumps(one.details, ensure_ascii=False)}" if one.details else ""
            click.echo(f"{one.seq:>6}  {one.at:%Y-%m-%d %H:%M:%S}  {one.who}  {one.did}{on}: {one.result}{more}")
    if not found:
        click.echo("nothing was done", err=True)


@contextmanager
def _reading(config: Path | None, file: Path | None) -> Iterator[Any]:
    """The service's ledger, or that file."""
    if file is None:
        with kit.ledger(config) as engine:
            yield engine
        return
    from monitor.ledger.db import open_ledger

    engine = open_ledger(file, reads=True)
    try:
        yield engine
    finally:
        engine.dispose()
