"""Complaints: what a feedback report says, and of which message (RFC 5965, 6449, 6590, 6591, 9477)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import ip_address

from collectors._addresses import address
from collectors._feedback import Form, form
from collectors._instants import instant
from collectors._mail import Headers, Mail
from collectors._redacted import recipient
from monitor.model import DRESS, Clues, Kind

RECIPIENTS = 500  # of one report
_INCIDENTS = 1_000_000

# Types of RFC 5965, 6430, 6591 and of those who have their own words for them.
_KINDS = {
    **dict.fromkeys(("abuse", "spam", "junk", "complaint", "abuse-report", "unwanted"), Kind.COMPLAINT),
    **dict.fromkeys(("opt-out", "optout", "opt-out-list", "unsubscribe", "opt_out"), Kind.UNSUBSCRIBED),
    **dict.fromkeys(("not-spam", "notspam", "not_spam", "not-junk", "ham"), Kind.NOT_SPAM),
}
# Where the headers of a message that came back name who got it, the most telling first.
_GOT_BY = (
    "x-hmxmroriginalrecipient",
    "x-apparently-to",
    "x-rcpt-to",
    "x-envelope-to",
    "envelope-to",
    "delivered-to",
    "x-delivered-to",
    "x-original-to",
)
_IP = re.compile(r"(?:\bIP(?: address)?|\bfrom)[ :]{1,3}\[?([0-9a-fA-F.:]{3,45})\]?", re.IGNORECASE)
_CONNECTED = re.compile(r"\[(?:IPv6:)?([0-9a-fA-F.:]{3,45})\]|\(([0-9.]{7,15})\)|client-ip=([0-9a-fA-F.:]{3,45})")
_ID = re.compile(r"\bmessage[ -]id (?:of )?<?([^\s<>]{3,300})>?", re.IGNORECASE)
_LATER = re.compile(r" via |[;,]")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What one feedback report says. Fields are as the report has them, without angle brackets; "" where absent.

    ``type`` is in lower case. ``arrival`` is when the mailbox provider took the message (POSIX microseconds, 0
    unknown). ``original_rcpt_to`` may hold what stands in place of an address; ``recipients`` are addresses only, and
    where the report names none, the one that the message itself tells. ``reporter`` is the domain in the report's From:
    no more than a claim. ``in_person``: the recipient wrote it, by a mail program; it is no report of a provider.
    ``covered``: all that is told here stands in the letter's body; where it does not, a good signature vouches for
    nothing, since anybody may add headers to a letter.
    ``fields`` are all that the report has, of ``clues`` the recipient is the first of ``recipients``.
    """

    type: str = ""
    user_agent: str = ""
    version: str = ""
    source_ip: str = ""
    original_mail_from: str = ""
    original_rcpt_to: tuple[str, ...] = field(default=(), repr=False)
    removal_recipient: tuple[str, ...] = field(default=(), repr=False)
    arrival: int = 0
    reported_domain: tuple[str, ...] = ()
    reported_uri: tuple[str, ...] = field(default=(), repr=False)
    incidents: int = 1
    auth_failure: str = ""
    delivery_result: str = ""
    dkim_domain: str = ""
    authentication_results: tuple[str, ...] = ()
    reporter: str = ""
    in_person: bool = False
    covered: bool = True
    recipients: tuple[str, ...] = field(default=(), repr=False)
    clues: Clues = field(default_factory=Clues, repr=False)
    fields: Headers = field(default_factory=Headers, repr=False, compare=False)

    @property
    def identity(self) -> str:
        """What this report is about, the same at each telling of it, however it came: 32 hexadecimal digits.

        Nothing of the report's own headers is in it, as whoever sends a report again may change those that no
        signature covers. A message's id and recipients, redacted or not; the rest only where it has no id.
        """
        whom = sorted({one.lower() for one in self.original_rcpt_to or self.removal_recipient or self.recipients})
        clues = self.clues
        message = [clues.message_id] if clues.message_id else [clues.token, *self._traits()]
        told = "\0".join([str(kind_of(self) or self.type), *message, "", *whom])
        return blake2b(told.encode("utf-8", "replace"), digest_size=16, person=b"complaint").hexdigest()

    def _traits(self) -> tuple[str, ...]:
        clues = self.clues
        return (
            str(self.arrival),
            self.source_ip,
            self.original_mail_from,
            clues.feedback_id,
            clues.sender,
            str(clues.sent),
        )


def kind_of(complaint: Complaint) -> Kind | None:
    """What the report counts as; None for what is no word of a recipient on a message (auth-failure, fraud, virus)."""
    return _KINDS.get(complaint.type)


def complained(mail: Mail) -> Complaint | None:
    """The feedback report that a mail is, or None where it is none; never raises."""
    found = form(mail)
    return _complaint(mail, found) if found else None


def _complaint(mail: Mail, found: Form) -> Complaint:
    fields, original = found.fields, found.original or Headers()
    told, removed = _each(fields, "original-rcpt-to"), _each(fields, "removal-recipient")
    whom = _addresses(told or removed) or _addresses(_got_by(original))
    text = next((part.own for part in mail.parts if part.kind == "text/plain"), "")[:2_000]
    arrival = instant(fields.get("arrival-date") or fields.get("received-date"))
    return Complaint(
        type=fields.get("feedback-type").lower(),
        user_agent=fields.get("user-agent"),
        version=fields.get("version"),
        source_ip=fields.get("source-ip"),
        original_mail_from=_bare(fields.get("original-mail-from")),
        original_rcpt_to=told,
        removal_recipient=removed,
        arrival=arrival,
        reported_domain=_each(fields, "reported-domain"),
        reported_uri=_each(fields, "reported-uri"),
        incidents=_incidents(fields.get("incidents")),
        auth_failure=fields.get("auth-failure").lower(),
        delivery_result=fields.get("delivery-result").lower(),
        dkim_domain=fields.get("dkim-domain"),
        authentication_results=tuple(one for one in fields.all("authentication-results") if one),
        reporter=_domain(mail.headers.get("from")),
        in_person=found.in_person,
        covered=found.covered,
        recipients=whom,
        clues=_clues(mail, found, whom, text),
        fields=fields,
    )


def _clues(mail: Mail, found: Form, whom: tuple[str, ...], text: str) -> Clues:
    fields, original = found.fields, found.original or Headers()
    return Clues(
        token=original.get("x-mailvane"),
        feedback_id=original.get("feedback-id") or original.get("cfbl-feedback-id") or fields.get("cfbl-feedback-id"),
        unsubscribe=original.get("list-unsubscribe") or found.asked,
        return_path=_bare(fields.get("original-mail-from")) or _bare(original.get("return-path")),
        message_id=_message_id(fields, original, text),
        recipient=whom[0] if whom else "",
        sender=address(original.get("from")),
        ip=_sent_from(mail, fields, original, text),
        sent=instant(original.get("date")) or instant(fields.get("arrival-date") or fields.get("received-date")),
    )


def _message_id(fields: Headers, original: Headers, text: str) -> str:
    """The id of the message that came back; AOL and Zoho tell it in their prose too."""
    told = original.get("message-id") or fields.get("original-message-id") or fields.get("message-id")
    if told := told.strip(DRESS):
        return told
    return "" if original else (found[1].strip(DRESS) if (found := _ID.search(text)) else "")


def _sent_from(mail: Mail, fields: Headers, original: Headers, text: str) -> str:
    """The address that handed the message in, as well as the report lets one know."""
    told = [fields.get("source-ip").strip("[] ")]
    told += [found[1] for found in (_IP.search(mail.headers.get("subject")), _IP.search(text)) if found]
    told.append(original.get("x-originating-ip").strip("[] ") if not fields.get("source-ip") else "")
    for value in (*original.all("received-spf")[:1], *original.all("received")[:3]):
        told += [next(filter(None, found.groups())) for found in _CONNECTED.finditer(value[:1_000])]
    return next(filter(None, map(_ip, told)), "")


def _ip(text: str) -> str:
    try:
        return str(ip_address(text.rstrip(".")))
    except ValueError:
        return ""


def _got_by(original: Headers) -> Iterable[str]:
    for name in _GOT_BY:
        if value := original.get(name):
            yield _LATER.split(value, maxsplit=1)[0]
            return
    if original.get("to").count("@") == 1:
        yield original.get("to")


def _addresses(told: Iterable[str]) -> tuple[str, ...]:
    """The addresses among them, each once, in their order."""
    return tuple(dict.fromkeys(filter(None, map(recipient, told))))


def _each(fields: Headers, name: str) -> tuple[str, ...]:
    return tuple(bare for one in fields.all(name)[:RECIPIENTS] if (bare := _bare(one)))


def _bare(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if text.startswith("<") and text.endswith(">") else text


def _incidents(text: str) -> int:
    return min(max(int(text), 1), _INCIDENTS) if text.isascii() and text.isdigit() and len(text) < 12 else 1


def _domain(value: str) -> str:
    return address(value).rpartition("@")[2].lower().rstrip(".")
