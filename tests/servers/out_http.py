"""A web site on any address that says for each path exactly the bytes that it is told to, and keeps what it was asked.

with Site() as site:
    site.says["/a"] = said(200, b"hello")
    site.says["/b"] = lambda line: line.sendall(b"HTTP/1.1 200 OK")     # and then it hangs up
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Self

Says = bytes | Callable[[socket.socket], None]


class Seen(NamedTuple):
    """A request as it came; ``at``: the address of ours that it came to; ``name``: whom TLS was begun with."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: str
    name: str | None


def said(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of an answer; Retry_After=… is the header Retry-After."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Site:
    """Where nothing is told of a path, it says 200 and the address that it was asked at."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.says: dict[str, Says | list[Says]] = {}  # of a list one after the other, the last one for ever
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self.tls = tls
        self.names: dict[int, str | None] = {}
        if tls:
            tls.sni_callback = lambda line, name, _: self.names.update({id(line): name})
        site = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError, ValueError):
                    site.serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        self._server = Server((host, port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def serve(self, line: socket.socket) -> None:
        if self.tls:
            line = self.tls.wrap_socket(line, server_side=True)
        with line:
            request = self._read(line)
            self.seen.append(request)
            says = self.says.get(request.target.split("?")[0], said(200, request.at.encode()))
            if isinstance(says, list):
                says = says.pop(0) if len(says) > 1 else says[0]
            if callable(says):
                says(line)
            else:
                line.sendall(says)

    def _read(self, line: socket.socket) -> Seen:
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += _some(line)
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += _some(line)
        method, target, _ = first.split(" ")
        return Seen(method, target, headers, body, line.getsockname()[0], self.names.get(id(line)))


def _some(line: socket.socket) -> bytes:
    if not (got := line.recv(65536)):
        raise ValueError("gone")
    return got
