"""``mailvane import``: files into a store, through the same road as live mail; reading them again changes nothing."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from collectors.sendlog import Sendlog
from monitor.errors import UserError
from monitor.model import Batch, Kind
from monitor.reading import ImportFailed, Reader
from monitor.settings import Settings

if TYPE_CHECKING:
    from monitor.stores import Stores

NODE = "import"


@dataclass(slots=True)
class Summary:
    """What an import did: lines read, events found, counted and known already, and the store's counts by hour."""

    timezone: str
    source: str = ""
    lines: int = 0
    events: int = 0
    counted: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    clock: datetime | None = None
    rejected: Counter[str] = field(default_factory=Counter)
    hours: dict[str, dict[str, int]] = field(default_factory=dict)
    distinct: dict[str, int] = field(default_factory=dict)

    def json(self) -> str:
        """For machines."""
        return json.dumps(
            {
                "source": self.source,
                "lines": self.lines,
                "events": self.events,
                "counted": self.counted,
                "duplicates": self.duplicates,
                "seconds": round(self.seconds, 3),
                "lines_per_second": round(self.lines / self.seconds) if self.seconds else 0,
                "now": self.clock.isoformat() if self.clock else None,
                "rejected": dict(self.rejected),
                "timezone": self.timezone,
                "hours": self.hours,
                "distinct_messages": self.distinct,
            }
        )

    def text(self) -> str:
        """For people."""
        pace = f", {self.lines / self.seconds:,.0f} lines/s" if self.seconds else ""
        told = [
            f"{self.lines:,} lines in {self.seconds:.1f} s{pace}",
            f"{self.events:,} outcomes of {self.source}: {self.counted:,} counted, {self.duplicates:,} known already",
        ]
        told += [f"  not read: {count:,} of {why}" for why, count in self.rejected.most_common()]
        kinds = [kind for kind in Kind if any(kind in row for row in self.hours.values())]
        told += ["", f"in the store, by hour ({self.timezone})".ljust(36) + "".join(f"{kind:>10}" for kind in kinds)]
        told += [
            f"  {hour:<34}" + "".join(f"{row.get(kind, 0):>10,}" for kind in kinds) for hour, row in self.hours.items()
        ]
        told += ["  distinct messages".ljust(36) + "".join(f"{self.distinct.get(kind, 0):>10,}" for kind in kinds)]
        return "\n".join(told)


def sendlog(
    files: Sequence[Path],
    *,
    settings: Settings,
    data: Path,
    timezone: str | None,
    now: datetime | None,
    source: str | None,
    clock: Callable[[], datetime],
) -> tuple[Summary, str]:
    """Import Postfix logs, oldest first, into the store under ``data``; what was done, and what failed.

    Raises:
        UserError: no such collector, or no such zone.
        DirectoryInUse: a service runs on that store.
    """
    began = clock()
    name, collector = _collector(settings, source, timezone, files[0])
    summary = Summary(collector.timezone, source=name)
    failed = ""
    with closing(Reader(files, collector, now or began)) as reader:
        # Loaded beside the reading: the engine takes as long to load as a million lines take to read.
        from monitor.stores import Stores  # noqa: PLC0415

        with closing(Stores(data, custody=settings.keyring)) as stores:
            try:
                _take_all(reader, stores, sum(file.stat().st_size for file in files), name, began, summary)
            except ImportFailed as error:
                failed = str(error)
            if now:
                summary.clock = now
            stores.applier.drain()
            _sum_up(stores, summary)
    if not failed and summary.lines and not summary.events and summary.rejected.total() == summary.lines:
        failed = "not one line could be read: is this a Postfix log?"
    summary.seconds = (clock() - began).total_seconds()
    return summary, failed


def _collector(settings: Settings, source: str | None, timezone: str | None, file: Path) -> tuple[str, Sendlog]:
    """The section whose patterns and maps are used, and the collector with them; without any, a plain one."""
    known = {name: one for name, one in settings.collectors.items() if isinstance(one, Sendlog)}
    if source is not None and source not in known:
        raise UserError(f"there is no sendlog collector {source!r}: there is {', '.join(known) or 'none'}")
    if source is None and len(known) > 1:
        raise UserError(f"say whose log it is by --source: {', '.join(known)}")
    name = source or next(iter(known), "sendlog")
    values: dict[str, Any] = known[name].model_dump() if name in known else {"path": file}
    if timezone:
        values["timezone"] = timezone
    try:
        return name, Sendlog.model_validate(values)
    except ValidationError as error:
        raise UserError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _take_all(reader: Reader, stores: Stores, size: int, source: str, now: datetime, summary: Summary) -> None:
    """Put on disk what the reader brings, with a progress bar where somebody watches."""
    last = 0
    with click.progressbar(
        length=size, label="Reading", file=sys.stderr, hidden=not sys.stderr.isatty(), show_pos=False
    ) as bar:
        for read in reader:
            summary.lines += read.lines
            last = read.last
            _take(read.batch, stores, source, now, summary)
            bar.update(read.bytes)
    newest = datetime.fromtimestamp(last / 1e6, UTC) if last else None
    if newest:
        _take(Batch({}, watermark=newest), stores, source, now, summary)
        summary.clock = newest + timedelta(minutes=1)


def _take(batch: Batch, stores: Stores, source: str, now: datetime, summary: Summary) -> None:
    from monitor import pipeline  # noqa: PLC0415  # loaded with the stores

    summary.events += len(batch)
    rejected = pipeline.take(
        batch, stores.spool, stores.keyring, source=source, node=NODE, now=now, bounds=None, imported=True
    )
    summary.rejected.update(item.why for item in rejected)


def _sum_up(stores: Stores, summary: Summary) -> None:
    from monitor.facts import queries  # noqa: PLC0415  # loaded with the stores

    tally = stores.applier.tally
    summary.counted, summary.duplicates = tally.applied, tally.duplicates
    for hour, kind, count in queries.by_hour(stores.facts, summary.timezone):
        summary.hours.setdefault(f"{hour:%Y-%m-%d %H}:00", {})[kind] = count
    for told in sorted({name for row in summary.hours.values() for name in row}):
        summary.distinct[told] = queries.distinct_messages(stores.facts, Kind(told))
