"""A bound on the names that sellers choose: at most so many a day and tenant, the rest are ``other``."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from monitor.facts.rows import NAME
from monitor.model import OWNED

OTHER = "other"
_TENANTS = 20_000  # tenants, days and labels that are watched at a time; those longest unseen start anew


class NameLimit:
    """What was named so far, by tenant and day; safe to use from many threads.

    ``folded`` counts the rows whose name became ``other``.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._seen: OrderedDict[tuple[str, int, str], set[str]] = OrderedDict()
        self._lock = threading.Lock()
        self.folded = 0

    def apply(self, table: pa.Table, days: npt.NDArray[np.int64]) -> pa.Table:
        """``table`` with the names that are too many replaced; ``days`` number the day of each row."""
        with self._lock:
            for label in OWNED:
                table = self._fold(table, label, days)
        return table

    def _fold(self, table: pa.Table, label: str, days: npt.NDArray[np.int64]) -> pa.Table:
        names, name_of = _coded(table[label])
        if not any(names):
            return table
        tenants, tenant_of = _coded(table["tenant"])
        some_days, day_of = np.unique(days, return_inverse=True)
        shape = (len(tenants), len(some_days), len(names))
        triples, row_of = np.unique(np.ravel_multi_index((tenant_of, day_of, name_of), shape), return_inverse=True)
        too_many = np.array(
            [
                bool(names[name]) and not self._admits(tenants[tenant], int(some_days[day]), label, names[name])
                for tenant, day, name in zip(*np.unravel_index(triples, shape), strict=True)
            ],
            np.bool_,
        )
        if not too_many.any():
            return table
        folded = too_many[row_of]
        self.folded += int(folded.sum())
        kept = pa.array(np.where(folded, OTHER, np.array(names, object)[name_of]), pa.string())
        return table.set_column(table.schema.get_field_index(label), label, kept.dictionary_encode().cast(NAME))

    def _admits(self, tenant: str, day: int, label: str, name: str) -> bool:
        key = (tenant, day, label)
        seen = self._seen.setdefault(key, set())
        self._seen.move_to_end(key)
        while len(self._seen) > _TENANTS:
            self._seen.popitem(last=False)
        if name not in seen and len(seen) < self._most:
            seen.add(name)
        return name in seen


def _coded(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int64]]:
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.unify_dictionaries().chunk(0) if whole.num_chunks else pa.array([], NAME)
    return whole.dictionary.to_pylist(), whole.indices.to_numpy(zero_copy_only=False).astype(np.int64)
