"""What goes from a shipper to its core: parts, each four bytes of length and MessagePack, the hello before the frames.

The frames lie packed in the shipper's spool and are sent as they lie there: zstd's members may follow one another.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import zstandard
from msgspec import UNSET, Meta, Struct, UnsetType

from monitor.model import COLUMNS, Batch, Rejected
from monitor.scrub import scrub

VERSION = 1
PART_BYTES = 4 << 20  # of one frame before it is packed; half of what one request may hold
SAMPLES = 100  # rejected items of a frame that are told one by one; of the others the reasons are counted
MOST_REJECTED = 1_000_000  # of one frame; a chunk of a log has fewer lines
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LENGTH = struct.Struct("<I")
_LEVEL = 3

Long = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Moment = Annotated[int, Meta(ge=0, le=4_102_444_800_000_000)]  # POSIX microseconds, to the year 2100
Number = Annotated[int, Meta(ge=0, le=(1 << 53))]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Broken(ValueError):  # noqa: N818  # a body may be so
    """A body that is no run of parts, or a part that is not what it should be; the message says which and why."""


class Told(Struct, omit_defaults=True):
    """Items that could not be read: one with its sample, or ``count`` of which only the reason is told."""

    why: Annotated[str, Meta(max_length=1000)]
    where: Annotated[str, Meta(max_length=1000)] = ""
    sample: Annotated[str, Meta(max_length=2000)] = ""
    count: Annotated[int, Meta(ge=1, le=MOST_REJECTED)] = 1


class Beat(Struct, omit_defaults=True):
    """That a source is alive: nothing older than ``watermark`` is still to come; or the ``error`` that it has."""

    source: Name
    watermark: Moment | None = None
    error: Annotated[str, Meta(max_length=1000)] = ""


class Waiting(Struct):
    """What waits in a spool beside what comes with it; ``oldest`` is the age of the first frame in seconds."""

    frames: Number = 0
    bytes: Number = 0
    oldest: Annotated[float, Meta(ge=0)] = 0.0
    full: bool = False
    dead_letters: Number = 0


class Hello(Struct):
    """Who speaks, and which frames follow: (source, sequence) of each, in their order.

    ``spool`` names the numbering: in another spool the same sequence means another frame. ``columns`` are all names
    of columns in the frames. ``reached``: the last frame of the spool that was taken, as the shipper was told.
    """

    version: int
    node: Name
    spool: Name
    sent_at: Moment
    frames: Annotated[list[tuple[Name, Number]], Meta(max_length=10_000)]
    columns: Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=1000)]
    beats: Annotated[list[Beat], Meta(max_length=1000)]
    waiting: Waiting
    reached: Number = 0


# A list for each name that the source knows.
_Columns = msgspec.defstruct(
    "Columns",
    [
        (name, (list[Long] if isinstance(default, int) else list[str]) | UnsetType, UNSET)
        for name, default in COLUMNS.items()
    ],
    forbid_unknown_fields=True,
)


class Frame(Struct, omit_defaults=True):
    """A batch, or a part of one, as its collector made it."""

    columns: _Columns  # type: ignore[valid-type]  # made of the model's columns
    watermark: Moment | None = None
    rejected: list[Told] = []
    places: list[str] = []


_hello = msgspec.msgpack.Decoder(Hello)
_frame = msgspec.msgpack.Decoder(Frame)
_encoder = msgspec.msgpack.Encoder()


def micros(at: datetime) -> int:
    """POSIX microseconds."""
    return (at - _EPOCH) // _MICROSECOND


def moment(micros: int) -> datetime:
    """The time that ``micros`` was made of."""
    return _EPOCH + micros * _MICROSECOND


# the shipper's side


def packed(part: bytes) -> bytes:
    """A part as it is sent; a body is some of these, one after the other."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(_LENGTH.pack(len(part)) + part)


def hello(told: Hello) -> bytes:
    """The first part of a body, packed."""
    return packed(_encoder.encode(told))


def split(batch: Batch) -> Iterator[bytes]:
    """The batch as parts of a bounded size, not packed yet; what is told once stands in the last.

    Raises:
        ValueError: a single row is longer than a part may be.
    """
    columns = {name: _plain(name, values) for name, values in batch.columns.items()}
    whole = Frame(
        columns=columns,
        watermark=micros(batch.watermark) if batch.watermark else None,
        rejected=list(_told(batch.rejected)),
        places=list(batch.places),
    )
    yield from _halved(whole, len(batch))


def _halved(frame: Frame, rows: int) -> Iterator[bytes]:
    part = _encoded(frame)
    if len(part) <= PART_BYTES:
        yield part
        return
    if rows < 2:
        raise ValueError(f"a row of {len(part)} bytes is longer than a frame may be")
    middle = rows // 2
    yield from _halved(Frame(columns=_cut(frame.columns, 0, middle), places=frame.places[:middle]), middle)
    rest = msgspec.structs.replace(frame, columns=_cut(frame.columns, middle, rows), places=frame.places[middle:])
    yield from _halved(rest, rows - middle)


def _cut(columns: Any, start: int, end: int) -> dict[str, Sequence[Any]]:
    return {name: values[start:end] for name, values in columns.items()}


def _encoded(frame: Frame) -> bytes:
    try:
        return _encoder.encode(frame)
    except UnicodeEncodeError:  # half a surrogate pair, from JSON
        return _encoder.encode(_mended(msgspec.structs.asdict(frame)))


def _mended(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {name: _mended(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_mended(inner) for inner in value]
        case Struct():
            return _mended(msgspec.structs.asdict(value))
    return value


def _plain(name: str, values: Sequence[Any]) -> Sequence[Any]:
    """Python's own values, whatever kind of array the collector made; a null takes the column's default."""
    for way in ("to_pylist", "to_list", "tolist"):
        if listed := getattr(values, way, None):
            default = COLUMNS.get(name)
            return [default if value is None else value for value in listed()]
    return values if isinstance(values, list | tuple) else list(values)


def _told(rejected: Sequence[Rejected]) -> Iterator[Told]:
    reasons = Counter(item.why.partition(":")[0][:100] for item in rejected[SAMPLES:])
    shown = reasons.most_common(SAMPLES)
    if rest := reasons.total() - sum(count for _, count in shown):
        shown.append(("other reasons", rest))
    for why, count in shown:
        yield Told(why, count=min(count, MOST_REJECTED))
    yield from (Told(item.why[:1000], item.where[:1000], item.sample[:2000]) for item in rejected[:SAMPLES])


# the core's side


def opened(body: bytes) -> tuple[Hello, list[bytes]]:
    """The hello of an unpacked body, and its frames as they are.

    Raises:
        Broken: it is no run of parts, the first is no hello, or there are not as many frames as that says.
    """
    parts = list(_parts(body))
    if not parts:
        raise Broken("an empty body")
    try:
        told = _hello.decode(parts[0])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Broken(f"hello: {error}") from error
    if len(told.frames) != len(parts) - 1:
        raise Broken(f"hello: it names {len(told.frames)} frames, and {len(parts) - 1} follow")
    return told, parts[1:]


def _parts(body: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        if len(body) - start < _LENGTH.size:
            raise Broken("the body ends within a length")
        end = start + _LENGTH.size + _LENGTH.unpack_from(body, start)[0]
        if end > len(body):
            raise Broken("the body ends within a part")
        yield body[start + _LENGTH.size : end]
        start = end


def batch(part: bytes) -> Batch:
    """The batch in a frame.

    Raises:
        Broken: it is none, or its columns are unknown, of another type or of different lengths.
    """
    try:
        frame = _frame.decode(part)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Broken(str(error)) from error
    columns: dict[str, Sequence[Any]] = {
        name: values for name in COLUMNS if (values := getattr(frame.columns, name)) is not UNSET
    }
    lengths = {len(values) for values in columns.values()} | ({len(frame.places)} if frame.places else set())
    if len(lengths) > 1:
        raise Broken("columns of different lengths")
    if sum(item.count for item in frame.rejected) > MOST_REJECTED:
        raise Broken(f"over {MOST_REJECTED:,} rejected items")
    rejected: list[Rejected] = []
    for item in frame.rejected:
        rejected += [Rejected(scrub(item.why, 200), scrub(item.where, 200), scrub(item.sample, 300))] * item.count
    watermark = moment(frame.watermark) if frame.watermark else None
    return Batch(columns, watermark=watermark, rejected=rejected, places=frame.places)


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one source, oldest first, as one."""
    names = [name for name in COLUMNS if any(name in one.columns for one in batches)]
    columns = {name: [value for one in batches for value in _filled(one, name)] for name in names}
    marks = [one.watermark for one in batches if one.watermark]
    placed = any(one.places for one in batches)
    return replace(
        Batch(columns),
        watermark=max(marks, default=None),
        rejected=[item for one in batches for item in one.rejected],
        places=[place for one in batches for place in one.places or [""] * len(one)] if placed else (),
    )


def _filled(one: Batch, name: str) -> Sequence[Any]:
    return one.columns.get(name) or [COLUMNS[name]] * len(one)
