"""Events as marketplaces tell them, over HTTP or by a broker: NDJSON, one JSON object a line, one outcome each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from monitor.model import COLUMNS, LABELS, OWNED, Batch, Rejected
from monitor.scrub import scrub

LINE_LIMIT = 64 * 1024  # bytes: a longer line is no event
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Stamp = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset")]
# Sellers choose some of these names, so they are bounded and hold no control characters.
Label = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Line = Annotated[str, Meta(max_length=2000)]


class Event(Struct, forbid_unknown_fields=True):
    """One line. ``message_id`` (or an ``id`` of the sender's own) is what makes a repeated line count once."""

    kind: Literal["sent", "deferred", "bounced", "expired", "complaint", "held"]
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


def decode(body: bytes) -> Batch:
    """The events of an NDJSON body as columns; lines that are none are rejected by number, field and reason."""
    events, rejected = _lines(body)
    kept: list[Event] = []
    places: list[str] = []
    for number, event in events:
        if wrong := _wrong(event):
            rejected.append(Rejected(why=wrong, where=f"line {number}"))
        else:
            kept.append(event)
            places.append(f"line {number}")
    return Batch(columns=_columns(kept), watermark=_newest(kept), rejected=rejected, places=places)


_decoder = msgspec.json.Decoder(Event)
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")


def schema() -> dict[str, Any]:
    """The JSON Schema of one line."""
    return msgspec.json.schema(Event)


def _lines(body: bytes) -> tuple[Iterator[tuple[int, Event]], list[Rejected]]:
    # All at once is five times as fast; line by line only tells which one is wrong.
    try:
        lines = body.rstrip(b"\n").split(b"\n")
        if max(map(len, lines)) <= LINE_LIMIT and all(lines):  # blank lines would shift the numbers
            return iter(enumerate(_decoder.decode_lines(body), start=1)), []
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    good, rejected = [], []
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        event = _line(line)
        if isinstance(event, str):
            rejected.append(Rejected(event, f"line {number}", scrub(line.decode("utf-8", "replace"), 200)))
        else:
            good.append((number, event))
    return iter(good), rejected


def _line(line: bytes) -> Event | str:
    """The event, or why it is none."""
    if len(line) > LINE_LIMIT:
        return f"line: longer than {LINE_LIMIT} bytes"
    try:
        return _decoder.decode(line)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _PATH.search(text)
        field = found[1] if found and found[1] in Event.__struct_fields__ else ""
        # Scrubbed, since a stranger chooses what stands where a field's name should.
        return f"{field or 'event'}: {scrub(_PATH.sub('', text), 200)}"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"line: no JSON object: {scrub(str(error), 100)}"


def _wrong(event: Event) -> str:
    if not event.message_id and not event.id:
        return "message_id: missing, and no id either: a repeated line could not be told from a new event"
    if not event.tenant and (event.segment or event.campaign or event.variant):
        orphan = next(label for label in OWNED if getattr(event, label))
        return f"{orphan}: named without tenant"
    return ""


_SAME = tuple(name for name in COLUMNS if name not in {"at", "sent_at", "tries"})


def _columns(events: Sequence[Event]) -> dict[str, Sequence[Any]]:
    at = [_micros(event.at) for event in events]
    columns: dict[str, Sequence[Any]] = {name: [getattr(event, name) for event in events] for name in _SAME}
    columns["at"] = at
    columns["sent_at"] = [
        moment if event.sent_at is UNSET else _micros(event.sent_at) for moment, event in zip(at, events, strict=True)
    ]
    # An attempt without a number is named by its moment.
    columns["tries"] = [event.attempt or moment // 1000 for moment, event in zip(at, events, strict=True)]
    return columns


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _newest(events: Sequence[Event]) -> datetime | None:
    return max((event.at for event in events), default=None)


assert set(LABELS) <= set(Event.__struct_fields__)  # noqa: S101  # a label that the model gains must be told here too
