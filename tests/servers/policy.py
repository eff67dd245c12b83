"""A policy service for Postfix that answers as it is told to, without a gate."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Decide = Callable[[Mapping[str, str]], str]  # the attributes of a request → the action


@contextmanager
def policy(decide: Decide) -> Iterator[str]:
    """A service that runs, as a restriction such as ``check_policy_service inet:127.0.0.1:10040``."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while request := dict(self._attributes()):
                self.wfile.write(f"action={decide(request)}\n\n".encode())

        def _attributes(self) -> Iterator[tuple[str, str]]:
            while line := self.rfile.readline().decode().rstrip("\n"):
                name, _, value = line.partition("=")
                yield name, value

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False  # Postfix keeps its connections open
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"check_policy_service inet:127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
