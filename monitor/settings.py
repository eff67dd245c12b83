"""What a configuration says, as values: sections with their defaults, and the rules that hold without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import limits
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from monitor import dsn
from monitor.core.policy import Guards
from monitor.core.rates import Rate
from monitor.core.rules import Pauses, Rule
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
    """One table of the file; a key that it does not know is a mistake. ``secrets`` as a plugin's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    secrets: ClassVar[tuple[str, ...]] = ()


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


class Access(Section):
    """``[access]``: who may do what without a key, who must agree, and how much anybody may ask for."""

    anonymous: frozenset[Literal["read", "metrics", "check", "ingest"]] = frozenset()
    four_eyes: bool = False  # a second person agrees to a pause that is wider than what is held or known to be bad
    key_rate: Pace = "500/second"  # requests of one key or person
    address_rate: Pace = "100/second"  # of one address without a key
    at_once: Annotated[int, Field(ge=1)] = 64  # requests of one key, or of one address without, that are under way


class Outgoing(Section):
    """``[outgoing]``: where we may connect to besides public addresses."""

    allow: tuple[Network, ...] = ()


class Quarantine(Section):
    """``[quarantine]``: how long and how much of what could not be read is kept, encrypted."""

    keep: Duration = timedelta(days=14)
    limit: Annotated[int, Field(ge=1 << 20)] = 1 << 30  # bytes


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


@dataclass(frozen=True, slots=True)
class Settings(GateSettings):
    """A whole valid configuration."""

    automation: Automation = field(default_factory=Automation)
    guard_limits: GuardLimits = field(default_factory=GuardLimits)
    protected: Protected = field(default_factory=Protected)
    retention: Retention = field(default_factory=Retention)
    outgoing: Outgoing = field(default_factory=Outgoing)
    quarantine: Quarantine = field(default_factory=Quarantine)
    rules: tuple[Rule, ...] = ()
    collectors: Mapping[str, Source] = field(default_factory=dict)
    alerts: Mapping[str, Notifier] = field(default_factory=dict)

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
    def token_file(self) -> Path:
        """Where the bearer token of the API stands."""
        return self.service.token_file or self.service.data / "token"
