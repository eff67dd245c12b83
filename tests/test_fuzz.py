"""Bodies that nobody thought of: each becomes a batch, no line is lost, and nobody's address is told."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.facts.names import NameLimit
from monitor.facts.prepare import prepare
from monitor.keyring import Keyring
from tests.fuzz.invariants import decoded

FULL = os.environ.get("MAILVANE_SCALE") == "full"
SECONDS = 300 if FULL else 4
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
EVENT = {
    "kind": "bounced",
    "at": "2026-11-24T10:00:00Z",
    "message_id": "<m1@shop.example>",
    "recipient": "jan.kowalski@example.net",
    "tenant": "s07",
    "reply": "550 5.1.1 no such user <jan.kowalski@example.net>",
}
STAMPS = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
ODD_STAMPS = st.sampled_from(
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "2026-02-30T00:00:00Z", ""]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | STAMPS | ODD_STAMPS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from([*EVENT, "sent_at", "id", "count", "attempt", "segment", "code", "dsn"])
CHANGES = st.dictionaries(NAMES | st.emails() | st.text(max_size=5), VALUES, max_size=3)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    text = json.dumps({**EVENT, **draw(CHANGES)}, ensure_ascii=draw(st.booleans()))
    raw = text.encode("utf-8", "surrogatepass")
    if not draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=5)) + raw[at + draw(st.integers(0, 9)) :]
    return raw


BREAKS = st.sampled_from([b"\n", b"\n\n", b"\r\n", b"\n \t\n"])
BODIES = (
    st.binary(max_size=300)
    | st.tuples(st.lists(lines(), max_size=6), BREAKS).map(lambda told: told[1].join(told[0]))
    | st.lists(lines(), max_size=6).map(lambda told: b"[" + b",".join(told) + b"]")
)


@settings(max_examples=300, deadline=None)
@given(BODIES)
@example(b"")
@example(b"[]")
@example(b" [ ] ")
@example(b"[" * 100_000)
@example(b'{"kind": ' * 50_000)
@example(b'["jo.bloggs@example.com"]')
@example(b'{"jo.bloggs@example.com": 1}\n\n{"kind": "jo.bloggs@example.com"}')
def test_whatever_a_body_says_it_becomes_a_batch_and_nobody_is_named(body: bytes):
    decoded(body)


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    ring = Keyring.open(tmp_path_factory.mktemp("keys") / "keyring")
    yield ring
    ring.close()


@settings(max_examples=200, deadline=None)
@given(BODIES, st.booleans())
def test_what_was_decoded_can_be_stored_or_is_named(keyring: Keyring, body: bytes, live: bool):
    batch = decoded(body)
    bounds: Any = (NOW - timedelta(days=30), NOW + timedelta(minutes=10)) if live else None
    rows, rejected = prepare(batch, "http", keyring, NOW if live else None, bounds=bounds, names=NameLimit(2))
    assert rows.num_rows + len(rejected) == len(batch)
    assert all(item.why for item in rejected)


@pytest.mark.scale(order=3)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python or system"
)
def test_libfuzzer_finds_no_body_that_breaks_the_decoder(tmp_path: Path):
    options = [f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/", "-print_final_stats=1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.decoder", *options],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
