"""Reports and the facts: which message of ours each is about, for many at a time."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from monitor.facts import placing
from monitor.facts.errors import FactsBusy, FactsError
from monitor.facts.placing import Known
from monitor.facts.store import Reader
from monitor.keyring import PSEUDONYM_BYTES, UNKNOWN, Keyring
from monitor.model import Kind
from monitor.weighing import Found, choose, match
from monitor.witnesses import Testimony

log = logging.getLogger(__name__)

_RECENT = timedelta(days=2)  # reports about mail of then are asked for apart from older ones, which cost more
_KEPT = timedelta(days=30)  # back to when a message is looked for, where its report does not say when it was sent
_MARGIN = timedelta(days=1)  # of what it does say
_AHEAD = timedelta(minutes=10)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Lookup:
    """Looks in the facts; ``within`` is how long before a report the last mail to its recipient may be."""

    def __init__(self, facts: Reader, keyring: Keyring, within: timedelta) -> None:
        self._facts, self._keyring, self._within = facts, keyring, within

    def found(self, heard: Sequence[Testimony], now: datetime) -> tuple[list[Found], bool]:
        """What the facts know for each, and whether they could be asked at all."""
        since = [_since(one) for one in heard]
        found = [Found()] * len(heard)
        recent = [at for at, first in enumerate(since) if first >= now - _RECENT]
        older = [at for at, first in enumerate(since) if first < now - _RECENT]
        try:
            for chosen in filter(None, (recent, older)):
                first = min(since[at] for at in chosen)
                looked = self._looked([heard[at] for at in chosen], first, now + _AHEAD)
                for at, known in zip(chosen, looked, strict=True):
                    found[at] = known
        except (FactsError, FactsBusy) as error:
            log.warning("messages of reports can't be looked up", extra={"error": str(error)[:300]})
            return [Found()] * len(heard), False
        return found, True

    def _looked(self, heard: Sequence[Testimony], since: datetime, until: datetime) -> list[Found]:
        names = [self._names(one) for one in heard]
        people = _split(self._keyring.pseudonyms(one.recipient for one in heard))
        known: dict[bytes, list[Known]] = defaultdict(list)
        wanted = {name for each in names for name, _ in each}
        for one in placing.messages(self._facts, wanted, {*people} - {UNKNOWN}, since, until):
            known[one.message].append(one)
        found = [_exact(each, known, who) for each, who in zip(names, people, strict=True)]
        mail: dict[bytes, list[Known]] = defaultdict(list)
        rest = {who for one, who in zip(found, people, strict=True) if not one.exact}
        for one in placing.mail_to(self._facts, rest - {UNKNOWN}, since, until):
            mail[one.recipient].append(one)
        return [
            one if one.exact else self._person(one, mail.get(who, ()), testimony)
            for one, who, testimony in zip(found, people, heard, strict=True)
        ]

    def _names(self, testimony: Testimony) -> list[tuple[bytes, str]]:
        """The pseudonyms that the facts may have for the message, with the clue that tells each."""
        told = [(name, "queue_id") for name in testimony.queue]
        told += [(testimony.message_id, "message_id")] if testimony.message_id else []
        return list(zip(_split(self._keyring.messages(name for name, _ in told)), (by for _, by in told), strict=True))

    def _person(self, found: Found, mail: Sequence[Known], testimony: Testimony) -> Found:
        first = testimony.report.at - self._within // _MICROSECOND
        person, several = choose([one for one in mail if one.sent >= first], testimony)
        return replace(found, person=person, several=several)


def _exact(names: Sequence[tuple[bytes, str]], known: Mapping[bytes, Sequence[Known]], who: bytes) -> Found:
    found, elsewhere = Found(), False
    for name, by in names:
        exact, others = match(known.get(name, ()), who)
        if exact and not found.exact:
            found = replace(found, exact=exact, by=by)
        elsewhere = elsewhere or others
        # A short queue id has another name in the week in which the message was given up.
        ended = next((one for one in known.get(name, ()) if _whole(one) and Kind.EXPIRED in one.kinds), None)
        found = replace(found, ended=found.ended or ended)
    return replace(found, elsewhere=elsewhere and not found.exact)


def _whole(one: Known) -> bool:
    """Whether it is what was told of the message as such."""
    return one.recipient == UNKNOWN and not one.others


def _since(testimony: Testimony) -> datetime:
    """From when on the facts may tell of the message."""
    if testimony.sent:
        return _EPOCH + testimony.sent * _MICROSECOND - _MARGIN
    return _EPOCH + testimony.report.at * _MICROSECOND - _KEPT


def _split(joined: bytes) -> list[bytes]:
    return [joined[first : first + PSEUDONYM_BYTES] for first in range(0, len(joined), PSEUDONYM_BYTES)]
