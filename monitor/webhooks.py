"""``suppression.changed``: changes pushed to whoever keeps lists, signed by the scheme of Standard Webhooks.

Delivered at least once and in order: the ledger knows how far each receiver was told. A try that failed is made again
with the same id and the same body, so that a receiver who took it may drop it. No address is in it, only pseudonyms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import Engine
from standardwebhooks.webhooks import Webhook as Signer

from monitor.http import Answer, Http
from monitor.ledger import suppressions, webhooks
from monitor.ledger.suppressions import Entry
from monitor.ledger.webhooks import Stand
from monitor.places import loopback
from monitor.ports import PluginError
from monitor.settings import Webhook

log = logging.getLogger(__name__)

TYPE = "suppression.changed"
BATCH = 500  # changes a message
_LIMIT = 64 << 10  # bytes of an answer: nothing in it is of use
_FIRST, _LAST = timedelta(seconds=5), timedelta(hours=1)  # between two tries
_LONGEST_WAIT = timedelta(days=1)  # that a receiver may ask for
_GONE = 410
_DISABLED = "it answered 410 Gone, so nothing more is sent: mailvane suppressions push NAME begins again"


class Pusher:
    """Tells one receiver. ``allow``: networks besides public addresses."""

    def __init__(self, name: str, settings: Webhook, ledger: Engine, allow: Sequence[str] = ()) -> None:
        self.name, self._settings, self._ledger = name, settings, ledger
        self._http = Http((*allow, *loopback(settings.url)), limit=_LIMIT)
        self._signers = [Signer(secret) for secret in settings.secret.get_secret_value().split()]

    def run(self, clock: Callable[[], datetime], told: Callable[[str], None] = lambda _result: None) -> str:
        """Send all that is due; what stands in the way now, or nothing. ``told``: of each try how it ended.

        A receiver that is new is told what changes from now on: the feed has what was before.
        """
        while stand := self._due(clock()):
            result, error = self._send(stand, clock)
            told(result)
            if error:
                return error
        with self._ledger.connect().execution_options(reads=True) as conn:
            now_at = webhooks.stand(conn, self.name)
        return now_at.error if now_at else ""

    def behind(self) -> int:
        """How many changes are not delivered yet."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            stand = webhooks.stand(conn, self.name)
            return suppressions.behind(conn, stand.told) if stand else 0

    def _due(self, now: datetime) -> Stand | None:
        """What is to be sent now; None where there is nothing, or nothing yet."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            stand = webhooks.stand(conn, self.name)
            head = suppressions.head(conn)
        if stand and (stand.disabled or stand.not_before > now or stand.told >= head):
            return None
        with self._ledger.begin() as conn:
            stand = webhooks.stand(conn, self.name)
            if stand is None:
                webhooks.begin(conn, self.name, suppressions.head(conn), now)
                return None
            if stand.sending <= stand.told and (waiting := suppressions.page(conn, stand.told, BATCH)):
                webhooks.plan(conn, self.name, waiting[-1].seq)
            return webhooks.stand(conn, self.name)

    def _send(self, stand: Stand, clock: Callable[[], datetime]) -> tuple[str, str]:
        """How one try ended, in a word for the metrics; and what stands in the way, if anything does."""
        with self._ledger.connect().execution_options(reads=True) as conn:
            changes = suppressions.between(conn, stand.told, stand.sending)
        try:
            answer = self._post(stand, changes, clock()) if changes else None  # all of them are forgotten meanwhile
        except PluginError as error:
            return "failed", self._failed(stand, str(error), clock())
        if answer is None or 200 <= answer.status < 300:
            with self._ledger.begin() as conn:
                webhooks.delivered(conn, stand, clock())
            return "delivered", ""
        if answer.status == _GONE:
            log.error("webhook disabled", extra={"webhook": self.name, "status": answer.status})
            with self._ledger.begin() as conn:
                webhooks.failed(conn, stand, _DISABLED, clock(), disabled=True)
            return "gone", _DISABLED
        return "failed", self._failed(stand, f"it answered {answer.status}", clock(), _asked(answer))

    def _post(self, stand: Stand, changes: Sequence[Entry], now: datetime) -> Answer:
        body = message(changes, stand.told)
        named = f"{self.name} {stand.begun.isoformat()} {stand.told} {stand.sending}".encode()
        number = f"suppression_{blake2b(named, digest_size=16).hexdigest()}"
        return self._http.request("POST", self._settings.url, headers=self._headers(number, body, now), body=body)

    def _headers(self, number: str, body: bytes, now: datetime) -> Mapping[str, str]:
        signed = [signer.sign(number, now, body.decode()) for signer in self._signers]
        return {
            "Content-Type": "application/json",
            "webhook-id": number,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signed),
        }

    def _failed(self, stand: Stand, why: str, now: datetime, asked: timedelta = timedelta()) -> str:
        wait = max(min(_FIRST * 2 ** min(stand.tries, 12), _LAST), min(asked, _LONGEST_WAIT))
        error = f"{why}; tried again from {now + wait:%Y-%m-%d %H:%M:%S} UTC on"
        if not stand.tries:  # once, and not at each try
            log.warning("webhook not told", extra={"webhook": self.name, "error": why})
        with self._ledger.begin() as conn:
            webhooks.failed(conn, stand, error, now + wait)
        return error


def message(changes: Sequence[Entry], after: int) -> bytes:
    """The body that tells of these changes; the same ones make the same body. ``after``: what was told before."""
    told = {
        "type": TYPE,
        "timestamp": _stamp(changes[-1].changed_at),
        "data": {
            "after": after,
            "first": changes[0].seq,
            "last": changes[-1].seq,
            "changes": [described(one) for one in changes],
        },
    }
    return msgspec.json.encode(told)


def described(change: Entry) -> dict[str, Any]:
    """A change as feed and push tell it."""
    return {
        "seq": change.seq,
        "at": _stamp(change.changed_at),
        "change": str(change.change),
        "pseudonym": change.pseudonym.hex(),
        "reason": str(change.reason),
        "scope": scope(change),
        "since": _stamp(change.since),
        "until": _stamp(change.until),
        "why": change.why,
        "who": change.who,
    }


def scope(entry: Entry) -> dict[str, str]:
    """Whose and which mail an entry keeps back; empty: all."""
    return {name: value for name, value in (("tenant", entry.tenant), ("stream", entry.stream)) if value}


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _asked(answer: Answer) -> timedelta:
    """How long the receiver wants to be left alone."""
    text = answer.headers.get("Retry-After", "")
    return timedelta(seconds=int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else timedelta()
