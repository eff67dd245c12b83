"""A peer that greets and then says again whatever it is told: who prints what a peer says prints his own secret.

with Echo(b"220 hello") as echo:
    ...
    assert secret in echo.heard
"""

from __future__ import annotations

import socketserver
import threading
from contextlib import suppress
from typing import Self


class Echo:
    """``heard`` is all that came, of all connections."""

    def __init__(self, greeting: bytes = b"", before: bytes = b"", after: bytes = b"") -> None:
        self.heard = b""
        echo = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    self.request.sendall(greeting)
                    if told := self.request.recv(65536):
                        echo.heard += told
                        self.request.sendall(before + told.strip() + after)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
