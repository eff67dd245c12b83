"""Event lines on their way to the service: kept until it acknowledges them, up to a bound."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice

import urllib3

from monitor.scrub import scrub
from monitor.simulator.tally import Tally

log = logging.getLogger(__name__)

_KEPT = 20_000  # lines, some 100 seconds of mail
_BATCH = 500
_BATCHES = 10  # in one flush, so that a long backlog doesn't hold up the mail
_PATIENCE = timedelta(seconds=5)
_PAUSES = tuple(timedelta(seconds=seconds) for seconds in (1, 2, 4, 8, 15))
_ACCEPTED, _TOO_LARGE, _NO_GOOD, _TOO_MANY = 202, 413, 422, 429


class Outbox:
    """Lines for ``POST /v1/events``. The service counts a line once however often it is sent."""

    def __init__(
        self, pool: urllib3.HTTPConnectionPool, headers: dict[str, str], tally: Tally, kept: int = _KEPT
    ) -> None:
        self._pool, self._tally = pool, tally
        self._headers = {**headers, "Content-Type": "application/x-ndjson"}
        self._lines: deque[bytes] = deque()
        self._kept, self._size = kept, _BATCH
        self._failures = 0
        self._not_before: datetime | None = None  # None: whenever there is something

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, lines: Iterable[bytes]) -> None:
        """Keep the lines for the next flush; past the bound the oldest are lost, and counted."""
        self._lines.extend(lines)
        while len(self._lines) > self._kept:
            self._lines.popleft()
            self._tally.lost += 1

    def flush(self, at: datetime) -> None:
        """Send what is kept, unless the service asked for a break that lasts beyond ``at``."""
        for _ in range(_BATCHES):
            if not self._lines or (self._not_before and at < self._not_before):
                return
            batch = list(islice(self._lines, self._size))
            if not self._post(batch, at):
                return
            for _line in batch:
                self._lines.popleft()

    def _post(self, batch: list[bytes], at: datetime) -> bool:
        try:
            response = self._pool.request(
                "POST",
                "/v1/events",
                body=b"\n".join(batch) + b"\n",
                headers=self._headers,
                timeout=urllib3.Timeout(total=_PATIENCE.total_seconds()),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            return self._again(at, type(error).__name__)
        if response.status == _TOO_LARGE:
            self._size = max(1, self._size // 2)
        if response.status not in (_ACCEPTED, _NO_GOOD):  # no good: each line, so sending them again is no use
            asked = _seconds(response.headers.get("Retry-After")) if response.status == _TOO_MANY else None
            return self._again(at, f"status {response.status}", asked)
        self._failures, self._not_before = 0, None
        self._acknowledged(response.data, len(batch), taken=response.status == _ACCEPTED)
        return True

    def _again(self, at: datetime, why: str, asked: timedelta | None = None) -> bool:
        pause = asked or _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._not_before = at + pause
        self._failures += 1
        if self._failures == 1:
            log.warning("events not accepted, kept for later", extra={"why": why, "lines": len(self._lines)})
        return False

    def _acknowledged(self, body: bytes, sent: int, *, taken: bool) -> None:
        try:
            answer = json.loads(body)
            shown = list(answer["rejected"])
            rejected = int(answer.get("rejected_count", len(shown))) if taken else sent
        except (ValueError, KeyError, TypeError, AttributeError):
            shown, rejected = [], 0 if taken else sent  # the status is the promise; the rest is for people
        self._tally.accepted += sent - rejected
        self._tally.rejected += rejected
        if rejected:
            log.warning("event lines rejected", extra={"lines": rejected, "first": scrub(str(shown[:1]), 200)})


def _seconds(text: str | None) -> timedelta | None:
    """``Retry-After`` in seconds, at most a minute; None for a date or nothing."""
    if text is None or not text.strip().isdecimal():
        return None
    return timedelta(seconds=min(int(text), 60))
