"""``mailvane keys``: who may come in without being a person. Works while the service runs and when it is down."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import cli_kit as kit
from monitor.caller import Right

if TYPE_CHECKING:
    from monitor.ledger.keys import Key

RECENT = timedelta(days=30)  # for which a key that has ended is still listed


class Expiry(kit.Span):
    """A duration, or ``never``."""

    name = "duration|never"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The text as a timedelta, which is nothing for never."""
        return timedelta() if value == "never" else super().convert(value, param, ctx)


@click.group()
def keys() -> None:
    """Keys of machines, and of sellers; and the keyring behind the pseudonyms.

    A key is sent as: Authorization: Bearer mv_…
    """


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([str(one) for one in Right]),
    help="Again for more.",
)
@click.option("--tenant", default="", help="A seller's key: it tells and sees that seller's mail alone.")
@click.option("--expires", type=Expiry(), default="365d", show_default=True, help="After how long, or never.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the key into this new file, 0600.")
@click.pass_obj
def add(
    config: Path | None, name: str, scopes: tuple[str, ...], tenant: str, expires: timedelta, out: Path | None
) -> None:
    """Make a key, and show it this once. NAME says who will hold it."""
    from monitor.access.keys import make

    if out and out.exists():
        raise click.ClickException(f"{out} is there already: name a new file, or rotate the key that is in it")
    rights = {Right(one) for one in scopes}
    with kit.worded(), kit.any_ledger(config) as engine, engine.begin() as conn:
        text, key = make(conn, name, rights, tenant=tenant, now=kit.now(), by=_me(), expires=expires or None)
        _hand_over(text, out)
    click.echo(_line(key, kit.now()), err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="As the API answers it.")
@click.option("--all", "everything", is_flag=True, help=f"Those that ended more than {RECENT.days} days ago, too.")
@click.pass_obj
def show(config: Path | None, *, as_json: bool, everything: bool) -> None:
    """List the keys by name, without their text, which is kept nowhere; and what should be done about them."""
    from monitor.access import uses
    from monitor.api.keys_told import told

    now = kit.now()
    with kit.ledger(config) as engine, engine.connect().execution_options(reads=True) as conn:
        found = uses.every(conn, kit.configured(config).service.data)
    if not everything:
        found = [key for key in found if key.ended_at is None or key.ended_at > now - RECENT]
    found.sort(key=lambda key: (not key.in_force(now), key.name.casefold(), key.made_at))
    if as_json:
        click.echo(json.dumps({"keys": [told(key, now) for key in found]}, indent=2))
        return
    for key in found:
        click.echo(_line(key, now))
    if not any(key.in_force(now) for key in found):
        click.echo("no key is in force: make one with mailvane keys add")


@keys.command()
@click.argument("key", metavar="ID")
@click.option(
    "--overlap", type=kit.Span(), default="24h", show_default=True, help="How long the old one goes on beside it."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the key into this file, in place of the old one; 0600 where there is none.",
)
@click.pass_obj
def rotate(config: Path | None, key: str, overlap: timedelta, out: Path | None) -> None:
    """Make a successor of the key ID, with the same scopes; the old one ends after a while."""
    from monitor.access.keys import rotate as turn

    with kit.ledger(config) as engine, kit.worded(), engine.begin() as conn:
        text, made, old = turn(conn, key, now=kit.now(), by=_me(), overlap=overlap)
        _hand_over(text, out)
    click.echo(_line(made, kit.now()), err=True)
    click.echo(_line(old, kit.now()), err=True)


@keys.command()
@click.argument("key", metavar="ID")
@click.pass_obj
def revoke(config: Path | None, key: str) -> None:
    """End the key ID. Core and gate know within a second."""
    from monitor.access.keys import revoke as end

    with kit.ledger(config) as engine, kit.worded(), engine.begin() as conn:
        ended = end(conn, key, now=kit.now(), by=_me())
    click.echo(f"{ended.id} ({ended.name}) opens nothing any more")
    if ended.successor:
        click.echo(f"its successor {ended.successor} goes on")


@keys.command()
@click.pass_obj
def test(config: Path | None) -> None:
    """Say what a key may do: from $MAILVANE_KEY, or read from standard input. Exit status 1 where it opens nothing."""
    from monitor.access.keys import digest, mistyped
    from monitor.ledger import keys as stored

    text, now = _given(), kit.now()
    if mistyped(text):
        raise click.ClickException("that is no key: it is cut off, or mistyped")
    with kit.ledger(config) as engine, engine.connect().execution_options(reads=True) as conn:
        found = stored.known(conn).get(digest(text))
    if found is None:
        raise click.ClickException("there is no such key here: was it made for another service?")
    click.echo(_line(found, now))
    if not found.in_force(now):
        raise click.ClickException("it opens nothing any more: make another with mailvane keys add")


def _me() -> str:
    return f"cli:{kit.login()}"


def _given() -> str:
    if text := os.environ.get("MAILVANE_KEY"):
        return text.strip()
    if sys.stdin.isatty():
        return str(click.prompt("Key", hide_input=True, err=True)).strip()
    return sys.stdin.readline(1000).strip()


def _hand_over(text: str, out: Path | None) -> None:
    """To the terminal alone, or into a file; before the key is in force, so that none is lost."""
    if out is None:
        click.echo(text)
        return
    from monitor.files import write

    before = out.stat() if out.exists() else None
    write(out.absolute(), text.encode() + b"\n")
    if before:  # whoever reads it must be able to go on
        with suppress(PermissionError):
            os.chown(out, before.st_uid, before.st_gid)
            out.chmod(before.st_mode & 0o777)
    click.echo(f"written to {out}", err=True)


def _line(key: Key, now: datetime) -> str:
    from monitor.api.keys_told import warning

    whose = f" of {key.tenant}" if key.tenant else ""
    used = f"last used {key.last_used:%Y-%m-%d %H:%M} UTC" if key.last_used else "not used yet"
    line = f"{key.id}  {key.name}{whose}: {', '.join(sorted(key.rights))}; {_ends(key, now)}; {used}"
    return f"{line}; {told}" if (told := warning(key, now)) else line


def _ends(key: Key, now: datetime) -> str:
    at = key.ended_at
    if at is None:
        return "never expires"
    when = f"{at:%Y-%m-%d %H:%M} UTC"
    if not key.in_force(now):
        return f"{'REVOKED' if key.revoked_at else 'EXPIRED'} {when}"
    return f"ends {when}, then {key.successor} is left" if key.successor else f"expires {when}"
