"""What to do about a reply of a class, in a sentence; rows of the table that know better say so themselves."""

from __future__ import annotations

from collections.abc import Mapping

from monitor.meaning import Fault, Identity, Meaning, Permanence, ReplyClass

_C = ReplyClass
_ACTIONS: Mapping[ReplyClass, str] = {
    _C.INVALID_RECIPIENT: "Take the address off the list; if many fail so, look where the list is from.",
    _C.INACTIVE_MAILBOX: "Take the address off the list: nobody reads it.",
    _C.QUOTA: "Try again over some days; if the mailbox stays full, nobody reads it.",
    _C.BAD_DOMAIN: "Take the address off the list, and look for typing errors in its domain.",
    _C.DNS_FAILURE: "Try again later; if it lasts, look up the domain by hand.",
    _C.ROUTING: "Look where this mail was sent to, and whether that server is to take it.",
    _C.PROTOCOL: "Mend the message or what the sending server says; the reply names it.",
    _C.POLICY: "Ask the recipient or their administrator to let the mail in.",
    _C.AUTHENTICATION: "Mend SPF, DKIM or DMARC of the domain that the reply names.",
    _C.SPAM_CONTENT: "Look at the content and its links, and at how this list came about.",
    _C.SPAM_BLOCK: "Stop this stream, find the list that caused it, then ask to be let in again.",
    _C.REPUTATION_IP: "Send less from this IP, only to people who read it, and ask the provider to look again.",
    _C.REPUTATION_DOMAIN: "Send less under this domain, on every IP, and only to people who read it.",
    _C.LISTED: "Find the cause, then ask the list to remove the entry.",
    _C.RATE_LIMITED: "Send slower to this provider, and over fewer connections.",
    _C.GREYLISTED: "Try again after some minutes from the same IP.",
    _C.TOO_MANY_RECIPIENTS: "Put fewer recipients into a transaction.",
    _C.MESSAGE_TOO_LARGE: "Send a smaller message.",
    _C.EXPIRED: "Look at the deferrals before it: they say why it was given up.",
    _C.SENDER_INVALID: "Give the envelope a sender whose domain exists and takes mail.",
    _C.TLS: "Mend TLS between the two servers; the reply says which side fails.",
    _C.TRANSIENT: "Try again later.",
    _C.HELD: "Nothing: a pause of ours keeps this mail in its queue.",
    _C.OTHER: "Read the reply: nothing of it is known.",
}
_BY_FAULT: Mapping[tuple[ReplyClass, Fault], str] = {
    (_C.POLICY, Fault.INFRASTRUCTURE): "Mend the sending server: its reverse DNS, its name or its login.",
    (_C.POLICY, Fault.CONTENT): "Look at what the message holds that the recipient's policy forbids.",
    (_C.POLICY, Fault.REPUTATION): "Ask the provider's postmaster what is held against the IP.",
    (_C.RATE_LIMITED, Fault.RECIPIENT): "Try this recipient again later; the rate to others may stay.",
    (_C.RATE_LIMITED, Fault.INFRASTRUCTURE): "Open fewer connections, or raise the limit that the reply names.",
    (_C.ROUTING, Fault.RECIPIENT): "The recipient's servers pass it around: tell their administrator.",
    (
        _C.REPUTATION_IP,
        Fault.INFRASTRUCTURE,
    ): "Send over an IP that is meant for mail, or have this one's standing mended.",
    (_C.REPUTATION_DOMAIN, Fault.INFRASTRUCTURE): "Find what sent spam from this account, then ask for its release.",
    (_C.LISTED, Fault.CONTENT): "Take the listed link out of the message.",
    (
        _C.LISTED,
        Fault.INFRASTRUCTURE,
    ): "Look for an infected machine or an open port behind the IP, then ask for removal.",
    (_C.OTHER, Fault.RECIPIENT): "Read the reply that it quotes.",
    (_C.OTHER, Fault.INFRASTRUCTURE): "Look at the server that reports: it failed by itself.",
    (_C.SENDER_INVALID, Fault.INFRASTRUCTURE): "Send from an address that this account may use.",
    (_C.TLS, Fault.PROVIDER): "Wait: the certificate or policy of the receiving side is broken.",
    (_C.DNS_FAILURE, Fault.AUTHENTICATION): "See that the domain's name servers answer for SPF, DKIM and DMARC.",
    (_C.SPAM_BLOCK, Fault.RECIPIENT): "The recipient's own filter refused it: write to those who read it only.",
}


def action_of(meaning: Meaning) -> str:
    """What to do about it."""
    if meaning.cls is _C.QUOTA and meaning.permanence is Permanence.HARD:
        return "Take the address off the list: full, and nobody empties it."
    if meaning.cls is _C.RATE_LIMITED and meaning.identity is Identity.URL:
        return "Look at the domain that the links lead to."
    return meaning.action or _BY_FAULT.get((meaning.cls, meaning.fault)) or _ACTIONS[meaning.cls]
