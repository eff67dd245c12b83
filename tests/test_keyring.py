"""Pseudonyms and keys: the same for the same, different for the different, and nothing without the file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import UserError
from monitor.keyring import CODES, FINAL, UNKNOWN, Keyring
from monitor.model import Kind


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keyring"


@pytest.fixture(scope="module")
def keyring(path: Path) -> Iterator[Keyring]:
    ring = Keyring.open(path)
    yield ring
    ring.close()


@pytest.mark.parametrize("dress", ["jo@example.com", "<jo@example.com>", " Jo@Example.COM\t", "< JO@EXAMPLE.COM >"])
def test_an_address_has_one_pseudonym_however_it_is_dressed(keyring: Keyring, dress: str) -> None:
    assert keyring.pseudonym(dress) == keyring.pseudonym("jo@example.com")
    assert len(keyring.pseudonym(dress)) == 16


@pytest.mark.parametrize("nobody", ["", "<>", " \t"])
def test_nobody_is_all_zeros(keyring: Keyring, nobody: str) -> None:
    assert keyring.pseudonym(nobody) == UNKNOWN
    assert keyring.message(nobody) == UNKNOWN


def test_pseudonyms_outlive_the_process_and_depend_on_the_file(keyring: Keyring, path: Path, tmp_path: Path) -> None:
    again, other = Keyring.open(path), Keyring.open(tmp_path / "other")
    for ring in (again, other):
        same = ring is again
        assert (ring.pseudonym("jo@example.com") == keyring.pseudonym("jo@example.com")) is same
        assert (ring.message("<1@example.com>") == keyring.message("<1@example.com>")) is same
        assert (ring.id_keys("http", ["7"]).tolist() == keyring.id_keys("http", ["7"]).tolist()) is same
        ring.close()


def test_a_pseudonym_is_made_with_the_key_of_its_bucket(keyring: Keyring, path: Path) -> None:
    keys = path.read_bytes()
    mac = blake2b(b"jo@example.com", key=keys[64:96], person=b"bucket", digest_size=8).digest()
    at = 4096 + int.from_bytes(mac, "little") % 2**20 * 32
    told = blake2b(b"jo@example.com", key=keys[at : at + 32], digest_size=16).digest()
    assert keyring.pseudonym("jo@example.com") == told


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=20))
def test_a_column_is_its_values_one_after_the_other(keyring: Keyring, texts: list[str]) -> None:
    assert keyring.pseudonyms(texts) == b"".join(keyring.pseudonym(text) for text in texts)
    assert keyring.messages(texts) == b"".join(keyring.message(text) for text in texts)


def test_message_ids_differ_by_case_but_not_by_brackets(keyring: Keyring) -> None:
    assert keyring.message("<Ab@x>") == keyring.message("Ab@x")
    assert keyring.message("Ab@x") != keyring.message("ab@x")
    assert keyring.message("ab@x") != keyring.pseudonym("ab@x")


@pytest.mark.parametrize("kind", Kind)
def test_the_attempt_is_part_of_a_key_only_for_what_may_happen_again(keyring: Keyring, kind: Kind) -> None:
    message, recipient = keyring.message("m"), keyring.pseudonym("a@b.example")
    first, second = (keyring.event_key(message, recipient, kind, tries) for tries in (1, 2))
    assert (first == second) is (kind in FINAL)
    assert 0 <= first < 2**64


def test_message_recipient_kind_and_attempt_all_make_a_key_another(keyring: Keyring) -> None:
    messages = [keyring.message(name) for name in "mn"]
    people = [keyring.pseudonym(f"{name}@example.com") for name in "ab"]
    keys = {
        keyring.event_key(message, person, kind, tries)
        for message in messages
        for person in people
        for kind in Kind
        for tries in (1, 2)
    }
    assert len(keys) == len(messages) * len(people) * (len(FINAL) + 2 * (len(Kind) - len(FINAL)))


def test_keys_of_a_column_are_the_keys_of_its_rows(keyring: Keyring) -> None:
    names = [f"m{place % 7}" for place in range(50)]
    people = [f"u{place % 5}@example.com" for place in range(50)]
    kinds = [list(Kind)[place % len(Kind)] for place in range(50)]
    tries = np.arange(50, dtype=np.int64) % 3
    keys = keyring.event_keys(
        keyring.messages(names), keyring.pseudonyms(people), np.array([CODES[kind] for kind in kinds], np.uint8), tries
    )
    assert keys.dtype == np.uint64
    assert keys.tolist() == [
        keyring.event_key(keyring.message(name), keyring.pseudonym(person), kind, int(number))
        for name, person, kind, number in zip(names, people, kinds, tries, strict=True)
    ]


def test_two_sources_may_use_the_same_id(keyring: Keyring) -> None:
    assert len({*keyring.id_keys("a", ["1", "2", "1"]).tolist(), *keyring.id_keys("b", ["1"]).tolist()}) == 3
    assert keyring.id_keys("a", []).tolist() == []


def test_kinds_keep_their_codes() -> None:
    # They are part of every key on disk: a changed code would count old events again.
    names = ("sent", "deferred", "bounced", "expired", "complaint", "held", "unsubscribed", "not_spam")
    names += ("unverified_complaint", "unverified_bounce", "returned")
    assert {name: code for code, name in enumerate(names, start=1)} == CODES
    assert set(CODES) == set(Kind)


def test_two_who_make_it_at_once_get_the_same_keyring(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keyring"
    told: list[bytes] = []

    def make() -> None:
        ring = Keyring.open(path)
        told.append(ring.pseudonym("jo@example.com"))
        ring.close()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(told) == 4
    assert len(set(told)) == 1
    assert [file.name for file in path.parent.iterdir()] == ["keyring"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_keyring_that_others_may_read_or_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    path.write_bytes(b"mailvane keyring 1\n")
    path.chmod(0o600)
    with pytest.raises(UserError, match="no whole keyring"):
        Keyring.open(path)
    path.chmod(0o640)
    with pytest.raises(UserError, match="others may read"):
        Keyring.open(path)
