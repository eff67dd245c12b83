"""Custody: wherever its key is kept, the keyring is the same; and it rests encrypted, whole, and for its owner only."""

from __future__ import annotations

import base64
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from monitor import keyfile, shred
from monitor.config import ConfigError, parse
from monitor.custody import configured, former, printed, wrapping
from monitor.errors import UserError
from monitor.keyring import Keyring
from monitor.settings import Custody
from monitor.wrapping import WrappingKey, anonymous
from tests.waiting import until

SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))
KEY, OTHER_KEY = WrappingKey(SECRET), WrappingKey(OTHER)
ENVIRONMENT = Custody(custody="environment", key=SecretStr(base64.b64encode(SECRET).decode()))
PLAIN_BYTES = keyfile.SIZE


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keyring that rests in plain."""
    path = tmp_path_factory.mktemp("plain") / "keyring"
    Keyring.open(path).close()
    return path


@pytest.fixture(scope="module")
def wrapped(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same keyring, wrapped."""
    copy = tmp_path_factory.mktemp("wrapped") / "keyring"
    with closing(Keyring.open(path)) as ring:
        ring.rest(copy, KEY)
    return copy


def script(folder: Path, text: str) -> tuple[str, ...]:
    """A command that does what the Python in ``text`` says."""
    file = folder / "kms.py"
    file.write_text(text)
    return (sys.executable, str(file))


def says(folder: Path, text: str) -> Custody:
    return Custody(custody="command", command=script(folder, text))


def copied(source: Path, folder: Path) -> Path:
    target = folder / "keyring"
    target.write_bytes(source.read_bytes())
    target.chmod(0o600)
    return target


@pytest.fixture(scope="module")
def rings(path: Path, wrapped: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Keyring]]:
    """One keyring in three custodies."""
    told = says(tmp_path_factory.mktemp("kms"), f"print({SECRET.hex()!r})")
    found = [Keyring.open(path), Keyring.open(wrapped, ENVIRONMENT), Keyring.open(wrapped, told)]
    yield found
    for ring in found:
        ring.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=10))
def test_pseudonyms_are_the_same_in_all_custodies(rings: list[Keyring], texts: list[str]) -> None:
    assert len({ring.pseudonyms(texts) for ring in rings}) == 1
    assert len({ring.messages(texts) for ring in rings}) == 1
    assert len({ring.id_keys("http", texts).tobytes() for ring in rings}) == 1
    sealed = rings[0].seal(b"x")
    assert {ring.unseal(sealed) for ring in rings} == {b"x"}


def test_a_wrapped_keyring_shows_nothing_of_the_keys(path: Path, wrapped: Path) -> None:
    plain, resting = path.read_bytes(), wrapped.read_bytes()
    assert plain[64:96] in plain  # the control
    for at in (0, 64, *range(keyfile.HEAD, PLAIN_BYTES, PLAIN_BYTES // 50)):
        assert plain[at : at + 32] not in resting
    assert SECRET not in resting
    assert wrapped.stat().st_mode & 0o777 == 0o600


def test_a_wrapped_keyring_is_laid_out_as_in_each_release(path: Path, wrapped: Path) -> None:
    # By hand, and not by what wrote it: such files rest for years.
    content = wrapped.read_bytes()
    assert content[32:48].hex() == "d1e6b7ddff9d6979b2c87a8cff92563f"
    opened = AESGCM(blake2b(key=SECRET, person=b"wrap", digest_size=32).digest())
    assert opened.decrypt(content[48:60], content[64:], content[:64]) == path.read_bytes()


def test_a_new_keyring_is_wrapped_from_its_first_byte(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    with closing(Keyring.open(path, ENVIRONMENT)) as ring:
        told = ring.pseudonym("jo@example.com")
    assert path.read_bytes().startswith(b"mailvane wrapped keyring 1\n")
    assert [file.name for file in tmp_path.iterdir()] == ["keyring"]
    with closing(Keyring.open(path, ENVIRONMENT)) as again:
        assert again.pseudonym("jo@example.com") == told


def test_the_same_keyring_wrapped_twice_is_never_the_same_file(path: Path, wrapped: Path, tmp_path: Path) -> None:
    with closing(Keyring.open(path)) as ring:
        ring.rest(tmp_path / "keyring", KEY)
    assert (tmp_path / "keyring").read_bytes()[100:200] != wrapped.read_bytes()[100:200]


@pytest.mark.parametrize("at", [5, 40, 50, 62, 64, 4096, PLAIN_BYTES // 2, PLAIN_BYTES + 70])
def test_one_changed_byte_is_seen_wherever_it_stands(wrapped: Path, tmp_path: Path, at: int) -> None:
    path = copied(wrapped, tmp_path)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(UserError, match=r"damaged|no whole keyring|is wrapped with the key"):
        Keyring.load(path, KEY)


@pytest.mark.parametrize("cut", [-1, -17, -PLAIN_BYTES, 1])
def test_a_wrapped_keyring_that_is_cut_off_or_longer_is_none(wrapped: Path, tmp_path: Path, cut: int) -> None:
    path = copied(wrapped, tmp_path)
    os.truncate(path, path.stat().st_size + cut)
    with pytest.raises(UserError, match=f"{path} is no whole keyring"):
        Keyring.load(path, KEY)


def test_without_its_key_or_with_another_it_says_which_it_needs(wrapped: Path) -> None:
    with pytest.raises(UserError, match=f"is wrapped with the key {KEY.name}: give the right one"):
        Keyring.open(wrapped)
    with pytest.raises(UserError, match=f"{KEY.name}, and this is {OTHER_KEY.name}"):
        Keyring.load(wrapped, OTHER_KEY)
    with closing(Keyring.load(wrapped, OTHER_KEY, KEY)) as ring:
        assert ring.wrapped_by == KEY.name
    with pytest.raises(UserError, match=r"no wrapping key .* key_file in \[keyring\], or set \$MAILVANE_KEYRING_KEY"):
        Keyring.open(wrapped, Custody(custody="environment"))


def test_one_in_plain_is_not_taken_where_it_should_be_wrapped(path: Path) -> None:
    with pytest.raises(UserError, match=r"rests in plain.*mailvane keys wrap"):
        Keyring.open(path, ENVIRONMENT)


def test_nothing_shows_the_key_or_the_keyring(rings: list[Keyring]) -> None:
    shown = f"{KEY!r} {KEY} {ENVIRONMENT!r} {rings!r} {rings[1].__dict__!r}"
    for secret in (SECRET.hex(), base64.b64encode(SECRET).decode(), repr(SECRET)):
        assert secret not in shown
    with pytest.raises(TypeError):
        pickle.dumps(rings[1])


@pytest.mark.parametrize(
    "text",
    [
        SECRET.hex(),
        SECRET.hex().upper() + "\n",
        base64.b64encode(bytes([251] * 31 + [1])).decode(),
        base64.urlsafe_b64encode(bytes([251] * 31 + [1])).decode().rstrip("="),
    ],
    ids=["hex", "HEX", "base64", "base64url"],
)
def test_a_key_is_32_bytes_in_base64_or_hex(text: str) -> None:
    assert WrappingKey.parse(text).name in {KEY.name, WrappingKey(bytes([251] * 31 + [1])).name}


@pytest.mark.parametrize(
    "text",
    ["", "secret", "0" * 64, "A" * 43 + "=", SECRET.hex()[:-2], base64.b64encode(SECRET + b"x").decode(), "é" * 43],
    ids=["empty", "short", "zeros", "zeros in base64", "31 bytes", "33 bytes", "other letters"],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UserError, match=r"the wrapping key of \[keyring\] is no key|there is no wrapping key") as error:
        wrapping(Custody(custody="environment", key=SecretStr(text)))
    assert len(text) < 6 or text not in str(error.value)


@given(st.binary(min_size=32, max_size=32).filter(lambda secret: len(set(secret)) > 1))
def test_every_key_is_read_as_it_was_written(secret: bytes) -> None:
    told = {secret.hex(), base64.b64encode(secret).decode(), base64.urlsafe_b64encode(secret).decode()}
    assert {WrappingKey.parse(text).mark for text in told} == {WrappingKey(secret).mark}


def test_the_key_comes_from_its_variable_or_its_file_and_never_stands_in_the_configuration(tmp_path: Path) -> None:
    tables = {"keyring": {"custody": "environment"}}
    assert parse(tables, "t", {"MAILVANE_KEYRING_KEY": SECRET.hex()}).keyring.key.get_secret_value() == SECRET.hex()
    file = tmp_path / "key"
    file.write_text(SECRET.hex() + "\n")
    found = parse({"keyring": {"custody": "environment", "key_file": str(file)}}, "t", {})
    assert configured(found.keyring).name == KEY.name
    with pytest.raises(ConfigError, match="must not stand in this file") as error:
        parse({"keyring": {"custody": "environment", "key": SECRET.hex()}}, "t", {})
    assert SECRET.hex() not in str(error.value)
    with pytest.raises(ConfigError, match="without command"):
        parse({"keyring": {"custody": "command"}}, "t", {})


def test_a_key_of_before_is_read_from_its_file(tmp_path: Path) -> None:
    assert former(None) == ()
    (tmp_path / "key").write_text(OTHER.hex())
    assert [key.name for key in former(tmp_path / "key")] == [OTHER_KEY.name]
    with pytest.raises(UserError, match="can't be read: No such file"):
        former(tmp_path / "none")


def test_a_command_has_no_secret_of_ours_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILVANE_ALERT_OPS_TOKEN", "xoxb-planted")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    told = printed(script(tmp_path, "import os\nprint(sorted(os.environ))"))
    assert "AWS_REGION" in told
    assert "MAILVANE" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\nsys.exit('planted')", "ended with status 1: call it by hand"),
        ("print('planted')", r"what .* prints is no key of 32 random bytes"),
        ("import sys\nwhile True: sys.stdout.write('planted' * 1000)", "printed more than a key"),
        ("", "is no key"),
    ],
    ids=["fails", "nonsense", "too much", "nothing"],
)
def test_a_command_that_gives_no_key_is_told_without_what_it_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        wrapping(says(tmp_path, text))
    assert "planted" not in str(error.value)


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be started: No such file"):
        wrapping(Custody(custody="command", command=(str(tmp_path / "none"), "secret-argument")))


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys, pathlib, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(UserError, match="took longer than 2 s"):
        printed(script(tmp_path, text), seconds=2)
    child = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    until(lambda: not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z", "its child to end")


def test_a_rewrapped_keyring_is_the_same_and_the_old_file_holds_nothing_any_more(path: Path, tmp_path: Path) -> None:
    mine = copied(path, tmp_path)
    with mine.open("rb") as old:
        assert keyfile.rewrap(mine, [KEY], KEY)
        assert set(old.read()) == {0}
    assert not keyfile.rewrap(mine, [KEY], KEY)
    assert keyfile.rewrap(mine, [OTHER_KEY, KEY], OTHER_KEY)
    with pytest.raises(UserError, match="is wrapped with the key"):
        keyfile.rewrap(mine, [KEY], None)
    assert keyfile.rewrap(mine, [OTHER_KEY], None)
    assert mine.read_bytes() == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["keyring"]


def test_what_is_kept_under_another_name_too_is_not_overwritten(path: Path, tmp_path: Path) -> None:
    mine = copied(path, tmp_path)
    (tmp_path / "kept").hardlink_to(mine)
    keyfile.rewrap(mine, [KEY], KEY)
    assert (tmp_path / "kept").read_bytes() == path.read_bytes()
    shred.remove(mine)
    assert not mine.exists()


def test_a_keyring_behind_a_link_is_rewrapped_where_it_stands(path: Path, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir(mode=0o700)
    mine = copied(path, tmp_path / "safe")
    (tmp_path / "keyring").symlink_to(mine)
    keyfile.rewrap(tmp_path / "keyring", [KEY], KEY)
    assert (tmp_path / "keyring").is_symlink()
    assert mine.read_bytes().startswith(b"mailvane wrapped keyring")


@pytest.mark.parametrize("size", [0, 1, 8 << 20, 24 << 20, PLAIN_BYTES])
def test_killed_while_it_is_rewrapped_a_keyring_is_whole(path: Path, tmp_path: Path, size: int) -> None:
    mine = copied(path, tmp_path)
    command = [sys.executable, "-m", "tests.servers.rewrapping", str(mine), SECRET.hex(), OTHER.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        written(tmp_path, size)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    with closing(Keyring.load(mine, KEY, OTHER_KEY)) as ring, closing(Keyring.open(path)) as before:
        assert ring.pseudonym("jo@example.com") == before.pseudonym("jo@example.com")
    keyfile.rewrap(mine, [KEY, OTHER_KEY], None)
    assert mine.read_bytes() == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["keyring"]


def written(folder: Path, size: int) -> None:
    """Return once a draft of so many bytes is there."""

    def there() -> bool:
        try:
            return any(file.stat().st_size >= size for file in folder.glob(".keyring.*"))
        except FileNotFoundError:
            return False

    while not there():
        pass  # without a pause: the moment is short


def test_an_opened_keyring_costs_little_more_than_its_own_size(wrapped: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    tracemalloc.start()
    try:
        before = resident()
        with closing(Keyring.load(wrapped, KEY)):
            grown = resident() - before
        heap = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert grown < PLAIN_BYTES + (4 << 20)
    assert heap < 4 << 20  # what is opened is in our memory alone, and not in the heap on the way


def test_memory_of_keys_is_in_no_file_and_in_no_core_dump() -> None:
    with closing(anonymous(PLAIN_BYTES)) as memory:
        memory[:4] = b"here"
        flags = smaps(PLAIN_BYTES)
    assert "dd" in flags  # do not dump


def smaps(size: int) -> str:
    """The flags of our mapping of that size which is of no file."""
    found, inside = "", False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split(" ")[0] and len(line.split()) >= 5 and not line.startswith(("VmFlags", "Size")):
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            inside = last - first >= size and len(line.split()) == 5
        elif inside and name == "VmFlags":
            found += rest
    return found


def test_who_else_could_read_or_replace_it_is_told(path: Path, tmp_path: Path) -> None:
    mine = copied(path, tmp_path)
    assert list(keyfile.guarded(mine)) == []
    tmp_path.chmod(0o770)
    with pytest.raises(UserError, match="others may put another keyring into"):
        Keyring.open(mine)
    tmp_path.chmod(0o1777)  # as /tmp: nobody removes what is another's
    Keyring.open(mine).close()
    tmp_path.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(mine, 12345, -1)
        with pytest.raises(UserError, match="belongs to user 12345"):
            Keyring.open(mine)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keyring", 0o600)
    with pytest.raises(UserError, match="is no file"):
        Keyring.open(tmp_path / "keyring")


def test_keys_that_are_zero_or_there_twice_are_flaws(path: Path, tmp_path: Path) -> None:
    mine = copied(path, tmp_path)
    with closing(Keyring.load(mine)) as ring:
        assert list(ring.flaws()) == []
        sealed = ring.seal(ring._digest())
        assert ring.doubts(sealed) == ""
    content = bytearray(mine.read_bytes())
    content[4096:4128] = content[8192:8224]
    content[5120:5184] = bytes(64)
    mine.write_bytes(content)
    with closing(Keyring.load(mine)) as ring:
        assert list(ring.flaws()) == ["2 keys are zero", "1 keys are there twice"]
        assert ring.doubts(sealed) == "some keys are others than they were"
        assert "changed since" in ring.doubts(sealed[:-1] + b"?")
