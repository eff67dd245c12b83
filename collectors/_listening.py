"""The settings of what is sent to us over the network, and the listener that they make."""

from __future__ import annotations

import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from collectors._listener import Listener
from monitor.ports import Collector, PluginError


def _place(text: object) -> object:
    if isinstance(text, tuple):
        return text
    if not isinstance(text, str):
        raise ValueError(f'{text!r} is no address: write it as one text, such as "127.0.0.1:6514"')  # noqa: TRY004  # pydantic's
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address: write host:port, such as 127.0.0.1:6514")
    return host.strip("[]"), int(port)


def _networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        try:
            ip_network(text)
        except ValueError:
            raise ValueError(f"{text!r} is no network: write it like 10.0.0.0/8 or 192.0.2.7") from None
    return texts


Place = Annotated[tuple[str, int], BeforeValidator(_place)]


class Listening(Collector):
    """Is sent lines over the network."""

    listen: Place = Field(description="`host:port` on which TCP is listened for.")
    udp: bool = Field(default=False, description="Whether the same port takes datagrams too.")
    cert_file: Path | None = Field(default=None, description="Our certificate: TCP speaks TLS then.")
    key_file: Path | None = Field(default=None, description="The key of our certificate, if it is in another file.")
    ca_file: Path | None = Field(default=None, description="Whoever sends must show a certificate signed by these.")
    allow: Annotated[tuple[str, ...], AfterValidator(_networks)] = Field(
        default=(), description="Networks and addresses that may send; without them whoever reaches the port."
    )
    connections: Annotated[int, Field(ge=1, le=10_000)] = Field(default=500, description="The most at a time.")

    @model_validator(mode="after")
    def _whole(self) -> Listening:
        if (self.key_file or self.ca_file) and not self.cert_file:
            raise ValueError("TLS without cert_file: name our certificate")
        return self

    def opened(self) -> Listener:
        """A listener as configured.

        Raises:
            PluginError: the address or a file can't be used.
        """
        networks = tuple(ip_network(text) for text in self.allow)
        listener = Listener(self.listen, networks, self.connections, self._context(), udp=self.udp)
        try:
            listener.start()
        except OSError as error:
            where = "{}:{}".format(*self.listen)
            why = f"{error.strerror or error}: choose another port, or end what has it"
            raise PluginError(f"{where} can't be listened on: {why}", retry=True) from error
        return listener

    def _context(self) -> ssl.SSLContext | None:
        if not self.cert_file:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert_file, self.key_file)
            if self.ca_file:
                context.load_verify_locations(self.ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:
            files = ", ".join(str(file) for file in (self.cert_file, self.key_file, self.ca_file) if file)
            why = "no certificate, or a key that does not fit" if isinstance(error, ssl.SSLError) else error.strerror
            raise PluginError(f"{files} can't be used: {why}", retry=True) from error
        return context
