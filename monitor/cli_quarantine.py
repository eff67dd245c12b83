"""``mailvane quarantine``: what could not be read."""

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
from monitor.cli_desk import Desk, opened

_PAGE = 500
_WIDE = 60  # characters of a reason in a list
_OF_SOURCE = click.option("--source", default="", help="Only what this collector told.")
_EVERYTHING = click.option("--all", "everything", is_flag=True, help="All items, instead of one.")


@click.group()
def quarantine() -> None:
    """What could not be read: kept for a while, encrypted.

    See what it is, mend the configuration or the sender, and have it read again. Each look, retry and drop is in
    the access log.
    """


@quarantine.command("list")
@_OF_SOURCE
@click.option("--since", type=kit.Moment(), help="Only what came since then.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def list_(config: Path | None, source: str, since: datetime | None, limit: int, *, as_json: bool) -> None:
    """List the items, the newest first, without what they hold."""
    with _opened(config) as desk:
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
    with _opened(config) as desk:
        if raw:
            sys.stdout.buffer.write(desk.raw(item))
            sys.stdout.buffer.flush()
        else:
            _tell(desk.shown(item))


@quarantine.command()
@click.argument("item", metavar="ID", required=False)
@_EVERYTHING
@_OF_SOURCE
@click.pass_obj
def retry(config: Path | None, item: str | None, source: str, *, everything: bool) -> None:
    """Read an item again with the configuration of today; what is good counts once, and leaves it.

    Exit status 1 where something is left.
    """
    from monitor.errors import UserError

    stays = False
    with _opened(config) as desk:
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
@_EVERYTHING
@_OF_SOURCE
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def drop(config: Path | None, item: str | None, source: str, *, everything: bool, yes: bool) -> None:
    """Remove an item for good."""
    with _opened(config) as desk:
        names = _named(desk, item, source, everything=everything)
        if everything and names and not yes:
            click.confirm(f"Remove {len(names):,} items for good?", abort=True)
        for name in names:
            desk.drop(name)
    click.echo(f"{len(names):,} removed")


@contextmanager
def _opened(config: Path | None) -> Iterator[Desk]:
    settings = kit.configured(config)
    with kit.worded(), opened(settings, kit.now, f"cli:{kit.login()}") as desk:
        yield desk


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
