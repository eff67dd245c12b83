"""A set of 64-bit keys in eight bytes each, exact: sorted runs, the larger ones in files without a name.

Keys are hashes, so they lie evenly; that is why a run can be read and merged in slices of one size.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from monitor.segments import write_all

Keys = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

_SLICE = 1 << 20  # keys that are in memory at a time, of a run in a file
_FENCE = 1 << 12  # keys between two whose value is kept at hand
_YOUNG = 1 << 19  # keys that are kept in memory rather than in a file


class Runs:
    """The set. Runs shrink by halves at least, so that there are few. Without a ``folder`` all stays in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._runs: list[_Run] = []
        self.size = 0

    def add(self, keys: Keys) -> None:
        """Take keys in, in any order; none of them is in the set.

        Raises:
            OSError: there is no room for a file; the keys are in the set all the same.
        """
        if not len(keys):
            return
        self._runs.append(_InMemory(np.sort(keys)))
        self.size += len(keys)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            old, young = self._runs[-2:]
            self._runs[-2:] = [self._merged(old, young)]  # where there is no room for it, both stay
            old.close()
            young.close()

    def has(self, keys: Keys) -> Flags:
        """Which of the sorted ``keys`` are in the set."""
        known = np.zeros(len(keys), np.bool_)
        for run in self._runs:
            for piece in run.near(keys):
                mine = slice(*np.searchsorted(keys, (piece[0], piece[-1]), side="left"))
                mine = slice(mine.start, int(np.searchsorted(keys, piece[-1], side="right")))
                known[mine] |= piece[np.searchsorted(piece, keys[mine])] == keys[mine]
        return known

    def close(self) -> None:
        """Forget all, and let go of the files."""
        for run in self._runs:
            run.close()
        self._runs = []
        self.size = 0

    def _merged(self, one: _Run, other: _Run) -> _Run:
        pieces = _merge(one, other)
        if self._folder is None or len(one) + len(other) <= _YOUNG:
            return _InMemory(np.concatenate(list(pieces)))
        return _InFile(self._folder, pieces)


class _Run:
    """Sorted keys, at least one."""

    def __len__(self) -> int:
        raise NotImplementedError

    def between(self, first: int, last: int) -> Keys:
        """The keys from ``first`` to ``last``, both among them."""
        raise NotImplementedError

    def near(self, keys: Keys) -> Iterator[Keys]:
        """Pieces of them among which are all those of the sorted ``keys`` that the run has."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of them."""


class _InMemory(_Run):
    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def between(self, first: int, last: int) -> Keys:
        start = int(np.searchsorted(self._keys, np.uint64(first), side="left"))
        stop = int(np.searchsorted(self._keys, np.uint64(last), side="right"))
        return self._keys[start:stop]

    def near(self, keys: Keys) -> Iterator[Keys]:
        if len(keys):
            yield self._keys


class _InFile(_Run):
    def __init__(self, folder: Path, pieces: Iterator[Keys]) -> None:
        self._file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder, buffering=0))  # noqa: SIM115  # ours until close
        self._size = 0
        fences = []
        try:
            for piece in pieces:
                fences.append(piece[(-self._size) % _FENCE :: _FENCE].copy())  # a view would keep the piece
                write_all(self._file.fileno(), piece.tobytes())
                self._size += len(piece)
        except BaseException:
            self._file.close()
            raise
        self._fences = np.concatenate(fences)

    def __len__(self) -> int:
        return self._size

    def between(self, first: int, last: int) -> Keys:
        fence = max(0, int(np.searchsorted(self._fences, np.uint64(first), side="left")) - 1)
        beyond = int(np.searchsorted(self._fences, np.uint64(last), side="right"))
        keys = self._read(fence * _FENCE, min(self._size, beyond * _FENCE))
        return _InMemory(keys).between(first, last)

    def near(self, keys: Keys) -> Iterator[Keys]:
        blocks = np.unique(np.searchsorted(self._fences, keys, side="right"))
        step, starts = _FENCE, _FENCE * (blocks[blocks > 0] - 1)
        if len(starts) > len(self._fences) // 4:  # to read all is quicker than to read so many by themselves
            step, starts = _SLICE, np.arange(0, self._size, _SLICE)
        for start in map(int, starts):
            yield self._read(start, min(self._size, start + step))

    def close(self) -> None:
        self._file.close()

    def _read(self, start: int, stop: int) -> Keys:
        keys = np.empty(stop - start, np.uint64)
        left, at = keys.data.cast("B"), start * keys.itemsize
        while left:
            read = os.preadv(self._file.fileno(), [left], at)
            if not read:
                raise OSError(errno.EIO, "a file of keys is shorter than was written")
            left, at = left[read:], at + read
        return keys


def _merge(one: _Run, other: _Run) -> Iterator[Keys]:
    """The keys of both in their order, by ranges that hold about as many each."""
    ranges = max(1, (len(one) + len(other)) // _SLICE)
    edges = [(1 << 64) * place // ranges for place in range(ranges + 1)]
    for first, beyond in pairwise(edges):
        both = np.concatenate((one.between(first, beyond - 1), other.between(first, beyond - 1)))
        both.sort(kind="stable")  # merges: each half is sorted
        if len(both):
            yield both
