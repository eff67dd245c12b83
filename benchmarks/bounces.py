"""Bounces beside flufl.bounce: the same files in the same run, in turn, each read from bytes to recipients.

Ours also tells why each recipient failed; it remembers replies, as the service does, and the figure without is
printed beside. The files are the bounces of the shared corpus;
without it those of our tests.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._bar import bar
from benchmarks._peers import PEERS, child, python
from collectors._bounce import bounced
from collectors._mail import read
from collectors._reply import classify

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("MAILVANE_SHARED") or ROOT.parent / "shared")
CORPUS = Path(os.environ.get("CORPUS") or SHARED / "corpus")
ROUNDS = 3 if os.environ.get("QUICK") else 7


def main() -> int:
    """The exit status: 1 when a bar is short."""
    files = sorted(path for path in (CORPUS / "bounce").rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory(prefix="mailvane-bench-") as folder:
        if not files:
            print("bounces: the shared corpus is not here, so the bounces are those of our tests")
            files = _own(Path(folder))
        ours, theirs, found = _timed(files)
    print(f"bounces: {len(files)} mails, {found[0]} with a bounced recipient, {found[1]} by flufl.bounce")
    print(f"bounces: {len(files) / ours:,.0f} mails/s, flufl.bounce {len(files) / theirs:,.0f} mails/s")
    each = _warm()
    print(f"bounces: {1 / each:,.0f} replies/s with a warm cache")
    holds = [
        bar("bounces.vs_flufl", theirs / ours, "ratio", ">=1"),
        bar("bounces.replies", 1 / each, "replies/s", ">=200000"),
    ]
    return 0 if all(holds) else 1


def _timed(files: list[Path]) -> tuple[float, float, tuple[int, int]]:
    """Seconds of processor of a round, ours and the peer's, in turn; and what each found."""
    mails = [path.read_bytes() for path in files]
    began = time.process_time()
    for mail in mails:
        _read(mail)
    print(f"bounces: {len(files) / (time.process_time() - began):,.0f} mails/s where no reply was seen before")
    ours, theirs, by_peer, by_us = [], [], 0, 0
    with child(python(), PEERS / "flufl_bounces.py") as peer:
        for _ in range(ROUNDS):
            began = time.process_time()
            by_us = sum(map(_read, mails))
            ours.append(time.process_time() - began)
            answer = peer.ask(files=[str(path) for path in files])
            theirs.append(float(answer["seconds"]))
            by_peer = int(answer["found"])
    return min(ours), min(theirs), (by_us, by_peer)


def _read(raw: bytes) -> bool:
    return bool(bounced(read(raw)))


def _warm(rounds: int = 100_000) -> float:
    """Seconds of a reply that was seen before."""
    reply = "550 5.1.1 <someone@example.com>: Recipient address rejected: User unknown in virtual mailbox table"
    classify(reply, code=550, dsn="5.1.1")
    began = time.perf_counter()
    for _ in range(rounds):
        classify(reply, code=550, dsn="5.1.1")
    return (time.perf_counter() - began) / rounds


def _own(folder: Path) -> list[Path]:
    """The bounces of our tests, some of each."""
    golden = sorted((ROOT / "tests" / "golden" / "bounces").glob("*.eml"))
    written = []
    for number in range(40):
        for path in golden:
            written.append(folder / f"{number}-{path.name}")
            written[-1].write_bytes(path.read_bytes())
    return written


if __name__ == "__main__":
    sys.exit(main())
