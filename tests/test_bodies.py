"""Messages as brokers carry them: packed or plain, lines or arrays, and nonsense."""

from __future__ import annotations

import gzip
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collectors import _bodies
from collectors._bodies import Bodies
from monitor.model import Batch
from tests.servers.brokers import body, line, numbers

POISON = b"\x00\x01 this is no event\nnor is this\n"


def opened(*bodies: bytes, encoding: str = "") -> Batch:
    gathered = Bodies()
    for place, content in enumerate(bodies, start=1):
        gathered.add(f"m{place}", content, encoding)
    return gathered.batch()


def array(*numbers: int) -> bytes:
    return json.dumps([json.loads(line(number)) for number in numbers], indent=2).encode()


def test_messages_of_any_shape_become_one_batch_with_their_places():
    packed, other = gzip.compress(body([3, 4])), zstandard.compress(body([5]))
    batch = opened(body([0, 1]) + b"\n", array(2), packed, other)
    assert numbers([batch]) == [0, 1, 2, 3, 4, 5]
    assert list(batch.places) == ["m1 line 1", "m1 line 2", "m2 item 1", "m3 line 1", "m3 line 2", "m4 line 1"]
    assert list(batch.places[1:3]) == ["m1 line 2", "m2 item 1"]
    assert not batch.rejected


def test_a_header_says_how_a_message_is_packed():
    assert numbers([opened(gzip.compress(body([7])), encoding="GZIP")]) == [7]
    assert numbers([opened(body([7]), encoding="utf-8")]) == [7]


def test_a_line_that_is_no_event_is_told_with_its_message_and_the_rest_counts():
    batch = opened(body([0]), body([1]) + b'\n{"kind": "eaten"}\n\n' + body([2]))
    assert numbers([batch]) == [0, 1, 2]
    assert [item.where for item in batch.rejected] == ["m2 line 2"]
    assert list(batch.places) == ["m1 line 1", "m2 line 1", "m2 line 4"]


@pytest.mark.parametrize(
    ("content", "encoding", "why"),
    [
        (POISON, "", "message: none of its 2 lines is an event"),
        (b"", "", "message: empty"),
        (b" \n\n ", "", "message: empty"),
        (b"[]", "", "message: empty"),
        (b'[{"kind": "sent"', "", "message: no JSON array"),
        (b"{}", "br", "message: 'br' is no encoding"),
        (gzip.compress(b"{}", mtime=0)[:-6], "gzip", "message: it ends before"),
        (b"{}", "zstd", "message: it is no whole zstd"),
        (gzip.compress(mtime=0, data=bytes(_bodies.MESSAGE_BYTES + 1)), "", "message: unpacked it is over"),
        (zstandard.compress(bytes(_bodies.MESSAGE_BYTES + 1)), "", "message: unpacked it is over"),
        (b"x" * (_bodies.MESSAGE_BYTES + 1), "", "message: over"),
        (b"{}\n" * (_bodies.MESSAGE_LINES + 1), "", "message: over 100000 lines"),
        (b"[" + b"{}," * _bodies.MESSAGE_LINES + b"{}]", "", "message: over 100000 lines"),
    ],
)
def test_a_message_that_is_nonsense_as_a_whole_is_rejected_once(content, encoding, why):
    gathered = Bodies()
    gathered.add("m1", content, encoding)
    gathered.add("m2", body([1]))
    batch = gathered.batch()
    assert numbers([batch]) == [1]
    (rejected,) = batch.rejected
    assert rejected.why.startswith(why)
    assert rejected.where.startswith("m1")


@given(st.lists(st.one_of(st.binary(max_size=60), st.text('[]{}",:\n\r \t0aeé', max_size=30).map(str.encode))))
def test_no_message_takes_another_one_with_it(strange):
    bodies = [content for number, one in enumerate(strange) for content in (one, body([number]))]
    batch = opened(*bodies)
    assert numbers([batch]) == list(range(len(strange)))
    assert list(batch.places) == [f"m{2 * number + 2} line 1" for number in range(len(strange))]
    assert {item.where.split()[0] for item in batch.rejected} == {
        f"m{2 * number + 1}" for number in range(len(strange))
    }
