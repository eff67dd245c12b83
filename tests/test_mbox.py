"""An mbox is followed as it grows: each letter once, the last one when it is whole, whatever is cut, rotated or emptied."""

from __future__ import annotations

import json
import mailbox
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors._locks import locked
from collectors._mbox import Splitter, is_start
from collectors._strange import LARGE
from collectors.mbox import LOST, Mbox
from monitor.model import Batch, Kind
from monitor.ports import Memory, PluginError
from tests import loops
from tests.letters import BOUNCE, COMPLAINT, SPAM, letter, recipient

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
LINE = b"From MAILER-DAEMON Tue Nov 24 09:00:00 2026\n"


class Reader:
    """A source that is restarted at each read, and all that it told."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path, self.settings = path, {"quiet": "30s", **settings}
        self.cursor: dict[str, Any] = {}
        self.told: list[str] = []
        self.rejected: list[str] = []
        self.places: list[str] = []
        self.now = NOW

    def read(self, *, late: bool = False, die_before: int = 0) -> int:
        """One look; ``late``: the file has been left alone for long. ``die_before`` that batch is dealt with."""
        if self.path.exists():
            at = (self.now - timedelta(hours=1 if late else 0)).timestamp()
            os.utime(self.path, (at, at))
        told = Mbox(path=self.path, **self.settings).collect(Memory(self.cursor), self.now)
        batches = 0
        for batch in told:
            batches += 1
            if batches == die_before:
                break
            self.commit(batch)
        told.close()
        return batches

    def commit(self, batch: Batch) -> None:
        self.cursor = json.loads(json.dumps(batch.cursor))
        self.told += batch.columns.get("recipient", ())
        self.places += batch.places
        self.rejected += [item.why for item in batch.rejected]


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "bounces"
    path.touch()
    return path


def entry(number: int, kind: str = BOUNCE, end: bytes = b"\n") -> bytes:
    """A letter as a mail server puts it into an mbox."""
    content = letter(kind, number, NOW - timedelta(minutes=5)).content.replace(b"\r\n", b"\n")
    return (LINE + content.replace(b"\nFrom ", b"\n>From ") + b"\n").replace(b"\n", end)


def append(path: Path, *parts: bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(parts))


def whom(*numbers: int) -> list[str]:
    return [recipient(number) for number in numbers]


def split(data: bytes, size: int, largest: int = 1 << 20) -> tuple[list[bytes], int]:
    splitter = Splitter(largest)
    found = []
    for at in range(0, len(data), size):
        found += [text for text, _ in splitter.push(data[at : at + size])]
    found += [text for text, _ in splitter.finish()]
    return found, splitter.dropped


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_letters_are_told_when_the_next_one_begins_and_the_last_when_it_is_left_alone(box, end):
    append(box, entry(1, end=end), entry(2, end=end))
    reader = Reader(box)
    reader.read()
    assert reader.told == whom(1)
    append(box, entry(3, end=end))
    reader.read()
    assert reader.told == whom(1, 2)
    reader.read(late=True)
    assert reader.told == whom(1, 2, 3)
    assert reader.read(late=True) == 0


def test_a_letter_that_is_half_written_waits_for_the_rest(box):
    whole = entry(1)
    append(box, whole[:200])
    reader = Reader(box)
    reader.read()
    append(box, whole[200:], entry(2)[:10])
    reader.read()
    append(box, entry(2)[10:])
    reader.read(late=True)
    assert reader.told == whom(1, 2)


def test_a_place_tells_where_in_the_file_a_letter_begins(box):
    append(box, entry(1), entry(2))
    reader = Reader(box)
    reader.read(late=True)
    assert reader.places == [f"{box} byte 0", f"{box} byte {len(entry(1))}"]


def test_a_file_with_one_letter_and_no_from_line_is_an_mbox_too(box):
    append(box, letter(BOUNCE, 1, NOW).content)
    reader = Reader(box)
    reader.read()
    assert reader.told == []
    reader.read(late=True)
    assert reader.told == whom(1)


def test_complaints_and_spam_among_bounces_are_what_they_are(box):
    append(box, entry(1), entry(2, SPAM), entry(3, COMPLAINT), entry(4))
    reader = Reader(box)
    reader.read(late=True)
    assert sorted(reader.told) == sorted(whom(1, 3, 4))


def test_no_letter_is_lost_or_told_twice_over_a_rotation(box):
    reader = Reader(box)
    append(box, entry(1))
    reader.read(late=True)
    append(box, entry(2), entry(3))
    reader.read()
    box.rename(box.with_name("bounces.1"))
    append(box, entry(4), entry(5))
    reader.read(late=True)
    assert reader.told == whom(1, 2, 3, 4, 5)
    assert reader.rejected == []


def test_an_mbox_that_another_program_emptied_is_read_from_its_start(box):
    append(box, *map(entry, range(5)))
    reader = Reader(box)
    reader.read(late=True)
    box.write_bytes(entry(7))
    reader.read(late=True)
    assert reader.told == whom(0, 1, 2, 3, 4, 7)
    assert reader.rejected == [LOST]


def test_an_mbox_from_which_a_letter_was_taken_is_read_anew(box):
    append(box, *map(entry, range(4)))
    reader = Reader(box)
    reader.read(late=True)
    rest = box.read_bytes()[: len(entry(0))] + b"".join(map(entry, (2, 3, 4, 5)))
    box.write_bytes(rest + b" " * 3)
    reader.read(late=True)
    assert set(whom(4, 5)) <= set(reader.told)
    assert reader.rejected.count(LOST) <= 1


@pytest.mark.parametrize("die_before", [1, 2])
def test_a_kill_before_the_commit_loses_nothing(box, die_before):
    append(box, *map(entry, range(300)))  # more than one piece
    reader = Reader(box)
    reader.read(late=True, die_before=die_before)
    reader.read(late=True)
    assert reader.told == whom(*range(300))


def test_a_letter_over_the_largest_is_left_out_and_told(box):
    append(box, entry(1), LINE, b"Subject: large\n\n", b"x" * 60 + b"\n", b"y" * 5_000_000, b"\n\n", entry(2))
    reader = Reader(box, largest=100_000)
    reader.read(late=True)
    assert reader.told == whom(1, 2)
    assert reader.rejected == [LARGE]


def test_one_that_is_too_large_and_still_grows_is_not_kept(box):
    append(box, LINE, b"Subject: large\n\n", b"x" * 300_000)
    reader = Reader(box, largest=100_000)
    reader.read()
    assert reader.cursor["skipping"]
    assert reader.cursor["offset"] > 290_000
    append(box, b"x" * 300_000)
    reader.read()
    append(box, b"\n\n", entry(1))
    reader.read(late=True)
    assert reader.told == whom(1)
    assert reader.rejected == [LARGE]


@pytest.mark.parametrize(
    "line",
    [
        b"From MAILER-DAEMON Tue Nov 24 09:00:00 2026",
        b"From a@b.example  Tue Nov  4 09:00:00 2026 +0100",
        b'From "two words"@b.example Tue Nov 24 09:00 2026',
        b"From  Tue Nov 24 09:00:00 UTC 2026",
        b"From x Tue, Nov 24 09:00:00 2026",
    ],
)
def test_from_lines_of_many_writers_are_known(line):
    assert is_start(line)


@pytest.mark.parametrize("line", [b"From here on, all is well.", b"From: a@b.example", b"From Tuesday on", b"From "])
def test_what_people_write_is_no_from_line(line):
    assert not is_start(line)


def test_lines_that_were_escaped_are_as_they_were_and_others_are_left():
    found, _ = split(
        LINE + b"Subject: x\n\n>From here\n>>From there\nFrom people\n> From x\n\n" + LINE + b"a\n", 1 << 20
    )
    assert found == [LINE + b"Subject: x\n\nFrom here\n>From there\nFrom people\n> From x\n\n", LINE + b"a\n"]


def test_a_content_length_hides_no_letter(box):
    """Its sender wrote it."""
    first = entry(1).replace(b"Subject:", b"Content-Length: 100000\nSubject:", 1)
    append(box, first, entry(2))
    reader = Reader(box)
    reader.read(late=True)
    assert reader.told == whom(1, 2)


BODIES = st.lists(
    st.lists(
        st.sampled_from([b"", b"text", b"From here", b">From there", b"From a@b Tue Nov 24 09:00:00 2026", b"x" * 90]),
        max_size=8,
    ),
    max_size=6,
)


@settings(max_examples=200)
@given(BODIES, st.integers(1, 400))
def test_letters_are_those_that_pythons_own_mbox_holds_however_they_are_cut(tmp_path_factory, bodies, size):
    path = tmp_path_factory.mktemp("theirs") / "mbox"
    theirs = mailbox.mbox(str(path))
    for number, lines in enumerate(bodies):
        theirs.add(b"Subject: %d\n\n" % number + b"\n".join(lines) + b"\n")
    theirs.flush()
    found, dropped = split(path.read_bytes(), size)
    wanted = [theirs.get_bytes(key) for key in theirs.iterkeys()]
    theirs.close()
    assert dropped == 0
    assert [text.split(b"\n", 1)[1].replace(b">From ", b"From ").strip() for text in found] == [
        text.replace(b">From ", b"From ").strip() for text in wanted
    ]


@settings(max_examples=300)
@given(st.binary(max_size=400), st.integers(1, 60), st.integers(10, 200))
def test_any_bytes_give_the_same_letters_however_they_are_cut(noise, size, largest):
    data = (LINE + noise + b"\n\n" + LINE + noise[:50] + b"\n\nFrom ") * 3
    assert split(data, size, largest) == split(data, len(data), largest)


def test_an_mbox_is_emptied_when_all_of_it_was_read(box):
    append(box, entry(1), entry(2))
    reader = Reader(box, done="empty")
    reader.read()
    assert box.stat().st_size
    reader.read(late=True)
    assert box.stat().st_size == 0
    assert not box.with_name("bounces.lock").exists()
    append(box, entry(3))
    reader.read(late=True)
    assert reader.told == whom(1, 2, 3)
    assert reader.rejected == []


def test_a_kill_right_after_it_was_emptied_is_no_loss(box):
    append(box, *map(entry, range(3)))
    reader = Reader(box, done="empty")
    reader.read(late=True, die_before=2)  # the first holds the letters, the second says that the file is empty
    assert box.stat().st_size == 0
    append(box, entry(3))
    reader.read(late=True)
    assert reader.told == whom(0, 1, 2, 3)
    assert reader.rejected == []


HOLDER = """
import fcntl, sys
with open(sys.argv[1], "rb+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_an_mbox_that_another_program_has_locked_is_not_emptied(box):
    append(box, entry(1))
    reader = Reader(box, done="empty")
    beside = box.with_name("bounces.lock")
    beside.touch()
    os.utime(beside, (NOW.timestamp(),) * 2)
    reader.read(late=True)
    assert beside.exists()
    assert box.stat().st_size
    reader.now += timedelta(minutes=11)  # who made that lock has died
    reader.read(late=True)
    assert reader.told == whom(1)
    assert box.stat().st_size == 0


def test_the_kernels_lock_of_another_program_keeps_us_out(box):
    append(box, entry(1))
    reader = Reader(box, done="empty")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(box)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"locked\n"
        reader.read(late=True)
        assert box.stat().st_size
        other.communicate(b"")
    reader.read(late=True)
    assert box.stat().st_size == 0
    assert reader.told == whom(1)


def test_what_comes_while_it_is_read_is_not_thrown_away(box):
    append(box, entry(1))
    reader = Reader(box, done="empty")
    os.utime(box, (0, 0))
    told = Mbox(path=box, done="empty").collect(Memory(), NOW)
    reader.commit(next(told))
    append(box, entry(2))
    assert list(told) == []
    assert box.stat().st_size
    reader.read(late=True)
    assert reader.told == whom(1, 2)


def test_locks_are_let_go_whatever_happens(box):
    with pytest.raises(ZeroDivisionError), locked(box, NOW):
        raise ZeroDivisionError
    with locked(box, NOW) as file:
        assert file is not None


def test_an_mbox_that_may_not_be_emptied_is_told(tmp_path):
    (tmp_path / "real").write_bytes(entry(1))
    os.utime(tmp_path / "real", (0, 0))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PluginError, match="can't be emptied"):
        list(Mbox(path=tmp_path / "link", done="empty").collect(Memory(), NOW))


def test_what_is_no_mbox_is_told_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PluginError, match="no plain file"):
        list(Mbox(path=tmp_path / "pipe").collect(Memory(), NOW))
    with pytest.raises(PluginError, match="No such file"):
        list(Mbox(path=tmp_path / "nowhere").collect(Memory(), NOW))
    assert "No such file" in Mbox(path=tmp_path / "nowhere").unreadable()


def complaints(*numbers: int) -> bytes:
    return b"".join(LINE + loops.complaint(number, NOW) + b"\n" for number in numbers)


def test_a_signed_complaint_is_as_good_as_evidence_in_an_mbox(box):
    append(box, complaints(1))
    os.utime(box, (0, 0))
    with loops.keys() as dns:
        (told,) = Mbox(path=box, resolvers=(dns.address,)).collect(Memory(), NOW)
    assert told.columns["kind"] == (Kind.COMPLAINT,)


def test_letters_whose_reporters_key_is_out_of_reach_are_read_again_later(box):
    append(box, entry(1), complaints(2), entry(3), complaints(4), entry(5))
    with loops.keys() as dns:
        loops.fail(dns)
        reader = Reader(box, done="empty", resolvers=(dns.address,))
        source = Mbox(path=box, **reader.settings)

        def look() -> list[str]:  # at a minute's distance
            told = [row for batch in _kept(source, reader) for row in batch]
            reader.now += timedelta(minutes=1)
            return told

        at = (NOW.timestamp() - 31,) * 2
        os.utime(box, at)
        assert look() == whom(1, 3, 5)
        assert look() == whom(3, 5)  # told again, which counts nothing twice
        assert look() == []
        loops.mend(dns)
        source = Mbox(path=box, **reader.settings)  # one that has not asked yet
        assert look() == [loops.whom(2), *whom(3), loops.whom(4), *whom(5)]
        assert look() == []
        assert box.stat().st_size == 0


def test_one_whose_key_stays_out_of_reach_is_given_up(box):
    append(box, complaints(2))
    with loops.keys() as dns:
        loops.fail(dns)
        reader = Reader(box, resolvers=(dns.address,))
        reader.read(late=True)
        for _ in range(3):
            reader.now += timedelta(hours=1)
            reader.read()
    assert reader.told == [loops.whom(2)]
    assert "later" not in reader.cursor


def _kept(source: Mbox, reader: Reader) -> Iterator[list[str]]:
    for batch in source.collect(Memory(reader.cursor), reader.now):
        yield list(batch.columns.get("recipient", ()))
        reader.commit(batch)
