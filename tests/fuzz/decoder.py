"""Bodies that nobody thought of, against the decoder and the unpacking: ``python -m tests.fuzz.decoder -runs=100000``.

Options are libFuzzer's, such as ``-max_total_time=60`` or the name of a folder for what it finds worth keeping.
"""

from __future__ import annotations

import gzip
import json
import sys
from typing import Any

import atheris
import zstandard

with atheris.instrument_imports(include=["collectors", "monitor.scrub", "tests.fuzz.invariants"]):
    from tests.fuzz.invariants import decoded, unpacked

EVENT: dict[str, Any] = {
    "kind": "bounced",
    "at": "2026-11-24T10:00:00.123Z",
    "sent_at": "2026-11-24T09:59:00+01:00",
    "message_id": "<m1@shop.example>",
    "recipient": "jan.kowalski@example.net",
    "attempt": 2,
    "tenant": "s07",
    "segment": "lapsed",
    "ip": "192.0.2.7",
    "provider": "gmail",
    "code": 550,
    "dsn": "5.1.1",
    "reply": "550 5.1.1 no such user <jan.kowalski@example.net>",
}
NAMES = (*EVENT, "id", "count", "campaign", "variant", "region", "stream", "relay", "jo@example.com", "")
TEXTS = ("", "jo.bloggs@example.com", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "\ud800", "\0")
ENCODINGS = ("gzip", "zstd")


def value(data: Any, depth: int = 2) -> Any:
    """Some JSON value."""
    kind = data.ConsumeIntInRange(0, 8 if depth else 6)
    if kind == 0:
        return data.PickValueInList(list(TEXTS))
    if kind == 1:
        return data.ConsumeUnicode(40)
    if kind == 2:
        return data.ConsumeInt(9)
    if kind == 3:
        return data.ConsumeFloat()
    if kind <= 6:
        return (None, True, 10**30)[kind - 4]
    items = [value(data, depth - 1) for _ in range(data.ConsumeIntInRange(0, 3))]
    return items if kind == 7 else dict(zip(NAMES, items, strict=False))


def line(data: Any) -> bytes:
    """An event with some of it changed, as text that may be cut or spoilt."""
    event = dict(EVENT)
    for _ in range(data.ConsumeIntInRange(0, 3)):
        name = data.PickValueInList(list(NAMES))
        if data.ConsumeBool():
            event.pop(name, None)
        else:
            event[name] = value(data)
    text = json.dumps(event, ensure_ascii=data.ConsumeBool()).encode("utf-8", "surrogatepass")
    if data.ConsumeProbability() < 0.2:
        at = data.ConsumeIntInRange(0, len(text))
        text = text[:at] + data.ConsumeBytes(8) + text[at + data.ConsumeIntInRange(0, 8) :]
    return text


def body(data: Any) -> bytes:
    """Lines or an array."""
    parts = [line(data) for _ in range(data.ConsumeIntInRange(0, 4))]
    if data.ConsumeBool():
        return data.PickValueInList([b"\n", b"\n\n", b"\r\n", b" \n\t\n"]).join(parts) + data.ConsumeBytes(4)
    return b"[" + b",".join(parts) + data.PickValueInList([b"]", b"", b",]", b"] x"])


def one(raw: bytes) -> None:
    """A body raw, made, or packed and then spoilt."""
    data = atheris.FuzzedDataProvider(raw)
    road = data.ConsumeIntInRange(0, 2)
    if road == 0:
        decoded(data.ConsumeBytes(atheris.ALL_REMAINING))
        return
    made = body(data)
    if road == 1:
        decoded(made)
        return
    encoding = data.PickValueInList(list(ENCODINGS))
    packed = gzip.compress(made, mtime=0) if encoding == "gzip" else zstandard.compress(made)
    at = data.ConsumeIntInRange(0, len(packed))
    whole = unpacked(packed[:at] + data.ConsumeBytes(6) + packed[at + data.ConsumeIntInRange(0, 6) :], encoding)
    if whole is not None:
        decoded(whole)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
