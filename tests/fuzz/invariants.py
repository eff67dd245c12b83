"""What is true of every body, whoever wrote it."""

from __future__ import annotations

import json
import re
from typing import Any

from collectors._decode import decode
from collectors._unpack import TooLarge, unpack
from monitor.model import Batch

LIMIT = 1 << 20
# A local part that is no "…", and a domain.
ADDRESS = re.compile(r"[\w.+-]@[\w-]+\.[a-z]{2,}", re.IGNORECASE)


def decoded(body: bytes) -> Batch:
    """The batch of a body, once all that must hold of it does.

    Raises:
        AssertionError: something does not.
    """
    batch = decode(body)
    assert {len(column) for column in batch.columns.values()} <= {len(batch)}
    assert len(batch.places) in (0, len(batch))
    assert batch.watermark is None or batch.watermark.tzinfo is not None
    for item in batch.rejected:
        assert item.why
        for text in (item.why, item.where, item.sample):
            assert not ADDRESS.search(text), text
            assert text.isprintable()
    told = events(body)
    # What is no JSON at some place is no array at all: then that is said, and nothing is taken.
    if told is not None and [item.where for item in batch.rejected] != ["body"]:
        assert len(batch) + len(batch.rejected) == told, (len(batch), len(batch.rejected), told)
    return batch


def unpacked(body: bytes, encoding: str) -> bytes | None:
    """The body unpacked; None where it can't be."""
    try:
        found = unpack(body, encoding, LIMIT)
    except TooLarge:
        return None
    except ValueError as error:
        assert str(error)  # noqa: PT017
        return None
    assert len(found) <= LIMIT
    return found


def events(body: bytes) -> int | None:
    """How many a body tells of: items of an array, else lines that are not blank; None where it is half an array."""
    if not body.lstrip().startswith(b"["):
        return sum(bool(line.strip()) for line in body.split(b"\n"))
    try:
        whole: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return len(whole) if isinstance(whole, list) else None
