"""A provider of OAuth 2.0 tokens on 127.0.0.1, who also tells Dovecot which of them hold (RFC 6749, RFC 7662).

with Tokens("reports@shop.example", "a refresh token") as provider:
    provider.url                 # to be asked for access tokens
    provider.introspection       # for Dovecot
    provider.withdraw()          # no access token given so far holds any more
    provider.rotates = True      # each answer brings another refresh token
"""

from __future__ import annotations

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs


class Tokens:
    """What it knows of one person."""

    def __init__(self, user: str, refresh: str) -> None:
        self.user, self.refresh = user, refresh
        self.rotates = False
        self.life: float | str = 3600.0
        self.given: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.said: tuple[int, Any] | None = None  # in place of a proper answer
        self._valid: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/token"

    @property
    def introspection(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/introspect"

    def withdraw(self) -> None:
        """No access token holds any more."""
        self._valid.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, form: dict[str, str]) -> tuple[int, Any]:
        """The answer to a request for an access token."""
        self.asked.append(form)
        if self.said:
            return self.said
        if form.get("refresh_token") != self.refresh:
            return 400, {"error": "invalid_grant"}
        token = secrets.token_urlsafe(16)
        self.given.append(token)
        self._valid.add(token)
        told = {"access_token": token, "token_type": "Bearer", "expires_in": self.life}
        if self.rotates:
            self.refresh = secrets.token_urlsafe(16)
            told["refresh_token"] = self.refresh
        return 200, told

    def holds(self, form: dict[str, str]) -> tuple[int, Any]:
        """The answer to a question after an access token."""
        if form.get("token") in self._valid:
            return 200, {"active": True, "username": self.user}
        return 200, {"active": False}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
                status, told = (provider.token if self.path == "/token" else provider.holds)(form)
                content = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Tests look at ``asked``."""

        return Handler
