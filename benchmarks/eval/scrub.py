"""Addresses, names and tokens planted into the replies of a corpus: which are left, and what else is changed.

CORPUS=DIR names another corpus of the same layout, SEED=5 other people at other places.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks._bar import bar
from monitor.scrub import scrub
from tests.planting import found_in, gathered, planted

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("MAILVANE_SHARED") or ROOT.parent / "shared")
CORPUS = Path(os.environ.get("CORPUS") or SHARED / "corpus")
SEED = int(os.environ.get("SEED") or 1)
NUMBER = 1_000 if os.environ.get("QUICK") else 10_000
LIMIT = 5_000  # characters: more than any reply has, so that nothing is hidden by a cut


def main() -> int:
    """The exit status: 1 when a bar is short, 2 when the search does not find what was planted."""
    replies = gathered(CORPUS)
    if not replies:
        print(f"scrub: skipped, no replies in {CORPUS}; name another corpus by CORPUS=DIR")
        return 0
    nobody = [reply for reply in replies if "@" not in reply and reply.isprintable()]
    changed = [reply for reply in nobody if scrub(reply, LIMIT) != reply]
    print(f"scrub: {len(replies):,} replies, {len(nobody):,} without an @, {len(changed)} of them changed")
    left: Counter[str] = Counter()
    harmed: Counter[str] = Counter()
    for one in planted(NUMBER, SEED, [reply for reply in nobody if reply not in changed and len(reply) < 900]):
        if found_in(one.text, one.words) != sorted(one.words):
            print(f"scrub: the search does not find what was planted in the form {one.form!r}")
            return 2
        told = scrub(one.text, LIMIT)
        left[one.form] += bool(found_in(told, one.words))
        harmed[one.form] += bool(one.lost(told))
    for name, counted in (("left", +left), ("words around lost", +harmed)):
        print(f"scrub: {NUMBER:,} planted, {name}: {dict(counted) or 'none'}")
    print(f"scrub: {_each(replies):.1f} µs a reply")
    holds = [
        bar("scrub.left", sum(left.values()), "addresses", "==0"),
        bar("scrub.false", len(changed) / len(nobody), "share", "<=0.005"),
        bar("scrub.harmed", sum(harmed.values()) / NUMBER, "share", "<=0.005"),
    ]
    return 0 if all(holds) else 1


def _each(replies: list[str]) -> float:
    began = time.process_time()
    for reply in replies:
        scrub(reply)
    return (time.process_time() - began) / len(replies) * 1e6


if __name__ == "__main__":
    sys.exit(main())
