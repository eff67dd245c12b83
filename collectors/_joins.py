"""What is known of the messages in the queue between a log's lines: bounded, and able to outlive a restart."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from monitor.naming import PARTS, Names, merged

LIMIT = 200_000  # messages: about 100 MB
_HOSTS = 1_000
# The time of arrival is worked out from a rounded delay and a stamp that may lack its fraction.
_SLACK = 2_000_000
_PARTED = 2  # in what is remembered, in place of 1 for "deferred"
_DIFFER = -1  # in place of the number of an attempt


class Message:
    """What a queue id stands for. Nothing in it names a recipient, and of the sender only labels are kept.

    ``tries`` counts the times that the queue manager has taken it up for one more attempt, so it is the attempt of
    whatever outcomes follow: all recipients that are left are tried each time, or held by a pause. ``deferred``: a
    recipient was tried the last time and must be again. ``parted``: another was held then, so that from the next time
    on the attempts of recipients differ.
    The rest is for the end of its time in the queue, whose line tells nothing of it: how many recipients were ``left``
    the last time, when the message ``arrived``, and the ``ip`` and ``provider`` of its last deferral.
    """

    __slots__ = ("arrived", "deferred", "ip", "left", "names", "parted", "provider", "seen", "tries")

    def __init__(self, names: Names, seen: int) -> None:
        self.names = names
        self.seen = seen  # when its first line was logged
        self.tries = 0
        self.deferred = False
        self.parted = False
        self.left = 0
        self.arrived = 0
        self.ip = ""
        self.provider = ""

    def dumped(self) -> list[Any]:
        """All of it as a list that JSON can hold; ``of`` reads it."""
        went = _PARTED if self.parted else int(self.deferred)
        return [self.seen, self.tries, went, self.left, self.arrived, self.ip, self.provider, *self.names]

    @classmethod
    def of(cls, value: Sequence[Any]) -> Message:
        """The message that ``dumped`` gave."""
        message = cls(tuple(value[7 : 7 + len(PARTS)]), value[0])
        message.tries, message.left, message.arrived = value[1], value[3], value[4]
        message.deferred, message.parted = bool(value[2]), value[2] == _PARTED
        message.ip, message.provider = value[5], value[6]
        return message


class Joins:
    """Messages by "host/queue id", the longest untouched forgotten first."""

    def __init__(self, remembers: Mapping[str, Any] | None = None, limit: int = LIMIT) -> None:
        self._limit = limit
        self._messages: OrderedDict[str, Message] = OrderedDict()
        self.get = self._messages.get  # what is known of a message
        self._since: dict[str, int] = {}  # host → since when all its lines were read and are remembered
        self._kept = set(remembers or ())
        self._touched: set[str] = set()
        for name, value in sorted((remembers or {}).items(), key=lambda item: int(item[1][0])):
            self._restore(name, value)

    def began(self, host: str, at: int) -> None:
        """The log of a host begins here; nothing of what its queue held before is known."""
        if host not in self._since:
            if len(self._since) >= _HOSTS:
                self.gap()
            self._since[host] = at
            self._touched.add(f"{host}/")

    def taken_up(self, host: str, name: str, names: Names, at: int) -> None:
        """The queue manager has taken up a message of a sender who is called ``names``."""
        message = self._messages.get(name)
        if message is None:
            message = self._new(host, name, names, at)
        else:
            self._messages.move_to_end(name)
            if message.names is not names:
                message.names = merged(message.names, names)
        if message.parted:
            message.tries = _DIFFER
        elif message.tries == 0 or (message.deferred and message.tries != _DIFFER):
            message.tries += 1
        message.deferred = message.parted = False
        message.left = 0
        self._touched.add(name)

    def told(self, host: str, name: str, names: Names, at: int) -> None:
        """A line has told more of a message's labels; the first word stands."""
        message = self._messages.get(name)
        if message is None:
            self._new(host, name, names, at)
        else:
            message.names = merged(message.names, names)
        self._touched.add(name)

    def attempt(self, host: str, message: Message, sent_at: int) -> int:
        """Which attempt at a message an outcome belongs to.

        0 where earlier ones may have gone by unread, or where some recipients were held while others were deferred.
        """
        known = message.tries != _DIFFER and sent_at >= self._since.get(host, sent_at) + _SLACK
        return message.tries if known else 0

    def waits(self, name: str, message: Message, arrived: int, ip: str, provider: str, *, held: bool) -> None:
        """One more recipient of a message must wait for the next time; ``held``: this time it was not tried."""
        if held:
            message.parted |= message.deferred
        else:
            message.parted |= not message.deferred and message.left > 0
            message.deferred = True
        message.left += 1
        message.arrived = message.arrived or arrived
        message.ip = ip or message.ip
        message.provider = provider or message.provider
        self._touched.add(name)

    def removed(self, name: str) -> None:
        """A message has left the queue."""
        if self._messages.pop(name, None):
            self._touched.add(name)

    def changes(self) -> dict[str, list[Any] | None]:
        """What differs from the last call, to be remembered: name → value, or None to forget it."""
        changed: dict[str, list[Any] | None] = {}
        for name in self._touched:
            value = self._value(name)
            if value is not None:
                self._kept.add(name)
                changed[name] = value
            elif name in self._kept:
                self._kept.discard(name)
                changed[name] = None
        self._touched.clear()
        return changed

    def gap(self) -> None:
        """Lines were lost: of what is in the queues now, earlier attempts may be unknown."""
        self._touched.update(f"{host}/" for host in self._since)
        self._since.clear()

    def settle(self) -> None:
        """Nothing of what has changed so far need be remembered."""
        self._touched.clear()

    def _new(self, host: str, name: str, names: Names, at: int) -> Message:
        self.began(host, at)
        if len(self._messages) >= self._limit:
            self._forget_oldest()
        message = self._messages[name] = Message(names, at)
        return message

    def _forget_oldest(self) -> None:
        name, message = self._messages.popitem(last=False)
        host = name.rpartition("/")[0]
        # A later line of the forgotten message would look like its first one: nothing as old is fully known any more.
        self._since[host] = max(self._since.get(host, 0), message.seen)
        self._touched.update((name, f"{host}/"))

    def _value(self, name: str) -> list[Any] | None:
        host, _, queue_id = name.rpartition("/")
        if not queue_id:
            return [self._since[host]] if host in self._since else None
        return self._messages[name].dumped() if name in self._messages else None

    def _restore(self, name: str, value: Sequence[Any]) -> None:
        host, _, queue_id = name.rpartition("/")
        if queue_id:
            self._messages[name] = Message.of(value)
        else:
            self._since[host] = value[0]
