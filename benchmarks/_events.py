"""A marketplace's events as it would tell them, NDJSON for ``POST /v1/events``; and what they are.

Lines of some 390 bytes. 60 IPs in 20 pools, each with a From domain of its own; 8 mailbox providers; campaigns, each of
one seller, of which a twentieth is under way at a time, the larger ones much larger (Zipf); recipients who get mail
more and less often. 2 % of the lines are told again, 1 % come hours late, 0.2 % are no events. The same arguments give
the same bytes, and whatever the seed or the number, no two messages share an id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from monitor.model import Kind

UNTIL = datetime(2026, 11, 27, 12, tzinfo=UTC)  # when the last event happened, unless told otherwise
DENSE = 50_000  # events a minute
THIN = timedelta(days=7)  # over which thin traffic is spread, however much it is
CAMPAIGNS = 400
SHIFTS = 20  # hour by hour other campaigns
IPS, POOLS = 60, 20
VARIANTS = ("", "a", "b")
RECIPIENTS = 2_000_000
DUPLICATES, LATE, INVALID = 0.02, 0.01, 0.002
PROVIDERS = ("gmail", "outlook", "yahoo", "apple", "gmx", "orange", "proton", "zoho")

_SHARES = {"sent": 0.86, "deferred": 0.09, "bounced": 0.038, "expired": 0.002, "complaint": 0.006, "held": 0.004}
KINDS = tuple(map(Kind, _SHARES))
_PROVIDER_SHARES = (0.42, 0.2, 0.14, 0.1, 0.06, 0.04, 0.02, 0.02)
# Of each kind: code, enhanced status and replies; a reply that ends in a blank goes on with a number of its own.
_REPLIES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "sent": ((0, "", ""),),
    "deferred": (
        (421, "4.7.0", "Our system has detected an unusual rate of mail from your address, try again later - gsmtp "),
        (451, "4.7.1", "Greylisted, please come back in five minutes"),
        (421, "4.7.28", "This message was deferred due to user complaints; see the postmaster's page"),
        (452, "4.2.2", "The recipient's inbox is out of storage space, id "),
        (450, "4.3.2", "Server busy, too many connections from your host"),
    ),
    "bounced": (
        (550, "5.1.1", "The account that you tried to reach does not exist, session "),
        (550, "5.7.1", "Message rejected as spam by content filtering"),
        (552, "5.2.2", "Mailbox full"),
        (554, "5.7.1", "Service refused, your address is on our block list"),
    ),
    "expired": ((0, "4.4.7", "Delivery time expired"),),
    "complaint": ((0, "", ""),),
    "held": ((450, "4.7.0", "paused by mailvane"),),
}
_BLOCK = 100_000  # lines that are made at once
_BEFORE = 20_000  # lines at most between an event and its repetition

Ints = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


class Expected(NamedTuple):
    """What a load holds: ``kinds`` counts each distinct valid event once, by its kind."""

    kinds: dict[str, int]
    duplicates: int
    invalid: int

    @property
    def events(self) -> int:
        """Distinct valid events."""
        return sum(self.kinds.values())


class Draws(NamedTuple):
    """What events are, before anybody writes them down; arrays of one length.

    ``kind`` is an index of ``KINDS``, ``at`` and ``sent_at`` are POSIX milliseconds, ``reply`` numbers the replies of
    all kinds, ``number`` is unique.
    """

    number: npt.NDArray[np.uint64]
    kind: Ints
    at: Ints
    sent_at: Ints
    attempt: Ints
    campaign: Ints
    ip: Ints
    variant: Ints
    recipient: Ints
    provider: Ints
    reply: Ints


def chunks(
    *,
    events: int,
    per_chunk: int = 10_000,
    seed: int = 1,
    thin: bool = False,
    sellers: int = CAMPAIGNS,
    until: datetime = UNTIL,
) -> Iterator[bytes]:
    """Bodies of ``per_chunk`` lines each, ``events`` lines in all, repetitions and invalid ones among them.

    50,000 a minute until ``until``, or ``thin``: all over the seven days before.
    """
    held: list[bytes] = []
    missing = per_chunk
    for block in _blocks(events, seed, thin, sellers, until):
        ends, body = _buffers(block)
        start = 0
        while start < len(block):
            stop = min(len(block), start + missing)
            held.append(bytes(body[ends[start] : ends[stop]]))
            missing -= stop - start
            start = stop
            if not missing:
                yield b"".join(held)
                held, missing = [], per_chunk
    if held:
        yield b"".join(held)


def expected(*, events: int, seed: int = 1) -> Expected:
    """What ``chunks`` of the same ``events`` and ``seed`` hold, whatever else they are told."""
    counted = np.zeros(len(KINDS), np.int64)
    repeated = invalid = 0
    for first in range(0, events, _BLOCK):
        kind, again, bad = _fates(_luck(seed, first, "fate"), first, min(_BLOCK, events - first))
        counted += np.bincount(kind[~again & ~bad], minlength=len(KINDS))
        repeated += int(again.sum())
        invalid += int(bad.sum())
    return Expected({kind.value: int(n) for kind, n in zip(KINDS, counted, strict=True)}, repeated, invalid)


def draws(count: int, first: int, seed: int, kind: Ints, at: Ints, sellers: int = CAMPAIGNS) -> Draws:
    """``count`` events of these kinds and times (POSIX milliseconds), the ``first`` of a load and those that follow."""
    luck = _luck(seed, first, "rest")
    campaign = _zipf(luck, max(CAMPAIGNS, sellers) // SHIFTS, count) * SHIFTS + at // 3_600_000 % SHIFTS
    recipient = (RECIPIENTS * luck.random(count) ** 3).astype(np.int64)
    delay = luck.exponential(_mean_delay()[kind]).astype(np.int64)
    replies, starts = _reply_places()
    return Draws(
        number=_numbers(seed, first, count),
        kind=kind,
        at=at,
        sent_at=at - np.minimum(delay, 4 * 86_400_000),
        attempt=np.where(delay < 60_000, 1, 2 + delay % 5),
        campaign=campaign,
        ip=_pool(campaign) * (IPS // POOLS) + luck.integers(0, IPS // POOLS, count),
        variant=np.where(campaign // SHIFTS % 4 == 1, luck.integers(1, 3, count), 0),
        recipient=recipient,
        provider=_provider_of()[recipient % 1024],
        reply=starts[kind] + luck.integers(0, 1 << 20, count) % replies[kind],
    )


def labels(sellers: int = CAMPAIGNS) -> list[dict[str, str]]:
    """What each campaign's mail bears; mail of a transactional stream belongs to none."""
    found = []
    for campaign in range(max(CAMPAIGNS, sellers)):
        seller = campaign % sellers
        mine = {
            "domain": f"m{_pool(campaign)}.shop.example",
            "stream": "transactional" if campaign // SHIFTS % 8 == 3 else "marketing",  # a tenth of the mail
            "tenant": f"s{seller:05}",
            "segment": ("buyers", "browsers", "lapsed", "vip", "new", "winback", "all")[campaign % 7],
            "region": ("eu", "us", "apac")[seller % 3],
        }
        found.append(mine | ({"campaign": f"c{campaign:05}"} if mine["stream"] == "marketing" else {}))
    return found


def _pool(campaign: Any) -> Any:
    """The pool that a campaign's mail leaves from: in each shift all of them are in use."""
    return (campaign // SHIFTS + campaign) % POOLS


def ip(number: int) -> str:
    """The address of one of the ``IPS``."""
    return f"192.0.2.{number + 1}"


def replies() -> tuple[tuple[int, str, str], ...]:
    """All (code, enhanced status, reply) in the order that ``Draws.reply`` numbers them."""
    return tuple(reply for kind in KINDS for reply in _REPLIES[kind.value])


def reply_texts(drawn: Draws) -> pa.Array:
    """The reply of each event."""
    texts = pl.Series([text for *_, text in replies()]).gather(drawn.reply)
    return pl.select(texts + _own(drawn)).to_series().to_arrow().cast(pa.string())


def _own(drawn: Draws) -> pl.Series:
    """What a reply ends in that has a number of its own."""
    own = pl.Series(_numbered()[drawn.reply])
    return pl.select(pl.when(own).then(_hex(drawn.number)).otherwise(pl.lit(""))).to_series()


def _blocks(events: int, seed: int, thin: bool, sellers: int, until: datetime) -> Iterator[pl.Series]:  # noqa: FBT001
    """The lines, some of them told again."""
    spread = THIN if thin else timedelta(minutes=events / DENSE)
    end = round(until.timestamp() * 1000)
    before = pl.Series([], dtype=pl.String)
    valid_before = np.zeros(0, np.bool_)
    for first in range(0, events, _BLOCK):
        count = min(_BLOCK, events - first)
        luck = _luck(seed, first, "time")
        kind, again, bad = _fates(_luck(seed, first, "fate"), first, count)
        at = end - ((events - first - np.arange(count) - luck.random(count)) * (spread / events).total_seconds() * 1000)
        late = luck.random(count) < LATE
        at[late] -= luck.uniform(3_600_000, 5 * 3_600_000, int(late.sum()))
        lines = _lines(draws(count, first, seed, kind, at.astype(np.int64), sellers), sellers)
        lines = _spoilt(lines, bad)
        both = pl.concat([before, lines])
        valid = np.concatenate([valid_before, ~again & ~bad])
        lines = both.gather(_sources(luck, valid, again, len(before)))
        before, valid_before = both[-_BEFORE:], valid[-_BEFORE:]
        yield lines


def _sources(luck: np.random.Generator, valid: _Flags, again: _Flags, earlier: int) -> Ints:
    """Which line stands at each place: its own, or a valid one up to ``_BEFORE`` lines earlier."""
    own = np.arange(earlier, len(valid))
    back = np.maximum(own - luck.integers(1, _BEFORE, len(own)), 0)
    # The last valid one up to there; where there is none, the first of all.
    last = np.maximum.accumulate(np.where(valid, np.arange(len(valid)), -1))
    at = np.where(last[back] < 0, np.argmax(valid), last[back])
    return np.where(again, at, own)


def kinds(luck: np.random.Generator, count: int) -> Ints:
    """Which of ``KINDS`` each of so many events is."""
    return luck.choice(len(KINDS), count, p=[_SHARES[kind.value] for kind in KINDS])


def _fates(luck: np.random.Generator, first: int, count: int) -> tuple[Ints, _Flags, _Flags]:
    """The kind of each event, whether an earlier one stands in its place, whether it is spoilt."""
    kind = kinds(luck, count)
    fate = luck.random(count)
    again = fate < DUPLICATES
    bad = fate > 1 - INVALID
    if not first:
        again[:2] = bad[:2] = False  # somebody must be the first
    return kind, again, bad


def _lines(drawn: Draws, sellers: int) -> pl.Series:
    at_day, at_rest = _stamps(drawn.at)
    sent_day, sent_rest = _stamps(drawn.sent_at)
    head, tail, end, campaign, address, provider = _texts(sellers)
    frame = pl.DataFrame(
        {
            "kind": head.gather(drawn.reply * 8 + drawn.attempt),
            "at": at_day,
            "at_rest": at_rest,
            "sent_at": sent_day,
            "sent_rest": sent_rest,
            "number": _hex(drawn.number),
            "campaign": campaign.gather(drawn.campaign),
            "address": address.gather(drawn.ip * len(VARIANTS) + drawn.variant),
            "recipient": pl.Series(drawn.recipient).cast(pl.String),
            "provider": provider.gather(drawn.provider),
            "tail": tail.gather(drawn.reply),
            "end": end.gather(drawn.reply),
            "own": _own(drawn),
        }
    )
    return frame.select(
        pl.concat_str(
            "kind",
            pl.lit(',"at":"'),
            "at",
            "at_rest",
            pl.lit('","sent_at":"'),
            "sent_at",
            "sent_rest",
            pl.lit('","message_id":"<'),
            "number",
            "campaign",
            "address",
            pl.lit(',"recipient":"u'),
            "recipient",
            "provider",
            "tail",
            "own",
            "end",
        )
    ).to_series()


@cache
def _texts(sellers: int) -> tuple[pl.Series, ...]:
    """The parts that repeat: by reply and attempt, reply, reply, campaign, address and variant, provider."""
    every = [(kind.value, *reply) for kind in KINDS for reply in _REPLIES[kind.value]]
    head = [
        _part({"kind": kind, "attempt": attempt} | ({"code": code, "dsn": dsn} if dsn else {}), "{")
        for kind, code, dsn, _ in every
        for attempt in range(8)
    ]
    tail = [f',"reply":"{reply}' if reply else "" for *_, reply in every]
    end = ['"}\n' if reply else "}\n" for *_, reply in every]
    campaign = [f'@{bears["domain"]}>"{_part(bears, ",")}' for bears in labels(sellers)]
    address = [
        _part({"ip": ip(number)} | ({"variant": variant} if variant else {}), ",")
        for number in range(IPS)
        for variant in VARIANTS
    ]
    provider = [
        f'@{name}.example"{_part({"provider": name, "relay": f"mx1.{name}.example"}, ",")}' for name in PROVIDERS
    ]
    return tuple(map(pl.Series, (head, tail, end, campaign, address, provider)))


def _part(members: dict[str, Any], before: str) -> str:
    return before + json.dumps(members, separators=(",", ":"))[1:-1]


def _spoilt(lines: pl.Series, bad: _Flags) -> pl.Series:
    """The lines with those that are ``bad`` broken, in one of five ways."""
    places = np.flatnonzero(bad)
    broken = [_BREAKS[place % len(_BREAKS)](lines[int(place)]) for place in places]
    return lines.scatter(places, broken) if len(places) else lines


_BREAKS = (
    lambda line: line[: len(line) // 2] + "\n",
    lambda line: line.replace('"kind":"', '"kind":"re', 1),
    lambda line: line.replace('"message_id":', '"relay":', 1).replace(',"relay":"mx', ',"region":"mx', 1),
    lambda line: line.replace('Z","sent_at"', '","sent_at"', 1),
    lambda line: line.replace('"attempt":', '"attempt":-', 1).replace("-0", "-1", 1),
)


def _stamps(millis: Ints) -> tuple[pl.Series, pl.Series]:
    """Up to the minute, and the rest: what is the same for many is made once."""
    minutes, which = np.unique(millis // 60_000, return_inverse=True)
    texts = np.datetime_as_string(minutes.astype("datetime64[m]")).tolist()
    return pl.Series(texts).gather(which), _seconds().gather(millis % 60_000)


@cache
def _seconds() -> pl.Series:
    return pl.Series([f":{at // 1000:02}.{at % 1000:03}Z" for at in range(60_000)])


@cache
def _digits() -> npt.NDArray[np.uint16]:
    return np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)


def _hex(numbers: npt.NDArray[np.uint64]) -> pl.Series:
    digits = _digits()[numbers.view(np.uint8)]
    ends = np.arange(len(numbers) + 1, dtype=np.int64) * 16
    array = pa.Array.from_buffers(pa.large_string(), len(numbers), [None, pa.py_buffer(ends), pa.py_buffer(digits)])
    return pl.Series(array)


def _buffers(lines: pl.Series) -> tuple[Ints, memoryview]:
    """Where each line begins and the last one ends, and all of them in a row."""
    array = lines.rechunk().to_arrow().cast(pa.large_string())
    _, ends, body = array.buffers()
    return np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1], memoryview(body)


def _luck(seed: int, first: int, what: str) -> np.random.Generator:
    return np.random.default_rng([seed, first, *what.encode()])


def _numbers(seed: int, first: int, count: int) -> npt.NDArray[np.uint64]:
    """Numbers that look random, no two alike among seeds below 2^24 and 2^40 events of each."""
    number = np.arange(first, first + count, dtype=np.uint64) + np.uint64(seed << 40)
    for _ in range(2):  # each turn maps the 64-bit numbers one to one
        number *= np.uint64(0x9E3779B97F4A7C15)
        number ^= number >> np.uint64(29)
    return number


def _zipf(luck: np.random.Generator, ranks: int, count: int) -> Ints:
    """Rank r (from 0) is drawn as often as 1 / (r + 1)."""
    return np.minimum(np.exp(luck.random(count) * np.log(ranks + 1)) - 1, ranks - 1).astype(np.int64)


@cache
def _provider_of() -> Ints:
    return np.random.default_rng(0).choice(len(PROVIDERS), 1024, p=_PROVIDER_SHARES)


@cache
def _mean_delay() -> npt.NDArray[np.float64]:
    """Milliseconds from the message's sending to its outcome, by kind."""
    means = {"sent": 4, "deferred": 600, "bounced": 120, "expired": 3 * 86_400, "complaint": 5 * 3600, "held": 300}
    return np.array([means[kind.value] * 1000.0 for kind in KINDS])


@cache
def _reply_places() -> tuple[Ints, Ints]:
    """How many replies each kind has, and the number of its first."""
    many = np.array([len(_REPLIES[kind.value]) for kind in KINDS])
    return many, np.cumsum(many) - many


@cache
def _numbered() -> _Flags:
    return np.array([reply.endswith(" ") for *_, reply in replies()])
