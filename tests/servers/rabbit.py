"""A real RabbitMQ with its own epmd, both on loopback only; skips by name where it is missing.

It takes some seconds to start, so one does for a module; each test takes a queue of its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import aio_pika
import pytest

from tests.waiting import answers, free_port, until

_CONFIG = "listeners.tcp.default = 127.0.0.1:{port}\nlog.console = false\n"
_TLS = """\
listeners.ssl.default = 127.0.0.1:{port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/cert.pem
ssl_options.keyfile = {folder}/key.pem
"""


class Rabbit:
    """One node."""

    def __init__(self, script: str, folder: Path, certificates: Path | None) -> None:
        self.port, self.tls_port, self._names, dist = (free_port() for _ in range(4))
        self._script, self._folder = script, folder
        for name in ("mnesia", "log", "home"):
            (folder / name).mkdir(parents=True, mode=0o700)
        tls = _TLS.format(port=self.tls_port, folder=certificates) if certificates else ""
        (folder / "rabbitmq.conf").write_text(_CONFIG.format(port=self.port) + tls)
        (folder / "enabled_plugins").write_text("[].")
        self._env = {
            **os.environ,
            "HOME": str(folder / "home"),  # of the cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names),
            "RABBITMQ_NODENAME": f"r{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
        }
        # Started by us, it stays in our hands: one that the node starts itself would outlive it.
        self._epmd = self._spawn("epmd", "-port", str(self._names), "-address", "127.0.0.1")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}/"

    def start(self) -> None:
        until(lambda: answers(self._names), "epmd to answer")
        self._process = self._spawn(self._script)
        until(self._ready, "RabbitMQ to answer", 90)

    def kill(self) -> None:
        """As a power cut would."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def end(self) -> None:
        """Nothing is left running."""
        self.kill()
        self._epmd.kill()
        self._epmd.wait()

    def declare(self, queue: str, *, quorum: bool = False) -> None:
        """A durable queue."""
        asyncio.run(self._declare(queue, {"x-queue-type": "quorum" if quorum else "classic"}))

    def publish(self, queue: str, bodies: Sequence[bytes], encoding: str | None = None) -> None:
        """Each body as a message that is kept on disk, all confirmed."""
        asyncio.run(self._publish(queue, bodies, encoding))

    def ready(self, queue: str) -> int:
        """Messages that wait in the queue and are with nobody."""
        return asyncio.run(self._count(queue))

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / "out").open("ab") as out:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._env, start_new_session=True
            )

    def _ready(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise AssertionError(f"RabbitMQ ended: {(self._folder / 'out').read_text()[-2000:]}")
        try:
            asyncio.run(self._hello())
        except (OSError, aio_pika.exceptions.AMQPError):
            return False
        return True

    async def _hello(self) -> None:
        if answers(self.port):
            await (await aio_pika.connect(self.url, timeout=5)).close()
        else:
            raise ConnectionRefusedError

    async def _declare(self, queue: str, arguments: dict[str, str]) -> None:
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(queue, durable=True, arguments=arguments)

    async def _publish(self, queue: str, bodies: Sequence[bytes], encoding: str | None) -> None:
        async with await aio_pika.connect(self.url) as connection:
            exchange = (await connection.channel()).default_exchange
            kept = aio_pika.DeliveryMode.PERSISTENT
            messages = [aio_pika.Message(body, delivery_mode=kept, content_encoding=encoding) for body in bodies]
            await asyncio.gather(*(exchange.publish(message, queue) for message in messages))

    async def _count(self, queue: str) -> int:
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0


@contextmanager
def rabbit(folder: Path, certificates: Path | None = None) -> Iterator[Rabbit]:
    """A node that runs, without queues; with TLS beside, if ``certificates`` holds ca.pem, cert.pem and key.pem."""
    # Not the one in /usr/sbin, which would change the user, and read the machine's configuration.
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if not found or not shutil.which("epmd"):
        pytest.skip("real RabbitMQ: needs the Debian package rabbitmq-server")
    node = Rabbit(str(found[0]), folder / "rabbit", certificates)
    try:
        node.start()
        yield node
    finally:
        node.end()
