"""Delivery reports for programs: message/delivery-status, by recipient (RFC 3464, 3461, 6522)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from collectors._addresses import address, host
from collectors._instants import instant
from collectors._mail import Headers, Mail, parsed

REPORTS = frozenset(("message/delivery-status", "message/global-delivery-status", "message/x-delivery-status"))
_FIELD = re.compile(r"^(?:Reporting-MTA|Final-Recipient|Original-Recipient):", re.IGNORECASE | re.MULTILINE)
_WORDS = ("-Recipient:", "-MTA:", "-recipient:", "-mta:", "-RECIPIENT:")
_OF_A_RECIPIENT = ("final-recipient", "original-recipient", "action", "status", "diagnostic-code", "remote-mta")
_TYPE = re.compile(r"[a-zA-Z0-9-]{1,20};[ ]*")
_EMPTY = re.compile(r"\n[ \t]*\n")
_DIAGNOSTIC = 2_000  # characters of what is said of one recipient
RECIPIENTS = 1_000  # of one report: whoever meets so many can not know whether that is all


@dataclass(frozen=True, slots=True)
class Told:
    """What a report says of one recipient, in its own words; ``at`` is the last attempt (POSIX µs, 0 unknown)."""

    recipient: str = ""
    original: str = ""
    action: str = ""
    status: str = ""
    remote: str = ""
    diagnostic: str = ""
    dialect: str = ""  # the type of the diagnostic, such as smtp or x-unix
    at: int = 0
    logged: str = ""  # the id under which the reporter's log has it


@dataclass(frozen=True, slots=True)
class Report:
    """A delivery report: ``reporter`` is the host that writes it, ``queue_id`` what it calls the message."""

    reporter: str = ""
    queue_id: str = ""
    arrived: int = 0
    told: tuple[Told, ...] = ()


def report(mail: Mail) -> Report:
    """The delivery report in a mail; without recipients where there is none.

    One is also found in a part of another type: half of those who write such parts label them wrongly.
    """
    texts = [part.text for part in mail.parts if part.kind in REPORTS]
    if not texts:
        told = [part.text for part in mail.parts if any(word in part.text for word in _WORDS)]
        texts = [text[first.start() :] for text in told if (first := _FIELD.search(text))]
    found = Report()
    for text in texts[:4]:
        found = _joined(found, text)
    return found


def _joined(found: Report, text: str) -> Report:
    told = list(found.told)
    for group in _groups(text):
        if "reporting-mta" in group or "arrival-date" in group:
            found = replace(
                found,
                reporter=found.reporter or host(_untyped(group.get("reporting-mta"))),
                queue_id=found.queue_id or group.get("x-postfix-queue-id") or group.get("x-queue-id"),
                arrived=found.arrived or instant(group.get("arrival-date")),
            )
        if not any(name in group for name in _OF_A_RECIPIENT):
            continue
        if "final-recipient" in group or "original-recipient" in group or not told:
            told.append(_told(group))
        else:
            told[-1] = _completed(told[-1], _told(group))
    return replace(found, told=tuple(told[:RECIPIENTS]))


def _groups(text: str) -> Iterator[Headers]:
    """Groups of fields: by empty lines, and where a recipient begins without one."""
    for paragraph in islice(_EMPTY.split(text), 2 * RECIPIENTS):
        group = parsed(paragraph.lstrip("\n"))
        if len(group.all("final-recipient")) > 1 or len(group.all("original-recipient")) > 1:
            yield from _parted(group)
        elif len(group):
            yield group


def _parted(group: Headers) -> Iterator[Headers]:
    fields: list[tuple[str, str]] = []
    seen: set[str] = set()
    for name, value in group:
        if name in ("final-recipient", "original-recipient") and name in seen:
            yield Headers(fields)
            fields, seen = [], set()
        fields.append((name, value))
        seen.add(name)
    yield Headers(fields)


def _told(group: Headers) -> Told:
    diagnostic = group.get("diagnostic-code")[:_DIAGNOSTIC]
    dialect = diagnostic.partition(";")[0].strip().lower() if _TYPE.match(diagnostic) else ""
    return Told(
        recipient=address(_untyped(group.get("final-recipient"))) or address(_untyped(group.get("x-actual-recipient"))),
        original=address(_untyped(group.get("original-recipient"))),
        action=group.get("action").split("(")[0].split(";")[0].strip().lower(),
        status=group.get("status")[:_DIAGNOSTIC],
        remote=host(_untyped(group.get("remote-mta"))),
        diagnostic=_untyped(diagnostic) if dialect else diagnostic,
        dialect=dialect,
        at=instant(group.get("last-attempt-date")),
        logged=group.get("final-log-id"),
    )


def _completed(one: Told, more: Told) -> Told:
    """What two groups say of the same recipient; an empty line stood where none belongs."""
    return Told(*(getattr(one, name) or getattr(more, name) for name in Told.__slots__))


def _untyped(value: str) -> str:
    """A typed value such as "rfc822; someone@example.com" without its type."""
    found = _TYPE.match(value)
    return (value[found.end() :] if found else value).strip()
