"""Marks on our own messages: what genuine ones say, and that nothing else is taken for one."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mailvane_client
from monitor import tracekeys
from monitor.errors import UserError
from monitor.model import LABELS, OWNED
from monitor.tracekeys import KeyFile
from monitor.tracing import LASTS, Key, Keys, Mark, Refused

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
KEY = Key(bytes(range(32)), NOW)
KEYS = Keys([KEY])
MESSAGE, PERSON = "<1@shop.example>", "jane@example.net"

text = st.text(st.characters(codec="utf-8"), max_size=12).filter(str.isprintable)
labelled = st.fixed_dictionaries(dict.fromkeys(LABELS, text)).map(
    lambda found: {name: value if found["tenant"].strip() or name not in OWNED else "" for name, value in found.items()}
)


def traced(
    at: datetime = NOW, message_id: str = MESSAGE, recipient: str = PERSON, key: Key = KEY, **labels: str
) -> str:
    return mailvane_client.trace(key.text, recipient=recipient, message_id=message_id, at=at.timestamp(), **labels)


def verped(at: datetime = NOW, address: str = "bounces@mta.example", recipient: str = PERSON) -> str:
    return mailvane_client.verp(KEY.text, address, recipient, at.timestamp())


def why(header: str, now: datetime = NOW, keys: Keys = KEYS) -> str:
    with pytest.raises(Refused) as refused:
        keys.header(header, now)
    return str(refused.value)


def named(mark: Mark) -> dict[str, str]:
    return {name: value for name, value in zip(LABELS, mark.labels, strict=True) if value}


@given(labelled, st.integers(0, 59 * 86_400))
def test_what_a_sender_says_is_what_is_read(labels, age):
    sent = NOW - timedelta(seconds=age)
    mark = KEYS.header(traced(sent, **labels), NOW)
    assert mark.sent == int(sent.timestamp()) * 1_000_000
    assert mark.message_id == "1@shop.example"
    assert named(mark) == {name: value.strip() for name, value in labels.items() if value.strip()}


@given(st.data())
def test_whoever_changes_a_byte_is_refused(data):
    header = "".join(traced(tenant="s07", campaign="Frühling").split())
    place = data.draw(st.integers(0, len(header) - 1))
    other = data.draw(st.characters(codec="utf-8", exclude_characters=f"{header[place]} \t\r\n"))
    assert why(header[:place] + other + header[place + 1 :]) in ("no token", "unknown key", "wrong signature")


@given(st.data())
def test_whoever_takes_a_part_away_is_refused(data):
    header = "".join(traced(tenant="s07").split())
    first = data.draw(st.integers(0, len(header) - 1))
    last = data.draw(st.integers(first + 1, len(header)))
    assert why(header[:first] + header[last:]) in ("no token", "unknown key", "wrong signature")


@given(st.text(max_size=200))
def test_no_text_of_a_stranger_is_genuine(header):
    assert why(header) in ("no token", "unknown key", "wrong signature")
    assert KEYS.within(header, NOW) is None
    assert KEYS.path(header, NOW) is None


@given(st.data())
def test_whoever_changes_a_letter_of_a_return_path_is_refused(data):
    address = verped()
    place = data.draw(st.integers(0, len(address) - 1))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    changed = address[:place] + other + address[place + 1 :]
    if changed == address:
        return
    with suppress(Refused):
        assert KEYS.path(changed, NOW) is None


@pytest.mark.parametrize(
    "other", ["\u017f", "\u0131", "\u0130", "\u212a"], ids=["long s", "dotless i", "dotted I", "Kelvin"]
)
def test_a_letter_that_only_looks_like_another_makes_no_second_return_path(other):
    local, _, domain = verped().rpartition("@")
    plain = {"\u017f": "s", "\u0131": "i", "\u0130": "i", "\u212a": "k"}[other]
    name, _, code = local.rpartition("+")
    assert KEYS.path(f"{name}+{code[:-1]}{other}@{domain}", NOW) is None
    assert KEYS.path(f"{name}+{code.replace(plain, other)}@{domain}", NOW) is None or plain not in code


def test_a_mark_is_for_one_recipient_however_dressed():
    mark = KEYS.header(traced(), NOW)
    assert mark.fits(PERSON)
    assert mark.fits(" <JANE@Example.net> ")
    assert mark.fits("")  # a report may leave it out
    assert not mark.fits("joe@example.net")
    assert PERSON not in base64.b64decode(traced().split(".")[2].replace(" ", "") + "==", b"-_").decode()


def test_a_return_path_tells_when_and_to_whom():
    mark = KEYS.path(verped(NOW + timedelta(seconds=59)).upper(), NOW)
    assert mark
    assert mark.sent == NOW.timestamp() * 1_000_000
    assert mark.address.lower() == "bounces@mta.example"
    assert mark.fits(PERSON)
    assert not mark.fits("joe@example.net")
    assert KEYS.path("bounces@mta.example", NOW) is None


def test_a_return_path_is_short_enough_for_every_server():
    address = verped(address="b" * 31 + "@mta.example")
    assert len(address.partition("@")[0]) == 64
    assert KEYS.path(address, NOW)
    with pytest.raises(ValueError, match="31 octets"):
        verped(address="b" * 32 + "@mta.example")


@pytest.mark.parametrize(
    ("address", "recipient"), [("bounces", PERSON), ("@mta.example", PERSON), ("bounces@mta.example", " ")]
)
def test_a_return_path_needs_both_addresses(address, recipient):
    with pytest.raises(ValueError, match="needs an address with a domain, and one recipient"):
        verped(address=address, recipient=recipient)


def test_what_is_too_old_or_of_the_future_vouches_for_nothing():
    assert why(traced(NOW - LASTS - timedelta(seconds=1))) == "expired"
    assert why(traced(NOW + timedelta(minutes=11))) == "of the future"
    assert KEYS.header(traced(NOW - LASTS), NOW)
    assert KEYS.header(traced(NOW + timedelta(minutes=9)), NOW)
    with pytest.raises(Refused, match="expired"):
        KEYS.path(verped(NOW - timedelta(days=61)), NOW)


def test_a_key_of_before_is_known_until_it_is_forgotten(tmp_path: Path):
    path = tmp_path / "keys"
    first = tracekeys.make(path, NOW)
    file = KeyFile(path)
    header = traced(key=first)
    assert file.current().header(header, NOW).key == first.name

    second = tracekeys.rotate(path, NOW + timedelta(days=1))
    assert mailvane_client.trace_key(path) == second.text
    assert file.current().header(header, NOW).key == first.name
    assert file.current().header(traced(key=second), NOW).key == second.name

    tracekeys.rotate(path, NOW + timedelta(days=2), forget=True)
    assert why(header, keys=file.current()) == "unknown key"


def test_a_key_whose_marks_have_all_expired_is_dropped(tmp_path: Path):
    path = tmp_path / "keys"
    made = [tracekeys.make(path, NOW)]
    made += [tracekeys.rotate(path, NOW + timedelta(days=days)) for days in (1, 60, 62)]
    # The first ended after a day, so on day 62 nothing that it signed counts; the second ended two days ago.
    assert tracekeys.read(path) == (made[3], made[2], made[1])


def test_the_file_of_keys_is_its_owners_alone(tmp_path: Path):
    path = tmp_path / "keys"
    key = tracekeys.make(path, NOW)
    assert path.stat().st_mode & 0o777 == 0o600
    file = KeyFile(path)
    assert file.current().all == (key,)
    path.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        tracekeys.read(path)
    assert file.current().all == (key,)  # those of before, and people are told
    assert "chmod 600" in file.trouble
    path.chmod(0o600)
    assert file.current().all == (key,)
    assert file.trouble == ""
    path.unlink()
    assert file.current().all == ()


@pytest.mark.parametrize("line", ["x", "2026-11-24T10:00:00+00:00 abc", f"2026-11-24T10:00:00 {KEY.text}", "é é"])
def test_a_line_that_is_no_key_is_told_by_its_place(tmp_path: Path, line):
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"# ours\n{line}\n", "utf-8")
    with pytest.raises(UserError, match="line 2: ") as told:
        tracekeys.read(path)
    assert KEY.text not in str(told.value)


def test_a_file_of_keys_is_not_made_twice(tmp_path: Path):
    tracekeys.make(tmp_path / "keys", NOW)
    with pytest.raises(UserError, match="--rotate"):
        tracekeys.make(tmp_path / "keys", NOW)


def test_no_key_is_shown():
    assert KEY.text not in repr(KEY)
    assert "\\x" not in repr(KEY)
    assert repr(KEY.secret)[3:] not in repr(KEYS.header(traced(), NOW))


@pytest.mark.parametrize("key", ["", "abc", "é" * 43, KEY.text + "A", KEY.text[:-1] + "!"])
def test_a_sender_is_told_that_a_key_is_none(key):
    with pytest.raises(ValueError, match="mailvane trace key"):
        mailvane_client.trace(key, recipient=PERSON, message_id=MESSAGE)


def test_a_sender_is_told_what_can_not_be_traced():
    with pytest.raises(ValueError, match="one recipient and one Message-ID"):
        traced(recipient="<>")
    with pytest.raises(ValueError, match="one recipient and one Message-ID"):
        traced(message_id="")
    with pytest.raises(ValueError, match="without tenant"):
        traced(segment="lapsed")
    with pytest.raises(ValueError, match="more than 800"):
        traced(message_id="x" * 600)


def test_a_header_passes_through_a_mail_library_that_folds_it():
    message = EmailMessage()
    message["X-Mailvane"] = traced(
        tenant="s07", campaign="Frühling 🌷", **dict.fromkeys(("ip", "domain", "stream"), "x" * 30)
    )
    message.set_content("Hello")
    raw = message.as_bytes()
    assert max(map(len, raw.splitlines())) <= 78
    back = message_from_bytes(raw, policy=policy.default)["X-Mailvane"]
    assert named(KEYS.header(back, NOW))["campaign"] == "Frühling 🌷"
    # And as they stand on the wire, unfolded by nobody.
    folded = re.search(rb"X-Mailvane: (.*(?:\n .*)*)", raw)
    assert folded
    assert KEYS.header(folded[1].decode(), NOW)


def test_a_token_in_a_url_is_found():
    token = "".join(traced(tenant="s07").split())
    mark = KEYS.within(f"<https://shop.example/u/{token}>, <mailto:u@shop.example?subject={token}>", NOW)
    assert mark
    assert named(mark) == {"tenant": "s07"}


def test_a_mark_made_for_one_use_is_none_for_another():
    secret = "".join(traced().split())
    assert KEYS.path(f"bounces+{secret[:32]}@mta.example", NOW) is None


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.12", "3.13"])
def test_marks_are_the_same_on_other_versions_of_python(version):
    python = shutil.which(f"python{version}")
    if not python or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"needs python{version}")
    script = f"""
import sys
sys.path.insert(0, sys.argv[1])
import mailvane_client as client
print(client.trace({KEY.text!r}, recipient={PERSON!r}, message_id={MESSAGE!r}, at={NOW.timestamp()}, tenant="s07"))
print(client.verp({KEY.text!r}, "bounces@mta.example", {PERSON!r}, {NOW.timestamp()}))
"""
    folder = str(Path(mailvane_client.__file__).parent)
    done = subprocess.run(
        [python, "-W", "error", "-c", script, folder], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines() == [traced(tenant="s07"), verped()]
