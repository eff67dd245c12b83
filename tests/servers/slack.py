"""A Slack on 127.0.0.1 that keeps to the documented limits: ``chat.postMessage``, ``chat.update``, one webhook.

    with SlackServer() as slack:
        notifier = Slack(token=SecretStr(slack.token), channel=slack.channel, base_url=slack.base_url)
        slack.fail("ratelimit")          # the next request gets 429, the one after is served
        assert len(slack.messages) == 1

It counts characters in UTF-16 units, the stricter of the two readings of "characters".
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

TOKEN = "xoxb-0000-test"
CHANNEL = "C0DELIVER"
_HOOK = "/services/T0TEAM/B0HOOK/verysecret"
_BLOCKS = {"actions", "context", "divider", "header", "image", "rich_text", "section"}
# What an incoming webhook answers with which status; anything else is 400.
_HOOK_STATUS = {
    "action_prohibited": 403,
    "channel_is_archived": 410,
    "channel_not_found": 404,
    "invalid_token": 403,
    "no_service": 404,
    "no_team": 404,
    "rollup_error": 500,
}


class Call(NamedTuple):
    """One request as it came: the API method, or ``webhook``, and its JSON."""

    method: str
    body: dict[str, Any]


class Fault(NamedTuple):
    """``mode``: ratelimit, drop, slow, html, an HTTP status in digits, or else the error code that Slack gives."""

    mode: str
    retry_after: str


class SlackServer:
    """``messages`` are by (channel, ts) as they look now, so that their number tells whether one was changed in place.

    ``channels`` maps each name that may be posted to, ID or #name, to its ID.
    """

    def __init__(self) -> None:
        self.token = TOKEN
        self.channel = CHANNEL
        self.channels = {CHANNEL: CHANNEL, "#deliverability": CHANNEL}
        self.calls: list[Call] = []
        self.messages: dict[tuple[str, str], dict[str, Any]] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/api/"

    @property
    def webhook_url(self) -> str:
        return f"{self.origin}{_HOOK}"

    def fail(self, mode: str, times: int = 1, retry_after: str = "0") -> None:
        """The next requests fail; see ``Fault``."""
        with self._lock:
            self._faults += [Fault(mode, retry_after)] * times

    def clear(self) -> None:
        """Forgets the faults that were not met."""
        with self._lock:
            self._faults.clear()

    def delete(self, handle: str) -> None:
        """As when somebody deletes the message ``channel:ts``."""
        channel, _, ts = handle.partition(":")
        with self._lock:
            del self.messages[channel, ts]

    def fault(self) -> Fault | None:
        with self._lock:
            return self._faults.pop(0) if self._faults else None

    def serve(self, method: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of the Web API."""
        if error := _unwelcome(token) or malformed(body):
            return {"ok": False, "error": error}
        with self._lock:
            match method:
                case "chat.postMessage":
                    return self._post(body)
                case "chat.update":
                    return self._update(body)
                case _:
                    return {"ok": False, "error": "unknown_method"}

    def hook(self, path: str, body: dict[str, Any]) -> str:
        """What the webhook answers: ok, or an error code."""
        if path != _HOOK:
            return "no_service"
        if error := malformed(body):
            return error if error in ("no_text", "invalid_blocks") else "invalid_payload"
        with self._lock:
            self._keep(CHANNEL, self._next_ts(), body)
        return "ok"

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        channel = self.channels.get(body.get("channel", ""))
        if not channel:
            return {"ok": False, "error": "channel_not_found"}
        return self._keep(channel, self._next_ts(), body)

    def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        channel, ts = body.get("channel", ""), body.get("ts", "")
        # Unlike posting, changing takes IDs alone.
        if channel not in self.channels.values():
            return {"ok": False, "error": "channel_not_found"}
        if (channel, ts) not in self.messages:
            return {"ok": False, "error": "message_not_found"}
        return self._keep(channel, ts, body)

    def _keep(self, channel: str, ts: str, body: dict[str, Any]) -> dict[str, Any]:
        self.messages[channel, ts] = {"text": body.get("text", ""), "blocks": body.get("blocks", [])}
        return {"ok": True, "channel": channel, "ts": ts, "message": self.messages[channel, ts]}

    def _next_ts(self) -> str:
        return f"1795510560.{len(self.messages) + 1:06}"


def _unwelcome(token: str) -> str:
    return "" if token == TOKEN else "invalid_auth" if token else "not_authed"


def malformed(body: dict[str, Any]) -> str:
    """The error code for a body that Slack would not take; empty if it would."""
    text, blocks, metadata = body.get("text", ""), body.get("blocks", []), body.get("metadata")
    if not text and not blocks:
        return "no_text"
    if _size(text) > 40_000:
        return "msg_too_long"
    if not isinstance(blocks, list) or len(blocks) > 50 or not all(_is_block(block) for block in blocks):
        return "invalid_blocks"
    if _size(json.dumps(blocks, ensure_ascii=False)) > 13_000:
        return "msg_blocks_too_long"
    if metadata is not None and not (metadata.get("event_type") and isinstance(metadata.get("event_payload"), dict)):
        return "invalid_metadata_format"
    return ""


def _is_block(block: Any) -> bool:
    if not isinstance(block, dict) or block.get("type") not in _BLOCKS or len(block.get("block_id", "")) > 255:
        return False
    match block["type"]:
        case "header":
            return _is_text(block.get("text"), 150, "plain_text")
        case "section":
            fields = block.get("fields", [])
            said = "text" not in block or _is_text(block["text"], 3000)
            return said and ("text" in block or fields) and len(fields) <= 10 and all(_is_text(f, 2000) for f in fields)
        case "context":
            elements = block.get("elements", [])
            return 1 <= len(elements) <= 10 and all(_is_text(element, 3000) for element in elements)
        case _:
            return True


def _is_text(text: Any, limit: int, *kinds: str) -> bool:
    return (
        isinstance(text, dict)
        and text.get("type") in (kinds or ("plain_text", "mrkdwn"))
        and isinstance(text.get("text"), str)
        and 1 <= _size(text["text"]) <= limit
        and not (text["type"] == "plain_text" and "verbatim" in text)
    )


def _size(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _handler(slack: SlackServer) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"slack": slack})


class _Handler(BaseHTTPRequestHandler):
    slack: ClassVar[SlackServer]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_api = self.path.startswith("/api/")
        self.slack.calls.append(Call(self.path.removeprefix("/api/") if is_api else "webhook", body))
        if fault := self.slack.fault():
            self._fail(fault, is_api)
        elif is_api:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            self._answer(200, json.dumps(self.slack.serve(self.path.removeprefix("/api/"), token, body)))
        else:
            self._say(self.slack.hook(self.path, body))

    def _fail(self, fault: Fault, is_api: bool) -> None:
        match fault.mode:
            case "ratelimit":
                said = json.dumps({"ok": False, "error": "ratelimited"}) if is_api else "rate_limited"
                self._answer(429, said, retry_after=fault.retry_after)
            case "drop":
                # Linger 0: the close is a reset, as when something on the way ends the connection.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            case "slow":
                self.slack.closing.wait(30)  # the client gives up long before
            case "html":
                self._answer(200, "<html>The login page of a hotel</html>")
            case mode if mode.isdigit():
                self._answer(int(mode), "server error")
            case mode if is_api:
                self._answer(200, json.dumps({"ok": False, "error": mode}))
            case mode:
                self._say(mode)

    def _say(self, word: str) -> None:
        self._answer(200 if word == "ok" else _HOOK_STATUS.get(word, 400), word)

    def _answer(self, status: int, said: str, retry_after: str = "") -> None:
        raw = said.encode()
        with suppress(ConnectionError):  # the client may be gone
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if said.startswith("{") else "text/html")
            self.send_header("Content-Length", str(len(raw)))
            if retry_after:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Says nothing."""
