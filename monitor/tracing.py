"""Our own mark on a message, in its header ``X-Mailvane`` or its return path: read, and found genuine (ADR 21).

Senders make both by ``mailvane_client.trace`` and ``verp``. A header is ``1.KEY.PAYLOAD.SIGNATURE``, the last two in
base64 for URLs, with blanks anywhere; the payload is a JSON array of the time (POSIX seconds), the Message-ID, a digest
of the recipient, and the labels in the order of ``LABELS``. A return path is ``NAME+CODE@DOMAIN``.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

from monitor.model import DRESS, LABELS, OWNED

LASTS = timedelta(days=60)  # a complaint comes within days, a bounce within a week
EARLY = timedelta(minutes=10)  # how far a sender's clock may be ahead of ours
LONGEST = 2_000  # characters of a header that are looked at; senders make 800
_LABEL = 200  # characters, as of every label in the facts
_PERSON, _MARK = 9, 16  # bytes of the digest of a recipient, and of a signature
_PATH_PERSON, _PATH_MARK = 6, 10  # the same of a return path, whose name has 64 octets
_BLANK = re.compile(r"[ \t\r\n]+")
_SHAPE = re.compile(r"1\.([0-9a-f]{8})\.([A-Za-z0-9_-]{1,1900})\.([A-Za-z0-9_-]{22})")
# ASCII: else the sign for Kelvin is a k, and one mark has many spellings.
_PATH = re.compile(r"(.{1,64})[+=-]([a-z2-7]{32})@([^@]{1,255})", re.IGNORECASE | re.ASCII)


class Refused(ValueError):  # noqa: N818  # an answer, not a fault
    """Why a mark vouches for nothing, out of a small fixed set of words."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a genuine mark says: when the message was ``sent`` (POSIX microseconds), its ``message_id`` and labels.

    A return path knows no labels; its ``address`` is that which the sender gave, and its ``message_id`` one of our own
    that nothing else has.
    """

    sent: int
    message_id: str
    key: str
    labels: tuple[str, ...] = ("",) * len(LABELS)
    address: str = ""
    _person: bytes = field(default=b"", repr=False)
    _secret: bytes = field(default=b"", repr=False)

    def fits(self, recipient: str) -> bool:
        """Whether the message was for that recipient, however it is dressed; it was if none is named."""
        person = recipient.strip(DRESS).lower()
        made = _mac(self._secret, "person", person)[: len(self._person)]
        return not person or hmac.compare_digest(made, self._person)


@dataclass(frozen=True, slots=True)
class Key:
    """32 bytes with which senders sign, and the name by which their marks tell it; ``made`` then."""

    secret: bytes = field(repr=False)
    made: datetime

    @property
    def name(self) -> str:
        """Eight hexadecimal digits."""
        return _mac(self.secret, "name", "")[:4].hex()

    @property
    def text(self) -> str:
        """As senders are given it."""
        return base64.urlsafe_b64encode(self.secret).rstrip(b"=").decode()


class Keys:
    """The key with which senders sign now, and those before it; none: nothing is genuine."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.all = tuple(keys)
        self._named = {key.name: key.secret for key in self.all}

    def header(self, text: str, now: datetime) -> Mark:
        """What a header ``X-Mailvane`` says, folded or not.

        Raises:
            Refused: it is none of ours, too old, or of the future.
        """
        found = _SHAPE.fullmatch(_BLANK.sub("", text[:LONGEST]))
        if not found or len(text) > LONGEST:
            raise Refused("no token")
        return self._opened(found, now)

    def within(self, text: str, now: datetime) -> Mark | None:
        """What the first such token says that stands somewhere in a text, such as in a URL; None where none does.

        Raises:
            Refused: as above.
        """
        found = _SHAPE.search(text[: 2 * LONGEST])
        return self._opened(found, now) if found else None

    def path(self, address: str, now: datetime) -> Mark | None:
        """What a return path says; None where nothing in it looks like a mark.

        Raises:
            Refused: it is none of ours, too old, or of the future.
        """
        found = _PATH.fullmatch(address.strip(DRESS)[:LONGEST])
        if not found:
            return None
        local, code, domain = found.groups()
        whole = base64.b32decode(code.upper())
        told, mark = whole[:-_PATH_MARK], whole[-_PATH_MARK:]
        signed = f"{local.lower()}@{domain.lower()}\0{told.hex()}"
        for key in self.all:
            if hmac.compare_digest(_mac(key.secret, "verp", signed)[:_PATH_MARK], mark):
                sent = _timely(int.from_bytes(told[:4], "big") * 60, now)
                name = f"{code.lower()}@return-path.mailvane"
                return Mark(sent, name, key.name, address=f"{local}@{domain}", _person=told[4:], _secret=key.secret)
        raise Refused("wrong signature")

    def _opened(self, found: re.Match[str], now: datetime) -> Mark:
        name, payload, signature = found.groups()
        secret = self._named.get(name)
        if secret is None:
            raise Refused("unknown key")
        made = _base64(_mac(secret, "trace", f"1.{name}.{payload}")[:_MARK])
        # As text, so that no other spelling of the same bytes is taken.
        if not hmac.compare_digest(made, signature):
            raise Refused("wrong signature")
        try:
            at, message_id, person, labels = json.loads(_bytes(payload))
            return Mark(_timely(int(at), now), str(message_id), name, _labels(labels), "", _bytes(person), secret)
        except Refused:
            raise
        except (ValueError, TypeError, AttributeError, OverflowError) as error:  # a sender of another making
            raise Refused("no token") from error


def _timely(seconds: int, now: datetime) -> int:
    """POSIX microseconds of that time, if a mark of then may still vouch."""
    age = now.timestamp() - seconds
    if age > LASTS.total_seconds():
        raise Refused("expired")
    if age < -EARLY.total_seconds():
        raise Refused("of the future")
    return seconds * 1_000_000


def _labels(told: object) -> tuple[str, ...]:
    if not isinstance(told, list) or len(told) > len(LABELS):
        raise TypeError("no labels")
    cleaned = tuple(_clean(str(value)) for value in told)
    named = dict(zip(LABELS, cleaned + ("",) * (len(LABELS) - len(cleaned)), strict=True))
    return tuple("" if name in OWNED and not named["tenant"] else value for name, value in named.items())


def _clean(text: str) -> str:
    text = text.strip()[:_LABEL]
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)


def _mac(secret: bytes, use: str, text: str) -> bytes:
    """As ``mailvane_client`` makes it: a test holds one against the other."""
    key = hmac.digest(secret, f"mailvane {use}".encode(), sha256)
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), sha256)


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
