"""What ``mailvane keys`` does with the keyring behind the pseudonyms: verify, wrap, unwrap, expire."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from monitor import cli_kit as kit
from monitor.cli_data import OLD_KEY

if TYPE_CHECKING:
    from monitor.settings import Settings
    from monitor.wrapping import WrappingKey


@click.command()
@click.option(
    "--backup",
    "backups",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Look at the keyrings of the backups in this directory, too.",
)
@OLD_KEY
@click.pass_obj
def verify(config: Path | None, backups: Path | None, old_key: Path | None) -> None:
    """Check the keyring behind the pseudonyms. Exit status 1 where something is wrong."""
    from monitor.custody import former
    from monitor.keyring_checks import checks

    settings = kit.configured(config)
    with kit.worded():
        data = _ours(settings)
        flaws = 0
        for check in checks(data, settings.keyring, kit.now(), backups=backups, former=former(old_key)):
            click.echo(f"{'FAIL' if check.flaw else 'ok':<6}{check.what}{': ' + check.flaw if check.flaw else ''}")
            flaws += bool(check.flaw)
    if flaws:
        sys.exit(1)


@click.command()
@OLD_KEY
@click.pass_obj
def wrap(config: Path | None, old_key: Path | None) -> None:
    """Encrypt the keyring under the key that [keyring] leads to; the service must be down.

    It may rest in plain, or under the key in --old-key-file.
    """
    from monitor.custody import former, wrapping
    from monitor.errors import UserError

    settings = kit.configured(config)
    with kit.worded():
        key = wrapping(settings.keyring)
        if key is None:
            raise UserError('custody is "file": say "environment" or "command" in [keyring], and where the key is')
        done = _rewrap(settings, [key, *former(old_key)], key)
    click.echo(f"the keyring rests under the key {key.name}" + ("" if done else " already"))
    if done:
        click.echo("keep that key as safe as the keyring: without it nobody opens it")


@click.command()
@OLD_KEY
@click.pass_obj
def unwrap(config: Path | None, old_key: Path | None) -> None:
    """Have the keyring rest in plain again, readable by its owner only; the service must be down.

    It is opened by the key that [keyring] leads to, or by that in --old-key-file.
    """
    from monitor.custody import configured, former

    settings = kit.configured(config)
    with kit.worded():
        done = _rewrap(settings, former(old_key) or [configured(settings.keyring)], None)
    click.echo("the keyring rests in plain" + ("" if done else " already"))
    if settings.keyring.custody != "file":
        click.echo('say custody = "file" in [keyring] before the service starts')


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option("--older-than", "older", type=kit.Span(), help="Those of older backups, too, whatever these say.")
@click.pass_obj
def expire(config: Path | None, folder: Path, older: timedelta | None) -> None:
    """Remove the keyrings that have expired from the backups in DIR, which stay; `mailvane backup` does so, too."""
    from monitor import backup, expiring, manifest

    settings = kit.configured(config)
    with kit.worded(), backup.worded(folder):
        single = (folder / manifest.NAME).is_file()
        with backup.alone(folder.absolute().parent if single else folder):
            gone = expiring.expire(folder, kit.now(), older)
        for path in gone:
            click.echo(f"{path} is removed: that backup is restored with the present keyring (--keyring)")
        if gone:
            _note(settings, "keyrings expired", str(folder), len(gone))
        else:
            click.echo("none has expired")


COMMANDS = (verify, wrap, unwrap, expire)


def _ours(settings: Settings) -> Path:
    from monitor import handover

    handover.owner_only(settings.service.data)
    return settings.service.data


def _rewrap(settings: Settings, keys: list[WrappingKey] | tuple[WrappingKey, ...], key: WrappingKey | None) -> bool:
    from monitor import keyfile
    from monitor.errors import UserError
    from monitor.manifest import KEYRING
    from monitor.stores import idle

    path = _ours(settings) / KEYRING
    if not path.exists():
        raise UserError(f"there is no keyring {path}: the service makes one at its first start, by [keyring]")
    with idle(path.parent):
        done = keyfile.rewrap(path, keys, key)
    if done:
        _note(settings, "keyring rewrapped", key.name if key else "in plain", 1)
    return done


def _note(settings: Settings, did: str, on: str, count: int) -> None:
    """An entry of the access log, where there is one."""
    from monitor.ledger import access_log
    from monitor.ledger.db import open_ledger

    if settings.ledger.exists():
        engine = open_ledger(settings.ledger)
        try:
            with engine.begin() as conn:
                entry = access_log.Entry(kit.now(), f"cli:{kit.login()}", did, on, "done", {"keyrings": count})
                access_log.append(conn, entry)
        finally:
            engine.dispose()
