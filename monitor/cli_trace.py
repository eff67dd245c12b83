"""``mailvane trace``: the keys by which our own messages are known again, and marks made and looked at by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from monitor import cli_kit as kit
from monitor.model import LABELS

if TYPE_CHECKING:
    from monitor.settings import Settings
    from monitor.tracing import Mark


@click.group()
def trace() -> None:
    """Marks on our own messages, by which bounces and complaints are known for genuine.

    Senders make them with `mailvane_client.trace` and `verp`, and a copy of the key.
    """


@trace.command()
@click.option("--rotate", is_flag=True, help="Put a new key before those that are there.")
@click.option(
    "--forget", is_flag=True, help="With --rotate: accept none of those before, since somebody may have them."
)
@click.pass_obj
def key(config: Path | None, *, rotate: bool, forget: bool) -> None:
    """Make the key with which senders sign, or a new one; the service takes it up by itself.

    Give senders a copy of the file, readable by them alone. Marks of older keys are accepted for sixty days after, so
    that senders may go on with theirs until they have the new one.
    """
    from monitor import tracekeys

    if forget and not rotate:
        raise click.UsageError("--forget goes with --rotate")
    path = _settings(config).trace_keys
    with kit.worded():
        made = tracekeys.rotate(path, kit.now(), forget=forget) if rotate else tracekeys.make(path, kit.now())
    click.echo(f"{path}: senders sign with key {made.name} now")
    click.echo("give them a copy, readable by them alone: whoever has it can vouch for mail that is not ours")


@trace.command()
@click.option("--recipient", required=True, help="The one recipient.")
@click.option("--message-id", required=True, help="Message-ID of the message.")
@click.option("--at", type=kit.Moment(), help="When it is sent [now].")
@click.option("--return-path", metavar="ADDRESS", help="Mark this envelope sender, too.")
@click.argument("labels", nargs=-1, metavar="[LABEL=VALUE]...")
@click.pass_obj
def sign(
    config: Path | None,
    recipient: str,
    message_id: str,
    at: datetime | None,
    return_path: str | None,
    labels: tuple[str, ...],
) -> None:
    """Print the header of one message as a sender would make it, such as with tenant=s07 campaign=spring."""
    import mailvane_client

    path = _settings(config).trace_keys
    when = (at or kit.now()).timestamp()
    with kit.worded():
        secret = mailvane_client.trace_key(path)
        header = mailvane_client.trace(secret, recipient=recipient, message_id=message_id, at=when, **_labels(labels))
        click.echo(f"X-Mailvane: {header}")
        if return_path:
            click.echo(f"MAIL FROM:<{mailvane_client.verp(secret, return_path, recipient, when)}>")


@trace.command()
@click.argument("mark")
@click.option("--recipient", default="", help="Whether it is for this recipient.")
@click.option("--message-id", default="", help="Whether it is on this message.")
@click.pass_obj
def check(config: Path | None, mark: str, recipient: str, message_id: str) -> None:
    """Tell what MARK says, a header's value or a return path. Exit status 1 where it vouches for nothing."""
    from monitor import tracekeys
    from monitor.model import DRESS
    from monitor.tracing import Keys, Refused

    path = _settings(config).trace_keys
    with kit.worded():
        keys = Keys(tracekeys.read(path))
    text = mark.strip().removeprefix("X-Mailvane:")
    try:
        found = keys.path(text, kit.now()) if "@" in text else keys.header(text, kit.now())
    except Refused as refused:
        raise click.ClickException(f"refused: {refused}") from refused
    if found is None:
        raise click.ClickException("refused: no mark is in that address")
    _tell(found)
    if not found.fits(recipient):
        raise click.ClickException("refused: another recipient")
    if message_id and not found.address and message_id.strip(DRESS) != found.message_id:
        raise click.ClickException("refused: another message")


def _tell(mark: Mark) -> None:
    click.echo(f"genuine, by key {mark.key}")
    click.echo(f"sent    {datetime.fromtimestamp(mark.sent / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}")
    if mark.address:
        click.echo(f"as      {mark.address}")
    else:
        click.echo(f"message <{mark.message_id}>")
        click.echo("labels  " + (" ".join(f"{n}={v}" for n, v in zip(LABELS, mark.labels, strict=True) if v) or "none"))


def _labels(told: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(one.partition("=")[::2] for one in told)
    for name in pairs:
        if name not in LABELS:
            raise click.UsageError(f"{name!r} is no label: choose out of {', '.join(LABELS)}")
    return pairs


def _settings(config: Path | None) -> Settings:
    settings: Settings = kit.configured(config)
    return settings
