"""What people do with the quarantine: look, have an item read again, drop it. Each is in the access log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from monitor.attribution import Attributor
from monitor.facts.rows import ROWS
from monitor.ledger import access_log
from monitor.ledger.access_log import Entry
from monitor.model import Rejected
from monitor.pipeline import append, prepare
from monitor.ports import PluginError, Source
from monitor.quarantine import OURS, Gone, Item, Quarantine, Trouble
from monitor.scrub import scrub
from monitor.spool import SpoolFull
from monitor.stores import Stores

SHOWN = 100  # things of an item that are shown scrubbed
_TEXT = 2000  # characters of each
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Bounds = tuple[datetime, datetime]  # of events' times
_Tried = Iterator[tuple[pa.Table, Sequence[Rejected]]]  # rows that are good, and what is not


@dataclass(frozen=True, slots=True)
class Outcome:
    """An item was read again: rows ``taken`` into the facts, things that are ``left`` in it, and ``why``."""

    id: str
    taken: int
    left: int
    why: str = ""


def page(
    quarantine: Quarantine, *, source: str = "", since: datetime | None = None, limit: int = 100, after: str = ""
) -> tuple[list[Item], str]:
    """Items, the newest first, and what to name as ``after`` for those that follow; empty where none do."""
    wanted = [
        item
        for item in quarantine.every()
        if (not source or item.source == source)
        and (not since or item.at >= since)
        and (not after or _place(item) < after)
    ]
    return wanted[:limit], _place(wanted[limit - 1]) if len(wanted) > limit else ""


def described(item: Item) -> dict[str, Any]:
    """An item as JSON can hold it."""
    return {
        "id": item.id,
        "at": item.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "source": item.source,
        "kind": item.kind,
        "count": item.count,
        "size": item.size,
        "where": item.where,
        "why": item.damaged or item.why,
        "damaged": bool(item.damaged),
    }


def shown(item: Item, things: Sequence[Rejected]) -> dict[str, Any]:
    """An item with what it holds, scrubbed, as JSON can hold it; ``more`` things are not shown."""
    told = [
        {"where": thing.where, "why": thing.why, "size": len(thing.raw), "text": _text(thing)}
        for thing in things[:SHOWN]
    ]
    return {**described(item), "things": told, "more": len(things) - len(told)}


@dataclass(frozen=True, slots=True)
class Desk:
    """The quarantine of open stores, for one who looks after it. ``sources``: those of the configuration, by name.

    ``attributor``: of what they report; without one no source may be read again that reports of others' messages.
    """

    stores: Stores
    sources: Mapping[str, Source]
    attributor: Attributor | None = None

    def read(self, name: str, who: str, now: datetime, *, raw: bool) -> tuple[Item, list[Rejected]]:
        """An item with its things; ``raw``: these are shown as they are.

        Raises:
            Trouble: there is no such item, or it was changed.
        """
        with self._noted("quarantine read", name, who, now) as note:
            note["how"] = "raw" if raw else "scrubbed"
            return self._item(name, note), self._quarantine.things(name)

    def drop(self, name: str, who: str, now: datetime) -> None:
        """Remove an item.

        Raises:
            Trouble: there is no such item.
        """
        with self._noted("quarantine dropped", name, who, now) as note:
            self._item(name, note)
            self._quarantine.drop(name)

    def retry(self, name: str, who: str, now: datetime, bounds: Bounds) -> Outcome:
        """Read an item again as its source would today; what is good counts once, by its key, however often.

        Raises:
            Trouble: there is no such item, it was changed, its source can't, or the spool has no room.
        """
        with self._noted("quarantine retried", name, who, now) as note:
            item = self._item(name, note)
            things = self._quarantine.things(name)
            tried = list(self._frames(things) if item.kind in OURS else self._told(item, things, now, bounds))
            left = [thing for _, bad in tried for thing in bad]
            taken = sum(len(rows) for rows, _ in tried)
            self._append([rows for rows, _ in tried if len(rows)])
            note |= {"taken": taken, "left": len(left)}
            with suppress(Gone):  # somebody was quicker
                self._quarantine.leave(name, left)
            return Outcome(name, taken, len(left), left[0].why if left else "")

    @property
    def _quarantine(self) -> Quarantine:
        return self.stores.quarantine

    def _item(self, name: str, note: dict[str, Any]) -> Item:
        item = self._quarantine.item(name)
        note |= {"source": item.source, "kind": item.kind, "things": item.count}
        return item

    def _noted(self, did: str, name: str, who: str, now: datetime) -> _Noted:
        return _Noted(self.stores, Entry(now, who, did, scrub(name, 40), "done"))

    def _append(self, tables: Sequence[pa.Table]) -> None:
        try:
            for rows in tables:
                append(self.stores.spool, rows, None)  # the source stands where it stood
        except SpoolFull as error:
            raise Trouble("the spool is full", "retry when the facts have caught up") from error

    def _frames(self, things: Sequence[Rejected]) -> _Tried:
        for thing in things:
            try:
                rows = self.stores.applier.rows(thing.raw)
            except ValueError as error:
                yield ROWS.empty_table(), [replace(thing, why=scrub(str(error), 300))]
            else:
                yield rows, []

    def _told(self, item: Item, things: Sequence[Rejected], now: datetime, bounds: Bounds) -> _Tried:
        if item.source not in self.sources:
            what = f"{item.source} is no collector of this configuration"
            raise Trouble(what, "name it again, or drop what it told")
        try:
            yield from self._read(item.source, things, now, bounds)
        except PluginError as error:
            raise Trouble(scrub(str(error), 300), "drop it, or keep it until it goes by itself") from error

    def _read(self, name: str, things: Sequence[Rejected], now: datetime, bounds: Bounds) -> _Tried:
        source, stores = self.sources[name], self.stores
        batch = source.again(things, now)
        if batch.clues and self.attributor:
            batch = self.attributor.place(name, batch, now, trusted=getattr(source, "trusted", False))
        elif batch.clues:
            raise Trouble("reports can't be attributed here", "retry it where the service runs")
        rows, refused = prepare(batch, name, stores.keyring, now, bounds=bounds, names=stores.applier.names)
        if not refused and all(item.raw for item in batch.rejected):
            yield rows, _as_they_were(batch.rejected, things)
        elif len(things) == 1:
            yield rows, [replace(things[0], why=[*refused, *batch.rejected][0].why)]
        else:  # which of them is it
            for thing in things:
                yield from self._read(name, [thing], now, bounds)


class _Noted:
    """Writes the entry when the block ends, before anybody learns what was done; what failed is written too."""

    def __init__(self, stores: Stores, entry: Entry) -> None:
        self._stores, self._entry = stores, entry
        self._details: dict[str, Any] = {}

    def __enter__(self) -> dict[str, Any]:
        return self._details

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, Trouble):
            result = "done" if error is None else scrub(str(error), 200)
            with self._stores.ledger.begin() as conn:
                access_log.append(conn, replace(self._entry, result=result, details=self._details))


def _place(item: Item) -> str:
    """Texts whose order is that of the items; none is part of another."""
    return f"{(item.at - _EPOCH) // timedelta(microseconds=1):017}-{item.id}"


def _as_they_were(left: Sequence[Rejected], things: Sequence[Rejected]) -> list[Rejected]:
    """Still where they stood, as far as they are what they were."""
    before = {thing.raw: thing for thing in things}
    return [
        replace(item, where=before[item.raw].where, kind=before[item.raw].kind) if item.raw in before else item
        for item in left
    ]


def _text(thing: Rejected) -> str:
    try:
        text = thing.raw[: 4 * _TEXT].decode("utf-8", "ignore" if len(thing.raw) > 4 * _TEXT else "strict")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return f"({len(thing.raw):,} bytes that are no text)"
    return scrub(text, _TEXT)
