"""The gate's own server with nothing behind it: what HTTP alone costs here. ``python -m benchmarks.peers.noop PORT``"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from monitor import serving
from monitor.gate import Gate
from monitor.ledger.db import open_ledger
from monitor.telemetry import GateMetrics

BODY = b'{"generation":0,"answer":"send","lease":null,"until":null,"ttl":null,"share":1.0,"pool":""}'
HEADERS = [(b"content-length", str(len(BODY)).encode()), (b"content-type", b"application/json")]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The same bytes whatever is asked."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    """Serve until a signal comes."""
    with tempfile.TemporaryDirectory() as folder:
        gate = Gate(open_ledger(Path(folder) / "ledger.sqlite", reads=True))
        listener = serving.bind("127.0.0.1", int(sys.argv[1]))
        serving.server(application, gate, GateMetrics(CollectorRegistry())).run(sockets=[listener])


if __name__ == "__main__":
    main()
