"""Bounces: which recipients a mail reports as failed, and why, by report for programs or by prose for people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from collectors._addresses import address
from collectors._automatic import Automatic, automatic
from collectors._dsn import Report, Told, report
from collectors._instants import instant
from collectors._mail import Headers, Mail, read
from collectors._phrases import ANSWER, BOUNCED_SUBJECT, DAEMON, END, FAILED, MACHINE, REFUSED, SUBJECT
from collectors._prose import Said, prose, said
from collectors._refusal import Failure, Source, codes, failure
from collectors._returned import clues

__all__ = ("Failure", "bounced", "clues", "outcomes")

_SUCCEEDED = frozenset(("delivered", "relayed", "expanded", "deliverable", "transferred"))
_TO = re.compile(r"^[ \t>]{0,9}To:([^\n]{3,300})$", re.IGNORECASE | re.MULTILINE)


def bounced(mail: Mail) -> tuple[Failure, ...]:
    """Every recipient that failed for good or was given up; empty for what is no bounce, a notice of a delay too."""
    return tuple(one for one in outcomes(mail) if one.action == "failed")


def outcomes(mail: Mail) -> tuple[Failure, ...]:
    """The same with those whose mail still waits, as ``delayed`` and of kind ``deferred``; what arrived is left out."""
    found = report(mail)
    if mail.report == "feedback-report" or (found.told and all(one.action in _SUCCEEDED for one in found.told)):
        return ()
    if any(one.recipient or one.original for one in found.told) and mail.report != "disposition-notification":
        return tuple(_of_report(mail, found))
    text = prose(mail)
    action = _action(mail, found, text)
    if not action:
        return _wrapped(mail)
    return tuple(_of_prose(mail, found, text, action)) or _wrapped(mail) or _of_the_only(mail, found, text, action)


def _of_report(mail: Mail, found: Report) -> Iterator[Failure]:
    names = list(map(_whom, found.told))

    @cache
    def told() -> dict[str, Said]:
        return {one.recipient.lower(): one for one in said(prose(mail), filter(None, names))}

    # Its notice tells the stage, of which report it is not known where there are several.
    stage = next((part.text[:8_000] for part in mail.parts if part.kind == "text/plain"), "") if len(names) == 1 else ""
    source = _source(mail, stage)
    for name, one in zip(names, found.told, strict=True):
        if name and one.action not in _SUCCEEDED:
            action = "delayed" if one.action == "delayed" else "failed"
            yield failure(name, action, one, lambda name=name: told().get(name.lower()), source)  # type: ignore[misc]


def _source(mail: Mail, stage: str = "") -> Source:
    writer = address(mail.headers.get("from")).rpartition("@")[2].lower()
    return Source(instant(mail.headers.get("date")), writer, stage)


def _whom(one: Told) -> str:
    """The recipient, by the name of the world outside where the report has that of a host within."""
    local, _, domain = one.recipient.rpartition("@")
    inside = "." not in domain and one.original.lower().startswith(f"{local.lower()}@")
    return one.original if inside or not one.recipient else one.recipient


def _of_prose(mail: Mail, found: Report, text: str, action: str) -> Iterator[Failure]:
    header = [one for value in mail.headers.all("x-failed-recipients") for one in map(address, value.split(",")) if one]
    reported = found.told[0] if found.told else Told()
    source = _source(mail)
    for each in said(text, header, source.domain):
        yield failure(each.recipient, action, reported, lambda one=each: one, source)  # type: ignore[misc]


def _of_the_only(mail: Mail, found: Report, text: str, action: str) -> tuple[Failure, ...]:
    """Of the one recipient of the message that came back, if it had one."""
    original = mail.original or Headers()
    to = original.get("x-original-to") or original.get("delivered-to") or original.get("to")
    if not to:
        to = next((told[1] for part in mail.parts if (told := _TO.search(part.text))), "")
    one = address(to) if to.count("@") == 1 else ""
    reported = found.told[0] if found.told else Told()
    return (failure(one, action, reported, lambda: Said(one, text[:1_500]), _source(mail)),) if one else ()


def _wrapped(mail: Mail) -> tuple[Failure, ...]:
    """What a bounce tells that a filter on its way has put into a mail of its own."""
    inner = mail.original or Headers()
    if not inner.get("content-type").lower().startswith("multipart/report") or not _by_machine(mail):
        return ()
    within = read(mail.returned)
    return outcomes(within) if within.report == "delivery-status" else ()


def _action(mail: Mail, found: Report, text: str) -> str:
    """failed, delayed, or nothing, of a mail that no list of recipients makes a report."""
    kind = automatic(mail, text)
    if kind is Automatic.DELAY:
        return "delayed" if _by_machine(mail) else ""
    if kind is not Automatic.NO:
        return ""
    if mail.report == "delivery-status" or found.reporter or "x-failed-recipients" in mail.headers:
        return "failed"
    told = FAILED.among(f"{mail.headers.get('subject')}\n{text}".lower()) or REFUSED.search(text)
    return "failed" if told and (_by_daemon(mail) or _by_look(mail, text)) else ""


def _by_machine(mail: Mail) -> bool:
    return _by_daemon(mail) or _called(mail)


def _by_daemon(mail: Mail) -> bool:
    """Whether a mail system wrote it, by its name, or by the empty sender that only reports have (RFC 5321)."""
    headers = mail.headers
    daemon = "from" in headers and DAEMON.search(headers.get("from")) is not None
    return daemon or headers.get("return-path").strip() == "<>"


def _called(mail: Mail) -> bool:
    headers = mail.headers
    subject = headers.get("subject")
    told = SUBJECT.search(subject) is not None and ANSWER.match(subject) is None
    return told or MACHINE.search(headers.get("from")) is not None


def _by_look(mail: Mail, text: str) -> bool:
    """Whether it looks like a bounce though its writer may be anybody: parcels "could not be delivered" as well."""
    told = mail.original is not None or codes(text) != (0, "") or BOUNCED_SUBJECT.match(mail.headers.get("subject"))
    return _called(mail) and (bool(told) or any(END.search(part.own) for part in mail.parts))
