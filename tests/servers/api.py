"""A canned API on 127.0.0.1 with the page's files beside it: ``python -m tests.servers.api --scene fire`` to look at.

    with CannedApi("fire") as api:
        browser.goto(api.url)
        api.failing["*"] = 503          # from now on nothing is answered; a path in place of * is that one alone

Every answer has the content security policy that the page is made for.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.servers.scenes import SCENES, Json

CSP = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'"
PAGE = Path(str(files("dashboards").joinpath("page"))).resolve()


class CannedApi:
    """``asked`` are the paths that were requested so far, with their questions."""

    def __init__(self, scene: str = "fire", port: int = 0) -> None:
        self.scene = SCENES[scene](datetime.now(UTC))
        self.failing: dict[str, int] = {}
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Until somebody interrupts."""
        self._thread.join()

    def answer(self, target: str) -> tuple[int, str, bytes]:
        """Status, kind and body."""
        self.asked.append(target)
        url = urlsplit(target)
        if not url.path.startswith("/v1/"):
            return _file("index.html" if url.path == "/" else url.path.removeprefix("/static/"))
        status = self.failing.get(url.path) or self.failing.get("*")
        told = None if status else self._told(url.path, parse_qs(url.query, keep_blank_values=True))
        if told is None:
            return status or 404, "application/json", b'{"detail": "canned"}'
        return 200, "application/json", json.dumps(told).encode()

    def _told(self, path: str, query: Mapping[str, Sequence[str]]) -> Json | None:
        now, scene = datetime.now(UTC), self.scene
        if path == "/v1/incidents":
            every = query["state"] == ["all"]
            return {"incidents": [one for one in scene.incidents(now) if every or one["state"] == "open"]}
        if path == "/v1/series":
            return scene.series(now, [name for name in query["by"][0].split(",") if name], query["rate"][0])
        answers: dict[str, Callable[[], Json]] = {
            "/v1/me": lambda: {"name": "anonymous", "way": "anonymous", "scopes": ["read"], "csrf": None},
            "/v1/status": lambda: scene.status(now),
            "/v1/volume": lambda: scene.volume(now),
            "/v1/leases": lambda: {"generation": 41, "leases": scene.leases(now)},
            "/v1/actions": lambda: {"actions": scene.actions(now)},
            "/v1/replies/classes": lambda: {"classes": scene.classes()},
            "/v1/replies/unknown": scene.unknown,
        }
        return answers[path]() if path in answers else None


def _file(name: str) -> tuple[int, str, bytes]:
    path = (PAGE / name).resolve()
    if not path.is_file() or not path.is_relative_to(PAGE):
        return 404, "text/plain", b"no such file"
    return 200, mimetypes.guess_type(path.name)[0] or "application/octet-stream", path.read_bytes()


def _handler(api: CannedApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, kind, body = api.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", CSP)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-cache")
            with suppress(ConnectionError):  # the browser went on to something else
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=SCENES, default="fire")
    parser.add_argument("--port", type=int, default=8099)
    chosen = parser.parse_args()
    with CannedApi(chosen.scene, chosen.port) as canned:
        print(canned.url)  # noqa: T201 - for the person who started it
        canned.wait()
