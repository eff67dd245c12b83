"""What a configuration says, as values: sections with their defaults, and the rules that hold without one."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import limits
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from monitor import dsn
from monitor.caller import Role
from monitor.core.policy import Guards
from monitor.core.rates import Rate
from monitor.core.rules import Pauses, Rule
from monitor.core.suppressing import Policy
from monitor.model import OWNED
from monitor.naming import Pattern
from monitor.places import place
from monitor.ports import Actuator, Duration, Notifier, Source


def address(text: object) -> object:
    """(host, port) from a text such as 127.0.0.1:8025 or [::1]:8025; what is no text passes through."""
    if not isinstance(text, str):
        return text
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address: write host:port, such as 127.0.0.1:8025")
    return host, int(port)


Address = Annotated[tuple[str, int], BeforeValidator(address)]
Network = Annotated[str, AfterValidator(lambda text: str(ip_network(text, strict=False)))]


def pace(text: str) -> str:
    """The text, if it says so many requests a time, such as 500/second or 20 per 5 minute.

    Raises:
        ValueError: it does not.
    """
    try:
        limits.parse(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no rate: write it like 500/second or 20 per 5 minute") from error
    return text


Pace = Annotated[str, AfterValidator(pace)]


class Section(BaseModel):
    """One table of the file; a key that it does not know is a mistake. ``secrets`` as a plugin's.

    ``parts``: keys that are tables themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    secrets: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[Mapping[str, type[Section]]] = {}


def facts_dsn(text: str) -> str:
    """The text, if it is empty or a DSN of facts."""
    return text and str(dsn.parse(text))


class Service(Section):
    """``[service]``: where the data stands, where to listen, how often to judge."""

    secrets: ClassVar[tuple[str, ...]] = ("facts_password",)

    data: Annotated[Path, AfterValidator(Path.absolute)] = Path("/var/lib/mailvane")
    facts: Annotated[str, AfterValidator(facts_dsn)] = ""  # in `data`, in this process
    facts_password: SecretStr = SecretStr("")
    listen: Address = ("127.0.0.1", 8025)
    gate: Address = ("127.0.0.1", 8026)
    token_file: Path | None = None
    tls_cert: Path | None = None  # of `listen`, with its chain; and its key, where no tls_key names one
    tls_key: Path | None = None
    cycle: Duration = timedelta(seconds=10)
    spool_limit: Annotated[int, Field(ge=1 << 20)] = 4 << 30  # bytes

    @model_validator(mode="after")
    def _whole(self) -> Service:
        if self.tls_key and not self.tls_cert:
            raise ValueError("tls_key without tls_cert: name both, or the certificate alone")
        return self


def signing(secret: SecretStr) -> SecretStr:
    """The secret, if it is one of Standard Webhooks, or some with blanks between: whsec_ and 24 to 64 bytes in base64.

    Raises:
        ValueError: it is not; nothing of it is repeated.
    """
    parts = secret.get_secret_value().split()
    for part in parts:
        try:
            size = len(b64decode(part.removeprefix("whsec_"), validate=True))
        except ValueError:
            size = 0
        if not part.startswith("whsec_") or not 24 <= size <= 64:
            raise ValueError("no secret of a webhook: make one with  echo whsec_$(openssl rand -base64 32)")
    if not parts:
        raise ValueError("an empty secret: make one with  echo whsec_$(openssl rand -base64 32)")
    return secret


def web(text: str) -> str:
    """The URL without a slash at its end, if what goes there can't be read on the way.

    Raises:
        ValueError: it is no URL, holds more than one should, or is plain HTTP to another machine.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("no URL: write https://host") from None
    if "@" in text:
        raise ValueError("a URL with credentials: write it without")
    if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment:
        raise ValueError(f"{text[:200]!r} is no URL: write https://host, without a query or a fragment")
    if parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(f"{text[:200]!r} could be read on the way: write https")
    return text.rstrip("/")


Web = Annotated[str, AfterValidator(web)]


class Oidc(Section):
    """``[access.oidc]``: people sign in at an identity provider, by OpenID Connect."""

    secrets: ClassVar[tuple[str, ...]] = ("client_secret",)

    issuer: Annotated[str, AfterValidator(lambda text: web(text) and text)]  # to the letter, as it says in its tokens
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: SecretStr = SecretStr("")  # none: a public client, with PKCE alone
    url: Web  # of this service, as browsers reach it
    label: Annotated[str, Field(max_length=60)] = "single sign-on"  # what the page calls the provider
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name: str = "preferred_username"  # the claim by which a person is called here
    groups: str = "groups"  # the claim with a person's groups; a dot leads into it, such as realm_access.roles
    roles: Mapping[Role, tuple[str, ...]] = Field(default_factory=dict)  # which groups have a role
    everybody: Role | None = None  # who is in none of those groups; nobody gets in so, unless it is said
    domains: tuple[str, ...] = ()  # of a verified e-mail address, if only some may come in
    lasts: Duration = timedelta(hours=24)  # until groups are looked at anew

    @model_validator(mode="after")
    def _whole(self) -> Oidc:
        if not self.everybody and not any(self.roles.values()):
            raise ValueError('no role for anybody: write roles = { operator = ["a group"] }, or everybody = "viewer"')
        if "openid" not in self.scopes:
            raise ValueError('scopes without "openid": add it')
        return self


class Access(Section):
    """``[access]``: who may do what without a key, who must agree, and how much anybody may ask for."""

    parts: ClassVar[Mapping[str, type[Section]]] = {"oidc": Oidc}

    anonymous: frozenset[Literal["read", "metrics", "check", "ingest"]] = frozenset()
    four_eyes: bool = False  # a second person agrees to a pause that is wider than what is held or known to be bad
    key_rate: Pace = "1000/second"  # requests of one key or person
    address_rate: Pace = "100/second"  # of one address without a key
    at_once: Annotated[int, Field(ge=1)] = 64  # requests of one key, or of one address without, that are under way
    local: bool = True  # people sign in by passwords of ours; a break-glass account always does
    idle: Duration = timedelta(hours=12)  # after which one who did nothing is signed out
    lasts: Duration = timedelta(days=7)  # after which everybody is
    oidc: Oidc | None = None

    @model_validator(mode="after")
    def _somehow(self) -> Access:
        if not self.local and self.oidc is None:
            raise ValueError("local = false without [access.oidc]: nobody could sign in, so add that section")
        return self


class Outgoing(Section):
    """``[outgoing]``: where we may connect to besides public addresses."""

    allow: tuple[Network, ...] = ()


class Quarantine(Section):
    """``[quarantine]``: how long and how much of what could not be read is kept, encrypted."""

    keep: Duration = timedelta(days=14)
    limit: Annotated[int, Field(ge=1 << 20)] = 1 << 30  # bytes


class Custody(Section):
    """``[keyring]``: how the keys of all pseudonyms rest, and where the key is that opens them."""

    secrets: ClassVar[tuple[str, ...]] = ("key",)

    custody: Literal["file", "environment", "command"] = "file"
    key: SecretStr = SecretStr("")  # 32 bytes, in base64 or hex
    command: tuple[str, ...] = ()  # prints such a key

    @model_validator(mode="after")
    def _whole(self) -> Custody:
        if self.custody == "command" and not self.command:
            raise ValueError('custody = "command" without command: write it as a list of words')
        return self


class Tracing(Section):
    """``[tracing]``: the keys by which our own messages are known again."""

    key_file: Path | None = None  # `trace.keys` in the data directory


class Attribution(Section):
    """``[attribution]``: how a bounce or complaint is led back to the message that it is about."""

    feedback_id: Pattern | None = None
    unsubscribe: Pattern | None = None  # searched for in List-Unsubscribe
    return_path: Pattern | None = None  # none: as the sources of mail logs have it
    believe: Literal["known", "labelled"] = "known"
    wait: Duration = timedelta(minutes=30)  # for the log to tell of the message
    within: Duration = timedelta(days=5)  # between the last mail to a recipient and the report
    hosts: Mapping[str, str] = Field(default_factory=dict)  # how a server calls itself → what its log calls it
    waiting: Annotated[int, Field(ge=0)] = 100_000

    @model_validator(mode="after")
    def _owned(self) -> Attribution:
        for name in ("feedback_id", "unsubscribe", "return_path"):
            groups = re.compile(getattr(self, name) or "").groupindex.keys()
            if "tenant" not in groups and (orphans := groups & set(OWNED)):
                raise ValueError(f"{name} tells {min(orphans)} without tenant: name one by a group")
        return self


class Automation(Section):
    """``[automation]``: whether automation's key turns anything."""

    mode: Literal["dry-run", "enforce"] = "dry-run"


class GuardLimits(Section):
    """``[guards]``: limits on what automation may hold."""

    held_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    actions_per_hour: Annotated[int, Field(ge=1)] = 6
    evidence_age: Duration = timedelta(minutes=15)


class Protected(Section):
    """``[protected]``: mail that automation never holds."""

    stream: tuple[str, ...] = ("transactional",)


class Retention(Section):
    """``[retention]``: how long each grain is kept."""

    events: Duration = timedelta(days=30)
    leaf: Duration = timedelta(days=7)
    minute: Duration = timedelta(days=90)
    hour: Duration = timedelta(days=730)
    levels: Duration = timedelta(days=1826)
    access: Duration = timedelta(days=400)  # who read or changed what


class Suppression(Section):
    """``[suppression]``: who should get no more mail, and for how long."""

    soft_bounces: Annotated[int, Field(ge=0)] = 5  # in `soft_days`; 0: they suppress nobody
    soft_days: Annotated[int, Field(ge=1, le=30)] = 14
    soft_keep: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(days=30)  # 0: for good
    hard_keep: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(days=180)  # 0: for good
    hold: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=1))] = timedelta(minutes=60)


class Webhook(Section):
    """``[webhook.NAME]``: somebody who is told what changes, signed as Standard Webhooks have it."""

    secrets: ClassVar[tuple[str, ...]] = ("secret",)

    url: Annotated[str, AfterValidator(lambda text: str(place(text)) and text), Field(repr=False)]  # may hold a key
    secret: Annotated[SecretStr, AfterValidator(signing)]
    events: frozenset[Literal["suppression.changed"]] = frozenset({"suppression.changed"})


class RuleTable(BaseModel):
    """``[rule.NAME]``: the keys that are the rule's own; all others belong to its detector (``kind``)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rate: Rate
    by: tuple[str, ...]
    window: Duration
    lease: Duration = timedelta(minutes=60)
    calm_for: Duration | None = None
    pauses: Pauses = Pauses.NEVER
    tenants: Annotated[int, Field(ge=2)] = 3
    providers: tuple[str, ...] = ()
    enabled: bool = True


# The providers' own limits: bounces as Amazon SES reviews and pauses senders, complaints as Google and Yahoo.
DEFAULT_RULES: Mapping[str, Mapping[str, Any]] = {
    "bounce-seller": {
        "kind": "threshold",
        "rate": "bounce",
        "by": ["tenant", "segment"],
        "window": "5m",
        "min_volume": 200,
        "alert": 0.05,
        "pause": 0.10,
        "lease": "60m",
        "pauses": "always",
    },
    "bounce-ip": {
        "kind": "threshold",
        "rate": "bounce",
        "by": ["ip", "provider"],
        "window": "5m",
        "min_volume": 500,
        "alert": 0.05,
        "pause": 0.10,
        "lease": "60m",
        "pauses": "shared",
    },
    "complaint-seller": {
        "kind": "threshold",
        "rate": "complaint",
        "by": ["tenant", "segment"],
        "window": "24h",
        "min_volume": 1000,
        "alert": 0.001,
        "pause": 0.003,
        "lease": "60m",
        "pauses": "always",
    },
    "return-seller": {
        "kind": "threshold",
        "rate": "return",
        "by": ["tenant", "segment"],
        "window": "24h",
        "min_volume": 1000,
        "alert": 0.05,
        "pause": 0.10,
        "lease": "60m",
        "pauses": "never",
    },
}


@dataclass(frozen=True, slots=True)
class GateSettings:
    """The part of a configuration that the gate reads. ``source`` names its file, or says that there is none."""

    source: str
    service: Service = field(default_factory=Service)
    access: Access = field(default_factory=Access)
    actuators: Mapping[str, Actuator] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.service.data / "ledger.sqlite"

    @property
    def token_file(self) -> Path:
        """Where the bearer token of the API stands."""
        return self.service.token_file or self.service.data / "token"


@dataclass(frozen=True, slots=True)
class Settings(GateSettings):
    """A whole valid configuration."""

    automation: Automation = field(default_factory=Automation)
    guard_limits: GuardLimits = field(default_factory=GuardLimits)
    protected: Protected = field(default_factory=Protected)
    retention: Retention = field(default_factory=Retention)
    outgoing: Outgoing = field(default_factory=Outgoing)
    quarantine: Quarantine = field(default_factory=Quarantine)
    keyring: Custody = field(default_factory=Custody)
    tracing: Tracing = field(default_factory=Tracing)
    attribution: Attribution = field(default_factory=Attribution)
    suppression: Suppression = field(default_factory=Suppression)
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    collectors: Mapping[str, Source] = field(default_factory=dict)
    alerts: Mapping[str, Notifier] = field(default_factory=dict)
    secret_files: Mapping[str, str] = field(default_factory=dict, compare=False)  # by the path of the key that names it

    @property
    def trace_keys(self) -> Path:
        """Where the keys of ``X-Mailvane`` stand."""
        return self.tracing.key_file or self.service.data / "trace.keys"

    @property
    def guards(self) -> Guards:
        """What policy needs to know."""
        return Guards(
            held_share=self.guard_limits.held_share,
            actions_per_hour=self.guard_limits.actions_per_hour,
            evidence_age=self.guard_limits.evidence_age,
            protected={"stream": self.protected.stream},
            dry_run=self.automation.mode == "dry-run",
        )

    @property
    def hygiene(self) -> Policy:
        """What suppression needs to know."""
        chosen = self.suppression
        return Policy(
            soft_bounces=chosen.soft_bounces,
            soft_within=timedelta(days=chosen.soft_days),
            soft_keep=chosen.soft_keep,
            hard_keep=chosen.hard_keep,
            hold=chosen.hold,
            protected=frozenset(self.protected.stream),
        )
