"""A queue in memory behind a socket, which speaks as `mailvane-postsuper served` does, and may fail at any moment."""

from __future__ import annotations

import json
import socketserver
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass
class Queued:
    """``queue``: id → deferred or hold; ``sender``: id → address. ``fails``: before, during or after the next change."""

    socket: Path
    queue: dict[str, str] = field(default_factory=dict)
    sender: dict[str, str] = field(default_factory=dict)
    fails: str = ""

    @property
    def helper(self) -> tuple[str, ...]:
        return (f"unix:{self.socket}",)

    def __enter__(self) -> Self:
        self._server = socketserver.UnixStreamServer(str(self.socket), type("Handler", (_Handler,), {"queued": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def on_hold(self) -> set[str]:
        return {queued for queued, queue in self.queue.items() if queue == "hold"}

    def answer(self, verb: str, ids: list[str]) -> str:
        """What is answered; without ``done`` at its end where it fails."""
        fails, self.fails = self.fails, ""
        if verb == "list":
            self.fails = fails
            return "".join(map(self._line, self.queue)) + "done\n"
        if fails == "before":
            return ""
        was, to = ("deferred", "hold") if verb == "hold" else ("hold", "deferred")
        changed = [queued for queued in ids if self.queue.get(queued) == was]
        for queued in changed[: len(changed) // 2] if fails == "during" else changed:
            self.queue[queued] = to
        return "" if fails else "".join(f"{queued}\n" for queued in changed) + "done\n"

    def _line(self, queued: str) -> str:
        told = {"queue_name": self.queue[queued], "queue_id": queued, "sender": self.sender[queued]}
        return json.dumps({**told, "recipients": [{"address": "kim@there.example"}]}) + "\n"


class _Handler(socketserver.StreamRequestHandler):
    queued: Queued

    def handle(self) -> None:
        words, *ids = self.rfile.read().decode().splitlines()
        self.wfile.write(self.queued.answer(words.split()[0], ids).encode())
