"""Which of our messages a report may be about: looked up by message, or by whom it went to, many at a time.

Only what senders and their servers told is looked at. What reports told before vouches for nothing: whoever reports a
message that never was would find it known the next time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from monitor.facts.grouped import ANY
from monitor.facts.prepare import SELLERS
from monitor.facts.raw import limits
from monitor.facts.store import Reader
from monitor.keyring import UNKNOWN
from monitor.model import LABELS, Kind

# A question reads one or two columns of the days that it is about: 20 ms a million events for one message, 50 ms for a
# thousand (26.9, November 2026). A bloom filter would spare nine tenths of that for one, and nothing for a thousand.
TOGETHER = 1_000
_MESSAGES = 50  # of one recipient, the newest: whoever got more is not told apart by time anyway
_OURS = (Kind.SENT, Kind.DEFERRED, Kind.BOUNCED, Kind.EXPIRED, Kind.HELD)
_ZERO = f"toFixedString(unhex('{UNKNOWN.hex()}'), 16)"


@dataclass(frozen=True, slots=True)
class Known:
    """A message of ours at one recipient, by pseudonyms; ``sent`` in POSIX microseconds.

    ``recipient`` zeros: of an event that names none, such as the end of a message in the queue; or, with ``others``, of
    all recipients that were not asked for, taken together.
    """

    message: bytes
    recipient: bytes
    labels: tuple[str, ...]
    sent: int
    kinds: frozenset[Kind]
    others: bool = False


def messages(
    facts: Reader, asked: Collection[bytes], people: Collection[bytes], since: datetime, until: datetime
) -> Iterator[Known]:
    """What is known of these messages between the times, with each of the ``people`` for himself.

    Raises:
        FactsError: the engine refused.
    """
    wanted = _in("recipient", [*people, UNKNOWN])
    for some in _parts(asked):
        yield from _known(
            facts,
            f"if({wanted}, recipient, {_ZERO}) AS who, not {wanted} AS others",
            _in("message", some),
            since,
            until,
        )


def mail_to(facts: Reader, people: Collection[bytes], since: datetime, until: datetime) -> Iterator[Known]:
    """The messages to each of these recipients between the times, the newest of each first, and only so many.

    Raises:
        FactsError: the engine refused.
    """
    for some in _parts(people):
        named = f"{_in('recipient', some)} AND message != {_ZERO}"
        yield from _known(
            facts,
            "recipient AS who, 0 AS others",
            named,
            since,
            until,
            f"ORDER BY max(at) DESC LIMIT {_MESSAGES} BY who",
        )


def _known(facts: Reader, who: str, cut: str, since: datetime, until: datetime, end: str = "") -> Iterator[Known]:
    kinds = ", ".join(f"'{kind}'" for kind in _OURS)
    told = ", ".join((*(f"toString({label})" for label in LABELS), "toUnixTimestamp64Milli(sent_at)"))
    # A seller may tell of any message as if it were his: what others tell of it comes first, and what knows a tenant.
    rank = "(source != {sellers:String}, tenant != '', at)"
    span, values = limits(since, until, ANY)
    table = facts.query(
        f"SELECT hex(message) AS message, hex(who) AS recipient, others, argMax(tuple({told}), {rank}) AS told,"  # noqa: S608  # names are ours, and what is asked for is hexadecimal
        f" groupUniqArray(toString(kind)) AS kinds FROM (SELECT *, {who} FROM events"
        f" WHERE {cut} AND kind IN ({kinds}) AND {' AND '.join(span)}) GROUP BY message, who, others {end}",
        **values,
        sellers=SELLERS,
    )
    return (_one(row) for row in table.to_pylist())


def _one(row: dict[str, Any]) -> Known:
    *labels, sent = row["told"].values() if isinstance(row["told"], dict) else row["told"]
    return Known(
        message=bytes.fromhex(row["message"]),
        recipient=bytes.fromhex(row["recipient"]),
        labels=tuple(labels),
        sent=sent * 1000,
        kinds=frozenset(map(Kind, row["kinds"])),
        others=bool(row["others"]),
    )


def _in(column: str, pseudonyms: Collection[bytes]) -> str:
    return f"{column} IN ({', '.join(_literal(one) for one in pseudonyms)})"


def _literal(pseudonym: bytes) -> str:
    return f"toFixedString(unhex('{pseudonym.hex()}'), 16)"


def _parts(pseudonyms: Collection[bytes]) -> Iterator[list[bytes]]:
    every = list(pseudonyms)
    yield from (every[first : first + TOGETHER] for first in range(0, len(every), TOGETHER))
