"""``mailvane suppressions``: who should get no more mail; works while the service runs and while it is down."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from monitor import cli_kit as kit
from monitor.core.suppressing import Reason

if TYPE_CHECKING:
    from monitor.ledger.outages import Outage
    from monitor.ledger.suppressions import Entry
    from monitor.register import Register

T = TypeVar("T")

_REASON = click.Choice([str(one) for one in Reason])
_ADDRESSES = click.argument("addresses", nargs=-1, metavar="ADDRESS…")
_FILE = click.option(
    "--file",
    type=click.File(encoding="utf-8-sig"),
    help="Addresses, one a line; - for standard input, as for one alone.",
)
_WHY = click.option("--why", required=True, help="The reason: a colleague will read it.")
_AS = click.option("--as", "who", help="Who decides [your login].")


@click.group()
def suppressions() -> None:
    """Who should get no more mail: list and check them, add or release some, and tell of providers' outages.

    Addresses are turned into pseudonyms here. None is written anywhere.
    """


@suppressions.command("list")
@click.option("--reason", type=_REASON, help="Only these.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def show(config: Path | None, reason: str | None, limit: int, *, as_json: bool) -> None:
    """List what is in force, by pseudonym."""
    from monitor.ledger import suppressions as stored

    with kit.ledger(config) as ledger, ledger.connect().execution_options(reads=True) as conn:
        found = stored.listed(conn, limit, None, Reason(reason) if reason else None)
        counts = stored.counts(conn)
    for one in found:
        click.echo(json.dumps(_plain(one)) if as_json else _line(one))
    if not found:
        click.echo("nobody is suppressed" if not reason else f"nobody is suppressed for {reason}", err=True)
    elif not as_json:
        told = ", ".join(f"{count:,} {why}" for why, count in counts.items() if count)
        click.echo(f"in force: {told}", err=True)


@suppressions.command()
@_ADDRESSES
@_FILE
@click.option("--tenant", default="", help="Whose mail would go there.")
@click.option("--stream", default="", help="Of which stream; an unknown one may be receipts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, in the order of the addresses.")
@click.pass_obj
def check(
    config: Path | None, addresses: tuple[str, ...], file: Any, tenant: str, stream: str, *, as_json: bool
) -> None:
    """Say for each address whether mail should go there.

    Exit status 1 where for one it should not, or where one is no address.
    """
    from monitor.api.suppressions import standing

    held = False
    with _register(config) as register, kit.worded():
        for some in _by_thousands(_given(addresses, file)):
            for place, one in enumerate(register.check(some, tenant, stream, kit.now())):
                held = held or one.entry is not None or bool(one.error)
                if as_json:
                    click.echo(json.dumps(standing(one)))
                elif one.error:
                    click.echo(f"{some[place]}: {one.error}", err=True)
                else:
                    click.echo(f"{some[place]}: {_told(one.entry) if one.entry else 'not suppressed'}")
                    for other in one.others:
                        click.echo(f"    for other mail: {_told(other)}")
    if held:
        sys.exit(1)


@suppressions.command()
@_ADDRESSES
@_FILE
@click.option("--tenant", default="", help="Only for the mail of this tenant [all].")
@click.option("--stream", default="", help="Only for this stream [all].")
@click.option("--for", "span", type=kit.Span(), help="How long [for good].")
@_WHY
@_AS
@click.pass_obj
def add(
    config: Path | None,
    addresses: tuple[str, ...],
    file: Any,
    tenant: str,
    stream: str,
    span: timedelta | None,
    why: str,
    who: str | None,
) -> None:
    """Suppress addresses by hand."""
    from monitor.register import shown

    now, given = kit.now(), _clean(_given(addresses, file))
    with _register(config) as register, kit.worded():
        for some in _by_thousands(given):
            people = register.people(some)
            until = now + span if span else None
            done = register.add(people, tenant=tenant, stream=stream, who=_who(who), why=why, until=until, now=now)
            _noted(config, "suppression added", shown(people), now)
            _changes(done)


@suppressions.command()
@_ADDRESSES
@_FILE
@click.option("--pseudonym", "pseudonyms", multiple=True, help="By pseudonym, as list tells it.")
@click.option("--reason", type=_REASON, help="Only what rests on this [whatever it rests on].")
@_WHY
@_AS
@click.pass_obj
def remove(
    config: Path | None,
    addresses: tuple[str, ...],
    file: Any,
    pseudonyms: tuple[str, ...],
    reason: str | None,
    why: str,
    who: str | None,
) -> None:
    """Let addresses have mail again. What was told of them so far counts no more."""
    from monitor.register import pseudonym, shown

    now = kit.now()
    given = _clean(_given(addresses, file, least=0 if pseudonyms else 1))
    with _register(config) as register, kit.worded():
        people = [*register.people(given), *map(pseudonym, pseudonyms)]
        done: list[Entry] = []
        for some in _by_thousands(people):
            done += register.release(some, who=_who(who), why=why, now=now, reason=Reason(reason) if reason else None)
            _noted(config, "suppression released", shown(some), now)
    _changes(done)


@suppressions.command()
@click.argument("pseudonyms", nargs=-1, required=True, metavar="PSEUDONYM…")
@click.pass_obj
def forget(config: Path | None, pseudonyms: tuple[str, ...]) -> None:
    """Remove every row about recipients, in the log too. To let mail pass, use remove."""
    from monitor.register import pseudonym, shown

    now = kit.now()
    with _register(config) as register, kit.worded():
        people = [pseudonym(one) for one in pseudonyms]
        count = sum(register.forget(person) for person in people)
        _noted(config, "suppression forgotten", shown(people), now)
    click.echo(f"{count} rows are gone")


@suppressions.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="The file [standard output].")
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@click.pass_obj
def export(config: Path | None, output: Path | None, form: str) -> None:
    """Write all that is in force, by pseudonym. `seq` is what to ask the feed for what comes after."""
    from monitor.files import write
    from monitor.ledger import suppressions as stored

    with kit.ledger(config) as ledger, ledger.connect().execution_options(reads=True) as conn:
        rows = [_plain(one) for one in stored.every(conn)]
        head = stored.head(conn)
    if output:
        with kit.worded():
            write(output, "".join(_formed(rows, form)).encode())
    else:
        for text in _formed(rows, form):
            click.echo(text, nl=False)
    click.echo(f"{len(rows):,} suppressions; go on with GET /v1/suppressions?since={head}", err=True)


@suppressions.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.pass_obj
def outages(config: Path | None, limit: int) -> None:
    """List when providers refused everybody: nobody is suppressed for what they said then."""
    from monitor.ledger import outages as stored

    with kit.ledger(config) as ledger, ledger.connect().execution_options(reads=True) as conn:
        found = stored.newest(conn, limit)
    for one in found:
        click.echo(_outage(one))
    if not found:
        click.echo("no provider had an outage")


@suppressions.command()
@click.argument("provider")
@click.option("--from", "since", type=kit.Moment(), required=True, help="When it began, in UTC without an offset.")
@click.option("--to", "until", type=kit.Moment(), required=True, help="When it ended.")
@_WHY
@_AS
@click.pass_obj
def outage(config: Path | None, provider: str, since: datetime, until: datetime, why: str, who: str | None) -> None:
    """Say that PROVIDER had an outage: whoever is suppressed for what it said then is released."""
    now = kit.now()
    with _register(config) as register, kit.worded():
        made, moved = register.declare(provider, since, until, who=_who(who), why=why, now=now)
        _noted(config, "outage declared", f"{made.id} provider {provider}", now)
    click.echo(_outage(made))
    click.echo(f"released: {sum(moved.changes.values()):,}")


@suppressions.command()
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
@_AS
@click.pass_obj
def dismiss(config: Path | None, number: int, who: str | None) -> None:
    """Say that outage NUMBER was none: what the provider said then counts after all, within a minute."""
    now = kit.now()
    with _register(config) as register, kit.worded():
        found = register.dismiss(number, who=_who(who), now=now)
        if found:
            _noted(config, "outage dismissed", str(number), now)
    if found is None:
        raise click.ClickException(f"there is no outage {number}: mailvane suppressions outages lists them")
    click.echo(_outage(found))


@suppressions.command()
@click.option("--apply", is_flag=True, help="Do it, after saying what changes [say it only].")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.pass_obj
def rebuild(config: Path | None, *, apply: bool, as_json: bool) -> None:
    """Read the events that are kept once more, with the reply table of this release, and judge bounces anew.

    Says what would change; again to no effect.
    """
    from monitor.cli_data import followed, work
    from monitor.handover import Rebuild
    from monitor.rebuilding import lines

    settings = kit.configured(config)
    with kit.worded():
        order = Rebuild(policy=settings.hygiene, apply=apply)
        result = followed(work(settings, order, None, kit.now), "Reading")
    if as_json:
        click.echo(json.dumps(result))
        return
    for line in lines(result):
        click.echo(line)
    if not apply and result["changes"]:
        click.echo("nothing was changed: add --apply to do it")


@suppressions.command()
@click.argument("name")
@click.option("--from", "since", type=click.IntRange(0), help="The last change that it knows [as it stands].")
@click.pass_obj
def push(config: Path | None, name: str, since: int | None) -> None:
    """Have the webhook NAME begin again: after it answered 410, or from an older change on."""
    from monitor.ledger import suppressions as stored
    from monitor.ledger import webhooks

    settings = kit.configured(config)
    if name not in settings.webhooks:
        raise click.ClickException(f"there is no [webhook.{name}]: there are {', '.join(settings.webhooks) or 'none'}")
    with kit.ledger(config) as ledger, ledger.begin() as conn:
        known, head = webhooks.stand(conn, name), stored.head(conn)
        told = min(since, head) if since is not None else known.told if known else head
        webhooks.begin(conn, name, told, kit.now())
    click.echo(f"{name} is told what follows change {told:,} of {head:,}")


@contextmanager
def _register(config: Path | None) -> Iterator[Register]:
    """The service's ledger and keyring, open; neither is made where there is none."""
    from monitor.errors import UserError
    from monitor.keyring import Keyring
    from monitor.register import Register

    settings = kit.configured(config)
    with kit.ledger(config) as ledger, kit.worded():
        path = settings.service.data / "keyring"
        if not path.exists():
            raise UserError(f"there is no keyring at {path}: has the service ever run with this configuration?")
        keyring = Keyring.open(path, settings.keyring)
        try:
            yield Register(ledger, keyring, settings.hygiene)
        finally:
            keyring.close()


def _given(addresses: tuple[str, ...], file: Any, least: int = 1) -> list[str]:
    """The addresses of the command line, or of a file."""
    if addresses == ("-",):
        addresses, file = (), sys.stdin
    try:
        lines = [line.strip().removeprefix("\ufeff") for line in file or ()]
    except UnicodeDecodeError as error:
        raise click.ClickException("the file is not UTF-8: save it as that. Nothing was changed") from error
    found = [*addresses, *(line for line in lines if line)]
    if len(found) < least:
        raise click.UsageError("no address: name some, or a file of them by --file")
    return found


def _clean(addresses: list[str]) -> list[str]:
    from monitor.register import unlike

    for place, address in enumerate(addresses, 1):
        if error := unlike(address):
            raise click.ClickException(f"address {place} is {error}. Nothing was changed")
    return addresses


def _by_thousands(values: list[T]) -> Iterator[list[T]]:
    from monitor.register import MOST

    yield from (values[first : first + MOST] for first in range(0, len(values), MOST))


def _who(named: str | None) -> str:
    from monitor.ledger.suppressions import AUTOMATION

    who = named or kit.login()
    if who == AUTOMATION:
        raise click.ClickException("automation is nobody's name: say who decides by --as")
    return who


def _noted(config: Path | None, did: str, on: str, now: datetime) -> None:
    """The access log tells what was done here too."""
    from monitor.ledger import access_log

    with kit.ledger(config) as ledger, ledger.begin() as conn:
        access_log.append(conn, access_log.Entry(now, f"cli:{kit.login()}", did, on, "done"))


def _changes(done: list[Entry]) -> None:
    for one in done:
        click.echo(f"{one.change}: {_line(one)}")
    if not done:
        click.echo("nothing had to be changed")


def _line(one: Entry) -> str:
    return f"{one.pseudonym.hex()}  {_told(one)}"


def _told(one: Entry) -> str:
    scope = " ".join(f"{name}={value}" for name, value in (("tenant", one.tenant), ("stream", one.stream)) if value)
    until = f"until {one.until:%Y-%m-%d}" if one.until else "for good"
    why = f": {one.why}" if one.why else ""
    told = f"{one.reason} for {scope or 'all mail'} since {one.since:%Y-%m-%d}, {until}, by {one.who}{why}"
    return "".join(each if each.isprintable() else " " for each in told)  # others' words steer no terminal


def _outage(one: Outage) -> str:
    until = f"{one.until:%Y-%m-%d %H:%M}" if one.until.date() != one.since.date() else f"{one.until:%H:%M}"
    told = f"{one.id:>5}  {one.provider or '(unknown)'}  {one.since:%Y-%m-%d %H:%M} to {until} UTC, by {one.who}"
    dismissed = f"; dismissed by {one.dismissed_by}" if one.dismissed_by else ""
    return f"{told}: {one.why}{dismissed}"


def _plain(one: Entry) -> dict[str, Any]:
    return {
        "pseudonym": one.pseudonym.hex(),
        "reason": str(one.reason),
        "tenant": one.tenant,
        "stream": one.stream,
        "since": one.since.isoformat(),
        "until": one.until.isoformat() if one.until else "",
        "why": one.why,
        "who": one.who,
        "seq": one.seq,
    }


class _Lines:
    """A file that keeps what is written last."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        """Take a line."""
        self.text = text
        return len(text)


def _formed(rows: Iterable[dict[str, Any]], form: str) -> Iterator[str]:
    if form == "json":
        yield from (json.dumps(row) + "\n" for row in rows)
        return
    lines = _Lines()
    writer = csv.DictWriter(
        lines,
        ["pseudonym", "reason", "tenant", "stream", "since", "until", "why", "who", "seq"],
        lineterminator="\n",
    )
    writer.writeheader()
    yield lines.text
    for row in rows:
        # A cell that begins like a formula is one to a spreadsheet.
        safe = {name: f"'{value}" if str(value)[:1] in ("=", "+", "-", "@") else value for name, value in row.items()}
        writer.writerow(safe)
        yield lines.text
