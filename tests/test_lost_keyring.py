"""A keyring that is gone: the service does not start with another, and nothing is set aside for want of it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collectors._decode import check
from monitor import backup
from monitor.errors import UserError
from monitor.facts import queries
from monitor.keyring import Keyring
from monitor.pipeline import take_lines
from monitor.restore import restore
from monitor.stores import Stores

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LINE = b'{"kind": "sent", "at": "2026-11-24T12:00:00Z", "message_id": "<1@shop.example>"}\n'


def tell(stores: Stores) -> None:
    take_lines(check(LINE), stores.spool, stores.keyring, source="http", node="n", now=NOON)


@pytest.mark.parametrize("applied", [False, True])
def test_where_facts_were_told_a_keyring_that_is_gone_is_not_made_anew(tmp_path: Path, *, applied: bool) -> None:
    with closing(Stores(tmp_path)) as stores:
        tell(stores)
        if applied:
            stores.applier.drain()
    (tmp_path / "keyring").rename(tmp_path / "away")
    with pytest.raises(UserError, match="keyring is gone"):
        Stores(tmp_path)
    assert not (tmp_path / "keyring").exists()
    (tmp_path / "away").rename(tmp_path / "keyring")
    with closing(Stores(tmp_path)) as stores:
        tell(stores)  # known
        stores.applier.drain()
        assert queries.totals(stores.facts)["rows"] == 1
    assert not (tmp_path / "dead-letters").exists()


def test_another_keyring_is_not_taken_for_the_one_that_facts_were_written_with(tmp_path: Path) -> None:
    with closing(Stores(tmp_path)) as stores:
        tell(stores)
    (tmp_path / "keyring").rename(tmp_path / "away")
    Keyring.open(tmp_path / "keyring").close()
    with pytest.raises(UserError, match="another keyring"):
        Stores(tmp_path)
    (tmp_path / "away").replace(tmp_path / "keyring")
    with closing(Stores(tmp_path)) as stores:
        assert stores.applier.drain() == 1


def test_what_is_restored_without_its_keyring_begins_with_a_new_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with closing(Stores(data)) as stores:
        tell(stores)
        list(backup.make(stores, data, tmp_path / "backups", NOON, keyring=False))
    list(restore(tmp_path / "backups", tmp_path / "new", NOON, new_keyring=True))
    with closing(Stores(tmp_path / "new")) as stores:
        assert queries.totals(stores.facts)["rows"] == 1
