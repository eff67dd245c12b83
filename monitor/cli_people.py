"""``mailvane people``: local accounts. Works while the service runs and when it is down."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import click

from monitor import cli_kit as kit
from monitor.caller import Role

_ROLE = click.Choice([str(one) for one in Role])
_PASSWORD_BYTES = 15
_ENVELOPE_BYTES = 24


@click.group()
def people() -> None:
    """People who may sign in at the page: viewers look, operators turn keys, admins say who may."""


def _do(config: Path | None, what: Callable[..., object], *given: object, **named: object) -> None:
    with kit.worded(), kit.any_ledger(config) as engine, engine.begin() as conn:
        what(conn, *given, now=kit.now(), by=f"cli:{kit.login()}", **named)


@people.command()
@click.argument("name")
@click.option("--role", type=_ROLE, default="viewer", show_default=True)
@click.option("--draw", is_flag=True, help="Draw a password and show it, rather than ask for one.")
@click.pass_obj
def add(config: Path | None, name: str, role: str, *, draw: bool) -> None:
    """Let NAME sign in. The password is asked for, or read from standard input."""
    from monitor.access import people as accounts

    password = _drawn() if draw else _asked()
    _do(config, accounts.add, name, Role(role), password)
    click.echo(f"{name} may sign in as {role}", err=True)


@people.command("break-glass")
@click.argument("name", default="break-glass")
@click.pass_obj
def break_glass(config: Path | None, name: str) -> None:
    """Make an admin for the night on which nothing else works, with a drawn password for an envelope.

    It works although people come from elsewhere. Each use is logged and counted, and lasts an hour.
    """
    from monitor.access import people as accounts

    password = secrets.token_urlsafe(_ENVELOPE_BYTES)
    _do(config, accounts.add, name, Role.ADMIN, password, break_glass=True)
    click.echo(password)
    click.echo(f"put this into an envelope: {name} signs in by it", err=True)


@people.command("list")
@click.pass_obj
def show(config: Path | None) -> None:
    """List the accounts."""
    from monitor.ledger import people as stored

    with kit.worded(), kit.any_ledger(config) as engine, engine.connect().execution_options(reads=True) as conn:
        found = stored.every(conn)
    for one in found:
        seen = f"last signed in {one.last_seen:%Y-%m-%d %H:%M} UTC" if one.last_seen else "not signed in yet"
        marks = [mark for mark, is_so in (("break-glass", one.break_glass), ("disabled", one.disabled_at)) if is_so]
        click.echo(", ".join([f"{one.name}: {one.role}", *marks, seen]))
    if not found:
        click.echo("nobody may sign in yet: mailvane people add NAME --role admin")


@people.command()
@click.argument("name")
@click.argument("role", type=_ROLE)
@click.pass_obj
def role(config: Path | None, name: str, role: str) -> None:
    """Give NAME another role; who is signed in signs in anew."""
    from monitor.access import people as accounts

    _do(config, accounts.change_role, name, Role(role))


@people.command()
@click.argument("name")
@click.option("--draw", is_flag=True, help="Draw a password and show it, rather than ask for one.")
@click.pass_obj
def password(config: Path | None, name: str, *, draw: bool) -> None:
    """Give NAME another password; who is signed in signs in anew."""
    from monitor.access import people as accounts

    _do(config, accounts.change_password, name, _drawn() if draw else _asked())


@people.command()
@click.argument("name")
@click.pass_obj
def disable(config: Path | None, name: str) -> None:
    """Let NAME sign in no more, and end what is signed in."""
    from monitor.access import people as accounts

    _do(config, accounts.disable, name)


@people.command()
@click.argument("name")
@click.pass_obj
def enable(config: Path | None, name: str) -> None:
    """Let NAME sign in again."""
    from monitor.access import people as accounts

    _do(config, accounts.disable, name, disabled=False)


@people.command()
@click.argument("name")
@click.pass_obj
def remove(config: Path | None, name: str) -> None:
    """Take the account of NAME away, and end what is signed in."""
    from monitor.access import people as accounts

    _do(config, accounts.remove, name)


@people.command("sign-out")
@click.argument("name")
@click.pass_obj
def sign_out(config: Path | None, name: str) -> None:
    """End all sessions of NAME."""
    from monitor.access import people as accounts

    _do(config, accounts.sign_out, name)


def _asked() -> str:
    """From a person at a terminal, twice; else the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _drawn() -> str:
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    click.echo(password)
    return password
