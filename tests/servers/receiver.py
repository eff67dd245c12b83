"""A CRM that takes webhooks: it verifies each by the package of Standard Webhooks, and drops what it has already.

with Receiver(secret) as crm:
    crm.url, crm.taken, crm.refused
    crm.says = [500, 200]     # statuses, one after the other, the last one for ever
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


class Receiver:
    """``taken``: messages that were verified and new, in order; ``asked``: id and body of every one that came."""

    def __init__(self, secret: str) -> None:
        self.taken: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.asked: list[tuple[str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.says: list[int] = [204]
        self.more: dict[str, str] = {}
        self._ids: set[str] = set()
        verifier, crm = Webhook(secret), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                crm.headers.append(dict(self.headers))
                name = self.headers["webhook-id"]
                crm.asked.append((name, body))
                status = crm.says.pop(0) if len(crm.says) > 1 else crm.says[0]
                if 200 <= status < 300:
                    try:
                        told = verifier.verify(body, dict(self.headers))
                    except WebhookVerificationError as error:
                        crm.refused.append(str(error))
                        status = 401
                    else:
                        if name not in crm._ids:
                            crm.taken.append(told)
                        crm._ids.add(name)
                self.send_response(status)
                for header, value in crm.more.items():
                    self.send_header(header, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hooks?for=mailvane"

    def seqs(self) -> list[int]:
        """The numbers of all changes that were taken."""
        return [change["seq"] for message in self.taken for change in message["data"]["changes"]]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
