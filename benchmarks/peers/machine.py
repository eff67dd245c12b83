"""How fast this machine is just now: a fixed loop of numpy and Python, the peer of figures that have no other.

Run it before and after what is measured, and judge the scaled value; print the raw one beside it:

    before = machine.seconds()
    ...measure...
    slow = machine.slowness(before, machine.seconds())
    bar("check.p99", machine.scaled(milliseconds, slow), "ms", "<=5")
"""

from __future__ import annotations

import hashlib
import time

import numpy as np

# What the loop took on the machine for which the musts were set: two shared EPYC cores, quiet, 2026-11.
REFERENCE = 0.18


def seconds(rounds: int = 5) -> float:
    """The loop's quickest time of some rounds: a neighbour on the same cores can only lengthen it."""
    return min(_timed() for _ in range(rounds))


def slowness(before: float, after: float) -> float:
    """How many times slower than the reference this machine was between the two runs of the loop."""
    return (before + after) / 2 / REFERENCE


def scaled(value: float, slow: float, *, per_second: bool = False) -> float:
    """What the reference machine would have shown: of a duration, or of a rate ``per_second``."""
    return value * slow if per_second else value / slow


def _timed() -> float:
    began = time.perf_counter()
    _arrays()
    _objects()
    return time.perf_counter() - began


def _arrays() -> None:
    # No matrix products: their speed is the library's and the number of its threads, not the machine's.
    numbers = np.random.default_rng(1).integers(0, 1 << 20, 1_000_000)
    for _ in range(6):
        ordered = np.sort(numbers)
        np.cumsum(ordered)
        np.bincount(numbers & 0xFFFF)
        np.sqrt(numbers * 0.5 + 1.0)


def _objects() -> None:
    counts: dict[str, int] = {}
    for number in range(300_000):
        text = f"seller-{number % 997} at {number % 60}"
        name, _, minute = text.partition(" at ")
        counts[name] = counts.get(name, 0) + int(minute)
        if number % 20 == 0:
            hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    sorted(counts.items(), key=lambda item: item[1])


if __name__ == "__main__":
    print(f"{seconds():.3f} s, {slowness(seconds(), seconds()):.2f} times the reference")
