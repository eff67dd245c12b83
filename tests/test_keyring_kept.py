"""Custody and expiry as an operator has them: the commands, a service with a wrapped keyring, keyrings in backups."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from collectors._decode import check
from monitor import backup, expiring, keyfile, manifest
from monitor.caller import Role
from monitor.cli import cli
from monitor.custody import IN_FILE
from monitor.errors import UserError
from monitor.facts import queries
from monitor.keyring import Keyring
from monitor.keyring_checks import checks
from monitor.ledger import access_log, sessions
from monitor.ledger.db import open_ledger
from monitor.manifest import Job
from monitor.pipeline import take_lines
from monitor.restore import restore
from monitor.settings import Custody
from monitor.stores import Stores
from tests.servers.mailvane import mailvane, program
from tests.servers.teller import events, settled, tell
from tests.test_custody import ENVIRONMENT, KEY, OTHER, OTHER_KEY, SECRET
from tests.waiting import free_port, until

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LINE = b'{"kind": "sent", "at": "2026-11-24T12:00:00Z", "message_id": "<1@shop.example>"}\n'
MONTH = timedelta(days=30)


def filled(data: Path, custody: Custody = IN_FILE, **more: Any) -> Path:
    """A store with one event, and beside it a folder with a backup of it."""
    folder = data.with_name("backups")
    with closing(Stores(data, custody=custody)) as stores:
        take_lines(check(LINE), stores.spool, stores.keyring, source="http", node="n", now=NOON)
        stores.applier.drain()
        list(backup.make(stores, data, folder, NOON, **more))
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backup whose keyring rests in plain and expires, and beside it the store, in ``data``."""
    return filled(tmp_path_factory.mktemp("kept") / "data")


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of both."""
    shutil.copytree(kept.parent, tmp_path / "all", symlinks=True)
    return tmp_path / "all" / "backups"


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as error:
        list(job)
    return str(error.value)


def newest(folder: Path) -> Path:
    return manifest.whole(folder)[-1]


def test_a_keyring_is_restored_until_it_expires_and_then_only_when_told(folder: Path, tmp_path: Path) -> None:
    in_time, late = NOON + MONTH - timedelta(seconds=1), NOON + MONTH
    list(restore(folder, tmp_path / "in-time", in_time))
    said = refusal(restore(folder, tmp_path / "late", late))
    assert "expired on 2026-12-24: whoever was erased since could be found by it again" in said
    assert "or say --expired" in said
    list(restore(folder, tmp_path / "late", late, expired=True))
    list(restore(folder, tmp_path / "named", late, keyring=folder.with_name("data") / "keyring"))
    for data in ("in-time", "late", "named"):
        with closing(Stores(tmp_path / data)) as stores:
            assert queries.totals(stores.facts)["rows"] == 1


def test_an_expired_keyring_is_removed_and_the_rest_is_restored_with_the_present_one(
    folder: Path, tmp_path: Path
) -> None:
    assert expiring.expire(folder, NOON + MONTH - timedelta(seconds=1)) == []
    path = newest(folder) / "keyring"
    with path.open("rb") as file:
        assert expiring.expire(folder, NOON + MONTH) == [path]
        assert set(file.read()) == {0}  # overwritten, too
    assert not path.exists()
    list(manifest.verify(newest(folder), manifest.load(newest(folder))))
    assert "expired on 2026-12-24, and was removed" in refusal(restore(folder, tmp_path / "new", NOON + MONTH))
    assert "and was removed" in refusal(restore(folder, tmp_path / "new", NOON + MONTH, expired=True))
    list(restore(folder, tmp_path / "new", NOON + MONTH, keyring=folder.with_name("data") / "keyring"))
    assert expiring.expire(folder, NOON + MONTH) == []


def test_an_expiry_that_was_cut_off_is_finished_by_the_next(folder: Path) -> None:
    path = newest(folder) / "keyring"
    content = path.read_bytes()
    expiring.expire(folder, NOON + MONTH)
    path.write_bytes(content)  # as if the manifest had been written, and no more
    expiring.expire(folder, NOON + MONTH)
    assert not path.exists()


def test_a_backup_removes_the_keyrings_that_have_expired_in_passing(folder: Path) -> None:
    data = folder.with_name("data")
    with closing(Stores(data)) as stores:
        first, second = (
            done(backup.make(stores, data, folder, NOON + span, keyring_for=lasts))
            for span, lasts in ((MONTH / 2, None), (MONTH, MONTH))
        )
    assert (first["expired"], second["expired"]) == (0, 1)
    assert first["keyring_until"] == ""
    assert [(path / "keyring").exists() for path in manifest.whole(folder)] == [False, True, True]
    assert not manifest.load(Path(first["path"])).expired(NOON + 1000 * MONTH)


def done(job: Job) -> dict[str, object]:
    """What it answers."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            return dict(end.value)


def test_a_backup_of_an_earlier_release_is_read_and_its_keyring_never_expires_by_itself(folder: Path) -> None:
    path = newest(folder)
    old = msgspec.structs.replace(manifest.load(path), format=1, keyring_until=msgspec.UNSET)
    (path / manifest.NAME).write_bytes(old.encoded())
    assert b"keyring_until" not in old.encoded()
    told = manifest.load(path)
    assert told == msgspec.structs.replace(old, checksum=told.checksum)
    assert expiring.expire(folder, NOON + 1000 * MONTH) == []
    assert expiring.expire(folder, NOON + MONTH, older=MONTH) == [path / "keyring"]


def test_what_rests_wrapped_is_backed_up_wrapped_and_restored_as_is_configured(tmp_path: Path) -> None:
    folder = filled(tmp_path / "data", ENVIRONMENT)
    copy = newest(folder) / "keyring"
    assert copy.read_bytes() == (tmp_path / "data" / "keyring").read_bytes()
    assert copy.read_bytes().startswith(b"mailvane wrapped keyring")
    assert f"is wrapped with the key {KEY.name}" in refusal(restore(folder, tmp_path / "none", NOON))
    list(restore(folder, tmp_path / "plain", NOON, former=[KEY]))
    list(restore(folder, tmp_path / "same", NOON, custody=ENVIRONMENT))
    with closing(Stores(tmp_path / "data", custody=ENVIRONMENT)) as stores:
        told = stores.keyring.pseudonym("jo@example.com")
    for data, custody in (("plain", IN_FILE), ("same", ENVIRONMENT)):
        with closing(Stores(tmp_path / data, custody=custody)) as stores:
            assert stores.keyring.pseudonym("jo@example.com") == told
            assert queries.totals(stores.facts)["rows"] == 1


def test_a_wrapped_store_leaves_no_key_in_plain_anywhere(kept: Path, tmp_path: Path) -> None:
    with closing(Keyring.load(kept.with_name("data") / "keyring")) as ring:
        (tmp_path / "data").mkdir(mode=0o700)
        ring.rest(tmp_path / "data" / "keyring", KEY)
    keys = (kept.with_name("data") / "keyring").read_bytes()
    filled(tmp_path / "data", ENVIRONMENT)
    assert holds(kept.parent, keys[64:96]) == {"keyring"}  # the control: there they are found
    for at in (64, 4096, len(keys) - 32):
        assert holds(tmp_path, keys[at : at + 32]) == set()


def holds(folder: Path, what: bytes) -> set[str]:
    """The names of the files in which that stands."""
    return {path.name for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()}


def test_who_was_signed_in_is_not_after_a_restore_and_the_log_tells_of_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    Stores(data).close()
    one = sessions.Session("s1", "marta", Role.ADMIN, "local", "c", NOON, NOON, NOON + MONTH)
    ledger = open_ledger(data / "ledger.sqlite")
    with ledger.begin() as conn:
        sessions.add(conn, one, b"digest")
    ledger.dispose()
    folder = filled(data)
    list(restore(folder, tmp_path / "new", NOON, who="cli:marta"))
    with there(tmp_path / "new") as conn:
        assert sessions.known(conn, NOON) == {}
        (entry,) = access_log.newest(conn, 1)
    assert (entry.who, entry.did, entry.on) == ("cli:marta", "restored", newest(folder).name)
    with there(data) as conn:
        assert len(sessions.known(conn, NOON)) == 1


@contextmanager
def there(data: Path) -> Iterator[object]:
    ledger = open_ledger(data / "ledger.sqlite")
    try:
        with ledger.connect().execution_options(reads=True) as conn:
            yield conn
    finally:
        ledger.dispose()


def flaws(data: Path, custody: Custody = IN_FILE, **more: Any) -> dict[str, str]:
    """What is wrong, by what was looked at; a date is not part of that."""
    found = checks(data, custody, more.pop("now", NOON), **more)
    return {one.what: one.flaw for one in found if one.flaw}


def test_a_keyring_that_is_well_has_no_flaw_in_any_custody(folder: Path) -> None:
    data = folder.with_name("data")
    assert flaws(data, backups=folder) == {}
    assert len(list(checks(data, IN_FILE, NOON, backups=folder))) == 8
    keyfile.rewrap(data / "keyring", [], KEY)
    assert flaws(data, ENVIRONMENT, backups=folder) == {}


def test_each_flaw_is_told(folder: Path, tmp_path: Path) -> None:
    data = folder.with_name("data")
    path = data / "keyring"
    assert "is not there" in str(flaws(tmp_path / "none"))
    path.chmod(0o644)
    assert "others may read" in str(flaws(data))
    path.chmod(0o600)
    assert "rests in plain, and custody is environment" in str(flaws(data, ENVIRONMENT))
    assert "there is no wrapping key" in str(flaws(data, Custody(custody="environment")))
    assert "remove it: mailvane keys expire" in str(flaws(data, backups=folder, now=NOON + MONTH))
    assert "there is none" in str(flaws(data, backups=tmp_path))
    with path.open("r+b") as file:  # a key of a bucket, as a failing disk would
        file.seek(10_000_000)
        file.write(b"??")
    assert list(flaws(data).values()) == ["some keys are others than they were"]
    path.unlink()
    Keyring.open(path).close()
    said = str(flaws(data, backups=folder))
    assert "they were written with another" in said
    assert "sealed with another keyring" in said
    assert "its facts were written with another keyring" in said


def test_an_old_store_gets_its_canary_at_the_next_start(folder: Path) -> None:
    data = folder.with_name("data")
    (data / "keyring.canary").unlink()
    assert "the next start writes it" in str(flaws(data))
    Stores(data).close()
    assert flaws(data) == {}


def test_what_a_killed_rewrap_left_is_removed_at_the_next_start(folder: Path) -> None:
    data = folder.with_name("data")
    stray = data / ".keyring.0123456789abcdef"
    shutil.copyfile(data / "keyring", stray)
    Stores(data).close()
    assert not stray.exists()


@dataclass
class Operator:
    """One with a configuration and its commands; the key is in the environment, or not."""

    config: Path
    key: str = SECRET.hex()

    def run(self, *words: str | Path) -> Result:
        """In this process: a process of its own takes two seconds to load."""
        env = {"MAILVANE_KEYRING_KEY": self.key or None}
        return CliRunner().invoke(cli, ["--config", str(self.config), *map(str, words)], env=env)

    def done(self, *words: str | Path) -> str:
        ended = self.run(*words)
        assert ended.exit_code == 0, ended.output
        assert SECRET.hex() not in ended.output
        return ended.output

    def refused(self, *words: str | Path) -> str:
        ended = self.run(*words)
        assert ended.exit_code == 1, ended.output
        assert isinstance(ended.exception, SystemExit)
        return ended.output


def operator(folder: Path, custody: str) -> Operator:
    config = folder / f"{custody}.toml"
    config.write_text(
        f'[service]\ndata = "{folder / "data"}"\nlisten = "127.0.0.1:{free_port()}"\n[keyring]\ncustody = "{custody}"\n'
    )
    return Operator(config)


def test_custody_changes_by_command_and_back(folder: Path) -> None:
    place, data = folder.parent, folder.with_name("data")
    by_file, by_key = operator(place, "file"), operator(place, "environment")
    assert 'custody is "file"' in by_file.refused("keys", "wrap")
    assert "rests under the key" in by_key.done("keys", "wrap")
    assert "already" in by_key.done("keys", "wrap")
    assert f"wrapping key {KEY.name}" in by_key.done("keys", "verify", "--backup", folder)
    assert "FAIL" in by_file.refused("keys", "verify")
    old = place / "old"
    old.write_text(SECRET.hex())
    by_key.key = OTHER.hex()
    assert f"is wrapped with the key {KEY.name}, and this is {OTHER_KEY.name}" in by_key.refused("keys", "wrap")
    assert OTHER_KEY.name in by_key.done("keys", "wrap", "--old-key-file", old)
    with closing(Keyring.load(data / "keyring", OTHER_KEY)):
        pass
    assert 'say custody = "file"' in by_key.done("keys", "unwrap")
    assert (data / "keyring").read_bytes() == (newest(folder) / "keyring").read_bytes()
    by_file.done("keys", "verify")
    with there(data) as conn:
        told = [(entry.did, entry.on) for entry in access_log.newest(conn, 3)]
    assert told == [("keyring rewrapped", name) for name in ("in plain", OTHER_KEY.name, KEY.name)]


def test_keyrings_of_backups_expire_by_command(folder: Path) -> None:
    by_file = operator(folder.parent, "file")
    assert "none has expired" in by_file.done("keys", "expire", folder, "--older-than", "9999d")
    assert "may be restored until 2026-12-24" in by_file.done("backup", "--verify", folder)
    assert f"{newest(folder) / 'keyring'} is removed" in by_file.done("keys", "expire", folder, "--older-than", "0s")
    assert "and was removed" in by_file.done("backup", "--verify", folder)
    assert "never expires" in by_file.done("backup", folder, "--keyring-for", "never") + by_file.done(
        "backup", "--verify", folder
    )


def test_a_service_runs_with_a_keyring_that_a_command_opens_and_is_not_rewrapped_meanwhile(tmp_path: Path) -> None:
    script = tmp_path / "kms"
    script.write_text(f"#!/bin/sh\necho {SECRET.hex()}\n")
    script.chmod(0o700)
    tables = f'\n[keyring]\ncustody = "command"\ncommand = ["{script}"]\n'
    with mailvane(tmp_path, tables) as service:
        assert tell(service, events(range(10), datetime.now(UTC))).status == 202
        until(lambda: settled(service), "all to be counted")
        by_command = Operator(service.config, key="")
        by_command.done("backup", tmp_path / "backups")
        by_command.done("keys", "verify", "--backup", tmp_path / "backups")
        assert "a service runs on" in by_command.refused("keys", "unwrap")
        for path in (tmp_path / "data" / "keyring", newest(tmp_path / "backups") / "keyring"):
            assert path.read_bytes().startswith(b"mailvane wrapped keyring")
        assert SECRET.hex() not in service.log.read_text()
    script.write_text("#!/bin/sh\necho planted-secret >&2\nexit 3\n")
    command = [*program(), "--config", str(service.config), "run", "--core-only"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1
    assert "ended with status 3" in ended.stderr
    assert "planted-secret" not in ended.stdout + ended.stderr
