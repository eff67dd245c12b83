"""Our own side of the road, for those who ask it: `/v1/check` and `/v1/events` with answers that a test chooses."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass
class OwnSide:
    """A server on 127.0.0.1 while in its `with` block. Fields may be changed at any time.

    ``held`` are scopes as dictionaries of labels, ``share`` what passes of them. ``check`` and ``ingest`` are the
    status of the answers (0: no answer until the block ends). ``events`` are the accepted lines, ``posts`` the
    number of lines in each request whatever came of it.
    """

    held: list[dict[str, str]] = field(default_factory=list)
    share: float = 0.0
    ttl: float = 0.0
    check: int = 200
    ingest: int = 202
    retry_after: str = "4"
    reject_first: bool = False
    token: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    posts: list[int] = field(default_factory=list)
    questions: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"side": self}))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer_check(self, labels: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.questions.append(labels)
        if not self.check:
            self._over.wait(30)
        held = any(scope.items() <= labels.items() for scope in self.held)
        share = self.share if held else 1.0
        return self.check or 503, {"answer": "held" if held else "send", "share": share, "ttl": self.ttl, "lease": "x"}

    def answer_events(self, body: bytes) -> tuple[int, dict[str, Any]]:
        lines = [json.loads(line) for line in body.splitlines()]
        self.posts.append(len(lines))
        if self.ingest != 202:
            return self.ingest, {"detail": "not now"}
        rejected = [{"line": 1, "field": "at", "why": "because"}] if self.reject_first else []
        self.events.extend(lines[len(rejected) :])
        return 202, {"accepted": len(lines) - len(rejected), "rejected": rejected}


class _Handler(BaseHTTPRequestHandler):
    side: OwnSide
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer on a kept connection waits for a delayed ACK
    timeout = 30

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/healthz":
            self._answer(200, {})
        else:
            self._answer(*self.side.answer_check(dict(parse_qsl(url.query))))

    def do_POST(self) -> None:
        self._answer(*self.side.answer_events(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        if self.side.token and self.headers["Authorization"] != f"Bearer {self.side.token}":
            status = 401
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", self.side.retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""
