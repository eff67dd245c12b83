"""The decide path under load: 10,000 leases in force, core ingesting 5,000 events/s and querying beside it.

The peer is the gate's own server with nothing behind it (``peers/noop.py``), measured in turn with the gate under the
same background, so that each busy moment is everybody's.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks import _http
from benchmarks._bar import bar
from monitor.ledger import actions
from monitor.ledger.db import open_ledger
from monitor.model import AUTOMATION, Action, Deed, Scope, named
from tests.waiting import free_port, until

ROOT = Path(__file__).resolve().parent.parent
QUICK = bool(os.environ.get("QUICK"))
LEASES = 10_000
RATE = 5_000  # events a second
ROUNDS = 3 if QUICK else 7
SECONDS = 1.5 if QUICK else 3.0
SUBSCRIBERS = 500
NEWS = 5 if QUICK else 20  # leases of which each subscriber is told
SELLERS = 40_000
BRAKED = 5_000  # of the sellers have something in force
PROVIDERS = ("gmail", "yahoo", "outlook", "gmx", "apple")


def main() -> int:
    """The exit status: 1 when a bar is short."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailvane-bench-")))
        config, core, gate = configuration(folder)
        noop = free_port()
        fill(folder / "data/ledger.sqlite")
        gate_pid = opened.enter_context(process([*load("load_gate", "gate_process", config)], gate))
        noop_pid = opened.enter_context(process(["-m", "benchmarks.peers.noop", str(noop)], noop))
        opened.enter_context(process([*load("load", "core_process", config)], core))
        feeder = opened.enter_context(background(core))
        holds = [
            *throughput(gate, noop),
            *batch(gate),
            *subscribers(gate, folder / "data/ledger.sqlite"),
            bar("check.rss_above_noop", resident(gate_pid) - resident(noop_pid), "MB", "<=60"),
        ]
        print(f"check: core took {taken(feeder):,.0f} events/s beside it")
    return 0 if all(holds) else 1


def throughput(gate: int, noop: int) -> Iterator[bool]:
    """Requests a second against the peer's, and the tail at half of that load."""
    rng = random.Random(7)
    asked = [_http.get("/v1/check?" + question(rng)) for _ in range(2000)]
    rates: dict[int, list[float]] = {gate: [], noop: []}
    for _ in range(ROUNDS):
        for port in (noop, gate):
            rates[port].append(_http.run(_http.flood(port, asked, SECONDS)))
    print(f"check: no-op {median(rates[noop]):,.0f}/s, gate {median(rates[gate]):,.0f}/s")
    ratios = [mine / other for mine, other in zip(rates[gate], rates[noop], strict=True)]
    yield bar("check.throughput_vs_noop", median(ratios), "ratio", ">=0.6")
    half = median(rates[gate]) / 2
    tails: dict[int, list[float]] = {gate: [], noop: []}
    for _ in range(ROUNDS):
        for port in (noop, gate):
            tails[port].append(p99(_http.run(_http.paced(port, asked, half, SECONDS))))
    worst = {port: f"{median(values) * 1e3:.2f} ms" for port, values in tails.items()}
    print(f"check: p99 at {half:,.0f}/s: no-op {worst[noop]}, gate {worst[gate]}")
    yield bar("check.p99_vs_noop_at_half_load", median(tails[gate]) / median(tails[noop]), "ratio", "<=2")


def batch(gate: int) -> Iterator[bool]:
    """A question about the next 1,000 messages of a dispatcher beside a question about one, in turn.

    By the client of the standard library, as senders ask. The messages are of ten campaigns; a thousand that share no
    label are shown beside.
    """
    rng = random.Random(8)
    one, many, distinct = [], [], []
    for _ in range(ROUNDS * 4):
        one += asked_by_client(gate, "GET", "/v1/check?" + question(rng), None, 40)
        many += asked_by_client(gate, "POST", "/v1/check", whole(campaigns(rng)), 5)
        distinct += asked_by_client(gate, "POST", "/v1/check", whole([scope(question(rng)) for _ in range(1000)]), 5)
    took = [f"{median(times) * 1e3:.2f} ms" for times in (one, many, distinct)]
    print(f"check: one {took[0]}, a thousand {took[1]}, a thousand that share no labels {took[2]}")
    yield bar("check.thousand_vs_one", median(many) / median(one), "ratio", "<=5")


def asked_by_client(port: int, method: str, path: str, body: bytes | None, count: int) -> list[float]:
    """Seconds of each of ``count`` requests on one connection, until the whole answer is there."""
    client = HTTPConnection("127.0.0.1", port, timeout=30)
    took = []
    for _ in range(count):
        began = time.perf_counter()
        client.request(method, path, body)
        client.getresponse().read()
        took.append(time.perf_counter() - began)
    client.close()
    return took


def campaigns(rng: random.Random) -> list[dict[str, str]]:
    """A thousand messages of ten campaigns to five providers by four IPs."""
    found = []
    for _ in range(10):
        campaign, addresses = scope(question(rng)), rng.sample(range(200), 4)
        for _ in range(100):
            mine = {
                "provider": rng.choice(PROVIDERS),
                "ip": f"192.0.2.{rng.choice(addresses)}",
                "key": f"m{rng.random()}",
            }
            found.append(campaign | mine)
    return found


def scope(query: str) -> dict[str, str]:
    """Labels by name, from a query."""
    return dict(part.split("=", 1) for part in query.split("&"))  # type: ignore[arg-type]  # pairs


def whole(asked: list[dict[str, str]]) -> bytes:
    """The body of a batch."""
    return json.dumps({"scopes": asked}).encode()


def subscribers(gate: int, ledger: Path) -> Iterator[bool]:
    """From the moment a lease is written until each of 500 streams has told it."""
    delays = _http.run(_told(gate, ledger))
    print(
        f"check: {SUBSCRIBERS} streams told of {NEWS} leases: median {median(delays):.3f} s, worst {max(delays):.3f} s"
    )
    yield bar("check.sse_p99", p99(delays), "s", "<=1")


async def _told(gate: int, ledger: Path) -> list[float]:
    news = _News()
    tasks = [asyncio.create_task(news.listen(gate)) for _ in range(SUBSCRIBERS)]
    await news.all_there.wait()
    engine = open_ledger(ledger)
    delays: list[float] = []
    for number in range(NEWS):
        action = lease(f"news{number}", Scope(tenant="s1", segment=f"news{number}"), datetime.now(UTC))
        with engine.begin() as conn:
            actions.append(conn, action)
        written = time.perf_counter()
        delays += [at - written for at in await news.heard(action.id)]
    for task in tasks:
        task.cancel()
    engine.dispose()
    return delays


class _News:
    """What the streams told, and when."""

    def __init__(self) -> None:
        self.all_there = asyncio.Event()
        self._there = 0
        self._times: dict[str, list[float]] = {}
        self._told: dict[str, asyncio.Event] = {}

    async def listen(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=16 << 20)
        writer.write(b"GET /v1/leases/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        kind = b""
        while line := await reader.readline():
            if line.startswith(b"event: "):
                kind = line.split()[1]
            elif line.startswith(b"data: "):
                self._heard(kind, line[6:])

    def _heard(self, kind: bytes, document: bytes) -> None:
        now = time.perf_counter()
        if kind == b"set":
            self._there += 1
            if self._there == SUBSCRIBERS:
                self.all_there.set()
            return
        for granted in json.loads(document)["granted"]:
            times = self._times.setdefault(granted["id"], [])
            times.append(now)
            if len(times) == SUBSCRIBERS:
                self._told.setdefault(granted["id"], asyncio.Event()).set()

    async def heard(self, name: str) -> list[float]:
        """When each stream told of it, once all have."""
        async with asyncio.timeout(30):
            await self._told.setdefault(name, asyncio.Event()).wait()
        return self._times[name]


def question(rng: random.Random) -> str:
    """A message's labels as a query."""
    seller = rng.randrange(SELLERS)
    labels = {
        "tenant": f"s{seller}",
        "segment": f"g{rng.randrange(4)}",
        "campaign": f"c{rng.randrange(50)}",
        "stream": "marketing",
        "provider": rng.choice(PROVIDERS),
        "ip": f"192.0.2.{rng.randrange(200)}",
        "key": f"m{rng.randrange(10**9)}",
    }
    return "&".join(f"{name}={value}" for name, value in labels.items())


def fill(ledger: Path) -> None:
    """The leases: of all shapes that people and automation use."""
    engine = open_ledger(ledger)
    now = datetime.now(UTC)
    with engine.begin() as conn:
        for number in range(LEASES):
            seller = Scope(tenant=f"s{number % BRAKED * 8}")
            scope, deed, who = (
                (Scope(**named(seller), segment=f"g{number % 4}", stream="marketing"), Deed.PAUSE, AUTOMATION),
                (Scope(**named(seller), segment=f"g{number % 3}"), Deed.THROTTLE, AUTOMATION),
                (Scope(**named(seller), campaign=f"c{number % 50}"), Deed.PAUSE, "marta"),
                (
                    Scope(ip=f"192.0.2.{number % 10}", provider=PROVIDERS[number % 5], stream="marketing"),
                    Deed.REROUTE,
                    AUTOMATION,
                ),
                (Scope(**named(seller), provider=PROVIDERS[number % 5]), Deed.ALLOW, "marta"),
            )[min(number % 11, 4)]
            actions.append(conn, lease(f"l{number}", scope, now, deed, who))
    engine.dispose()


def lease(name: str, scope: Scope, now: datetime, deed: Deed = Deed.PAUSE, who: str = AUTOMATION) -> Action:
    """An hour's lease."""
    share, pool = (0.25, "") if deed is Deed.THROTTLE else (0.0, "quarantine" if deed is Deed.REROUTE else "")
    why = "bounce-seller: 300 of 1,000 in 5 min, surely above 27.0%"
    return Action(name, now, who, deed, scope, why, until=now + timedelta(hours=1), share=share, pool=pool)


def configuration(folder: Path) -> tuple[Path, int, int]:
    core, gate = free_port(), free_port()
    config = folder / "mailvane.toml"
    config.write_text(
        f'[service]\ndata = "{folder / "data"}"\nlisten = "127.0.0.1:{core}"\ngate = "127.0.0.1:{gate}"\n'
        '[access]\nanonymous = ["read", "metrics", "check", "ingest"]\nkey_rate = "1000000/second"\n',
        "utf-8",
    )
    return config, core, gate


def load(loader: str, module: str, config: Path) -> Sequence[str]:
    program = (
        "from pathlib import Path; from monitor import " + module + "; from monitor.config import " + loader + "; "
        f"{module}.serve({loader}(Path({str(config)!r})))"
    )
    return ["-c", program]


@contextmanager
def process(arguments: Sequence[str], port: int) -> Iterator[int]:
    """A Python of ours that listens on ``port``; its pid."""
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL) as child:
        try:
            until(lambda: answers(child, port), f"{arguments} to answer")
            yield child.pid
        finally:
            child.send_signal(signal.SIGTERM)


@contextmanager
def background(core: int) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=".out") as out:
        command = [sys.executable, "-m", "benchmarks._background", str(core), str(RATE)]
        with subprocess.Popen(command, cwd=ROOT, stdout=out) as child:
            try:
                until(lambda: Path(out.name).stat().st_size > 50, "core to take events")
                yield Path(out.name)
            finally:
                child.kill()


def taken(feeder: Path) -> float:
    """Events a second that core acknowledged since the feeder began."""
    counts = [int(line) for line in feeder.read_text().split()]
    return sum(counts) / max(1e-9, time.time() - feeder.stat().st_ctime + len(counts) * 1000 / RATE)


def answers(child: subprocess.Popen[bytes], port: int) -> bool:
    if child.poll() is not None:
        raise RuntimeError(f"{child.args} ended with {child.returncode}")
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False


def resident(pid: int) -> float:
    """Megabytes of memory that the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98]


if __name__ == "__main__":
    sys.exit(main())
