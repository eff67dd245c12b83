"""What ``[ship]`` says, as values."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from monitor.ports import Source
from monitor.settings import Section

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a node, and of a source that is shipped


def node_name(text: str) -> str:
    """The text, if a machine may be called so."""
    if not NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a node: letters, digits, dots, _ and -, such as mail-1")
    return text


def core_url(text: str) -> str:
    """The URL of a core, as written but for a slash at its end; empty as it is.

    Raises:
        ValueError: no such URL, credentials in it, or plain HTTP to another machine.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("no URL: write https://host:8025") from None
    if "@" in text:
        raise ValueError("a URL with credentials: the key comes from the file that token_file names")
    if text and (parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment):
        raise ValueError(f"{text!r} is no URL of a core: write https://host:8025")
    if parts.scheme == "http" and not is_loopback(host or ""):
        raise ValueError(
            f"{text!r} would carry addresses in the open: write https, and set tls_cert in the [service] of the core"
        )
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether that host is this machine, by its address or as localhost."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Ship(Section):
    """``[ship]``: where ``mailvane ship`` sends what its collectors bring, and where that waits meanwhile."""

    secrets: ClassVar[tuple[str, ...]] = ("token",)

    to: Annotated[str, AfterValidator(core_url)] = ""
    token: SecretStr = SecretStr("")
    node: Annotated[str, AfterValidator(node_name)] = Field(default_factory=socket.gethostname, validate_default=True)
    data: Annotated[Path, AfterValidator(Path.absolute)] = Path("/var/lib/mailvane/ship")
    spool_limit: Annotated[int, Field(ge=1 << 20)] = 1 << 30  # bytes
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Ship:
        if self.key_file and not self.cert_file:
            raise ValueError("key_file without cert_file: name both, or the certificate alone")
        return self


@dataclass(frozen=True, slots=True)
class ShipSettings:
    """The part of a configuration that ``mailvane ship`` reads."""

    source: str
    ship: Ship
    collectors: Mapping[str, Source] = field(default_factory=dict)
