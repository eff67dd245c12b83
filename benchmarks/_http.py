"""A load of HTTP requests from one process that costs little itself: raw bytes on kept connections."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import uvloop


class Connection(asyncio.Protocol):
    """One kept connection with one request at a time; ``done`` is called with each answer's body."""

    def __init__(self) -> None:
        self.done: Callable[[bytes], None] = lambda _body: None
        self._transport: asyncio.Transport | None = None
        self._have = bytearray()
        self._want = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def ask(self, request: bytes) -> None:
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._have += data
        if self._want < 0:
            end = self._have.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._have[:end]).lower()
            assert head.startswith((b"http/1.1 200", b"http/1.1 202")), head[:200]
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            self._want = end + 4 + length
            self._start = end + 4
        if len(self._have) >= self._want:
            body = bytes(self._have[self._start : self._want])
            self._have.clear()
            self._want = -1
            self.done(body)

    def close(self) -> None:
        if self._transport:
            self._transport.close()


async def connect(port: int, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(count)]


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def flood(port: int, requests: Sequence[bytes], seconds: float, connections: int = 32) -> float:
    """Requests a second when each connection asks again as soon as it is answered."""
    answered = 0
    end = time.perf_counter() + seconds
    clients = await connect(port, connections)
    finished = [asyncio.get_running_loop().create_future() for _ in clients]

    def keep_asking(client: Connection, place: int) -> None:
        def done(_body: bytes) -> None:
            nonlocal answered
            answered += 1
            if time.perf_counter() < end:
                client.ask(requests[(place * 7919 + answered) % len(requests)])
            elif not finished[place].done():
                finished[place].set_result(None)

        client.done = done
        client.ask(requests[place % len(requests)])

    began = time.perf_counter()
    for place, client in enumerate(clients):
        keep_asking(client, place)
    await asyncio.gather(*finished)
    took = time.perf_counter() - began
    for client in clients:
        client.close()
    return answered / took


async def paced(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int = 64
) -> list[float]:
    """Seconds that each answer took, measured from when it was due: a server that stalls can't hide what waits."""
    clients = await connect(port, connections)
    idle, due, took = deque(clients), deque[float](), list[float]()
    count = int(rate * seconds)
    finished = asyncio.get_running_loop().create_future()

    def start() -> None:
        while idle and due:
            client, at = idle.popleft(), due.popleft()
            client.done = lambda _body, client=client, at=at: done(client, at)
            client.ask(requests[len(took) % len(requests)])

    def done(client: Connection, at: float) -> None:
        took.append(time.perf_counter() - at)
        idle.append(client)
        start()
        if len(took) == count and not finished.done():
            finished.set_result(None)

    began = time.perf_counter()
    sent = 0
    while sent < count:
        now = time.perf_counter()
        while sent < count and began + sent / rate <= now:
            due.append(began + sent / rate)
            sent += 1
        start()
        await asyncio.sleep(0.0005)
    await asyncio.wait_for(finished, 60)
    for client in clients:
        client.close()
    return took


async def latencies(port: int, request: bytes, count: int) -> list[float]:
    """Seconds of each of ``count`` requests, one after the other on one connection."""
    client = (await connect(port, 1))[0]
    took = []
    for _ in range(count):
        answered = asyncio.get_running_loop().create_future()
        client.done = answered.set_result
        began = time.perf_counter()
        client.ask(request)
        await answered
        took.append(time.perf_counter() - began)
    client.close()
    return took


run = uvloop.run
