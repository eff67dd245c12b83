"""Letters of strangers, broken or made to harm: none escapes as an exception, takes long, or fills the memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.maildir import Maildir
from tests.bombs import BOMBS, MB
from tests.letters import BOUNCE, BROKEN, COMPLAINT, SPAM, VACATION, forms, letter
from tests.servers.hardening import apart, box, survived

FULL = os.environ.get("MAILVANE_SCALE") == "full"
SHARED = Path(
    os.environ.get("MAILVANE_SHARED") or Path(os.environ.get("MAILVANE_CHECKOUT", ".")).resolve().parent / "shared"
)
LIMIT = 2.0  # seconds of processor time for one letter
ROOM = 96 * MB  # that one letter may take, beyond twice its size
MUTATIONS = 100_000 if FULL else 2_000
SAMPLES = 50
WHOLE, BEGINNING = "", "the beginning of "
ROOT = Path(__file__).resolve().parent.parent
# What moves a parser from one state to another.
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\n\n", b"\0", b"\xff\xfe", b"--", b":", b";", b'"', b"<", b">", b"@", b"=", b"=\r\n"),
    *(b"From ", b">From ", b"From: ", b"To: ", b"Final-Recipient: rfc822;", b"Original-Recipient: ", b"Action: failed"),
    *(
        b"Status: 5.1.1\r\n",
        b"Diagnostic-Code: smtp; 550 ",
        b"Content-Type: multipart/report; boundary=",
        b"charset=utf-7",
    ),
    *(b"Content-Type: message/delivery-status\r\n\r\n", b"Content-Type: message/rfc822\r\n\r\n", b"=?utf-8?b?", b"?="),
    *(
        b"Content-Transfer-Encoding: base64\r\n",
        b"Feedback-Type: abuse\r\n",
        b"boundary*0*=utf-8''",
        b"550-5.1.1 ",
        b"\x1b$B",
    ),
    *(
        b"DKIM-Signature: v=1; a=rsa-sha256; d=",
        b"Received: from ",
        b"Date: ",
        b"9" * 400,
        b" " * 400,
        b"\xc3\xa9",
        b"(" * 50,
    ),
)


@cache
def reader() -> Maildir:
    return box()


@cache
def slowness() -> float:
    """How many times slower this machine is just now than one on which the limit was set; at least 1."""

    def once() -> float:
        began = time.process_time()
        sum(len(str(number)) for number in range(400_000))
        return time.process_time() - began

    return max(1.0, min(once() for _ in range(3)) / 0.1)


def hold(raw: bytes) -> None:
    """It is read, and in time; a machine that is busy gets a second and a third try."""
    limit = LIMIT * slowness()
    for _ in range(3):
        if survived(reader(), raw) <= limit:
            return
    pytest.fail(f"a letter of {len(raw)} bytes takes over {limit:.1f} s")


def ours() -> list[bytes]:
    """Letters of each form, and what is built from them."""
    at = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
    single = [
        letter(kind, number, at, form=number).content
        for kind in (BOUNCE, COMPLAINT, VACATION, SPAM, BROKEN)
        for number in range(forms(kind))
    ]
    crowd = b"".join(
        b"Final-Recipient: rfc822; c%d@example.net\r\nAction: failed\r\nStatus: 5.2.2\r\n\r\n" % n for n in range(200)
    )
    return [
        *single,
        *(one.replace(b"\r\n", b"\n") for one in single),
        single[0].replace(b"Final-Recipient", crowd + b"Final-Recipient"),
    ]


@cache
def samples() -> tuple[bytes, ...]:
    """Fifty letters, of the corpus as far as it is there, spread over its folders, and of ours."""
    folders = [SHARED / "corpus" / name for name in ("bounce", "arf", "abuse_notices")]
    files = [
        path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size < MB
    ]
    mine = ours()[:SAMPLES]
    theirs = random.Random(6).sample(files, min(len(files), SAMPLES - 10))
    return (*(path.read_bytes() for path in theirs), *mine[: SAMPLES - len(theirs)])


def malformed() -> list[Path]:
    return sorted(path for path in (SHARED / "corpus" / "mime_malformed").rglob("*") if path.is_file())


@pytest.mark.scale(order=5)
def test_every_malformed_letter_of_the_corpus_is_read():
    files = malformed()
    if not files:
        pytest.skip("no corpus beside this checkout")
    for path in files:
        hold(path.read_bytes())


@pytest.mark.scale(order=5)
def test_every_letter_cut_at_any_kilobyte_is_read():
    for sample in samples():
        for end in range(0, len(sample) + 1024, 1024):
            hold(sample[:end])


@pytest.mark.scale(order=5)
def test_our_own_letters_cut_at_any_byte_are_read():
    for sample in ours()[:: 1 if FULL else 6]:
        for end in range(0, len(sample), 1 if FULL else 61):
            hold(sample[:end])


Change = tuple[str, int, int, int]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("cut", "double", "put", "swap", "byte", "graft", "lines", "many")),
        st.integers(0, 1 << 20),
        st.integers(0, 1 << 12),
        st.integers(0, 1 << 12),
    ),
    min_size=1,
    max_size=6,
)


def changed(raw: bytes, changes: Sequence[Change], others: Sequence[bytes]) -> bytes:
    """The letter after all that befell it."""
    for what, at, size, which in changes:
        place = at % (len(raw) + 1)
        head, part, tail = raw[:place], raw[place : place + size], raw[place + size :]
        token = TOKENS[which % len(TOKENS)]
        if what == "cut":
            raw = head + tail
        elif what == "double":
            raw = head + part + part + tail
        elif what == "put":
            raw = head + token + part + tail
        elif what == "swap":
            raw = tail + part + head
        elif what == "byte":
            raw = head + bytes([which & 255]) + raw[place + 1 :]
        elif what == "graft":
            raw = head + others[which % len(others)][:4096] + tail
        elif what == "lines":
            raw = raw.replace(b"\n", token, size % 40)
        else:
            raw = head + token * (size % 600) + tail
    return raw[: 256 * 1024]


@pytest.mark.scale(order=5)
@settings(max_examples=MUTATIONS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 16), CHANGES)
def test_whatever_befalls_a_letter_it_is_read(which: int, changes: list[Change]):
    whole = samples()
    hold(changed(whole[which % len(whole)], changes, whole))


@settings(max_examples=2_000 if FULL else 200, deadline=None, database=None)
@given(st.binary(max_size=4_096))
def test_any_bytes_are_read(raw: bytes):
    hold(raw)


@pytest.fixture(scope="module")
def read_apart(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each bomb, read where it could only harm itself."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = {}
    for number, (name, make) in enumerate(BOMBS.items()):
        whole = make()
        # What is read of a text is bounded, and what is slow may need an end within these bounds.
        for which, content in ((WHOLE, whole), (BEGINNING, whole[:30_000] + b"\x01x\r\n")):
            paths[which + name] = folder / f"{number} {which}"
            paths[which + name].write_bytes(content)
    command = [sys.executable, "-m", "tests.servers.hardening", str(ROOM), *map(str, paths.values())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        name: {**answer, "size": path.stat().st_size}
        for (name, path), answer in zip(paths.items(), answers, strict=True)
    }


@pytest.mark.parametrize("which", [WHOLE, BEGINNING])
@pytest.mark.parametrize("name", BOMBS)
def test_no_letter_takes_time_or_memory_that_others_need(read_apart: dict[str, dict[str, Any]], name: str, which: str):
    told = read_apart[which + name]
    assert told["escaped"] == ""
    assert told["seconds"] <= LIMIT * slowness()
    assert told["grown"] <= ROOM + 2 * told["size"]


def fails(_: bytes) -> float:
    raise ValueError("broken")


def hoards(_: bytes) -> float:
    return float(len([b"x" * MB for _ in range(500)]))


def hangs(_: bytes) -> float:
    while True:
        pass


@pytest.mark.parametrize("harm", [fails, hoards, hangs])
def test_the_harness_sees_what_harms(harm: Callable[[bytes], float]):
    assert apart(harm, b"Subject: x", 64 * MB, seconds=1)["escaped"]
