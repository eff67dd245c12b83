"""Counts at three grains, made of the rows that count: sums by time and *series*, the labels that a grain keeps.

A row of a grain names its series by a hash; what the labels are stands beside it in a table of its own, once a day or
month. So a count is some twenty bytes, and sums are merged without touching a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from monitor.model import COUNTED, LABELS, UNVERIFIED, Kind

MINUTE_LABELS = LABELS[:4]  # ip, domain, provider, stream
HOUR_LABELS = LABELS[:7]  # and tenant, segment, campaign
FIRST_OUTCOMES = (Kind.SENT, Kind.DEFERRED, Kind.BOUNCED, Kind.EXPIRED)
# Per kind (what nobody vouches for has none, so that nothing that is judged can see it), then first attempts and those
# that were deferred, for the rate of deferral.
COUNTERS = (*(kind.value for kind in COUNTED), "first", "first_deferred")
# Lag class k of the hour grain: seen_at - sent_at is at least edge k-1 and below edge k.
LAG_EDGES = (
    *(timedelta(minutes=minutes) for minutes in (1, 5, 15)),
    *(timedelta(hours=hours) for hours in (1, 3, 6, 12)),
    *(timedelta(days=days) for days in (1, 2, 4, 7)),
)

Hashes = npt.NDArray[np.uint64]
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_PRIME = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
_SHIFT = np.uint64(32)
_IP_BITS = np.uint64(10)  # of a series' hash: what an IP did lies together. More would leave too few for the rest
_EDGES = np.array([edge // timedelta(milliseconds=1) for edge in LAG_EDGES])


@dataclass(frozen=True, slots=True)
class Grain:
    """One of the three. ``keys``: its times, the first of which is what it is kept by.

    ``monthly``: its partitions are months, else days. ``by_series``: its rows lie by series and then by time, for those
    who ask for one IP over days; else by time first, for those who ask for all of some minutes.
    """

    name: str
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    monthly: bool = False
    by_series: bool = False

    @property
    def series(self) -> str:
        """The table of what its series are."""
        return f"{self.name}_series"


GRAINS: Mapping[str, Grain] = MappingProxyType(
    {
        grain.name: grain
        for grain in (
            # The minute of sent_at is part of a leaf, so that a pause can be renewed by later messages alone.
            Grain("leaf", LABELS, ("at", "sent_at")),
            Grain("minute", MINUTE_LABELS, ("at",), monthly=True, by_series=True),
            Grain("hour", HOUR_LABELS, ("sent_at", "lag"), monthly=True),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Sums:
    """What a block of rows adds to a grain: ``counts`` are rows of its table.

    For each of them: its ``series``, the ``day`` since 1970 under which that is kept (of a month: its first), and a
    ``row`` of the block that bears it.
    """

    grain: Grain
    counts: pa.Table
    series: Hashes
    day: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]

    def named(self, rows: pa.Table, which: npt.NDArray[np.int64]) -> pa.Table:
        """What those series are, as rows of the grain's second table; ``rows`` is the block."""
        found = rows.select(list(self.grain.labels)).take(pa.array(self.row[which]))
        found = found.add_column(0, "series", pa.array(self.series[which]))
        return found.add_column(0, "day", pa.array(self.day[which].astype(np.uint16)))


def sums(rows: pa.Table) -> Iterator[Sums]:
    """The three grains of a block of rows as ``rows.ROWS``, one chunk a column; the same rows give the same sums."""
    rows = _verified(rows)
    if not len(rows):
        return
    at, sent_at, seen_at = (rows[name].cast(pa.int64()).to_numpy() for name in ("at", "sent_at", "seen_at"))
    counted = _counted(rows)
    leaf, minute, hour = _series(rows, (LABELS, MINUTE_LABELS, HOUR_LABELS))
    at_minute, sent_minute = _floor(at, _MINUTE), _floor(sent_at, _MINUTE)
    lag = np.searchsorted(_EDGES, seen_at - sent_at, side="right").astype(np.uint8)
    yield _summed(GRAINS["leaf"], {"at": at_minute, "sent_at": sent_minute}, leaf, counted)
    yield _summed(GRAINS["minute"], {"at": at_minute}, minute, counted)
    yield _summed(GRAINS["hour"], {"sent_at": _floor(sent_at, _HOUR), "lag": lag}, hour, counted)


def _verified(rows: pa.Table) -> pa.Table:
    coded = rows["kind"].chunk(0)
    strange = [place for place, name in enumerate(coded.dictionary.to_pylist()) if name in UNVERIFIED]
    return rows.filter(pa.array(~np.isin(coded.indices.to_numpy(), strange))) if strange else rows


def _counted(rows: pa.Table) -> Mapping[str, npt.NDArray[np.uint64]]:
    """Each row's share of each counter."""
    coded = rows["kind"].chunk(0)
    names = coded.dictionary.to_pylist()
    kinds = coded.indices.to_numpy()
    count = rows["count"].to_numpy().astype(np.uint64)
    zero = np.uint64(0)
    found = {
        kind.value: np.where(kinds == names.index(kind.value), count, zero) if kind.value in names else count * zero
        for kind in COUNTED
    }
    first = rows["attempt"].to_numpy() == 1
    tried = np.isin(kinds, [place for place, name in enumerate(names) if name in FIRST_OUTCOMES])
    found["first"] = np.where(first & tried, count, zero)
    found["first_deferred"] = np.where(first, found[Kind.DEFERRED], zero)
    return found


def _summed(
    grain: Grain, times: Mapping[str, npt.NDArray[Any]], series: Hashes, counted: Mapping[str, npt.NDArray[np.uint64]]
) -> Sums:
    mixed = series.copy()
    for time in times.values():
        mixed ^= time.astype(np.uint64)
        mixed *= _PRIME
        mixed ^= mixed >> _SHIFT
    order = np.argsort(mixed)
    keys = {name: values[order] for name, values in (*times.items(), ("series", series))}
    # Rows of one key stand side by side. Were two keys ever to mix alike, one would come twice; the table sums it.
    differs = np.ones(len(order), np.bool_)
    differs[1:] = np.logical_or.reduce([values[1:] != values[:-1] for values in keys.values()])
    starts = np.flatnonzero(differs)
    counts = {name: values[starts] for name, values in keys.items()}
    if len(order):  # reduceat knows no sum of nothing
        counted = {name: np.add.reduceat(values[order], starts) for name, values in counted.items()}
    counts |= counted
    days = counts[grain.keys[0]].astype(np.int64) // _DAY
    if grain.monthly:
        days = days.astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return Sums(grain, pa.table(counts), counts["series"], days, order[starts])


def _floor(millis: npt.NDArray[np.int64], step: int) -> npt.NDArray[np.uint32]:
    return (millis // (1000 * step) * step).astype(np.uint32)


def _series(rows: pa.Table, wanted: Sequence[tuple[str, ...]]) -> list[Hashes]:
    """The hash of each row's labels, for each of the ``wanted`` beginnings of ``LABELS``."""
    found: dict[int, Hashes] = {}
    hashes = np.zeros(len(rows), np.uint64)
    for place, label in enumerate(LABELS, start=1):
        coded = rows[label].chunk(0)
        of_names = np.array([_hash(name) for name in coded.dictionary.to_pylist()], np.uint64)
        if label == "ip":
            near = (of_names << (np.uint64(64) - _IP_BITS))[coded.indices.to_numpy()]
        hashes ^= of_names[coded.indices.to_numpy()]
        hashes *= _PRIME
        hashes ^= hashes >> _SHIFT
        if any(len(labels) == place for labels in wanted):
            found[place] = hashes >> _IP_BITS | near
    return [found[len(labels)] for labels in wanted]


@lru_cache(1 << 16)
def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
