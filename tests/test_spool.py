"""The spool: what it acknowledged is on disk, in order, once; what it could not keep it says."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.facts.errors import DirectoryInUse
from monitor.spool import Spool, SpoolCorrupt, SpoolFull


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@contextmanager
def opened(folder: Path, **limits: int) -> Iterator[Spool]:
    spool = Spool(folder, **limits)
    try:
        yield spool
    finally:
        spool.close()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def test_frames_come_back_in_order_after_a_restart(folder: Path) -> None:
    with opened(folder) as spool:
        assert [spool.append(payload) for payload in (b"a", b"", b"c" * 1000)] == [1, 2, 3]
    with opened(folder) as spool:
        assert spool.last == 3
        assert list(spool.read(0)) == [(1, b"a"), (2, b""), (3, b"c" * 1000)]
        assert list(spool.read(2)) == [(3, b"c" * 1000)]
        assert list(spool.read(3)) == []
        assert spool.append(b"d") == 4


@settings(max_examples=40, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=40),
    limit=st.integers(1, 500),
    after=st.integers(0, 45),
    released=st.integers(0, 45),
)
def test_reading_and_releasing_lose_nothing_whatever_the_segments(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], limit: int, after: int, released: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    with opened(folder, segment_bytes=limit) as spool:
        for payload in payloads:
            spool.append(payload)
        spool.release(min(released, spool.last))
        spool.release(min(released, spool.last))
        expected = [(place, payload) for place, payload in enumerate(payloads, 1) if place > after]
        kept = [frame for frame in expected if frame[0] > released]
        found = list(spool.read(after))
        assert [frame for frame in found if frame[0] > released] == kept
        assert set(found) <= set(expected)
    with opened(folder, segment_bytes=limit) as spool:
        assert spool.last == len(payloads)
        assert [frame for frame in spool.read(after) if frame[0] > released] == kept


def test_threads_share_an_fdatasync_and_each_gets_its_own_sequence(folder: Path) -> None:
    with opened(folder, segment_bytes=4096) as spool:
        told: dict[int, bytes] = {}
        lock = threading.Lock()

        def bring(worker: int) -> None:
            for turn in range(40):
                payload = f"{worker}:{turn}".encode() * 5
                sequence = spool.append(payload)
                with lock:
                    told[sequence] = payload

        threads = [threading.Thread(target=bring, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(told) == list(range(1, 321))
        assert dict(spool.read(0)) == told


def test_a_reader_goes_on_while_segments_are_released(folder: Path) -> None:
    with opened(folder, segment_bytes=64) as spool:
        for place in range(20):
            spool.append(bytes([place]) * 60)
        reading = spool.read(0)
        assert next(reading)[0] == 1
        spool.release(15)
        assert [sequence for sequence, _ in reading][-5:] == [16, 17, 18, 19, 20]


def test_numbering_goes_on_when_everything_was_released(folder: Path) -> None:
    with opened(folder, segment_bytes=64) as spool:
        for _ in range(10):
            spool.append(b"x" * 60)
        spool.release(10)
        assert spool.size == 0
    with opened(folder) as spool:
        assert spool.last == 10
        assert spool.append(b"y") == 11
        assert list(spool.read(0)) == [(11, b"y")]


def test_a_lost_spool_does_not_give_out_numbers_again(folder: Path) -> None:
    with opened(folder) as spool:
        spool.skip(41)
        assert spool.append(b"new") == 42
        spool.skip(7)
        assert spool.append(b"newer") == 43
    with opened(folder) as spool:
        assert list(spool.read(41)) == [(42, b"new"), (43, b"newer")]


def test_another_spool_has_another_name(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as one, opened(tmp_path / "b") as two:
        assert one.name != two.name
        kept = one.name
    with opened(tmp_path / "a") as one:
        assert one.name == kept


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 120), tail=st.binary(max_size=30))
def test_a_torn_tail_is_cut_off_and_what_stood_before_it_stays(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    with opened(folder) as spool:
        for payload in (b"first", b"second", b"last" * 25):
            spool.append(payload)
    [segment] = segments(folder)
    whole = segment.read_bytes()
    cut = min(cut, 16 + 100)
    segment.write_bytes(whole[:-cut] + tail[: cut - 1])  # as much of the last frame as a crash left, and rubbish
    with opened(folder) as spool:
        assert [payload for _, payload in spool.read(0)][:2] == [b"first", b"second"]
        torn = whole[:-cut] + tail[: cut - 1] != whole
        assert spool.last == (2 if torn else 3)
        assert spool.append(b"again") == spool.last
        assert list(spool.read(spool.last - 1)) == [(spool.last, b"again")]


def test_a_broken_frame_before_whole_ones_is_an_error_that_names_file_and_offset(folder: Path) -> None:
    with opened(folder) as spool:
        for payload in (b"first", b"second", b"third"):
            spool.append(payload)
    [segment] = segments(folder)
    broken = bytearray(segment.read_bytes())
    offset = 16 + len(b"first")
    broken[offset + 16] ^= 1  # in the payload of the second
    segment.write_bytes(broken)
    with pytest.raises(SpoolCorrupt, match=rf"{segment.name}: broken frame 2 at offset {offset}"):
        Spool(folder)
    broken[offset + 2] ^= 1  # in its length too: where the third begins can't be told from it
    segment.write_bytes(broken)
    with pytest.raises(SpoolCorrupt, match=rf"offset {offset}"):
        Spool(folder)


def test_a_broken_frame_in_an_older_segment_is_found_when_it_is_read(folder: Path) -> None:
    with opened(folder, segment_bytes=16) as spool:
        for payload in (b"first", b"second", b"third"):
            spool.append(payload)
    oldest = segments(folder)[0]
    oldest.write_bytes(oldest.read_bytes()[:-1] + b"?")
    with opened(folder) as spool:
        with pytest.raises(SpoolCorrupt, match=rf"{oldest.name}: broken frame 1 at offset 0"):
            list(spool.read(0))
        assert list(spool.read(1)) == [(2, b"second"), (3, b"third")]


def test_a_full_spool_refuses_until_some_of_it_was_applied(folder: Path) -> None:
    with opened(folder, max_bytes=1000) as spool:
        while True:
            try:
                spool.append(b"x" * 100)
            except SpoolFull:
                break
        assert spool.size <= 1000
        assert spool.last == 8
        spool.release(8)
        assert spool.append(b"y" * 100) == 9
        assert list(spool.read(8)) == [(9, b"y" * 100)]


def test_a_full_disk_leaves_whole_frames_and_the_next_one_fits_again(folder: Path) -> None:
    with opened(folder) as spool:
        spool.append(b"before")
        with limited_files(500):
            with pytest.raises(SpoolFull, match="disk is full"):
                spool.append(b"x" * 1000)
            assert spool.append(b"small") == 2
        assert spool.append(b"y" * 1000) == 3
    with opened(folder) as spool:
        assert list(spool.read(0)) == [(1, b"before"), (2, b"small"), (3, b"y" * 1000)]


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process may grow past ``size``: a write is cut short, and then refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_second_process_is_told_that_the_directory_is_in_use(folder: Path) -> None:
    with opened(folder):
        with pytest.raises(DirectoryInUse, match=f"in use by another process: {folder}"):
            Spool(folder)  # another handle of one process is refused as well
        told = subprocess.run(
            [sys.executable, "-c", "import sys, pathlib, monitor.spool as s; s.Spool(pathlib.Path(sys.argv[1]))", folder],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert f"DirectoryInUse: the spool is in use by another process: {folder}" in told.stderr
    with opened(folder):
        pass


def test_waiting_ends_with_the_first_frame_or_in_time(folder: Path) -> None:
    with opened(folder) as spool:
        assert not spool.wait(0, 0.01)
        thread = threading.Timer(0.05, spool.append, (b"x",))
        thread.start()
        assert spool.wait(0, 30)
        thread.join()
        assert spool.wait(0, 0.01, enough=10_000)  # not enough, but time is up
        spool.append(b"y" * 20_000)
        assert spool.wait(0, 30, enough=10_000)  # what is there already counts


def test_closing_wakes_those_who_wait_and_refuses_frames(folder: Path) -> None:
    spool = Spool(folder)
    waiting = threading.Thread(target=spool.wait, args=(0, 60))
    waiting.start()
    spool.close()
    waiting.join(30)
    assert not waiting.is_alive()
    with pytest.raises(ValueError, match="closed"):
        spool.append(b"x")


def test_nobody_else_may_read_the_files(folder: Path) -> None:
    with opened(folder) as spool:
        spool.append(b"x")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
