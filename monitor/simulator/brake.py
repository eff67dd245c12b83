"""The question before each group of mail: may it go? No answer in time means yes (fails open)."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

import urllib3

from monitor.model import Scope, named
from monitor.simulator.tally import Tally

log = logging.getLogger(__name__)

_PATIENCE = timedelta(milliseconds=200)
_FAILURES = 3  # in one tick; then nobody is asked until the next, so that a dead brake delays mail by 0.6 s at most
_MEMORY = timedelta(seconds=5)  # a new pause must bite soon, however long the brake would stand by its answer
_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class _Known:
    share: float
    until: datetime


class Brake:
    """Asks ``GET /v1/check``, and remembers an answer for half of its ``ttl``."""

    def __init__(self, pool: urllib3.HTTPConnectionPool, headers: dict[str, str], tally: Tally) -> None:
        self._pool, self._headers, self._tally = pool, headers, tally
        self._known: dict[Scope, _Known] = {}
        self._failures = 0
        self._tick: datetime | None = None
        self._silent = False

    def share(self, scope: Scope, at: datetime) -> float:
        """The part of the scope's mail that may pass: 0 when held, 1 when free or when nobody answers."""
        if at != self._tick:
            self._failures, self._tick = 0, at
        if (known := self._known.get(scope)) and at < known.until:
            return known.share
        answer = self._ask(scope, at) if self._failures < _FAILURES else None
        if answer is None:
            self._tally.unanswered += 1
            return 1.0
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[scope] = answer
        return answer.share

    def _ask(self, scope: Scope, at: datetime) -> _Known | None:
        self._tally.asked += 1
        try:
            response = self._pool.request(
                "GET",
                "/v1/check?" + urlencode(named(scope)),
                headers=self._headers,
                timeout=urllib3.Timeout(total=_PATIENCE.total_seconds()),
                retries=False,
            )
            answer = _read(response.status, response.data, at)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            self._failures += 1
            if self._failures == _FAILURES and not self._silent:  # one late answer is only counted
                log.warning("the brake does not answer, mail goes on", extra={"why": _why(error)})
                self._silent = True
            return None
        if self._silent:
            log.info("the brake answers again")
        self._silent = False
        return answer


def _why(error: Exception) -> str:
    """Our own words, or the library's name for it: its text holds the question."""
    return str(error) if isinstance(error, ValueError) else type(error).__name__


def _read(status: int, body: bytes, at: datetime) -> _Known:
    """The answer in ``body``.

    Raises:
        ValueError: not an answer of ``/v1/check``.
    """
    if status != 200:
        raise ValueError(f"status {status}")
    try:
        answer = json.loads(body)
        free = {"send": True, "held": False}[answer["answer"]]
        share = float(answer.get("share") or 0)
        ttl = min(timedelta(seconds=float(answer.get("ttl") or 0) / 2), _MEMORY)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("not an answer of /v1/check") from error
    if not 0 < share <= 1:  # only a throttle says it
        share = 1.0 if free else 0.0
    return _Known(share, at + ttl)
