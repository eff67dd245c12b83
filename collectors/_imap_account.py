"""The settings of a mail server and of whoever logs in there, and the connection that they make."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from imapclient.exceptions import LoginError
from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, model_validator

from collectors._imap_client import Client, Door, by_password, by_token, connect
from collectors._letters import Letterbox
from collectors._oauth import Tokens, safe_url
from monitor.ports import Duration

PORTS = {"tls": 993, "starttls": 143, "none": 143}


class Account(Letterbox):
    """A mailbox on an IMAP server."""

    secrets: ClassVar[tuple[str, ...]] = ("password", "client_secret", "refresh_token")

    host: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Name or address of the server.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="Its port; 993 with `tls`, 143 else, where none is named."
    )
    tls: Literal["tls", "starttls", "none"] = Field(
        default="tls", description="TLS from the first byte, by STARTTLS, or none at all, on this machine alone."
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates that the server's is checked against, in place of the system's."
    )
    user: Annotated[str, Field(min_length=1, pattern=r"^[^\r\n\x00\x01]+$")] = Field(description="Name to log in with.")
    password: SecretStr | None = Field(default=None, description="Password of that user; or else a token:")
    token_url: Annotated[str, AfterValidator(safe_url)] | None = Field(
        default=None, description="Where the provider gives access tokens (OAuth 2.0, used by XOAUTH2)."
    )
    client_id: str = Field(default="", description="How the provider knows your application.")
    client_secret: SecretStr | None = Field(default=None, description="Its secret, where the provider gave one.")
    refresh_token: SecretStr | None = Field(
        default=None, description="What access tokens are got with, from when the mailbox's owner signed in."
    )
    rotated_file: Path | None = Field(
        default=None, description="Where a refresh token is kept that the provider gives in place of the last one."
    )
    timeout: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=10))] = Field(
        default=timedelta(seconds=30), description="How long the server may be silent when it was asked."
    )
    _tokens: Tokens | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _reachable(self) -> Account:
        if self.tls == "none" and not _is_here(self.host):
            raise ValueError('tls = "none" is for 127.0.0.1, ::1 and localhost: set tls = "starttls" or "tls"')
        oauth = bool(self.token_url or self.refresh_token or self.client_id or self.client_secret)
        if oauth == bool(self.password):
            raise ValueError("give either a password (password_file), or token_url, client_id and refresh_token_file")
        if oauth and not (self.token_url and self.refresh_token and self.client_id):
            raise ValueError("a login by token needs token_url, client_id and refresh_token_file")
        return self

    @property
    def where(self) -> str:
        """The server for people."""
        return f"IMAP at {self.host}:{self.port_number}"

    @property
    def port_number(self) -> int:
        """The port that is named, or the usual one."""
        return self.port or PORTS[self.tls]

    def connected(self) -> Client:
        """A connection of its own, logged in; raises ``FAILURES``, and ``PluginError`` where no token can be had."""
        door = Door(self.host, self.port_number, self.tls, self.timeout.total_seconds(), self.ca_file)
        try:
            return connect(door, self._login())
        except LoginError:
            if self._tokens is None or not self._tokens.forget():
                raise
            return connect(door, self._login())  # the token was an old one, and may have been withdrawn

    def _login(self) -> Callable[[Client], object]:
        if self.password is not None:
            password = self.password.get_secret_value()
            return lambda client: by_password(client, self.user, password)
        token, self._tokens = self._token()
        return lambda client: by_token(client, self.user, token)

    def _token(self) -> tuple[str, Tokens]:
        assert self.token_url and self.refresh_token  # noqa: S101, PT018  # as `_reachable` has it
        tokens = self._tokens or Tokens(
            self.token_url,
            self.client_id,
            self.client_secret,
            self.refresh_token,
            kept=self.rotated_file,
            outgoing=self.outgoing,
        )
        return tokens.token(), tokens


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
