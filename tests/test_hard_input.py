"""Input of unreasonable size or time, over HTTP and out of files: told by item, survived, and the rest kept."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers.mailvane import Mailvane, mailvane, program
from tests.servers.memory import forget_peak, peak
from tests.servers.teller import event, events, settled, tell
from tests.waiting import until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
MB = 1 << 20
HUGE = 200 * MB
DAYS = 400 if FULL else 120  # the engine takes a hundred in one insert
LINE = 50 * MB
COLLECTOR = '[collector.mta]\nkind = "sendlog"\npath = "{log}"\n'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "mail.log"
    path.write_text("")
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Mailvane]:
    with mailvane(tmp_path_factory.mktemp("hard"), COLLECTOR.format(log=log)) as running:
        yield running


def rows(service: Mailvane) -> int:
    """How many events are counted, once all are; raw, keys and grains agree."""
    totals = until(lambda: settled(service), "all to be counted")
    assert totals["events"] == totals["leaf"] == totals["minute"] == totals["hour"]
    assert totals["rows"] == totals["keys"] == sum(totals["events"].values())
    return int(totals["rows"])


def pieces(size: int) -> Iterator[bytes]:
    """So many bytes that are one line without an end."""
    piece = b"x" * MB
    for _ in range(size // MB):
        yield piece


def posted(service: Mailvane, body: Iterable[bytes], size: int | None) -> int | None:
    """The status, read while the body is still being sent; None where the connection was cut. Chunked without size."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        headers = {"Content-Length": str(size)} if size else {}
        connection.request("POST", "/v1/events", body, headers, encode_chunked=size is None)
        return connection.getresponse().status
    except ConnectionError:
        return None
    finally:
        connection.close()


@pytest.mark.scale(order=3)
@pytest.mark.parametrize("told", ["with its length", "without"])
def test_a_huge_request_is_refused_and_core_does_not_grow(service: Mailvane, told: str):
    core = service.pids()["core"]
    before = rows(service)
    forget_peak(core)
    base = peak(core)
    status = posted(service, pieces(HUGE), HUGE if told == "with its length" else None)
    grown = (peak(core) - base) / MB
    assert status in (413, None)
    assert grown < 64
    assert tell(service, events(range(10_000, 10_010), datetime.now(UTC))).status == 202
    assert service.pids()["core"] == core
    assert rows(service) in (before, before + 10)


@pytest.mark.scale(order=3)
def test_a_huge_line_over_http_is_refused_and_in_a_small_body_only_it(service: Mailvane):
    before = rows(service)
    assert posted(service, pieces(LINE), LINE) in (413, None)
    good = events(range(20_000, 20_005), datetime.now(UTC))
    said = tell(service, good + b"\n" + b'{"kind":"' + b"x" * (4 * MB) + b'"}\n')
    assert (said.status, said.body["accepted"], said.body["rejected_count"]) == (202, 5, 1)
    assert said.body["rejected"][0]["where"] == "line 6"
    assert "longer than" in said.body["rejected"][0]["why"]
    assert rows(service) == before + 5


def line(number: int, at: datetime) -> str:
    """What Postfix logs of a delivery."""
    return (
        f"{at.isoformat()} mx1 postfix/smtp[77]: {number:010X}: to=<user{number}@example.net>,"
        " relay=mx.example.net[192.0.2.9]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 OK)\n"
    )


@pytest.mark.scale(order=3)
def test_a_huge_line_in_a_log_is_told_and_the_lines_around_it_count(service: Mailvane, log: Path):
    core = service.pids()["core"]
    before, now = rows(service), datetime.now(UTC)
    forget_peak(core)
    base = peak(core)
    with log.open("a") as file:
        file.write(line(1, now))
        for piece in pieces(LINE):
            file.write(piece.decode())
        file.write("\n" + line(2, now))
    until(lambda: rows(service) == before + 2, "both lines to count", 40)
    grown = (peak(core) - base) / MB
    assert grown < 96
    assert service.get("/readyz")["errors"] == {}


def test_four_hundred_days_told_live_are_kept_as_far_as_they_are_kept_at_all(service: Mailvane):
    before, now = rows(service), datetime.now(UTC)
    days = [json.dumps(event(30_000 + day, now - timedelta(days=day, seconds=60))).encode() for day in range(400)]
    said = tell(service, b"\n".join(days))
    kept = 30  # days of [retention] events
    assert (said.status, said.body["accepted"], said.body["rejected_count"]) == (202, kept, 400 - kept)
    assert all("older than events are kept" in item["why"] for item in said.body["rejected"])
    assert rows(service) == before + kept
    assert all(told["event"] != "set aside" for told in service.told())


@pytest.mark.scale(order=3)
def test_hundreds_of_days_in_a_file_are_all_imported(tmp_path: Path):
    now = datetime.now(UTC).replace(microsecond=0)
    file = tmp_path / "old.log"
    file.write_text("".join(line(day, now - timedelta(days=day)) for day in reversed(range(DAYS))))
    done = subprocess.run(
        [*program(), "import", "sendlog", str(file), "--data", str(tmp_path / "data"), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=tmp_path,
    )
    said = json.loads(done.stdout)
    assert (said["events"], said["counted"], said["rejected"]) == (DAYS, DAYS, {})
    assert sum(row.get("sent", 0) for row in said["hours"].values()) == DAYS


STRANGE: dict[str, tuple[str, str]] = {
    "2099": ('"at": "2099-06-01T00:00:00Z"', "ahead of our clock"),
    "9999": ('"at": "9999-12-31T23:59:59Z"', "ahead of our clock"),
    "1970": ('"at": "1970-01-01T00:00:00Z"', "older than events are kept"),
    "year 1": ('"at": "0001-01-01T00:00:00+00:00"', "older than events are kept"),
    "a number": ('"at": 1e400', "out of range"),
    "not a number": ('"at": NaN', "line"),
    "a far sending": ('"sent_at": "0001-01-01T00:00:00Z"', ""),  # drawn to what mail can be
    "a late sending": ('"sent_at": "9999-12-31T00:00:00Z"', ""),
    "a huge count": ('"count": 100000000000000000000000000', "count"),
    "an endless count": ('"count": Infinity', "line"),
    "a count below": ('"count": -1', "count"),
    "a broken count": ('"count": 1.5', "count"),
    "a huge attempt": ('"attempt": 1e308', "attempt"),
    "a huge code": ('"code": 99999999999', "code"),
}


def test_times_and_numbers_beyond_all_sense_harm_only_their_own_line(service: Mailvane):
    before, now = rows(service), datetime.now(UTC)
    lines, expected = [], {}
    for number, (text, why) in enumerate(STRANGE.values()):
        name, _, value = text.partition(": ")
        plain = {key: one for key, one in event(40_000 + 2 * number, now).items() if key != name.strip('"')}
        lines += [json.dumps(plain)[:-1] + f", {name}: {value}}}", json.dumps(event(40_001 + 2 * number, now))]
        if why:
            expected[f"line {len(lines) - 1}"] = why
    said = tell(service, "\n".join(lines).encode())
    told = {item["where"]: item["why"] for item in said.body["rejected"]}
    assert told.keys() == expected.keys()
    assert {where: why for where, why in told.items() if expected[where] not in why} == {}
    kept = len(lines) - len(expected)
    assert (said.status, said.body["accepted"], said.body["rejected_count"]) == (202, kept, len(expected))
    assert rows(service) == before + kept
