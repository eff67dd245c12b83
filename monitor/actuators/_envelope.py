"""What an envelope tells of a message, by each of the ways on which Postfix asks: labels, and which it could tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from monitor.actuators._fleet import Fleet
from monitor.model import OWNED, Scope
from monitor.naming import PARTS, Labels, Names, domain_of, merged

REMEMBERED = 4096  # senders: each is asked about a few times within a moment, and then hardly ever again
LONGEST = 512  # characters: no address is longer (RFC 5321 section 4.5.3.1), and patterns are tried on nothing longer


@dataclass(frozen=True, slots=True)
class Told:
    """A message's labels as far as one way tells them; ``knows`` are those that it could tell of any message."""

    scope: Scope
    knows: frozenset[str]


class Envelope:
    """Labels out of sender, SASL user and recipient.

    ``policy``, ``senders`` and ``recipients`` are the labels that each way can tell. The policy service sees the whole
    envelope. A map sees one address, in lower case; so of the defaults it may use those alone that no pattern could
    contradict, and it must take for unknown what only the other address or the user tells.
    """

    def __init__(
        self,
        sender: re.Pattern[str] | None,
        user: re.Pattern[str] | None,
        defaults: Mapping[str, str],
        providers: Mapping[str, str],
        fleet: Fleet,
        learnt: Callable[[str], str],
    ) -> None:
        by_sender, by_user = {"domain", *_groups(sender)}, set(_groups(user))
        constant = {label: value for label, value in defaults.items() if label not in by_sender | by_user}
        # Where the sender tells none of these, the whole message may still have one.
        self._unsure = by_user | (defaults.keys() - constant.keys())
        self._bare = Labels(sender, user, remembered=REMEMBERED)
        self._filled = Labels(defaults=defaults, remembered=REMEMBERED)
        self._constant = Labels(defaults=constant, remembered=REMEMBERED)
        self._fleet, self._providers, self._learnt = fleet, providers, learnt
        ip = {"ip"} if fleet.told else set()
        self.policy = _owned({"provider", *by_sender, *by_user, *defaults, *ip})
        self.senders = _owned({*by_sender, *constant, *ip})
        self.recipients = _owned({"provider", *constant, *({"ip"} if fleet.single else ())})
        self._no_recipient = self.policy - {"provider"}

    def message(self, sender: str, user: str, recipient: str) -> Told:
        """What all of the envelope tells. An empty sender is that of bounces: defaults say nothing of those."""
        sender = sender if len(sender) <= LONGEST else ""
        names = self._bare.of_sender[sender]
        if user and len(user) <= LONGEST:
            names = merged(self._bare.of_user(user), names)
        names = (self._filled if sender else self._bare).whole[names]
        scope = _scope(names, self._fleet.ip_of(self.home(sender)), self.provider(recipient))
        return Told(scope, self.policy if recipient else self._no_recipient)

    def sender(self, address: str) -> Told:
        """What the senders' map is told by an envelope sender."""
        return self._by(address, "", self.senders)

    def queued(self, sender: str, recipient: str) -> Told:
        """What a message in the queue tells: its envelope, but no longer its user."""
        return self._by(sender, self.provider(recipient), self.senders | {"provider"})

    def _by(self, sender: str, provider: str, knows: frozenset[str]) -> Told:
        names = self._constant.whole[self._bare.of_sender[sender]]
        scope = _scope(names, self._fleet.ip_of(self.home(sender)), provider)
        unsure = [label for label in self._unsure if not getattr(scope, label)]
        return Told(scope, knows.difference(unsure) if unsure else knows)

    def recipient(self, address: str) -> Told:
        """What the recipients' map is told by a recipient."""
        names = self._constant.whole[("",) * len(PARTS)]
        return Told(_scope(names, self._fleet.single, self.provider(address)), self.recipients)

    def provider(self, recipient: str) -> str:
        """The mailbox provider of a recipient: as given, or as learnt."""
        domain = domain_of(recipient)
        return (self._providers.get(domain) or self._learnt(domain)) if domain else ""

    def home(self, sender: str) -> str:
        """The transport of a sender, the same for each way; empty where it has none."""
        if not sender or len(sender) > LONGEST:
            return ""
        lower = sender.lower()
        stream = self._constant.whole[self._bare.of_sender[lower]][PARTS.index("stream")]
        return self._fleet.home(lower, stream)


def _scope(names: Names, ip: str, provider: str) -> Scope:
    return Scope(ip=ip, provider=provider, **dict(zip(PARTS, names, strict=True)))


def _owned(told: set[str]) -> frozenset[str]:
    return frozenset(told if "tenant" in told else told - set(OWNED))


def _groups(pattern: re.Pattern[str] | None) -> tuple[str, ...]:
    return tuple(pattern.groupindex) if pattern else ()
