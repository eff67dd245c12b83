"""``mailvane backup``, ``restore`` and ``export``. Modules that are heavy to load are loaded when they are needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import cli_kit as kit
from monitor.facts.errors import FactsBusy, FactsError
from monitor.segments import SpoolCorrupt

if TYPE_CHECKING:
    from monitor.handover import Order
    from monitor.manifest import Job
    from monitor.settings import Settings

_LINES = 10  # that long work tells where nobody watches
_TABLES = ("events", "leaf", "minute", "hour", "levels")
_DATA = click.option(
    "--data", type=click.Path(path_type=Path), help="The store, where it is another than the service's [service.data]."
)


class Day(click.ParamType[date]):
    """A day of UTC, such as 2026-11-24."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """The text as a date."""
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day: write it like 2026-11-24", param, ctx)


class Lifetime(kit.Span):
    """A duration; 0 for ever."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The text as a timedelta."""
        return timedelta() if value in ("0", "never") else super().convert(value, param, ctx)


OLD_KEY = click.option(
    "--old-key-file",
    "old_key",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Where a wrapping key of before stands, if the keyring still rests under it; - for standard input.",
)


def commands(
    read: Callable[[Path | None], Settings],
    worded: Callable[[], AbstractContextManager[None]],
    now: Callable[[], datetime],
) -> Iterator[click.Command]:
    """The commands, around how a configuration is read, how errors are told, and a clock."""

    @click.command()
    @click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
    @click.option("--without-keyring", is_flag=True, help="Leave out the keyring: who has it can tell who was meant.")
    @click.option(
        "--keyring-for",
        "lasts",
        type=Lifetime(),
        default="30d",
        show_default=True,
        help="How long its keyring may be restored; then the next call removes it. 0 or never: for ever.",
    )
    @click.option("--keep", type=click.IntRange(min=1), help="Remove older backups in DIR but this many [keep all].")
    @click.option("--verify", is_flag=True, help="Make none: read the newest in DIR (or DIR itself) and check it.")
    @_DATA
    @click.pass_obj
    def backup(
        config: Path | None,
        folder: Path,
        lasts: timedelta,
        keep: int | None,
        data: Path | None,
        *,
        without_keyring: bool,
        verify: bool,
    ) -> None:
        """Back up facts, ledger and keyring into a new directory in DIR, while the service runs or is down."""
        with worded():
            if verify:
                _verify(folder, now())
            else:
                how = {"keyring": not without_keyring, "keyring_for": lasts, "keep": keep or 0}
                _back_up(read(config), data, now, folder, **how)

    @click.command()
    @click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FROM")
    @click.option("--data", type=click.Path(path_type=Path), help="The directory to restore into [service.data].")
    @click.option("--into", metavar="DSN", help="The store for the facts, such as a server [service.facts].")
    @click.option("--keyring", type=click.Path(path_type=Path, exists=True), help="Its file, rather than the backup's.")
    @click.option("--new-keyring", is_flag=True, help="Go on without the old one: no history is found by address.")
    @click.option(
        "--expired", is_flag=True, help="The backup's keyring though it has expired: the erased may be found."
    )
    @OLD_KEY
    @click.option(
        "--replace", is_flag=True, help="The target may hold a store: it is set aside; a server's is removed."
    )
    @click.pass_obj
    def restore(
        config: Path | None,
        source: Path,
        data: Path | None,
        into: str | None,
        keyring: Path | None,
        old_key: Path | None,
        *,
        new_keyring: bool,
        expired: bool,
        replace: bool,
    ) -> None:
        """Restore a backup (the newest, where FROM holds several), and check that all of it is there."""
        with worded():
            settings = read(config)
            service = settings.service
            # A directory of its own stands alone, unless said otherwise.
            facts = into or ("" if data else service.facts)
            password = service.facts_password.get_secret_value()
            how: dict[str, Any] = {"keyring": keyring, "new_keyring": new_keyring, "expired": expired}
            how |= {"replace": replace, "custody": settings.keyring, "former": _former(old_key)}
            _restore(source, (data or service.data).absolute(), now(), facts=facts, password=password, **how)

    @click.command()
    @click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
    @click.option("--since", type=Day(), help="The first day, in UTC [the first that there is].")
    @click.option("--until", type=Day(), help="The day after the last [all that there is].")
    @click.option(
        "--table", "tables", type=click.Choice(_TABLES), multiple=True, help="What; may be said again [events]."
    )
    @click.option("--without-pseudonyms", is_flag=True, help="Leave out what stands for a person or a message.")
    @_DATA
    @click.pass_obj
    def export(
        config: Path | None,
        folder: Path,
        since: date | None,
        until: date | None,
        tables: tuple[str, ...],
        data: Path | None,
        *,
        without_pseudonyms: bool,
    ) -> None:
        """Write facts as Parquet files by day into DIR, for DuckDB, pandas, Spark; days that are there are replaced."""
        with worded():
            if since and until and since >= until:
                raise click.UsageError(f"--until {until} is not after --since {since}: it is the first day left out")
            wanted = list(dict.fromkeys(tables)) or ["events"]
            span = {"since": since, "until": until, "pseudonyms": not without_pseudonyms}
            _export(read(config), data, now, folder, wanted, **span)

    yield from (backup, restore, export)


def _former(file: Path | None) -> Any:
    from monitor.custody import former

    return former(file)


def _back_up(settings: Settings, data: Path | None, now: Callable[[], datetime], folder: Path, **how: Any) -> None:
    from monitor.handover import Backup

    order = Backup(str(folder.absolute()), **how)
    done = followed(work(settings, order, data, now), "Backing up")
    click.echo(f"{done['path']}: {done['events']:,} events, {_megabytes(done['bytes'])} in {done['files']:,} files")
    click.echo(f"  {_megabytes(done['written'])} of it written, the rest is as in the backup before")
    if until := done["keyring_until"]:
        click.echo(f"  its keyring may be restored until {until[:16].replace('T', ' ')} UTC")
    if done["removed"]:
        click.echo(f"  {done['removed']} older removed")
    if done["expired"]:
        click.echo(f"  {done['expired']} keyrings of older ones had expired, and are removed")


def _restore(source: Path, data: Path, now: datetime, **how: Any) -> None:
    from monitor import restore
    from monitor.handover import owner_only

    owner_only(data)
    done = followed(restore.restore(source, data, now, who=f"cli:{kit.login()}", **how), "Restoring")
    click.echo(f"{data}: {done['events']:,} events, as they were at {done['made_at'][:19]} UTC")
    _tell_rows(done["rows"])
    if done["keys"]:
        click.echo(f"{done['keys']} keys open again what they opened then: see mailvane keys list, and revoke anew")
    if done["replaced"]:
        click.echo(f"what was there before is in {done['replaced']}: remove it when you need it no more")


def _export(
    settings: Settings, data: Path | None, now: Callable[[], datetime], folder: Path, tables: list[str], **how: Any
) -> None:
    from monitor.handover import Export

    done = followed(work(settings, Export(str(folder.absolute()), tables, **how), data, now), "Exporting")
    if not done["files"]:
        click.echo("nothing was written: there is nothing of those days")
        return
    click.echo(f"{done['path']}: {done['files']:,} files, {_megabytes(done['bytes'])}")
    _tell_rows(done["rows"])


def _tell_rows(rows: dict[str, int]) -> None:
    for table, count in rows.items():
        click.echo(f"  {table:<14}{count:>14,} rows")


def work(settings: Settings, order: Order, data: Path | None, now: Callable[[], datetime]) -> Job:
    """Have it done by the service that runs, or do it here where none does."""
    from monitor import handover
    from monitor.errors import UserError
    from monitor.stores import Stores

    service = settings.service
    place = (data or service.data).absolute()
    handover.owner_only(place)
    if not (place / "ledger.sqlite").exists():
        raise UserError(f"there is no store in {place}: has the service ever run with this configuration?")
    if data is None and settings.token_file.exists():
        token = settings.token_file.read_text("utf-8").strip()
        if job := handover.there(order, place, service.listen, token, service.tls_cert):
            return job
    facts, password = ("", "") if data else (service.facts, service.facts_password.get_secret_value())
    stores = partial(
        Stores,
        place,
        service.spool_limit,
        facts=facts,
        password=password,
        quarantine=settings.quarantine,
        custody=settings.keyring,
    )
    return handover.here(order, stores, place, now())


def _verified(folder: Path, now: datetime) -> Job:
    from monitor import manifest

    backup = manifest.found(folder)
    told = manifest.load(backup)
    yield from manifest.verify(backup, told)
    answer = {"path": str(backup), "made_at": told.made_at, "events": told.events, "files": len(told.files)}
    return {**answer, "keyring": told.keyring_told(now)}


def _verify(folder: Path, now: datetime) -> None:
    done = followed(_verified(folder, now), "Verifying")
    click.echo(
        f"{done['path']}: whole. {done['events']:,} events of {done['made_at'][:19]} UTC, {done['files']:,} files"
    )
    click.echo(f"  {done['keyring']}")


def followed(job: Job, label: str) -> dict[str, Any]:
    """The result; meanwhile a bar where somebody watches, and a few plain lines where nobody does."""
    show = _bar if sys.stderr.isatty() else _plain
    try:
        return show(job, label)
    except (FactsError, FactsBusy, SpoolCorrupt) as error:
        raise click.ClickException(str(error)[:2000]) from error
    finally:
        job.close()


def _bar(job: Job, label: str) -> dict[str, Any]:
    what = ""
    bar: Any = None
    try:
        while True:
            step = next(job)
            if step.what != what or bar is None:
                if bar:
                    bar.__exit__(None, None, None)
                what = step.what
                bar = click.progressbar(length=max(step.total, 1), label=f"{label}: {what}", file=sys.stderr)
                bar.__enter__()
            bar.update(max(0, step.done - bar.pos))
    except StopIteration as end:
        return dict(end.value)
    finally:
        if bar:
            bar.__exit__(None, None, None)


def _plain(job: Job, label: str) -> dict[str, Any]:
    told: tuple[str, int] = ("", 0)
    try:
        while True:
            step = next(job)
            tenth = step.done * _LINES // step.total if step.total else 0
            if (step.what, tenth) != told and step.total:
                told = (step.what, tenth)
                click.echo(f"{label}: {step.done:,} of {step.total:,} {step.what}", err=True)
    except StopIteration as end:
        return dict(end.value)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
