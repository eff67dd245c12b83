"""Every way on which a sender learns whether its mail may go, kept open side by side as real ones keep them."""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from mailvane_client import Answer, Client
from tests.builders import NOW
from tests.servers.gate import GateServer
from tests.servers.tier import Tier, netstring, request, tier

PATIENCE = 20  # seconds, after which something hangs


class Ways:
    """A gate with the Postfix tier in front of it, one connection to each of its servers, and a client.

    ``settings`` are the tier's. The client's clock is turned with the gate's.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._open = ExitStack()
        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        self._tier: Tier = self._open.enter_context(tier(folder, **settings))
        self.gate: GateServer = self._tier.gate
        self._peers = {server: self._open.enter_context(self._tier.peer(server)) for server in self._tier.ports}
        self._http = self._open.enter_context(
            closing(http.client.HTTPConnection("127.0.0.1", self.gate.port, timeout=PATIENCE))
        )
        self._news = threading.Event()
        self.client: Client = self._open.enter_context(
            Client(self.gate.url, clock=self._seconds, on_change=lambda _leases: self._news.set())
        )

    def close(self) -> None:
        """All of it."""
        self._open.close()

    def catch_up(self) -> None:
        """Return once the client has heard of all that the gate knows."""
        while True:
            self._news.clear()
            if self.client.state.generation == self.gate.gate.generation:
                return
            assert self._news.wait(PATIENCE), "the client hears nothing"

    def get(self, labels: Mapping[str, str], key: str) -> Any:
        """``GET /v1/check``."""
        self._http.request("GET", "/v1/check?" + urlencode({**labels, **({"key": key} if key else {})}))
        return self._answer()

    def post(self, asked: Sequence[tuple[Mapping[str, str], str]]) -> Any:
        """``POST /v1/check``."""
        scopes = [{**labels, "key": key} for labels, key in asked]
        self._http.request("POST", "/v1/check", json.dumps({"scopes": scopes}))
        return self._answer()

    def ask_client(self, labels: Mapping[str, str], key: str) -> Answer:
        """The client library."""
        return self.client.check(**labels, key=key)

    def policy(self, **attributes: object) -> str:
        """The policy service's action."""
        peer = self._peers["policy"]
        peer.send(request(**attributes))
        return peer.until(b"\n\n").decode().removeprefix("action=").removesuffix("\n\n")

    def memcache(self, table: str, address: str) -> str:
        """A destination, empty where none is found."""
        peer = self._peers["memcache"]
        peer.send(f"get {table}:{address}\r\n".encode())
        lines = peer.until(b"END\r\n").decode().split("\r\n")
        return lines[1] if len(lines) > 2 else ""

    def socketmap(self, table: str, address: str) -> str:
        """A destination, empty where none is found."""
        peer = self._peers["socketmap"]
        peer.send(netstring(f"{table} {address}"))
        said, _, destination = peer.netstring().partition(" ")
        assert said == ("OK" if destination else "NOTFOUND")
        return destination

    def _answer(self) -> Any:
        response = self._http.getresponse()
        body = response.read()
        assert response.status == 200, body
        return json.loads(body)

    def _seconds(self) -> float:
        return 1000 + (self.gate.clock.now - NOW).total_seconds()
