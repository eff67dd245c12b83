"""Messages and what receivers say of them, as the NDJSON lines of ``POST /v1/events``. All names are reserved ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from monitor.model import Kind, Scope, named
from monitor.simulator.traffic import Group


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one recipient; ``sent_at`` is its first attempt, ``attempt`` the present one."""

    group: Group
    scope: Scope
    message_id: str
    recipient: str
    sent_at: datetime
    attempt: int = 1


class Replies(Enum):
    """What a receiver answers, in the manner of real ones; one is chosen by the recipient's number."""

    ACCEPTED = ("250 2.0.0 OK, queued",)
    GONE = ("550 5.1.1 <{recipient}>: no such user here",)
    REFUSED = (
        "550 5.1.1 <{recipient}>: no such user here",
        "550 5.1.1 The address that you wrote to does not exist",
        "552 5.2.2 This mailbox is full",
        "554 5.7.1 The content of this message is not wanted here",
    )
    LATER = (
        "451 4.7.1 We do not know you yet, come back in a while",
        "421 4.7.0 Too many messages at a time, slow down",
        "452 4.2.2 This mailbox is over its quota",
    )
    BLOCKED = ("550 5.7.1 [{ip}] Mail from this address is blocked here",)
    PUT_OFF = ("421 4.7.0 [{ip}] Mail from this address is put off because of complaints",)


def outcome(message: Message, kind: Kind, at: datetime, replies: Replies) -> bytes:
    """The line that says what became of this attempt of the message at ``at``."""
    texts = replies.value
    text = texts[sum(message.recipient.encode()) % len(texts)].format(recipient=message.recipient, ip=message.scope.ip)
    code, dsn, _ = text.split(" ", 2)
    answer = {"code": int(code), "dsn": dsn, "relay": f"mx.{message.scope.provider}.example", "reply": text}
    return _line(kind, message, at, answer)


def complaint(message: Message, at: datetime) -> bytes:
    """The line that says that the recipient called the message spam at ``at``."""
    return _line(Kind.COMPLAINT, message, at, {})


def held(scope: Scope, message_id: str, at: datetime, count: int) -> bytes:
    """The line that says that ``count`` messages of the scope were kept back; no attempt was made."""
    body = {"kind": Kind.HELD, "at": stamp(at), "message_id": message_id, **named(scope), "count": count}
    return json.dumps(body).encode()


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(kind: Kind, message: Message, at: datetime, answer: dict[str, object]) -> bytes:
    body = {
        "kind": kind,
        "at": stamp(at),
        "sent_at": stamp(message.sent_at),
        "attempt": message.attempt,
        "message_id": message.message_id,
        "recipient": message.recipient,
        **named(message.scope),
        **answer,
        "count": 1,
    }
    return json.dumps(body).encode()
