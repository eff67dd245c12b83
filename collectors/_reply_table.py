"""The table of replies: literal fragments, what they mean, and how firmly (``_replies.csv`` beside this file).

A row's ``kind`` says how much its fragment is worth: ``token`` is a provider's own and decides whoever answers;
``list`` names a blocklist; ``phrase`` is words of a provider or mail server; ``coded`` ones mean this under their code
only; ``late`` and ``net`` say only that delivery was given up or never came to a reply; ``weak`` means something if
nothing better is there; ``wrapper`` is what a server puts around another one's reply.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from monitor.meaning import Fault, Identity, Meaning, Permanence, ReplyClass

VERSION = "2026.11"  # of the table: new rows, a new one
_FILE = Path(__file__).with_name("_replies.csv")
GRAM = 4  # letters by which the rows are found; the shortest fragment has them

# Mail servers, which are no provider, and filters that answer for many.
SOFTWARE = frozenset(
    ("", "postfix", "exim", "sendmail", "qmail", "courier", "spamassassin", "esp", "domino", "exchange")
)
SERVERS = SOFTWARE - {""} | frozenset(
    ("mimecast", "proofpoint", "barracuda", "cisco", "broadcom", "trendmicro", "fortinet", "sophos", "hornetsecurity")
)
# Brands whose mail another one's servers take.
SAME: Mapping[str, str] = {"o2": "wp.pl"}

# Where a provider tells senders what its refusals mean and what to do. As of 2026-11.
_REMEDIES: Mapping[str, str] = {
    "gmail": "https://support.google.com/a/answer/3726730",
    "yahoo": "https://senders.yahooinc.com/smtp-error-codes",
    "outlook": "https://sendersupport.olc.protection.outlook.com/pm/troubleshooting.aspx",
    "microsoft365": "https://learn.microsoft.com/exchange/troubleshoot/email-delivery/ndr/"
    "non-delivery-reports-in-exchange-online",
    "apple": "https://support.apple.com/en-us/102322",
    "comcast": "https://www.xfinity.com/support/articles/email-errors",
    "cox": "https://www.cox.com/residential/support/email-error-codes.html",
    "charter": "https://www.spectrumbusiness.net/support/internet/understanding-email-error-codes",
    "att": "mailto:abuse_rbl@abuse-att.net",
    "proofpoint": "https://ipcheck.proofpoint.com/",
    "mimecast": "https://community.mimecast.com/s/article/Mimecast-SMTP-Error-Codes-842605754",
    "barracuda": "https://www.barracudacentral.org/rbl/removal-request",
    "cisco": "https://talosintelligence.com/reputation_center",
    "broadcom": "https://knowledge.broadcom.com/external/article/162445",
    "trendmicro": "https://servicecentral.trendmicro.com/en-us/ers/",
    "fortinet": "https://www.fortiguard.com/faq/antispam",
    "gmx": "https://postmaster.gmx.net/en/error-messages",
    "t-online": "mailto:tosa@rx.t-online.de",
    "orange": "https://postmaster.orange.fr",
    "laposte": "https://postmaster.laposte.net/",
    "free": "https://postmaster.free.fr/",
    "libero": "https://aiuto.libero.it/articolo/mail/messaggi-di-errore-piu-frequenti-dopo-invio-email",
    "mail.ru": "https://help.mail.ru/mail-help/postmaster/",
    "yandex": "https://yandex.com/support/mail/bounces/yandex.html",
    "qq": "https://service.mail.qq.com/detail/122",
    "netease": "https://help.mail.163.com/",
    "interia": "https://pomoc.poczta.interia.pl/",
    "wp.pl": "https://pomoc.wp.pl/",
    "onet": "https://pomoc.poczta.onet.pl/",
    "seznam": "https://napoveda.seznam.cz/",
    "forpsi": "https://support.forpsi.com/kb/a3302/",
    "rackspace": "https://docs.rackspace.com/docs/common-email-bounces",
    "godaddy": "https://www.godaddy.com/help/fix-rejected-email-with-a-bounce-error-40685",
}
_HIGH = re.compile(r"[^\x00-\x7f]")
_LETTERS = str.maketrans(
    {0x142: "l", 0xF8: "o", 0x111: "d", 0xDF: "ss", 0xE6: "ae", 0x131: "i", 0x2019: "'", 0x2018: "'", 0xB4: "'"}
)


def folded(text: str) -> str:
    """Lower case, accents taken off: replies write the same words with and without them."""
    text = text.lower()
    if _HIGH.search(text) is None:
        return text
    parts = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(letter for letter in parts if not unicodedata.combining(letter)).lower().translate(_LETTERS)


@dataclass(frozen=True, slots=True)
class Row:
    """A fragment in the form of ``folded``, with what it means where it stands."""

    kind: str
    provider: str
    code: int
    dsn: str
    fragment: str
    meaning: Meaning

    def within(self, text: str) -> bool:
        """Whether the text holds it; a token not as a part of a longer word or number."""
        at = text.find(self.fragment)
        if self.kind != "token":
            return at >= 0
        while at >= 0:
            after = at + len(self.fragment)
            if not (_joined(text, at - 1, self.fragment[0]) or _joined(text, after, self.fragment[-1], digits=True)):
                return True
            at = text.find(self.fragment, at + 1)
        return False


def _joined(text: str, at: int, edge: str, *, digits: bool = False) -> bool:
    """Whether the letter at ``at`` belongs to the same word as the fragment's ``edge`` beside it."""
    if not 0 <= at < len(text) or not edge.isalnum():
        return False
    return text[at].isalnum() and (edge.isdigit() or not digits)


def rows() -> Iterator[Row]:
    """Every row of the table, in its order."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            yield _row(line)


def _row(line: Mapping[str, str]) -> Row:
    name, _, listed = line["class"].partition(":")
    fault = Fault(line["fault"])
    fragment = " ".join(folded(line["fragment"]).split())
    remedy = line["remedy"] or ("" if fault is Fault.RECIPIENT else _REMEDIES.get(line["provider"], ""))
    meaning = Meaning(
        cls=ReplyClass(name),
        permanence=Permanence(line["permanence"]),
        fault=fault,
        identity=Identity(line["identity"]),
        listed=listed,
        rule=line["fragment"] if line["kind"] == "token" else "",
        remedy=remedy,
        action=line["action"],
        provider="" if line["provider"] in SOFTWARE else line["provider"],
        decided_by=f"{line['provider']}: {fragment}" if line["provider"] else fragment,
    )
    return Row(line["kind"], line["provider"], int(line["code"] or 0), line["dsn"], fragment, meaning)


class Finder:
    """Finds the rows whose fragment a text holds, by one rare sequence of letters of each fragment."""

    def __init__(self, table: tuple[Row, ...]) -> None:
        shared: dict[str, int] = {}
        for row in table:
            for gram in _grams(row.fragment):
                shared[gram] = shared.get(gram, 0) + 1
        self._anchored: dict[str, list[Row]] = {}
        for row in table:
            rarest = min(sorted(_grams(row.fragment)), key=shared.__getitem__)
            self._anchored.setdefault(rarest, []).append(row)

    def found(self, text: str) -> list[Row]:
        """The rows that apply to ``text`` (folded), in no order."""
        near = self._anchored.keys() & _grams(text)
        return [row for gram in near for row in self._anchored[gram] if row.within(text)]


def _grams(text: str) -> set[str]:
    return {text[at : at + GRAM] for at in range(max(len(text) - GRAM + 1, 1))}
