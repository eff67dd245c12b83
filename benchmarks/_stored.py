"""A store that was filled in bulk: the same tables, rows and parts that the road would leave, in a tenth of the time.

What is drawn is what ``_events`` writes as lines, spread over some days. It goes in by the blocks of the applier, only
larger ones, without being written down, read or looked for first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks import _events
from monitor.facts import schema
from monitor.facts.blocks import Blocks
from monitor.facts.store import Facts
from monitor.model import LABELS

DAYS = timedelta(days=7)
SEED = 99
_BLOCK = 1_000_000  # an insert takes fewer than 2^20 rows as one
NAME = pa.dictionary(pa.int32(), pa.string())


def fill(
    facts: Facts,
    events: int,
    until: datetime,
    span: timedelta = DAYS,
    *,
    told: str,
    beside: Callable[[int, pa.Table], object] = lambda *_: None,
) -> None:
    """Store so many events, evenly over the ``span`` before ``until``; says how far it is in the name of ``told``.

    Partitions are merged as they would be by the next day. ``beside`` is given each block, too.
    """
    schema.migrate(facts)
    began, into = time.monotonic(), Blocks(facts)
    for block, rows in enumerate(blocks(events, until, span), start=1):
        into.put(rows, f"bulk:{block}")
        beside(block, rows)
        if block % 5 == 0:
            _say(told, f"{block} of {-(-events // _BLOCK)} million events stored", began)
    for table in schema.TABLES:
        facts.command(f"OPTIMIZE TABLE {facts.nodes.local(table)} FINAL")
    if events > _BLOCK:
        _say(told, "merged", began)


def blocks(events: int, until: datetime, span: timedelta) -> Iterator[pa.Table]:
    """The rows of ``events``, oldest first."""
    end, step = until.timestamp() * 1000, span.total_seconds() * 1000 / events
    for first in range(0, events, _BLOCK):
        count = min(_BLOCK, events - first)
        luck = np.random.default_rng([SEED, first])
        at = (end - (events - first - np.arange(count) - luck.random(count)) * step).astype(np.int64)
        drawn = _events.draws(count, first, SEED, _events.kinds(luck, count), at)
        yield rows(drawn)


def rows(drawn: _events.Draws) -> pa.Table:
    """The columns of ``events``, as the road would bring them."""
    told = _events.replies()
    bears = _events.labels()
    by_campaign = {
        label: _texts([each.get(label, "") for each in bears], drawn.campaign)
        for label in LABELS
        if label not in ("ip", "provider", "variant")
    }
    names = {
        "ip": _texts([_events.ip(number) for number in range(_events.IPS)], drawn.ip),
        "provider": _texts(_events.PROVIDERS, drawn.provider),
        "variant": _texts(_events.VARIANTS, drawn.variant),
        **by_campaign,
    }
    return pa.table(
        {
            "at": _stamps(drawn.at),
            "sent_at": _stamps(drawn.sent_at),
            "seen_at": _stamps(drawn.at + 2000),
            "kind": _texts([kind.value for kind in _events.KINDS], drawn.kind),
            "attempt": pa.array(drawn.attempt.astype(np.uint16)),
            "count": pa.array(np.ones(len(drawn.at), np.uint32)),
            **{label: names[label] for label in LABELS},
            "recipient": _sixteen(drawn.recipient.astype(np.uint64)),
            "message": _sixteen(drawn.number),
            "key": pa.array(_mixed(drawn.number, 3)),
            "code": pa.array(np.array([code for code, _, _ in told], np.uint16)[drawn.reply]),
            "dsn": _texts([dsn for _, dsn, _ in told], drawn.reply),
            "relay": _texts([f"mx1.{provider}.example" for provider in _events.PROVIDERS], drawn.provider),
            "reply": _events.reply_texts(drawn),
            "batch": pa.array(np.zeros(len(drawn.at), np.uint64)),
            "source": _texts(["http"], np.zeros(len(drawn.at), np.int64)),
        }
    )


def _texts(values: list[str] | tuple[str, ...], places: _events.Ints) -> pa.Array:
    dictionary = pa.array(list(dict.fromkeys(values)), pa.string())
    place_of = {value: place for place, value in enumerate(dictionary.to_pylist())}
    indices = np.array([place_of[value] for value in values], np.int32)[places]
    return pa.DictionaryArray.from_arrays(pa.array(indices), dictionary).cast(NAME)


def _stamps(millis: _events.Ints) -> pa.Array:
    return pa.array(millis, pa.timestamp("ms", tz="UTC"))


def _mixed(numbers: npt.NDArray[np.uint64], salt: int) -> npt.NDArray[np.uint64]:
    mixed = numbers ^ np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    for _ in range(2):
        mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def _sixteen(numbers: npt.NDArray[np.uint64]) -> pa.Array:
    """Sixteen bytes that look random, the same for the same number."""
    pairs = np.stack([_mixed(numbers, 1), _mixed(numbers, 2)], axis=1)
    return pa.Array.from_buffers(pa.binary(16), len(numbers), [None, pa.py_buffer(np.ascontiguousarray(pairs))])


def _say(told: str, what: str, began: float) -> None:
    print(f"{told}: {what}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
