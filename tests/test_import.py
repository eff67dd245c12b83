"""``mailvane import sendlog``: old logs go into a store exactly, and only once."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.servers.mailvane import program

SHARED = Path(
    os.environ.get("MAILVANE_SHARED") or Path(os.environ.get("MAILVANE_CHECKOUT", ".")).resolve().parent / "shared"
)
STATUSES = ("sent", "deferred", "bounced")


def line(number: int, status: str, hour: int = 9) -> str:
    stamp = f"Jun 10 {hour:02}:{number % 60:02}:{number // 60 % 60:02}"
    answer = f"to=<user{number}@example.net>, relay=mx.example.net[192.0.2.9]:25, delay=1, delays=0/0/0/1, dsn=2.0.0"
    return f"{stamp} mta1 postfix/smtp[12]: {number:X}ABCDEF: {answer}, status={status} (250 ok)\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mail.log"
    path.write_text("".join(line(number, STATUSES[number % 3], 9 + number // 300) for number in range(600)))
    return path


def run(data: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*program(), "import", "sendlog", *map(str, words), "--data", str(data), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def summary(data: Path, *words: str | Path) -> dict[str, Any]:
    done = run(data, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_log_is_counted_by_hour_in_the_zone_of_its_stamps(tmp_path: Path, log: Path):
    told = summary(tmp_path / "data", log, "--timezone", "Europe/Prague", "--now", "2026-11-24T10:00:00Z")
    assert (told["lines"], told["counted"], told["duplicates"]) == (600, 600, 0)
    assert told["hours"] == {f"2026-06-10 {hour:02}:00": dict.fromkeys(STATUSES, 100) for hour in (9, 10)}
    assert told["distinct_messages"] == dict.fromkeys(STATUSES, 200)


def test_a_second_import_changes_nothing(tmp_path: Path, log: Path):
    packed = tmp_path / "mail.log.1.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    first = summary(tmp_path / "data", log)
    again = summary(tmp_path / "data", packed)
    assert (again["counted"], again["duplicates"]) == (0, 600)
    assert again["hours"] == first["hours"]


def test_what_can_not_be_read_is_counted_by_reason_and_the_rest_kept(tmp_path: Path, log: Path):
    with log.open("a") as more:
        more.write("this is no log line\n")
    told = summary(tmp_path / "data", log)
    assert told["counted"] == 600
    assert told["rejected"] == {"no log line": 1}


def test_a_broken_file_is_named_and_what_came_before_is_kept(tmp_path: Path, log: Path):
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(log.read_bytes() * 50, compresslevel=1)[:-200])
    done = run(tmp_path / "data", log, broken)
    assert done.returncode == 1
    assert "broken.gz can't be read to its end" in done.stderr
    assert "Traceback" not in done.stderr
    assert summary(tmp_path / "data", log)["counted"] == 0, "the whole file before it was kept"


def test_an_unknown_zone_is_an_error_in_words(tmp_path: Path, log: Path):
    done = run(tmp_path / "data", log, "--timezone", "Mars/Olympus")
    assert done.returncode == 1
    assert "no time zone" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_real_log_gives_the_counts_that_were_counted_by_hand(tmp_path: Path):
    truth = SHARED / "corpus/truth/postfix_log_truth.csv"
    found = sorted(SHARED.glob("corpus/mta_logs/FgForrest*/**/mail.log.2.lines00001-30000.gz"))
    if not found or not truth.exists():
        pytest.skip("the shared corpus is absent: the real Postfix log can't be imported")
    told = summary(tmp_path / "data", found[0], "--timezone", "Europe/Prague")
    wanted = Counter()
    with truth.open() as rows:
        for row in csv.DictReader(rows):
            hour = f"2013-06-10 {row['hour'][-2:]}:00"
            wanted.update({(hour, kind): int(row[kind]) for kind in (*STATUSES, "expired") if int(row[kind])})
    assert Counter({(hour, kind): n for hour, kinds in told["hours"].items() for kind, n in kinds.items()}) == wanted
    assert told["distinct_messages"]["deferred"] == 610


def configured(tmp_path: Path, *names: str) -> Path:
    config = tmp_path / "mailvane.toml"
    config.write_text(
        "".join(
            f'[collector.{name}]\nkind = "sendlog"\npath = "/x"\ntimezone = "Europe/Prague"\ntenant = "shop"\n'
            for name in names
        )
    )
    return config


def by(config: Path, data: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [
        *program(),
        "--config",
        str(config),
        "import",
        "sendlog",
        *map(str, words),
        "--data",
        str(data),
        "--json",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_only_sendlog_collector_lends_its_settings(tmp_path: Path, log: Path):
    done = by(configured(tmp_path, "mail"), tmp_path / "data", log)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["source"], told["timezone"]) == ("mail", "Europe/Prague")


def test_with_several_collectors_one_must_be_named(tmp_path: Path, log: Path):
    config = configured(tmp_path, "mail", "news")
    done = by(config, tmp_path / "data", log)
    assert done.returncode == 1
    assert "--source: mail, news" in done.stderr
    assert "no sendlog collector 'other'" in by(config, tmp_path / "data", log, "--source", "other").stderr
    assert json.loads(by(config, tmp_path / "data", log, "--source", "news").stdout)["source"] == "news"


def test_a_file_that_is_no_log_is_said_to_be_none(tmp_path: Path):
    other = tmp_path / "passwd"
    other.write_text("root:x:0:0\n" * 20)
    done = run(tmp_path / "data", other)
    assert done.returncode == 1
    assert "is this a Postfix log?" in done.stderr
    assert json.loads(done.stdout)["rejected"]
