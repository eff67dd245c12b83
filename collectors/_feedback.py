"""The forms in which complaints come: ARF with all of its parts or not, JMRP, XARF, and mails that ask to stop."""

from __future__ import annotations

import re
from dataclasses import dataclass

from collectors._addresses import address
from collectors._mail import Headers, Mail, parsed
from collectors._xarf import xarf

_TYPE = re.compile(r"^Feedback-Type[ \t]*:", re.IGNORECASE | re.MULTILINE)
_BLANK = re.compile(r"\n[ \t]{1,200}(?=\n)")
# How a report begins for people. Its words stand where the part for programs is missing.
_PROSE = re.compile(
    r"\bthis is an? [^\n]{0,60}?\b(abuse|opt-out|unsubscribe|fraud|virus|not-spam|auth(?:entication)?-failure)"
    r" report\b",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"complaint about message from\b", re.IGNORECASE)  # JMRP, and Amazon's after it
_APPLE = re.compile(r"\A\s{0,50}(?:Apple|iOS) Mail sent this (?:e-?mail|message) to unsubscribe\b", re.IGNORECASE)
_ASKED = re.compile(r"\s{0,9}unsubscribe\s{0,9}", re.IGNORECASE)
_HOTMAIL = "x-hmxmroriginalrecipient"


@dataclass(frozen=True, slots=True)
class Form:
    """A complaint put as the fields of RFC 5965, and the headers of the message that it is about.

    ``asked`` is the address that the recipient wrote to, as a List-Unsubscribe has it, where a report is none but a
    recipient's own mail (``in_person``). ``covered``: all of it stands in the body, which a signature covers wholly.
    """

    fields: Headers
    original: Headers | None = None
    asked: str = ""
    in_person: bool = False
    covered: bool = True


def form(mail: Mail) -> Form | None:
    """The mail as a complaint, None where it is none."""
    if found := _arf(mail):
        return found
    if mail.report not in ("", "feedback-report"):
        return None
    for read in (_jmrp, _xarf, _prose, _asked):
        if found := read(mail):
            return found
    return None


def _arf(mail: Mail) -> Form | None:
    """A part for programs, whatever the type that it bears (RFC 5965)."""
    parts = [part for part in mail.parts if part.kind == "message/feedback-report"]
    if not parts:
        if mail.report != "feedback-report" and mail.kind != "multipart/mixed":
            return None
        parts = [part for part in mail.parts if _TYPE.search(part.own[:2_000])]
    if not parts:
        return None
    fields = _fields(parts[0].own)
    if "feedback-type" not in fields:
        # Validity's loops add Abuse-Type: complaint; others leave the type to their prose.
        said = "abuse" if fields.get("abuse-type").lower() == "complaint" else _said(mail)
        fields = Headers([*fields, ("Feedback-Type", said)]) if said else fields
    return Form(fields, mail.original)


def _fields(text: str) -> Headers:
    """The fields of a report; lines that hold blanks alone end nothing."""
    text = _BLANK.sub("", text[:65_536]).lstrip("\n")
    first = parsed(text)
    if "feedback-type" in first or not (found := _TYPE.search(text)):
        return first
    return Headers([*first, *parsed(text[found.start() :])])


def _jmrp(mail: Mail) -> Form | None:
    """Microsoft's loop: the message and nothing else, attached, or sent on as it was with a field above."""
    original, covered = mail.original, True
    if original is None and _HOTMAIL in mail.headers:
        covered = False
        fields = list(mail.headers)
        original = Headers(fields[[name for name, _ in fields].index(_HOTMAIL) :])
    if original is None:
        return None
    if _HOTMAIL not in original and not _ABOUT.match(mail.headers.get("subject").strip()):
        return None
    return Form(Headers([("Feedback-Type", "abuse")]), original, covered=covered)


def _prose(mail: Mail) -> Form | None:
    """A report for people alone, with the message that it is about."""
    said = _said(mail)
    if not said or (mail.original is None and mail.report != "feedback-report"):
        return None
    return Form(Headers([("Feedback-Type", said)]), mail.original)


def _said(mail: Mail) -> str:
    """The type that a report's prose begins with, "" where it does not."""
    for part in mail.parts[:3]:
        if part.kind == "text/plain" and (found := _PROSE.search(part.own[:1_000])):
            said = found[1].lower()
            return "auth-failure" if said.startswith("auth") else said
    return ""


def _asked(mail: Mail) -> Form | None:
    """The mail that a mail program sends to a List-Unsubscribe address (RFC 2369), so by the recipient's own hand."""
    headers = mail.headers
    text = next((part.text for part in mail.parts if part.kind == "text/plain"), "")
    apple = headers.get("x-apple-unsubscribe").lower() == "true" or bool(_APPLE.match(text[:300]))
    plain = bool(_ASKED.fullmatch(headers.get("subject"))) and mail.original is None and "in-reply-to" not in headers
    if not apple and not plain:
        return None
    if headers.get("auto-submitted").lower().startswith("auto-replied"):
        return None
    whom, to = address(headers.get("from")), address(headers.get("to"))
    if not whom:
        return None
    told = [("Feedback-Type", "opt-out"), ("Original-Rcpt-To", whom), ("User-Agent", "Apple Mail" if apple else "")]
    return Form(Headers(told), None, f"<mailto:{to}>" if to else "", in_person=True, covered=False)


def _xarf(mail: Mail) -> Form | None:
    found = xarf(mail)
    return Form(*found) if found else None
