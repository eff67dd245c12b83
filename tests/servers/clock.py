"""A wall clock that a test sets for all processes that it starts from then on; their steady clock stays as it is.

    clock = Clock.made(tmp_path, monkeypatch)     # skips where Debian's package faketime is missing
    with mailvane(tmp_path, "") as service:
        clock.set(-3600)                          # an hour behind the machine's

The engine goes on by the machine's clock: the product tells it each time that matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest


@dataclass
class Clock:
    """Seconds by which the processes' clock differs from the machine's."""

    file: Path
    lead: float = 0.0

    @classmethod
    def made(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """In step with the machine's at first."""
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            pytest.skip("faketime is not here")
        clock = cls(folder / "clock")
        clock.set(0)
        for name, value in (
            ("LD_PRELOAD", str(found[0])),
            ("FAKETIME_TIMESTAMP_FILE", str(clock.file)),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ):
            monkeypatch.setenv(name, value)
        return clock

    def set(self, lead: float) -> None:
        """All at once, as an operator or a peer's mistake would."""
        draft = self.file.with_suffix(".new")
        draft.write_text(f"{lead:+g}\n")
        draft.replace(self.file)
        self.lead = lead

    @property
    def now(self) -> datetime:
        """What the processes take for now."""
        return datetime.now(UTC) + timedelta(seconds=self.lead)
