"""Who may report complaints: the feedback loops that are known, and what an operator writes of others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Domains that hold nothing but a feedback loop, or addresses where anybody else has a mailbox beside it; where each was
# seen is in docs/feedback-loops.md.
REPORTERS = (
    "arf.mail.yahoo.com",
    "staff@hotmail.com",
    "staff@hotmail.com signed by outlook.com",
    "senderscore.net",
    "app.returnpath.net",
    "fbl.cox.net signed by senderscore.net",
    "fbl.fastmail.com",
    "fbl.fastmail.com signed by senderscore.net",
    "fbl.hostedemail.com",
    "fbl.hostedemail.com signed by senderscore.net",
    "fbl.apps.rackspace.com signed by senderscore.net",
    "feedback.apps.rackspace.com signed by senderscore.net",
    "feedback.postmaster.rr.com signed by senderscore.net",
    "fbl.synacor.com",
    "fbl.synacor.com signed by senderscore.net",
    "fbl.usa.net",
    "fbl.usa.net signed by senderscore.net",
    "feedback.bluetie.com signed by senderscore.net",
    "feedback.terra.com signed by senderscore.net",
    "fbl.italiaonline.net",
    "fbl.italiaonline.net signed by senderscore.net",
    "fbl.zoho.com",
    "signal-spam.fr",
    "email-abuse.amazonses.com",
)
# Microsoft's consumer mail leaves To out of what it signs (read off h= of its mail; no page of it says so).
WITHOUT_TO = frozenset(("hotmail.com", "outlook.com"))

# Where anybody may have a mailbox, and so send whatever bears a good signature of that domain.
_ANYBODYS = frozenset((
    "gmail.com", "googlemail.com", "yahoo.com", "aol.com", "hotmail.com", "outlook.com", "live.com", "msn.com",
    "icloud.com", "me.com", "gmx.de", "gmx.net", "web.de", "t-online.de", "orange.fr", "free.fr", "laposte.net",
    "libero.it", "seznam.cz", "mail.ru", "yandex.ru", "qq.com", "163.com", "126.com", "wp.pl", "o2.pl", "onet.pl",
    "interia.pl", "comcast.net", "cox.net", "fastmail.com", "zoho.com",
))  # fmt: skip
_NAME = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.){1,10}[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ENTRY = re.compile(rf"(?:([^\s@<>\",;:()\\]{{1,64}})@)?({_NAME})(?: signed by ({_NAME}))?")


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who is believed: From of ``domain`` or below it, or the one mailbox ``local`` of it, when ``signer`` signs.

    ``signer`` "" is the same domain, below it too; another one is that domain and those below it.
    """

    domain: str
    local: str = ""
    signer: str = ""

    def sends(self, local: str, domain: str) -> bool:
        """Whether a From of this local part and domain is this reporter's."""
        if self.local:
            return domain == self.domain and local.lower() == self.local
        return within(domain, self.domain)

    def signs(self, by: str, sender: str) -> bool:
        """Whether a signature of domain ``by`` vouches for a From of domain ``sender``."""
        if self.signer:
            return within(by, self.signer)
        return within(by, self.domain) and (within(by, sender) or within(sender, by))


def reporters(entries: Sequence[str]) -> tuple[Reporter, ...]:
    """The entries "domain", "address" or either "signed by domain", read.

    Raises:
        ValueError: one is none of these.
    """
    return tuple(_reporter(" ".join(entry.split()).lower()) for entry in entries)


def checked(entries: Sequence[str]) -> Sequence[str]:
    """The same entries, as an operator may write them.

    Raises:
        ValueError: one is no reporter, or a domain at which anybody may have a mailbox, and so send what is signed.
    """
    for one in reporters(entries):
        if not one.local and one.domain in _ANYBODYS:
            raise ValueError(
                f"anybody may have a mailbox at {one.domain}: write the address from which its reports come"
            )
    return entries


def _reporter(entry: str) -> Reporter:
    found = _ENTRY.fullmatch(entry)
    if found is None or len(entry) > 600:
        raise ValueError(
            f'{entry[:80]!r} is no reporter: write its domain, its address, or either "signed by" another domain'
        )
    local, domain, signer = found.groups()
    return Reporter(domain, local or "", "" if signer == domain else signer or "")


def within(name: str, domain: str) -> bool:
    """Whether a name is a domain or lies below it."""
    return name == domain or name.endswith("." + domain)
