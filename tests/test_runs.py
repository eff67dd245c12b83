"""The set of keys: it holds what was added and nothing else, in memory or in files."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.facts import runs
from monitor.facts.blocks import Blocks
from monitor.facts.prepare import prepare
from monitor.facts.runs import Runs
from monitor.facts.window import Outcomes, Window
from monitor.keyring import Keyring
from monitor.model import Batch
from tests.storing import store

EDGES = st.sampled_from([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1])
KEYS = st.integers(0, (1 << 64) - 1) | EDGES


def of(keys: set[int] | list[int]) -> runs.Keys:
    return np.array(sorted(keys), np.uint64)


@settings(max_examples=60, deadline=None)
@given(added=st.lists(st.sets(KEYS, max_size=40), max_size=12), asked=st.sets(KEYS, max_size=40))
@pytest.mark.parametrize("in_files", [False, True])
def test_it_holds_what_was_added_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, added: list[set[int]], asked: set[int], *, in_files: bool
) -> None:
    with pytest.MonkeyPatch.context() as small:
        for name, size in (("_YOUNG", 8), ("_SLICE", 16), ("_FENCE", 4)):
            small.setattr(runs, name, size)
        found = Runs(tmp_path_factory.mktemp("runs") if in_files else None)
        held: set[int] = set()
        for keys in added:
            found.add(of(keys - held))
            held |= keys
        assert found.size == len(held)
        assert found.has(of(held)).all()
        assert found.has(of(asked)).tolist() == [key in held for key in sorted(asked)]
        found.close()
        assert not found.has(of(held)).any()


def test_a_million_keys_take_files_without_names_and_little_memory(tmp_path: Path) -> None:
    luck = np.random.default_rng(5)
    found, some = Runs(tmp_path), []
    for _ in range(20):
        keys = luck.integers(0, 1 << 64, 60_000, np.uint64)
        some.append(keys[:100])
        found.add(keys)
    assert found.has(np.sort(np.concatenate(some))).all()
    assert not found.has(np.sort(luck.integers(0, 1 << 64, 10_000, np.uint64))).any()
    assert list(tmp_path.iterdir()) == []  # nothing to tidy up, whatever ends the process
    assert sum(len(run) for run in found._runs if isinstance(run, runs._InMemory)) < 600_000
    found.close()


@contextmanager
def scarce(size: int) -> Iterator[None]:
    """No file may grow beyond ``size``: a write is cut short there, as on a disk that fills, and the next refused."""
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_disk_that_fills_while_runs_are_merged_is_told_and_no_key_is_forgotten(tmp_path: Path) -> None:
    luck = np.random.default_rng(6)
    old, young = (luck.integers(0, 1 << 64, size, np.uint64) for size in (600_000, 500_000))
    found = Runs(tmp_path)
    found.add(old)
    with scarce(5_000_003), pytest.raises(OSError, match="File too large"):
        found.add(young)
    keys = np.sort(np.concatenate((old, young)))
    assert found.size == len(keys)
    assert found.has(keys).all()
    found.add(luck.integers(0, 1 << 64, 500_000, np.uint64))  # there is room again
    assert found.has(keys).all()
    found.close()


def test_a_day_whose_keys_found_no_room_is_read_back_from_the_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_YOUNG", 8)
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    with store(tmp_path / "facts") as facts, closing(Keyring.open(tmp_path / "keyring")) as keyring:
        window, blocks = Window(facts, tmp_path), Blocks(facts)
        told = []
        for batch in (1, 2):
            ids = [f"{batch} {number}" for number in range(100)]
            columns: dict[str, list[Any]] = {
                "kind": ["sent"] * 100,
                "at": [int(noon.timestamp() * 1_000_000)] * 100,
                "id": ids,
            }
            rows, _ = prepare(Batch(columns), "test", keyring, noon, bounds=None)
            days = np.full(100, noon.timestamp() // 86400, np.int64)
            told.append(Outcomes(rows["key"].to_numpy(), days, days, np.ones(100, np.bool_)))
            assert window.fresh(told[-1], batch - 1).all()
            blocks.put(rows.append_column("batch", pa.repeat(pa.scalar(batch, pa.uint64()), 100)), str(batch))
            with scarce(100):  # bytes
                window.add(told[-1])
        for outcomes in told:
            assert not window.fresh(outcomes, 2).any()
