"""A server on 127.0.0.1 that tells leases as the gate does, and that fails as a test wants.

    with LeaseServer() as server:
        pause = server.grant(tenant="s07", segment="lapsed")
        server.end(pause)
        server.stream = Stream.MISSING      # from the next request on

Written from what the gate promises over HTTP, so that clients are not tested against the code that they mirror: only the
answer to `/v1/check` is found by the core's own fold.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from monitor.core.leases import answer
from monitor.model import AUTOMATION, LABELS, OWNED, Deed, Lease, Scope, named

ASKS = frozenset({*LABELS, "key"})
Document = dict[str, Any]


class Stream(Enum):
    """What becomes of a stream."""

    FLOWS = "as the gate does it"
    MISSING = "404"
    KEPT_BACK = "a proxy keeps all of it"
    SILENT = "the set, and then nothing, as a half-open connection"


@dataclass
class LeaseServer:
    """Fields may be changed at any time; what is under way goes on as it began.

    ``mangled`` is what is told in the place of each document, as it stands. ``status`` is that of all answers (0: none
    at all until the block ends). ``remembers`` is how many changes a stream can resume. ``asked`` are path and headers
    of each request so far.
    """

    stream: Stream = Stream.FLOWS
    status: int = 200
    mangled: bytes | None = None
    token: str = ""
    remembers: int = 100
    astray: int = 0  # by how much changes claim to follow on another generation than they do
    alive: float = 0.05  # seconds between two signs of life
    retry: int = 20  # milliseconds that a client waits until it connects anew
    generation: int = 17
    leases: dict[str, Lease] = field(default_factory=dict)
    changes: list[Document] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    tls: Any = None
    _serving: Any = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Serve; after ``stop`` on the same port again."""
        port = urlsplit(self.url).port or 0
        self._news = threading.Condition()
        self._over = threading.Event()
        self._serving = _Serving(("127.0.0.1", port), type("Handler", (_Handler,), {"gate": self}))
        if self.tls:
            self._serving.socket = self.tls.wrap_socket(self._serving.socket, server_side=True)
        self._thread = threading.Thread(target=self._serving.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._serving.server_address[1]}"
        return self

    def stop(self) -> None:
        """Cut all that is under way, and listen no more."""
        if self._serving is None:
            return
        self._over.set()
        with self._news:
            self._news.notify_all()
        self._serving.shutdown()
        self._thread.join()
        self._serving.server_close()
        self._serving = None

    def restart(self) -> None:
        """As after a crash: connections are gone, the leases are not."""
        self.stop()
        self.start()

    def grant(self, ttl: float = 3600, deed: Deed = Deed.PAUSE, **values: Any) -> Lease:
        """A lease in force from now on; ``values`` are its labels, and its fields but the scope."""
        now = datetime.now(UTC)
        scope = Scope(**{label: values.pop(label) for label in LABELS if label in values})
        with self._news:
            seq = self.generation + 1
            fields = {"id": f"{seq}@{int(now.timestamp())}", "who": AUTOMATION, "why": "bounces", "seq": seq, **values}
            lease = Lease(deed=deed, scope=scope, since=now, until=now + timedelta(seconds=ttl), **fields)
            self.leases[lease.id] = lease
            self._change(granted=[lease])
        return lease

    def end(self, *leases: Lease) -> None:
        """A person ends them."""
        with self._news:
            for lease in leases:
                del self.leases[lease.id]
            self._change(ended=[lease.id for lease in leases])

    def restore(self, generation: int, *leases: Lease) -> None:
        """As after a backup is brought back: another truth, an older number, and nothing remembered of before."""
        with self._news:
            self.generation, self.leases, self.changes = generation, {lease.id: lease for lease in leases}, []
            self._news.notify_all()

    def _change(self, granted: list[Lease] = [], ended: list[str] = []) -> None:  # noqa: B006  # never changed
        since, self.generation = self.generation, self.generation + 1
        self.changes.append({"generation": self.generation, "since": since, "granted": granted, "ended": ended})
        del self.changes[: -self.remembers]
        self._news.notify_all()

    def whole(self) -> Document:
        """The document of the set."""
        now = datetime.now(UTC)
        with self._news:
            return {
                "generation": self.generation,
                "leases": [told(lease, now) for lease in self.leases.values() if lease.until > now],
            }

    def after(self, generation: int) -> list[Document] | None:
        """The changes after that one; None where they are not all remembered."""
        now = datetime.now(UTC)
        with self._news:
            if generation == self.generation:
                return []
            found = [change for change in self.changes if change["since"] >= generation]
            if not found or found[0]["since"] != generation:
                return None
            return [{**change, "granted": [told(lease, now) for lease in change["granted"]]} for change in found]

    def wait(self, known: int, seconds: float) -> bool:
        """Whether there is something new, as soon as there is, or after ``seconds``."""
        with self._news:
            return self._news.wait_for(lambda: self._over.is_set() or self.generation != known, seconds)

    def check(self, asked: Any) -> Document:
        """The answer to one question, or the refusal with its remedy."""
        if not isinstance(asked, dict) or not all(isinstance(value, str) for value in asked.values()):
            return {"error": "not a question", "remedy": "labels and key are texts"}
        if unknown := asked.keys() - ASKS:
            return {"error": f"unknown label: {min(unknown)}", "remedy": "look at the nine labels"}
        if any(len(value) > (1000 if name == "key" else 200) for name, value in asked.items()):
            return {"error": "too long", "remedy": "a label has at most 200 characters"}
        labels = {name: value for name, value in asked.items() if name != "key"}
        if not labels.get("tenant") and any(labels.get(name) for name in OWNED):
            return {"error": "an owned label without tenant", "remedy": "add tenant"}
        now = datetime.now(UTC)
        with self._news:
            live = [lease for lease in self.leases.values() if lease.until > now]
        said = answer(live, Scope(**labels), asked.get("key", ""))
        found = said.lease
        return {
            "answer": "held" if said.held else "send",
            "lease": told(found, now) if found else None,
            "until": told(found, now)["until"] if found else None,
            "ttl": told(found, now)["ttl"] if found else None,
            "share": _share(found),
            "pool": found.pool if found and found.deed is Deed.REROUTE else "",
        }


def told(lease: Lease, now: datetime) -> Document:
    """A lease as the gate tells it."""
    return {
        "id": lease.id,
        "seq": lease.seq,
        "deed": str(lease.deed),
        "scope": named(lease.scope),
        "since": lease.since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "until": lease.until.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "ttl": max(0.0, (lease.until - now).total_seconds()),
        "who": lease.who,
        "why": lease.why,
        "share": lease.share,
        "pool": lease.pool,
        "incident": lease.incident,
    }


def _share(lease: Lease | None) -> float:
    if lease is None or lease.deed in (Deed.ALLOW, Deed.REROUTE):
        return 1.0
    return lease.share if lease.deed is Deed.THROTTLE else 0.0


class _Serving(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for them, so that none outlives its test

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    gate: LeaseServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 0.2  # between two requests of a kept connection, so that a block ends soon

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if not self._let_in():
            return
        if url.path == "/v1/leases/stream":
            self._stream()
        elif url.path == "/v1/leases":
            self._leases(float(query.get("wait", "0")))
        elif url.path == "/v1/check":
            said = self.gate.check(query)
            self._answer(422 if "error" in said else 200, {"generation": self.gate.generation, **said})
        else:
            self._answer(404, {"error": "no such place"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._let_in():
            return
        try:
            scopes = json.loads(body)["scopes"]
            answers = [self.gate.check(one) for one in scopes]
        except (ValueError, KeyError, TypeError):
            self._answer(422, {"error": "the body can't be read", "remedy": 'send {"scopes": […]}'})
            return
        if len(scopes) > 1000:
            self._answer(413, {"error": "too many", "remedy": "1000 at a time"})
        else:
            self._answer(200, {"generation": self.gate.generation, "answers": answers})

    def _let_in(self) -> bool:
        gate = self.gate
        gate.asked.append((self.path, dict(self.headers)))
        if not gate.status:
            gate._over.wait()
            self.close_connection = True
            return False
        status = 401 if gate.token and self.headers["Authorization"] != f"Bearer {gate.token}" else gate.status
        if status != 200:
            self._answer(status, {"error": "as the test wants it"})
        return status == 200

    def _leases(self, wait: float) -> None:
        gate = self.gate
        if not 0 <= wait <= 60:
            self._answer(422, {"error": "wait is no time", "remedy": "0 to 60"})
            return
        known = self.headers.get("If-None-Match", "").strip('"')
        if wait and known == str(gate.generation):
            gate.wait(gate.generation, wait)
        if gate._over.is_set():
            self.close_connection = True
            return
        document = gate.whole()
        tag = {"ETag": f'"{document["generation"]}"', "Cache-Control": "no-cache"}
        if known == str(document["generation"]):
            self._answer(304, None, tag)
        else:
            self._answer(200, document, tag)

    def _stream(self) -> None:
        gate, kind = self.gate, self.gate.stream
        self.close_connection = True
        if kind is Stream.MISSING:
            self._answer(404, {"error": "no such place"})
            return
        if kind is Stream.KEPT_BACK:
            self._until_it_goes()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        last = self.headers.get("Last-Event-ID", "")
        with suppress(OSError):
            self._chunk(b"retry: %d\n\n" % gate.retry)
            self._tell(int(last) if last.isdigit() else -1, silent=kind is Stream.SILENT)

    def _tell(self, known: int, *, silent: bool) -> None:
        gate = self.gate
        while not gate._over.is_set():
            changes = gate.after(known)
            if changes is None:
                document = gate.whole()
                known = document["generation"]
                self._event("set", known, document)
            for change in changes or ():
                known = change["generation"]
                self._event("change", known, {**change, "since": change["since"] + gate.astray})
            if silent:
                self._until_it_goes()
                return
            if not gate.wait(known, gate.alive):
                self._chunk(b": alive\n\n")

    def _until_it_goes(self) -> None:
        """Say nothing until the client leaves or the block ends."""
        self.connection.settimeout(0.02)
        while not self.gate._over.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _event(self, name: str, generation: int, document: Document) -> None:
        text = self._text(document)
        self._chunk(b"event: %b\nid: %d\ndata: %b\n\n" % (name.encode(), generation, text))

    def _chunk(self, text: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))

    def _text(self, document: Document) -> bytes:
        return json.dumps(document).encode() if self.gate.mangled is None else self.gate.mangled

    def _answer(self, status: int, document: Document | None, headers: dict[str, str] | None = None) -> None:
        body = b"" if document is None else self._text(document)
        with suppress(OSError):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
