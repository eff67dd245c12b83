"""Mail that waits in Postfix's queue: what a pause covers is put on hold, and let go when it is covered no more.

A hold of Postfix's has no end of its own, so what is held stands in a file first (``_undo``), and nothing is held while
nobody lives who would let it go. Messages that a person put on hold stand in no file of ours, and are left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic

from monitor.actuators import _helper, _undo
from monitor.model import Deed, Lease
from monitor.ports import PluginError

# The pause that surely holds mail of this sender to this recipient; None if it may be sent, or if that is in doubt.
Holding = Callable[[str, str], Lease | None]
MOST = 100_000  # messages held at once: 12 MB in the file
SHORTEST = 5.0  # seconds that a pause must still have to go, or it holds nothing new
PATIENCE = 5.0  # seconds to wait for ``mailvane release`` to end what it is at
_QUEUES = frozenset({"incoming", "active", "deferred"})  # from which a message can be put on hold
_START = re.compile(rb'\{"queue_name": "(\w{1,20})", "queue_id": "([0-9A-Za-z]{5,30})"')


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the queue; without recipients where its listing could not be read."""

    id: str
    queue: str
    sender: str = ""
    recipients: tuple[str, ...] = ()


@dataclass(slots=True)
class _Seen:
    """What a look at the queue found: the queue of what is held by us, and what the leases want held."""

    room: int = 0  # how many more may be held
    ours: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, _undo.Until] = field(default_factory=dict)
    others: int = 0  # on hold, and not by us
    full: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """One Postfix's queue. ``config_directory`` is that of its configuration, empty for the default instance."""

    helper: tuple[str, ...]
    state: Path
    config_directory: str = ""
    most: int = MOST

    def sync(self, leases: Sequence[Lease], holding: Holding, now: datetime) -> None:
        """Hold what a pause covers, and let go what none does any more.

        Raises:
            PluginError: something of it could not be done, or a person must look; the rest was done.
        """
        known = _undo.read(self.state)
        before = known.until if known else {}
        pauses = any(lease.deed is Deed.PAUSE for lease in leases)
        problems = [*self._set_aside()]
        if pauses or before or (known and known.damage):
            began, at = monotonic(), _undo.instant(now)
            seen = self._look(before, holding, problems) if pauses else None
            if seen is None:  # it is not known what the messages are, only which leases there are
                still = {lease.id for lease in leases}
                wanted = {what: until for what, until in before.items() if until.lease in still}
                seen = _Seen(ours=dict.fromkeys(before, "hold"), wanted=wanted)
            try:
                with _undo.locked(self.state, PATIENCE) as alone:
                    if alone:
                        self._change(seen, at, began, problems)
                    else:
                        problems.append("another process is at work on what is held")
            except PluginError as error:
                problems.append(str(error))
            except OSError as error:
                problems.append(f"{self.state}: {error.strerror}")
        if problems:
            raise PluginError("; ".join(problems), retry=True)

    def _set_aside(self) -> Iterator[str]:
        for place in _undo.set_aside_as(self.state):
            if place.exists():
                yield f"{place} could not be read whole: see what is on hold and should not be, then remove it"

    def _look(self, before: Mapping[str, _undo.Until], holding: Holding, problems: list[str]) -> _Seen | None:
        seen = _Seen(room=self.most - len(before))
        try:
            with closing(_helper.lines(self._words("list"))) as lines:
                for line in lines:
                    if message := parse(line):
                        _note(seen, message, before, holding)
        except PluginError as error:
            problems.append(str(error))
            return None
        if seen.full:
            problems.append(f"more than {self.most} messages would be held: the rest flows")
        return seen

    def _change(self, seen: _Seen, at: _undo.Instant, began: float, problems: list[str]) -> None:
        """Under the lock, with what the file says now: meanwhile some may have been let go."""
        held = _undo.read(self.state) or _undo.Held((), at)
        if held.damage:
            problems.append(held.damage + (f"; {seen.others} messages are on hold by others" if held.lost else ""))
        stay, fresh = self._may_hold(held, seen, at.wall + monotonic() - began, problems)
        over = held.until.keys() - stay.keys()
        free = [what for what, queue in seen.ours.items() if what in over and queue == "hold"]
        # Whatever becomes of us from here on, all of this is let go in time; what is free, at once.
        debts = stay | fresh | {what: _undo.Until(at.wall, "") for what in free}
        if debts != held.until or held.damage:
            self._write(debts, at, lost=held.lost)
        if free:
            _helper.done(self._words("release"), free)
        if fresh:
            _undo.about_to_hold(self.state)
            done = _helper.done(self._words("hold"), [*fresh])
            # What was not put on hold by us just now is gone, or was by a person before.
            fresh = {what: until for what, until in fresh.items() if what in done}
        if stay | fresh != debts:
            self._write(stay | fresh, at)

    def _may_hold(
        self, held: _undo.Held, seen: _Seen, now: float, problems: list[str]
    ) -> tuple[dict[str, _undo.Until], dict[str, _undo.Until]]:
        """What may stay on hold and what may be put there: nothing new or longer while nobody would let it go."""
        on_hold = {what for what, queue in seen.ours.items() if queue == "hold"}
        stay = {what: until for what, until in seen.wanted.items() if what in on_hold and what in held.until}
        fresh = {
            what: until for what, until in seen.wanted.items() if what not in on_hold and until.end > now + SHORTEST
        }
        if (stay or fresh) and not _undo.alive(self.state, now):
            problems.append(
                f"nothing more is held, since nobody would let it go: start `mailvane release` for {self.state}"
            )
            stay = {what: min(until, held.until[what]) for what, until in stay.items() if held.until[what].end > now}
            fresh = {}
        return stay, fresh

    def _write(self, until: dict[str, _undo.Until], at: _undo.Instant, *, lost: bool = False) -> None:
        if lost:
            _undo.set_aside(self.state)
        _undo.write(self.state, _undo.Held(self._words("release"), at, until))

    def _words(self, verb: str) -> tuple[str, ...]:
        return (*self.helper, verb, *((self.config_directory,) if self.config_directory else ()))


def _note(seen: _Seen, message: Message, before: Mapping[str, _undo.Until], holding: Holding) -> None:
    ours = message.id in before
    if ours:
        seen.ours[message.id] = message.queue
    elif message.queue == "hold":
        seen.others += 1
    if not ours and message.queue not in _QUEUES:
        return
    if until := _until(message, holding):
        if ours:
            seen.wanted[message.id] = until
        elif seen.room > 0:
            seen.room -= 1
            seen.wanted[message.id] = until
        else:
            seen.full = True


def _until(message: Message, holding: Holding) -> _undo.Until | None:
    """Until when each of its recipients is held; None if one is not."""
    found: _undo.Until | None = None
    for recipient in message.recipients:
        if not (lease := holding(message.sender, recipient)):
            return None
        until = _undo.until_of(lease.until.timestamp(), lease.id)
        found = min(found, until) if found else until
    return found


def parse(line: bytes) -> Message | None:
    """A line of ``postqueue -j``; None for a line of another kind.

    Raises:
        PluginError: it is about a message, and can't be known which.
    """
    try:
        told = json.loads(line)
        recipients = tuple(str(one["address"]) for one in told["recipients"])
        return Message(str(told["queue_id"]), str(told["queue_name"]), str(told["sender"]), recipients)
    except (ValueError, TypeError, KeyError):
        # A line that was cut still says which message it is: it must not be taken for one that has left the queue.
        if start := _START.match(line):
            return Message(start[2].decode(), start[1].decode())
        if line.startswith(b"{"):
            raise PluginError("the queue's listing can't be read", retry=True) from None
        return None
