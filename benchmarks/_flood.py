"""A key that asks too often: ``python -m benchmarks._flood PORT KEY REQUESTS_A_SECOND`` until a signal comes.

Prints each second how many requests were answered by 429, and how many otherwise.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

CONNECTIONS = 16


async def main(port: int, key: str, rate: float) -> None:
    request = f"GET /v1/incidents HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    peers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    refused = answered = 0

    async def count(reader: asyncio.StreamReader) -> None:
        nonlocal refused, answered
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            refused += head.startswith(b"HTTP/1.1 429")
            answered += 1

    counting = [asyncio.create_task(count(reader)) for reader, _ in peers]
    began, sent, told = time.perf_counter(), 0, 0
    while not any(task.done() for task in counting):
        while sent < (time.perf_counter() - began) * rate and sent - answered < 20 * CONNECTIONS:
            peers[sent % CONNECTIONS][1].write(request)
            sent += 1
        if time.perf_counter() - began > told + 1:
            told += 1
            print(refused, answered - refused, flush=True)
        await asyncio.sleep(0.002)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
