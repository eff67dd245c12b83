"""Where the facts stand, as one line of text: a directory of ours, a ClickHouse server, or a cluster of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

_FORMS = "write chdb:///path/of/a/directory or clickhouse://user@host:port/database"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PORTS = {False: 8123, True: 8443}  # of ClickHouse's HTTP interface, plain and with TLS
_FLAGS = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True, slots=True)
class Embedded:
    """The engine inside the process, and its directory."""

    path: str

    def __str__(self) -> str:
        return f"chdb://{quote(self.path)}"


@dataclass(frozen=True, slots=True)
class Server:
    """A ClickHouse server, asked by HTTP. ``cluster``: its name for itself and its peers, empty where it is alone.

    ``ca`` is a file with the certificates to trust beside the system's. A password is no part of it.
    """

    host: str
    port: int
    user: str = "default"
    database: str = "mailvane"
    secure: bool = False
    cluster: str = ""
    ca: str = ""

    def __str__(self) -> str:
        more = {"secure": "1" if self.secure else "", "cluster": self.cluster, "ca": self.ca}
        query = urlencode({name: value for name, value in more.items() if value}, safe="/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"clickhouse://{quote(self.user, safe='')}@{host}:{self.port}/{self.database}{'?' + query if query else ''}"
        )


def parse(text: str) -> Embedded | Server:
    """What the text names: ``chdb:///path`` or ``clickhouse://user@host:port/database?secure=1&cluster=name&ca=file``.

    Raises:
        ValueError: it names neither, or holds a password; the text is not repeated where one may stand in it.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"the facts' DSN can't be read: {_FORMS}") from None
    if parts.password is not None:
        raise ValueError("a password must not stand in the DSN: name a file by facts_password_file")
    if parts.scheme == "chdb":
        return _embedded(parts)
    if parts.scheme == "clickhouse" and parts.hostname:
        return _server(parts, port)
    raise ValueError(f"this is no DSN of facts: {_FORMS}")


def _embedded(parts: SplitResult) -> Embedded:
    if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ValueError("the embedded engine takes a directory and nothing else: write chdb:///path/of/a/directory")
    return Embedded(unquote(parts.path))


def _server(parts: SplitResult, port: int | None) -> Server:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    secure = _FLAGS.get(options.pop("secure", "0").lower())
    if secure is None:
        raise ValueError("secure in the DSN is 0 or 1")
    cluster, ca = options.pop("cluster", ""), options.pop("ca", "")
    if options:
        raise ValueError(f"the DSN knows no option {min(options)!r}: there are secure, cluster and ca")
    return Server(
        host=parts.hostname or "",
        port=port or _PORTS[secure],
        user=unquote(parts.username or "default"),
        database=_name(parts.path.strip("/") or "mailvane", "database"),
        secure=secure,
        cluster=_name(cluster, "cluster") if cluster else "",
        ca=ca,
    )


def _name(text: str, what: str) -> str:
    """A name that stands in statements as it is."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a {what}: letters, digits and _ only")
    return text
