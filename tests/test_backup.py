"""Backups: one set that fits, made under ingest, restored exactly; what is damaged or half done is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monitor import manifest
from monitor.errors import UserError
from monitor.facts.rows import ROWS, encode, encode_lines
from monitor.keyring import Keyring
from monitor.ledger.journal import Progress
from monitor.manifest import Job
from monitor.restore import restore
from tests.servers import stored
from tests.servers.disks import disk
from tests.servers.mailvane import GRANTED, Mailvane, mailvane, program, started
from tests.servers.teller import events, exact, settled, tell
from tests.waiting import answers, free_port, until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
COUNT = 1_000_000 if FULL else 12_000
TOLD = 100_000 if FULL else 3_000  # before a backup is made under ingest
BATCH = 1000
RUNNING = 5000
PACE = 0.0 if FULL else 0.1  # seconds between two requests, so that they do not become too many
SERVER = Path(__file__).parent / "servers" / "clickhouse.py"


def run(*words: str | Path, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    options = ["--config", str(config)] if config else []
    command = [*program(), *options, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def done(*words: str | Path, config: Path | None = None) -> str:
    ended = run(*words, config=config)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refused(*words: str | Path, config: Path | None = None) -> str:
    """What a command says that ends without success."""
    ended = run(*words, config=config)
    assert ended.returncode == 1, (ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    return ended.stderr


def refusal(job: Job) -> str:
    """What work says that is refused before it begins."""
    with pytest.raises(UserError) as error:
        list(job)
    return str(error.value)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose service is down."""
    data = tmp_path_factory.mktemp("store") / "data"
    stored.call("fill", data, str(COUNT))
    return data


@pytest.fixture(scope="module")
def saved(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backup of it."""
    folder = tmp_path_factory.mktemp("saved") / "backups"
    done("backup", folder, "--data", store)
    return folder


def newest(folder: Path) -> Path:
    return manifest.whole(folder)[-1]


@pytest.mark.scale(order=3)
def test_a_restored_store_is_exactly_what_was_backed_up_and_knows_what_is_told_again(
    store: Path, saved: Path, tmp_path: Path
):
    said = done("restore", saved, "--data", tmp_path / "data")
    assert f"{COUNT:,} events" in said
    before = stored.totals(store)
    exact(before, COUNT)
    assert before["levels"] == [2.0]
    assert before["cursor"] == {"next": COUNT}
    assert stored.totals(tmp_path / "data") == before
    stored.call("fill", tmp_path / "data", str(COUNT))
    exact(stored.totals(tmp_path / "data"), COUNT)


def test_lines_that_could_not_be_read_are_in_no_backup(store: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(store, data, symlinks=True)
    dead = data / "dead-letters"
    dead.mkdir(exist_ok=True)
    with closing(Keyring.open(data / "keyring")) as keyring:
        progress = Progress("http", "n", datetime(2026, 11, 24, tzinfo=UTC))
        lines = encode_lines(keyring.seal(b'{"recipient": "jo.bloggs@example.com"}'), 1, 40, progress)
    rows = encode(ROWS.empty_table(), progress)
    older = b"\xff\xff\xff\xff rows as earlier releases kept them"
    for name, content in {"1.frame": lines, "2.frame": rows, "3.frame": b"?" * 40, "4-5-2026-11.arrow": older}.items():
        (dead / name).write_bytes(content)
    done("backup", tmp_path / "backups", "--data", data)
    kept = newest(tmp_path / "backups") / "dead-letters"
    assert {path.read_bytes() for path in kept.iterdir()} == {rows, older}
    assert sorted(path.suffix for path in kept.iterdir()) == [".arrow", ".frame"]
    assert not dead.exists()  # the quarantine has taken them over


def test_counts_are_restored_where_raw_events_are_gone(store: Path, tmp_path: Path):
    old = tmp_path / "old"
    shutil.copytree(store, old, symlinks=True)
    stored.call("expire", old)
    done("backup", tmp_path / "backups", "--data", old)
    done("restore", tmp_path / "backups", "--data", tmp_path / "data")
    found = stored.totals(tmp_path / "data")
    assert found == stored.totals(old)
    assert 0 < found["rows"] < COUNT == sum(found["minute"].values()) == sum(found["hour"].values())


class Sender(threading.Thread):
    """Tells numbered events, and knows how many are acknowledged."""

    def __init__(self, service: Mailvane, now: datetime) -> None:
        super().__init__()
        self.service, self.now = service, now
        self.acknowledged = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            numbers = range(self.acknowledged, self.acknowledged + BATCH)
            assert tell(self.service, events(numbers, self.now)).status == 202
            self.acknowledged += BATCH
            self.stopped.wait(PACE)


@pytest.mark.scale(order=3)
def test_a_backup_under_ingest_has_all_that_was_acknowledged_and_takes_the_rest_once(tmp_path: Path):
    now = datetime.now(UTC)
    with mailvane(tmp_path, "") as service:
        service.command("pause", "tenant=s1", "--for", "60m", "--why", "a test")
        sender = Sender(service, now)
        sender.start()
        try:
            until(lambda: sender.acknowledged >= TOLD, "events to be taken", 120)
            before = sender.acknowledged
            service.command("backup", str(tmp_path / "backups"))
            assert sender.is_alive()
        finally:
            sender.stopped.set()
            sender.join()
        total = sender.acknowledged
        exact(until(lambda: settled(service), "all to be counted"), total)  # the service was not disturbed
    restored = tmp_path / "restored"
    done("restore", tmp_path / "backups", "--data", restored)
    config, port = beside(tmp_path, restored)
    again = started(config, port)
    try:
        found = settled(again)
        assert found
        assert before <= found["rows"] < total + 1
        exact(found, found["rows"])
        assert [lease["scope"] for lease in again.get("/v1/leases")["leases"]] == [{"tenant": "s1"}]
        for first in range(0, total, BATCH):
            assert tell(again, events(range(first, first + BATCH), now)).status == 202
        exact(until(lambda: settled(again), "all to be counted"), total)
    finally:
        again.stop()


def beside(folder: Path, data: Path) -> tuple[Path, int]:
    """A configuration of another service, on that data."""
    port, gate = free_port(), free_port()
    config = folder / "other.toml"
    config.write_text(f'[service]\ndata = "{data}"\nlisten = "127.0.0.1:{port}"\ngate = "127.0.0.1:{gate}"\n{GRANTED}')
    return config, port


def test_a_second_backup_links_what_did_not_change(store: Path, tmp_path: Path):
    folder = tmp_path / "backups"
    done("backup", folder, "--data", store)
    first = newest(folder)
    assert "MB of it written" in done("backup", folder, "--data", store)
    second = newest(folder)
    assert second != first
    parts = manifest.load(second).parts
    assert len(parts) > 8
    assert all((second / part.file.path).samefile(first / part.file.path) for part in parts)
    done("backup", folder, "--data", store, "--keep", "1")
    (third,) = manifest.whole(folder)
    assert "whole" in done("backup", "--verify", third)


def test_a_damaged_file_is_named_and_nothing_is_restored_of_it(saved: Path, tmp_path: Path):
    folder = tmp_path / "backups"
    shutil.copytree(saved, folder)
    file = next((newest(folder) / "facts" / "events").iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (newest(folder) / "ledger.sqlite").unlink()
    for said in (refused("backup", "--verify", folder), refusal(restore(folder, tmp_path / "data", stored.NOW))):
        assert f"{file} has another checksum" in said
        assert "ledger.sqlite can't be read: No such file" in said
    assert not (tmp_path / "data").exists()


def test_a_manifest_that_is_damaged_or_newer_is_told(saved: Path, tmp_path: Path):
    folder = tmp_path / "backups"
    shutil.copytree(saved, folder)
    path = newest(folder) / "manifest.json"
    whole = path.read_text()
    for text, said in (
        (whole.replace('"committed": ', '"committed": 1'), "is damaged"),
        (whole[: len(whole) // 2], "is damaged"),
        ('{"format": 99}', "use the newer release"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            manifest.load(newest(folder))


def test_a_partition_damaged_in_the_backup_before_is_written_anew(saved: Path, store: Path, tmp_path: Path):
    folder = tmp_path / "backups"
    shutil.copytree(saved, folder)
    next((newest(folder) / "facts" / "minute").iterdir()).write_bytes(b"nonsense")
    done("backup", folder, "--data", store)
    assert "whole" in done("backup", "--verify", folder)


def test_a_store_is_not_overwritten_unless_told_and_is_set_aside_then(saved: Path, tmp_path: Path):
    data = tmp_path / "data"
    stored.call("fill", data, "100")
    assert "holds a store already" in refusal(restore(saved, data, stored.NOW))
    assert "replaced-" in done("restore", saved, "--data", data, "--replace")
    exact(stored.totals(data), COUNT)
    (aside,) = data.glob("replaced-*")
    exact(stored.totals(aside), 100)


def test_the_keyring_is_for_its_owner_only_and_may_be_left_out(store: Path, saved: Path, tmp_path: Path):
    assert (newest(saved) / "keyring").stat().st_mode & 0o777 == 0o600
    assert newest(saved).stat().st_mode & 0o777 == 0o700
    folder = tmp_path / "backups"
    done("backup", folder, "--data", store, "--without-keyring")
    assert not (newest(folder) / "keyring").exists()
    data, other = tmp_path / "data", tmp_path / "other"
    assert "made without its keyring" in refusal(restore(folder, data, stored.NOW))
    Keyring.open(other).close()
    assert "of another installation" in refusal(restore(folder, data, stored.NOW, keyring=other))
    done("restore", folder, "--data", data, "--keyring", store / "keyring")
    assert (data / "keyring").read_bytes() == (store / "keyring").read_bytes()


def test_no_address_is_in_a_backup(saved: Path):
    for path in newest(saved).rglob("*"):
        assert not path.is_file() or b"@example.net" not in path.read_bytes()


def test_a_full_disk_is_told_and_leaves_no_half_backup(store: Path, tmp_path: Path):
    for size, more in (("20m", ()), ("256k", ("--without-keyring",))):  # the keyring alone has 32 MiB
        with disk(tmp_path / size, size):
            folder = tmp_path / size / "backups"
            assert "is full: make room" in refused("backup", folder, "--data", store, *more)
            assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.fixture
def half(store: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder in which a backup was killed while it wrote rows; and a copy of the store beside it, as it left it."""
    data, folder = tmp_path / "half", tmp_path / "backups"
    shutil.copytree(store, data, symlinks=True)
    with subprocess.Popen(stored.command("backup", data, folder), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            what, so_far, total = json.loads(line)
            if what == "rows" and 0 < so_far < total:
                process.send_signal(signal.SIGKILL)
                break
        process.wait(timeout=30)
    return folder


def test_a_backup_that_was_killed_is_none_and_the_next_one_cleans_up(half: Path):
    assert [path for path in half.iterdir() if path.name.startswith(".draft")]
    assert "is no backup" in refused("backup", "--verify", half)
    done("backup", half, "--data", half.parent / "half")
    assert sorted(path.name for path in half.iterdir()) == [".lock", newest(half).name]
    assert "whole" in done("backup", "--verify", half)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailvane]:
    """A service with some events."""
    now = datetime.now(UTC)
    with mailvane(tmp_path_factory.mktemp("service"), "") as running:
        for first in range(0, RUNNING, BATCH):
            assert tell(running, events(range(first, first + BATCH), now)).status == 202
        exact(until(lambda: settled(running), "all to be counted"), RUNNING)
        yield running


@contextmanager
def begun(service: Mailvane, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, once the service writes rows for it."""
    words = [*program(), "--config", str(service.config), "backup", str(folder)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as asking:
        assert asking.stderr
        assert next(line for line in asking.stderr if "rows" in line)
        yield asking


def test_a_command_that_is_cut_off_gives_the_work_up(service: Mailvane, tmp_path: Path):
    with begun(service, tmp_path) as asking:
        asking.kill()
    until(lambda: not list(tmp_path.glob(".draft*")), "the draft to be gone")
    service.command("backup", str(tmp_path))
    assert "whole" in done("backup", "--verify", tmp_path)


def test_a_service_that_dies_in_a_backup_leaves_none_and_goes_on(service: Mailvane, tmp_path: Path):
    with begun(service, tmp_path) as asking:
        service.kill_core()
        _, said = asking.communicate(timeout=60)
    if asking.returncode:  # it may have been done by then
        assert "ended, or was cut off" in said
        assert manifest.whole(tmp_path) == []
    service.wait()
    service.command("backup", str(tmp_path))
    exact(until(lambda: settled(service), "the totals"), RUNNING)


def test_a_directory_whose_service_runs_is_not_restored_into(service: Mailvane, saved: Path):
    data = service.config.parent / "data"
    assert "a service runs" in refused("restore", saved, "--data", data, "--replace")
    assert settled(service)


def test_the_service_works_for_a_token_and_a_file_in_its_directory_only(service: Mailvane):
    token = (service.config.parent / "data" / "token").read_text().strip()
    assert asked(service, "0" * 32, "wrong") == 401
    assert asked(service, "0" * 32, token) == 403
    assert asked(service, "../token", token) == 403
    assert asked(service, 7, token) == 422


def asked(service: Mailvane, ticket: object, token: str) -> int:
    """The status with which the service answers."""
    body, headers = json.dumps({"ticket": ticket}).encode(), {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{service.url}/v1/handover", body, headers)) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_facts_of_a_server_are_backed_up_and_restored_into_another_database(saved: Path, tmp_path: Path):
    with served(tmp_path / "server") as port:
        first, second = (f"clickhouse://default@127.0.0.1:{port}/{name}" for name in ("one", "two"))
        done("restore", saved, "--data", tmp_path / "data", "--into", first)
        config = tmp_path / "mailvane.toml"
        config.write_text(
            f'[service]\ndata = "{tmp_path / "data"}"\nfacts = "{first}"\nlisten = "127.0.0.1:{free_port()}"\n'
        )
        done("backup", tmp_path / "backups", config=config)
        assert "holds facts already" in refused(
            "restore", tmp_path / "backups", "--data", tmp_path / "new", "--into", first
        )
        done("restore", tmp_path / "backups", "--data", tmp_path / "new", "--into", second)
    told, before = manifest.load(newest(tmp_path / "backups")), manifest.load(newest(saved))
    assert {part.partition: part.content for part in told.parts if part.table == "hour"} == {
        part.partition: part.content for part in before.parts if part.table == "hour"
    }
    assert told.events == COUNT


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The port of a server of facts."""
    port = free_port()
    with subprocess.Popen([sys.executable, str(SERVER), str(folder), str(port)]) as process:
        try:
            until(lambda: answers(port), "the server to listen")
            yield port
        finally:
            process.terminate()


def test_nothing_to_restore_or_to_back_up_is_told(tmp_path: Path):
    assert "is no backup, and holds none" in refusal(restore(tmp_path, tmp_path / "data", stored.NOW))
    assert "there is no store in" in refused("backup", tmp_path / "backups", "--data", tmp_path / "data")


def test_a_manifest_that_names_a_file_outside_of_the_backup_is_damaged(saved: Path, tmp_path: Path):
    folder = tmp_path / "backup"
    folder.mkdir()
    told = manifest.load(newest(saved))
    strays = manifest.File("../outside", 1, "0")
    bad: Any = manifest.Manifest(**{name: getattr(told, name) for name in told.__struct_fields__} | {"ledger": strays})
    (folder / "manifest.json").write_bytes(bad.encoded())
    with pytest.raises(UserError, match="damaged"):
        manifest.load(folder)
