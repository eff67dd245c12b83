"""``mailvane keys``: who may come in without being a person. Works while the service runs and when it is down."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import cli_kit as kit
from monitor.caller import Right

if TYPE_CHECKING:
    from monitor.ledger.keys import Key

SOON, UNUSED = timedelta(days=14), timedelta(days=90)


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
@click.option("--expires", type=kit.Span(), default="365d", show_default=True, help="After how long; 0s for never.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the key there, for its owner only.")
@click.pass_obj
def add(
    config: Path | None, name: str, scopes: tuple[str, ...], tenant: str, expires: timedelta, out: Path | None
) -> None:
    """Make a key, and show it this once. NAME says who will hold it."""
    from monitor.access.keys import make

    rights = {Right(one) for one in scopes}
    with kit.worded(), kit.any_ledger(config) as engine, engine.begin() as conn:
        text, key = make(conn, name, rights, tenant=tenant, now=kit.now(), by=_me(), expires=expires or None)
        _hand_over(text, out)
    click.echo(_told(key, kit.now()), err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.pass_obj
def show(config: Path | None, *, as_json: bool, everything: bool) -> None:
    """List the keys, without their text, which is kept nowhere."""
    from monitor.ledger import keys as stored

    with kit.worded(), kit.any_ledger(config) as engine, engine.connect().execution_options(reads=True) as conn:
        found = [key for key in stored.every(conn) if everything or key.in_force(kit.now())]
    if as_json:
        click.echo(json.dumps([_plain(key, kit.now()) for key in found], indent=2))
        return
    for key in found:
        click.echo(_told(key, kit.now()))
    if not found:
        click.echo("no key is in force: make one with mailvane keys add")


@keys.command()
@click.argument("key", metavar="ID")
@click.option(
    "--overlap", type=kit.Span(), default="24h", show_default=True, help="How long the old one goes on beside it."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the key there, for its owner only.")
@click.pass_obj
def rotate(config: Path | None, key: str, overlap: timedelta, out: Path | None) -> None:
    """Make a successor of the key ID, with the same scopes; the old one ends after a while."""
    from monitor.access.keys import rotate as turn

    with kit.worded(), kit.any_ledger(config) as engine, engine.begin() as conn:
        text, made = turn(conn, key, now=kit.now(), by=_me(), overlap=overlap)
        _hand_over(text, out)
    click.echo(f"{_told(made, kit.now())}; {key} ends within {overlap}", err=True)


@keys.command()
@click.argument("key", metavar="ID")
@click.pass_obj
def revoke(config: Path | None, key: str) -> None:
    """End the key ID. Core and gate know within a second."""
    from monitor.access.keys import revoke as end

    with kit.worded(), kit.any_ledger(config) as engine, engine.begin() as conn:
        ended = end(conn, key, now=kit.now(), by=_me())
    click.echo(f"{ended.id} ({ended.name}) opens nothing any more")


@keys.command()
@click.pass_obj
def test(config: Path | None) -> None:
    """Say what a key may do, read from standard input."""
    from monitor.access.keys import Keys

    text = sys.stdin.readline().strip()
    with kit.worded(), kit.any_ledger(config) as engine:
        found = Keys(engine).find(text, kit.now())
    if found is None:
        raise click.ClickException("no such key is in force")
    click.echo(_told(found, kit.now()))


def _me() -> str:
    return f"cli:{kit.login()}"


def _hand_over(text: str, out: Path | None) -> None:
    """To the terminal alone, or into a file of its owner's; before the key is in force, so that none is lost."""
    if out is None:
        click.echo(text)
        return
    from monitor.files import write

    write(out.absolute(), text.encode() + b"\n")
    click.echo(f"written to {out}", err=True)


def _told(key: Key, now: datetime) -> str:
    """One line."""
    whose = f" of {key.tenant}" if key.tenant else ""
    parts = [f"{key.id}  {key.name}{whose}: {', '.join(sorted(key.rights))}", _ends(key, now)]
    parts.append(f"last used {key.last_used:%Y-%m-%d %H:%M} UTC" if key.last_used else "not used yet")
    if key.in_force(now) and not key.last_used and now - key.made_at > UNUSED:
        parts[-1] = "never used: revoke it?"
    elif key.in_force(now) and key.last_used and now - key.last_used > UNUSED:
        parts[-1] += ": revoke it?"
    return ", ".join(parts)


def _ends(key: Key, now: datetime) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d %H:%M} UTC"
    if key.expires_at is None:
        return "never expires"
    if key.expires_at <= now:
        return f"expired {key.expires_at:%Y-%m-%d %H:%M} UTC"
    successor = (
        f", {key.successor} takes its place" if key.successor else ": rotate it" if key.expires_at - now < SOON else ""
    )
    return f"expires {key.expires_at:%Y-%m-%d %H:%M} UTC{successor}"


def _plain(key: Key, now: datetime) -> dict[str, Any]:
    def stamp(at: datetime | None) -> str | None:
        return at.isoformat() if at else None

    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.rights),
        "tenant": key.tenant or None,
        "made": stamp(key.made_at),
        "made_by": key.made_by,
        "expires": stamp(key.expires_at),
        "revoked": stamp(key.revoked_at),
        "last_used": stamp(key.last_used),
        "successor": key.successor or None,
        "in_force": key.in_force(now),
    }
