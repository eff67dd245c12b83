"""Events as marketplaces tell them, over HTTP or by a broker: one JSON object an outcome, as NDJSON or as an array.

In two steps, since the first is waited for. ``check`` says which lines are events, and why others are none. ``columns``
takes checked lines apart, many batches at once, without the interpreter's lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from msgspec import UNSET, Meta, Struct, UnsetType

from monitor.model import DRESS, LABELS, OWNED, Batch, Rejected
from monitor.scrub import scrub

LINE_LIMIT = 64 * 1024  # bytes: a longer line is no event
ITEMS = 200_000  # of an array
_PIECE = 60_000  # bytes that are checked at once
_MANY = 20  # bad lines of a piece that are looked for one by one
_SOME = 50  # lines that are checked at once where one of a body is bad
_SHOWN = 8000  # bytes of a bad line that are looked at
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
NOT_YOURS = "tenant: this key tells of its own mail only"

Stamp = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset")]
# Sellers choose some of these names, so they are bounded and hold no control characters.
Label = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Line = Annotated[str, Meta(max_length=2000)]


class Event(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One line. ``message_id`` (or an ``id`` of the sender's own) is what makes a repeated line count once."""

    kind: Literal["sent", "deferred", "bounced", "expired", "complaint", "held", "unsubscribed", "returned", "not_spam"]
    at: Stamp
    sent_at: Stamp | UnsetType = UNSET
    message_id: Line = ""
    id: Annotated[str, Meta(max_length=200)] = ""
    recipient: Annotated[str, Meta(max_length=1000)] = ""
    attempt: Annotated[int, Meta(ge=0, le=65535)] = 0
    count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    ip: Label = ""
    domain: Label = ""
    provider: Label = ""
    stream: Label = ""
    tenant: Label = ""
    segment: Label = ""
    campaign: Label = ""
    variant: Label = ""
    region: Label = ""
    code: Annotated[int, Meta(ge=0, le=999)] = 0
    dsn: Annotated[str, Meta(max_length=20)] = ""
    relay: Annotated[str, Meta(max_length=300)] = ""
    reply: Line = ""
    consent: Label = ""
    consent_ref: Annotated[str, Meta(max_length=200)] = ""


def _without_patterns() -> type[Event]:
    """``Event`` but for the pattern of labels, which costs three times as much as all else."""
    hints = msgspec.inspect.type_info(Event)
    assert isinstance(hints, msgspec.inspect.StructType)  # noqa: S101  # says what the line above gave
    short = Annotated[str, Meta(max_length=200)]
    fields: list[Any] = []
    for field in msgspec.structs.fields(Event):
        kind = short if field.type == Label else field.type
        fields.append((field.name, kind) if field.required else (field.name, kind, field.default))
    return msgspec.defstruct("Event", fields, bases=(Struct,), forbid_unknown_fields=True, omit_defaults=True, gc=False)  # type: ignore[return-value]  # the same fields


_decoder = msgspec.json.Decoder(Event)
_encode = msgspec.json.Encoder().encode
# Text without a backslash has no control character to look for: JSON allows none of them as they are.
_plain_decoder = msgspec.json.Decoder(_without_patterns())
_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])
# How the decoder says where in some lines a mistake is.
_INDEX, _OFFSET = re.compile(r" - at `\$\[(\d+)\]"), re.compile(r"\(byte (\d+)\)$")
_BREAK, _BEGIN, _END = b"\n{}"
_BETWEEN = re.compile(rb"\}[ \t\r]*\n[ \t\r]*\{")
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")


@dataclass(frozen=True, slots=True)
class Checked:
    """What a body holds: ``lines``, the events as NDJSON, ``count`` of them; the others in ``rejected``, by number.

    ``newest`` is the latest ``at``.
    """

    lines: bytes
    count: int
    newest: datetime | None
    rejected: Sequence[Rejected] = ()


def schema() -> dict[str, Any]:
    """The JSON Schema of one line."""
    return msgspec.json.schema(Event)


def decode(body: bytes) -> Batch:
    """The events of a body as columns; lines that are none are rejected by number, field and reason."""
    checked = check(body)
    return Batch(columns=columns(checked.lines), watermark=checked.newest, rejected=checked.rejected)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What is taken: events whose ``at`` lies in the bounds, and of that tenant's mail alone, if one is named."""

    since: datetime
    until: datetime
    tenant: str = ""


def check(body: bytes, bounds: tuple[datetime, datetime] = _EVER, tenant: str = "") -> Checked:
    """Which lines (or elements of an array) are events whose ``at`` lies in ``bounds``, and why the others are none.

    ``tenant``: all are to be of that one's mail; a line that names none is taken for it, and one of another's is none.
    The lines are then written anew, so that whoever reads them next finds no other name in them.
    """
    taken = _Taken(*bounds, tenant)
    if body[:64].lstrip()[:1] == b"[":
        return _array(body, taken)
    # Many lines at once are ten times as fast as one by one, which only tells which is wrong. A piece has not so many
    # that a bad one among them costs much.
    found: list[Checked] = []
    number = 1
    for piece in _pieces(body):
        found += _checked(piece, number, taken)
        number += piece.count(b"\n")
    return _joined(found)


def _pieces(body: bytes) -> Iterator[bytes]:
    """The body in parts that end with a line."""
    start = 0
    while start < len(body):
        end = len(body)
        if end - start > _PIECE:
            end = body.rfind(b"\n", start, start + _PIECE) + 1 or body.find(b"\n", start + _PIECE) + 1 or end
        yield body if end - start == len(body) else body[start:end]
        start = end


def _checked(body: bytes, number: int, taken: _Taken) -> Iterator[Checked]:
    """From one bad line to the next, as far as the decoder's errors tell where they stand; the first has ``number``."""
    for _ in range(_MANY):
        good, place = _tried(body, taken)
        if good:
            yield good
            return
        if place is None:
            break
        before, line = body[: place[0]], body[place[0] : place[1]]
        if before:
            yield _tried(before, taken)[0] or _one_by_one(enumerate(before.split(b"\n"), number), "line", taken)
        number += before.count(b"\n")
        yield _one_by_one([(number, line)], "line", taken)
        number, body = number + 1, body[place[1] + 1 :]
        if not body:
            return
    yield _one_by_one(enumerate(body.split(b"\n"), number), "line", taken)


def _array(body: bytes, taken: _Taken) -> Checked:
    try:
        items = _array_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Checked(b"", 0, None, [Rejected(f"body: no JSON array: {scrub(str(error), 100)}", "body")])
    if len(items) > ITEMS:  # each one that is bad costs an object
        return Checked(b"", 0, None, [Rejected(f"body: over {ITEMS:,} items", "body")])
    # Line breaks within an element stand between its parts: in a string JSON allows none.
    lines = (bytes(item).replace(b"\n", b" ").replace(b"\r", b" ") for item in items)
    return _one_by_one(enumerate(lines, start=1), "item", taken)


def _tried(body: bytes, taken: _Taken) -> tuple[Checked | None, tuple[int, int] | None]:
    """A body in which every line is an event; else where the first that is none begins and ends, if it can be told."""
    if len(body) > LINE_LIMIT and (place := _long(body)):
        return None, place
    try:
        events = (_decoder if b"\\" in body or b"\x7f" in body else _plain_decoder).decode_lines(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, _place(body, error)
    if not events or not _apart(body, len(events)):
        return None, None
    newest = _newest(events, taken)
    if newest is None:
        return None, _nth(body, next(place for place, event in enumerate(events) if _wrong(event, taken)))
    lines = _owned(events, taken.tenant) if taken.tenant else body if body.endswith(b"\n") else body + b"\n"
    return Checked(lines, len(events), newest), None


def _owned(events: Iterable[Event], tenant: str) -> bytes:
    """The events of a tenant as lines. A line may name its tenant twice, and readers differ in which they believe."""
    for event in events:
        event.tenant = tenant
    return b"".join([_encode(event) + b"\n" for event in events])


def _apart(body: bytes, events: int) -> bool:
    """Whether each of so many events has a line: none is over two lines, no two are on one, and no line is blank.

    A line that breaks off between two objects breaks off nowhere else: an event holds no other object.
    """
    text = np.frombuffer(body, np.uint8)
    breaks = np.flatnonzero(text == _BREAK)
    if body.endswith(b"\n"):
        breaks = breaks[:-1]
    if len(breaks) != events - 1 or body.startswith(b"\n"):
        return False
    between = (text[breaks - 1] == _END) & (text[breaks + 1] == _BEGIN)
    return bool(between.all()) or len(_BETWEEN.findall(body)) == events - 1


def _long(body: bytes) -> tuple[int, int] | None:
    """Where the first line begins and ends that is too long."""
    start = 0
    while len(body) - start > LINE_LIMIT:
        # The last break that such a line could not reach beyond.
        end = body.rfind(b"\n", start, start + LINE_LIMIT + 1)
        if end < 0:
            return start, start + len(_line(body, start))
        start = end + 1
    return None


def _place(body: bytes, error: Exception) -> tuple[int, int] | None:
    if index := _INDEX.search(str(error)):
        start, _ = _nth(body, int(index[1]))
    elif offset := _OFFSET.search(str(error)):
        start = body.rfind(b"\n", 0, int(offset[1])) + 1
        if start > 0 and isinstance(_event(_line(body, start)), Event):
            start = body.rfind(b"\n", 0, start - 1) + 1  # a line that breaks off is noticed at the next one
    else:
        return None
    # Whatever the decoder says, a line is bad only if it is so by itself.
    line = _line(body, start)
    return None if isinstance(_event(line), Event) else (start, start + len(line))


def _nth(body: bytes, place: int) -> tuple[int, int]:
    """Where that line (from 0) begins and ends."""
    start = len(body) - len(body.split(b"\n", place)[-1])
    return start, start + len(_line(body, start))


def _line(body: bytes, start: int) -> bytes:
    end = body.find(b"\n", start)
    return body[start : len(body) if end < 0 else end]


def _joined(found: Sequence[Checked]) -> Checked:
    return Checked(
        b"".join([each.lines for each in found]),
        sum(each.count for each in found),
        max((each.newest for each in found if each.newest), default=None),
        [item for each in found for item in each.rejected],
    )


def _newest(events: Sequence[Event], taken: _Taken) -> datetime | None:
    """The latest ``at``, if nothing is wrong with any of them."""
    stamps = [event.at for event in events]
    newest = max(stamps)
    if min(stamps) < taken.since or newest > taken.until:
        return None
    # Most bodies have both throughout, and to look at each event's fields in turn would cost as much as to read them.
    usual = (
        not taken.tenant
        and "" not in [event.message_id.strip(DRESS) for event in events]
        and "" not in [event.tenant for event in events]
    )
    return None if not usual and any(_wrong(event, taken) for event in events) else newest


def _one_by_one(numbered: Iterable[tuple[int, bytes]], what: str, taken: _Taken) -> Checked:
    """Some at a time, since most are good; line by line where one of them is not."""
    good: list[bytes] = []
    rejected: list[Rejected] = []
    newest: datetime | None = None
    lines = ((number, line) for number, line in numbered if line and not line.isspace())
    while some := list(islice(lines, _SOME)):
        text = b"\n".join([line for _, line in some])
        if checked := _tried(text, taken)[0]:
            good.append(checked.lines[:-1] if taken.tenant else text)
            newest = max(filter(None, (newest, checked.newest)))
            continue
        for number, line in some:
            event = _event(line)
            wrong = event if isinstance(event, str) else _wrong(event, taken)
            if not wrong and isinstance(event, Event):
                good.append(_owned([event], taken.tenant)[:-1] if taken.tenant else line)
                newest = max(newest or event.at, event.at)
            else:
                sample = scrub(line[:_SHOWN].decode("utf-8", "replace"), 200)
                rejected.append(Rejected(str(wrong), f"{what} {number}", sample))
    lines_of_good = b"".join([line + b"\n" for line in good])
    return Checked(lines_of_good, lines_of_good.count(b"\n"), newest, rejected)


def _event(line: bytes) -> Event | str:
    """The event, or why it is none."""
    if len(line) > LINE_LIMIT:
        return f"line: longer than {LINE_LIMIT} bytes"
    try:
        return _decoder.decode(line)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _PATH.search(text) or _MISSING.search(text)
        field = found[1] if found and found[1] in Event.__struct_fields__ else ""
        # Scrubbed, since a stranger chooses what stands where a field's name should.
        return f"{field or 'event'}: {scrub(_PATH.sub('', text), 200)}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = "; are there two objects on it? send lines with their ends" if "trailing" in str(error) else ""
        return f"line: no JSON object: {scrub(str(error), 100)}{hint}"


def _wrong(event: Event, taken: _Taken) -> str:
    if event.at < taken.since:
        return "at: older than events are kept"
    if event.at > taken.until:
        return "at: the time is ahead of our clock"
    if not event.message_id.strip(DRESS) and not event.id:
        return "message_id: missing, and no id either: a repeated line could not be told from a new event"
    if taken.tenant:
        return "" if event.tenant in ("", taken.tenant) else NOT_YOURS
    if not event.tenant and (event.segment or event.campaign or event.variant):
        orphan = next(label for label in OWNED if getattr(event, label))
        return f"{orphan}: named without tenant"
    return ""


_STAMPS = ("at", "sent_at")
_NUMBERS = {"attempt": 0, "count": 1, "code": 0}
_TEXTS = tuple(name for name in Event.__struct_fields__ if name not in _NUMBERS and name not in _STAMPS)
_READ = {name: pl.Int64() if name in _NUMBERS else pl.String() for name in Event.__struct_fields__}
_NANOS = pa.timestamp("ns", "UTC")
_Longs = npt.NDArray[np.int64]


def columns(lines: bytes) -> Mapping[str, Any]:
    """Checked lines as columns: numbers as numpy arrays, texts as Arrow arrays."""
    if not lines:
        return {}
    try:
        table = _filled(pl.read_ndjson(lines, schema=_READ).rechunk())
        # Arrow reads a time twenty times as fast as polars does.
        stamps: Mapping[str, _Longs] = {name: _micros(table[name].cast(_NANOS)) for name in _STAMPS}
    except (pl.exceptions.PolarsError, pa.ArrowInvalid):
        # What is written unusually is read as it was checked.
        table, stamps = _slowly(lines)
    found: dict[str, Any] = {**stamps, **{name: table[name].to_numpy() for name in _NUMBERS}}
    found |= {name: table[name].combine_chunks() for name in _TEXTS if name in table.column_names}
    # An attempt without a number is named by its moment.
    found["tries"] = np.where(found["attempt"] > 0, found["attempt"], found["at"] // 1000)
    return found


def _filled(frame: pl.DataFrame) -> pa.Table:
    """Without what no line says anything of, and with the usual value where one line does not."""
    silent = [name for name in _TEXTS if frame[name].null_count() == len(frame)]
    frame = frame.drop(silent)
    gaps = [column.name for column in frame.get_columns() if column.null_count() and column.name not in _STAMPS]
    frame = frame.with_columns(pl.col(name).fill_null(_NUMBERS.get(name, "")) for name in gaps)
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def _micros(nanos: pa.ChunkedArray) -> _Longs:
    """POSIX microseconds, 0 where nothing stands; rounded as the checker rounds."""
    known: _Longs = nanos.cast(pa.int64()).fill_null(0).to_numpy()
    return (known + 500) // 1000


def _slowly(lines: bytes) -> tuple[pa.Table, Mapping[str, _Longs]]:
    events = _decoder.decode_lines(lines)
    read: dict[str, Any] = {name: [getattr(event, name) for event in events] for name in (*_TEXTS, *_NUMBERS)}
    stamps = {
        name: np.array(
            [0 if (at := getattr(event, name)) is UNSET else (at - _EPOCH) // _MICROSECOND for event in events],
            np.int64,
        )
        for name in _STAMPS
    }
    return _filled(pl.DataFrame(read, schema={name: _READ[name] for name in read})), stamps


assert set(LABELS) <= set(Event.__struct_fields__)  # noqa: S101  # a label that the model gains must be told here too
