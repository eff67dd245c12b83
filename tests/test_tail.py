"""A log is followed over its rotations: every byte once, in order."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors._lines import LIMIT, Lines
from collectors._tail import Position, follow


class Logs:
    """A folder in which a log is written and rotated, and a reader that is restarted at each read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mail.log"
        self.cursor: dict[str, object] = {}
        self.read = b""
        self.lost = 0
        self.clock = 1_700_000_000  # of the files: writes in quick succession would bear the same time
        self.write(b"")

    def write(self, content: bytes) -> None:
        with self.path.open("ab") as log:
            log.write(content)
        self._stamp(self.path)

    def rename(self) -> None:
        self._shift()
        self.path.rename(self.name(1))
        self.write(b"")

    def copy_and_truncate(self) -> None:
        self._shift()
        shutil.copyfile(self.path, self.name(1))
        self._stamp(self.name(1))
        os.truncate(self.path, 0)
        self._stamp(self.path)

    def compress(self) -> None:
        """The oldest file that is not compressed yet."""
        plain = [name for n in range(99, 0, -1) if (name := self.name(n)).exists()]
        for name in plain[:1]:
            packed = name.with_name(name.name + ".gz")
            packed.write_bytes(gzip.compress(name.read_bytes()))
            os.utime(packed, ns=(0, name.stat().st_mtime_ns))
            name.unlink()

    def follow(self, length: int = 7) -> None:
        for piece in follow(self.path, Position.of(self.cursor), length):
            self.read += piece.data
            self.lost += piece.lost
            self.cursor = json.loads(json.dumps(piece.position().dumped()))

    def name(self, number: int) -> Path:
        return self.path.with_name(f"mail.log.{number}")

    def _shift(self) -> None:
        for n in range(98, 0, -1):
            for suffix in ("", ".gz"):
                name = Path(f"{self.name(n)}{suffix}")
                if name.exists():
                    name.rename(f"{self.name(n + 1)}{suffix}")

    def _stamp(self, path: Path) -> None:
        self.clock += 1
        os.utime(path, (self.clock, self.clock))


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path)


def test_what_was_appended_is_read_once(logs):
    for part in (b"one\n", b"two\n", b"", b"three\n"):
        logs.write(part)
        logs.follow()
    assert logs.read == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("rotate", [Logs.rename, Logs.copy_and_truncate])
def test_the_rest_of_a_rotated_file_is_read_before_the_new_one(logs, rotate):
    logs.write(b"one\n")
    logs.follow()
    logs.write(b"two\n")
    rotate(logs)
    logs.write(b"three\n")
    logs.follow()
    assert logs.read == b"one\ntwo\nthree\n"
    assert not logs.lost


def test_an_old_file_is_not_left_while_the_new_one_is_empty(logs):
    logs.write(b"one\n")
    logs.follow()
    logs.rename()
    logs.follow()
    with logs.name(1).open("ab") as old:  # the writer has not been told yet
        old.write(b"two\n")
    logs.follow()
    logs.write(b"three\n")
    logs.follow()
    assert logs.read == b"one\ntwo\nthree\n"


def test_a_file_that_is_not_there_for_a_moment_is_no_error_once_it_was_read(logs):
    logs.write(b"one\n")
    logs.follow()
    logs.path.rename(logs.name(1))
    logs.follow()
    assert logs.read == b"one\n"


def test_a_file_that_was_never_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(follow(tmp_path / "mail.log", Position()))


@pytest.mark.parametrize("rotate", [Logs.rename, Logs.copy_and_truncate])
def test_what_was_compressed_meanwhile_is_read_all_the_same(logs, rotate):
    logs.write(b"one\n")
    logs.follow()
    logs.write(b"two\n")
    for part in (b"three\n", b"four\n", b"five\n"):
        rotate(logs)
        logs.write(part)
    logs.compress()
    logs.compress()
    logs.follow()
    assert logs.read == b"one\ntwo\nthree\nfour\nfive\n"
    assert not logs.lost


def test_a_file_that_is_being_compressed_is_read_once(logs):
    logs.write(b"one\n")
    logs.follow()
    for part in (b"two\n", b"three\n"):
        logs.rename()
        logs.write(part)
    logs.rename()
    partial = logs.name(2).with_name("mail.log.2.gz")
    partial.write_bytes(gzip.compress(b"two\n"))  # its time is put right, and the plain one removed, at the end only
    logs.write(b"four\n")
    logs.follow()
    assert logs.read == b"one\ntwo\nthree\nfour\n"


def test_a_file_that_was_deleted_unread_is_told(logs):
    logs.write(b"one\n")
    logs.follow()
    logs.write(b"two\n")
    for part in (b"three\n", b"four\n"):
        logs.rename()
        logs.write(part)
    logs.name(2).unlink()
    logs.follow()
    assert logs.read == b"one\nthree\nfour\n"
    assert logs.lost == 1


def test_a_log_that_was_emptied_without_a_copy_is_told(logs):
    logs.write(b"one\n")
    logs.follow()
    os.truncate(logs.path, 0)
    logs.write(b"two\nand more\n")
    logs.follow()
    assert logs.read == b"one\ntwo\nand more\n"
    assert logs.lost == 1


def test_a_compressed_file_that_is_cut_short_is_told(logs):
    content = b"one\n" + os.urandom(4000)
    logs.write(content[:4])
    logs.follow()
    logs.write(content[4:])
    logs.rename()
    packed = gzip.compress(content)
    logs.name(1).with_name("mail.log.1.gz").write_bytes(packed[:-500])
    logs.name(1).unlink()
    logs.write(b"two\n")
    logs.follow()
    assert logs.read.startswith(b"one\n")
    assert logs.read.endswith(b"two\n")
    assert logs.lost == 1


def test_a_log_moved_to_another_disk_is_still_the_same(logs):
    logs.write(b"one\n")
    logs.follow()
    copy = logs.path.with_name("copy")
    shutil.copyfile(logs.path, copy)
    copy.replace(logs.path)
    logs.write(b"two\n")
    logs.follow()
    assert logs.read == b"one\ntwo\n"


def test_other_files_beside_the_log_are_left_alone(logs):
    logs.write(b"one\n")
    logs.follow()
    for name in ("mail.log.offset", "mail.log.bak", "mail.logs.1", "mail.log.1.swp"):
        logs.path.with_name(name).write_bytes(b"other\n")
        os.utime(logs.path.with_name(name), (2_000_000_000, 2_000_000_000))
    logs.rename()
    logs.write(b"two\n")
    logs.follow()
    assert logs.read == b"one\ntwo\n"


def test_a_cursor_holds_nothing_of_the_text(logs):
    logs.write(b"secret@person.example\n")
    logs.follow()
    assert "secret" not in json.dumps(logs.cursor)


STEPS = st.lists(st.sampled_from(["write", "write", "follow", "rename", "copy", "compress"]), max_size=25)


@settings(deadline=None, max_examples=150)
@given(steps=STEPS, length=st.integers(1, 40))
def test_every_byte_is_read_once_and_in_order_whatever_happens(steps, length):
    with tempfile.TemporaryDirectory() as folder:
        logs, written = Logs(Path(folder)), b""
        logs.follow()
        for number, step in enumerate(steps):
            match step:
                case "write":
                    written += b"line %d\n" % number
                    logs.write(b"line %d\n" % number)
                case "follow":
                    logs.follow(length)
                case "rename" if logs.path.stat().st_size:
                    logs.rename()
                case "copy" if logs.path.stat().st_size:
                    logs.copy_and_truncate()
                case "compress":
                    logs.compress()
        logs.follow(length)
        logs.write(b"end\n")
        logs.follow(length)
        assert logs.read == written + b"end\n"
        assert not logs.lost


LONG = st.builds(lambda n, c: c * n, st.sampled_from([0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT]), st.just(b"x"))


@settings(deadline=None, max_examples=60)
@given(lines=st.lists(LONG, max_size=6), cuts=st.lists(st.integers(0, 8 * LIMIT), max_size=8), ended=st.booleans())
def test_lines_are_the_same_however_the_bytes_are_cut(lines, cuts, ended):
    content = b"\n".join(lines) + (b"\n" if ended else b"")
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    whole, parts = Lines(), Lines()
    once = whole.push(content) + whole.finish()
    pieces = b"".join(parts.push(content[a:b]) for a, b in pairwise(places)) + parts.finish()
    assert pieces == once
    assert parts.dropped == whole.dropped
    assert all(len(line) <= LIMIT for line in once.split(b"\n"))
    assert whole.dropped == sum(len(line) > LIMIT for line in content.split(b"\n"))
