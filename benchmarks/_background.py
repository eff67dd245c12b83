"""What core does beside the gate: 5,000 events a second come in, and a long query runs again and again.

``python -m benchmarks._background PORT EVENTS_A_SECOND`` until a signal comes; prints each second what was taken.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from datetime import UTC, datetime
from urllib.request import Request, urlopen

BATCH = 1000


def main() -> None:
    port, rate = int(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=query, args=(port,), daemon=True).start()
    number, began = 0, time.monotonic()
    while True:
        with urlopen(
            Request(f"http://127.0.0.1:{port}/v1/events", events(number), method="POST"), timeout=60
        ) as answer:
            taken = json.load(answer)["accepted"]
        number += BATCH
        print(taken, flush=True)
        time.sleep(max(0.0, began + number / rate - time.monotonic()))


def events(number: int) -> bytes:
    at = datetime.now(UTC).isoformat()
    return "\n".join(
        json.dumps(
            {
                "kind": "sent" if one % 50 else "bounced",
                "at": at,
                "message_id": f"<{one}@shop.example>",
                "recipient": f"u{one}@one.example",
                "tenant": f"s{one % 400:03}",
                "segment": f"g{one % 7}",
                "stream": "marketing",
                "provider": ("gmail", "yahoo", "outlook")[one % 3],
                "ip": f"192.0.2.{one % 16}",
            }
        )
        for one in range(number, number + BATCH)
    ).encode()


def query(port: int) -> None:
    while True:
        with urlopen(
            f"http://127.0.0.1:{port}/v1/series?by=tenant,segment,provider&minutes=1440&top=200", timeout=60
        ) as found:
            found.read()


if __name__ == "__main__":
    main()
