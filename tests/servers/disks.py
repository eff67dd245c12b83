"""Small disks of their own, which fill up, are emptied, or may not be written."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Disk:
    """A file system in memory at ``path``."""

    path: Path

    @property
    def _ballast(self) -> Path:
        return self.path / ".ballast"

    def fill(self) -> None:
        """Not one byte more goes in."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """As it was before ``fill``."""
        self._ballast.unlink()


@contextmanager
def disk(path: Path, size: str = "64m") -> Iterator[Disk]:
    """A disk of that size on ``path``, which is made; skips where we may not mount."""
    path.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path))
    try:
        yield Disk(path)
    finally:
        _run("umount", "--lazy", str(path))


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """What is at ``path`` can't be written meanwhile, by root neither; skips where we may not mount."""
    _mount("--bind", str(path), str(path))
    try:
        _mount("-o", "remount,bind,ro", str(path))
        yield
    finally:
        _run("umount", "--lazy", str(path))


def _mount(*words: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    done = _run("mount", *words)
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
