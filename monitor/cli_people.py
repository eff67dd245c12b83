"""``mailvane people``: who may sign in at the page. Works while the service runs and when it is down."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import cli_kit as kit
from monitor.caller import Role

if TYPE_CHECKING:
    from monitor.ledger.people import Person
    from monitor.ledger.sessions import Session

_ROLE = click.Choice([str(one) for one in Role])
_LONGEST_LINE = 4096


@click.group()
def people() -> None:
    """People who may sign in at the page: viewers look, operators turn keys, admins say who may."""


def _done(config: Path | None, what: Callable[..., Any], *given: object, **named: object) -> Any:
    with kit.worded(), kit.any_ledger(config) as engine, engine.begin() as conn:
        return what(conn, *given, now=kit.now(), by=f"cli:{kit.login()}", **named)


@people.command()
@click.argument("name")
@click.option("--role", type=_ROLE, default="viewer", show_default=True)
@click.option("--draw", is_flag=True, help="Draw a password and show it, rather than ask for one.")
@click.pass_obj
def add(config: Path | None, name: str, role: str, *, draw: bool) -> None:
    """Let NAME sign in. The password is asked for, or read from standard input."""
    from monitor.access import people as accounts

    password = _password(draw=draw)
    made = _done(config, accounts.add, name, Role(role), password)
    click.echo(f"{made.name} may sign in as {made.role}", err=True)
    _show(password, draw=draw)


@people.command("break-glass")
@click.argument("name", default="break-glass")
@click.pass_obj
def break_glass(config: Path | None, name: str) -> None:
    """Make an admin for the night on which nothing else works, with a drawn password for an envelope.

    It works although people come from an identity provider, or can't. Each use is logged, counted and over after
    an hour. For another password: remove it, and make it anew.
    """
    from monitor.access import passwords
    from monitor.access import people as accounts

    password = passwords.drawn()
    made = _done(config, accounts.add, name, Role.ADMIN, password, break_glass=True)
    click.echo(f"{made.name} signs in by this password. Seal it in an envelope: it is shown this once", err=True)
    click.echo(password)


@people.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def show(config: Path | None, *, as_json: bool) -> None:
    """List the accounts."""
    from monitor.ledger import people as stored
    from monitor.ledger import sessions

    with kit.worded(), kit.any_ledger(config) as engine, engine.connect().execution_options(reads=True) as conn:
        found = stored.every(conn)
        going = Counter(one.person for one in sessions.known(conn, kit.now()).values())
    if as_json:
        click.echo(json.dumps([_plain(one, going[one.name]) for one in found], indent=2))
        return
    for one in found:
        click.echo(_told(one, going[one.name]))
    if not found:
        click.echo("nobody may sign in yet: mailvane people add NAME --role admin")


@people.command()
@click.argument("name")
@click.argument("role", type=_ROLE)
@click.pass_obj
def role(config: Path | None, name: str, role: str) -> None:
    """Give NAME another role; who is signed in signs in anew."""
    from monitor.access import people as accounts

    _done(config, accounts.change_role, name, Role(role))
    click.echo(f"{name} is {role} now, and signs in anew")


@people.command()
@click.argument("name")
@click.option("--draw", is_flag=True, help="Draw a password and show it, rather than ask for one.")
@click.pass_obj
def password(config: Path | None, name: str, *, draw: bool) -> None:
    """Give NAME another password; who is signed in signs in anew."""
    from monitor.access import people as accounts

    text = _password(draw=draw)
    _done(config, accounts.change_password, name, text)
    click.echo(f"{name} has another password, and signs in anew", err=True)
    _show(text, draw=draw)


@people.command()
@click.argument("name")
@click.pass_obj
def disable(config: Path | None, name: str) -> None:
    """Let NAME sign in no more, and end all its sessions."""
    from monitor.access import people as accounts

    _done(config, accounts.disable, name)
    click.echo(f"{name} can't sign in any more, and is signed out within a second")


@people.command()
@click.argument("name")
@click.pass_obj
def enable(config: Path | None, name: str) -> None:
    """Let NAME sign in again."""
    from monitor.access import people as accounts

    _done(config, accounts.disable, name, disabled=False)
    click.echo(f"{name} may sign in again")


@people.command()
@click.argument("name")
@click.pass_obj
def remove(config: Path | None, name: str) -> None:
    """Take the account of NAME away, and end all its sessions.

    Whom an identity provider vouches for gets a new one by signing in: disable that one instead.
    """
    from monitor.access import people as accounts

    _done(config, accounts.remove, name)
    click.echo(f"{name} has no account any more, and is signed out within a second")


@people.command("sign-out")
@click.argument("name")
@click.pass_obj
def sign_out(config: Path | None, name: str) -> None:
    """End all sessions of NAME."""
    from monitor.access import people as accounts

    count = _done(config, accounts.sign_out, name)
    click.echo(f"{name}: {count} session{'s' * (count != 1)} ended")


@people.command()
@click.argument("name", default="")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def sessions(config: Path | None, name: str, *, as_json: bool) -> None:
    """List who is signed in, or where NAME is."""
    from monitor.access.people import found
    from monitor.ledger import sessions as stored

    with kit.worded(), kit.any_ledger(config) as engine, engine.connect().execution_options(reads=True) as conn:
        every = list(stored.known(conn, kit.now(), found(conn, name).name if name else "").values())
    if as_json:
        click.echo(json.dumps([_plain_session(one) for one in every], indent=2))
        return
    for one in every:
        click.echo(
            f"{one.id}  {one.person} as {one.role} by {one.way}, since {_stamp(one.made_at)}, "
            f"last seen {_stamp(one.seen_at)}, until {_stamp(one.expires_at)} UTC"
        )
    if not every:
        click.echo("nobody is signed in" if not name else f"{name} is not signed in")


def _password(*, draw: bool) -> str:
    """Drawn, or from a person at a terminal, twice; else the first line of standard input."""
    if draw:
        from monitor.access import passwords

        return passwords.drawn()
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline(_LONGEST_LINE).rstrip("\r\n")


def _show(password: str, *, draw: bool) -> None:
    """Once it is in force; standard output has it alone."""
    if draw:
        click.echo(password)


def _told(one: Person, going: int) -> str:
    parts = [f"{one.name}: {one.role}", one.way]
    if one.disabled_at:
        parts.append(f"disabled {_stamp(one.disabled_at)} UTC")
    parts.append(f"last signed in {_stamp(one.last_seen)} UTC" if one.last_seen else "not signed in yet")
    if going:
        parts.append(f"{going} session{'s' * (going != 1)}")
    return ", ".join(parts)


def _plain(one: Person, going: int) -> dict[str, Any]:
    return {
        "name": one.name,
        "role": str(one.role),
        "way": one.way,
        "made": one.made_at.isoformat(),
        "disabled": one.disabled_at.isoformat() if one.disabled_at else None,
        "last_signed_in": one.last_seen.isoformat() if one.last_seen else None,
        "sessions": going,
    }


def _plain_session(one: Session) -> dict[str, Any]:
    return {
        "id": one.id,
        "person": one.person,
        "role": str(one.role),
        "way": one.way,
        "since": one.made_at.isoformat(),
        "seen": one.seen_at.isoformat(),
        "expires": one.expires_at.isoformat(),
    }


def _stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
