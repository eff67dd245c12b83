"""``mailvane approvals``, ``approve`` and ``decline``: what waits for a second person; works without the service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from monitor import cli_kit as kit

if TYPE_CHECKING:
    from monitor.ledger.approvals import Approval
    from monitor.model import Action

WAITS = 3  # exit status: nothing is in force yet


@click.command()
@click.option("--all", "everything", is_flag=True, help="What was decided, too; the newest first.")
@click.option("--json", "as_json", is_flag=True, help="As the API answers it.")
@click.pass_obj
def approvals(config: Path | None, *, everything: bool, as_json: bool) -> None:
    """List the pauses that wait for a second person, since they are wider than what is held or known to be bad."""
    from monitor.api import words
    from monitor.ledger import approvals as stored

    now = kit.now()
    with kit.ledger(config) as ledger, ledger.connect().execution_options(reads=True) as conn:
        found = stored.newest(conn, 100) if everything else stored.waiting(conn, now)
    if as_json:
        click.echo(json.dumps({"approvals": [words.approval(one, now) for one in found]}, indent=2))
        return
    for one in found:
        state = one.state(now)
        by = f" by {one.decided_by}" if one.decided_by else f" until {one.until:%Y-%m-%d %H:%M:%S} UTC"
        click.echo(f"{one.id}  {one.deed} {one.scope} for {one.span}, asked by {one.asked_by}: {one.why}")
        click.echo(f"    {state}{by}; wider than {one.beyond}")
    if not found:
        click.echo("nothing was ever asked for" if everything else "nothing waits for a second person")


@click.command()
@click.argument("approval", metavar="ID")
@click.option("--as", "who", help="Who agrees [your login].")
@click.pass_obj
def approve(config: Path | None, approval: str, who: str | None) -> None:
    """Agree to what somebody else asked for. It comes into force now."""
    from monitor import four_eyes

    name = who or kit.login()
    with kit.ledger(config) as ledger, kit.worded(), ledger.begin() as conn:
        action, wish = four_eyes.agree(conn, approval, name, kit.now(), _by(name))
    granted(config, action)
    click.echo(f"asked by {wish.asked_by}, agreed by {wish.decided_by}")


@click.command()
@click.argument("approval", metavar="ID")
@click.option("--as", "who", help="Who declines [your login].")
@click.pass_obj
def decline(config: Path | None, approval: str, who: str | None) -> None:
    """Say no to what somebody asked for, or take it back."""
    from monitor import four_eyes

    name = who or kit.login()
    with kit.ledger(config) as ledger, kit.worded(), ledger.begin() as conn:
        wish = four_eyes.decline(conn, approval, name, kit.now(), _by(name))
    click.echo(f"{wish.id}  {wish.deed} {wish.scope} does not come into force")


def granted(config: Path | None, action: Action) -> None:
    """Say what is in force now, and how it is undone."""
    from monitor.model import Deed

    click.echo(f"{action.id}  {action.deed} {action.scope} until {action.until:%Y-%m-%d %H:%M:%S} UTC")
    if action.deed in (Deed.PAUSE, Deed.THROTTLE) and not action.scope.stream:
        click.echo("this holds transactional mail too: add stream=marketing to spare it")
    click.echo(f"undo it with: mailvane {_option(config)}resume {action.id}")


def asked(config: Path | None, wish: Approval) -> None:
    """Say that nothing is in force yet, and what it waits for; ends the command."""
    click.echo(f"{wish.id}  {wish.deed} {wish.scope} is not in force: it is wider than {wish.beyond}")
    click.echo(f"until {wish.until:%Y-%m-%d %H:%M:%S} UTC somebody else can agree to it:")
    click.echo(f"    mailvane {_option(config)}approve {wish.id}")
    sys.exit(WAITS)


def _option(config: Path | None) -> str:
    return f"--config {config} " if config else ""


def _by(name: str) -> str:
    """How the access log calls who acts here: by its login, and by the name it gave itself if that is another."""
    login = kit.login()
    return f"cli:{login}" if name == login else f"cli:{login} as {name}"
