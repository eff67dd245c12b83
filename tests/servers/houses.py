"""Houses that send mail by Postfix, each set up in its own way, and what an envelope tells there on each way of asking.

Written from what the documentation promises, so that it says by itself what the tier should know of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from monitor.actuators._fleet import Fleet
from monitor.model import LABELS, OWNED, Scope, named

VALUES = {
    "ip": ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
    "domain": ("shop.example", "mail.example"),
    "provider": ("gmail", "yahoo"),
    "stream": ("marketing", "transactional"),
    "tenant": ("s07", "s08"),
    "segment": ("lapsed", "buyers"),
    "campaign": ("c1", "c2"),
    "variant": ("v1", "v2"),
    "region": ("eu", "us"),
}
PROVIDERS = {"one.example": "gmail", "two.example": "yahoo"}
POOLS = {
    "default": ("smtp-1", "smtp-2"),
    "transactional": ("smtp-3:[relay.example]:25",),
    "quarantine": ("smtp-3:[relay.example]:25", "smtp-1"),
}
TRANSPORTS = dict(zip(("smtp-1", "smtp-2", "smtp-3"), VALUES["ip"], strict=True))


@dataclass(frozen=True)
class Mail:
    """A message as its sender sees it; a house writes of it into the envelope what it writes there."""

    labels: Scope
    to: str  # the recipient's domain
    has_user: bool
    size: int


class Told(NamedTuple):
    """What one way can tell of a message: these labels, and for those in ``knows`` also that there is none."""

    scope: Scope
    knows: frozenset[str]


class Message(NamedTuple):
    """A message as Postfix sees it, what each way can tell of it, and its ``home``: the transport or nothing."""

    sender: str
    user: str
    recipient: str
    size: int
    policy: Told
    senders: Told
    recipients: Told
    home: str


class Envelope(NamedTuple):
    """Sender and user, and what they and the defaults tell on each way: all but the provider and the IP."""

    sender: str
    user: str
    policy: Told
    senders: Told
    recipients: Told


class House(NamedTuple):
    """How somebody's Postfix is set up, and how envelopes are written there."""

    write: Callable[[Mail], Envelope]
    settings: Mapping[str, Any]

    @property
    def fleet(self) -> Fleet:
        """Its transports."""
        told = self.settings
        return Fleet(told.get("pools", {}), told.get("transports", {}), told.get("ip", ""))

    def message(self, mail: Mail) -> Message:
        """The mail with its envelope."""
        sender, user, policy, senders, recipients = self.write(mail)
        fleet = self.fleet
        home = fleet.home(sender, senders.scope.stream) if sender else ""
        provider, ip = Scope(provider=PROVIDERS.get(mail.to, "")), Scope(ip=fleet.ip_of(home))
        return Message(
            sender,
            user,
            f"jo@{mail.to}",
            mail.size,
            told(both(policy.scope, provider, ip), *policy.knows, "provider", "ip"),
            told(both(senders.scope, ip), *senders.knows, "ip"),
            told(both(recipients.scope, provider, Scope(ip=fleet.single)), *recipients.knows, "provider", *_ip(fleet)),
            home,
        )


def told(scope: Scope, *knows: str) -> Told:
    """Short for the constructor."""
    return Told(scope, frozenset(knows))


def both(*scopes: Scope) -> Scope:
    """The labels of all; where two name the same label the first one's."""
    labels = {name: value for scope in reversed(scopes) for name, value in named(scope).items()}
    return owned(labels)


def owned(labels: Mapping[str, str]) -> Scope:
    """The scope of these labels, without those that lack their tenant."""
    return Scope(**{name: labels.get(name, "") for name in LABELS if labels.get("tenant") or name not in OWNED})


def marketplace(mail: Mail) -> Envelope:
    """Senders name tenant, segment and stream, or else the user may name the tenant; the user names a region too."""
    its, sender = mail.labels, f"news@{mail.labels.domain}" if mail.labels.domain else ""
    by_sender = told(its.only("domain"), "domain", "segment", "stream")
    if its.domain and its.segment and its.stream:
        sender = f"bounces+{its.tenant}.{its.segment}.{its.stream}@{its.domain}"
        by_sender = told(its.only("domain", "tenant", "segment", "stream"), *by_sender.knows, "tenant")
    has_user = mail.has_user and its.tenant and its.region
    by_user = its.only("tenant", "region") if has_user else Scope()
    whole = told(both(by_sender.scope, by_user), *by_sender.knows, "tenant", "region")
    return Envelope(sender, ".".join(named(by_user).values()), whole, by_sender, told(Scope()))


def shop(mail: Mail) -> Envelope:
    """All mail is of one tenant and from one IP; its sender names a segment at most, or nothing: then it is a bounce."""
    its, knows = mail.labels, ("domain", "tenant", "segment", "stream")
    usual = Scope(tenant="s07", stream="marketing")
    by_recipient = told(usual, "tenant", "stream")
    if not its.domain:
        return Envelope("", "", told(Scope(), *knows), told(Scope()), by_recipient)
    whole = told(both(usual, its.only("domain"), Scope(tenant="s07", segment=its.segment)), *knows)
    return Envelope(f"{its.segment or 'news'}@{its.domain}", "", whole, whole, by_recipient)


def agency(mail: Mail) -> Envelope:
    """Stream and tenant are the usual ones, unless the sender or the user names others."""
    its, receipt = mail.labels, mail.labels.stream == "transactional"
    domain, stream = (
        Scope(domain=its.domain or "shop.example"),
        Scope(stream="transactional" if receipt else "marketing"),
    )
    user = its.tenant if mail.has_user else ""
    whole = told(both(domain, stream, Scope(tenant=user or "s07")), "domain", "stream", "tenant")
    by_sender = told(both(domain, stream), "domain", "stream") if receipt else told(domain, "domain")
    sender = f"{'transactional' if receipt else 'news'}@{domain.domain}"
    return Envelope(sender, user, whole, by_sender, told(Scope()))


def _ip(fleet: Fleet) -> tuple[str, ...]:
    return ("ip",) if fleet.single else ()


HOUSES = {
    "marketplace": House(
        marketplace,
        {
            "sender_pattern": r"^bounces\+(?P<tenant>[^.]+)\.(?P<segment>[^.]+)\.(?P<stream>[^.@]+)@",
            "sasl_pattern": r"^(?P<tenant>\w+)\.(?P<region>\w+)$",
            "providers": PROVIDERS,
            "pools": POOLS,
            "transports": TRANSPORTS,
        },
    ),
    "shop": House(
        shop,
        {
            "sender_pattern": r"^(?!news@)(?P<segment>\w+)@",
            "tenant": "s07",
            "stream": "marketing",
            "providers": PROVIDERS,
            "ip": VALUES["ip"][0],
        },
    ),
    "agency": House(
        agency,
        {
            "sender_pattern": r"^(?P<stream>transactional)@",
            "sasl_pattern": r"^(?P<tenant>\w+)$",
            "tenant": "s07",
            "stream": "marketing",
            "providers": PROVIDERS,
            "pools": POOLS,
            "transports": TRANSPORTS,
        },
    ),
}
