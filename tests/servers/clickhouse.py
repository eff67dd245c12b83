"""ClickHouse's HTTP interface on 127.0.0.1, as far as the product uses it, over the embedded engine of this process.

``python clickhouse.py FOLDER PORT [PASSWORD]``. It is the engine of a server behind the protocol of one, on one node:
sessions, users and clusters it has none. With a password everyone must name it, whoever they are.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import clickhouse_connect
import zstandard
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

FORMAT = re.compile(r"\s+FORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
ANSWERS = re.compile(r"\s*(SELECT|SHOW|EXPLAIN|DESCRIBE|EXISTS|WITH)\b", re.IGNORECASE)
ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
# Of the transport, and no settings of the engine.
ASIDE = {"database", "query", "query_id", "session_id", "compress", "client_protocol_version", "default_format"}


def bound(value: str) -> Any:
    """A parameter as it was before the client wrote it for HTTP; the other client writes it anew."""
    if value.startswith("["):
        return ast.literal_eval(value)
    return re.sub(r"\\(.)", lambda found: ESCAPED.get(found[1], found[1]), value, flags=re.DOTALL)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    password: str = ""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        said = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = self._body()
        if parts.path == "/ping":
            self._answer(200, b"Ok.\n")
        elif not self._may_enter():
            self._answer(403, b"Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)", code=516)
        else:
            try:
                self._answer(200, self._run(said, body))
            except Error as error:
                self._answer(500, str(error).encode(), code=error.code or 1000)

    def _run(self, said: Mapping[str, str], body: bytes) -> bytes:
        values = {name[6:]: bound(value) for name, value in said.items() if name.startswith("param_")}
        settings = {name: value for name, value in said.items() if name not in ASIDE and not name.startswith("param_")}
        with self._client(settings, said.get("database") or "default") as client:
            if said.get("query", "").lstrip().upper().startswith("INSERT") and body:
                return self._insert(client, said["query"], body)
            sql = said.get("query", "") + body.decode()
            form = FORMAT.search(sql)
            if ANSWERS.match(sql):
                return client.raw_query(FORMAT.sub("", sql), parameters=values, fmt=form[1] if form else "TabSeparated")
            client.command(sql, parameters=values)
            return b""

    @staticmethod
    def _insert(client: Client, head: str, body: bytes) -> bytes:
        """The statement says table, columns and format, the body brings the rows."""
        found = re.match(
            r"\s*INSERT INTO\s+(\S+)\s*(?:\(([^)]*)\))?\s*FORMAT\s+(\w+)\s*(.*)$", head, re.IGNORECASE | re.DOTALL
        )
        assert found, head
        columns = [column.strip(" `") for column in (found[2] or "").split(",") if column.strip()]
        client.raw_insert(found[1], columns or None, found[4].encode() + body, fmt=found[3])
        return b""

    @contextlib.contextmanager
    def _client(self, settings: dict[str, Any], database: str) -> Iterator[Client]:
        """A handle of its own for each request, since one that failed may not be asked again."""
        client = clickhouse_connect.get_client(
            interface="chdb", path=str(self.folder), database=database, settings=settings
        )
        try:
            yield client
        finally:
            client.close()

    def _may_enter(self) -> bool:
        told = self.headers.get("Authorization", "")
        return not self.password or told == "Basic " + b64encode(f"default:{self.password}".encode()).decode()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self.headers.get("Content-Encoding"):
            case "zstd":
                return zstandard.ZstdDecompressor().decompressobj().decompress(body)
            case None:
                return body
            case other:
                raise ValueError(f"no {other} here")

    def _chunk(self) -> bytes:
        length = int(self.rfile.readline(), 16)
        content = self.rfile.read(length)
        self.rfile.readline()
        return content

    def _answer(self, status: int, body: bytes, *, code: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main(folder: Path, port: int, password: str = "") -> None:
    keeper = clickhouse_connect.get_client(interface="chdb", path=str(folder))  # the engine stays up between requests
    handler = type("Here", (Handler,), {"folder": folder, "password": password})
    with contextlib.closing(keeper), ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
