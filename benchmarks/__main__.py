"""Run the benchmarks of a group, or one of them: ``python -m benchmarks bench|eval|eval_detect [NAME]``.

A benchmark is a module that runs by itself (``python -m benchmarks.sendlog``) and prints a line for each bar:
``BAR <bench.figure> <value> <unit> <must> ok|short``. Groups but ``bench`` are folders. Names that begin with _ are
helpers. The exit status is 1 when a bar is short or a benchmark fails, 2 when there is no such benchmark.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
GROUPS = ("bench", "eval", "eval_detect")


def modules(root: Path, group: str) -> dict[str, str]:
    """The benchmarks of a group: name → module, sorted."""
    package = "benchmarks" if group == "bench" else f"benchmarks.{group}"
    folder = root.joinpath(*package.split("."))
    return {file.stem: f"{package}.{file.stem}" for file in sorted(folder.glob("[!_]*.py"))}


def run(root: Path, module: str) -> Iterator[str]:
    """The lines that a benchmark prints, as they come.

    Raises:
        subprocess.CalledProcessError: it failed by itself, at the end of its lines.
    """
    command = [sys.executable, "-u", "-m", module]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield from child.stdout
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)


def bars(root: Path, module: str) -> tuple[list[str], bool]:
    """Print a benchmark's lines; its bars, and whether it failed."""
    found: list[str] = []
    try:
        for line in run(root, module):
            print(line, end="", flush=True)
            if line.startswith("BAR "):
                found.append(line.strip())
    except subprocess.CalledProcessError as error:
        return found, not any(bar.endswith(" short") for bar in found) or error.returncode != 1
    return found, False


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Run what the arguments name out of ``root/benchmarks``; the exit status."""
    group, *names = arguments or ["bench"]
    if group not in GROUPS:
        print(f"{group} is no group of benchmarks: choose out of {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    known = modules(root, group)
    if unknown := [name for name in names if name not in known]:
        print(f"No {group} named {unknown[0]}; there are: {', '.join(known) or 'none yet'}", file=sys.stderr)
        return 2
    chosen = names or list(known)
    if os.environ.get("QUICK"):
        print("QUICK: the same musts at a smaller size", flush=True)
    total, short, failed = 0, [], []
    for name in chosen:
        began = time.monotonic()
        found, broke = bars(root, known[name])
        total += len(found)
        short += [bar for bar in found if bar.endswith(" short")]
        failed += [name] if broke else []
        print(f"{name}: {len(found)} bars in {time.monotonic() - began:.0f} s{', failed' if broke else ''}", flush=True)
    print(f"{total} bars, {len(short)} short, {len(failed)} benchmarks failed")
    for bar in short:
        print(f"  {bar}")
    return 1 if short or failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
