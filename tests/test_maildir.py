"""Letters in folders: each counts once, whatever lies beside it, and is put away only after it is on disk."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors import maildir as module
from collectors._known import ASIDE, Known
from collectors._shelf import made
from collectors._strange import LARGE, LINK, SPECIAL
from collectors.maildir import Maildir
from monitor.model import Batch
from monitor.ports import Memory, PluginError
from tests.letters import BOUNCE, SPAM, letter, message, recipient
from tests.servers.mailvane import mailvane, started
from tests.servers.teller import exact, settled, tell
from tests.waiting import until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
HOUR_AGO = (NOW - timedelta(hours=1)).timestamp()


class Reader:
    """A source, and all that it told; ``again`` is another process that begins where the last commit left it."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path, self.settings = path, settings
        self.cursor: dict[str, Any] = {}
        self.remembers: dict[str, Any] = {}
        self.told: list[str] = []
        self.rejected: list[tuple[str, str]] = []
        self.now = NOW
        self.again()

    def again(self, **settings: Any) -> None:
        self.settings |= settings
        self.source = Maildir(path=self.path, **self.settings)

    def read(self, *, die_before: int = 0) -> int:
        """One look; the number of batches. ``die_before`` that many have been put away, as by kill -9."""
        batches = 0
        told = self.source.collect(Memory(self.cursor, self.remembers), self.now)
        for batch in told:
            self.commit(batch)
            batches += 1
            if batches == die_before:
                break
        told.close()
        if die_before:
            self.again()
        return batches

    def commit(self, batch: Batch) -> None:
        self.cursor = json.loads(json.dumps(batch.cursor))
        for name, value in batch.remember.items():
            self.remembers[name] = value
            if value is None:
                del self.remembers[name]
        self.told += batch.columns.get("recipient", ())
        self.rejected += [(item.why, item.where) for item in batch.rejected]

    def waits(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return made(tmp_path / "Maildir")


def put(folder: Path, name: str, number: int, kind: str = BOUNCE) -> Path:
    path = folder / name
    path.write_bytes(letter(kind, number, NOW - timedelta(minutes=5)).content)
    os.utime(path, (HOUR_AGO + number, HOUR_AGO + number))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def whom(*numbers: int) -> list[str]:
    return [recipient(number) for number in numbers]


def test_a_new_letter_is_told_and_then_marked_as_seen(box):
    put(box / "new", "1.M1.host", 1)
    reader = Reader(box)
    reader.read()
    assert reader.told == whom(1)
    assert names(box / "new") == []
    assert names(box / "cur") == ["1.M1.host:2,S"]
    assert reader.read() == 0


def test_letters_in_cur_that_nobody_has_read_are_told_and_keep_their_flags(box):
    put(box / "cur", "1.M1.host:2,F", 1)
    put(box / "cur", "2.M2.host:2,S", 2)
    put(box / "cur", "3.M3.host:2,T", 3)
    reader = Reader(box)
    reader.read()
    assert reader.told == whom(1)
    assert names(box / "cur") == ["1.M1.host:2,FS", "2.M2.host:2,S", "3.M3.host:2,T"]


def test_letters_are_told_in_the_order_of_their_names(box):
    for number in (3, 1, 2):
        put(box / "new", f"{number}.M.host", number)
    reader = Reader(box)
    reader.read()
    assert reader.told == whom(1, 2, 3)


def test_a_letter_that_is_being_written_is_left_alone(box):
    put(box / "tmp", "1.M1.host", 1)
    put(box / "new", ".hidden", 2)
    reader = Reader(box)
    assert reader.read() == 0
    assert names(box / "tmp") == ["1.M1.host"]


def test_spam_is_put_away_and_tells_nothing(box):
    put(box / "new", "1.M1.host", 1, SPAM)
    reader = Reader(box)
    reader.read()
    assert reader.told == []
    assert names(box / "cur") == ["1.M1.host:2,S"]


def test_nothing_is_put_away_before_it_is_committed(box):
    put(box / "new", "1.M1.host", 1)
    told = Reader(box).source.collect(Memory(), NOW)
    next(told)
    told.close()
    assert names(box / "new") == ["1.M1.host"]


@pytest.mark.parametrize("done", ["seen", "delete", "keep"])
def test_a_kill_between_commit_and_move_counts_nothing_twice(box, monkeypatch, done):
    monkeypatch.setattr(module, "_LETTERS", 2)
    for number in range(5):
        put(box / "new", f"{number}.M.host", number)
    reader = Reader(box, done=done)
    reader.read(die_before=1)
    reader.read(die_before=1)
    reader.read()
    assert reader.told == whom(0, 1, 2, 3, 4)
    assert names(box / "new") == ([f"{number}.M.host" for number in range(5)] if done == "keep" else [])


def test_a_letter_that_another_program_moves_to_cur_meanwhile_counts_once(box):
    put(box / "new", "1.M1.host", 1)
    reader = Reader(box)
    told = reader.source.collect(Memory(), NOW)
    reader.commit(next(told))
    (box / "new" / "1.M1.host").rename(box / "cur" / "1.M1.host:2,")
    assert list(told) == []
    reader.read()
    assert reader.told == whom(1)
    assert names(box / "cur") == ["1.M1.host:2,S"]


def test_a_letter_that_vanishes_is_no_error(box):
    put(box / "new", "1.M1.host", 1)
    put(box / "new", "2.M2.host", 2)
    reader = Reader(box)
    told = reader.source.collect(Memory(), NOW)
    reader.commit(next(told))
    (box / "new" / "1.M1.host").unlink()
    assert list(told) == []
    assert names(box / "cur") == ["2.M2.host:2,S"]


def test_deleted_letters_are_gone(box):
    put(box / "new", "1.M1.host", 1)
    put(box / "cur", "2.M2.host:2,S", 2)
    Reader(box, done="delete").read()
    assert names(box / "new") == names(box / "cur") == []


def test_letters_are_moved_to_another_folder_which_is_made(box):
    put(box / "new", "1.M1.host", 1)
    put(box / "cur", "2.M2.host:2,S", 2)
    reader = Reader(box, done={"move": "Done"}, folders=("*",))
    reader.read()
    assert names(box / ".Done" / "cur") == ["1.M1.host:2,S", "2.M2.host:2,S"]
    assert reader.read() == 0


def test_a_letter_is_never_put_over_another(box):
    put(box / "cur", "1.M1.host:2,S", 7)
    put(box / "new", "1.M1.host", 1)
    Reader(box).read()
    assert names(box / "cur") == ["1.M1.host.1:2,S", "1.M1.host:2,S"]


def test_folders_are_read_as_named(box):
    for number, folder in enumerate(("Bounces", "Loops", "Private")):
        put(made(box / f".{folder}") / "new", "1.M1.host", number)
    reader = Reader(box, folders=("Bounces", "Loops"))
    reader.read()
    assert sorted(reader.told) == sorted(whom(0, 1))
    assert names(box / ".Bounces" / "cur") == ["1.M1.host:2,S"]
    reader.again(folders=("*",))
    reader.read()
    assert sorted(reader.told) == sorted(whom(0, 1, 2))


def test_kept_letters_stay_as_they_are_and_are_told_once(box):
    put(box / "new", "1.M1.host", 1)
    put(box / "cur", "2.M2.host:2,S", 2)
    reader = Reader(box, done="keep")
    reader.read()
    reader.again()
    reader.read()
    (box / "new" / "1.M1.host").rename(box / "cur" / "1.M1.host:2,RS")
    put(box / "new", "3.M3.host", 3)
    reader.read()
    assert reader.told == whom(1, 2, 3)
    assert len(reader.remembers) == 3
    (box / "cur" / "1.M1.host:2,RS").unlink()
    reader.read()
    assert len(reader.remembers) == 2


def test_no_name_of_a_letter_is_remembered_as_it_is(box):
    put(box / "new", "jo.bloggs@example.com", 1)
    reader = Reader(box, done="keep", largest=1024)
    reader.read()
    assert "bloggs" not in json.dumps([reader.cursor, reader.remembers])
    assert "bloggs" not in str(reader.rejected)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 60), max_size=120), st.integers(10, 40))
def test_what_is_known_is_bounded_and_the_forgotten_are_known_by_age(ages: list[int], limit: int):
    known = Known(limit=limit)
    for number, age in enumerate(ages):
        known.add(str(number), age)
        assert len(known) <= limit
    assert all(str(number) in known or known.old(age) for number, age in enumerate(ages))
    told = known.told()
    assert {name for name, value in told.items() if value is not None} == {
        str(number) for number in range(len(ages)) if str(number) in known
    }


def test_links_pipes_and_sockets_are_set_aside_once_and_never_opened(box, tmp_path):
    (tmp_path / "secret").write_bytes(b"Subject: mine\n\n")
    (box / "new" / "1").symlink_to(tmp_path / "secret")
    os.mkfifo(box / "new" / "2")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(box / "new" / "3"))
        put(box / "new", "4", 4)
        reader = Reader(box)
        reader.read()
        assert reader.told == whom(4)
        assert reader.rejected == [(LINK, "new/1"), (SPECIAL, "new/2"), (SPECIAL, "new/3")]
        reader.read()
        reader.again()
        reader.read()
    assert len(reader.rejected) == 3
    assert names(box / "new") == ["1", "2", "3"]


def test_a_second_name_of_a_letter_is_a_letter(box):
    """Dovecot copies letters so, and some deliver so."""
    first = put(box / "tmp", "1", 1)
    os.link(first, box / "new" / "1")
    reader = Reader(box)
    reader.read()
    assert reader.told == whom(1)


def test_a_letter_over_the_largest_is_set_aside_until_larger_ones_are_read(box):
    put(box / "new", "1", 1).write_bytes(b"x" * 5_000)
    put(box / "new", "2", 2)
    reader = Reader(box, largest=4_000, done="delete")
    reader.read()
    reader.again()
    reader.read()
    assert reader.rejected == [(LARGE, "new/1")]
    assert names(box / "new") == ["1"]
    reader.again(largest=50_000)
    reader.read()
    assert names(box / "new") == []


def test_a_letter_that_may_not_be_read_is_told_once_and_read_when_it_may(box, monkeypatch):
    path = put(box / "new", "1", 1)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    reader = Reader(box)
    reader.read()
    reader.read()
    assert [why for why, _ in reader.rejected] == ["can't be opened: Permission denied"]
    path.chmod(0o600)
    reader.waits(minutes=2)
    reader.read()
    assert reader.told == whom(1)


def test_a_folder_of_very_many_letters_is_read_in_bounded_batches(box, monkeypatch):
    monkeypatch.setattr(module, "_LISTED", 500)
    body = letter(BOUNCE, 1, NOW).content
    for number in range(1_200):
        (box / "new" / f"{number:05}.M.host").write_bytes(body)
    reader = Reader(box)
    assert [reader.read() for _ in range(4)] == [3, 3, 1, 0]
    assert len(reader.told) == 1_200


@pytest.mark.scale(order=5)
def test_a_full_folder_is_emptied_at_a_steady_pace(box):
    count = 100_000 if FULL else 2_000
    body = letter(SPAM, 1, NOW).content
    for number in range(count):
        (box / "new" / f"{number:06}.M.host").write_bytes(body)
    reader = Reader(box)
    while reader.read():
        pass
    assert names(box / "new") == []
    assert len(names(box / "cur")) == count


def test_letters_that_cannot_be_put_away_stop_the_source_and_count_once(box):
    put(box / "new", "1.M1.host", 1)
    (box / ".Done").write_text("in the way")
    reader = Reader(box, done={"move": "Done"})
    told = reader.source.collect(Memory(), NOW)
    reader.commit(next(told))
    with pytest.raises(PluginError, match=r"can't be moved \(Not a directory\): .* done = .keep."):
        next(told)
    with pytest.raises(PluginError):
        reader.read()
    (box / ".Done").unlink()
    reader.read()
    assert reader.told == whom(1)
    assert names(box / "new") == []


def test_a_missing_folder_is_told_with_its_name(tmp_path):
    source = Maildir(path=tmp_path / "nowhere")
    with pytest.raises(PluginError, match="nowhere can't be read: No such file") as raised:
        list(source.collect(Memory(), NOW))
    assert raised.value.retry
    assert "No such file" in source.unreadable()
    (tmp_path / "nowhere").mkdir()
    assert source.unreadable() == ""


def test_a_plain_folder_is_read_when_its_files_are_left_alone(tmp_path):
    put(tmp_path, "old.eml", 1)
    fresh = put(tmp_path, "fresh.eml", 2)
    os.utime(fresh, (NOW.timestamp() - 1,) * 2)
    put(tmp_path, "writing.eml.part", 3)
    (tmp_path / "folder").mkdir()
    reader = Reader(tmp_path)
    reader.read()
    assert reader.told == whom(1)
    reader.read()
    reader.waits(seconds=10)
    reader.read()
    assert reader.told == whom(1, 2)
    assert names(tmp_path / "done") == ["fresh.eml", "old.eml"]
    assert names(tmp_path) == ["done", "folder", "writing.eml.part"]


def test_a_file_that_comes_again_under_its_name_is_another_letter(tmp_path):
    reader = Reader(tmp_path, done={"move": "read"})
    for number in (1, 2):
        put(tmp_path, "bounce.eml", number)
        reader.read()
    assert reader.told == whom(1, 2)
    assert names(tmp_path / "read") == ["bounce.eml", "bounce.eml.1"]


@pytest.mark.parametrize("done", ["seen", "keep"])
def test_a_file_of_the_same_name_that_came_while_we_were_down_is_read(tmp_path, done):
    reader = Reader(tmp_path, done=done)
    put(tmp_path, "bounce.eml", 1)
    reader.read()
    put(tmp_path, "bounce.eml", 2)
    reader.again()
    reader.read()
    assert reader.told == whom(1, 2)


def test_a_folder_in_which_nothing_changes_is_not_listed_again(box, monkeypatch):
    put(box / "cur", "1.M1.host:2,S", 1)
    reader = Reader(box)
    reader.read()
    listed: list[int] = []
    real = os.scandir

    def scandir(path: int) -> Iterator[os.DirEntry[str]]:
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for _ in range(5):
        reader.read()
    assert len(listed) == 2  # once more for each of new and cur, since a stamp is coarse
    put(box / "new", "2.M2.host", 2)
    reader.read()
    assert reader.told == whom(2)


@pytest.mark.parametrize("name", ["a/b", ".hidden", "..", "x\0y"])
def test_a_folder_for_what_is_done_is_one_name(tmp_path, name):
    with pytest.raises(ValidationError):
        Maildir(path=tmp_path, done={"move": name})


def test_set_aside_letters_are_told_from_those_that_are_done_with():
    known = Known({"done": 5, "aside": ASIDE})
    known.forget_aside()
    assert "done" in known
    assert "aside" not in known
    assert known.told() == {"aside": None}


@pytest.mark.scale(order=5)
def test_a_service_killed_while_it_reads_counts_each_letter_once(box, tmp_path):
    wave, waves = (1_000, 6) if FULL else (300, 2)
    tables = f'[collector.bounces]\nkind = "maildir"\npath = "{box}"\nevery = "1s"\ntrusted = true\n'
    with mailvane(tmp_path, tables) as service:
        known = [
            {"kind": "sent", "at": datetime.now(UTC).isoformat(), "message_id": message(n), "recipient": recipient(n)}
            for n in range(wave * waves)
        ]
        assert tell(service, json.dumps(known).encode()).status == 202
        until(lambda: settled(service), "all that was sent to be known", 60)
        for first in range(0, wave * waves, wave):
            for number in range(first, first + wave):
                content = letter(BOUNCE, number, datetime.now(UTC)).content
                (box / "tmp" / f"{number:05}.M.host").write_bytes(content)
                (box / "tmp" / f"{number:05}.M.host").rename(box / "new" / f"{number:05}.M.host")
            put_away = len(names(box / "cur"))
            until(lambda put_away=put_away: len(names(box / "cur")) > put_away, "a letter to be put away", 60)
            service.kill()
            service.process = started(service.config, service.port).process
        until(lambda: names(box / "new") == [], "all letters to be put away", 60)
        until(lambda: (settled(service) or {"rows": 0})["rows"] >= 2 * wave * waves, "all to be counted", 60)
        exact(service.get("/v1/facts"), 2 * wave * waves)
    assert len(names(box / "cur")) == wave * waves
