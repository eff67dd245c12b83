"""What the clues of one report say by themselves, and what is to be looked up for it: no store, no clock."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from collectors._postfix import message_name
from monitor.model import DRESS, LABELS, Clues
from monitor.naming import PARTS, UNKNOWN, Labels, Names, domain_of, merged
from monitor.settings import Attribution
from monitor.tracing import Keys, Mark, Refused

NOTHING = ("",) * len(LABELS)
FOUND = ("token", "queue_id", "message_id", "feedback_id", "unsubscribe", "return_path", "recipient")  # in `found_by`
CLUES = ("token", "feedback_id", "unsubscribe", "return_path", "message_id", "queue_id", "recipient", "sender", "ip")
_LONGEST = 2_000  # characters of a stranger's text that a pattern of the configuration is searched in
_HOUR, _DAY, _WEEK = (span // timedelta(microseconds=1) for span in (timedelta(hours=1), timedelta(1), timedelta(7)))
_NAMED = tuple(LABELS.index(part) for part in PARTS)


@dataclass(frozen=True, slots=True)
class Report:
    """One row of a batch with its clues; ``columns`` as the source gave them, ``place`` where it stood."""

    columns: Mapping[str, Any] = field(repr=False)
    clues: Clues
    place: str = ""

    @property
    def at(self) -> int:
        """When what it reports happened (POSIX microseconds)."""
        return int(self.columns["at"])


@dataclass(frozen=True, slots=True)
class Witness:
    """What one clue says of the message: labels in the order of ``LABELS``, when it was ``sent`` (0: it does not say).

    ``message_id`` is what its other tellings count under. ``vouches``: that it is a message of ours, and this one.
    ``labels_only``: it vouches for no more than its labels.
    """

    by: str
    labels: tuple[str, ...] = NOTHING
    sent: int = 0
    message_id: str = ""
    vouches: bool = False
    labels_only: bool = False


@dataclass(frozen=True, slots=True)
class Testimony:
    """All that the clues of a report say. ``queue`` are the names that the log of our server may have for the message.

    ``marked`` is when a mark of ours that fits says that it was sent, 0 without one. ``refused`` counts marks that are
    no good, by reason.
    """

    report: Report
    witnesses: tuple[Witness, ...]
    recipient: str = field(repr=False)
    message_id: str = field(repr=False)
    queue: tuple[str, ...]
    marked: int
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        """When the message was sent, if that can be: what it says itself is a stranger's word."""
        told, at = self.marked or self.report.clues.sent, self.report.at
        return told if 0 < told <= at and at - told <= 60 * _DAY else 0


class Listener:
    """Hears what clues say, by the patterns of the configuration; ``senders`` are those that name mail in a log."""

    def __init__(self, settings: Attribution, senders: Sequence[str] = ()) -> None:
        paths = [settings.return_path] if settings.return_path else senders
        self._paths = [Labels(user=re.compile(text)) for text in dict.fromkeys(paths)]
        self._feedback = [Labels(user=re.compile(settings.feedback_id))] if settings.feedback_id else []
        self._unsubscribe = [Labels(user=re.compile(settings.unsubscribe))] if settings.unsubscribe else []
        self._hosts = {host.lower(): name for host, name in settings.hosts.items()}

    def hear(self, report: Report, keys: Keys, now: datetime) -> Testimony:
        """What the report's clues say."""
        clues, columns = report.clues, report.columns
        recipient = columns.get("recipient") or clues.recipient or _in_path(clues.return_path)
        message_id = (clues.message_id or columns.get("message_id") or "").strip(DRESS)
        refused: Counter[str] = Counter()
        hearing = _Hearing(keys, now, recipient, message_id, refused)
        token = hearing.token(clues.token)
        linked = hearing.linked(clues.unsubscribe) if not token else None
        path = hearing.path(clues.return_path)
        witnesses = [
            *([_marked("token", token)] if token else []),
            *([_marked("unsubscribe", linked)] if linked else []),
            *([self._signed_path(path)] if path else []),
            *self._told("feedback_id", self._feedback, clues.feedback_id, covered=clues.covered),
            *self._told("unsubscribe", self._unsubscribe, clues.unsubscribe, covered=clues.covered),
            *self._told("return_path", self._paths, clues.return_path, covered=False),
        ]
        mark = token or linked or path
        return Testimony(
            report,
            tuple(witnesses),
            recipient,
            message_id or (mark.message_id if mark and not mark.address else ""),
            tuple(self._queue(clues, report.at)),
            mark.sent if mark else 0,
            refused,
        )

    def _signed_path(self, mark: Mark) -> Witness:
        names = merged(_first(self._paths, mark.address), (domain_of(mark.address), *UNKNOWN[1:]))
        return Witness("return_path", _placed(names), mark.sent, mark.message_id, vouches=True)

    def _told(self, by: str, patterns: Sequence[Labels], text: str, *, covered: bool) -> Iterator[Witness]:
        names = _first(patterns, text[:_LONGEST])
        if names != UNKNOWN:
            yield Witness(by, _placed(names), vouches=covered, labels_only=covered)

    def _queue(self, clues: Clues, at: int) -> Iterator[str]:
        """Names by host, as it calls itself, in short, and as the configuration says; by week for a short queue id."""
        host, _, told = clues.queue_id.rpartition("/")
        queue_id, _, week = told.partition("@")
        if not host or not queue_id:
            return
        lower = host.lower()
        hosts = dict.fromkeys(
            (self._hosts.get(lower, host), host, lower, host.partition(".")[0], lower.partition(".")[0])
        )
        arrived = (clues.sent - _HOUR, clues.sent + _HOUR) if clues.sent else ()
        for name in hosts:
            weeks = [message_name(f"{name}/{queue_id}", when) for when in (*arrived, at, at - _WEEK)]
            yield from dict.fromkeys([f"{name}/{told}", *weeks] if week else weeks)


class _Hearing:
    """The marks of one report: genuine, and about this message and recipient, or refused and counted."""

    def __init__(self, keys: Keys, now: datetime, recipient: str, message_id: str, refused: Counter[str]) -> None:
        self._keys, self._now, self._refused = keys, now, refused
        self._recipient, self._message_id = recipient, message_id

    def token(self, text: str) -> Mark | None:
        return self._genuine(lambda: self._keys.header(text, self._now)) if text else None

    def linked(self, text: str) -> Mark | None:
        return self._genuine(lambda: self._keys.within(text, self._now))

    def path(self, text: str) -> Mark | None:
        try:
            mark = self._keys.path(text, self._now)
        except Refused:  # other people's return paths look like that as well
            return None
        return self._genuine(lambda: mark)

    def _genuine(self, read: Callable[[], Mark | None]) -> Mark | None:
        try:
            mark = read()
        except Refused as refused:
            mark, why = None, str(refused)
        else:
            why = self._unfit(mark) if mark else ""
        if why:
            self._refused[why] += 1
        return None if why else mark

    def _unfit(self, mark: Mark) -> str:
        if not mark.fits(self._recipient):
            return "another recipient"
        other = not mark.address and self._message_id and self._message_id != mark.message_id
        return "another message" if other else ""


def _marked(by: str, mark: Mark) -> Witness:
    return Witness(by, mark.labels, mark.sent, mark.message_id, vouches=True)


def _first(patterns: Sequence[Labels], text: str) -> Names:
    """What the first pattern says that finds something."""
    return next((names for one in patterns if (names := one.of_user(text)) != UNKNOWN), UNKNOWN)


def _placed(names: Names) -> tuple[str, ...]:
    """The nine labels, out of those that a pattern names; what sellers name only with the seller."""
    labels = list(NOTHING)
    for place, value in zip(_NAMED, _WHOLE[names], strict=True):
        labels[place] = value
    return tuple(labels)


_WHOLE = Labels().whole


def _in_path(address: str) -> str:
    """Whom a return path such as bounces+jane=example.net@mta.example names; empty where it names nobody."""
    named, equals, domain = address.strip(DRESS)[:_LONGEST].rpartition("@")[0].rpartition("=")
    # Names of people have a + or - in them as well: what is before the first +, or else the last -, is the mailbox.
    person = named.partition("+")[2] if "+" in named else named.rpartition("-")[2] if "-" in named else ""
    return f"{person}@{domain}" if equals and person and domain else ""
