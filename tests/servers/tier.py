"""The Postfix tier as the gate serves it, and peers of all manners that talk to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from monitor.actuators._talk import Limits, serve
from monitor.actuators.postfix import Postfix
from monitor.ports import Current
from tests.servers.gate import GateServer, gate_server
from tests.waiting import free_port, until


class Hurried(Postfix):
    """The tier with bounds that a test can reach."""

    limits: ClassVar[Limits] = Limits()

    async def serve(self, current: Current) -> None:
        await serve(self.listening(current), current.refused, self.limits)


@dataclass
class Tier:
    """Three servers in front of one gate."""

    gate: GateServer
    ports: Mapping[str, int]

    def refused(self, server: str, reason: str) -> int:
        return int(self.gate.metrics.refused.labels(server, reason)._value.get())

    def peer(self, server: str) -> Peer:
        return Peer(socket.create_connection(("127.0.0.1", self.ports[server]), timeout=20))

    def asked(self, **attributes: object) -> str:
        """The policy service's action for a message."""
        with self.peer("policy") as peer:
            peer.send(request(**attributes))
            return peer.until(b"\n\n").decode().removeprefix("action=").removesuffix("\n\n")

    def found(self, table: str, key: str, server: str = "memcache") -> str:
        """What a map says; empty where it finds nothing."""
        with self.peer(server) as peer:
            if server == "memcache":
                peer.send(f"get {table}:{key}\r\n".encode())
                lines = peer.until(b"END\r\n").decode().split("\r\n")
                return lines[1] if len(lines) > 2 else ""
            peer.send(netstring(f"{table} {key}"))
            said = peer.netstring()
            return said.removeprefix("OK ") if said != "NOTFOUND " else ""


@dataclass
class Peer:
    """One connection, read by hand."""

    socket: socket.socket
    rest: bytes = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def until(self, end: bytes) -> bytes:
        """All up to and with ``end``; what there is where the other side closes."""
        while end not in self.rest:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                said, self.rest = self.rest, b""
                return said
            self.rest += more
        said, _, self.rest = self.rest.partition(end)
        return said + end

    def netstring(self) -> str:
        length = self.until(b":")
        while len(self.rest) <= int(length[:-1]):
            self.rest += self.socket.recv(65536)
        said, self.rest = self.rest[: int(length[:-1])], self.rest[int(length[:-1]) + 1 :]
        return said.decode()

    @property
    def closed(self) -> bool:
        """Whether the other side closes without a further word; waits for it."""
        with suppress(ConnectionResetError):
            return self.rest + self.socket.recv(65536) == b""
        return True


def request(**attributes: object) -> bytes:
    """A policy request as Postfix writes it."""
    told: Mapping[str, Any] = {"request": "smtpd_access_policy", "protocol_state": "RCPT", "size": 0, **attributes}
    return "".join(f"{name}={value}\n" for name, value in told.items()).encode() + b"\n"


def netstring(text: str) -> bytes:
    content = text.encode()
    return b"%d:%b," % (len(content), content)


@contextmanager
def tier(
    folder: Path, limits: Limits | None = None, ports: Mapping[str, int] | None = None, **settings: Any
) -> Iterator[Tier]:
    """All three servers on free ports, or on those."""
    ports = ports or {name: free_port() for name in ("policy", "memcache", "socketmap")}
    kind = type("Bounded", (Hurried,), {"limits": limits or Limits()})
    with gate_server(
        folder, {"mta": kind(**{name: f"127.0.0.1:{port}" for name, port in ports.items()}, **settings)}
    ) as gate:
        running = Tier(gate, ports)
        until(lambda: all(map(_answers, ports.values())), "the tier to listen")
        yield running


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
