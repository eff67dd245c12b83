"""The facts' engine: ClickHouse inside the process. The only module that knows its client, and the traps of both.

Above all: a handle whose query failed may put the rows of that query before its next answer (seen with chdb 26.1 to
26.9, November 2026). So a handle is closed after *any* exception, and another takes its place.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import numpy.typing as npt
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, Error

from monitor.facts.errors import DirectoryInUse, FactsBusy, FactsError

# Engine-wide, and read from the first handle of the process only. The memory cap is above what all readers together
# may take, or inserts are refused while people look at charts.
_SERVER = {
    "max_server_memory_usage": 400_000_000,
    "mark_cache_size": 33_554_432,
    "primary_index_cache_size": 33_554_432,
    "index_mark_cache_size": 8_388_608,
    "query_condition_cache_size": 8_388_608,
    "compiled_expression_cache_size": 8_388_608,
    "max_thread_pool_size": 128,
    "max_thread_pool_free_size": 8,
    "max_parts_cleaning_thread_pool_size": 2,  # the default of 128 threads takes some 400 descriptors
    "max_active_parts_loading_thread_pool_size": 2,
    "max_outdated_parts_loading_thread_pool_size": 1,
    "async_insert": 0,  # tokens need it off
    "max_insert_threads": 1,
    "max_threads": 2,
    "local_filesystem_read_method": "pread",
}
_READ = {
    "max_memory_usage": 80_000_000,
    "max_bytes_before_external_group_by": 30_000_000,
    "max_bytes_ratio_before_external_group_by": 0,
    "max_bytes_before_external_sort": 30_000_000,
    "max_execution_time": 20,
    "max_result_rows": 500_000,  # a result lies outside of the memory limits
    "max_result_bytes": 100_000_000,
    "result_overflow_mode": "throw",
    "readonly": 2,
}
_UNBOUND = {"max_result_rows": 0, "max_result_bytes": 0, "max_execution_time": 0}  # a stream is never held whole
_INSERT = {"async_insert": 0, "deduplicate_blocks_in_dependent_materialized_views": 1}
_OUT_OF_MEMORY, _DISK_FULL, _TOO_MANY_PARTS = 241, 243, 252
# Nothing is wrong with the rows: the same rows go in when memory, disk, merges or people allow.
_PASSING = frozenset({
    _OUT_OF_MEMORY, _DISK_FULL, _TOO_MANY_PARTS,
    74, 75, 76, 77, 88, 95, 96, 99,  # reading, writing, opening, closing, syncing files
    159, 173, 202, 236, 242, 394, 425, 439, 1001,  # time, allocation, queries at once, abort, read-only, kill, threads
})  # fmt: skip


class Facts:
    """The open store; safe to use from many threads. One process owns the directory."""

    def __init__(self, path: Path, *, readers: int = 3, **server: Any) -> None:
        self._options = {**_SERVER, **server}
        self._path = path
        self._closing = threading.Event()
        self._writing = threading.Lock()
        self._writer: Client | None = self._open(_INSERT)
        self._readers: queue.LifoQueue[Client | None] = queue.LifoQueue()
        self._count = readers
        for _ in range(readers):
            self._readers.put(None)  # opened when first needed

    @classmethod
    def open(cls, dsn: str, *, readers: int = 3, **server: Any) -> Facts:
        """The store that ``dsn`` names, ``chdb:///path``; ``server`` overrides settings of the engine.

        Raises:
            ValueError: another kind of DSN.
            DirectoryInUse: another process has the directory open.
        """
        scheme, _, path = dsn.partition("://")
        if scheme != "chdb" or not path.startswith("/") or "?" in path:
            raise ValueError("the facts' DSN is chdb:///path/of/a/directory")
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(folder, readers=readers, **server)

    def _open(self, settings: dict[str, Any] | None = None) -> Client:
        try:
            return clickhouse_connect.get_client(
                interface="chdb", path=str(self._path), settings=settings, chdb_options=self._options
            )
        except DatabaseError as error:
            if "initializing EmbeddedServer" in str(error):
                raise DirectoryInUse(f"the facts are in use by another process: {self._path}") from error
            raise

    @contextlib.contextmanager
    def _reader(self, wait: float = 10) -> Iterator[Client]:
        if self._closing.is_set():
            raise RuntimeError("the facts are closed")
        try:
            client = self._readers.get(timeout=wait)
        except queue.Empty:
            raise FactsBusy(f"all {self._count} readers of the facts are taken") from None
        kept: Client | None = None
        try:
            client = client or self._open(_READ)
            yield client
            kept = client
        except Error as error:
            raise _failure(error) from error
        finally:
            if kept is None and client is not None:
                _discard(client)
            self._readers.put(kept)

    def query(self, sql: str, **parameters: Any) -> pa.Table:
        """The answer, whole; parameters stand in ``sql`` as ``{name:Type}``.

        Raises:
            FactsError: the engine refused, or the answer is too large.
            FactsBusy: no reader came free in time.
        """
        with self._reader() as client:
            return client.query_arrow(sql, parameters=parameters or None)

    def stream(self, sql: str, **parameters: Any) -> Generator[npt.NDArray[Any]]:
        """The one column of an answer of any length, in pieces; holds a reader until it is read to its end or closed.

        Raises:
            FactsError: the engine refused, at any piece.
            FactsBusy: no reader came free in time.
        """
        # Not as Arrow: the client would hold that answer whole before its first piece.
        with (
            self._reader() as client,
            client.query_np_stream(sql, parameters=parameters or None, settings=_UNBOUND) as pieces,
        ):
            for piece in pieces:
                yield piece.reshape(-1)

    def append(self, table: str, rows: pa.Table, token: str, *, tries: int = 5) -> None:
        """Insert one block; the same ``token`` again with the same rows changes nothing, and heals half an insert.

        Raises:
            FactsError: refused, and still so after ``tries`` if it was for want of memory, disk or merges.
        """
        named = {"insert_deduplication_token": token}
        for attempt in range(1, tries + 1):
            try:
                self._write(lambda client: client.insert_arrow(table, rows, settings=named))
            except FactsError as error:
                if error.code not in (_OUT_OF_MEMORY, _DISK_FULL, _TOO_MANY_PARTS) or attempt == tries:
                    raise
                self._closing.wait(min(0.2 * 2**attempt, 5))
            else:
                return

    def command(self, sql: str, **parameters: Any) -> None:
        """Run a statement that answers nothing: definitions, partitions.

        Raises:
            FactsError: the engine refused.
        """
        self._write(lambda client: client.command(sql, parameters=parameters or None))

    def _write(self, act: Callable[[Client], object]) -> None:
        with self._writing:
            if self._closing.is_set():
                raise RuntimeError("the facts are closed")
            client, self._writer = self._writer or self._open(_INSERT), None
            try:
                act(client)
                self._writer = client
            except Error as error:
                raise _failure(error) from error
            finally:
                if self._writer is None:
                    _discard(client)

    def close(self, grace: float = 5) -> None:
        """Let queries end, for ``grace`` seconds; cancel those that run on. Before the interpreter exits."""
        if self._closing.is_set():
            return
        self._closing.set()
        ending = time.monotonic() + grace
        for _ in range(self._count):
            try:
                client = self._readers.get(timeout=max(0.01, ending - time.monotonic()))
            except queue.Empty:
                self._cancel()
                client = self._readers.get(timeout=20)
            if client:
                _discard(client)
        with self._writing:
            if self._writer:
                _discard(self._writer)
                self._writer = None

    def _cancel(self) -> None:
        """End all queries: closing a handle would wait for its own."""
        killer = self._open()
        try:
            killer.command("KILL QUERY WHERE query NOT LIKE '%KILL QUERY%' ASYNC")
        finally:
            _discard(killer)


def _discard(client: Client) -> None:
    with contextlib.suppress(Exception):  # it is thrown away because something about it is wrong
        client.close()


def _failure(error: Error) -> FactsError:
    code = error.code or 0
    return FactsError(str(error)[:2000], code=code, passing=not code or code in _PASSING)
