"""What a code says where no words do: enhanced codes (RFC 3463, 5248 and IANA's list of them), then three digits.

Codes are worth less than words: see docs/replies.md for those that lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from monitor.meaning import Fault, Meaning, Permanence, ReplyClass

C: Final = ReplyClass
# Classes that wait out: the message may still be lost, and the cause passes by itself.
PASSING = frozenset((C.QUOTA, C.RATE_LIMITED, C.GREYLISTED, C.TRANSIENT, C.TOO_MANY_RECIPIENTS, C.DNS_FAILURE, C.HELD))
_FAULTS: Mapping[ReplyClass, Fault] = {
    C.INVALID_RECIPIENT: Fault.RECIPIENT,
    C.INACTIVE_MAILBOX: Fault.RECIPIENT,
    C.QUOTA: Fault.RECIPIENT,
    C.BAD_DOMAIN: Fault.RECIPIENT,
    C.DNS_FAILURE: Fault.RECIPIENT,
    C.ROUTING: Fault.INFRASTRUCTURE,
    C.PROTOCOL: Fault.INFRASTRUCTURE,
    C.POLICY: Fault.RECIPIENT,
    C.AUTHENTICATION: Fault.AUTHENTICATION,
    C.SPAM_CONTENT: Fault.CONTENT,
    C.SPAM_BLOCK: Fault.REPUTATION,
    C.REPUTATION_IP: Fault.REPUTATION,
    C.REPUTATION_DOMAIN: Fault.REPUTATION,
    C.LISTED: Fault.REPUTATION,
    C.RATE_LIMITED: Fault.REPUTATION,
    C.GREYLISTED: Fault.PROVIDER,
    C.TOO_MANY_RECIPIENTS: Fault.INFRASTRUCTURE,
    C.MESSAGE_TOO_LARGE: Fault.CONTENT,
    C.EXPIRED: Fault.PROVIDER,
    C.SENDER_INVALID: Fault.AUTHENTICATION,
    C.TLS: Fault.INFRASTRUCTURE,
    C.TRANSIENT: Fault.PROVIDER,
    C.HELD: Fault.NONE,
    C.OTHER: Fault.PROVIDER,
}
# Subject and detail of an enhanced code; where the detail is not there, the subject's own line.
_ENHANCED: Mapping[str, ReplyClass] = {
    "1": C.INVALID_RECIPIENT,
    "1.1": C.INVALID_RECIPIENT,
    "1.2": C.BAD_DOMAIN,
    "1.3": C.INVALID_RECIPIENT,
    "1.4": C.INVALID_RECIPIENT,
    "1.6": C.INVALID_RECIPIENT,
    "1.7": C.SENDER_INVALID,
    "1.8": C.SENDER_INVALID,
    "1.9": C.OTHER,
    "1.10": C.BAD_DOMAIN,
    "1.350": C.OTHER,
    "2": C.OTHER,
    "2.1": C.INACTIVE_MAILBOX,
    "2.2": C.QUOTA,
    "2.3": C.MESSAGE_TOO_LARGE,
    "2.4": C.OTHER,
    "3": C.TRANSIENT,
    "3.1": C.TRANSIENT,
    "3.2": C.TRANSIENT,
    "3.3": C.PROTOCOL,
    "3.4": C.MESSAGE_TOO_LARGE,
    "3.5": C.TRANSIENT,
    "3.6": C.TRANSIENT,
    "4": C.TRANSIENT,
    "4.1": C.TRANSIENT,
    "4.2": C.TRANSIENT,
    "4.3": C.DNS_FAILURE,
    "4.4": C.BAD_DOMAIN,
    "4.5": C.TRANSIENT,
    "4.6": C.ROUTING,
    "4.7": C.EXPIRED,
    "5": C.PROTOCOL,
    "5.3": C.TOO_MANY_RECIPIENTS,
    "6": C.PROTOCOL,
    "7": C.POLICY,
    "7.4": C.PROTOCOL,
    "7.5": C.PROTOCOL,
    "7.8": C.OTHER,
    "7.9": C.OTHER,
    "7.10": C.TLS,
    "7.11": C.TLS,
    "7.13": C.INACTIVE_MAILBOX,
    "7.16": C.RATE_LIMITED,
    "7.17": C.INVALID_RECIPIENT,
    "7.18": C.INVALID_RECIPIENT,
    "7.20": C.AUTHENTICATION,
    "7.21": C.AUTHENTICATION,
    "7.22": C.AUTHENTICATION,
    "7.23": C.AUTHENTICATION,
    "7.24": C.AUTHENTICATION,
    "7.26": C.AUTHENTICATION,
    "7.27": C.SENDER_INVALID,
    "7.28": C.RATE_LIMITED,
    "7.29": C.AUTHENTICATION,
    "7.30": C.TLS,
}
# Codes of one provider beside the registry's: Google's page of 2026-02-12, Microsoft's lists of NDRs.
_OWN: Mapping[str, Mapping[str, ReplyClass]] = {
    "gmail": {
        "4.5": C.TRANSIENT,
        "7.27": C.AUTHENTICATION,
        "7.29": C.TLS,
        "7.30": C.AUTHENTICATION,
        "7.31": C.AUTHENTICATION,
        "7.32": C.AUTHENTICATION,
        "7.40": C.AUTHENTICATION,
    },
    "microsoft365": {
        "4.1": C.INVALID_RECIPIENT,
        "7.515": C.AUTHENTICATION,
        "7.509": C.AUTHENTICATION,
        "7.606": C.REPUTATION_IP,
        "7.511": C.REPUTATION_IP,
    },
}
_OWN = {**_OWN, "outlook": _OWN["microsoft365"]}
_BARE: Mapping[int, ReplyClass] = {
    251: C.OTHER,
    421: C.TRANSIENT,
    422: C.QUOTA,
    432: C.TRANSIENT,
    450: C.TRANSIENT,
    451: C.TRANSIENT,
    452: C.TRANSIENT,
    454: C.TRANSIENT,
    500: C.PROTOCOL,
    501: C.PROTOCOL,
    502: C.PROTOCOL,
    503: C.PROTOCOL,
    504: C.PROTOCOL,
    523: C.MESSAGE_TOO_LARGE,
    525: C.INACTIVE_MAILBOX,
    530: C.POLICY,
    534: C.OTHER,
    535: C.OTHER,
    538: C.TLS,
    541: C.SPAM_CONTENT,
    550: C.OTHER,
    552: C.QUOTA,
    554: C.OTHER,
    555: C.PROTOCOL,
    556: C.BAD_DOMAIN,
    571: C.POLICY,
}


_ADDRESS = frozenset((550, 551, 553))


def fault_of(cls: ReplyClass) -> Fault:
    """Who can mend it, as a rule."""
    return _FAULTS[cls]


def by_enhanced(dsn: str, provider: str, phase: str) -> Meaning | None:
    """What an enhanced code such as 5.1.1 means; None for one that says nothing, such as 5.0.0."""
    kind, _, rest = dsn.partition(".")
    subject = rest.partition(".")[0]
    known = _OWN.get(provider, {}).get(rest) or _ENHANCED.get(rest)
    if known is None and rest.endswith(".0"):
        known = _ENHANCED.get(subject) if subject in {"1", "2", "3", "4", "5", "6", "7"} else None
        if subject == "1" and phase == "mail":
            known = C.SENDER_INVALID
    elif known is None:
        known = _ENHANCED.get(subject)
    if known is None or known is C.OTHER or kind not in {"4", "5"}:
        return None
    return plain(known, soft=kind == "4", decided_by=dsn)


def by_code(code: int, phase: str, *, alone: bool) -> Meaning:
    """What three digits mean; ``other`` where they say only that it failed.

    ``alone``: no words came with them. Only then does 550 after RCPT say that there is no such mailbox: with words that
    nobody knows it may mean anything, and would take a good address off every list.
    """
    cls = _BARE.get(code) or (C.TRANSIENT if 400 <= code < 500 else C.OTHER)
    if code in _ADDRESS and phase == "mail":
        cls = C.SENDER_INVALID
    elif code in _ADDRESS and phase == "rcpt" and alone:
        cls = C.INVALID_RECIPIENT
    decided = str(code) if code else ""
    return plain(cls, soft=200 <= code < 500, decided_by=decided)


def plain(cls: ReplyClass, *, soft: bool, decided_by: str) -> Meaning:
    """The meaning of a class of which nothing else is known."""
    permanence = Permanence.SOFT if soft or cls in PASSING else Permanence.HARD
    return Meaning(cls=cls, permanence=permanence, fault=fault_of(cls), decided_by=decided_by)
