"""How fast replies are classified: warm, as a log brings them, and cold, each template for the first time.

Warm replies are of a hundred kinds from forty servers; each has an address of its own, every third an id too, and every
fifth comes again letter by letter. Cold ones are every fragment of the table, and as many of which nothing is known.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from benchmarks._bar import bar
from collectors import _reply
from collectors._reply import classify
from collectors._reply_table import rows

KINDS = 100
WARM = 50_000 if os.environ.get("QUICK") else 200_000
ROUNDS = 5


def main() -> int:
    """The exit status: 1 when a bar is short."""
    warm = [warmed(number) for number in range(WARM)]
    fragments = [row.fragment for row in rows()]
    fragments += [" ".join(reversed(fragment.split())) for fragment in fragments]
    fresh = [first(number, fragment) for number, fragment in enumerate(fragments)]
    seconds = best(lambda: classified(warm))
    cold = best(lambda: forgotten(fresh))
    words = best(lambda: [text.split() for text in warm])
    print(f"replies: {WARM / seconds:,.0f}/s warm, {len(fresh) / cold:,.0f}/s cold, {WARM / words:,.0f}/s split only")
    holds = [
        bar("replies.warm", WARM / seconds, "replies/s", ">=200000"),
        bar("replies.cold", len(fresh) / cold, "replies/s", ">=5000"),
    ]
    return 0 if all(holds) else 1


FRAGMENTS = tuple(row.fragment for row in rows())[:: max(1, sum(1 for _ in rows()) // KINDS)][:KINDS]


def warmed(number: int) -> str:
    """One of the replies of a busy minute."""
    fragment = FRAGMENTS[number % len(FRAGMENTS)]
    host = f"mx{number % 40}.example.net[192.0.2.{number % 40}]"
    if number % 5 == 0:
        return f"host {host} said: 550 5.7.1 {fragment} (in reply to RCPT TO command)"
    mark = f" id={number:x}af" if number % 3 == 0 else ""
    return f"host {host} said: 550 5.7.1 <user{number}@example.com>: {fragment}{mark} (in reply to RCPT TO command)"


def first(number: int, fragment: str) -> str:
    """A reply whose template nobody has seen."""
    return f"550 5.7.1 <user{number}@example.com>: {fragment} here"


def classified(texts: Sequence[str]) -> None:
    """Classify them all."""
    for text in texts:
        classify(text)


def forgotten(texts: Sequence[str]) -> None:
    """Classify them all as if for the first time."""
    _reply._classified.cache_clear()  # noqa: SLF001  # what a benchmark of the cold road is about
    classified(texts)


def best(work: Callable[[], object]) -> float:
    """Seconds of the best of some rounds: the others were somebody else's."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


if __name__ == "__main__":
    raise SystemExit(main())
