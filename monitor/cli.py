"""The command ``mailvane``. Modules that are heavy to load are loaded by the command that needs them."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import click

from monitor import (
    cli_approvals,
    cli_audit,
    cli_data,
    cli_explain,
    cli_keyring,
    cli_keys,
    cli_people,
    cli_quarantine,
    cli_reply,
    cli_suppressions,
    cli_trace,
)
from monitor import cli_kit as kit


def main() -> None:
    """The entry point: errors of the world end in one line rather than in a traceback."""
    try:
        cli(prog_name="mailvane", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(0)  # Ctrl-C is how one ends what runs; it has ended in order


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mailvane")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration file [$MAILVANE_CONFIG, ./mailvane.toml, /etc/mailvane/].",
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Sees mail going wrong, says why, and stops the harm."""
    ctx.obj = config


@cli.command()
@click.option("--core-only", "only", flag_value="core", help="Only what sees and decides, with page and API.")
@click.option("--gate-only", "only", flag_value="gate", help="Only what answers senders.")
@click.pass_obj
def run(config: Path | None, only: str | None) -> None:
    """Run the service: core and gate, a process each, both kept up until a signal comes."""
    from monitor import supervise

    with _faults(supervise.FAULT), kit.worded():
        if only:
            _run(only, config, supervise.GRACE[only])
        else:
            sys.exit(supervise.run(config, releases=_releases(config)))


@cli.command()
@click.pass_obj
def check(config: Path | None) -> None:
    """Check the configuration, and say what would run."""
    from monitor import reach
    from monitor.access.summary import summary
    from monitor.core.policy import span

    settings = kit.configured(config)
    click.echo(f"{settings.source}: valid")
    click.echo(f"  mode {settings.automation.mode}, data in {settings.service.data}")
    if settings.service.facts:
        click.echo(f"  facts in {settings.service.facts}")
    for title, named in (
        ("collector", settings.collectors),
        ("alert", settings.alerts),
        ("actuator", settings.actuators),
    ):
        click.echo(f"  {title}: {', '.join(named) or 'none'}")
    for rule in settings.rules:
        by, over = ", ".join(rule.by), span(rule.window)
        click.echo(f"  rule {rule.name}: {rule.rate} by {by} over {over}, pauses {rule.pauses}")
    if not settings.collectors:
        click.echo("  no collector is configured: only events told over HTTP will be seen")
    for line in (*reach.ways(settings), *summary(settings, kit.now())):
        click.echo(f"  {line}")
    for line in reach.warnings(settings):
        click.echo(f"  warning: {line}")


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8025, show_default=True, help="0: any free one.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another marketplace.")
@click.option(
    "--incident",
    "incidents",
    multiple=True,
    metavar="KIND:SCOPE@TIME",
    help="Script an incident in place of the default ones, such as bought-list:tenant=s07,segment=lapsed-365d@40s.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Keep the data here [a temporary directory].")
def demo(port: int, seed: int, incidents: tuple[str, ...], data: Path | None) -> None:
    """Run the product on a simulated marketplace, enforcing, with live data in a browser."""
    from monitor import demo as shown

    with kit.worded():
        shown.run(port=port, seed=seed, incidents=incidents, data=data)


@cli.command("leases")
@click.option("--json", "as_json", is_flag=True, help="As the API answers it.")
@click.pass_obj
def list_leases(config: Path | None, *, as_json: bool) -> None:
    """List the leases in force."""
    import json

    from monitor.api import words
    from monitor.gate import Gate

    with kit.ledger(config) as ledger:
        gate = Gate(ledger, kit.now)
        gate.refresh()
        found = gate.current()
    if as_json:
        click.echo(json.dumps(words.lease_set(found, kit.now()), indent=2))
        return
    for lease in found.leases:
        until = f"{lease.until:%Y-%m-%d %H:%M:%S} UTC"
        click.echo(f"{lease.id}  {lease.deed} {lease.scope}  until {until}  by {lease.who}: {lease.why}")
    if not found.leases:
        click.echo("no lease is in force: all mail may be sent")


@cli.command()
@click.argument("scope", nargs=-1, required=True, metavar="SCOPE")
@click.option("--for", "span", type=kit.Span(), default="60m", show_default=True, help="How long; a pause always ends.")
@click.option("--why", required=True, help="The reason: a colleague will read it.")
@click.option("--as", "who", help="Who turns the key [your login].")
@click.pass_obj
def pause(config: Path | None, scope: tuple[str, ...], span: timedelta, why: str, who: str | None) -> None:
    """Hold the mail of SCOPE, such as: tenant=s07 segment=lapsed-365d"""
    _grant(config, "pause", scope, span, why, who)


@cli.command()
@click.argument("scope", nargs=-1, required=True, metavar="SCOPE")
@click.option("--share", type=kit.Share(), required=True, help="The part that may pass, such as 25%.")
@click.option(
    "--for", "span", type=kit.Span(), default="60m", show_default=True, help="How long; a throttle always ends."
)
@click.option("--why", required=True, help="The reason: a colleague will read it.")
@click.option("--as", "who", help="Who turns the key [your login].")
@click.pass_obj
def throttle(
    config: Path | None, scope: tuple[str, ...], share: float, span: timedelta, why: str, who: str | None
) -> None:
    """Let only a share of the mail of SCOPE pass; the same message gets the same answer."""
    _grant(config, "throttle", scope, span, why, who, share=share)


@cli.command()
@click.argument("scope", nargs=-1, required=True, metavar="SCOPE")
@click.option("--pool", required=True, help="The pool that the mail is to take, as your dispatcher names it.")
@click.option(
    "--for", "span", type=kit.Span(), default="60m", show_default=True, help="How long; a reroute always ends."
)
@click.option("--why", required=True, help="The reason: a colleague will read it.")
@click.option("--as", "who", help="Who turns the key [your login].")
@click.pass_obj
def reroute(config: Path | None, scope: tuple[str, ...], pool: str, span: timedelta, why: str, who: str | None) -> None:
    """Send the mail of SCOPE by another pool of IPs."""
    _grant(config, "reroute", scope, span, why, who, pool=pool)


@cli.command()
@click.argument("scope", nargs=-1, required=True, metavar="SCOPE")
@click.option("--for", "span", type=kit.Span(), default="24h", show_default=True)
@click.option("--why", default="", help="The reason.")
@click.option("--as", "who", help="Who turns the key [your login].")
@click.pass_obj
def allow(config: Path | None, scope: tuple[str, ...], span: timedelta, why: str, who: str | None) -> None:
    """Let the mail of SCOPE pass whatever automation thinks."""
    _grant(config, "allow", scope, span, why, who)


@cli.command()
@click.argument("lease")
@click.option(
    "--for", "span", type=kit.Span(), default="24h", show_default=True, help="How long automation keeps away."
)
@click.option("--why", default="", help="The reason.")
@click.option("--as", "who", help="Who turns the key [your login].")
@click.pass_obj
def resume(config: Path | None, lease: str, span: timedelta, why: str, who: str | None) -> None:
    """End LEASE now, and keep automation away from its scope for a time."""
    from monitor import hand

    with kit.ledger(config) as ledger, kit.worded(), ledger.begin() as conn:
        for action in hand.resume(conn, lease, span, who or kit.login(), why, kit.now()):
            until = f" until {action.until:%Y-%m-%d %H:%M} UTC" if action.until else ""
            click.echo(f"{action.id}  {action.deed} {action.scope}{until}")


@cli.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--all", "everything", is_flag=True, help="Let go all at once, whatever its end, and be done.")
@click.pass_obj
def release(config: Path | None, files: tuple[Path, ...], *, everything: bool) -> None:
    """Keep letting go what pauses hold in tiers that can't do it themselves, as soon as it has ended.

    FILES are those that `state` of an actuator names [all in the configuration].
    """
    from monitor import logs, notify, supervise
    from monitor import release as releasing
    from monitor.config import find

    logs.set_up()
    with kit.worded():
        paths = tuple(path.absolute() for path in files) or releasing.states(find(config))
        if not paths:
            click.echo("nothing to do: no [actuator.NAME] has a `state`", err=True)
            sys.exit(supervise.MISCONFIGURED)
        if everything:
            went = releasing.let_go(paths, kit.now())
        else:
            notify.follow(supervise.GRACE["release"])
            went = releasing.run(paths, kit.now)
    if not went:
        raise click.ClickException("not all was let go: see the log")


@cli.command()
@click.option("--check", "asking", is_flag=True, help="Ask the core whether it would take what we read, and be done.")
@click.option("--once", is_flag=True, help="Send all there is to read, and be done.")
@click.pass_obj
def ship(config: Path | None, *, asking: bool, once: bool) -> None:
    """Read the configured collectors here, and send what they bring to a core elsewhere.

    `to` in [ship] names the core. What it has not taken yet waits in `data`, whatever dies meanwhile.
    """
    from monitor import logs
    from monitor.config import load_ship
    from monitor.shipping import commands

    settings = kit.configured(config, load_ship)
    if not asking:
        logs.set_up()
    with kit.worded():
        if asking:
            click.echo(commands.check(settings, kit.now()))
        elif once:
            click.echo(commands.once(settings, kit.now))
        else:
            commands.run(settings, kit.now)


@cli.group("import")
def import_() -> None:
    """Read files into a store, such as old logs."""


@import_.command("sendlog")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--timezone", help="Zone of stamps that carry none, such as Europe/Prague [the collector's, or UTC].")
@click.option("--now", type=kit.Moment(), help="The import's clock [the input's last stamp + 1 min].")
@click.option("--data", type=click.Path(path_type=Path), help="The store to write to [service.data].")
@click.option("--source", help="Take patterns and maps from [collector.SOURCE] [the only sendlog collector].")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
@click.pass_obj
def import_sendlog(
    config: Path | None,
    files: tuple[Path, ...],
    timezone: str | None,
    now: datetime | None,
    data: Path | None,
    source: str | None,
    *,
    as_json: bool,
) -> None:
    """Read Postfix logs (plain or .gz), oldest first; reading them again changes nothing."""
    from monitor import importing

    with kit.worded():
        settings = kit.configured(config)
        summary, failed = importing.sendlog(
            files,
            settings=settings,
            data=data or settings.service.data,
            timezone=timezone,
            now=now,
            source=source,
            clock=kit.now,
        )
    click.echo(summary.json() if as_json else summary.text())
    if failed:
        raise click.ClickException(failed)


def _run(only: str, config: Path | None, grace: timedelta) -> None:
    """Core or gate, in this process."""
    from monitor import notify

    notify.follow(grace)
    # The server raises the signal again when it has ended in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if only == "gate":
        from monitor import gate_process
        from monitor.config import load_gate

        gate_process.serve(kit.configured(config, load_gate))
    else:
        from monitor import core_process

        core_process.serve(kit.configured(config))


def _releases(config: Path | None) -> bool:
    """Whether a tier needs ``mailvane release``."""
    from monitor import release as releasing
    from monitor.config import find
    from monitor.errors import UserError

    try:
        return bool(releasing.states(find(config)))
    except UserError:
        return False  # the supervisor has the configuration checked, and that tells more


def _grant(
    config: Path | None,
    deed: str,
    scope: tuple[str, ...],
    span: timedelta,
    why: str,
    who: str | None,
    *,
    share: float = 0.0,
    pool: str = "",
) -> None:
    from monitor import four_eyes, hand
    from monitor.ledger.approvals import Approval
    from monitor.model import Deed

    needed = kit.configured(config).access.four_eyes
    with kit.ledger(config) as ledger, kit.worded(), ledger.begin() as conn:
        part, name = hand.scope_of(" ".join(scope)), who or kit.login()
        by, now = f"cli:{kit.login()}", kit.now()
        done = four_eyes.turn(
            conn, Deed(deed), part, span, name, why, now, share=share, pool=pool, four_eyes=needed, by=by
        )
    if isinstance(done, Approval):
        cli_approvals.asked(config, done)
    else:
        cli_approvals.granted(config, done)


@contextmanager
def _faults(code: int) -> Iterator[None]:
    """A mistake of ours ends with this code, so that a supervisor knows it from what a person can mend."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception:
        logging.getLogger(__name__).exception("ended by a fault of our own")
        sys.exit(code)


for _command in cli_data.commands(kit.configured, kit.worded, kit.now):
    cli.add_command(_command)
for _one in (cli_approvals.approvals, cli_approvals.approve, cli_approvals.decline):
    cli.add_command(_one)
for _group in (
    cli_keys.keys,
    cli_people.people,
    cli_audit.audit,
    cli_quarantine.quarantine,
    cli_explain.explain,
    cli_reply.reply,
    cli_suppressions.suppressions,
    cli_trace.trace,
):
    cli.add_command(_group)
for _command in cli_keyring.COMMANDS:
    cli_keys.keys.add_command(_command)

if __name__ == "__main__":
    main()
