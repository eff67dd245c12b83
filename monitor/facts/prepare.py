"""From what a collector brings to rows for the facts: defaults filled, people hidden, keys made, nonsense set aside."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import compress, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from collectors._reply import classify
from monitor.facts.names import NameLimit
from monitor.facts.rows import NAME, ROWS
from monitor.keyring import CODES, PSEUDONYM_BYTES, Keyring
from monitor.meaning import ReplyClass
from monitor.model import COLUMNS, DRESS, LABELS, OWNED, Batch, Kind, Rejected
from monitor.scrub import scrub

# A message is about mail of the last sixty days, or its time of sending is a mistake.
OLDEST_MAIL = timedelta(days=60)
# What the engine's days and hours can say, with room for sent_at.
_EVER = (datetime(1970, 4, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The source of what sellers' own keys tell. No collector has such a name by chance.
SELLERS = "http:sellers"
_NAME_LENGTH = 200  # characters of a label, relay or code text
_REPLY_LENGTH = 500
_SAMPLES = 100  # rejected rows of a batch that are shown; the others are counted

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_Longs = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


def prepare(
    batch: Batch,
    source: str,
    keyring: Keyring,
    seen_at: datetime | _Longs | None,
    *,
    bounds: tuple[datetime, datetime] | None,
    names: NameLimit | None = None,
) -> tuple[pa.Table, list[Rejected]]:
    """The batch as ``ROWS``, and the rows that were set aside (``where``: as ``batch.places`` says it).

    Set aside: an unknown kind, no time or one outside of ``bounds``, a seller's name without its tenant, a count
    that is no positive number, and rows that nothing identifies. ``sent_at`` is drawn into the sixty days before
    ``at``. With a message id the key is made of it, the recipient, the outcome and the attempt, whatever else is
    known; ``id`` decides only where there is none. What sellers tell has keys of its own by seller: told first by one,
    an outcome takes nothing from what others tell, and least of all from ourselves. ``seen_at`` may be POSIX
    microseconds by row; None, for imports: each row was seen when it happened.

    Raises:
        ValueError: columns of different lengths or of unknown names, which is the collector's mistake.
    """
    columns = _filled(batch)
    kinds = _text(columns["kind"])
    codes = _codes(kinds)
    at, count = _longs(columns["at"]), _longs(columns["count"])
    seen = _seen(seen_at, at)
    reasons = _reasons(columns, codes, at, count, bounds)
    bad = np.logical_or.reduce([flags for _, flags in reasons])
    rejected = _rejected(columns, reasons, bad, batch.places)
    if rejected:
        keep = ~bad
        columns = {name: _kept(values, keep) for name, values in columns.items()}
        codes, at, count, seen = codes[keep], at[keep], count[keep], seen[keep]
    sent_at = _longs(columns["sent_at"])
    oldest = at - OLDEST_MAIL // timedelta(microseconds=1)
    sent_at = np.clip(np.where(sent_at == 0, at, sent_at), oldest, at)
    messages = keyring.messages(_plain(columns["message_id"]))
    recipients = _recipients(columns["recipient"], keyring)
    table = pa.table(
        {
            "at": _stamps(at),
            "sent_at": _stamps(sent_at),
            "seen_at": _stamps(seen),
            "kind": pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32) - 1), _KINDS),
            "attempt": pa.array(np.clip(_longs(columns["attempt"]), 0, 0xFFFF).astype(np.uint16)),
            "count": pa.array(count.astype(np.uint32)),
            **{label: _name(columns[label]) for label in LABELS},
            "recipient": _binary(recipients),
            "message": _binary(messages),
            "key": pa.array(_keys(columns, codes, source, keyring, messages, recipients)),
            "code": pa.array(np.clip(_longs(columns["code"]), 0, 0xFFFF).astype(np.uint16)),
            "dsn": _name(columns["dsn"], _hidden_name),
            "relay": _name(columns["relay"], _hidden_name),
            "reply": _changed(_text(columns["reply"]), lambda reply: scrub(reply, _REPLY_LENGTH)).cast(pa.string()),
            "source": _name(_Same(source, len(at))),
            "reply_class": _classes(columns, codes),
            "consent": _name(columns["consent"]),
            "consent_ref": _changed(_text(columns["consent_ref"]), _hidden_name).cast(pa.string()),
            "found_by": _name(columns["found_by"]),
        },
        schema=ROWS,
    )
    days = at // (timedelta(days=1) // timedelta(microseconds=1))
    return (names or NameLimit()).apply(table, days), rejected


def _classes(columns: dict[str, Sequence[Any]], codes: npt.NDArray[np.uint8]) -> pa.Array:
    """What the replies of refusals mean, where their source does not say."""
    told = _name(columns["reply_class"])
    refused = np.isin(codes, _REFUSED) & ~_said(columns["reply_class"])
    if not refused.any():
        return told
    asked = ("reply", "code", "dsn", "provider")
    which = np.flatnonzero(refused)
    replies = [_picked(columns[name], which) for name in asked]
    meant = [_meant(*reply) for reply in zip(codes[which].tolist(), *replies, strict=True)]
    classes = np.array(told.cast(pa.string()).to_pylist(), object)
    classes[which] = meant
    return pa.array(classes, pa.string()).dictionary_encode().cast(NAME)


def _meant(kind: int, reply: str, code: int, dsn: str, provider: str) -> str:
    if kind == CODES[Kind.HELD]:
        return str(ReplyClass.HELD)
    if reply or code or dsn:
        return classify(reply, code=int(code), dsn=dsn, provider=provider).stored
    return str(ReplyClass.EXPIRED) if kind == CODES[Kind.EXPIRED] else ""


def _picked(values: Sequence[Any], which: npt.NDArray[np.int64]) -> Sequence[Any]:
    if isinstance(values, pa.Array):
        return values.take(pa.array(which)).to_pylist()  # type: ignore[no-any-return]
    return [values[row] for row in map(int, which)]


def _seen(seen_at: datetime | _Longs | None, at: _Longs) -> _Longs:
    if isinstance(seen_at, datetime):
        return np.full_like(at, _micros(seen_at))
    return at if seen_at is None else seen_at


class _Same(Sequence[Any]):
    """A column that the source did not bring: one value, so many times."""

    def __init__(self, value: Any, length: int) -> None:
        self.value, self._length = value, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        return self.value

    def __iter__(self) -> Iterator[Any]:
        return repeat(self.value, self._length)


def _filled(batch: Batch) -> dict[str, Sequence[Any]]:
    if unknown := set(batch.columns) - set(COLUMNS):
        raise ValueError(f"unknown columns: {', '.join(sorted(unknown))}")
    if len({len(values) for values in batch.columns.values()}) > 1:
        raise ValueError("the columns of a batch are of different lengths")
    return {name: batch.columns.get(name, _Same(default, len(batch))) for name, default in COLUMNS.items()}


def _reasons(
    columns: dict[str, Sequence[Any]],
    codes: npt.NDArray[np.uint8],
    at: _Longs,
    count: _Longs,
    bounds: tuple[datetime, datetime] | None,
) -> list[tuple[str, _Flags]]:
    """Why rows are set aside; the first reason that fits is told."""
    no_tenant = ~_said(columns["tenant"])
    return [
        ("unknown kind", codes == 0),
        ("no time, or one that no mail has", _outside(at, _EVER)),
        ("older than events are kept", at < _micros((bounds or _EVER)[0])),
        ("the time is ahead of our clock", at > _micros((bounds or _EVER)[1])),
        *((f"{label} without tenant", no_tenant & _said(columns[label])) for label in OWNED),
        ("the count is no positive number", (count < 1) | (count > 0xFFFFFFFF)),
        ("neither message_id nor id", ~_named(columns["message_id"]) & ~_said(columns["id"])),
    ]


def _rejected(
    columns: dict[str, Sequence[Any]], reasons: list[tuple[str, _Flags]], bad: _Flags, places: Sequence[str]
) -> list[Rejected]:
    found: list[Rejected] = []
    for row in map(int, np.flatnonzero(bad)):
        why = next(why for why, flags in reasons if flags[row])
        shown = (f"{name}={columns[name][row]}" for name in ("kind", "at", "count", *LABELS) if columns[name][row])
        sample = scrub(" ".join(shown)) if len(found) < _SAMPLES else ""
        found.append(Rejected(why=why, where=places[row] if places else f"row {row}", sample=sample))
    return found


def _keys(
    columns: dict[str, Sequence[Any]],
    codes: npt.NDArray[np.uint8],
    source: str,
    keyring: Keyring,
    messages: bytes,
    recipients: bytes,
) -> npt.NDArray[np.uint64]:
    keys = keyring.event_keys(messages, recipients, codes, _longs(columns["tries"]))
    alone = ~_named(columns["message_id"])
    if alone.any():
        keys = keys.copy()
        keys[alone] = keyring.id_keys(source, compress(_plain(columns["id"]), alone))
    return keys ^ _apart(columns["tenant"], keyring) if source == SELLERS else keys


def _apart(tenants: Sequence[Any], keyring: Keyring) -> npt.NDArray[np.uint64]:
    """A number for each row that is its tenant's alone, and known to nobody without the keyring."""
    coded = _text(tenants)
    return keyring.id_keys(SELLERS, (f"tenant\0{name}" for name in coded.dictionary.to_pylist()))[_indices(coded)]


_KINDS = pa.array([kind.value for kind, _ in sorted(CODES.items(), key=lambda item: item[1])], pa.string())
_CODE = {kind.value: code for kind, code in CODES.items()}
# Whose reply says why.
_REFUSED = [
    CODES[kind]
    for kind in (Kind.DEFERRED, Kind.BOUNCED, Kind.EXPIRED, Kind.RETURNED, Kind.HELD, Kind.UNVERIFIED_BOUNCE)
]


def _codes(kinds: pa.DictionaryArray) -> npt.NDArray[np.uint8]:
    known = np.array([_CODE.get(kind, 0) for kind in kinds.dictionary.to_pylist()], np.uint8)
    return known[_indices(kinds)]


def _longs(values: Sequence[Any]) -> _Longs:
    if isinstance(values, _Same):
        return np.full(len(values), values.value, np.int64)
    return np.asarray(values, np.int64)


def _said(values: Sequence[Any]) -> _Flags:
    """Where the text is not empty."""
    if isinstance(values, _Same):
        return np.full(len(values), bool(values.value))
    if isinstance(values, pa.Array):
        said: _Flags = pc.greater(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
        return said
    return np.fromiter(map(bool, values), np.bool_, len(values))


def _named(message_ids: Sequence[Any]) -> _Flags:
    """Where a message is named: some write "<>" where there is no id."""
    if isinstance(message_ids, _Same):
        return _said(message_ids)
    if isinstance(message_ids, pa.Array):
        return _said(pc.utf8_trim(message_ids, characters=DRESS))
    return np.fromiter((bool(named.strip(DRESS)) for named in message_ids), np.bool_, len(message_ids))


def _outside(at: _Longs, bounds: tuple[datetime, datetime]) -> _Flags:
    return (at < _micros(bounds[0])) | (at > _micros(bounds[1]))


def _kept(values: Sequence[Any], keep: _Flags) -> Sequence[Any]:
    if isinstance(values, _Same):
        return _Same(values.value, int(keep.sum()))
    column: Any = values
    if isinstance(column, np.ndarray):
        return column[keep]  # type: ignore[return-value]  # as good as a sequence to all who ask
    if isinstance(column, pa.Array):
        return column.filter(pa.array(keep))  # type: ignore[no-any-return]
    return list(compress(values, keep))


def _text(values: Sequence[Any]) -> pa.DictionaryArray:
    if isinstance(values, _Same):
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(values), np.int32)), pa.array([str(values.value)]))
    if isinstance(values, pa.Array):
        coded = values.dictionary_encode()
        return pa.DictionaryArray.from_arrays(coded.indices, coded.dictionary.cast(pa.string()))
    try:
        texts = pa.array(values, pa.string())
    except UnicodeEncodeError:  # half a surrogate pair, from JSON
        texts = pa.array([value.encode("utf-8", "replace").decode() for value in values], pa.string())
    return texts.fill_null("").dictionary_encode()


def _plain(values: Sequence[Any]) -> Sequence[str]:
    return values.to_pylist() if isinstance(values, pa.Array) else values


def _indices(texts: pa.DictionaryArray) -> npt.NDArray[np.int32]:
    indices: npt.NDArray[np.int32] = texts.indices.to_numpy()
    return indices


def _recipients(values: Sequence[Any], keyring: Keyring) -> bytes:
    """Pseudonyms of a column; each address once, since people get more than one mail."""
    if not isinstance(values, pa.Array):
        return keyring.pseudonyms(values)
    people = _text(values)
    known = np.frombuffer(keyring.pseudonyms(people.dictionary.to_pylist()), f"V{PSEUDONYM_BYTES}")
    return known[_indices(people)].tobytes()


def _changed(texts: pa.DictionaryArray, change: Callable[[str], str]) -> pa.DictionaryArray:
    """The texts as ``change`` makes them, asked once for each that differs."""
    before = texts.dictionary.to_pylist()
    after = [change(text) for text in before]
    if before == after:
        return texts
    changed = pa.DictionaryArray.from_arrays(texts.indices, pa.array(after, pa.string()))
    return changed.cast(pa.string()).dictionary_encode()  # two may have become one


def _shown_name(name: str) -> str:
    return _CONTROL.sub(" ", name)[:_NAME_LENGTH]


def _name(values: Sequence[Any], change: Callable[[str], str] = _shown_name) -> pa.DictionaryArray:
    return _changed(_text(values), change).cast(NAME)


def _hidden_name(text: str) -> str:
    return scrub(text, _NAME_LENGTH)


def _stamps(micros: _Longs) -> pa.Array:
    return pa.array(micros // 1000, pa.timestamp("ms", tz="UTC"))


def _binary(joined: bytes) -> pa.Array:
    kind = pa.binary(PSEUDONYM_BYTES)
    return pa.Array.from_buffers(kind, len(joined) // PSEUDONYM_BYTES, [None, pa.py_buffer(joined)])


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
