"""Events as columns on their way to the facts, and as frames of the spool."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from monitor.keyring import PSEUDONYM_BYTES
from monitor.ledger.journal import Progress
from monitor.model import LABELS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP = pa.timestamp("ms", tz="UTC")
NAME = pa.dictionary(pa.int32(), pa.string())  # for texts that repeat
ROWS = pa.schema(
    [
        ("at", _STAMP),
        ("sent_at", _STAMP),
        ("seen_at", _STAMP),
        ("kind", NAME),
        ("attempt", pa.uint16()),
        ("count", pa.uint32()),
        *((label, NAME) for label in LABELS),
        ("recipient", pa.binary(PSEUDONYM_BYTES)),
        ("message", pa.binary(PSEUDONYM_BYTES)),
        ("key", pa.uint64()),
        ("code", pa.uint16()),
        ("dsn", NAME),
        ("relay", NAME),
        ("reply", pa.string()),
        ("source", NAME),
        # Added later: a frame may be without them.
        ("reply_class", NAME),
        ("consent", NAME),
        ("consent_ref", pa.string()),
        ("found_by", NAME),
    ]
)
ADDED = ("reply_class", "consent", "consent_ref", "found_by")
_LENGTH = struct.Struct("<I")
# Without threads: to share out the few bytes of a small frame would cost twenty times the work.
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ = pa.ipc.IpcReadOptions(use_threads=False)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a spool frame holds: ``rows`` as ``ROWS``, or ``sealed`` lines of events; ``count`` of them either way.

    Applied, their source stands where ``progress`` says (None: more of the same follows). Sealed lines have still their
    addresses in them; ``size`` is their length when they are neither sealed nor packed.
    """

    count: int
    progress: Progress | None
    rows: pa.Table | None = None
    sealed: bytes = b""
    size: int = 0


def encode(table: pa.Table, progress: Progress | None) -> bytes:
    """A spool frame of rows."""
    sink = pa.BufferOutputStream()
    sink.write(_headed({"v": 1, "progress": _told(progress)}))
    with pa.ipc.new_stream(sink, ROWS, options=_WRITE) as stream:
        stream.write_table(table.combine_chunks().unify_dictionaries())
    return bytes(sink.getvalue())


def encode_lines(sealed: bytes, count: int, size: int, progress: Progress) -> bytes:
    """A spool frame of sealed lines."""
    return _headed({"v": 2, "progress": _told(progress), "count": count, "size": size}) + sealed


def decode(payload: bytes) -> Frame:
    """What was encoded.

    Raises:
        ValueError: it is no frame of this release, or its columns are others.
    """
    end, head = _head(payload)
    match head:
        case {"v": 1, "progress": progress}:
            rows = _table(payload, end)
            return Frame(len(rows), _heard(progress), rows)
        case {"v": 2, "progress": progress, "count": int(count), "size": int(size)}:
            return Frame(count, _heard(progress), sealed=payload[end:], size=size)
    raise ValueError(f"a frame of version {head.get('v')!r}: this release reads 1 and 2")


def _table(payload: bytes, start: int) -> pa.Table:
    try:
        table = pa.ipc.open_stream(pa.py_buffer(payload)[start:], options=_READ).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError("a frame whose rows can't be read") from error
    for name in ADDED:
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat("", len(table)).cast(ROWS.field(name).type))
    if not table.schema.equals(ROWS):
        raise ValueError("a frame with other columns")
    return table


def progress_of(payload: bytes) -> Progress | None:
    """The progress in a frame, without its rows; None too where the frame can't be read."""
    try:
        return _heard(_head(payload)[1]["progress"])
    except (ValueError, KeyError):
        return None


def _headed(head: dict[str, Any]) -> bytes:
    told = json.dumps(head, separators=(",", ":")).encode()
    return _LENGTH.pack(len(told)) + told


def _head(payload: bytes) -> tuple[int, dict[str, Any]]:
    if len(payload) < _LENGTH.size:
        raise ValueError("a frame without a head")
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    head = json.loads(payload[_LENGTH.size : end])
    if not isinstance(head, dict):
        raise ValueError("a frame without a head")  # noqa: TRY004  # the caller knows one kind of bad frame
    return end, head


def _told(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    return {
        "source": progress.source,
        "node": progress.node,
        "seen_at": _micros(progress.seen_at),
        "cursor": dict(progress.cursor),
        "watermark": _micros(progress.watermark) if progress.watermark else None,
        "remember": dict(progress.remember),
    }


def _heard(told: dict[str, Any] | None) -> Progress | None:
    if told is None:
        return None
    try:
        watermark = told["watermark"]
        return Progress(
            source=told["source"],
            node=told["node"],
            seen_at=_stamp(told["seen_at"]),
            cursor=told["cursor"],
            watermark=None if watermark is None else _stamp(watermark),
            remember=told["remember"],
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError("a frame whose head means nothing") from error


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _stamp(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
