"""A Postfix log's bytes as columns of outcomes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from collectors._grammar import ABOUT_A_RECIPIENT, EXPIRED, HEADER, HELD, PLAIN, STAMPED, USER, grammar
from collectors._joins import Joins
from collectors._lines import LIMIT, Lines
from collectors._relays import NOWHERE, Programs, Relays
from collectors._stamps import Stamps
from monitor.model import MARKER, Batch, Kind, Rejected
from monitor.naming import PARTS, UNKNOWN, Labels, merged
from monitor.once import Once
from monitor.scrub import scrub

NO_LOG_LINE = "no log line"
INCOMPLETE = "incomplete status line"
UNKNOWN_STATUS = "unknown status"
TOO_LONG = f"line over {LIMIT // 1024} KiB"
FIELDS = (
    *("kind", "at", "sent_at", "attempt", "tries", "count", "ip", "provider"),
    *("recipient", "message_id", "code", "dsn", "relay", "reply"),
    *PARTS,
)
_KINDS = {
    "sent": Kind.SENT.value,
    "deferred": Kind.DEFERRED.value,
    "bounced": Kind.BOUNCED.value,
    "SOFTBOUNCE": Kind.DEFERRED.value,  # `soft_bounce = yes` keeps what it would have bounced
}
_PROBES = frozenset(
    ("deliverable", "undeliverable", "undeliverable-but-not-cached")
)  # address verification: no mail was sent
_DEFERRED, _HELD, _EXPIRED = Kind.DEFERRED.value, Kind.HELD.value, Kind.EXPIRED.value
_WAITS = frozenset((_DEFERRED, _HELD))
_NO_QUEUE = "/NOQUEUE"
_SAMPLE = 300
_SLICE = 128 * 1024  # characters read at once: what they become still fits the processor's cache
_LONGEST = 100 * 86_400.0  # seconds in the queue, Postfix's own limit; what goes beyond comes of a clock that was wrong
# A short queue id may come again once its message is gone, a long one (it has a z) never does. The week of arrival
# tells two messages apart. It turns on a Sunday at 03:37:11 UTC, when hardly a message arrives whose rounded delay
# could put two lines about it into two weeks.
_WEEK = 7 * 86_400 * 1_000_000
_TURN = (3 * 86_400 + 3 * 3600 + 37 * 60 + 11) * 1_000_000
_WEEKS = Once("@{}".format)


Hit = tuple[str, ...]  # the groups of the grammar


def message_name(name: str, arrived: int) -> str:
    """The message id of what a log calls "host/queue id", and of which it says that it arrived then (POSIX µs)."""
    return name if "z" in name.rpartition("/")[2] else name + _WEEKS[(arrived - _TURN) // _WEEK]


class Parser:
    """Columns out of the bytes of a log, cut anywhere; what one line does not tell is joined from earlier ones.

    The same bytes give the same rows however they are cut. ``last`` is the newest stamp at which a chunk ended, POSIX
    microseconds, 0 before the first. With ``remembering`` each batch says what must be remembered to go on elsewhere.
    """

    def __init__(
        self,
        *,
        stamps: Stamps,
        labels: Labels,
        programs: Programs,
        relays: Relays,
        joins: Joins,
        users: bool = False,
        headers: Iterable[str] = (),
        host: str = "",
        remembering: bool = False,
        skipping: bool = False,
        last: int = 0,
    ) -> None:
        self.last = last
        self._lines = Lines(skipping=skipping)
        self._grammar = grammar(users=users, headers=headers)
        self._find = self._grammar.findall
        self._stamps, self._labels, self._relays = stamps, labels, relays
        self._program_of, self._relay_of = programs.of, relays.of
        self._joins = joins
        self._host = host
        self._remembering = remembering
        self._begun = False
        self._where = ""
        self._rows: list[tuple[Any, ...]] = []
        self._rejected: list[Rejected] = []
        self._unfound: list[tuple[int, Hit]] = []  # which of them, and what of the line matched

    @property
    def pending(self) -> int:
        """Bytes read of a line whose end is still to come."""
        return self._lines.pending

    @property
    def skipping(self) -> bool:
        """Whether a line over the limit is under way."""
        return self._lines.skipping

    def feed(self, chunk: bytes, where: str = "") -> Batch:
        """The outcomes in the lines that ``chunk`` completes, and what of them could not be read.

        ``where`` names the source in what is rejected.
        """
        return self.gather([(where, chunk)])

    def gather(self, parts: Iterable[tuple[str, bytes]]) -> Batch:
        """The same of chunks that follow one another; each is named for itself."""
        self._rows, self._rejected = [], []
        for where, chunk in parts:
            self._take(self._lines.push(chunk), where)
        return self._batch()

    def finish(self, where: str = "") -> Batch:
        """The same for a last line without an end, which nothing will complete."""
        self._rows, self._rejected = [], []
        self._take(self._lines.finish(), where)
        return self._batch()

    def resume(self, now: datetime) -> None:
        """The clock has moved on, and the bytes that are ``pending`` will be fed again."""
        self._stamps.move(now)
        self._lines.rewind()

    def gap(self) -> None:
        """Lines before the next chunk were lost."""
        self._joins.gap()
        self._begun = False

    def _take(self, whole: bytes, where: str) -> None:
        self._where = where
        for _ in range(self._lines.dropped):
            self._reject(TOO_LONG, "")
        self._lines.dropped = 0
        if whole:
            text = whole.decode("utf-8", "replace")
            text = text.replace("\r\n", "\n") if "\r" in text else text
            self._read(text)
            if self._unfound:
                self._add_raw(whole, text)

    def _batch(self) -> Batch:
        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(FIELDS)
        remember = self._joins.changes() if self._remembering else {}
        self._joins.settle()
        return Batch(dict(zip(FIELDS, columns, strict=True)), remember=remember, rejected=self._rejected)

    def _read(self, text: str) -> None:
        self._begin(text)
        start = 0
        while start < len(text):
            end = text.rfind("\n", start, start + _SLICE) + 1 or text.find("\n", start) + 1
            self._read_lines(text[start:end])
            start = end
        self._end(text)

    def _read_lines(self, text: str) -> None:
        stamps, of_sender = self._stamps, self._labels.of_sender
        taken_up, removed, outcome = self._joins.taken_up, self._joins.removed, self._outcome
        for hit in self._find(text):
            stamp, logged, program, queue_id, recipient, _, _, _, _, _, _, sender, other, odd = hit
            if not queue_id:
                self._odd(odd, hit)
            elif at := stamps.get(stamp) or self._at(stamp, hit):
                host = self._host or logged
                name = f"{host}/{queue_id}"
                if recipient:
                    outcome(at, host, name, hit)
                elif other == "removed":
                    removed(name)
                elif not other:
                    taken_up(host, name, of_sender[sender], at)
                else:
                    self._other(at, host, name, program, other)

    def _outcome(self, at: int, host: str, name: str, hit: Hit) -> None:
        _, _, program, queue_id, recipient, relay, delay, dsn, status, code, reply, _, _, _ = hit
        kind = _KINDS.get(status)
        if kind is None:
            if status not in _PROBES:
                self._reject(UNKNOWN_STATUS, f"{program}: status={status} ({reply}", hit)
            return
        ip, house, repeats = self._program_of[program]
        place = self._relay_of[relay]
        if place is NOWHERE:
            place = self._relays.tried(reply)
            # At its start these are Postfix's own words; further on they may be a receiver's, which Postfix repeats.
            if kind == _DEFERRED and reply.startswith(MARKER):
                kind = _HELD
        host_there, provider, internal = place
        if house or internal:
            return
        waited = float(delay)
        sent_at = at - int(waited * 1e6) if 0 <= waited <= _LONGEST else at
        tries = at // 1000 if kind in _WAITS else 0
        message = self._joins.get(name)
        attempt, names = 0, UNKNOWN
        if message:
            names = message.names
            if repeats:
                ip = message.ip or ip
            if kind != _HELD:
                attempt = self._joins.attempt(host, message, sent_at)
            if tries:
                self._joins.waits(name, message, sent_at, ip, provider, held=kind == _HELD)
        self._rows.append(
            (
                kind,
                at,
                sent_at,
                attempt,
                tries,
                1,
                ip,
                provider,
                recipient[1:-1] if recipient[0] == "<" else recipient,
                name if "z" in queue_id else name + _WEEKS[(sent_at - _TURN) // _WEEK],
                int(code or 0),
                dsn,
                host_there,
                reply.removesuffix(")"),
                *self._labels.whole[names],
            )
        )

    def _other(self, at: int, host: str, name: str, program: str, line: str) -> None:
        if EXPIRED.match(line):
            self._expired(at, name, program)
        elif line.startswith("reject: "):
            if program.rpartition("/")[2] == "smtpd" and (found := HELD.fullmatch(line)):
                self._refused(at, name, line, found)
        elif found := USER.match(line):
            self._joins.told(host, name, self._labels.of_user(found[1]), at)
        elif found := HEADER.match(line):
            self._joins.told(host, name, self._labels.of_header(found[1], found[2].lstrip(" ")), at)

    def _expired(self, at: int, name: str, program: str) -> None:
        message = self._joins.get(name)
        ip = self._program_of[program].address
        known = (message.arrived or at, 0, 0, message.left or 1, message.ip or ip, message.provider) if message else ()
        names = message.names if message else UNKNOWN
        queue_id = name.rpartition("/")[2]
        self._rows.append(
            (
                *(_EXPIRED, at, *(known or (at, 0, 0, 1, ip, ""))),
                *("", name if "z" in queue_id else name + _WEEKS[(at - _TURN) // _WEEK], 0, "", "", ""),
                *self._labels.whole[names],
            )
        )

    def _refused(self, at: int, name: str, line: str, found: re.Match[str]) -> None:
        code, dsn, reply, sender, recipient, user, bare_user = found.groups("")
        # A refused message may never get an id, nor the same one again: what smtpd says of it is all that names it.
        message = None if name.endswith(_NO_QUEUE) else self._joins.get(name)
        names = self._labels.of_user(user or bare_user)
        names = merged(names, message.names) if message else names
        names = merged(names, self._labels.of_sender[sender])
        self._rows.append(
            (
                *(_HELD, at, at, 0, at // 1000, 1, "", ""),  # which address would have sent it is not decided yet
                *(recipient, f"{name}: {line}", int(code), dsn, "", reply),
                *self._labels.whole[names],
            )
        )

    def _at(self, stamp: str, hit: Hit) -> int:
        try:
            return self._stamps[stamp]
        except ValueError as error:
            self._reject(str(error), stamp, hit)
            return 0

    def _begin(self, text: str) -> None:
        if not self._begun:
            host, at = self._stamp(text, 0)
            if at:
                self._joins.began(self._host or host, at)
        self._begun = True

    def _end(self, text: str) -> None:
        _, at = self._stamp(text, text.rfind("\n", 0, -1) + 1)
        self.last = max(self.last, at)

    def _stamp(self, text: str, start: int) -> tuple[str, int]:
        # The host and time of one line. Whether that line is refused is decided when its turn comes.
        found = STAMPED.match(text, start)
        with suppress(ValueError):
            return (found[2], self._stamps[found[1]]) if found else ("", 0)
        return "", 0

    def _odd(self, line: str, hit: Hit) -> None:
        if not PLAIN.match(line):
            if line.strip():
                self._reject(NO_LOG_LINE, line, hit)
        elif ABOUT_A_RECIPIENT.match(line):
            self._reject(INCOMPLETE, line, hit)

    def _reject(self, why: str, sample: str, hit: Hit = ()) -> None:
        if hit:
            self._unfound.append((len(self._rejected), hit))
        self._rejected.append(Rejected(why, self._where, scrub(sample.rstrip(), _SAMPLE)))

    def _add_raw(self, whole: bytes, text: str) -> None:
        """Find the lines that were refused: a match tells not where it stood, since few are ever asked."""
        end, lines = 0, list[bytes]()
        for place, hit in self._unfound:
            telling = max(hit, key=len).rstrip("\n")
            while (found := text.find(telling, end)) >= 0:
                begin, end = text.rfind("\n", 0, found) + 1, text.find("\n", found)
                end = len(text) if end < 0 else end
                line = text[begin:end]
                if not self._is(line, hit):
                    continue
                if "\ufffd" in line:  # the text does not have its bytes
                    lines = lines or whole.split(b"\n")
                    raw = lines[text.count("\n", 0, begin)].removesuffix(b"\r")
                else:
                    raw = line.encode()
                self._rejected[place] = replace(self._rejected[place], raw=raw)
                break
        self._unfound.clear()

    def _is(self, line: str, hit: Hit) -> bool:
        found = self._grammar.match(line + "\n")
        return found is not None and [part.rstrip("\n") for part in found.groups("")] == [
            part.rstrip("\n") for part in hit
        ]
