"""Disks that are full or may not be written, and a directory that another has: told clearly, and survived."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.servers.disks import disk, read_only
from tests.servers.mailvane import GRANTED, Mailvane, mailvane, program, started
from tests.servers.teller import events, exact, settled, tell
from tests.waiting import free_port, until

FULL = os.environ.get("MAILVANE_SCALE") == "full"


def errors(service: Mailvane) -> dict[str, str]:
    """What ``/readyz`` complains of."""
    try:
        return service.get("/readyz")["errors"]
    except urllib.error.HTTPError as refused:
        with refused:
            return json.load(refused)["errors"]


def refused(config: Path, *words: str) -> str:
    """What the command tells that ends without success."""
    done = subprocess.run(
        [*program(), "--config", str(config), *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.scale(order=3)
def test_full_disks_are_told_lose_nothing_and_are_forgotten_when_there_is_room(tmp_path: Path):
    now = datetime.now(UTC)
    data = tmp_path / "data"
    with disk(data, "160m") as spools, disk(data / "facts") as facts, mailvane(tmp_path, "") as service:
        assert tell(service, events(range(1000), now)).status == 202
        exact(until(lambda: settled(service), "the first to be counted"), 1000)
        facts.fill()
        assert tell(service, events(range(1000, 3000), now)).status == 202  # they wait on the other disk
        until(lambda: "0 MiB are left on its disk" in errors(service).get("disk.facts", ""), "the page to tell it", 10)
        if FULL:  # half a dozen tries later
            until(lambda: any(told["event"] == "facts not writable" for told in service.told()), "the log to tell it")
        exact(service.get("/v1/facts"), 1000)
        spools.fill()
        full = tell(service, events(range(3000, 4000), now))
        assert (full.status, full.headers["retry-after"]) == (429, "5")
        assert "full" in full.body["error"]
        until(lambda: "make room there" in errors(service).get("disk.spool", ""), "the page to tell it", 10)
        assert f"{data}/ledger.sqlite can't be written: database or disk is full" in refused(
            service.config, "pause", "tenant=s1", "--why", "a test"
        )
        service.kill()
        service.process = started(service.config, service.port).process  # it comes up all the same, and waits
        assert tell(service, events(range(3000, 4000), now)).status == 429
        facts.free()
        spools.free()
        assert tell(service, events(range(3000, 4000), now)).status == 202
        exact(until(lambda: settled(service), "all to be counted"), 4000)
        until(lambda: not errors(service), "all to be well again", 10)


def configured(folder: Path, data: Path) -> Path:
    """A configuration of its own, with ports of its own."""
    path = folder / "other.toml"
    lines = (f'data = "{data}"', f'listen = "127.0.0.1:{free_port()}"', f'gate = "127.0.0.1:{free_port()}"')
    path.write_text("\n".join(("[service]", *lines, GRANTED)), "utf-8")
    return path


@pytest.mark.scale(order=3)
@pytest.mark.parametrize("part", ["", "facts", "spool"] if FULL else [""])
def test_a_directory_that_may_not_be_written_is_named_with_what_to_do(tmp_path: Path, part: str):
    data = tmp_path / "data"
    (data / part).mkdir(parents=True)
    with read_only(data / part):
        told = refused(configured(tmp_path, data), "run")
    assert f"{data / part}" in told
    assert "Read-only file system. " in told
    assert "name another directory (service.data, or --data)" in told


def test_a_directory_of_another_user_is_named_with_what_to_do(tmp_path: Path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "data").mkdir(mode=0o500)
    told = refused(configured(tmp_path, tmp_path / "data"), "run")
    assert f"{tmp_path / 'data'} can't be written: Permission denied" in told


def test_a_second_service_on_a_directory_is_told_and_harms_not_the_first(tmp_path: Path):
    now = datetime.now(UTC)
    with mailvane(tmp_path, "") as service:
        assert tell(service, events(range(100), now)).status == 202
        pids = service.pids()
        config = configured(tmp_path, tmp_path / "data")
        log = tmp_path / "mail.log"
        log.write_text("")
        for words in (["run"], ["import", "sendlog", str(log)]):
            told = refused(config, *words)
            assert f"in use by another process: {tmp_path / 'data'}" in told
            assert "Stop that process, or name another directory (service.data, or --data)" in told
        assert service.pids() == pids
        assert tell(service, events(range(100, 200), now)).status == 202
        exact(until(lambda: settled(service), "all to be counted"), 200)
        assert errors(service) == {}
