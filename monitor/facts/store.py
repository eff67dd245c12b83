"""The facts' engine, inside the process or on a server: the only module that knows its client, and the traps of both.

Above all: a handle whose query failed may put the rows of that query before its next answer (seen with chdb 26.1 to
26.9, November 2026). So a handle is closed after *any* exception, and another takes its place.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import clickhouse_connect
import numpy.typing as npt
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

from monitor.dsn import Embedded, Server, parse
from monitor.errors import UserError
from monitor.facts import limits, own
from monitor.facts.cluster import Nodes
from monitor.facts.directory import in_use, prepared, raise_descriptor_limit
from monitor.facts.errors import DirectoryInUse, FactsBusy, FactsError

_CANCELLED = 20  # seconds that a cancelled query may take to end
_OF_THE_MOMENT = frozenset({limits.OUT_OF_MEMORY, limits.DISK_FULL, limits.TOO_MANY_PARTS})
_URL = re.compile(r"( with url): \S+")  # parameters stand in it
# What it logs it raises too, and whoever catches that tells it once.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)


class Reader(Protocol):
    """Who answers questions: the whole store, or the part of it that is one tenant's."""

    def query(self, sql: str, **parameters: Any) -> pa.Table:
        """See ``Facts.query``."""
        ...

    def stream(self, sql: str, **parameters: Any) -> Generator[npt.NDArray[Any]]:
        """See ``Facts.stream``."""
        ...


class Facts:
    """The open store; safe to use from many threads. ``nodes`` is where it runs, for statements that define or drop.

    Embedded, one process owns the directory.
    """

    def __init__(self, place: Embedded | Server, *, password: str = "", readers: int = 3, **engine: Any) -> None:
        self.place = place
        self.nodes = Nodes(place.database, place.cluster) if isinstance(place, Server) else Nodes()
        self._password = password
        self._engine = {**limits.ENGINE, **engine}
        self._mark = f"mailvane-{secrets.token_hex(8)}"  # of our queries, among others' on a server
        self._closing = threading.Event()
        self._writing = threading.Lock()
        self._writer: Client | None = self._first()
        self._readers: queue.LifoQueue[Client | None] = queue.LifoQueue()
        self._count = readers
        for _ in range(readers):
            self._readers.put(None)  # opened when first needed

    @classmethod
    def open(cls, dsn: str, *, password: str = "", readers: int = 3, **engine: Any) -> Facts:
        """The store that ``dsn`` names (see ``monitor.dsn``); ``engine`` overrides settings of the embedded engine.

        Raises:
            ValueError: it is no such DSN.
            DirectoryInUse: another process has the directory open.
            UserError: the directory can't be written, or the server does not let us in.
            FactsError: the server does not answer.
        """
        place = parse(dsn)
        if isinstance(place, Embedded):
            raise_descriptor_limit()
            prepared(place.path)
        return cls(place, password=password, readers=readers, **engine)

    def query(self, sql: str, **parameters: Any) -> pa.Table:
        """The answer, whole; parameters stand in ``sql`` as ``{name:Type}``.

        Raises:
            FactsError: the engine refused, or the answer is too large.
            FactsBusy: no reader came free in time.
        """
        return self._query({}, sql, parameters)

    def _query(self, settings: Mapping[str, Any], sql: str, parameters: Mapping[str, Any]) -> pa.Table:
        with self._reader() as client:
            return client.query_arrow(sql, parameters=dict(parameters) or None, settings=dict(settings) or None)

    def stream(self, sql: str, **parameters: Any) -> Generator[npt.NDArray[Any]]:
        """The one column of an answer of any length, in pieces; holds a reader until it is read to its end or closed.

        Raises:
            FactsError: the engine refused, at any piece.
            FactsBusy: no reader came free in time.
        """
        return self._stream({}, sql, parameters)

    def _stream(
        self, settings: Mapping[str, Any], sql: str, parameters: Mapping[str, Any]
    ) -> Generator[npt.NDArray[Any]]:
        # Not as Arrow: the client would hold that answer whole before its first piece.
        unbound = {**limits.UNBOUND, **settings}
        with (
            self._reader() as client,
            client.query_np_stream(sql, parameters=dict(parameters) or None, settings=unbound) as pieces,
        ):
            for piece in pieces:
                yield piece.reshape(-1)

    def of(self, tenant: str) -> Own:
        """The mail of one tenant: whatever is asked there, no row of another's counts.

        Raises:
            ValueError: no tenant is named.
        """
        settings = own.settings(tenant, self.nodes)
        return Own(tenant, partial(self._query, settings), partial(self._stream, settings))

    def append(self, table: str, rows: pa.Table, token: str, *, tries: int = 5) -> None:
        """Insert one block; the same ``token`` again with the same rows changes nothing, and heals half an insert.

        Columns that ``rows`` lack take their default. After an error a part of the block may be in: whoever gives up
        then leaves grains that disagree. So a caller tries the same rows with the same token until this returns, or
        until the error is not ``passing``.

        Raises:
            FactsError: refused, and still so after ``tries`` if it was for want of memory, disk or merges.
        """
        named = {"insert_deduplication_token": token}
        for attempt in range(1, tries + 1):
            try:
                self._write(lambda client: client.insert_arrow(table, rows, settings=named))
            except FactsError as error:
                if error.code not in _OF_THE_MOMENT or attempt == tries:
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

    def close(self, grace: float = 5) -> None:
        """Let queries end, for ``grace`` seconds; cancel those that run on. Before the interpreter exits."""
        if self._closing.is_set():
            return
        self._closing.set()
        if not self._close(time.monotonic() + grace):
            with contextlib.suppress(FactsError):  # a server that does not answer
                self._cancel()
            self._close(time.monotonic() + _CANCELLED)

    def _close(self, ending: float) -> bool:
        """Close each handle as it comes free, until then; whether that was all of them."""
        while self._count:
            try:
                client = self._readers.get(timeout=max(0.01, ending - time.monotonic()))
            except queue.Empty:
                return False
            self._count -= 1
            if client:
                _discard(client)
        if not self._writing.acquire(timeout=max(0.01, ending - time.monotonic())):
            return False
        try:
            client, self._writer = self._writer, None
            if client:
                _discard(client)
        finally:
            self._writing.release()
        return True

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
            with _told():
                client = client or self._open(limits.READ)
                yield client
            kept = client
        finally:  # whatever ended it: an error, a stream that was left, an interrupt
            if kept is None and client is not None:
                _discard(client)
            self._readers.put(kept)

    def _write(self, act: Callable[[Client], object]) -> None:
        with self._writing:
            if self._closing.is_set():
                raise RuntimeError("the facts are closed")
            client, self._writer = self._writer, None
            try:
                with _told():
                    client = client or self._open(limits.INSERT)
                    act(client)
                self._writer = client
            finally:
                if self._writer is None and client is not None:
                    _discard(client)

    def _first(self) -> Client:
        """The first handle, in words for whoever starts the service."""
        try:
            with _told():
                return self._open(limits.INSERT)
        except FactsError as error:
            if isinstance(self.place, Embedded) and in_use(Path(self.place.path)):
                raise DirectoryInUse(f"the facts are in use by another process: {self.place.path}") from error
            if error.code in limits.REFUSED:
                raise UserError(f"{self.place} does not let us in: check user and facts_password_file") from error
            if not error.code and isinstance(self.place, Server):
                raise FactsError(f"{self.place} does not answer: {error}", code=0, passing=True) from error
            if error.code != limits.NO_SUCH_DATABASE:
                raise
        with _told():
            with contextlib.closing(self._open({}, database="default")) as founder:
                founder.command(self.nodes.create_database())
            return self._open(limits.INSERT)

    def _open(self, settings: dict[str, Any], database: str = "") -> Client:
        settings = {**settings, "log_comment": self._mark}
        if isinstance(self.place, Embedded):
            return clickhouse_connect.get_client(
                interface="chdb", path=self.place.path, settings=settings, chdb_options=self._engine
            )
        tls: Mapping[str, Any] = {"ca_cert": self.place.ca} if self.place.ca else {}
        return clickhouse_connect.get_client(
            interface="https" if self.place.secure else "http",
            host=self.place.host,
            port=self.place.port,
            username=self.place.user,
            password=self._password,
            database=database or self.place.database,
            settings={**settings, "cancel_http_readonly_queries_on_client_close": 1},
            **limits.NETWORK,
            **tls,
        )

    def _cancel(self) -> None:
        """End our queries: closing a handle would wait for its own."""
        with _told(), contextlib.closing(self._open({})) as killer:
            killer.command(self.nodes.cancel(), parameters={"mark": self._mark}, settings={"log_comment": "mailvane"})


@dataclass(frozen=True, slots=True)
class Own:
    """One tenant's part of the facts (``Facts.of``); it answers as the whole would that held nothing else."""

    tenant: str
    _query: Callable[[str, Mapping[str, Any]], pa.Table]
    _stream: Callable[[str, Mapping[str, Any]], Generator[npt.NDArray[Any]]]

    def query(self, sql: str, **parameters: Any) -> pa.Table:
        """See ``Facts.query``."""
        return self._query(sql, parameters)

    def stream(self, sql: str, **parameters: Any) -> Generator[npt.NDArray[Any]]:
        """See ``Facts.stream``."""
        return self._stream(sql, parameters)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """The client's errors as ours."""
    try:
        yield
    except Error as error:
        code = error.code or 0
        raise FactsError(
            _URL.sub(r"\1", str(error))[:2000], code=code, passing=not code or code in limits.PASSING
        ) from error


def _discard(client: Client) -> None:
    with contextlib.suppress(Exception):  # it is thrown away because something about it is wrong
        client.close()
