"""XARF: reports in JSON (versions 3 and 4) and in lines (X-ARF 0.1, 0.2), of mail and of all else in networks."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from collectors._mail import Headers, Mail, Part, parsed

_TYPE = re.compile(r"^Report-Type[ \t]*:", re.IGNORECASE | re.MULTILINE)
_BLANK = re.compile(r"\n[ \t]{1,200}(?=\n)")
_Found = tuple[list[tuple[str, str]], str]


def xarf(mail: Mail) -> tuple[Headers, Headers | None] | None:
    """A report as the fields of RFC 5965, and the headers of the message that it is about; None where it is none.

    Spam is abuse; what is told of anything else keeps its type.
    """
    for part in mail.parts:
        found = None
        if part.kind.endswith("json") or part.title.lower().endswith(".json"):
            found = _json(part)
        elif ("x-arf" in mail.headers or "x-xarf" in mail.headers) and _TYPE.search(part.own[:4_000]):
            found = _lines(part.own)
        if found:
            fields, payload = found
            return (Headers([*fields, ("User-Agent", "XARF")]), mail.original or (parsed(payload) if payload else None))
    return None


def _json(part: Part) -> _Found | None:
    try:
        told = json.loads(part.text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    report = told.get("Report")
    if isinstance(report, dict):
        return _version3(report)
    return _version4(told) if "xarf_version" in told else None


def _version3(report: Mapping[str, Any]) -> _Found:
    fields = [
        ("Feedback-Type", _type(_text(report, "ReportType"))),
        ("Source-IP", _text(report, "SourceIp")),
        ("Arrival-Date", _text(report, "Date")),
        ("Original-Mail-From", _text(report, "SmtpMailFromAddress")),
        ("Original-Rcpt-To", _text(report, "SmtpRcptToAddress")),
        ("Original-Message-ID", _text(report, "SmtpMessageId")),
    ]
    return _filled(fields), _sample(report.get("Samples"), "Payload", "ContentType")


def _version4(told: Mapping[str, Any]) -> _Found:
    fields = [
        ("Feedback-Type", _type(_text(told, "type"))),
        ("Source-IP", _text(told, "source_identifier")),
        ("Arrival-Date", _text(told, "timestamp")),
        ("Original-Mail-From", _text(told, "smtp_from")),
        ("Original-Rcpt-To", _text(told, "smtp_to")),
        ("Original-Message-ID", _text(told, "message_id")),
    ]
    return _filled(fields), _sample(told.get("evidence"), "payload", "content_type")


def _lines(text: str) -> _Found:
    lines = parsed(_BLANK.sub("", text).lstrip("-\n "))
    fields = [
        ("Feedback-Type", _type(lines.get("report-type"))),
        (
            "Source-IP",
            lines.get("source") if lines.get("source-type").lower() in ("ip-address", "ipv4", "ipv6") else "",
        ),
        ("Arrival-Date", lines.get("date")),
    ]
    return _filled(fields), ""


def _type(told: str) -> str:
    return "abuse" if told.lower() == "spam" else told.lower()


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    return " ".join(value[:1_000].split()) if isinstance(value, str) else ""


def _filled(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in fields if value]


def _sample(samples: object, name: str, kind: str) -> str:
    """The first message among the samples of a report, in plain or in base64."""
    for one in samples[:10] if isinstance(samples, list) else ():
        if not isinstance(one, dict) or not str(one.get(kind, "")).lower().startswith(("message/", "text/rfc822")):
            continue
        payload = one.get(name)
        if not isinstance(payload, str):
            continue
        payload = payload[:262_144]
        if ":" in payload[:200]:
            return payload.replace("\r\n", "\n")
        try:
            return binascii.a2b_base64(payload).decode("utf-8", "replace").replace("\r\n", "\n")
        except ValueError:
            continue
    return ""
