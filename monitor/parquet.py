"""Parquet files written piece by piece, so that a piece is all that is held; whole and on disk when they are closed."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq


class Sink:
    """A new file for its owner only, of tables of one shape; a row group a piece. After it: its ``bytes``, ``sha256``.

    What was written of it stays where an error ends it.

    Raises:
        FileExistsError: there is such a file.
    """

    def __init__(self, path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
        self._raw = _Counted(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._metadata = dict(metadata or {})
        self._writer: Any = None
        self.rows = 0

    @property
    def bytes(self) -> int:
        """How long it is."""
        return self._raw.size

    @property
    def sha256(self) -> str:
        """The checksum of what is in it."""
        return self._raw.hashed.hexdigest()

    def write(self, piece: pa.Table) -> None:
        """Add a piece."""
        if self._writer is None:
            schema = piece.schema.with_metadata(self._metadata) if self._metadata else piece.schema
            self._writer = pq.ParquetWriter(self._raw, schema, compression="zstd", compression_level=3)
        self._writer.write_table(piece)
        self.rows += len(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                if self._writer is not None:
                    self._writer.close()
                os.fsync(self._raw.fileno())
        finally:
            self._raw.close()


class _Counted(io.RawIOBase):
    """A file that sums what is written to it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.size, self.hashed = 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def tell(self) -> int:
        return self.size

    def write(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        length = len(left)
        self.hashed.update(left)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self.size += length
        return length

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
