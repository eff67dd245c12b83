"""``mailvane import``: files into a store, through the same road as live mail; reading them again changes nothing."""

from __future__ import annotations

import gzip
import json
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import click

from collectors.sendlog import Sendlog
from monitor.config import Settings
from monitor.errors import UserError
from monitor.model import Batch, Kind

CHUNK = 4 << 20  # bytes
NODE = "import"


class ImportFailed(UserError):  # noqa: N818  # it reads so where it is raised
    """A file can't be read to its end; the message names it and says what was kept."""


@dataclass(slots=True)
class Summary:
    """What an import did: lines read, events found, counted and known already, and the store's counts by hour."""

    timezone: str
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
            f"{self.events:,} outcomes: {self.counted:,} counted, {self.duplicates:,} known already",
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
    timezone: str,
    now: datetime | None,
    source: str,
    clock: Callable[[], datetime],
) -> Summary:
    """Import Postfix logs, oldest first, into the store under ``data``.

    Raises:
        ImportFailed: a file can't be read; what was read before it is kept.
        DirectoryInUse: a service runs on that store.
    """
    began = clock()
    configured = settings.collectors.get(source)
    known = configured.model_dump() if isinstance(configured, Sendlog) else {"path": files[0]}
    parser = Sendlog.model_validate({**known, "timezone": timezone}).parser(now or began)
    summary = Summary(timezone)
    with _road(data, began) as stores:
        for file in files:
            for chunk in _chunks(file):
                summary.lines += chunk.count(b"\n")
                stores.take(parser.feed(chunk, file.name), source, summary)
            stores.take(parser.finish(file.name), source, summary)
        last = datetime.fromtimestamp(parser.last / 1e6, UTC) if parser.last else None
        summary.clock = now or (last + timedelta(minutes=1) if last else None)
        if last:
            stores.take(replace(Batch({}), watermark=last), source, summary)
        stores.finish(summary)
    summary.seconds = (clock() - began).total_seconds()
    return summary


class _Road:
    """The stores, opened beside the reading: what is read before they are open waits."""

    def __init__(self, data: Path, now: datetime) -> None:
        self._data = data
        self._now = now
        self._error: BaseException | None = None
        self._opened = ExitStack()
        self._opener = threading.Thread(target=self._open, name="open")
        self._waiting: list[tuple[Batch, str]] = []
        self._opener.start()

    def _open(self) -> None:
        # Loaded here: the engine takes as long to load as a million lines take to read.
        from monitor.stores import Stores  # noqa: PLC0415

        try:
            self._stores = Stores(self._data)
            self._opened.callback(self._stores.close)
        except BaseException as error:  # noqa: BLE001  # raised again where it can be told
            self._error = error

    def take(self, batch: Batch, source: str, summary: Summary) -> None:
        summary.events += len(batch)
        summary.rejected.update(item.why for item in batch.rejected)
        if len(batch) or batch.watermark:
            self._waiting.append((batch, source))
        if not self._opener.is_alive() or len(self._waiting) > 100:
            self._flush(summary)

    def _flush(self, summary: Summary) -> None:
        from monitor import pipeline  # noqa: PLC0415  # as above

        self._opener.join()
        if self._error:
            raise self._error
        for batch, source in self._waiting:
            rejected = pipeline.take(
                batch,
                self._stores.spool,
                self._stores.keyring,
                source=source,
                node=NODE,
                now=self._now,
                bounds=None,
                imported=True,
            )
            summary.rejected.update(item.why for item in rejected[len(batch.rejected) :])
        self._waiting.clear()

    def finish(self, summary: Summary) -> None:
        from monitor.facts import queries  # noqa: PLC0415  # as above

        self._flush(summary)
        applier, facts = self._stores.applier, self._stores.facts
        applier.drain()
        summary.counted, summary.duplicates = applier.tally.applied, applier.tally.duplicates
        for hour, kind, count in queries.by_hour(facts, summary.timezone):
            summary.hours.setdefault(f"{hour:%Y-%m-%d %H}:00", {})[kind] = count
        for told in {name for row in summary.hours.values() for name in row}:
            summary.distinct[told] = queries.distinct_messages(facts, Kind(told))

    def close(self) -> None:
        self._opener.join()
        self._opened.close()


@contextmanager
def _road(data: Path, now: datetime) -> Iterator[_Road]:
    road = _Road(data, now)
    try:
        yield road
    finally:
        road.close()


def _chunks(file: Path) -> Iterator[bytes]:
    """The bytes of a plain or gzipped file, with a progress bar where somebody watches."""
    size = file.stat().st_size
    with (
        file.open("rb") as raw,
        click.progressbar(
            length=size, label=file.name, file=sys.stderr, hidden=not sys.stderr.isatty(), show_pos=False
        ) as bar,
    ):
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        content: BinaryIO = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]  # reads alike
        before = 0
        try:
            while chunk := content.read(CHUNK):
                yield chunk
                bar.update(raw.tell() - before)
                before = raw.tell()
        except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
            raise ImportFailed(f"{file} can't be read to its end ({error}); what came before is kept") from error
