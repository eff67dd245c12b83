"""What a reply, bounce or complaint means: the few words in which every source tells it.

Names of classes are on disk and in the API: add, never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ReplyClass(StrEnum):
    """Why mail was refused, deferred or given up."""

    INVALID_RECIPIENT = "invalid_recipient"
    INACTIVE_MAILBOX = "inactive_mailbox"
    QUOTA = "quota"
    BAD_DOMAIN = "bad_domain"
    DNS_FAILURE = "dns_failure"
    ROUTING = "routing"
    PROTOCOL = "protocol"
    POLICY = "policy"
    AUTHENTICATION = "authentication"
    SPAM_CONTENT = "spam_content"
    SPAM_BLOCK = "spam_block"
    REPUTATION_IP = "reputation_ip"
    REPUTATION_DOMAIN = "reputation_domain"
    LISTED = "listed"
    RATE_LIMITED = "rate_limited"
    GREYLISTED = "greylisted"
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    MESSAGE_TOO_LARGE = "message_too_large"
    EXPIRED = "expired"
    SENDER_INVALID = "sender_invalid"
    TLS = "tls"
    TRANSIENT = "transient"
    HELD = "held"  # our own pause: neither a deferral nor evidence
    OTHER = "other"


class Permanence(StrEnum):
    """``hard``: this message is lost. It says nothing of the address: see ``SUPPRESSING``."""

    HARD = "hard"
    SOFT = "soft"


class Fault(StrEnum):
    """Who can mend it."""

    RECIPIENT = "recipient"
    REPUTATION = "reputation"
    INFRASTRUCTURE = "infrastructure"
    CONTENT = "content"
    PROVIDER = "provider"
    AUTHENTICATION = "authentication"
    NONE = "none"  # held by ourselves


class Identity(StrEnum):
    """What the reply holds against us; its scope of action."""

    NONE = "none"
    IP = "ip"
    NETBLOCK = "netblock"
    DKIM_DOMAIN = "dkim_domain"
    SPF_DOMAIN = "spf_domain"
    URL = "url"


# The only classes that say that an address is no good, where they are hard too.
SUPPRESSING = frozenset({ReplyClass.INVALID_RECIPIENT, ReplyClass.INACTIVE_MAILBOX, ReplyClass.BAD_DOMAIN})

# Behind the name of such a class where the reply does not say it for good.
DOUBTFUL = ":doubtful"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reply means. ``listed`` names the blocklist of class ``listed``, "unnamed" where it does not say.

    ``rule`` is the provider's own token or rule that it cites, ``remedy`` the page where one is told what to do, and
    ``decided_by`` what of the reply decided: a pattern of the table, its enhanced code, its code, or nothing.
    """

    cls: ReplyClass = ReplyClass.OTHER
    permanence: Permanence = Permanence.HARD
    fault: Fault = Fault.PROVIDER
    identity: Identity = Identity.NONE
    listed: str = ""
    rule: str = ""
    remedy: str = ""
    action: str = ""
    provider: str = ""
    decided_by: str = ""

    @property
    def name(self) -> str:
        """The class with the list that it names, such as quota or listed:spamhaus_xbl."""
        return f"{self.cls}:{self.listed}" if self.listed else str(self.cls)

    @property
    def stored(self) -> str:
        """The same as it stands in the facts: invalid_recipient:doubtful where it is not said for good."""
        return f"{self.name}{DOUBTFUL}" if self.cls in SUPPRESSING and not self.suppresses else self.name

    @property
    def suppresses(self) -> bool:
        """Whether the address is no good, by this word alone."""
        return self.cls in SUPPRESSING and self.permanence is Permanence.HARD
