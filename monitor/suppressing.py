"""From a batch's rows to what speaks against recipients: kept in the ledger with the batch, so each counts once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy import Connection

from monitor.core.suppressing import reason
from monitor.facts.prepare import SELLERS
from monitor.keyring import UNKNOWN
from monitor.ledger import evidence
from monitor.ledger.evidence import Raw
from monitor.model import Kind

_SPEAKING = frozenset({Kind.BOUNCED, Kind.EXPIRED, Kind.RETURNED, Kind.COMPLAINT, Kind.UNSUBSCRIBED})
_COLUMNS = (
    "kind",
    "at",
    "seen_at",
    "reply_class",
    "recipient",
    "message",
    "key",
    "provider",
    "tenant",
    "stream",
    "campaign",
    "source",
)
_MILLI = 1000  # microseconds


def take(conn: Connection, rows: pa.Table, counted: npt.NDArray[np.bool_]) -> None:
    """Keep what speaks against recipients, of those rows that were counted; ``rows`` in one chunk a column.

    The transaction is the one that says that the batch is in the facts. A batch without bounces and complaints costs
    a look at its kinds.
    """
    kinds = rows["kind"].chunk(0) if len(rows) else None
    if kinds is None:
        return
    speaking = [place for place, name in enumerate(kinds.dictionary.to_pylist()) if name in _SPEAKING]
    if not speaking:
        return
    mine = counted & np.isin(kinds.indices.to_numpy(), speaking)
    if mine.any():
        evidence.add(conn, list(_raw(rows.select(list(_COLUMNS)).filter(pa.array(mine)))))


def _raw(rows: pa.Table) -> Iterator[Raw]:
    texts = {name: rows[name].cast(pa.string()).to_pylist() for name in ("kind", "reply_class", "provider")}
    labels = {name: rows[name].cast(pa.string()).to_pylist() for name in ("tenant", "stream", "campaign", "source")}
    times = {name: (_MILLI * rows[name].cast(pa.int64()).to_numpy()).tolist() for name in ("at", "seen_at")}
    keys = rows["key"].to_numpy().view(np.int64).tolist()
    people, messages = rows["recipient"].to_pylist(), rows["message"].to_pylist()
    each: Any = zip(
        texts["kind"],
        texts["reply_class"],
        texts["provider"],
        labels["tenant"],
        labels["stream"],
        labels["campaign"],
        labels["source"],
        times["at"],
        times["seen_at"],
        keys,
        people,
        messages,
        strict=True,
    )
    for kind, cls, provider, tenant, stream, campaign, source, at, seen, key, person, message in each:
        why = reason(kind, cls)
        own = source == SELLERS
        if why and person != UNKNOWN and (tenant or not own):
            look_at = max(at, seen)
            yield (key, look_at, str(why), cls, at, person, message, provider, tenant, stream, campaign, own)
