"""How much memory a process holds, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path


def resident(pid: int) -> int:
    """Bytes of its own: without what it shares with a file, such as the engine's code, which may come and go."""
    return _field(pid, "RssAnon")


def forget_peak(pid: int) -> None:
    """``peak`` counts from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The most bytes that it held, files' included."""
    return _field(pid, "VmHWM")


def _field(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024
