"""Notices owed → people. What is owed stands in the ledger; a channel that fails is tried again, and stops no other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from monitor.ledger import actions, incidents, notices
from monitor.ledger.notices import Notice
from monitor.model import Action, Incident
from monitor.ports import Notifier, PluginError

log = logging.getLogger(__name__)

CLAIM = timedelta(minutes=2)  # longer than any channel's time-outs and retries together
LOOK_BACK = timedelta(days=1)  # a resolution that could not be told for a day is told no more
_FIRST_RETRY = timedelta(seconds=5)
_LAST_RETRY = timedelta(minutes=10)


def owe(conn: Connection, channels: Sequence[str], now: datetime) -> None:
    """Write down which channels are to be told of which incidents' present states.

    To be called when a round is over, so that an incident and the pause that follows it are one telling.
    """
    recent = incidents.recent(conn, now - LOOK_BACK)
    done = actions.of_incidents(conn, [incident.id for incident in recent])
    for incident in recent:
        for channel in channels:
            notices.owe(conn, incident.id, channel, state(incident, done[incident.id]), now)


def state(incident: Incident, done: Sequence[Action]) -> str:
    """What makes a new telling worthwhile, as one text: the grade, the end, and each action."""
    last = done[-1].seq if done else 0
    return f"{incident.grade} {'resolved' if incident.resolved_at else 'open'} {last}"


class Teller:
    """Tells what is owed, one notice at a time."""

    def __init__(
        self, channels: Mapping[str, Notifier], ledger: Engine, failed: Callable[[str], None] = lambda _name: None
    ) -> None:
        self._channels = channels
        self._ledger = ledger
        self._failed = failed

    def run(self, now: Callable[[], datetime]) -> int:
        """Tell all that is due; how many were told."""
        count = 0
        while True:
            with self._ledger.begin() as conn:
                notice = notices.claim(conn, now(), CLAIM)
            if notice is None:
                return count
            count += self._one(notice, now)

    def _one(self, notice: Notice, now: Callable[[], datetime]) -> bool:
        channel = self._channels.get(notice.channel)
        with self._ledger.connect().execution_options(reads=True) as conn:
            incident = incidents.by_id(conn, notice.incident)
            done = actions.of_incidents(conn, [notice.incident])[notice.incident]
        if channel is None or incident is None:
            self._give_up(notice, "the channel is no longer configured")
            return False
        try:
            handle = channel.notify(incident, done, notice.handle)
        except PluginError as error:
            self._failed(notice.channel)
            self._later(notice, error, now())
            return False
        with self._ledger.begin() as conn:
            notices.told(conn, notice, handle)
        return True

    def _later(self, notice: Notice, error: PluginError, now: datetime) -> None:
        if not error.retry:
            log.error("not told", extra={"channel": notice.channel, "incident": notice.incident, "error": str(error)})
            self._give_up(notice, str(error))
            return
        wait = min(_FIRST_RETRY * 2 ** min(notice.tries, 10), _LAST_RETRY)
        log.warning("told later", extra={"channel": notice.channel, "incident": notice.incident, "error": str(error)})
        with self._ledger.begin() as conn:
            notices.failed(conn, notice, str(error), now + wait)

    def _give_up(self, notice: Notice, error: str) -> None:
        with self._ledger.begin() as conn:
            notices.failed(conn, notice, error, None)
